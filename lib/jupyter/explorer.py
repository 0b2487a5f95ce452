"""Interactive explorer of notebook 2: choose a video, its partner and parameters; see all views."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import ipywidgets as widgets
import numpy as np
import yaml

from lib.augment.ops import RANDAUGMENT_OPS
from lib.augment.randaugment import OPERATION_GROUPS
from lib.augment.scene import SCENE_AUGMENTATIONS
from lib.augment.temporal import TEMPORAL_OPS
from lib.config import ClipSettings, DataSettings, ExploreSettings, project_path
from lib.data.dataset import VideoDataset, read_dataset
from lib.data.frame_tables import open_person_boxes
from lib.jupyter.clip_views import ClipViews, clip_views, params_html
from lib.jupyter.html import error_html, own_keys, render, tiles_html, unobserved, wrapping
from lib.jupyter.training_batch import TrainingBatchPage, training_settings
from lib.params import make_settings

MAX_LISTED = 200  # videos in a picker; more are found by searching
DATASET_FILES = "*/dataset.json"
SLIDERS = {  # setting: type, lowest, highest, step, label
    "randaugment_num_ops": (widgets.IntSlider, 0, 4, 1, "operations"),
    "randaugment_magnitude": (widgets.FloatSlider, 0, 30, 1, "magnitude"),
    "crop_area_min": (widgets.FloatSlider, 0.05, 1, 0.05, "smallest crop"),
    "frame_interval": (widgets.IntSlider, 1, 16, 1, "interval"),
    "person_min_score": (widgets.FloatSlider, 0, 1, 0.05, "box score"),
}
# The script is in the page itself, so that copying needs neither kernel nor network.
YAML_BOX = """\
<div><button class="jupyter-button mod-info copy-yaml" style="width:auto" onclick="
const text = this.parentElement.querySelector('textarea'); text.select();
document.execCommand('copy'); this.textContent = 'copied';">copy as YAML</button>
<textarea readonly rows="4" style="width:98%;font-family:monospace">{{ yaml }}</textarea></div>
"""


class VideoPicker:
    """List of videos with search and random choice.

    Args:
        label: Name of the list.
        on_change: Called without arguments when another video is chosen.

    Attributes:
        widget: The widget.
        row: Index row of the chosen video.
    """

    def __init__(self, label: str, on_change: Callable[[], None]):
        self.row, self._names, self._on_change = 0, {}, on_change
        wide = widgets.Layout(width="98%")
        self.search = widgets.Text(placeholder="search", layout=wide)
        self.choice = widgets.Select(rows=5, layout=wide)
        self.random = widgets.Button(description="random", icon="random")
        self.count = widgets.HTML()
        self.search.observe(self._list_matches, names="value")
        self.choice.observe(self._on_choice, names="value")
        self.random.on_click(lambda _: self.choose(random.choice(list(self._names))))
        head = widgets.HBox([widgets.HTML(f"<b>{label}</b>"), self.count], layout=wide)
        self.widget = widgets.VBox([own_keys(), head, self.search, self.choice, self.random])
        self.widget.layout.width = "156px"

    def fill(self, names: Sequence[str], rows: Sequence[int], row: int) -> None:
        """List videos by name and index row and choose one, without calling `on_change`."""
        self._names, self.row = dict(zip(map(int, rows), names, strict=True)), int(row)
        with unobserved(self.search, self._list_matches):
            self.search.value = ""
        self._list_matches()

    def choose(self, row: int) -> None:
        """Choose the video of an index row."""
        self.row = int(row)
        self._list_matches()
        self._on_change()

    def _list_matches(self, _: object = None) -> None:
        """List the videos whose names contain all words of the search, and the chosen one."""
        words = self.search.value.lower().split()
        matches = [
            row for row, name in self._names.items() if all(word in name.lower() for word in words)
        ]
        listed = matches[:MAX_LISTED]
        if self.row in matches[MAX_LISTED:]:
            listed.append(self.row)
        shown = f"{len(matches):,} of {len(self._names):,}"
        if len(matches) > MAX_LISTED:
            shown = f"1–{MAX_LISTED} of {len(matches):,}"
        self.count.value = f"&nbsp;{shown}"
        with unobserved(self.choice, self._on_choice):
            self.choice.options = [(self._names[row], row) for row in listed]
            self.choice.value = self.row if self.row in listed else None

    def _on_choice(self, change: dict) -> None:
        if change["new"] is not None:
            self.row = int(change["new"])
            self._on_change()


def make_knobs(settings: ExploreSettings) -> dict[str, widgets.Widget]:
    """Return a widget for each setting that the explorer changes, by name of the setting."""
    temporal = {"any of them": tuple(TEMPORAL_OPS)}
    temporal |= {operation.title: (name,) for name, operation in TEMPORAL_OPS.items()}
    chosen = tuple(settings.temporal_ops)
    if chosen not in temporal.values():
        temporal = {", ".join(chosen): chosen} | temporal
    operations, scenes = [*OPERATION_GROUPS, *RANDAUGMENT_OPS], list(SCENE_AUGMENTATIONS)
    knobs = {
        "seed": widgets.BoundedIntText(settings.seed, min=0, max=10**6, description="seed"),
        "randaugment_ops": widgets.SelectMultiple(options=operations, description="drawn from"),
        "temporal_ops": widgets.Dropdown(options=temporal, description="temporal"),
        "scene_augmentation": widgets.Dropdown(options=scenes, description="scene"),
    }
    knobs["randaugment_ops"].value, knobs["randaugment_ops"].rows = settings.randaugment_ops, 6
    knobs["temporal_ops"].value = chosen
    knobs["scene_augmentation"].value = settings.scene_augmentation
    for knob in knobs.values():
        knob.style.description_width, knob.layout.width = "76px", "206px"
    for name, (kind, low, high, step, label) in SLIDERS.items():
        value = getattr(settings, name)
        knob = kind(value, min=low, max=max(high, value), step=step, description=label)
        knob.style.description_width, knob.layout.width = "94px", "234px"
        knobs[name] = knob
    for name, knob in knobs.items():
        knob.tooltip = f"{name}, as in the parameters of notebook 3"
    return knobs


class AugmentationExplorer:
    """Widget of notebook 2: knobs, the views of one clip, and a page with training batches.

    Args:
        dataset: The prepared data set.
        settings: Initial values of the knobs; `split_name` is the split to choose videos from.

    Attributes:
        widget: The widget.
        views: The views that are shown; None before the first.
        settings: The values of the knobs.
    """

    def __init__(self, dataset: VideoDataset, settings: ExploreSettings):
        self.settings, self.views = settings, None
        self.knobs = make_knobs(settings)
        self.picture, self.params, self.yaml = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self.video = VideoPicker("video", self.show)
        self.partner = VideoPicker("partner", self.show)
        self._open(dataset)
        folders = [path.parent for path in project_path(settings.prepared_dir).glob(DATASET_FILES)]
        options = {path.name: str(path) for path in [dataset.folder, *sorted(folders)]}
        self.data = widgets.Dropdown(options=options, description="data set")
        self.data.value = options[dataset.folder.name]
        self.data.style.description_width, self.data.layout.width = "60px", "328px"
        self.reseed = widgets.Button(description="reseed", icon="refresh")
        self.reseed.layout.width = "96px"
        loader = TrainingBatchPage(lambda: training_settings(self.settings, self.dataset))
        seed, *others = self.knobs.values()
        columns = [self.video.widget, self.partner.widget]
        columns += [widgets.VBox([own_keys(), *others[:3]]), widgets.VBox(others[3:])]
        text = widgets.VBox([self.params, self.yaml], layout=widgets.Layout(flex="1 1 420px"))
        rows = ([self.data, seed, self.reseed], columns, [self.picture, text])
        one_clip = widgets.VBox([widgets.HBox(row, layout=wrapping()) for row in rows])
        self.widget = widgets.Tab(
            [one_clip, loader.widget], titles=("one clip", "training batches")
        )
        self.show()
        for knob in self.knobs.values():
            knob.observe(self.show, names="value")
        self.data.observe(self._change_dataset, names="value")
        self.reseed.on_click(lambda _: setattr(seed, "value", seed.value + 1))
        self.widget.observe(lambda tab: tab["new"] and loader.show(), names="selected_index")

    def _open(self, dataset: VideoDataset) -> None:
        """List the videos of the settings' split, or all videos if there is no such split."""
        path, rows = dataset.split_path(self.settings.split_name), np.arange(len(dataset.index))
        if path.is_file():
            rows = dataset.read_split(self.settings.split_name)
        if not len(rows):
            raise ValueError(f"{path}: contains no video; choose another split")
        self.dataset, self.person_boxes = dataset, open_person_boxes(dataset)
        names = dataset.index["name"].to_numpy()[rows]
        labels = dataset.index["label"].to_numpy()[rows]
        others = np.flatnonzero(labels != labels[0])  # a partner of another class shows more
        self.video.fill(names, rows, rows[0])
        self.partner.fill(names, rows, rows[others[0]] if len(others) else rows[-1])

    def _change_dataset(self, change: dict) -> None:
        try:
            self._open(read_dataset(Path(change["new"])))
        except (ValueError, OSError) as error:
            self.params.value = error_html(error)
            return
        self.show()

    def show(self, _: object = None) -> None:
        """Show the views for the present knobs; an error is shown below the last picture."""
        knobs = {name: knob.value for name, knob in self.knobs.items()}
        knobs |= {name: list(value) for name, value in knobs.items() if isinstance(value, tuple)}
        values, rows = self.settings.model_dump() | knobs, (self.video.row, self.partner.row)
        try:
            self.settings = make_settings(ExploreSettings, values, "knobs")
            self.views = clip_views(self.dataset, self.person_boxes, self.settings, *rows)
        except (ValueError, OSError) as error:
            self.params.value = error_html(error)
            return
        self.picture.value = views_html(self.views)
        self.params.value = params_html(self.views)
        self.yaml.value = render(YAML_BOX, yaml=clip_yaml(self.settings))


def views_html(views: ClipViews) -> str:
    """Return the views of a clip as HTML, looping."""
    return tiles_html(views.tiles, "the views of one clip")


def clip_yaml(settings: ExploreSettings) -> str:
    """Return the settings of the knobs as YAML, for a run of notebook 3."""
    left_out = {*DataSettings.model_fields, "frame_cache_mb"}
    names = [name for name in ClipSettings.model_fields if name not in left_out]
    values = {name: getattr(settings, name) for name in names}
    return yaml.safe_dump(values, sort_keys=False, default_flow_style=None)
