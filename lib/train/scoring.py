"""Scores of videos: views, their fusion, metrics."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset

from lib.augment.views import EvalTransform
from lib.config import TrainSettings
from lib.data.clip_dataset import make_loader, uniform_clip_indices
from lib.data.dataset import VideoDataset
from lib.data.video_reader import FrameReader
from lib.runs.device import autocast
from lib.runs.distributed import DistContext


@dataclass(frozen=True)
class EvalProtocol:
    """Views of a video in a test, and their fusion.

    Source: Zou et al., section 4.1: 10 clips × 3 crops of 256; 1 × 1 of 224 in validation.
    """

    num_clips: int  # evenly spaced clips per video
    clip_len: int  # frames in a clip
    frame_interval: int  # distance between neighboring frames, in frames
    crops: EvalTransform  # size of the frames and crops of a clip
    fusion: Literal["logits", "probabilities"] = "logits"  # what is averaged over the views

    @property
    def span(self) -> int:
        """Frames of a video from the first frame of a clip to its end."""
        return self.clip_len * self.frame_interval


def val_protocol(settings: TrainSettings) -> EvalProtocol:
    """Return the protocol of validation: one center clip, one center crop."""
    crops = EvalTransform(settings.short_side, settings.crop_size, num_crops=1)
    return EvalProtocol(1, settings.clip_len, settings.frame_interval, crops)


def test_protocol(settings: TrainSettings) -> EvalProtocol:
    """Return the protocol of the final test (`test_*`)."""
    s = settings
    crops = EvalTransform(s.short_side, s.test_crop_size, s.test_num_crops)
    return EvalProtocol(s.test_num_clips, s.clip_len, s.frame_interval, crops, s.test_average)


class VideoViews(Dataset):
    """Arguments of `EvalTransform.views` for one video: its frames, decoded once, and its clips.

    Views of a video repeat its frames, so they are cut where they are scored. `rows` (N,) are the
    index rows of the videos, `frame_cache_mb` is as in `FrameReader`.
    """

    def __init__(
        self,
        dataset: VideoDataset,
        rows: np.ndarray,
        protocol: EvalProtocol,
        frame_cache_mb: float = 0,
    ):
        self.dataset, self.rows, self.protocol = dataset, rows, protocol
        self.reader = FrameReader(dataset, frame_cache_mb)

    def __len__(self) -> int:
        """Return the number of videos."""
        return len(self.rows)

    def __getitem__(self, position: int) -> tuple[Tensor, np.ndarray]:
        """Return the resized frames (N, 3, h, w), uint8, and the clips (clips, T) of a video."""
        p = self.protocol
        record = self.dataset.record(self.rows[position])
        indices = uniform_clip_indices(record.num_frames, p.clip_len, p.frame_interval, p.num_clips)
        unique, positions = np.unique(indices, return_inverse=True)
        frames = self.reader.read(record, unique)
        return p.crops.resize(frames), positions.reshape(indices.shape)


def fuse(logits: Tensor, fusion: str) -> Tensor:
    """Average logits or probabilities over views: (videos, views, K) -> (videos, K)."""
    return (logits.softmax(dim=-1) if fusion == "probabilities" else logits).mean(dim=1)


@torch.no_grad()
def score_videos(
    model: nn.Module,
    normalize: nn.Module,
    views: VideoViews,
    world: DistContext,
    *,
    batch_clips: int = 32,
    num_workers: int = 0,
    precision: str = "fp32",
    on_batch: Callable[[int], None] = lambda num_videos: None,
) -> np.ndarray:
    """Score N videos, divided among the processes: fused scores (N, K), float32, in each of them.

    The network turns normalized clips (B, 3, T, H, W) into logits (B, K), `batch_clips` in one
    forward pass; it is put into evaluation mode and back. `normalize` takes uint8 clips (B, T, 3,
    H, W). `on_batch` is called with the number of videos after each batch of this process.
    """
    was_training = model.training
    model.eval()
    protocol = views.protocol
    batches = make_loader(
        Subset(views, range(world.rank, len(views), world.world_size)),
        num_workers,
        batch_size=max(1, batch_clips // (protocol.num_clips * protocol.crops.num_crops)),
        collate_fn=list,
        pin_memory=world.device.type == "cuda",
    )
    scores = []
    for batch in batches:
        videos = [
            protocol.crops.views(frames.to(world.device, non_blocking=True), clips)
            for frames, clips in batch
        ]
        all_views = torch.cat(videos) if len(videos) > 1 else videos[0]
        parts = all_views.split(batch_clips)
        with autocast(world.device, precision):
            logits = torch.cat([model(normalize(part)).float() for part in parts])
        scores.append(fuse(logits.unflatten(0, (len(batch), -1)), protocol.fusion).cpu())
        on_batch(len(batch))
    model.train(was_training)
    parts = world.all_gather(torch.cat(scores).numpy() if scores else None)
    num_classes = max(part.shape[1] for part in parts if part is not None)
    all_scores = np.empty((len(views), num_classes), dtype=np.float32)
    for rank, part in enumerate(parts):
        if part is not None:
            all_scores[rank :: world.world_size] = part
    return all_scores


def metrics(scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Return top-1, top-5 and mean class accuracy of scores (N, K) for labels (N,), in percent.

    A video counts for top-k if fewer than k other classes score at least as high as its own, so
    that ties and NaN count as errors. Classes without a video are left out of the mean over
    classes.
    """
    own = scores[np.arange(len(labels)), labels]
    rank = (~(scores < own[:, None])).sum(axis=1) - 1
    per_class = [(rank[labels == label] == 0).mean() for label in np.unique(labels)]
    return {
        "top1": 100 * float((rank < 1).mean()),
        "top5": 100 * float((rank < 5).mean()),
        "mean_class_accuracy": 100 * float(np.mean(per_class)),
    }
