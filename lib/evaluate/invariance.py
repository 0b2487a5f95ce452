"""Invariance of a trained network to each augmentation family: the paper's claim, measured.

The network sees the center clip of a video unchanged, and after an operation of a family.
`agreement` is the share of draws in which the predicted class stays the same; `kl` is
KL(p(y|clip) ‖ p(y|augmented clip)) in nats, the mean over the draws, without calibration. With
person boxes, the accuracy on the actor or the background alone shows which the network uses. Pairs
of classes that a flip or a reversal swaps are what a network must not be invariant to.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from lib.augment.randaugment import OPERATION_GROUPS, RandAugment
from lib.augment.scene import actor_cutmix
from lib.augment.temporal import TEMPORAL_OPS, TemporalAugment
from lib.augment.views import EvalTransform, boxes_to_mask, eval_crops, resized_size
from lib.config import ClipSettings, EvaluateSettings
from lib.data.clip_dataset import make_generator, uniform_clip_indices
from lib.data.dataset import VideoDataset
from lib.data.frame_tables import open_person_boxes
from lib.data.video_reader import FrameReader
from lib.evaluate.run_results import SplitResult
from lib.evaluate.trained_model import TrainedModel
from lib.fileio import write_text
from lib.runs.run_dir import RunDir

CLIP_REGIONS = ("whole clip", "actor only", "background only")


class CenterClips:
    """The center clip of a video and its person mask, as in validation; deterministic."""

    def __init__(self, dataset: VideoDataset, settings: ClipSettings):
        self.dataset, self.settings = dataset, settings
        self.transform = EvalTransform(settings.short_side, settings.crop_size, 1)
        self.reader = FrameReader()
        self.boxes = open_person_boxes(dataset)

    def __call__(self, row: int) -> tuple[Tensor, Tensor | None]:
        """Return the clip (T, 3, H, W), uint8, and the mask (T, 1, H, W), None without boxes."""
        record, s = self.dataset.record(row), self.settings
        indices = uniform_clip_indices(record.num_frames, s.clip_len, s.frame_interval, 1)[0]
        clip = self.transform(self.reader.read(record, indices))[0]
        if self.boxes is None:
            return clip, None
        boxes = self.boxes.lookup(row, indices, s.person_min_score)
        return clip, center_crop_mask(boxes, record.height, record.width, self.transform)


def center_crop_mask(
    boxes: Sequence[np.ndarray], height: int, width: int, transform: EvalTransform
) -> Tensor:
    """Return 1 inside the boxes of frames of height x width: (T, 1, crop, crop), uint8."""
    side = transform.crop_size
    resized_height, resized_width = resized_size(height, width, transform.short_side)
    x, y, *_ = eval_crops(resized_height, resized_width, side, 1)[0]
    scale = np.array([resized_width / width, resized_height / height] * 2)
    moved = [frame * scale - np.array([x, y, x, y]) for frame in boxes]
    return boxes_to_mask(moved, side, side)


def actor_and_background(clips: Tensor, mask: Tensor, fill: Tensor) -> tuple[Tensor, Tensor]:
    """Return the actors alone and the background alone of clips (..., T, 3, H, W).

    The background is covered in all frames at every pixel that an actor visits: a hole that moves
    with the actor would show the action. The mask is 1 on people, (..., T, 1, H, W); `fill` is the
    color of covered pixels.
    """
    ever = mask.amax(dim=-4, keepdim=True).bool()
    return torch.where(mask.bool(), clips, fill), torch.where(ever, fill, clips)


@dataclass(frozen=True)
class ClipRegions:
    """A clip, its actor alone and its background alone, with the predictions, by region."""

    clips: dict[str, Tensor]  # (T, 3, H, W), uint8
    probabilities: dict[str, np.ndarray]  # of the classes, (K,)
    note: str = ""  # the reason why there is only the whole clip


def predict_regions(
    model: TrainedModel, clip: Tensor, mask: Tensor | None = None, note: str = ""
) -> ClipRegions:
    """Predict a clip (T, 3, H, W), uint8, as a whole, its actors and its background alone.

    Without a mask (T, 1, H, W), or with a note, the whole clip only.
    """
    clips = {CLIP_REGIONS[0]: clip}
    if mask is not None and not note:
        fill = model.normalize.mean.round().to("cpu", torch.uint8)
        clips |= zip(CLIP_REGIONS[1:], actor_and_background(clip, mask, fill), strict=True)
    logits = model.view_logits(torch.stack(list(clips.values())))
    probabilities = model.probabilities(logits[:, None]).numpy()
    return ClipRegions(clips, dict(zip(clips, probabilities, strict=True)), note)


def boxes_note(mask: Tensor | None) -> str:
    """Return the reason why a mask of person boxes leaves no actor or no background, or ""."""
    if mask is None:
        return "no person boxes: notebook 1 creates them"
    if not mask.any():
        return "no person was found in this clip"
    return "the boxes cover the whole clip" if mask.all() else ""


class InvarianceScores(NamedTuple):
    """Invariance to augmentation families, accuracy on clip regions, and swapped classes."""

    families: pd.DataFrame  # family, agreement (percent), kl (nats), draws; scene only with boxes
    accuracy: pd.DataFrame  # input (of `CLIP_REGIONS`), top1 (percent), videos
    swaps: pd.DataFrame  # as `count_swaps` returns


def invariance_of(settings: EvaluateSettings, result: SplitResult) -> InvarianceScores:
    """Measure a run's invariance on `invariance_videos` random videos of a split.

    Writes `invariance_{families,inputs,swaps}.csv` to the run's folder.
    """
    run, dataset = RunDir(settings.run_dir), result.dataset
    model = TrainedModel.load(run, classes=dataset.classes)
    order = np.random.default_rng(0).permutation(len(result.rows))
    rows = result.rows[np.sort(order[: settings.invariance_videos])]
    scores = measure_invariance(model, dataset, rows)
    for name, table in zip(("families", "inputs", "swaps"), scores, strict=True):
        write_text(run.folder / f"invariance_{name}.csv", table.to_csv(index=False))
    return scores


def measure_invariance(
    model: TrainedModel,
    dataset: VideoDataset,
    rows: np.ndarray,
    *,
    num_draws: int = 2,
    seed: int = 0,
    batch_videos: int = 16,
) -> InvarianceScores:
    """Measure a network on videos, by index row, with `num_draws` draws of each family per video.

    The settings of the network give the clip size and RandAugment's strength. Scene partners are
    within one batch.

    Source: Zou et al., section 1 (invariances as the aim) and 4.5; the measure is this project's.
    """
    center_clips = CenterClips(dataset, model.settings)
    labels = torch.from_numpy(dataset.index["label"].to_numpy()[rows])
    changes, answers, predicted = [], [], []
    for start in range(0, len(rows), batch_videos):
        batch = [center_clips(int(row)) for row in rows[start : start + batch_videos]]
        clips = torch.stack([clip for clip, _ in batch])
        masks = None if batch[0][1] is None else torch.stack([mask for _, mask in batch])
        whole = model.view_logits(clips)
        for draw in range(num_draws):
            views = _family_logits(model, clips, masks, (seed, start, draw))
            for family, (logits, is_changed) in views.items():
                before, after = whole[is_changed], logits[is_changed]
                stays = 100.0 * (after.argmax(1) == before.argmax(1))
                log_p, log_q = before.log_softmax(1), after.log_softmax(1)
                kl = F.kl_div(log_q, log_p, log_target=True, reduction="none").sum(1)
                changes.append(pd.DataFrame({"family": family, "agreement": stays, "kl": kl}))
        both = clips.flip(-1), clips.flip(1)  # mirrored, and played backwards
        predicted.append(torch.stack([whole, *map(model.view_logits, both)]).argmax(2))
        regions = {CLIP_REGIONS[0]: (whole, slice(None))}
        regions |= {} if masks is None else _region_logits(model, clips, masks)
        for region, (logits, is_shown) in regions.items():
            is_right = (logits.argmax(1) == labels[start : start + batch_videos])[is_shown]
            answers.append(pd.DataFrame({"input": region, "top1": 100.0 * is_right}))
    families = pd.concat(changes).groupby("family", sort=False, as_index=False)
    inputs = pd.concat(answers).groupby("input", sort=False, as_index=False)
    return InvarianceScores(
        families.agg(agreement=("agreement", "mean"), kl=("kl", "mean"), draws=("kl", "size")),
        inputs.agg(top1=("top1", "mean"), videos=("top1", "size")),
        count_swaps(torch.cat(predicted, dim=1).numpy(), dataset.classes),
    )


def count_swaps(predicted: np.ndarray, classes: Sequence[str]) -> pd.DataFrame:
    """Count how often a flip and a reversal turn the prediction of a class into that of another.

    `predicted` (3, N) are the classes of the clips as they are, mirrored, and played backwards.
    Returns columns view (`flip`, `reverse`), first, second (classes), swapped (clips of either that
    become the other), clips (predicted as either before), percent; pairs that are swapped at least
    once, the most frequent first.
    """
    rows, before = [], np.bincount(predicted[0], minlength=len(classes))
    for view, after in zip(("flip", "reverse"), predicted[1:], strict=True):
        pairs = np.sort(np.stack([predicted[0], after]), axis=0).T
        pairs, counts = np.unique(pairs[pairs[:, 0] < pairs[:, 1]], axis=0, return_counts=True)
        for (a, b), swapped in zip(pairs.tolist(), counts.tolist(), strict=True):
            clips = int(before[a] + before[b])
            rows.append((view, classes[a], classes[b], swapped, clips, 100 * swapped / clips))
    columns = ["view", "first", "second", "swapped", "clips", "percent"]
    return pd.DataFrame(rows, columns=columns).sort_values(
        ["view", "percent", "swapped"], ascending=[True, False, False], ignore_index=True
    )


def _family_logits(
    model: TrainedModel, clips: Tensor, masks: Tensor | None, key: tuple[int, ...]
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return per family the logits after one draw, (B, K), and the changed clips, (B,) bool."""
    clip_len, *_, height, width = clips.shape[1:]
    strength = model.settings.randaugment_num_ops, model.settings.randaugment_magnitude
    families = {family: RandAugment(*strength, [family]) for family in OPERATION_GROUPS}
    families["temporal"] = TemporalAugment(temporal_family(clip_len))
    all_clips, views = torch.ones(len(clips), dtype=torch.bool), {}
    for number, (family, augment) in enumerate(families.items()):
        size = (clip_len,) if family == "temporal" else (height, width)
        generators = [make_generator(*key, position, number) for position in range(len(clips))]
        pairs = zip(clips, generators, strict=True)
        augmented = [augment.apply(clip, augment.draw(*size, source)) for clip, source in pairs]
        views[family] = model.view_logits(torch.stack(augmented)), all_clips
    if masks is not None and key[-1] == 0:  # partners are fixed: further draws would be equal
        normalized = model.normalize(clips.to(model.device)).cpu()
        mixed = actor_cutmix(normalized, normalized, masks.transpose(1, 2).float())
        views["scene"] = model.normalized_logits(mixed.clips), mixed.label_weight < 1
    return views


def _region_logits(
    model: TrainedModel, clips: Tensor, masks: Tensor
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the logits of actors and of backgrounds, (B, K), and the clips that have both."""
    normalized = model.normalize(clips.to(model.device)).cpu().transpose(1, 2)
    regions = actor_and_background(normalized, masks, torch.zeros(()))  # 0: the mean color
    has_both = (masks.flatten(1).amin(1) == 0) & (masks.flatten(1).amax(1) == 1)
    logits = [model.normalized_logits(region.transpose(1, 2)) for region in regions]
    return {name: (part, has_both) for name, part in zip(CLIP_REGIONS[1:], logits, strict=True)}


def temporal_family(clip_len: int) -> list[str]:
    """Return the temporal operations that change a clip of `clip_len` frames."""
    is_odd = clip_len % 2
    return [k for k, op in TEMPORAL_OPS.items() if k != "none" and not (op.needs_even and is_odd)]
