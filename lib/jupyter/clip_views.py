"""Clips with all their views: read from a data set, as tiles, and with the sampled parameters.

For (seed, position, video), the views are those of a loader with the same settings.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lib.augment.scene import SCENE_AUGMENTATIONS
from lib.config import ClipSettings, ExploreSettings
from lib.data.clip_dataset import (
    ClipBatch,
    ClipDataset,
    ClipParams,
    ClipPipeline,
    ViewSpec,
    make_generator,
)
from lib.data.dataset import VideoDataset, VideoRecord
from lib.data.frame_tables import PersonBoxes, has_person_boxes, open_person_boxes
from lib.data.video_reader import read_frames
from lib.jupyter.html import Tile, render
from lib.plots.clips import describe_strong, preview_scene_augmentation, temporal_title, with_boxes
from lib.plots.style import ORIGINAL, SCENE, STRONG, TEMPORAL, WEAK, shorten

CACHED, MAX_WHOLE_MB = 4, 100  # decoded videos or clips in memory; size of a whole video
NO_BOXES = "no person boxes: notebook 1 detects them (person_boxes)"


def pick_rows(dataset: VideoDataset, split_name: str, count: int, seed: int) -> np.ndarray:
    """Return index rows of videos of a split, of as many classes as possible, shape (count,)."""
    rows = np.random.default_rng(seed).permutation(dataset.read_split(split_name))
    labels = dataset.index["label"].iloc[rows]
    rank = labels.groupby(labels.to_numpy()).cumcount()  # number of earlier videos of its class
    return rows[np.argsort(rank.to_numpy(), kind="stable")[:count]]


def load_clips(
    dataset: VideoDataset, settings: ClipSettings, rows: Sequence[int], seed: int
) -> ClipBatch:
    """Return one training clip of each video with all views; masks where there are person boxes."""
    views = ViewSpec(weak=True, strong=True, person_mask=has_person_boxes(dataset))
    clips = ClipDataset(dataset, settings, views, (seed,))
    return ClipBatch.collate([clips[(position, int(row))] for position, row in enumerate(rows)])


def boxed_rows(
    dataset: VideoDataset, rows: Sequence[int], num_frames: int = 6, min_score: float = 0.4
) -> Mapping[str, Tensor]:
    """Return evenly spaced frames of videos with their person boxes, for `clip_rows`.

    Boxes have a score above `min_score`, in [0, 1].
    """
    person_boxes, clips = open_person_boxes(dataset), {}
    for row in map(int, rows):
        record = dataset.record(row)
        indices = np.linspace(0, record.num_frames - 1, num_frames).round().astype(np.int64)
        boxes = None if person_boxes is None else person_boxes.lookup(row, indices, min_score)
        label = "\n".join(shorten(part, 24) for part in record.name.split("/"))
        clips[label] = with_boxes(read_frames(record, indices), boxes)
    return clips


class ClipViews(NamedTuple):
    """All views of a clip and its partner."""

    tiles: dict[str, Tile]  # by name of the view; clips (T, 3, H, W), uint8
    params: dict[str, str]  # sampled parameters and the resulting label, by name
    warnings: list[str]  # sentences about missing or unusual data


class _WeakView(NamedTuple):
    """A sampled clip up to its weak view; clips are uint8."""

    record: VideoRecord
    params: ClipParams
    frames: list[int]  # sampled frames of the video
    original: Tensor  # (T, 3, H, W), with boxes drawn in
    weak: Tensor  # (T, 3, S, S)
    mask: Tensor | None  # 1 on people in `weak`, (T, 1, S, S); None without person boxes


@lru_cache(CACHED)
def _decode(record: VideoRecord, indices: tuple[int, ...]) -> np.ndarray:
    return read_frames(record, np.array(indices))


def _read(record: VideoRecord, indices: np.ndarray) -> np.ndarray:
    """Read frames; a small video is decoded whole, so that other clips of it are cached too."""
    if record.num_frames * record.height * record.width * 3 <= MAX_WHOLE_MB * 1e6:
        return _decode(record, tuple(range(record.num_frames)))[indices]
    return _decode(record, tuple(indices.tolist()))


def clip_views(
    dataset: VideoDataset,
    person_boxes: PersonBoxes | None,
    settings: ExploreSettings,
    row: int,
    partner_row: int,
) -> ClipViews:
    """Return all views of a clip, sampled with `settings.seed`.

    The partner of scene augmentations is a clip of the video of index row `partner_row`.
    """
    pipeline = ClipPipeline(settings)

    def sample(index_row: int, position: int) -> _WeakView:
        record = dataset.record(index_row)
        params = pipeline.draw(record, make_generator(settings.seed, position))
        indices, boxes, mask = params.frame_indices, None, None
        frames = _read(record, indices)
        if person_boxes is not None:
            boxes = person_boxes.lookup(index_row, indices, settings.person_min_score)
            mask = pipeline.weak.mask(boxes, params.weak)
        weak, original = pipeline.weak.apply(frames, params.weak), with_boxes(frames, boxes)
        return _WeakView(record, params, indices.tolist(), original, weak, mask)

    own, partner = sample(row, 0), sample(partner_row, 1)
    strong, temporal = own.params.strong, pipeline.strong.temporal
    order = temporal.apply(torch.arange(len(own.weak)), strong.temporal).tolist()
    strong_view = pipeline.strong.apply(own.weak, strong)
    mixed, weight, note = _mix(settings, own, partner, strong_view)
    scene, reordered = settings.scene_augmentation, [own.frames[k] for k in order]
    temporal_only = temporal.apply(own.weak, strong.temporal)
    temporal_name = f"only temporal: {temporal_title(strong.temporal)}"
    mask, scene_name = NO_BOXES if own.mask is None else own.mask, scene_title(scene, weight)
    tiles = {
        "original": Tile("original", ORIGINAL, own.original, own.frames),
        "weak": Tile("weak view", WEAK, own.weak, own.frames),
        "strong": Tile("strong view", STRONG, strong_view, reordered),
        "temporal": Tile(temporal_name, TEMPORAL, temporal_only, reordered),
        "person_mask": Tile("person mask", ORIGINAL, mask),
        "scene": Tile(scene_name, SCENE, mixed, () if note else own.frames),
        "partner_weak": Tile("partner, weak view", WEAK, partner.weak, partner.frames),
        "partner_original": Tile("partner, original", ORIGINAL, partner.original, partner.frames),
    }
    left, top, right, bottom, is_flipped = own.params.weak
    params = {
        "video": own.record.name,
        "partner": partner.record.name,
        "frames": " ".join(map(str, own.frames)),
        "weak view": f"crop {right - left} × {bottom - top} at ({left}, {top}) of "
        f"{own.record.width} × {own.record.height} pixels, "
        f"{'flipped' if is_flipped else 'not flipped'}",
        "strong view": describe_strong(strong).replace("\n", ", "),
        "order of the frames": " ".join(map(str, order)),
    }
    if own.mask is not None:
        params["person mask covers"] = f"r = {own.mask.float().mean():.3f} of the clip"
    names = [shorten(dataset.class_of(clip.record.label), 60) for clip in (own, partner)]
    label = f"1.00 · {names[0]}"
    if weight is not None and names[0] != names[1]:
        label = f"{weight:.2f} · {names[0]} + {1 - weight:.2f} · {names[1]}"
    params[f"label after {scene}"] = label
    warnings = [*_warnings(settings, own, partner), *([note] if note else [])]
    return ClipViews(tiles, params, warnings)


def _mix(
    settings: ExploreSettings, own: _WeakView, partner: _WeakView, strong: Tensor
) -> tuple[Tensor | str, float | None, str]:
    """Return the clip after the scene augmentation, its label weight, and a warning (may be empty).

    The weight is None where nothing was mixed.
    """
    scene = settings.scene_augmentation
    if SCENE_AUGMENTATIONS[scene].needs_person_mask:
        title = scene_title(scene, None)
        if own.mask is None:
            return NO_BOXES, None, f"{title} needs person boxes; notebook 1 detects them."
        if not own.mask.any():
            return strong, None, f"Nobody is in the mask: {title} keeps the strong view."
        if own.mask.all():
            return strong, None, f"The mask covers the whole clip: {title} keeps the strong view."
    masks = None if own.mask is None else torch.stack([own.mask, partner.mask])
    weak = torch.stack([own.weak, partner.weak])
    generator = make_generator(settings.seed, 0, 0)
    clips, mixed = preview_scene_augmentation(weak, weak, masks, scene, generator)
    return clips[0], float(mixed.label_weight[0]), ""


def _warnings(settings: ExploreSettings, own: _WeakView, partner: _WeakView) -> list[str]:
    warnings = []
    span = (settings.clip_len - 1) * settings.frame_interval + 1
    for name, clip in (("video", own), ("partner", partner)):
        count = clip.record.num_frames
        if count == 1:
            warnings.append(f"The {name} has one frame: nothing moves in its clip.")
        elif count < span:
            warnings.append(
                f"The {name} has {count} frames and the clip spans {span}: it wraps around, and "
                "some frames occur twice. A smaller frame_interval avoids that."
            )
    if own.record.row == partner.record.row:
        warnings.append("The video is its own partner: choose another to see a new background.")
    return warnings


def scene_title(scene: str, weight: float | None) -> str:
    """Return the title of a mixed clip, with the weight of its own label."""
    name = SCENE_AUGMENTATIONS[scene].title
    return name if weight is None else f"{name}, own {100 * weight:.0f} %"


PARAMS_TABLE = """\
{% for warning in warnings %}
<div style="border-left:4px solid #E69F00;padding-left:8px;margin:4px 0">{{ warning }}</div>
{% endfor %}
<table style="line-height:1.4">{% for name, value in params.items() %}
<tr><td style="padding-right:16px;text-align:left;vertical-align:top;white-space:nowrap">{{ name }}
</td><td style="text-align:left;overflow-wrap:anywhere"><b>{{ value }}</b></td></tr>
{% endfor %}</table>
"""


def params_html(views: ClipViews) -> str:
    """Return the sampled parameters as a table, below the warnings."""
    return render(PARAMS_TABLE, warnings=views.warnings, params=views.params)
