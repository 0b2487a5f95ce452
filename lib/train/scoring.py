"""Scoring videos: their views, the fusion of the views, the metrics."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from lib.augment.views import EvalTransform
from lib.data.clip_sampling import uniform_clip_indices
from lib.data.dataloader import make_loader
from lib.data.dataset import VideoDataset
from lib.data.video_reader import FrameReader
from lib.runs.device import autocast
from lib.runs.distributed import DistContext


@dataclass(frozen=True)
class EvalProtocol:
    """How a video is tested.

    Attributes:
        num_clips: Evenly spaced clips per video.
        clip_len: Frames in a clip.
        frame_interval: Distance of neighbouring frames, in frames.
        crops: Size of the frames, and the crops of a clip.
        fusion: What is averaged over the views: `scores` (logits) or `probabilities`.

    Source: Zou et al., section 4.1: 10 clips × 3 crops of 256; 1 × 1 of 224 in validation.
    """

    num_clips: int
    clip_len: int
    frame_interval: int
    crops: EvalTransform
    fusion: Literal["logits", "probabilities"] = "logits"


class VideoViews(Dataset):
    """All views of one video, decoded once: (V, T, 3, crop, crop), uint8, V = clips × crops."""

    def __init__(
        self, dataset: VideoDataset, rows: np.ndarray, protocol: EvalProtocol, reader: FrameReader
    ):
        self.dataset, self.rows, self.protocol, self.reader = dataset, rows, protocol, reader

    def __len__(self) -> int:
        """Return the number of videos."""
        return len(self.rows)

    def __getitem__(self, position: int) -> Tensor:
        """Return the views of the video at a position of `rows`."""
        p = self.protocol
        record = self.dataset.record(self.rows[position])
        indices = uniform_clip_indices(record.num_frames, p.clip_len, p.frame_interval, p.num_clips)
        wanted, positions = np.unique(indices, return_inverse=True)
        frames = self.reader.read(record, wanted)
        return p.crops.views(frames, positions.reshape(indices.shape))


def _stack(videos: list[Tensor]) -> Tensor:
    """Make a batch of the views of videos; one video, with its many views, is not copied."""
    return torch.stack(videos) if len(videos) > 1 else videos[0][None]


def fuse(logits: Tensor, fusion: str) -> Tensor:
    """Average over views: (videos, views, K) -> (videos, K), of scores or of probabilities."""
    return (logits.softmax(dim=-1) if fusion == "probabilities" else logits).mean(dim=1)


@torch.no_grad()
def score_videos(
    model: nn.Module,
    normalize: nn.Module,
    dataset: VideoDataset,
    rows: np.ndarray,
    protocol: EvalProtocol,
    world: DistContext,
    *,
    batch_clips: int = 32,
    num_workers: int = 0,
    precision: str = "fp32",
    reader: FrameReader | None = None,
    progress: Callable[[int], None] = lambda count: None,
) -> np.ndarray:
    """Score videos, shared among the processes; no video is scored twice.

    Args:
        model: Clips (B, 3, T, H, W) -> logits (B, K); put into evaluation mode and back.
        normalize: uint8 clips (B, T, 3, H, W) -> normalised (B, 3, T, H, W).
        dataset: The prepared data set.
        rows: Index rows of the videos, shape (N,).
        protocol: The views and their fusion.
        world: The processes; each returns all scores.
        batch_clips: Views in one forward pass, of several videos or of a part of one.
        num_workers: Loader processes.
        precision: Of the forward pass: `fp32`, `bf16` or `fp16`.
        reader: Reads the frames; None makes one without a cache.
        progress: Called with the number of videos after each batch of this process.

    Returns:
        Fused scores, shape (N, K), float32, in the order of `rows`.
    """
    was_training = model.training
    model.eval()
    mine = rows[world.rank :: world.world_size]
    batches = make_loader(
        VideoViews(dataset, mine, protocol, reader or FrameReader()),
        num_workers,
        batch_size=max(1, batch_clips // (protocol.num_clips * protocol.crops.num_crops)),
        collate_fn=_stack,
        pin_memory=world.device.type == "cuda",
    )
    scores = []
    for batch in batches:
        parts = batch.flatten(0, 1).split(batch_clips)
        clips = (normalize(part.to(world.device, non_blocking=True)) for part in parts)
        with autocast(world.device, precision):
            logits = torch.cat([model(part).float() for part in clips])
        scores.append(fuse(logits.unflatten(0, batch.shape[:2]), protocol.fusion).cpu())
        progress(len(batch))
    model.train(was_training)
    parts = world.all_gather(torch.cat(scores).numpy() if scores else None)
    num_classes = max(part.shape[1] for part in parts if part is not None)
    everything = np.empty((len(rows), num_classes), dtype=np.float32)
    for rank, part in enumerate(parts):
        if part is not None:
            everything[rank :: world.world_size] = part
    return everything


def metrics(scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Return top-1, top-5 and mean class accuracy, in percent.

    A video counts for top-k if fewer than k other classes score at least as high as its own, so
    that neither ties nor NaN ever help. Classes without a video do not count in the mean over
    classes.

    Args:
        scores: Shape (N, K).
        labels: Class indices, shape (N,).

    Returns:
        `top1`, `top5`, `mean_class_accuracy`.
    """
    own = scores[np.arange(len(labels)), labels]
    rank = (~(scores < own[:, None])).sum(axis=1) - 1
    per_class = [(rank[labels == label] == 0).mean() for label in np.unique(labels)]
    return {
        "top1": 100 * float((rank < 1).mean()),
        "top5": 100 * float((rank < 5).mean()),
        "mean_class_accuracy": 100 * float(np.mean(per_class)),
    }
