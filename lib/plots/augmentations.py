"""Rows of frames that show the effect of each augmentation on given clips."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from lib.augment.ops import RANDAUGMENT_OPS
from lib.augment.randaugment import FILL, OperationParams, RandAugment
from lib.augment.scene import SCENE_AUGMENTATIONS, MixedClips
from lib.augment.temporal import TEMPORAL_OPS, TemporalParams
from lib.augment.views import StrongParams
from lib.config import ClipSettings
from lib.data.clip_dataset import ClipBatch, ClipPipeline, make_generator

MAGNITUDES = (0, 5, 10, 20, 30)  # of 30
UNITS = {"rotate": "°", "posterize": " bits", "cutout": " px of 224"}


def temporal_title(drawn: TemporalParams) -> str:
    """Return the name of a sampled temporal operation and its variant."""
    operation = TEMPORAL_OPS[drawn.name]
    if not operation.variants:
        return operation.title
    return f"{operation.title}, {operation.variants[int(drawn.number * len(operation.variants))]}"


def describe_strong(drawn: StrongParams) -> str:
    """Return the sampled operations and their values, one a line."""
    names = [_name_and_value(operation) for operation in drawn.operations]
    if drawn.temporal.name != "none":
        names.append(temporal_title(drawn.temporal))
    return "\n".join(names) or "no operation"


def _name_and_value(operation: OperationParams) -> str:
    has_value = bool(RANDAUGMENT_OPS[operation.name].takes)
    return f"{operation.name} {operation.value:.3g}" if has_value else operation.name


def operation_range(name: str) -> str:
    """Return the values of an operation at magnitudes 0 and 30, with their unit."""
    operation = RANDAUGMENT_OPS[name]
    if "value" not in operation.takes:
        return "no magnitude"
    unit = " of the side" if operation.side is not None else UNITS.get(name, "")
    sign = "±" if operation.is_signed else ""
    return f"{operation.min:g} to {sign}{operation.max:g}{unit}"


# --- Rows for `lib.plots.clips.clip_rows`: label -> clip or mask ----------------------------------


def strong_rows(weak: Tensor, settings: ClipSettings, count: int = 5) -> Mapping[str, Tensor]:
    """Return a weak view (T, 3, H, W) and strong views of it, labeled with their operations."""
    transform, rows = ClipPipeline(settings).strong, {"weak view": weak}
    for seed in range(count):
        drawn = transform.draw(len(weak), *weak.shape[-2:], make_generator(seed))
        rows[f"{seed + 1}: {describe_strong(drawn)}"] = transform.apply(weak, drawn)
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
    """Return a weak view (T, 3, H, W) after each temporal operation, labeled with its frames."""
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


def view_rows(batch: ClipBatch, scenes: Iterable[str]) -> Mapping[str, Tensor]:
    """Return all views of the first clip of a batch, and its mixes with the last clip.

    Args:
        batch: uint8 clips; views that it lacks are left out, and without masks also the scene
            augmentations that need them.
        scenes: Names of scene augmentations.
    """
    views = {"weak view": batch.weak, "strong view": batch.strong, "person mask": batch.person_mask}
    rows = {label: clips[0] for label, clips in views.items() if clips is not None}
    if batch.weak is None:
        return rows
    pair = [0, len(batch.weak) - 1]
    weak, mask = batch.weak[pair], batch.person_mask
    strong = weak if batch.strong is None else batch.strong[pair]
    masks = None if mask is None else mask[pair]
    rows["partner,\nweak view"] = weak[1]
    for name in scenes:
        if mask is not None or not SCENE_AUGMENTATIONS[name].needs_person_mask:
            clips, mixed = preview_scene_augmentation(weak, strong, masks, name, make_generator(0))
            rows[f"{name}\nown label {100 * float(mixed.label_weight[0]):.0f} %"] = clips[0]
    return rows


def preview_scene_augmentation(
    weak: Tensor, strong: Tensor, mask: Tensor | None, scene: str, generator: torch.Generator
) -> tuple[Tensor, MixedClips]:
    """Apply a scene augmentation to uint8 clips; 0 after normalization is shown as the mean color.

    Args:
        weak: Weak views (B, T, 3, H, W), uint8.
        strong: Strong views, same shape.
        mask: 1 on people, (B, T, 1, H, W), uint8; None without person boxes.
        scene: Name of the scene augmentation.
        generator: Source of randomness.

    Returns:
        The mixed clips (B, T, 3, H, W), uint8, and the result of the augmentation.
    """
    mean = torch.tensor(FILL).view(3, 1, 1)
    own, other = (((clips.float() - mean).transpose(1, 2)) for clips in (weak, strong))
    mask = torch.ones_like(weak[:, :, :1]) if mask is None else mask
    augmentation = SCENE_AUGMENTATIONS[scene]
    drawn = augmentation.draw(1.0, generator)
    mixed = augmentation.apply(own, other, mask.transpose(1, 2), drawn)
    return (mixed.clips.transpose(1, 2) + mean).clamp(0, 255).to(torch.uint8), mixed
