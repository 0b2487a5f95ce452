"""Pictures of clips: rows of frames, the views of a batch."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from lib.augment.randaugment import FILL
from lib.augment.scene import SCENE_AUGMENTATIONS, MixedClips
from lib.config import ClipSettings, TrainSettings
from lib.data.clip_dataset import ClipBatch, ClipDataset, ViewSpec
from lib.data.frame_tables import has_person_boxes
from lib.plots.style import styled
from lib.prepare.steps import prepare_for
from lib.train.setup import load_data

GAP = 0.03  # around a frame, share of its width


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
        title: Says what to see.
        frames: Most frames shown of a clip, evenly spaced.
        xlabel: What the columns are.
        columns: What stands below them; their numbers where it is not given.
    """
    count = min(frames, min(len(clip) for clip in clips.values()))
    heights = np.cumsum([0.0, *(clip.shape[-2] / clip.shape[-1] for clip in clips.values())])
    figure, axes = plt.subplots(
        figsize=(1.15 * count + 1.4, 1.15 * heights[-1] + 0.6), layout="constrained"
    )
    for clip, (top, bottom) in zip(clips.values(), pairwise(heights), strict=True):
        shown = np.linspace(0, len(clip) - 1, count).round().astype(int)
        for left, index in enumerate(shown):
            image = clip[int(index)].permute(1, 2, 0).numpy()
            place = (left + GAP, left + 1 - GAP, bottom - GAP, top + GAP)
            if image.shape[-1] == 1:
                axes.imshow(image[..., 0], cmap="gray", vmin=0, vmax=1, extent=place)
            else:
                axes.imshow(image, extent=place)
    axes.set(xlim=(0, count), ylim=(heights[-1], 0), xlabel=xlabel)
    axes.set_xticks(np.arange(count) + 0.5, columns or range(count))
    axes.set_yticks((heights[:-1] + heights[1:]) / 2, list(clips))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    figure.suptitle(title)
    return figure


def example_rows(settings: TrainSettings) -> Mapping[str, Tensor]:
    """Return the views of the first training clip of a run, and it after the scene augmentation.

    Returns:
        Row label -> clip or mask, for `clip_rows`.
    """
    prepare_for(settings)
    data = load_data(settings)
    dataset = data.unlabeled if settings.is_semi_supervised else data.labeled
    clips = ClipDataset(
        dataset, settings, ViewSpec(True, True, has_person_boxes(dataset)), (settings.seed, 0)
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
