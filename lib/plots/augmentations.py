"""Rows of pictures that show what each augmentation does."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.colors import to_rgb
from torch import Tensor

from lib.augment.ops import RANDAUGMENT_OPS
from lib.augment.randaugment import OperationParams, RandAugment
from lib.augment.scene import SCENE_AUGMENTATIONS
from lib.augment.temporal import TEMPORAL_OPS, TemporalParams
from lib.augment.views import StrongParams
from lib.config import ExploreSettings
from lib.data.clip_dataset import ClipBatch, ClipDataset, ClipPipeline, ViewSpec, make_generator
from lib.data.dataset import VideoDataset
from lib.data.frame_tables import has_person_boxes, open_person_boxes
from lib.data.video_reader import read_frames, uniform_clip_indices
from lib.plots.clips import mix_clips
from lib.plots.style import BOX, shorten

BOX_RGB = tuple(round(255 * part) for part in to_rgb(BOX))
MAGNITUDES = (0, 5, 10, 20, 30)  # of 30
UNITS = {"rotate": "°", "posterize": " bits", "cutout": " px of 224"}


def temporal_title(drawn: TemporalParams) -> str:
    """Return how figures call a drawn operation."""
    operation = TEMPORAL_OPS[drawn.name]
    if not operation.variants:
        return operation.title
    return f"{operation.title}, {operation.variants[int(drawn.number * len(operation.variants))]}"


def shown_rows(dataset: VideoDataset, settings: ExploreSettings) -> np.ndarray:
    """Return the index rows of the videos to show, drawn by the seed."""
    rows = dataset.read_split(settings.split_name)
    order = np.random.default_rng(settings.seed).permutation(len(rows))
    return rows[order[: settings.num_videos]]


def load_batch(dataset: VideoDataset, settings: ExploreSettings) -> ClipBatch:
    """Return the shown videos as a training run loads them, with masks where there are boxes."""
    views = ViewSpec(True, True, has_person_boxes(dataset))
    clips = ClipDataset(dataset, settings, views, (settings.seed,))
    rows = shown_rows(dataset, settings)
    return ClipBatch.collate([clips[(position, int(row))] for position, row in enumerate(rows)])


def original_rows(dataset: VideoDataset, settings: ExploreSettings) -> Mapping[str, Tensor]:
    """Return the middle clip of each shown video with its boxes drawn in."""
    person_boxes, rows = open_person_boxes(dataset), {}
    for row in shown_rows(dataset, settings):
        record = dataset.record(int(row))
        indices = uniform_clip_indices(
            record.num_frames, settings.clip_len, settings.frame_interval, 1
        )[0]
        boxes = None
        if person_boxes is not None:
            boxes = person_boxes.lookup(int(row), indices, settings.person_min_score)
        label = "\n".join(shorten(part, 24) for part in record.name.split("/"))
        rows[label] = with_boxes(read_frames(record, indices), boxes)
    return rows


def with_boxes(frames: np.ndarray, boxes: Sequence[np.ndarray] | None) -> Tensor:
    """Return frames (T, H, W, 3), uint8, as a clip (T, 3, H, W) with the boxes of each drawn in.

    Args:
        frames: Of a video; they stay as they are.
        boxes: For each frame an array (n, 4), x1 y1 x2 y2 in pixels; None where there are none.
    """
    if boxes is not None:
        frames = frames.copy()
        for frame, own in zip(frames, boxes, strict=True):
            draw_boxes(frame, own)
    return torch.from_numpy(frames).permute(0, 3, 1, 2)


def draw_boxes(frame: np.ndarray, boxes: np.ndarray) -> None:
    """Draw boxes (n, 4), x1 y1 x2 y2 in pixels, into a frame (H, W, 3), uint8, in place."""
    height, width = frame.shape[:2]
    line = max(1, round(min(height, width) / 100))
    for x1, y1, x2, y2 in np.asarray(boxes).round().astype(int):
        left, right = np.clip([x1, x2], 0, width)
        top, bottom = np.clip([y1, y2], 0, height)
        frame[top : top + line, left:right] = BOX_RGB
        frame[max(bottom - line, 0) : bottom, left:right] = BOX_RGB
        frame[top:bottom, left : left + line] = BOX_RGB
        frame[top:bottom, max(right - line, 0) : right] = BOX_RGB


def describe(drawn: StrongParams) -> str:
    """Return the drawn operations with their values in words."""
    names = [_name_and_value(operation) for operation in drawn.operations]
    if drawn.temporal.name != "none":
        names.append(temporal_title(drawn.temporal))
    return "\n".join(names) or "no operation"


def operation_range(name: str) -> str:
    """Return an operation's values at magnitudes 0 and 30 in words, with their unit."""
    operation = RANDAUGMENT_OPS[name]
    if "value" not in operation.takes:
        return "no magnitude"
    unit = " of the side" if operation.side is not None else UNITS.get(name, "")
    sign = "±" if operation.is_signed else ""
    return f"{operation.min:g} to {sign}{operation.max:g}{unit}"


def _name_and_value(operation: OperationParams) -> str:
    has_value = bool(RANDAUGMENT_OPS[operation.name].takes)
    return f"{operation.name} {operation.value:.3g}" if has_value else operation.name


def draws(weak: Tensor, settings: ExploreSettings, count: int = 5) -> Mapping[str, Tensor]:
    """Return a weak view (T, 3, H, W) and strong views of it, labelled with what was drawn."""
    transform = ClipPipeline(settings).strong
    rows = {"weak view": weak}
    for number in range(count):
        generator = make_generator(settings.seed, number)
        drawn = transform.draw(len(weak), *weak.shape[-2:], generator)
        rows[f"{number + 1}: {describe(drawn)}"] = transform.apply(weak, drawn)
    return rows


def operation_rows(frame: Tensor) -> Mapping[str, Tensor]:
    """Return every RandAugment operation alone at the magnitudes `MAGNITUDES`, on one frame.

    Args:
        frame: Of a weak view, (3, H, W), uint8.

    Returns:
        Name and range -> pictures (len(MAGNITUDES), 3, H, W).
    """
    rows, size = {}, frame.shape[-2:]
    for name in RANDAUGMENT_OPS:
        pictures = []
        for magnitude in MAGNITUDES:
            single = RandAugment(1, magnitude, [name])
            drawn = single.draw(*size, make_generator(0))[0]
            drawn = drawn._replace(value=abs(drawn.value), center_xy=(size[1] / 2, size[0] / 2))
            pictures.append(single.apply(frame[None], [drawn]))
        rows[f"{name}\n{operation_range(name)}"] = torch.cat(pictures)
    return rows


def temporal_rows(weak: Tensor) -> Mapping[str, Tensor]:
    """Return a weak view (T, 3, H, W) after each temporal operation, labelled with its frames."""
    numbers, rows = torch.arange(len(weak)), {}
    frame_numbers = torch.where(numbers % 3 == 0, 0.75, 0.25)
    for name, operation in TEMPORAL_OPS.items():
        if operation.needs_even and len(weak) % 2:
            continue
        count = max(1, len(operation.variants))
        for variant in range(count):
            drawn = TemporalParams(name, (variant + 0.5) / count, frame_numbers)
            order = " ".join(str(int(k)) for k in operation.apply(numbers, *drawn[1:]))
            rows[f"{temporal_title(drawn)}\n{order}"] = operation.apply(weak, *drawn[1:])
    return rows


def scene_rows(batch: ClipBatch) -> Mapping[str, Tensor]:
    """Return the first clip of a batch, its partner (the last), and each scene augmentation of it.

    Args:
        batch: uint8 clips with weak views; without masks, what needs them is left out.
    """
    first, last, mask = batch.weak[0], batch.weak[-1], batch.person_mask
    rows = {"weak view": first, "partner,\nweak view": last}
    weak = torch.stack([first, last])
    masks = None if mask is None else torch.stack([mask[0], mask[-1]])
    if mask is not None:
        rows["person mask"] = mask[0]
    for name, scene in SCENE_AUGMENTATIONS.items():
        if mask is not None or not scene.needs_person_mask:
            clips, mixed = mix_clips(weak, weak, masks, name, make_generator(0))
            rows[f"{name}\nown label {100 * float(mixed.label_weight[0]):.0f} %"] = clips[0]
    return rows
