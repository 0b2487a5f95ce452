"""Clips as rows of frames."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from lib.augment.randaugment import FILL, RANDAUGMENT_OPS, RandAugment
from lib.augment.scene import SCENE_AUGMENTATIONS, MixedClips
from lib.augment.temporal import TEMPORAL_OPS, TemporalParams
from lib.augment.views import StrongParams
from lib.config import ClipSettings
from lib.data.clip_dataset import ClipBatch, ClipPipeline, make_generator
from lib.plots.style import BOX, styled

GAP = 0.03  # around a frame, fraction of its width


@styled
def clip_rows(
    clips: Mapping[str, Tensor],
    title: str,
    frames: int = 8,
    xlabel: str = "frame of the clip",
    columns: Sequence[object] | None = None,
) -> Figure:
    """Show clips as rows of frames.

    Args:
        clips: Row label -> clip (T, 3, H, W) or mask (T, 1, H, W), uint8; masks are 0 or 1.
        title: Title of the figure.
        frames: Maximum number of frames of a clip, evenly spaced.
        xlabel: Name of the columns.
        columns: Label of each frame, length T, such as its number in the video; None for its number
            in the first clip.
    """
    length = min(map(len, clips.values()))
    count = min(frames, length)
    heights = np.cumsum([0.0, *(clip.shape[-2] / clip.shape[-1] for clip in clips.values())])
    size = (1.15 * count + 1.4, 1.15 * heights[-1] + 0.6)
    figure, axes = plt.subplots(figsize=size, layout="constrained")
    for clip, (top, bottom) in zip(clips.values(), pairwise(heights), strict=True):
        for left, index in enumerate(_evenly(len(clip), count)):
            image = clip[index].permute(1, 2, 0).numpy()
            extent = (left + GAP, left + 1 - GAP, bottom - GAP, top + GAP)
            colors = {"cmap": "gray", "vmin": 0, "vmax": 1}  # of masks
            axes.imshow(image, extent=extent, **colors if image.shape[-1] == 1 else {})
    labels = columns or range(length)
    axes.set(xlim=(0, count), ylim=(heights[-1], 0), xlabel=xlabel)
    axes.set_xticks(np.arange(count) + 0.5, [labels[k] for k in _evenly(len(labels), count)])
    axes.set_yticks((heights[:-1] + heights[1:]) / 2, list(clips))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    figure.suptitle(title)
    return figure


def _evenly(length: int, count: int) -> list[int]:
    return np.linspace(0, length - 1, count).round().astype(int).tolist()


def with_boxes(frames: np.ndarray, boxes: Sequence[np.ndarray] | None) -> Tensor:
    """Return frames (T, H, W, 3), uint8, as a clip (T, 3, H, W) with boxes drawn in.

    Boxes are one array (n, 4) per frame, x1 y1 x2 y2 in pixels; None for no boxes.
    """
    clip = torch.from_numpy(frames).permute(0, 3, 1, 2)
    if boxes is None:
        return clip
    from torchvision.utils import draw_bounding_boxes  # imports PyTorch's compiler: seconds

    width, drawn = max(1, round(min(clip.shape[-2:]) / 100)), clip.clone()
    for index, corners in enumerate(boxes):
        if len(corners):
            corners = torch.from_numpy(corners)
            drawn[index] = draw_bounding_boxes(clip[index], corners, colors=BOX, width=width)
    return drawn


MAGNITUDES = (0, 5, 10, 20, 30)  # of 30
UNITS = {"rotate": "°", "posterize": " bits", "cutout": " px of 224"}


def temporal_title(params: TemporalParams) -> str:
    """Return the name of a sampled temporal operation and its variant."""
    operation = TEMPORAL_OPS[params.name]
    variants = operation.variants
    variant = f", {variants[int(params.number * len(variants))]}" if variants else ""
    return operation.title + variant


def describe_strong(params: StrongParams) -> str:
    """Return the sampled operations and their values, one per line."""
    names = [
        f"{operation.name} {operation.value:.3g}"
        if RANDAUGMENT_OPS[operation.name].takes
        else operation.name
        for operation in params.operations
    ]
    if params.temporal.name != "none":
        names.append(temporal_title(params.temporal))
    return "\n".join(names) or "no operation"


def operation_range(name: str) -> str:
    """Return the values of an operation at magnitudes 0 and 30, with their unit."""
    operation = RANDAUGMENT_OPS[name]
    if "value" not in operation.takes:
        return "no magnitude"
    unit = " of the side" if operation.side is not None else UNITS.get(name, "")
    sign = "±" if operation.is_signed else ""
    return f"{operation.min:g} to {sign}{operation.max:g}{unit}"


def strong_rows(weak: Tensor, settings: ClipSettings, count: int = 5) -> Mapping[str, Tensor]:
    """Return a weak view (T, 3, H, W) and strong views of it, labeled with their operations."""
    transform, rows = ClipPipeline(settings).strong, {"weak view": weak}
    for seed in range(count):
        params = transform.draw(len(weak), *weak.shape[-2:], make_generator(seed))
        rows[f"{seed + 1}: {describe_strong(params)}"] = transform.apply(weak, params)
    return rows


def operation_rows(frame: Tensor, magnitudes: Sequence[float] = MAGNITUDES) -> Mapping[str, Tensor]:
    """Apply every RandAugment operation to a frame (3, H, W), uint8, at each magnitude, of 30.

    Returns:
        Name and range -> pictures (len(magnitudes), 3, H, W).
    """
    rows, (height, width) = {}, frame.shape[-2:]
    for name in RANDAUGMENT_OPS:
        pictures = []
        for magnitude in magnitudes:
            single = RandAugment(1, magnitude, [name])
            params = single.draw(height, width, make_generator(0))[0]
            params = params._replace(value=abs(params.value), center_xy=(width / 2, height / 2))
            pictures.append(single.apply(frame[None], [params]))
        rows[f"{name}\n{operation_range(name)}"] = torch.cat(pictures)
    return rows


def temporal_rows(weak: Tensor) -> Mapping[str, Tensor]:
    """Return a weak view (T, 3, H, W) after each temporal operation, labeled with its frames."""
    numbers, rows = torch.arange(len(weak)), {}
    frame_numbers = torch.where(numbers % 3 == 0, 0.75, 0.25)
    for name, operation in TEMPORAL_OPS.items():
        if operation.needs_even and len(weak) % 2:
            continue
        count = max(1, len(operation.variants))
        for variant in range(count):
            params = TemporalParams(name, (variant + 0.5) / count, frame_numbers)
            order = " ".join(str(int(k)) for k in operation.apply(numbers, *params[1:]))
            rows[f"{temporal_title(params)}\n{order}"] = operation.apply(weak, *params[1:])
    return rows


def view_rows(batch: ClipBatch, scenes: Iterable[str]) -> Mapping[str, Tensor]:
    """Return the views of the first clip of a batch, and its mixes with the last clip, if any.

    Views that the batch lacks are left out, and so are scene augmentations that need masks if it
    has none.
    """
    views = {"weak view": batch.weak, "strong view": batch.strong, "person mask": batch.person_mask}
    rows = {label: clips[0] for label, clips in views.items() if clips is not None}
    if batch.weak is None:
        return rows
    pair = [0, len(batch.weak) - 1]
    weak, mask = batch.weak[pair], batch.person_mask
    strong = weak if batch.strong is None else batch.strong[pair]
    masks = None if mask is None else mask[pair]
    mixes = {}
    for name in scenes:
        if mask is not None or not SCENE_AUGMENTATIONS[name].needs_person_mask:
            clips, mixed = preview_scene_augmentation(weak, strong, masks, name, make_generator(0))
            mixes[f"{name}\nown label {100 * float(mixed.label_weight[0]):.0f} %"] = clips[0]
    return rows | ({"partner,\nweak view": weak[1]} | mixes if mixes else {})


def preview_scene_augmentation(
    weak: Tensor, strong: Tensor, mask: Tensor | None, scene: str, generator: torch.Generator
) -> tuple[Tensor, MixedClips]:
    """Apply a scene augmentation to uint8 views (B, T, 3, H, W); masks are 0 or 1.

    Returns:
        The mixed clips (B, T, 3, H, W), uint8, and the result of the augmentation.
    """
    mean = torch.tensor(FILL).view(3, 1, 1)
    own, other = (((clips.float() - mean).transpose(1, 2)) for clips in (weak, strong))
    mask = torch.ones_like(weak[:, :, :1]) if mask is None else mask
    augmentation = SCENE_AUGMENTATIONS[scene]
    params = augmentation.draw(1.0, generator)
    mixed = augmentation.apply(own, other, mask.transpose(1, 2), params)
    return displayable(mixed.clips), mixed


def displayable(clips: Tensor) -> Tensor:
    """Return clips (B, 3, T, H, W) of mean 0 and standard deviation 1 as (B, T, 3, H, W), uint8."""
    mean = torch.tensor(FILL).view(3, 1, 1)
    return (clips.transpose(1, 2) + mean).clamp(0, 255).to(torch.uint8)
