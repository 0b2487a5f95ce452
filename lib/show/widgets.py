"""Interactive views for JupyterLab; each stands below a static figure that tells the same."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import ipywidgets as widgets
import numpy as np
import yaml

from lib.augment.operations import RANDAUGMENT_OPS
from lib.augment.randaugment import OPERATION_GROUPS
from lib.augment.scene import SCENE_AUGMENTATIONS
from lib.augment.temporal import TEMPORAL_OPS
from lib.config import PROJECT_ROOT, ClipSettings, DataSettings, project_path
from lib.data.dataset import VideoDataset, read_dataset
from lib.parameters import make_settings
from lib.show.escape import escape
from lib.show.explorer import ClipExplorer, Look
from lib.show.fed import fed_step, run_settings, training_settings
from lib.show.movies import compose, strip_html
from lib.show.settings import LookSettings

MOST_LISTED = 200  # videos in a picker; more are found by searching
COLUMNS = 4
THESE_KNOBS = "these knobs"
# In the page itself, so that copying needs neither kernel nor network.
COPY_BUTTON = (
    '<button class="jupyter-button mod-info copy-yaml" style="width:auto" onclick="'
    "const text = this.parentElement.querySelector('textarea'); text.select(); "
    "document.execCommand('copy'); this.textContent = 'copied';\">copy as YAML</button>"
)


def augmentation_explorer(dataset: VideoDataset, settings: LookSettings) -> widgets.Widget:
    """Return a widget: choose a video, its partner, a seed and the operations; see all views.

    Args:
        dataset: The prepared data set.
        settings: What the knobs start from; `list_name` is what the videos are chosen from.
    """
    return AugmentationExplorer(dataset, settings).widget


class VideoPicker:
    """Search, choose or draw one of the videos of a list.

    Args:
        label: What the video is.
        on_change: Called without arguments when another video was chosen.

    Attributes:
        widget: What is shown.
        row: Index row of the chosen video.
    """

    def __init__(self, label: str, on_change: Callable[[], None]):
        self._names, self._rows = np.array([], dtype=object), np.array([], dtype=np.int64)
        self.row = 0
        self._on_change, self._is_filling = on_change, False
        wide = widgets.Layout(width="98%")
        self.search = widgets.Text(placeholder="search", layout=wide)
        self.choice = widgets.Select(rows=5, layout=wide)
        self.draw = widgets.Button(description="random", icon="random", tooltip=f"draw a {label}")
        self.count = widgets.HTML()
        self.search.observe(lambda _: self._filter(), names="value")
        self.choice.observe(self._chosen, names="value")
        self.draw.on_click(lambda _: self.choose(random.Random().choice(self._rows.tolist())))
        title = widgets.HTML(f"<b>{label}</b>")
        head = widgets.HBox([title, self.count], layout=wide)
        self.widget = widgets.VBox(
            [head, self.search, self.choice, self.draw], layout=widgets.Layout(width="156px")
        )

    def fill(self, names: Sequence[str], rows: Sequence[int], row: int) -> None:
        """Offer videos, given by name and index row, and choose one; calls nothing."""
        self._names, self._rows = np.asarray(names, dtype=object), np.asarray(rows)
        self.row = int(row)
        self._is_filling = True
        self.search.value = ""
        self._is_filling = False
        self._filter()

    def choose(self, row: int) -> None:
        """Choose the video of an index row."""
        self.row = int(row)
        self._filter()
        self._on_change()

    def _filter(self) -> None:
        if self._is_filling:
            return
        found = self._found()
        own = [pair for pair in found if pair[1] == self.row]
        listed = found[:MOST_LISTED] + [pair for pair in own if pair not in found[:MOST_LISTED]]
        is_all = len(found) <= MOST_LISTED
        shown = f"{len(found):,}" if is_all else f"1–{MOST_LISTED}"
        self.count.value = f"&nbsp;{shown} of {len(self._rows) if is_all else len(found):,}"
        self._is_filling = True
        self.choice.options = listed
        self.choice.value = self.row if own else None
        self._is_filling = False

    def _found(self) -> list[tuple[str, int]]:
        """Return the videos whose names hold all words of the search."""
        words = self.search.value.lower().split()
        videos = zip(self._names, map(int, self._rows), strict=True)
        return [(name, row) for name, row in videos if all(word in name.lower() for word in words)]

    def _chosen(self, change: dict) -> None:
        if not self._is_filling and change["new"] is not None:
            self.row = int(change["new"])
            self._on_change()


class AugmentationExplorer:
    """The knobs of notebook 2, and what they show.

    Args:
        dataset: The prepared data set.
        settings: What the knobs start from.

    Attributes:
        widget: What is shown.
        look: What is shown now.
        settings: What the knobs say.
    """

    def __init__(self, dataset: VideoDataset, settings: LookSettings):
        self.settings, self.look = settings, None
        self._is_set_up = False
        self._make_knobs(settings)
        self.picture, self.facts, self.yaml = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self.video = VideoPicker("video", self.show)
        self.partner = VideoPicker("partner", self.show)
        self._open(dataset)
        loader = LoaderView(self)
        words = widgets.VBox([self.facts, self.yaml], layout=widgets.Layout(flex="1 1 420px"))
        shown = widgets.HBox([self.picture, words], layout=wrapping())
        one_clip = widgets.VBox([self._arranged_knobs(), shown])
        self.widget = widgets.Tab([one_clip, loader.widget])
        self.widget.titles = ("one clip", "what the loader gives")
        self.widget.observe(lambda _: loader.open(), names="selected_index")
        self._is_set_up = True
        self.show()

    def _make_knobs(self, settings: LookSettings) -> None:
        temporal = {"any of them": tuple(TEMPORAL_OPS)}
        temporal |= {operation.title: (name,) for name, operation in TEMPORAL_OPS.items()}
        own = tuple(settings.temporal_ops)
        if own not in temporal.values():
            temporal = {", ".join(own): own} | temporal
        operations = [*OPERATION_GROUPS, *RANDAUGMENT_OPS]
        self.knobs = {
            "seed": widgets.BoundedIntText(settings.seed, min=0, max=10**6, description="seed"),
            "randaugment_ops": widgets.SelectMultiple(
                options=operations,
                value=tuple(settings.randaugment_ops),
                description="drawn from",
                rows=6,
            ),
            "temporal_ops": widgets.Dropdown(options=temporal, value=own, description="temporal"),
            "scene_augmentation": widgets.Dropdown(
                options=list(SCENE_AUGMENTATIONS),
                value=settings.scene_augmentation,
                description="scene",
            ),
            "randaugment_num_ops": widgets.IntSlider(
                settings.randaugment_num_ops, 0, 4, description="operations"
            ),
            "randaugment_magnitude": widgets.FloatSlider(
                settings.randaugment_magnitude, min=0, max=30, step=1, description="magnitude"
            ),
            "crop_area_min": widgets.FloatSlider(
                settings.crop_area_min, min=0.05, max=1, step=0.05, description="smallest crop"
            ),
            "frame_interval": widgets.IntSlider(
                settings.frame_interval, 1, max(16, settings.frame_interval), description="interval"
            ),
            "person_min_score": widgets.FloatSlider(
                settings.person_min_score, min=0, max=1, step=0.05, description="box score"
            ),
        }
        for name, knob in self.knobs.items():
            is_slider = isinstance(knob, widgets.IntSlider | widgets.FloatSlider)
            knob.style.description_width = "94px" if is_slider else "76px"
            knob.layout.width = "234px" if is_slider else "206px"
            knob.tooltip = f"{name}, as in the parameters of notebook 3"
            knob.observe(lambda _: self.show(), names="value")
        self.reseed = widgets.Button(description="reseed", icon="refresh")
        self.reseed.layout.width = "96px"
        self.reseed.on_click(lambda _: self._reseed())

    def _reseed(self) -> None:
        self.knobs["seed"].value += 1

    def _arranged_knobs(self) -> widgets.Widget:
        sets = sorted(path.parent for path in self._data_dir().glob("*/dataset.json"))
        options = {path.name: str(path) for path in [self.dataset.folder, *sets]}
        self.data = widgets.Dropdown(
            options=options, value=options[self.dataset.folder.name], description="data set"
        )
        self.data.style.description_width, self.data.layout.width = "60px", "328px"
        self.data.observe(lambda change: self._change_data(Path(change["new"])), names="value")
        knobs = list(self.knobs.values())
        top = widgets.HBox([self.data, knobs[0], self.reseed], layout=wrapping())
        columns = [
            self.video.widget,
            self.partner.widget,
            widgets.VBox(knobs[1:4]),
            widgets.VBox(knobs[4:]),
        ]
        return widgets.VBox([top, widgets.HBox(columns, layout=wrapping())])

    def _data_dir(self) -> Path:
        return project_path(self.settings.data_dir)

    def _open(self, dataset: VideoDataset) -> None:
        """Take the videos of a data set: of the settings' list, or of all where it has no such."""
        self.dataset = dataset
        self.explorer = ClipExplorer(dataset)
        if dataset.list_path(self.settings.list_name).is_file():
            rows = dataset.read_list(self.settings.list_name)
        else:
            rows = np.arange(len(dataset.index))
        if not len(rows):
            raise ValueError(f"{dataset.list_path(self.settings.list_name)}: names no video")
        names = dataset.index["name"].to_numpy()[rows]
        labels = dataset.index["label"].to_numpy()[rows]
        others = np.flatnonzero(labels != labels[0])  # a partner of another class says more
        self.video.fill(names, rows, rows[0])
        self.partner.fill(names, rows, rows[others[0]] if len(others) else rows[-1])

    def _change_data(self, folder: Path) -> None:
        try:
            self._open(read_dataset(folder))
        except (ValueError, OSError) as error:
            self.facts.value = _error(error)
            return
        self.show()

    def show(self) -> None:
        """Show what the knobs say; what cannot be shown is said below the last picture."""
        if not self._is_set_up:
            return
        changes = {name: _plain(knob.value) for name, knob in self.knobs.items()}
        try:
            values = self.settings.model_dump() | changes
            self.settings = make_settings(LookSettings, values, "knobs")
            self.look = self.explorer.look(self.settings, self.video.row, self.partner.row)
        except (ValueError, OSError) as error:
            self.facts.value = _error(error)
            return
        self.picture.value = strip_html(compose(self.look.tiles, COLUMNS))
        self.facts.value = facts_html(self.look)
        self.yaml.value = (
            f'<div>{COPY_BUTTON}<textarea readonly rows="4" '
            f'style="width:98%;font-family:monospace">'
            f"{escape(clip_yaml(self.settings))}</textarea></div>"
        )


class LoaderView:
    """What a training step feeds to the network: of these knobs, or of any run's settings.

    Args:
        explorer: Whose knobs are "these knobs".
    """

    def __init__(self, explorer: AugmentationExplorer):
        self.explorer = explorer
        self.source = widgets.Combobox(
            value=THESE_KNOBS, options=[THESE_KNOBS, *known_runs()], description="settings of",
            placeholder="a params.yaml, or a run file beside a recipe.yaml",
            layout=widgets.Layout(width="380px"),
        )  # fmt: skip
        self.step = widgets.BoundedIntText(0, min=0, max=10**7, description="step")
        self.step.layout.width, self.step.style.description_width = "130px", "40px"
        self.next = widgets.Button(description="next step", icon="step-forward")
        self.button = widgets.Button(description="show", button_style="info", icon="play")
        self.next.on_click(lambda _: self._next())
        self.button.on_click(lambda _: self.show())
        self.result = widgets.HTML("loading the first step …")
        self._is_opened = False
        controls = [self.source, self.step, self.button, self.next]
        for button in (self.button, self.next):
            button.layout.width = "110px"
        controls = widgets.HBox(controls, layout=wrapping())
        self.widget = widgets.VBox([controls, self.result])

    def open(self) -> None:
        """Show the first step when the page is opened for the first time."""
        if not self._is_opened:
            self.show()

    def _next(self) -> None:
        self.step.value += 1
        self.show()

    def show(self) -> None:
        """Load the step's first clips and show them."""
        self._is_opened, explorer = True, self.explorer
        try:
            if self.source.value == THESE_KNOBS:
                settings = training_settings(explorer.settings, explorer.dataset)
            else:
                settings = run_settings(project_path(self.source.value))
            fed = fed_step(settings, self.step.value)
        except (ValueError, OSError) as error:
            self.result.value = _error(error)
            return
        words = "<br>".join(escape(word) for word in fed.words)
        self.result.value = f"{strip_html(compose(fed.tiles, fed.columns))}<p>{words}</p>"


def wrapping() -> widgets.Layout:
    """Return the layout of things side by side that go to the next line where there is no room."""
    return widgets.Layout(display="flex", flex_flow="row wrap", grid_gap="2px 8px")


def known_runs() -> list[str]:
    """Return the parameter files of the project's studies and runs, relative to its root."""
    found = [path for path in PROJECT_ROOT.glob("params/*/*.yaml") if path.name != "recipe.yaml"]
    found += PROJECT_ROOT.glob("outputs/*/*/params.yaml")
    return sorted(path.relative_to(PROJECT_ROOT).as_posix() for path in found)


def clip_yaml(settings: LookSettings) -> str:
    """Return what the knobs set, as YAML for a run of notebook 3."""
    names = [
        name
        for name in ClipSettings.model_fields
        if name not in DataSettings.model_fields and name != "cache_mb"
    ]
    return yaml.safe_dump(
        {name: getattr(settings, name) for name in names}, sort_keys=False, default_flow_style=None
    )


def facts_html(look: Look) -> str:
    """Return the drawn parameters as a table, with what is missing above it."""
    warnings = "".join(
        f'<div style="border-left:4px solid #E69F00;padding-left:8px;margin:4px 0">'
        f"{escape(warning)}</div>"
        for warning in look.warnings
    )
    rows = "".join(
        f'<tr><td style="padding-right:16px;text-align:left;vertical-align:top;white-space:nowrap">'
        f"{escape(name)}</td>"
        f'<td style="text-align:left;overflow-wrap:anywhere"><b>{escape(value)}</b></td></tr>'
        for name, value in look.facts
    )
    return f'{warnings}<table style="line-height:1.4">{rows}</table>'


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _error(error: Exception) -> str:
    return (
        '<div role="alert" style="border-left:4px solid #D55E00;padding-left:8px;'
        f'overflow-wrap:anywhere;white-space:pre-wrap">{escape(str(error))}</div>'
    )
