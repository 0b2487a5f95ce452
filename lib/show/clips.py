"""Pictures of clips: the views of a batch, and the mistakes of a network."""

from collections.abc import Mapping

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from lib.augment.actor_cutmix import MixedClips
from lib.augment.randaugment import FILL
from lib.augment.scene import SCENE_AUGMENTATIONS
from lib.augment.transforms import EvalTransform
from lib.clips import ClipBatch, ClipDataset, Views
from lib.config import ClipSettings, TrainSettings
from lib.data.frame_tables import has_person_boxes
from lib.data.video import read_frames, uniform_clip_indices
from lib.evaluation.evaluate import ListResult
from lib.learn.setup import load_data
from lib.prepare.prepare import prepare_for
from lib.show.plots import clip_rows


def example_rows(settings: TrainSettings, position: int = 0) -> Mapping[str, Tensor]:
    """Return the views of one training clip of a run, and it after the scene augmentation.

    Returns:
        Row label -> clip or mask, for `clip_rows`.
    """
    prepare_for(settings)
    data = load_data(settings)
    dataset = data.unlabeled or data.labeled
    clips = ClipDataset(
        dataset, settings, Views(True, True, has_person_boxes(dataset)), (settings.seed, 0)
    )
    rows = data.epoch_rows[[position, position + 1]]
    batch = ClipBatch.collate([clips[(k, int(row))] for k, row in enumerate(rows)])
    return batch_rows(batch, settings)


def batch_rows(batch: ClipBatch, settings: ClipSettings) -> Mapping[str, Tensor]:
    """Return the first clip of a batch in all its views, its partner, and both mixed.

    Args:
        batch: uint8 clips, at least two; views that it lacks are left out.
        settings: Name the scene augmentation.
    """
    batch = batch.to("cpu")  # with the strong views that were left to the device
    rows = {"weak view": batch.weak, "strong view": batch.strong, "person mask": batch.human_mask}
    shown = {label: clips[0] for label, clips in rows.items() if clips is not None}
    if batch.weak is None:
        return shown
    mask = batch.human_mask
    if mask is None and settings.scene_needs_people:
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


def mistakes(result: ListResult, settings: TrainSettings, title: str, count: int = 4) -> Figure:
    """Show the mistakes that the network was most sure of, a row each.

    Args:
        result: Of one list.
        settings: The run's, for its clips.
        title: Says what to see.
        count: Most rows.
    """
    probabilities = torch.from_numpy(result.scores).softmax(dim=1).numpy()
    predicted = result.scores.argmax(axis=1)
    wrong = np.flatnonzero(predicted != result.labels)
    wrong = wrong[np.argsort(-probabilities[wrong, predicted[wrong]])][:count]
    classes = result.dataset.classes
    rows = {}
    for number in wrong:
        record = result.dataset.record(int(result.rows[number]))
        indices = uniform_clip_indices(
            record.num_frames, settings.clip_len, settings.frame_interval, 1
        )[0]
        frames = read_frames(record, indices)
        size = settings.test_crop_size
        sure = 100 * probabilities[number, predicted[number]]
        label = f"{classes[predicted[number]]} ({sure:.0f} %)\n← {classes[result.labels[number]]}"
        rows[f"{label}\n{record.name.split('/')[-1]}"] = EvalTransform(
            settings.short_side, size, 1
        )(frames)[0]
    if not rows:
        empty = torch.full((1, 3, 32, 32), 255, dtype=torch.uint8)
        return clip_rows({"no mistakes": empty}, f"{title}: none")
    return clip_rows(rows, title)
