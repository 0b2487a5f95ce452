"""Pictures of clips: the views of a batch."""

from collections.abc import Mapping

import torch
from torch import Tensor

from lib.augment.actor_cutmix import MixedClips
from lib.augment.randaugment import FILL
from lib.augment.scene import SCENE_AUGMENTATIONS
from lib.clips import ClipBatch, ClipDataset, Views
from lib.config import ClipSettings, TrainSettings
from lib.data.frame_tables import has_person_boxes
from lib.learn.setup import load_data
from lib.prepare.prepare import prepare_for


def example_rows(settings: TrainSettings) -> Mapping[str, Tensor]:
    """Return the views of the first training clip of a run, and it after the scene augmentation.

    Returns:
        Row label -> clip or mask, for `clip_rows`.
    """
    prepare_for(settings)
    data = load_data(settings)
    dataset = data.unlabeled if settings.is_semi_supervised else data.labeled
    clips = ClipDataset(
        dataset, settings, Views(True, True, has_person_boxes(dataset)), (settings.seed, 0)
    )
    rows = data.epoch_rows(settings)[:2]
    batch = ClipBatch.collate([clips[(k, int(row))] for k, row in enumerate(rows)])
    return batch_rows(batch, settings)


def batch_rows(batch: ClipBatch, settings: ClipSettings) -> Mapping[str, Tensor]:
    """Return the first clip of a batch in all its views, its partner, and both mixed.

    Args:
        batch: uint8 clips, at least two; views that it lacks are left out.
        settings: Name the scene augmentation.
    """
    batch = batch.to("cpu")  # with the strong views that were left to the device
    rows = {"weak view": batch.weak, "strong view": batch.strong, "person mask": batch.person_mask}
    shown = {label: clips[0] for label, clips in rows.items() if clips is not None}
    if batch.weak is None:
        return shown
    mask = batch.person_mask
    if mask is None and settings.scene_needs_person_mask:
        return shown
    strong = batch.weak if batch.strong is None else batch.strong
    generator = torch.Generator().manual_seed(0)
    clips, mixed = mix_clips(batch.weak, strong, mask, settings.scene_augmentation, generator)
    partner = int(mixed.partner[0])
    if partner:
        shown["partner, weak"] = batch.weak[partner]
    own = 100 * float(mixed.label_weight[0])
    label = f"{settings.scene_augmentation}\n(own label {own:.0f} %)"
    shown[label] = clips[0]
    return shown


def mix_clips(
    weak: Tensor, strong: Tensor, mask: Tensor | None, scene: str, generator: torch.Generator
) -> tuple[Tensor, MixedClips]:
    """Mix a batch for the eye: zero, which is the mean colour to the network, is shown as that.

    Args:
        weak: Weak views (B, T, 3, H, W), uint8.
        strong: Strong views, same shape.
        mask: 1 on people, (B, T, 1, H, W), uint8; None where the data set has no boxes.
        scene: Name of the scene augmentation.
        generator: Source of its draws.

    Returns:
        The mixed clips (B, T, 3, H, W), uint8, and what the augmentation returned.
    """
    mean = torch.tensor(FILL).view(3, 1, 1)
    own, other = (((clips.float() - mean).transpose(1, 2)) for clips in (weak, strong))
    mask = torch.ones_like(weak[:, :, :1]) if mask is None else mask
    augmentation = SCENE_AUGMENTATIONS[scene]
    drawn = augmentation.draw(1.0, generator)
    mixed = augmentation.apply(own, other, mask.transpose(1, 2), drawn)
    return (mixed.clips.transpose(1, 2) + mean).clamp(0, 255).to(torch.uint8), mixed
