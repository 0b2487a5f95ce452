"""What the loader gives: the clips that a training step of a run feeds to its network."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lib.augment.randaugment import FILL
from lib.augment.scene import MixedClips, identity_mix
from lib.config import ClipSettings, ExploreSettings, TrainSettings
from lib.data.clip_dataset import ClipBatch, ClipDataset, StreamSampler, make_generator
from lib.data.dataset import VideoDataset
from lib.data.frame_tables import has_person_boxes
from lib.jupyter.clip_views import scene_title
from lib.jupyter.tiles import Tile
from lib.params import is_run_file, parameter_files
from lib.plots.style import LABELED as LABELED_COLOR
from lib.plots.style import SCENE, STRONG, WEAK, shorten
from lib.prepare.steps import prepare_for
from lib.train.schedule import num_micro_batches
from lib.train.setup import (
    LABELED,
    MIXING,
    ORDER,
    UNLABELED,
    Normalize,
    load_data,
    make_clip_datasets,
    make_objective,
    read_settings,
    to_device,
)


class TrainingBatchView(NamedTuple):
    """What the first micro-batch of a step feeds to the network.

    Attributes:
        tiles: Rows of clips, `columns` in each: labelled, then unlabelled weak, then strong.
        columns: Clips in a row.
        words: What is seen, in sentences.
    """

    tiles: list[Tile]
    columns: int
    words: list[str]


def run_settings(path: Path) -> TrainSettings:
    """Return the settings of a run: its `params.yaml`, or a run file beside a `recipe.yaml`.

    Raises:
        ValueError: If the file or a value in it cannot be used.
    """
    return read_settings(parameter_files(path) if is_run_file(path) else [path])


def training_settings(settings: ExploreSettings, dataset: VideoDataset) -> TrainSettings:
    """Return a semi-supervised run with these clips and views; the rest are defaults.

    Without person boxes, ActorCutMix is left out of it.
    """
    values = {name: getattr(settings, name) for name in ClipSettings.model_fields}
    return TrainSettings(
        **values,
        seed=settings.seed,
        labeled_split=settings.split_name,
        unlabeled_split=settings.split_name,
        val_split=next((name for name in dataset.split_names() if name.startswith("val")), "val"),
        test_crop_size=min(settings.short_side, 256),
        unlabeled_scene_p=0.5 if has_person_boxes(dataset) else 0.0,
    )


def view_training_batch(
    settings: TrainSettings, step: int = 0, shown: int = 4
) -> TrainingBatchView:
    """Return what a step of a run on one process feeds to its network.

    The clips come through the run's own loader, sampler and objective, with their seeds; of a
    batch only the shown clips and their partners are read.

    Args:
        settings: The run's.
        step: The step, from 0.
        shown: Clips of each stream.

    Raises:
        ValueError: If data, lists or boxes that the run needs are missing; says which.
    """
    prepare_for(settings)
    data = load_data(settings)
    labeled_clips, unlabeled_clips = make_clip_datasets(settings, data)
    classes = data.labeled.classes
    sources = [(labeled_clips, data.labeled_rows, settings.labeled_batch, LABELED)]
    if unlabeled_clips is not None:
        sources.append((unlabeled_clips, data.unlabeled_rows, settings.unlabeled_batch, UNLABELED))
    parts = num_micro_batches(settings, 1)
    shown = min([shown, *((batch // parts + 1) // 2 for _, _, batch, _ in sources)])
    batches = [_pairs(source, settings, step, parts, shown) for source in sources]
    normalize = Normalize(FILL, (1.0,) * 3)  # zero is shown as the colour it stands for
    tensors = [to_device(batch, normalize, len(classes)) for batch in batches]

    labeled, unlabeled = tensors if len(tensors) == 2 else (*tensors, None)
    generator = make_generator(settings.seed, MIXING, step, 0)
    mixed, other = make_objective(settings).mix(labeled, unlabeled, generator)
    names = [shorten(classes[label], 30) for label in batches[0].label[:shown].tolist()]
    scene, words = settings.scene_augmentation, ["First row: labelled clips, as they are fed."]
    tiles = _tiles([f"labelled: {name}" for name in names], mixed, scene, LABELED_COLOR)
    view = getattr(labeled, settings.labeled_view)
    words += _coin(settings.labeled_scene_p, mixed, view, scene, "labelled")
    if unlabeled is not None:
        tiles += _tiles(["unlabelled, weak"] * shown, identity_mix(unlabeled.weak), scene, WEAK)
        tiles += _tiles(["unlabelled, strong"] * shown, other, scene, STRONG)
        words.append("Second and third row: the two views of unlabelled clips.")
        words += _coin(settings.unlabeled_scene_p, other, unlabeled.strong, scene, "unlabelled")
    return TrainingBatchView(tiles, shown, words)


def _pairs(
    source: tuple[ClipDataset, np.ndarray, int, int],
    settings: TrainSettings,
    step: int,
    parts: int,
    shown: int,
) -> ClipBatch:
    """Return the first clips of a micro-batch and, at its end, their partners."""
    clips, rows, batch, stream = source
    key = (settings.seed, ORDER, stream)
    sampler = StreamSampler(rows, batch, key, step, step + 1, 0, parts, parts)
    positions = next(iter(sampler))
    if len(positions) > 2 * shown:
        positions = positions[:shown] + positions[-shown:]
    return ClipBatch.collate([clips[position] for position in positions])


def _tiles(titles: list[str], mixed: MixedClips, scene: str, color: str) -> list[Tile]:
    """Return the first clips of a batch; those whose label was mixed say so."""
    mean, tiles = torch.tensor(FILL).view(3, 1, 1), []
    for title, clip, own in zip(titles, mixed.clips, mixed.label_weight.tolist(), strict=False):
        clip = (clip.transpose(0, 1) + mean).clamp(0, 255).to(torch.uint8)
        is_mixed = own != 1
        tiles.append(
            Tile(scene_title(scene, own), SCENE, clip) if is_mixed else Tile(title, color, clip)
        )
    return tiles


def _coin(p: float, mixed: MixedClips, view: Tensor, scene: str, which: str) -> list[str]:
    """Return a sentence that says whether the scene augmentation was drawn, if it can be."""
    was = "not applied" if torch.equal(mixed.clips, view) else "applied"
    sentence = f"In this step {scene} was {was} to the {which} batch (probability {p:g})."
    return [sentence] if p else []
