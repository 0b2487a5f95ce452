"""Interactive browser of notebook 4: correct and wrong predictions of a tested run, with clips."""

from collections.abc import Callable, Mapping
from functools import lru_cache

import ipywidgets as widgets
import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex
from torch import Tensor

from lib.config import ClipSettings, ExploreSettings
from lib.evaluate.invariance import CLIP_REGIONS, CenterClips, boxes_note, predict_regions
from lib.evaluate.run_results import SplitResult
from lib.evaluate.trained_model import TrainedModel
from lib.jupyter.explorer import AugmentationExplorer
from lib.jupyter.html import FADED, Tile, error_html, own_keys, render, tiles_html, unobserved
from lib.plots.evaluation import best_class, confused_classes, confusion_matrix, recall
from lib.plots.style import GRAY, RIGHT, WRONG, shorten
from lib.runs.run_dir import RunDir

PAGE, COLUMNS = 4, 2  # clips that play at once, and in a row
CACHED_CLIPS = 32  # in memory, so that paging back decodes nothing
MAX_MISTAKES = 4  # in the notebook's own picture
MAX_CLASSES = 12  # in the matrix; of more, the most confused ones
ALL, CELL = "all classes", "a cell of the matrix"
MISTAKES, EVERYTHING = "mistakes, most confident first", "all videos"
ERRORS = (OSError, ValueError, RuntimeError)  # of files moved or deleted meanwhile


def confident_mistakes(result: SplitResult) -> np.ndarray:
    """Return the positions of the mistakes in the split, most confident first; may be empty."""
    wrong = np.flatnonzero(result.scores.argmax(axis=1) != result.labels)
    return wrong[np.argsort(-result.probabilities[wrong].max(axis=1), kind="stable")]


def read_clip(clips: Callable[[int], tuple[Tensor, Tensor | None]], row: int) -> Tensor | str:
    """Return the clip of an index row, or an error message if it cannot be read."""
    try:
        return clips(row)[0]
    except ERRORS as error:
        return f"cannot be read: {shorten(str(error), 90)}"


def result_tiles(result: SplitResult, clips: CenterClips, positions: np.ndarray) -> list[Tile]:
    """Return the clips at positions in the split, titled predicted ← true class if they differ."""
    classes, shares, tiles = result.dataset.classes, result.probabilities, []
    for position in positions.tolist():
        share, label = shares[position], int(result.labels[position])
        title, color = best_class(share, classes, 24), RIGHT
        if share.argmax() != label:
            title, color = f"{title} ← {shorten(classes[label], 24)}", WRONG
        tiles.append(Tile(title, color, read_clip(clips, int(result.rows[position]))))
    return tiles


def mistakes_html(result: SplitResult, settings: ClipSettings) -> str:
    """Return HTML that plays the most confident mistakes, titled predicted ← true class."""
    clips, positions = CenterClips(result.dataset, settings), confident_mistakes(result)
    tiles = result_tiles(result, clips, positions[:MAX_MISTAKES])
    return tiles_html(tiles, "the most confident mistakes")


# --- The confusion matrix -------------------------------------------------------------------------

CELL_TEXT = '<div title="{{ name }}" style="font-size:12px;{{ style }}">{{ text }}</div>'
COLUMN_STYLE = "writing-mode:vertical-rl;transform:rotate(180deg);height:84px;margin:0 12px"


def matrix_cells(
    result: SplitResult, label: int | None, on_press: Callable[[int, int], None]
) -> tuple[list[widgets.Widget], int]:
    """Return the confusion matrix as widgets, row by row with names and recall, and its width.

    Of too many classes, `label` and those that it is most confused with are kept. A pressed cell
    calls `on_press` with its true and its predicted class.
    """
    classes, matrix = result.dataset.classes, confusion_matrix(result.scores, result.labels)
    shown = confused_classes(matrix, MAX_CLASSES, label)
    styles = [  # from no video of a class to all of them
        widgets.ButtonStyle(
            button_color=to_hex(colormaps["Blues"](k / 10)),
            text_color="black" if k < 6 else "white",
        )
        for k in range(11)
    ]
    layout = widgets.Layout(width="38px", height="28px", margin="1px", padding="0")

    def name(k: int, length: int, style: str) -> widgets.HTML:
        text = shorten(classes[k], length)
        return widgets.HTML(render(CELL_TEXT, name=classes[k], text=text, style=style))

    def button(row: int, column: int) -> widgets.Button:
        count, videos = int(matrix[row, column]), int(matrix[row].sum())
        cell = widgets.Button(
            description=str(count or ""),
            tooltip=f"{count} videos of {classes[row]} taken for {classes[column]}",
            layout=layout,
            style=styles[round(10 * count / max(videos, 1))],
        )
        cell.on_click(lambda _: on_press(row, column))
        return cell

    head = f'<div style="{FADED}">{{}}</div>'
    cells = [widgets.HTML(head.format("true class ↓"))]
    cells += [name(k, 14, COLUMN_STYLE) for k in shown]
    cells.append(widgets.HTML(head.format("recall")))
    for row, rate in zip(shown, recall(matrix)[shown], strict=True):
        cells += [name(row, 18, "text-align:right"), *(button(row, k) for k in shown)]
        cells.append(widgets.HTML("no video" if np.isnan(rate) else f"{rate:.0f} %"))
    return cells, len(shown)


# --- The browser ----------------------------------------------------------------------------------

TITLE = """<b>{{ name }} in the explorer</b>, with the settings of the run
<style onload="this.parentElement.scrollIntoView({behavior: 'smooth'})"></style>"""
DETAIL = """\
<b>{{ name }}</b> <span style="{{ faded }}">true class: {{ label }}; below, the predictions for the
center clip and its regions</span>
{% if tiles %}{{ tiles | safe }}{% else %}<p style="{{ faded }}">{{ problem }}</p>{% endif %}
<div style="display:flex;flex-wrap:wrap;gap:14px">{% for title, lines in panels %}
<div style="min-width:210px"><div style="{{ faded }};font-size:12px">{{ title }}</div>
{% for class, percent, color in lines %}
<div style="display:flex;align-items:center;line-height:1.3;font-size:12px">
<span style="width:8.5em;text-align:right;padding-right:6px">{{ class }}</span>
<span style="width:{{ percent * 0.6 + 1 }}px;height:10px;background:{{ color }}"></span>
<span style="padding-left:4px">{{ percent | round | int }} %</span></div>{% endfor %}</div>
{% endfor %}</div>
"""


class EvaluationBrowser:
    """Choose a cell of the confusion matrix, a class or the mistakes, and see the clips.

    Args:
        run: The tested run.
        results: Split -> result, as `evaluate` returns.

    Attributes:
        explorer: The explorer of the video that was last opened in it; None before.
    """

    def __init__(self, run: RunDir, results: Mapping[str, SplitResult]):
        self.run, self.results, self.settings = run, results, run.settings()
        dataset = next(iter(results.values())).dataset
        self.classes = dataset.classes
        self.clips = lru_cache(CACHED_CLIPS)(CenterClips(dataset, self.settings))
        self.explorer: AugmentationExplorer | None = None
        self._model: TrainedModel | None = None
        self._cell: tuple[int, int] | None = None
        self._build()
        self._fill_matrix()
        self._choose()

    def _build(self) -> None:
        by_name = [(shorten(name, 40), k) for k, name in enumerate(self.classes)]
        self.split = _dropdown("split", list(self.results))
        self.around = _dropdown("class", [(ALL, -1), *by_name])
        self.kind = _dropdown("show", [MISTAKES, EVERYTHING, CELL])
        self.matrix = widgets.GridBox()
        self.note = widgets.HTML()
        self.videos = widgets.Select(rows=6, layout=widgets.Layout(width="98%"))
        self.gallery = widgets.HTML(layout=widgets.Layout(flex="0 1 auto", min_width="340px"))
        self.detail = widgets.HTML(layout=widgets.Layout(flex="1 1 440px", min_width="340px"))
        knobs = [self.split, self.around, self.kind]
        for knob in knobs:
            knob.observe(self._on_knob, names="value")
        self.videos.observe(self._on_video, names="value")
        self.open = widgets.Button(description="open in the explorer", icon="arrow-down")
        self.open.tooltip = "show the training views of this video below"
        self.open.on_click(self.open_explorer)
        self.open.layout.width = "200px"
        self.below = widgets.VBox()
        grid = widgets.Layout(grid_template_columns="repeat(2, 250px)")
        top = widgets.GridBox(knobs, layout=grid)
        left = widgets.VBox([own_keys(), top, self.matrix, self.note, self.videos, self.open])
        left.layout = widgets.Layout(flex="0 0 auto", max_width="680px", overflow="auto")
        layout = widgets.Layout(flex_flow="row wrap", grid_gap="16px")
        columns = widgets.HBox([left, self.gallery, self.detail], layout=layout)
        self.widget = widgets.VBox([columns, self.below])

    @property
    def _class(self) -> int | None:
        """The chosen class; None for all."""
        return None if self.around.value < 0 else self.around.value

    @property
    def result(self) -> SplitResult:
        """The result on the chosen split."""
        return self.results[self.split.value]

    def _fill_matrix(self) -> None:
        self.matrix.children, count = matrix_cells(self.result, self._class, self.open_cell)
        columns = f"minmax(70px, auto) repeat({count}, 40px) 64px"
        layout = {"align_items": "center", "justify_items": "center", "overflow": "auto"}
        self.matrix.layout = widgets.Layout(grid_template_columns=columns, **layout)

    def open_cell(self, label: int, predicted: int) -> None:
        """Show the videos of one class that are predicted as another (or the same) class."""
        self._cell = (label, predicted)
        if self.kind.value == CELL:
            self._choose()
        else:
            self.kind.value = CELL

    def open_explorer(self, _: object = None) -> None:
        """Show the training views of the chosen video in the explorer of notebook 2, below."""
        row = int(self.result.rows[self.videos.value])
        values = self.settings.model_dump(include=set(ClipSettings.model_fields))
        values |= {"seed": self.settings.seed, "split_name": self.split.value}
        try:
            self.explorer = AugmentationExplorer(
                self.result.dataset, ExploreSettings(**values), row
            )
            title = widgets.HTML(render(TITLE, name=self.result.dataset.index["name"][row]))
            self.below.children = [title, self.explorer.widget]
        except ERRORS as error:
            self.below.children = [widgets.HTML(error_html(error))]

    def _on_knob(self, change: dict) -> None:
        knob, is_crowded = change["owner"], len(self.classes) > MAX_CLASSES
        if knob is self.around and self.kind.value == CELL:
            with unobserved(self.kind, self._on_knob):
                self.kind.value = EVERYTHING  # a cell is not of one class
        if knob is self.split or (knob is self.around and is_crowded):
            self._fill_matrix()
        self._choose()

    def _choose(self) -> None:
        """List the chosen videos and show the first."""
        self._positions, title = self._select()
        self._page_shown = None
        count = len(self._positions)
        self.note.value = render("<b>{{ count }}</b> {{ title }}", count=count, title=title)
        with unobserved(self.videos, self._on_video):
            self.videos.options = self._lines()
            self.videos.value = int(self._positions[0]) if count else None
        self._on_video()

    def _select(self) -> tuple[np.ndarray, str]:
        """Return positions in the split of the chosen videos, and a title."""
        result, kind, label = self.result, self.kind.value, self._class
        predicted, nothing = result.scores.argmax(axis=1), np.array([], dtype=int)
        if kind == CELL:
            if self._cell is None:
                return nothing, "videos: press a cell of the matrix"
            row, column = self._cell
            in_cell = np.flatnonzero((result.labels == row) & (predicted == column))
            return in_cell, f"videos of {self.classes[row]} taken for {self.classes[column]}"
        of_class = "" if label is None else f" of {self.classes[label]}"
        in_class = np.full(len(predicted), True) if label is None else result.labels == label
        if kind == MISTAKES:
            mistakes = confident_mistakes(result)
            return mistakes[in_class[mistakes]], f"mistakes{of_class}, the most confident first"
        return np.flatnonzero(in_class), f"videos{of_class}"

    def _lines(self) -> list[tuple[str, int]]:
        """Return a line of text and the position of each chosen video."""
        result, shares, lines = self.result, self.result.probabilities, []
        for k in self._positions.tolist():
            name = shorten(result.dataset.index["name"].iloc[int(result.rows[k])], 44)
            mark = "✓" if shares[k].argmax() == result.labels[k] else "✗"
            lines.append((f"{mark} {name}: {best_class(shares[k], self.classes, 24)}", k))
        return lines

    def _on_video(self, _: object = None) -> None:
        position = self.videos.value
        self.open.disabled = position is None
        if position is None:
            self.gallery.value = self.detail.value = ""
            return
        page = int(np.flatnonzero(self._positions == position)[0]) // PAGE
        if page != self._page_shown:
            self._page_shown, shown = page, self._positions[page * PAGE : (page + 1) * PAGE]
            tiles = result_tiles(self.result, self.clips, shown)
            self.gallery.value = tiles_html(tiles, "clips of the chosen videos", COLUMNS)
        self.detail.value = self._detail(int(position))

    def _detail(self, position: int) -> str:
        """Return HTML of one video: its regions, and the five best classes of the run and each."""
        row, label = int(self.result.rows[position]), int(self.result.labels[position])
        tiles, problem, of_regions = self._regions(row, label)
        shares = {self.run.name: self.result.probabilities[position]}
        shares |= {region: s for region, s in of_regions.items() if region != CLIP_REGIONS[0]}
        panels = []
        for title, share in shares.items():
            best = np.argsort(-share)[:5].tolist()
            colors = [RIGHT if k == label else GRAY for k in best]
            names = [shorten(self.classes[k], 18) for k in best]
            lines = list(zip(names, 100 * share[best], colors, strict=True))
            panels.append((shorten(title, 28), lines))
        name = self.result.dataset.index["name"].iloc[row]
        values = {"tiles": tiles, "problem": problem, "panels": panels, "faded": FADED}
        return render(DETAIL, name=name, label=self.classes[label], **values)

    def _regions(self, row: int, label: int) -> tuple[str, str, dict[str, np.ndarray]]:
        """Return HTML of the clip, its actor and its background, or a problem; and predictions."""
        try:
            self._model = self._model or TrainedModel.load(self.run, classes=self.classes)
            clip, mask = self.clips(row)
            regions = predict_regions(self._model, clip, mask, boxes_note(mask))
        except ERRORS as error:
            return "", f"no network: {shorten(str(error), 160)}", {}
        if regions.note:
            return "", regions.note, {}
        tiles = []
        for region, share in regions.probabilities.items():
            title = f"{region.split()[0]}: {best_class(share, self.classes, 20)}"
            color = RIGHT if share.argmax() == label else WRONG
            tiles.append(Tile(title, color, regions.clips[region]))
        description = "the whole clip, its actor alone, its background alone"
        return tiles_html(tiles, description), "", regions.probabilities


def _dropdown(description: str, options: list) -> widgets.Dropdown:
    layout, style = widgets.Layout(width="245px"), {"description_width": "58px"}
    return widgets.Dropdown(options=options, description=description, layout=layout, style=style)
