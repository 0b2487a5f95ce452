"""What the loader gives: the clips that a training step of a run feeds to its network."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lib.augment.actor_cutmix import MixedClips
from lib.augment.transforms import FILL
from lib.batch.plan import RECIPE, read_plan
from lib.clips import ClipBatch, ClipDataset, StreamSampler, make_generator
from lib.config import ClipSettings, LookSettings, TrainSettings
from lib.data.actors import ACTORS_FILE
from lib.data.dataset import VideoDataset
from lib.learn.schedule import num_micro_batches
from lib.learn.setup import (
    LABELED,
    MIXING,
    ORDER,
    UNLABELED,
    Normalize,
    load_data,
    make_clips,
    make_objective,
    read_settings,
    to_tensors,
)
from lib.show.explorer import scene_title
from lib.show.movies import Tile
from lib.show.style import LABELED as LABELED_COLOR
from lib.show.style import SCENE, STRONG, WEAK, shorten


class FedStep(NamedTuple):
    """What the first micro-batch of a step feeds to the network.

    Attributes:
        tiles: Rows of clips, `columns` in each: labelled, then unlabelled weak, then strong.
        columns: Clips in a row.
        words: What is seen, in sentences.
    """

    tiles: list[Tile]
    columns: int
    words: list[str]


class _Recorder:
    """Stands in for the network: keeps the clips that it is given."""

    def __init__(self, num_classes: int):
        self.num_classes = num_classes
        self.clips = torch.empty(0)

    def __call__(self, clips: Tensor, with_teacher: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        self.clips = clips
        logits = clips.new_zeros(len(clips), self.num_classes)
        return (logits, clips.new_zeros(len(clips), 1000)) if with_teacher else logits


class _RecordedScene:
    """A scene augmentation that keeps what it returned last."""

    def __init__(self, scene):
        self.scene = scene
        self.mixed: MixedClips | None = None

    def __call__(self, *arguments) -> MixedClips:
        self.mixed = self.scene(*arguments)
        return self.mixed


def run_settings(path: Path) -> TrainSettings:
    """Return the settings of a run: its `params.yaml`, or a run file beside a `recipe.yaml`.

    Raises:
        ValueError: If the file or a value in it cannot be used.
    """
    if path.name not in ("params.yaml", RECIPE) and (path.parent / RECIPE).is_file():
        return read_plan([path])[0].settings
    return read_settings([path])


def training_settings(settings: LookSettings, dataset: VideoDataset) -> TrainSettings:
    """Return a semi-supervised run with these clips and views; the rest are defaults.

    Without person boxes, ActorCutMix is left out of it.
    """
    values = {name: getattr(settings, name) for name in ClipSettings.model_fields}
    has_boxes = (dataset.folder / ACTORS_FILE).is_file()
    return TrainSettings(
        **values,
        seed=settings.seed,
        labeled_list=settings.list_name,
        unlabeled_list=settings.list_name,
        val_list=next((name for name in dataset.list_names() if name.startswith("val")), "val"),
        test_crop_size=min(settings.short_side, 256),
        unlabeled_scene_p=0.5 if has_boxes else 0.0,
    )


def fed_step(settings: TrainSettings, step: int = 0, shown: int = 4) -> FedStep:
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
    data = load_data(settings)
    labeled_clips, unlabeled_clips = make_clips(settings, data)
    classes = data.labeled.classes
    sources = [(labeled_clips, data.labeled_rows, settings.labeled_batch, LABELED)]
    if unlabeled_clips is not None:
        sources.append((unlabeled_clips, data.unlabeled_rows, settings.unlabeled_batch, UNLABELED))
    parts = num_micro_batches(settings, 1)
    shown = min([shown, *((batch // parts + 1) // 2 for _, _, batch, _ in sources)])
    batches = [_pairs(source, settings, step, parts, shown) for source in sources]
    normalize = Normalize(FILL, (1.0,) * 3)  # zero is shown as the colour it stands for
    tensors = [to_tensors(batch, normalize, len(classes)) for batch in batches]

    objective, network = make_objective(settings), _Recorder(len(classes))
    scenes = [_RecordedScene(objective.scene) for _ in range(2)]
    if settings.is_semi_supervised:
        labeled = replace(objective.labeled, scene=scenes[0])
        objective = replace(objective, labeled=labeled, scene=scenes[1])
    else:
        objective = replace(objective, scene=scenes[0])
        tensors.append(None)
    objective(network, *tensors, make_generator(settings.seed, MIXING, step, 0))
    return _describe(settings, network.clips, batches, [s.mixed for s in scenes], shown, classes)


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


def _describe(
    settings: TrainSettings,
    fed: Tensor,
    batches: list[ClipBatch],
    mixed: list[MixedClips | None],
    shown: int,
    classes: tuple[str, ...],
) -> FedStep:
    fed = (fed.transpose(1, 2) + torch.tensor(FILL).view(3, 1, 1)).clamp(0, 255).to(torch.uint8)
    count, scene = len(batches[0].label), settings.scene_augmentation
    names = [shorten(classes[label], 30) for label in batches[0].label.tolist()]
    own = range(shown)
    titles = [_title(f"labelled: {names[k]}", mixed[0], k, scene) for k in own]
    tiles = [Tile(titles[k], LABELED_COLOR, fed[k]) for k in own]
    words = ["First row: labelled clips, as they are fed."]
    if len(batches) == 2:
        size = len(batches[1].label)
        tiles += [Tile("unlabelled, weak", WEAK, fed[count + k]) for k in own]
        for k in own:
            title = _title("unlabelled, strong", mixed[1], k, scene)
            color = STRONG if title == "unlabelled, strong" else SCENE
            tiles.append(Tile(title, color, fed[count + size + k]))
        words.append("Second and third row: the two views of unlabelled clips.")
        words.append(_coin(settings.unlabeled_scene_p, mixed[1], scene, "unlabelled"))
    words.append(_coin(settings.labeled_scene_p, mixed[0], scene, "labelled"))
    return FedStep(tiles, shown, [word for word in words if word])


def _title(name: str, mixed: MixedClips | None, position: int, scene: str) -> str:
    if mixed is None or float(mixed.label_weight[position]) == 1:
        return name
    return scene_title(scene, float(mixed.label_weight[position]))


def _coin(p: float, mixed: MixedClips | None, scene: str, which: str) -> str:
    if mixed is None:
        return ""
    is_mixed = bool((mixed.label_weight < 1).any())
    return (
        f"In this step {scene} was {'applied' if is_mixed else 'not applied'} to the {which} "
        f"batch (probability {p:g})."
    )
