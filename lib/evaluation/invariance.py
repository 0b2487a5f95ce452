"""How invariant a trained network is: the paper's claim, measured.

For each augmentation family the network sees the centre clip of a video as it is, and after an
operation of that family. `agreement` is the share of draws in which the predicted class stays the
same; `kl` is KL(p(y|clip) ‖ p(y|augmented clip)) in nats, the mean over the draws. With person
boxes, accuracy on the actor alone and on the background alone says what the network looks at.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.augment.actor_cutmix import actor_cutmix
from lib.augment.masks import boxes_to_mask
from lib.augment.transforms import (
    EvalTransform,
    RandAugment,
    TemporalAugment,
    eval_crops,
    resized_size,
)
from lib.clips import make_generator
from lib.config import ClipSettings
from lib.data.actors import ACTORS_FILE, ActorBoxes
from lib.data.dataset import VideoDataset
from lib.data.video import FrameReader, uniform_clip_indices

FAMILIES = ("photometric", "geometric", "temporal", "scene")
TEMPORAL = ("half", "reverse", "drop")


@dataclass(frozen=True)
class InvarianceScores:
    """What was measured.

    Attributes:
        families: Columns family, agreement (percent), kl (nats), draws; `scene` only with boxes.
        accuracy: Top-1 in percent on `whole clip`, and with boxes on `actor only` and
            `background only`; columns input, top1, videos.
    """

    families: pd.DataFrame
    accuracy: pd.DataFrame


class CenterClips:
    """The centre clip of a video and its person mask, at the size of the network's input.

    Args:
        dataset: The prepared data set.
        settings: How clips are made.
    """

    def __init__(self, dataset: VideoDataset, settings: ClipSettings):
        self.dataset, self.settings = dataset, settings
        self.transform = EvalTransform(settings.short_side, settings.crop_size, 1)
        self.reader = FrameReader()
        has_boxes = (dataset.folder / ACTORS_FILE).is_file()
        self.actors = ActorBoxes(dataset) if has_boxes else None

    def __call__(self, row: int) -> tuple[Tensor, Tensor | None]:
        """Return the clip (T, 3, H, W), uint8, and the mask (T, 1, H, W), None without boxes."""
        s = self.settings
        record = self.dataset.record(row)
        indices = uniform_clip_indices(record.num_frames, s.clip_len, s.frame_interval, 1)[0]
        clip = self.transform(self.reader.read(record, indices))[0]
        if self.actors is None:
            return clip, None
        height, width = resized_size(record.height, record.width, s.short_side)
        x, y, *_ = eval_crops(height, width, s.crop_size, 1)[0]
        scale = np.array([width / record.width, height / record.height] * 2)
        boxes = self.actors.lookup(row, indices, s.actor_min_score)
        moved = [frame * scale - np.array([x, y, x, y]) for frame in boxes]
        return clip, boxes_to_mask(moved, s.crop_size, s.crop_size)


@torch.no_grad()
def measure_invariance(
    model: nn.Module,
    normalize: nn.Module,
    dataset: VideoDataset,
    rows: np.ndarray,
    settings: ClipSettings,
    *,
    num_draws: int = 2,
    seed: int = 0,
    batch_videos: int = 16,
) -> InvarianceScores:
    """Measure a network on videos.

    Args:
        model: Clips (B, 3, T, H, W) -> logits (B, K), on the device of `normalize`.
        normalize: uint8 clips (B, T, 3, H, W) -> normalised (B, 3, T, H, W).
        dataset: The prepared data set.
        rows: Index rows of the videos, shape (N,).
        settings: Clip size and RandAugment's strength.
        num_draws: Draws of each family per video.
        seed: Seed of the draws.
        batch_videos: Videos in one forward pass; scene partners are within it.

    Source: Zou et al., section 1 (invariances as the aim) and 4.5; the measure is this project's.
    """
    model.eval()
    clips_of = CenterClips(dataset, settings)
    labels = torch.from_numpy(dataset.index["label"].to_numpy()[rows])
    same: dict[str, list[Tensor]] = {family: [] for family in FAMILIES}
    divergence: dict[str, list[Tensor]] = {family: [] for family in FAMILIES}
    right: dict[str, list[Tensor]] = {}
    for start in range(0, len(rows), batch_videos):
        part = [clips_of(int(row)) for row in rows[start : start + batch_videos]]
        clips = torch.stack([clip for clip, _ in part])
        masks = None if part[0][1] is None else torch.stack([mask for _, mask in part])
        whole = _predict(model, normalize, clips)
        for draw in range(num_draws):
            views = _views(clips, masks, settings, normalize, (seed, start, draw))
            for family, (view, shown) in views.items():
                logits = _predict(model, normalize, view)
                same[family].append((logits.argmax(1) == whole.argmax(1))[shown])
                log_p, log_q = whole.log_softmax(1), logits.log_softmax(1)
                kl = F.kl_div(log_q, log_p, log_target=True, reduction="none").sum(1)
                divergence[family].append(kl[shown])
        truth = labels[start : start + batch_videos]
        for name, (view, shown) in _parts(clips, masks, normalize).items():
            logits = whole if name == "whole clip" else _predict(model, normalize, view)
            right.setdefault(name, []).append((logits.argmax(1) == truth)[shown])
    return InvarianceScores(_family_table(same, divergence), _accuracy_table(right))


def _predict(model: nn.Module, normalize: nn.Module, clips: Tensor) -> Tensor:
    """Return logits on the CPU; `clips` are uint8, or already normalised."""
    device = normalize.mean.device
    clips = normalize(clips.to(device)) if clips.dtype == torch.uint8 else clips.to(device)
    return model(clips).float().cpu()


def _views(
    clips: Tensor,
    masks: Tensor | None,
    settings: ClipSettings,
    normalize: nn.Module,
    key: tuple[int, ...],
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return per family the augmented clips and which of them were changed."""
    everything = torch.ones(len(clips), dtype=torch.bool)
    temporal, views = TemporalAugment(TEMPORAL), {}
    for family in ("photometric", "geometric"):
        augment = RandAugment(
            settings.randaugment_num_ops, settings.randaugment_magnitude, [family]
        )
        changed = []
        for number, clip in enumerate(clips):
            generator = make_generator(*key, number, FAMILIES.index(family))
            changed.append(augment.apply(clip, augment.draw(*clip.shape[-2:], generator)))
        views[family] = torch.stack(changed), everything
    generators = [make_generator(*key, k, FAMILIES.index("temporal")) for k in range(len(clips))]
    views["temporal"] = (
        torch.stack(
            [
                temporal.apply(clip, temporal.draw(len(clip), generator))
                for clip, generator in zip(clips, generators, strict=True)
            ]
        ),
        everything,
    )
    if masks is not None and key[-1] == 0:  # the partner is fixed, so further draws are the same
        normal = normalize(clips.to(normalize.mean.device)).cpu()
        mask = masks.transpose(1, 2).float()
        mixed = actor_cutmix(normal, normal, mask, 1.0, make_generator(*key))
        views["scene"] = mixed.clips, mixed.label_weight < 1
    return views


def _parts(
    clips: Tensor, masks: Tensor | None, normalize: nn.Module
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the whole clips, the actors alone and the backgrounds alone; 0 is the mean colour.

    In the background, every place that an actor visits is covered in all frames: a hole that moved
    with the actor would show the action.
    """
    everything = torch.ones(len(clips), dtype=torch.bool)
    if masks is None:
        return {"whole clip": (clips, everything)}
    normal = normalize(clips.to(normalize.mean.device)).cpu()
    mask = masks.transpose(1, 2).float()
    has_both = (masks.flatten(1).min(1).values == 0) & (masks.flatten(1).max(1).values == 1)
    return {
        "whole clip": (clips, everything),
        "actor only": (normal * mask, has_both),
        "background only": (normal * (1 - mask.amax(dim=2, keepdim=True)), has_both),
    }


def _family_table(same: dict[str, list], divergence: dict[str, list]) -> pd.DataFrame:
    rows = []
    for family in FAMILIES:
        if not same[family]:
            continue
        agreement = torch.cat(same[family]).float()
        if len(agreement):
            kl = torch.cat(divergence[family]).mean()
            rows.append((family, 100 * float(agreement.mean()), float(kl), len(agreement)))
    return pd.DataFrame(rows, columns=["family", "agreement", "kl", "draws"])


def _accuracy_table(right: dict[str, list]) -> pd.DataFrame:
    rows = []
    for name, parts in right.items():
        values = torch.cat(parts).float()
        if len(values):
            rows.append((name, 100 * float(values.mean()), len(values)))
    return pd.DataFrame(rows, columns=["input", "top1", "videos"])
