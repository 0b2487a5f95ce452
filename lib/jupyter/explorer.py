"""Interactive explorer of notebook 2: choose a video, its partner and parameters; see all views."""

import random
from collections.abc import Callable, Mapping
from pathlib import Path

import ipywidgets as widgets
import pandas as pd
import yaml

from lib.augment.randaugment import OPERATION_GROUPS, RANDAUGMENT_OPS
from lib.augment.scene import SCENE_AUGMENTATIONS
from lib.augment.temporal import TEMPORAL_OPS
from lib.config import PROJECT_ROOT, ClipSettings, ExploreSettings, TrainSettings, project_path
from lib.data.dataset import VideoDataset
from lib.data.frame_tables import has_person_boxes, open_person_boxes
from lib.fileio import write_text
from lib.jupyter.clip_views import ClipViews, clip_views, params_html
from lib.jupyter.html import (
    error_html,
    left_aligned,
    own_keys,
    render,
    tiles_html,
    unobserved,
    wrapping,
)
from lib.params import RECIPE, make_settings

MAX_LISTED = 200  # videos in a picker; more are found by searching
SLIDERS = {  # setting: type, lowest, highest, step, label
    "randaugment_num_ops": (widgets.IntSlider, 0, 4, 1, "operations"),
    "randaugment_magnitude": (widgets.FloatSlider, 0, 30, 1, "magnitude"),
    "crop_area_min": (widgets.FloatSlider, 0.05, 1, 0.05, "smallest crop"),
    "frame_interval": (widgets.IntSlider, 1, 16, 1, "interval"),
    "person_min_score": (widgets.FloatSlider, 0, 1, 0.05, "box score"),
}
COMPARED = ("original", "weak", "strong", "temporal", "person_mask", "scene")  # with a pinned clip
RUNS_FOLDER = "params/explorer"  # of run files that are given by name only
# Keys of the page with one clip, except in fields for text.
KEYS = """<style onload="const page = this.closest('.explorer-page');
page.tabIndex = 0;
page.style.outline = 'none';
page.dataset.lmSuppressShortcuts = 'true';
page.addEventListener('keydown', event => {
  const isText = event.target.matches('textarea, [type=text], [type=number]');
  const name = {n: '.next-video', p: '.previous-video'}[event.key];
  if (!name || isText || event.ctrlKey || event.metaKey || event.altKey) return;
  page.focus({preventScroll: true});  // the picture, drawn again, loses it
  page.querySelector(name).click();
  event.preventDefault();
})"></style>"""
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
        label: Heading.
        names: Index row -> name of each video.
        row: Index row of the video that is chosen first.
        on_change: Called when another video is chosen.
    """

    def __init__(
        self, label: str, names: Mapping[int, str], row: int, on_change: Callable[[], None]
    ):
        self.row, self._names, self._on_change = row, names, on_change
        wide = widgets.Layout(width="98%")
        self.search = widgets.Text(placeholder="search", layout=wide)
        self.choice = widgets.Select(rows=5, layout=wide)
        self.previous = widgets.Button(icon="step-backward", tooltip="previous video")
        self.random = widgets.Button(description="random", tooltip="any video of the split")
        self.next = widgets.Button(icon="step-forward", tooltip="next video")
        for button, width in ((self.previous, "34px"), (self.random, "78px"), (self.next, "34px")):
            button.layout.width = width
        self.count = widgets.HTML()
        self.search.observe(self._list_matches, names="value")
        self.choice.observe(self._on_choice, names="value")
        self.previous.on_click(lambda _: self.step(-1))
        self.random.on_click(lambda _: self.choose(random.choice(list(self._names))))
        self.next.on_click(lambda _: self.step(1))
        head = widgets.HBox([widgets.HTML(f"<b>{label}</b>"), self.count], layout=wide)
        buttons = widgets.HBox([self.previous, self.random, self.next])
        self.widget = widgets.VBox([own_keys(), head, self.search, self.choice, buttons])
        self.widget.layout.width = "156px"
        self._list_matches()

    def choose(self, row: int) -> None:
        """Choose the video of an index row."""
        self.row = int(row)
        self._list_matches()
        self._on_change()

    def step(self, offset: int) -> None:
        """Choose the video that is `offset` lines further down the list, which is a circle."""
        rows = [row for _, row in self.choice.options] or [self.row]
        position = rows.index(self.row) if self.row in rows else min(0, -offset)
        self.choose(rows[(position + offset) % len(rows)])

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
        "flip": widgets.Checkbox(settings.flip, description="flip"),
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
    """Widget of notebook 2: knobs and the views of one clip.

    Args:
        dataset: The prepared data set.
        settings: Initial values of the knobs; `split_name` is the split to choose videos from, or
            all videos if there is no such split.
        row: Index row of the first video that is shown; None: the first of the split.

    Attributes:
        settings: The present values of the knobs.
        views: What is shown; None until a clip was read.
        pinned: Settings and views that they are compared with.
    """

    def __init__(self, dataset: VideoDataset, settings: ExploreSettings, row: int | None = None):
        self.dataset, self.person_boxes = dataset, open_person_boxes(dataset)
        self.settings, self.views = settings, None
        self.pinned: tuple[ExploreSettings, ClipViews] | None = None
        self.knobs = make_knobs(settings)
        self.picture, self.params, self.yaml = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self.differences = widgets.HTML()
        self.video, self.partner = self._pickers(row)
        self.video.previous.add_class("previous-video")
        self.video.next.add_class("next-video")
        self.reseed = widgets.Button(description="reseed", icon="refresh")
        self.pin = widgets.ToggleButton(description="pin as A", icon="thumb-tack")
        self.pin.tooltip = "keep these views and compare them with other settings"
        self.reseed.layout.width = self.pin.layout.width = "96px"
        self.file = widgets.Text("explored", description="run file")
        self.write = widgets.Button(description="write", icon="save")
        self.message = widgets.HTML()
        self.widget = self._arrange()
        self.show()
        for knob in self.knobs.values():
            knob.observe(self.show, names="value")
        self.reseed.on_click(lambda _: setattr(self.knobs["seed"], "value", self.settings.seed + 1))
        self.pin.observe(self._on_pin, names="value")
        self.write.on_click(self._on_write)

    def _arrange(self) -> widgets.VBox:
        seed, *others = self.knobs.values()
        columns = [self.video.widget, self.partner.widget]
        columns += [widgets.VBox([own_keys(), *others[:4]]), widgets.VBox(others[4:])]
        file = widgets.HBox([self.file, self.write], layout=wrapping())
        text = widgets.VBox([self.differences, self.params, self.yaml, file, self.message])
        text.layout = widgets.Layout(flex="1 1 420px")
        rows = ([seed, self.reseed, self.pin], columns, [self.picture, text])
        page = widgets.VBox([widgets.HBox(row, layout=wrapping()) for row in rows])
        page.children += (widgets.HTML(KEYS, layout=widgets.Layout(display="none")),)
        return page.add_class("explorer-page")

    def _pickers(self, row: int | None) -> tuple[VideoPicker, VideoPicker]:
        """Return the lists to choose the video and its partner from."""
        index, path = self.dataset.index, self.dataset.split_path(self.settings.split_name)
        if path.is_file():
            index = index.iloc[self.dataset.read_split(self.settings.split_name)]
        if index.empty:
            raise ValueError(f"{path}: contains no video; choose another split")
        names = index["name"].to_dict()
        row = next(iter(names)) if row is None else row
        others = index.index[index["label"] != self.dataset.index["label"][row]]
        partner = int(others[0] if len(others) else index.index[-1])  # another class shows more
        return (
            VideoPicker("video", names, row, self.show),
            VideoPicker("partner", names, partner, self.show),
        )

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
        self.params.value = params_html(self.views)
        self.yaml.value = render(YAML_BOX, yaml=clip_yaml(self.settings))
        self._draw()

    def _draw(self) -> None:
        """Show the views, and what differs from the pinned ones."""
        self.picture.value, lines = views_html(self.views, self.pinned and self.pinned[1]), []
        if self.pinned:
            before, now = (
                settings.model_dump() | {"video": views.params["video"]}
                for settings, views in (self.pinned, (self.settings, self.views))
            )
            lines = [(k, str(v), str(now[k])) for k, v in before.items() if v != now[k]]
        table = pd.DataFrame(lines, columns=["", "A, pinned", "B, now"])
        self.differences.value = left_aligned(table).to_html() if lines else ""

    def _on_pin(self, change: dict) -> None:
        self.pinned = (self.settings, self.views) if change["new"] else None
        self._draw()

    def _on_write(self, _: object) -> None:
        try:
            path = self.write_run_file(f"{RUNS_FOLDER}/{self.file.value}.yaml")
            text = f"Written. Train it: python -m lib.batch {path}"
            self.message.value = render("<p>{{ text }}</p>", text=text)
        except (ValueError, OSError) as error:
            self.message.value = error_html(error)

    def write_run_file(self, path: str | Path) -> Path:
        """Write the knobs as a run file: a semi-supervised run with these clips and views.

        The path ends in `.yaml`; it is relative to the project's root, and so is the returned one
        if it is below it. An empty recipe is written next to the file if there is none, so that
        `lib.batch` reads it.

        Raises:
            ValueError: If there is such a file.
        """
        path = project_path(path)
        if path.exists() or path.suffix != ".yaml" or path.name == RECIPE:
            problem = "exists already" if path.exists() else "is no name of a run file (<run>.yaml)"
            raise ValueError(f"{path}: {problem}; choose another name")
        run, defaults = training_settings(self.settings, self.dataset), TrainSettings().model_dump()
        values = {k: v for k, v in run.model_dump().items() if v != defaults[k]}
        if not (path.parent / RECIPE).exists():
            write_text(path.parent / RECIPE, "# Runs that the explorer of notebook 2 wrote.\n")
        write_text(path, yaml.safe_dump(values, sort_keys=False, default_flow_style=None))
        return path.relative_to(PROJECT_ROOT) if path.is_relative_to(PROJECT_ROOT) else path


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


def views_html(views: ClipViews, pinned: ClipViews | None = None) -> str:
    """Return the views of a clip as HTML, looping; with pinned views (A) each next to its own."""
    if pinned is None:
        return tiles_html(list(views.tiles.values()), "the views of one clip")
    tiles = [
        side.tiles[name]._replace(title=f"{letter}: {side.tiles[name].title}")
        for name in COMPARED
        for letter, side in (("A", pinned), ("B", views))
    ]
    return tiles_html(tiles, "the views of two clips")


def clip_yaml(settings: ExploreSettings) -> str:
    """Return the settings of the knobs as YAML, for a run of notebook 3."""
    names = ClipSettings.__annotations__.keys() - {"frame_cache_mb"}  # without those of the data
    values = settings.model_dump(include=names)
    return yaml.safe_dump(values, sort_keys=False, default_flow_style=None)
