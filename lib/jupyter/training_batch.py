"""Clips of a training step, as the network gets them from the run's own loader and objective."""

from typing import NamedTuple

import torch
from torch import Tensor

from lib.augment.randaugment import FILL
from lib.augment.scene import MixedClips, identity_mix
from lib.config import ClipSettings, ExploreSettings, TrainSettings
from lib.data.clip_dataset import ClipBatch, Stream, make_generator
from lib.data.dataset import VideoDataset
from lib.data.frame_tables import has_person_boxes
from lib.jupyter.clip_views import scene_title
from lib.jupyter.html import Tile, render, tiles_html
from lib.plots import style
from lib.plots.clips import displayable
from lib.plots.style import SCENE, STRONG, WEAK, shorten
from lib.train.objectives import make_objective
from lib.train.run_data import MIXING, Normalize, RunData, make_streams, to_device
from lib.train.schedule import num_micro_batches


class TrainingBatchView(NamedTuple):
    """The first clips of the first micro-batch of a step."""

    tiles: list[Tile]  # `columns` in a row: labeled, then unlabeled weak, then strong
    columns: int
    notes: list[str]  # sentences that describe the rows


def training_settings(settings: ExploreSettings, dataset: VideoDataset) -> TrainSettings:
    """Return a semi-supervised run with these clips and views, and otherwise defaults.

    If the split that is shown is not for training, the first `train…` takes its place. Without
    person boxes there is no scene augmentation.
    """
    scene = {} if has_person_boxes(dataset) else {"unlabeled_scene_p": 0.0}
    splits = [settings.split_name, *dataset.split_names()]
    split = next((name for name in splits if name.startswith("train")), settings.split_name)
    return TrainSettings(
        **settings.model_dump(include=set(ClipSettings.model_fields)),
        seed=settings.seed,
        labeled_split=split,
        unlabeled_split=split,
        val_split=next((name for name in dataset.split_names() if name.startswith("val")), "val"),
        test_crop_size=min(settings.short_side, 256),
        **scene,
    )


def view_training_batch(
    settings: TrainSettings, data: RunData, step: int = 0, shown: int = 4
) -> TrainingBatchView:
    """Return the first clips that the network gets in a step of a run on one process.

    Sampler, data sets and objective are those of the run, with their seeds. Of each stream, `shown`
    clips and their partners are read. Steps count from 0.
    """
    streams = [stream for stream in make_streams(settings, data) if stream is not None]
    classes, scene = data.labeled.classes, settings.scene_augmentation
    num_micro = num_micro_batches(settings.batches, settings.micro_batch, 1)
    shown = min([shown, *((stream.batch // num_micro + 1) // 2 for stream in streams)])
    batches = [_with_partners(stream, step, num_micro, shown) for stream in streams]
    normalize = Normalize(FILL, (1.0,) * 3)  # 0 is shown as the mean color
    tensors = [to_device(batch, normalize, len(classes)) for batch in batches]

    labeled, unlabeled = tensors if len(tensors) == 2 else (*tensors, None)
    generator = make_generator(settings.seed, MIXING, step, 0)
    objective = make_objective(settings)
    labeled_mix = objective.mix_labeled(labeled, generator)
    names = [shorten(classes[label], 30) for label in batches[0].label[:shown].tolist()]
    tiles = _tiles([f"labeled: {name}" for name in names], labeled_mix, scene, style.LABELED)
    view, p = getattr(labeled, settings.labeled_view), settings.labeled_scene_p
    notes = ["First row: labeled clips.", *_scene_note(p, labeled_mix, view, scene, "labeled")]
    if unlabeled is not None:
        strong_mix = objective.mix_unlabeled(unlabeled, generator)
        tiles += _tiles(["unlabeled, weak"] * shown, identity_mix(unlabeled.weak), scene, WEAK)
        tiles += _tiles(["unlabeled, strong"] * shown, strong_mix, scene, STRONG)
        notes.append("Second and third row: the weak and the strong view of unlabeled clips.")
        p, view = settings.unlabeled_scene_p, unlabeled.strong
        notes += _scene_note(p, strong_mix, view, scene, "unlabeled")
    return TrainingBatchView(tiles, shown, notes)


def _with_partners(stream: Stream, step: int, num_micro: int, shown: int) -> ClipBatch:
    """Return the first clips of a micro-batch and, at its end, their partners."""
    positions = next(stream.micro_batches(step, step + 1, num_micro=num_micro))
    if len(positions) > 2 * shown:
        positions = positions[:shown] + positions[-shown:]
    return ClipBatch.collate([stream.clips[position] for position in positions])


def _tiles(titles: list[str], mixed: MixedClips, scene: str, color: str) -> list[Tile]:
    """Return the first clips of a batch; mixed clips are titled by the scene augmentation."""
    weights, clips = mixed.label_weight.tolist(), displayable(mixed.clips)
    return [
        Tile(title, color, clip) if weight == 1 else Tile(scene_title(scene, weight), SCENE, clip)
        for title, clip, weight in zip(titles, clips, weights, strict=False)
    ]


def _scene_note(p: float, mixed: MixedClips, view: Tensor, scene: str, stream: str) -> list[str]:
    """Return a sentence on the scene augmentation of a batch; none at probability 0."""
    applied = "not applied" if torch.equal(mixed.clips, view) else "applied"
    return [f"In this step {scene} is {applied} to the {stream} batch (p = {p:g})."] if p else []


def batch_html(view: TrainingBatchView) -> str:
    """Return the clips of a step as HTML, with the notes below."""
    tiles = tiles_html(view.tiles, "the clips of one training step", view.columns)
    notes = "<p>{% for note in notes %}{{ note }}<br>{% endfor %}</p>"
    return tiles + render(notes, notes=view.notes)
