"""Rows of pictures that show what each augmentation does."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from lib.augment.functional import RANDAUGMENT_OPS
from lib.augment.transforms import (
    DrawnOperation,
    DrawnTemporal,
    RandAugment,
    StrongTransform,
    TemporalAugment,
)
from lib.clips import ClipBatch, ClipDataset, Views, make_generator
from lib.config import LookSettings
from lib.data.actors import ACTORS_FILE, ActorBoxes
from lib.data.annotations import VideoDataset
from lib.data.video import read_frames, uniform_clip_indices

BOX_COLOR = (213, 94, 0)


def shown_rows(dataset: VideoDataset, settings: LookSettings) -> np.ndarray:
    """Return the index rows of the videos to show, drawn by the seed."""
    rows = dataset.read_list(settings.list_name)
    order = np.random.default_rng(settings.seed).permutation(len(rows))
    return rows[order[: settings.num_videos]]


def has_actors(dataset: VideoDataset) -> bool:
    """Whether the data set has person boxes."""
    return (dataset.folder / ACTORS_FILE).is_file()


def load_batch(dataset: VideoDataset, settings: LookSettings) -> ClipBatch:
    """Return the shown videos as a training run loads them, with masks where there are boxes."""
    views = Views(True, True, has_actors(dataset))
    clips = ClipDataset(dataset, settings, views, (settings.seed,))
    rows = shown_rows(dataset, settings)
    return ClipBatch.collate([clips[(position, int(row))] for position, row in enumerate(rows)])


def original_rows(dataset: VideoDataset, settings: LookSettings) -> Mapping[str, Tensor]:
    """Return the middle clip of each shown video with its boxes drawn in."""
    actors = ActorBoxes(dataset) if has_actors(dataset) else None
    rows = {}
    for row in shown_rows(dataset, settings):
        record = dataset.record(int(row))
        indices = uniform_clip_indices(
            record.num_frames, settings.clip_len, settings.frame_interval, 1
        )[0]
        frames = read_frames(record.path, indices).copy()
        if actors is not None:
            boxes = actors.lookup(int(row), indices, settings.actor_min_score)
            for frame, frame_boxes in zip(frames, boxes, strict=True):
                draw_boxes(frame, frame_boxes)
        rows[record.name.replace("/", "\n")] = torch.from_numpy(frames).permute(0, 3, 1, 2)
    return rows


def draw_boxes(frame: np.ndarray, boxes: np.ndarray) -> None:
    """Draw boxes (n, 4), x1 y1 x2 y2 in pixels, into a frame (H, W, 3), uint8, in place."""
    height, width = frame.shape[:2]
    line = max(1, round(min(height, width) / 100))
    for x1, y1, x2, y2 in np.asarray(boxes).round().astype(int):
        left, right = np.clip([x1, x2], 0, width)
        top, bottom = np.clip([y1, y2], 0, height)
        frame[top : top + line, left:right] = BOX_COLOR
        frame[max(bottom - line, 0) : bottom, left:right] = BOX_COLOR
        frame[top:bottom, left : left + line] = BOX_COLOR
        frame[top:bottom, max(right - line, 0) : right] = BOX_COLOR


def strong_transform(settings: LookSettings) -> StrongTransform:
    """Return the strong transform of the settings."""
    randaugment = RandAugment(
        settings.randaugment_num_ops, settings.randaugment_magnitude, settings.randaugment_ops
    )
    return StrongTransform(randaugment, TemporalAugment(settings.temporal_ops))


def describe(operations: list[DrawnOperation], temporal: DrawnTemporal) -> str:
    """Return the drawn operations with their values in words."""
    names = [_name_and_value(operation) for operation in operations]
    if temporal.name != "none":
        names.append(f"T-{temporal.name}")
    return "\n".join(names) or "no operation"


def _name_and_value(operation: DrawnOperation) -> str:
    has_value = bool(RANDAUGMENT_OPS[operation.name].takes)
    return f"{operation.name} {operation.value:.3g}" if has_value else operation.name


def draws(weak: Tensor, settings: LookSettings, count: int = 5) -> Mapping[str, Tensor]:
    """Return a weak view (T, 3, H, W) and strong views of it, labelled with what was drawn."""
    transform = strong_transform(settings)
    rows = {"weak view": weak}
    for number in range(count):
        operations, temporal = transform.draw(weak, make_generator(settings.seed, number))
        clip = transform.temporal.apply(transform.randaugment.apply(weak, operations), temporal)
        rows[f"{number + 1}: {describe(operations, temporal)}"] = clip
    return rows


def operation_rows(weak: Tensor, settings: LookSettings) -> Mapping[str, Tensor]:
    """Return every RandAugment operation alone, on the middle frame of each clip.

    Args:
        weak: Weak views (B, T, 3, H, W).
        settings: The magnitude.
    """
    frames = weak[:, weak.shape[1] // 2]
    rows = {"weak view": frames}
    for name in RANDAUGMENT_OPS:
        single = RandAugment(1, settings.randaugment_magnitude, [name])
        drawn = single.draw(*frames.shape[-2:], make_generator(settings.seed))
        rows[_name_and_value(drawn[0])] = single.apply(frames, drawn)
    return rows


def temporal_rows(weak: Tensor) -> Mapping[str, Tensor]:
    """Return a weak view (T, 3, H, W) after each temporal operation, labelled with its frames."""
    drop = torch.arange(len(weak)) % 3 != 0
    cases = {
        "none": DrawnTemporal("none", True, drop),
        "T-Half, first": DrawnTemporal("half", True, drop),
        "T-Half, second": DrawnTemporal("half", False, drop),
        "T-Reverse": DrawnTemporal("reverse", True, drop),
        "T-Drop": DrawnTemporal("drop", True, drop),
    }
    augment, numbers, rows = TemporalAugment(), torch.arange(len(weak)), {}
    for name, drawn in cases.items():
        order = " ".join(str(int(number)) for number in augment.apply(numbers, drawn))
        rows[f"{name}\n{order}"] = augment.apply(weak, drawn)
    return rows


def to_image(rows: Mapping[str, Tensor]) -> np.ndarray:
    """Return clips and masks of one size as one image, a row each (rows·H, T·W, 3), uint8."""
    height, width = next(iter(rows.values())).shape[-2:]
    count = min(len(clip) for clip in rows.values())
    lines = []
    for clip in rows.values():
        picture = clip[:count].expand(-1, 3, -1, -1) * (255 if clip.shape[1] == 1 else 1)
        lines.append(picture.permute(2, 0, 3, 1).reshape(height, count * width, 3))
    return torch.cat(lines).numpy()
