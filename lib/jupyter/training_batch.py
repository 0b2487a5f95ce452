"""Clips of a training step, as the network gets them from the run's own loader and objective."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import ipywidgets as widgets
import torch
from torch import Tensor

from lib.augment.randaugment import FILL
from lib.augment.scene import MixedClips, identity_mix
from lib.config import PROJECT_ROOT, ClipSettings, ExploreSettings, TrainSettings, project_path
from lib.data.clip_dataset import ClipBatch, make_generator
from lib.data.dataset import VideoDataset
from lib.data.frame_tables import has_person_boxes
from lib.jupyter.clip_views import scene_title
from lib.jupyter.html import error_html, render, wrapping
from lib.jupyter.tiles import Tile, tiles_html
from lib.params import is_run_file, read_settings
from lib.plots import style
from lib.plots.style import SCENE, STRONG, WEAK, shorten
from lib.prepare.steps import prepare_for
from lib.train.objectives import make_objective
from lib.train.run_data import (
    MIXING,
    Normalize,
    RunData,
    Stream,
    load_data,
    make_streams,
    to_device,
)
from lib.train.schedule import num_micro_batches

THESE_KNOBS = "these knobs"


class TrainingBatchView(NamedTuple):
    """The first clips of the first micro-batch of a step.

    Attributes:
        tiles: Rows of clips, `columns` in each: labeled, then unlabeled weak, then strong.
        columns: Clips in a row.
        notes: Sentences that describe the rows.
    """

    tiles: list[Tile]
    columns: int
    notes: list[str]


def run_settings(path: Path) -> TrainSettings:
    """Return the settings of a run: its `params.yaml`, or a run file next to a `recipe.yaml`.

    Raises:
        ValueError: If the file or a value in it is invalid.
    """
    return read_settings([path])


def training_settings(settings: ExploreSettings, dataset: VideoDataset) -> TrainSettings:
    """Return a semi-supervised run with these clips and views, and otherwise defaults.

    Without person boxes it has no scene augmentation.
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
    settings: TrainSettings, data: RunData, step: int = 0, shown: int = 4
) -> TrainingBatchView:
    """Return the first clips that the network gets in a step of a run on one process.

    The clips come through the run's own sampler, data sets and objective, with their seeds; of a
    batch only the shown clips and their partners are read.

    Args:
        settings: Settings of the run.
        data: Data of the run (`load_data`).
        step: The step, from 0.
        shown: Clips of each stream.
    """
    streams = [stream for stream in make_streams(settings, data) if stream is not None]
    classes = data.labeled.classes
    num_micro = num_micro_batches(settings, 1)
    shown = min([shown, *((stream.batch // num_micro + 1) // 2 for stream in streams)])
    batches = [_with_partners(stream, step, num_micro, shown) for stream in streams]
    normalize = Normalize(FILL, (1.0,) * 3)  # 0 is shown as the mean color
    tensors = [to_device(batch, normalize, len(classes)) for batch in batches]

    labeled, unlabeled = tensors if len(tensors) == 2 else (*tensors, None)
    generator = make_generator(settings.seed, MIXING, step, 0)
    objective = make_objective(settings)
    labeled_mix = objective.mix_labeled(labeled, generator)
    names = [shorten(classes[label], 30) for label in batches[0].label[:shown].tolist()]
    scene = settings.scene_augmentation
    notes = ["First row: labeled clips."]
    tiles = _tiles([f"labeled: {name}" for name in names], labeled_mix, scene, style.LABELED)
    view = getattr(labeled, settings.labeled_view)
    notes += _scene_note(settings.labeled_scene_p, labeled_mix, view, scene, "labeled")
    if unlabeled is not None:
        strong_mix = objective.mix_unlabeled(unlabeled, generator)
        tiles += _tiles(["unlabeled, weak"] * shown, identity_mix(unlabeled.weak), scene, WEAK)
        tiles += _tiles(["unlabeled, strong"] * shown, strong_mix, scene, STRONG)
        notes.append("Second and third row: the weak and the strong view of unlabeled clips.")
        probability = settings.unlabeled_scene_p
        notes += _scene_note(probability, strong_mix, unlabeled.strong, scene, "unlabeled")
    return TrainingBatchView(tiles, shown, notes)


def _with_partners(stream: Stream, step: int, num_micro: int, shown: int) -> ClipBatch:
    """Return the first clips of a micro-batch and, at its end, their partners."""
    positions = next(iter(stream.sampler(step, step + 1, num_micro=num_micro)))
    if len(positions) > 2 * shown:
        positions = positions[:shown] + positions[-shown:]
    return ClipBatch.collate([stream.clips[position] for position in positions])


def _tiles(titles: list[str], mixed: MixedClips, scene: str, color: str) -> list[Tile]:
    """Return the first clips of a batch; mixed clips are titled by the scene augmentation."""
    mean, tiles = torch.tensor(FILL).view(3, 1, 1), []
    for title, clip, weight in zip(titles, mixed.clips, mixed.label_weight.tolist(), strict=False):
        if weight != 1:
            title, color_of_clip = scene_title(scene, weight), SCENE
        else:
            color_of_clip = color
        clip = (clip.transpose(0, 1) + mean).clamp(0, 255).to(torch.uint8)
        tiles.append(Tile(title, color_of_clip, clip))
    return tiles


def _scene_note(p: float, mixed: MixedClips, view: Tensor, scene: str, stream: str) -> list[str]:
    """Return a sentence on the scene augmentation of a batch; none at probability 0."""
    applied = "not applied" if torch.equal(mixed.clips, view) else "applied"
    sentence = f"In this step {scene} is {applied} to the {stream} batch (probability {p:g})."
    return [sentence] if p else []


def batch_html(view: TrainingBatchView) -> str:
    """Return the clips of a step as HTML, with the notes below."""
    tiles = tiles_html(view.tiles, "the clips of one training step", view.columns)
    notes = "<p>{% for note in notes %}{{ note }}<br>{% endfor %}</p>"
    return tiles + render(notes, notes=view.notes)


# --- The page of the explorer ---------------------------------------------------------------------


class TrainingBatchPage:
    """Page of the explorer: training batches of its knobs, or of the settings of any run.

    Args:
        get_settings: Returns a run with the values of the knobs.
    """

    def __init__(self, get_settings: Callable[[], TrainSettings]):
        self.get_settings = get_settings
        self.source = widgets.Combobox(
            value=THESE_KNOBS, options=[THESE_KNOBS, *known_runs()], description="settings of",
            placeholder="a params.yaml, or a run file next to a recipe.yaml",
            continuous_update=False, layout=widgets.Layout(width="380px"),
        )  # fmt: skip
        self.step = widgets.BoundedIntText(0, min=0, max=10**7, description="step")
        self.result = widgets.HTML()
        for control in (self.source, self.step):
            control.observe(self.show, names="value")
        controls = widgets.HBox([self.source, self.step], layout=wrapping())
        self.widget = widgets.VBox([controls, self.result])

    def show(self, _: object = None) -> None:
        """Load the first clips of the step and show them."""
        try:
            if self.source.value == THESE_KNOBS:
                settings = self.get_settings()
            else:
                settings = run_settings(project_path(self.source.value))
            prepare_for(settings)
            view = view_training_batch(settings, load_data(settings), self.step.value)
        except (ValueError, OSError) as error:
            self.result.value = error_html(error)
            return
        self.result.value = batch_html(view)


def known_runs() -> list[str]:
    """Return the parameter files of the project's studies and runs, relative to its root."""
    paths = [path for path in PROJECT_ROOT.glob("params/**/*.yaml") if is_run_file(path)]
    paths += PROJECT_ROOT.glob("outputs/**/params.yaml")
    return sorted(path.relative_to(PROJECT_ROOT).as_posix() for path in paths)
