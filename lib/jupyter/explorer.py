"""The knobs of notebook 2 in JupyterLab; they stand below a static figure that tells the same."""

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
from lib.jupyter.clip_views import ClipExplorer, ExplorerView
from lib.jupyter.html import error_html, escape, wrapping
from lib.jupyter.loader_view import LoaderView
from lib.jupyter.tiles import compose, strip_html
from lib.jupyter.video_picker import VideoPicker
from lib.params import make_settings

COLUMNS = 4
# In the page itself, so that copying needs neither kernel nor network.
COPY_BUTTON = (
    '<button class="jupyter-button mod-info copy-yaml" style="width:auto" onclick="'
    "const text = this.parentElement.querySelector('textarea'); text.select(); "
    "document.execCommand('copy'); this.textContent = 'copied';\">copy as YAML</button>"
)


class AugmentationExplorer:
    """The knobs of notebook 2: choose a video, its partner, a seed and operations; see all views.

    Args:
        dataset: The prepared data set.
        settings: What the knobs start from; `split_name` is what the videos are chosen from.

    Attributes:
        widget: What is shown.
        look: What is shown now.
        settings: What the knobs say.
    """

    def __init__(self, dataset: VideoDataset, settings: ExploreSettings):
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

    def _make_knobs(self, settings: ExploreSettings) -> None:
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
        }
        widest = max(16, settings.frame_interval)
        for name, kind, low, high, step, words in (
            ("randaugment_num_ops", widgets.IntSlider, 0, 4, 1, "operations"),
            ("randaugment_magnitude", widgets.FloatSlider, 0, 30, 1, "magnitude"),
            ("crop_area_min", widgets.FloatSlider, 0.05, 1, 0.05, "smallest crop"),
            ("frame_interval", widgets.IntSlider, 1, widest, 1, "interval"),
            ("person_min_score", widgets.FloatSlider, 0, 1, 0.05, "box score"),
        ):
            value = getattr(settings, name)
            self.knobs[name] = kind(value, min=low, max=high, step=step, description=words)
        for name, knob in self.knobs.items():
            is_slider = isinstance(knob, widgets.IntSlider | widgets.FloatSlider)
            knob.style.description_width = "94px" if is_slider else "76px"
            knob.layout.width = "234px" if is_slider else "206px"
            knob.tooltip = f"{name}, as in the parameters of notebook 3"
            knob.observe(lambda _: self.show(), names="value")
        self.reseed = widgets.Button(description="reseed", icon="refresh")
        self.reseed.layout.width = "96px"
        self.reseed.on_click(self._reseed)

    def _reseed(self, _: object) -> None:
        self.knobs["seed"].value += 1

    def _arranged_knobs(self) -> widgets.Widget:
        prepared_dir = project_path(self.settings.prepared_dir)
        sets = sorted(path.parent for path in prepared_dir.glob("*/dataset.json"))
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

    def _open(self, dataset: VideoDataset) -> None:
        """Take the videos of a data set: of the settings' list, or of all where it has no such."""
        self.dataset = dataset
        self.explorer = ClipExplorer(dataset)
        if dataset.split_path(self.settings.split_name).is_file():
            rows = dataset.read_split(self.settings.split_name)
        else:
            rows = np.arange(len(dataset.index))
        if not len(rows):
            raise ValueError(f"{dataset.split_path(self.settings.split_name)}: names no video")
        names = dataset.index["name"].to_numpy()[rows]
        labels = dataset.index["label"].to_numpy()[rows]
        others = np.flatnonzero(labels != labels[0])  # a partner of another class says more
        self.video.fill(names, rows, rows[0])
        self.partner.fill(names, rows, rows[others[0]] if len(others) else rows[-1])

    def _change_data(self, folder: Path) -> None:
        try:
            self._open(read_dataset(folder))
        except (ValueError, OSError) as error:
            self.facts.value = error_html(error)
            return
        self.show()

    def show(self) -> None:
        """Show what the knobs say; what cannot be shown is said below the last picture."""
        if not self._is_set_up:
            return
        changes = {name: _plain(knob.value) for name, knob in self.knobs.items()}
        try:
            values = self.settings.model_dump() | changes
            self.settings = make_settings(ExploreSettings, values, "knobs")
            self.look = self.explorer.look(self.settings, self.video.row, self.partner.row)
        except (ValueError, OSError) as error:
            self.facts.value = error_html(error)
            return
        self.picture.value = strip_html(compose(self.look.tiles, COLUMNS))
        self.facts.value = facts_html(self.look)
        self.yaml.value = (
            f'<div>{COPY_BUTTON}<textarea readonly rows="4" '
            f'style="width:98%;font-family:monospace">'
            f"{escape(clip_yaml(self.settings))}</textarea></div>"
        )


def clip_yaml(settings: ExploreSettings) -> str:
    """Return what the knobs set, as YAML for a run of notebook 3."""
    names = [
        name
        for name in ClipSettings.model_fields
        if name not in DataSettings.model_fields and name != "frame_cache_mb"
    ]
    return yaml.safe_dump(
        {name: getattr(settings, name) for name in names}, sort_keys=False, default_flow_style=None
    )


def facts_html(look: ExplorerView) -> str:
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
