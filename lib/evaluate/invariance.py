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

from lib.augment.randaugment import OPERATION_GROUPS, RandAugment
from lib.augment.scene import actor_cutmix
from lib.augment.temporal import TEMPORAL_OPS, TemporalAugment
from lib.augment.views import EvalTransform, boxes_to_mask, eval_crops, resized_size
from lib.config import ClipSettings, EvaluateSettings
from lib.data.clip_dataset import make_generator
from lib.data.dataset import VideoDataset
from lib.data.frame_tables import open_person_boxes
from lib.data.video_reader import FrameReader, uniform_clip_indices
from lib.evaluate.test import SplitResult, load_trained
from lib.fileio import write_text
from lib.runs.device import resolve_test_device
from lib.runs.run_dir import RunDir
from lib.train.setup import run_normalize

FAMILIES = (*OPERATION_GROUPS, "temporal", "scene")
PARTS = ("whole clip", "actor only", "background only")


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
    """The middle clip of a video and its person mask, as validation sees it; nothing is random.

    Args:
        dataset: The prepared data set.
        settings: How clips are made.
    """

    def __init__(self, dataset: VideoDataset, settings: ClipSettings):
        self.dataset, self.min_score = dataset, settings.person_min_score
        self.clip_len, self.frame_interval = settings.clip_len, settings.frame_interval
        self.transform = EvalTransform(settings.short_side, settings.crop_size, 1)
        self.reader = FrameReader()
        self.boxes = open_person_boxes(dataset)

    def __call__(self, row: int) -> tuple[Tensor, Tensor | None]:
        """Return the clip (T, 3, H, W), uint8, and the mask (T, 1, H, W), None without boxes."""
        record = self.dataset.record(row)
        indices = uniform_clip_indices(record.num_frames, self.clip_len, self.frame_interval, 1)[0]
        clip = self.transform(self.reader.read(record, indices))[0]
        if self.boxes is None:
            return clip, None
        boxes = self.boxes.lookup(row, indices, self.min_score)
        return clip, crop_mask(boxes, record.height, record.width, self.transform)


def crop_mask(boxes: list[np.ndarray], height: int, width: int, transform: EvalTransform) -> Tensor:
    """Paint boxes of decoded frames, whose size is given, into the centre crop: (T, 1, H, W)."""
    side = transform.crop_size
    resized_height, resized_width = resized_size(height, width, transform.short_side)
    x, y, *_ = eval_crops(resized_height, resized_width, side, 1)[0]
    scale = np.array([resized_width / width, resized_height / height] * 2)
    moved = [frame * scale - np.array([x, y, x, y]) for frame in boxes]
    return boxes_to_mask(moved, side, side)


def invariance_of(settings: EvaluateSettings, result: SplitResult) -> InvarianceScores:
    """Measure a run's invariance on videos of a list and write it to the run's folder.

    Writes `invariance_families.csv` and `invariance_inputs.csv`.

    Args:
        settings: Which run and checkpoint, and how many videos.
        result: The list's result, for its videos.
    """
    run = RunDir(settings.run_dir)
    trained = run.settings()
    device = torch.device(resolve_test_device(trained.device))
    model = load_trained(run, settings.checkpoint, result.dataset.classes).to(device)
    order = np.random.default_rng(0).permutation(len(result.rows))
    measured = measure_invariance(
        model,
        run_normalize(trained).to(device),
        result.dataset,
        result.rows[np.sort(order[: settings.invariance_videos])],
        trained,
    )
    write_text(run.folder / "invariance_families.csv", measured.families.to_csv(index=False))
    write_text(run.folder / "invariance_inputs.csv", measured.accuracy.to_csv(index=False))
    return measured


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
    changes, answers = [], []
    for start in range(0, len(rows), batch_videos):
        clips, masks = zip(
            *(clips_of(int(row)) for row in rows[start : start + batch_videos]), strict=True
        )
        clips, masks = torch.stack(clips), None if masks[0] is None else torch.stack(masks)
        whole = _predict(model, normalize, clips)
        for draw in range(num_draws):
            views = _views(clips, masks, settings, normalize, (seed, start, draw))
            for family, (view, shown) in views.items():
                before, after = whole[shown], _predict(model, normalize, view)[shown]
                stays = 100.0 * (after.argmax(1) == before.argmax(1))
                columns = {"family": family, "agreement": stays, "kl": _kl(before, after)}
                changes.append(pd.DataFrame(columns))
        truth = labels[start : start + batch_videos]
        parts = {PARTS[0]: (whole, slice(None))}
        for part, (view, shown) in _parts(clips, masks, normalize).items():
            parts[part] = _predict(model, normalize, view), shown
        for part, (logits, shown) in parts.items():
            is_right = 100.0 * (logits.argmax(1) == truth)[shown]
            answers.append(pd.DataFrame({"input": part, "top1": is_right}))
    families = pd.concat(changes).groupby("family", sort=False, as_index=False)
    inputs = pd.concat(answers).groupby("input", sort=False, as_index=False)
    return InvarianceScores(
        families.agg(agreement=("agreement", "mean"), kl=("kl", "mean"), draws=("kl", "size")),
        inputs.agg(top1=("top1", "mean"), videos=("top1", "size")),
    )


def _predict(model: nn.Module, normalize: nn.Module, clips: Tensor) -> Tensor:
    """Return logits on the CPU; `clips` are uint8, or already normalised."""
    device = normalize.mean.device
    clips = normalize(clips.to(device)) if clips.dtype == torch.uint8 else clips.to(device)
    return model(clips).float().cpu()


def _kl(logits: Tensor, other: Tensor) -> Tensor:
    """Return KL(softmax(logits) ‖ softmax(other)) of each clip, nats."""
    log_p, log_q = logits.log_softmax(1), other.log_softmax(1)
    return F.kl_div(log_q, log_p, log_target=True, reduction="none").sum(1)


def _views(
    clips: Tensor,
    masks: Tensor | None,
    settings: ClipSettings,
    normalize: nn.Module,
    key: tuple[int, ...],
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return per family the augmented clips and which of them were changed."""
    clip_len, *_, height, width = clips.shape[1:]
    views = {}
    for number, family in enumerate(FAMILIES[:-1]):
        generators = [make_generator(*key, clip, number) for clip in range(len(clips))]
        if family == "temporal":
            augment, size = TemporalAugment(temporal_family(clip_len)), (clip_len,)
        else:
            augment = RandAugment(
                settings.randaugment_num_ops, settings.randaugment_magnitude, [family]
            )
            size = (height, width)
        pairs = zip(clips, generators, strict=True)
        changed = [augment.apply(clip, augment.draw(*size, draw)) for clip, draw in pairs]
        views[family] = torch.stack(changed), torch.ones(len(clips), dtype=torch.bool)
    if masks is not None and key[-1] == 0:  # the partner is fixed, so further draws are the same
        normal = normalize(clips.to(normalize.mean.device)).cpu()
        mixed = actor_cutmix(normal, normal, masks.transpose(1, 2).float())
        views["scene"] = mixed.clips, mixed.label_weight < 1
    return views


def temporal_family(clip_len: int) -> list[str]:
    """Return the temporal operations that change a clip of `clip_len` frames."""
    return [
        name
        for name, operation in TEMPORAL_OPS.items()
        if name != "none" and not (operation.needs_even and clip_len % 2)
    ]


def actor_and_background(clips: Tensor, mask: Tensor, fill: Tensor) -> tuple[Tensor, Tensor]:
    """Return the actors alone and the background alone.

    In the background, every place that an actor visits is covered in all frames: a hole that moved
    with the actor would show the action.

    Args:
        clips: Shape (..., T, 3, H, W).
        mask: 1 on people, shape (..., T, 1, H, W).
        fill: Colour of what is left out, to be broadcast over the clips.
    """
    ever = mask.amax(dim=-4, keepdim=True).bool()
    return torch.where(mask.bool(), clips, fill), torch.where(ever, fill, clips)


def _parts(
    clips: Tensor, masks: Tensor | None, normalize: nn.Module
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the clips' parts, normalised, and which clips have both; 0 is the mean colour."""
    if masks is None:
        return {}
    normal = normalize(clips.to(normalize.mean.device)).cpu().transpose(1, 2)
    parts = actor_and_background(normal, masks, torch.zeros(()))
    has_both = (masks.flatten(1).amin(1) == 0) & (masks.flatten(1).amax(1) == 1)
    pairs = zip(PARTS[1:], parts, strict=True)
    return {name: (part.transpose(1, 2), has_both) for name, part in pairs}
