"""Paging through what a tested run got right and wrong, in JupyterLab."""

from collections.abc import Callable, Mapping
from functools import lru_cache

import ipywidgets as widgets
import numpy as np
from torch import Tensor

from lib.evaluate.clip_regions import CenterClips, boxes_note, predict_regions
from lib.evaluate.run_results import SplitResult, paired_results
from lib.evaluate.trained_model import TrainedModel
from lib.jupyter.confusion_grid import SHOWN, ConfusionGrid
from lib.jupyter.html import FADED, escape
from lib.plots.evaluation import (
    RIGHT,
    clip_tile,
    confident_mistakes,
    tiles_html,
)
from lib.plots.style import BLUE, GRAY, ORANGE, shorten
from lib.runs.run_dir import RunDir

PAGE = 4  # clips that play at once
COLUMNS = 2  # of them, so that a narrow window need not shrink them and their titles
CLIPS_KEPT = 32  # in memory, so that paging back decodes nothing
ALL, NO_RUN = "all classes", "no second run"
MISTAKES, EVERYTHING, DIFFERENT = "mistakes, most confident first", "all videos", "runs disagree"
CELL = "a cell of the matrix"


class EvaluationBrowser:
    """Choose a cell of the confusion matrix, a class or the mistakes, and see the clips.

    Args:
        run: The tested run.
        results: List name -> result, as `evaluate` returns.
        checkpoint: `last` or `best`: what looks at the parts of a clip.
        second_run_dir: A second run, tested on the same lists; None for none at first.
    """

    def __init__(
        self,
        run: RunDir,
        results: Mapping[str, SplitResult],
        checkpoint: str = "last",
        second_run_dir: RunDir | None = None,
    ):
        self.run, self.results, self.checkpoint = run, results, checkpoint
        dataset = next(iter(results.values())).dataset
        self.classes = dataset.classes
        self.clips = lru_cache(CLIPS_KEPT)(CenterClips(dataset, run.settings()))
        self._model: TrainedModel | None = None
        self._cell: tuple[int, int] | None = None
        self._build_controls(second_run_dir)
        self.matrix.fill(self.result, self._class)
        self._compare()
        self._choose()

    def _build_controls(self, second_run_dir: RunDir | None) -> None:
        by_name = [(shorten(name, 40), k) for k, name in enumerate(self.classes)]
        self.list = _dropdown("list", list(self.results))
        self.around = _dropdown("class", [(ALL, -1), *by_name])
        self.kind = _dropdown("show", [MISTAKES, EVERYTHING, DIFFERENT, CELL])
        self._runs = comparable_runs(self.run)
        if second_run_dir is not None:
            self._runs[second_run_dir.name] = second_run_dir
        self.second_run = _dropdown("beside", [NO_RUN, *self._runs])
        self.second_run.value = NO_RUN if second_run_dir is None else second_run_dir.name
        self.matrix = ConfusionGrid(self.classes, self.open_cell)
        self.note = widgets.HTML()
        self.videos = widgets.Select(rows=6, layout=widgets.Layout(width="98%"))
        self.gallery = widgets.HTML(layout=widgets.Layout(flex="0 1 auto", min_width="340px"))
        self.detail = widgets.HTML(layout=widgets.Layout(flex="1 1 440px", min_width="340px"))
        knobs = [self.list, self.around, self.kind, self.second_run]
        for knob in knobs:
            knob.observe(self._on_knob, names="value")
        self.videos.observe(self._on_video, names="value")
        knobs = widgets.GridBox(
            knobs, layout=widgets.Layout(grid_template_columns="repeat(2, 210px)")
        )
        left = widgets.VBox(
            [knobs, self.matrix.widget, self.note, self.videos],
            layout=widgets.Layout(flex="0 0 auto", max_width="680px", overflow="auto"),
        )
        self.widget = widgets.HBox(
            [left, self.gallery, self.detail],
            layout=widgets.Layout(flex_flow="row wrap", grid_gap="16px"),
        )

    @property
    def _class(self) -> int | None:
        """The chosen class; None for all."""
        return None if self.around.value < 0 else self.around.value

    @property
    def result(self) -> SplitResult:
        """The result on the chosen list."""
        return self.results[self.list.value]

    def open_cell(self, label: int, predicted: int) -> None:
        """Show the videos of one class that were taken for another (or for it)."""
        self._cell = (label, predicted)
        if self.kind.value == CELL:
            self._choose()
        else:
            self.kind.value = CELL

    # --- Which videos -----------------------------------------------------------------------------

    def _on_knob(self, change: dict) -> None:
        knob, is_crowded = change["owner"], len(self.classes) > SHOWN
        if knob is self.list or (knob is self.around and is_crowded):
            self.matrix.fill(self.result, self._class)
        if knob in (self.list, self.second_run):
            self._compare()
        self._choose()

    def _compare(self) -> None:
        """Set the second run's result beside this run's, or say why it cannot stand there."""
        self.beside, self.trouble = {self.run.name: self.result}, ""
        try:
            other = self._runs.get(self.second_run.value)
            self.beside = paired_results(self.run, self.results, other, self.list.value)
        except (ValueError, OSError) as error:
            self.trouble = str(error)

    def _choose(self) -> None:
        """List the chosen videos and show the first."""
        found, words = self._found()
        self._positions, self._shares = found, self.result.probabilities
        why = f'<br><span style="{FADED}">{escape(self.trouble)}</span>' * bool(self.trouble)
        self.note.value = f"<b>{len(found)}</b> {escape(words)}{why}"
        self.videos.unobserve(self._on_video, names="value")
        self.videos.options = [(self._line(k), k) for k in found.tolist()]
        self.videos.value = int(found[0]) if len(found) else None
        self.videos.observe(self._on_video, names="value")
        self._page_shown = None
        self._on_video()

    def _found(self) -> tuple[np.ndarray, str]:
        """Return positions in the list of the chosen videos, and what they are in words."""
        result, kind, label = self.result, self.kind.value, self._class
        predicted = result.scores.argmax(axis=1)
        of = "" if label is None else f" of {self.classes[label]}"
        is_class = np.full(len(predicted), True) if label is None else result.labels == label
        if kind == CELL:
            if self._cell is None:
                return np.array([], dtype=int), "videos: press a cell of the matrix"
            row, column = self._cell
            which = (result.labels == row) & (predicted == column)
            return np.flatnonzero(which), (
                f"videos of {self.classes[row]} taken for {self.classes[column]}"
            )
        if kind == DIFFERENT:
            if len(self.beside) < 2:
                return np.array([], dtype=int), "videos: choose a second run beside this one"
            _, other = self.beside.values()
            differs = predicted != other.scores.argmax(axis=1)
            return np.flatnonzero(differs & is_class), f"videos{of} on which the two runs disagree"
        if kind == MISTAKES:
            found = confident_mistakes(result)
            return found[is_class[found]], f"mistakes{of}, the most confident first"
        return np.flatnonzero(is_class), f"videos{of}"

    def _line(self, position: int) -> str:
        result, share = self.result, self._shares[position]
        best = int(share.argmax())
        name = shorten(result.dataset.index["name"].iloc[int(result.rows[position])], 44)
        mark = "✓" if best == result.labels[position] else "✗"
        return f"{mark} {name}: {shorten(self.classes[best], 24)} {100 * share[best]:.0f} %"

    # --- The clips --------------------------------------------------------------------------------

    def _on_video(self, _: object = None) -> None:
        position = self.videos.value
        if position is None:
            self.gallery.value = self.detail.value = ""
            return
        place = int(np.flatnonzero(self._positions == position)[0])
        page = place // PAGE
        if page != self._page_shown:
            self._page_shown = page
            self.gallery.value = self._gallery(self._positions[page * PAGE : (page + 1) * PAGE])
        self.detail.value = self._detail(int(position))

    def _gallery(self, positions: np.ndarray) -> str:
        tiles = []
        for position in positions.tolist():
            label = int(self.result.labels[position])
            clip = readable_clip(self.clips, int(self.result.rows[position]))
            tiles.append(clip_tile(clip, label, self._shares[position], self.classes))
        return tiles_html(tiles, "clips of the chosen videos", COLUMNS)

    def _detail(self, position: int) -> str:
        """Return HTML of one video: its parts, and the five best classes by part and run."""
        row, label = int(self.result.rows[position]), int(self.result.labels[position])
        name = escape(self.result.dataset.index["name"].iloc[row])
        bars = {run: result.probabilities[position] for run, result in self.beside.items()}
        movie, parts = self._parts(row, label)
        colors = [BLUE, ORANGE][: len(bars)] + [GRAY] * (len(parts) - 1)
        bars |= {part: share for part, share in parts.items() if part != "whole clip"}
        panels = "".join(
            _bars_html(title, share, label, self.classes, color)
            for (title, share), color in zip(bars.items(), colors, strict=True)
        )
        truth = escape(self.classes[label])
        return (
            f'<b>{name}</b> <span style="{FADED}">true class: {truth}; below, what the '
            f"network says of the centre clip and of its parts</span>{movie}"
            f'<div style="display:flex;flex-wrap:wrap;gap:14px">{panels}</div>'
        )

    def _parts(self, row: int, label: int) -> tuple[str, dict[str, np.ndarray]]:
        """Return a movie of the actor alone and the background alone, and what they look like."""
        try:
            if self._model is None:
                load = TrainedModel.load
                self._model = load(self.run, self.checkpoint, classes=self.classes)
            clip, mask = self.clips(row)
            regions = predict_regions(self._model, clip, mask, boxes_note(mask))
        except (OSError, ValueError, RuntimeError) as error:
            return f"<p>no network to ask: {escape(shorten(str(error), 160))}</p>", {}
        if regions.note:
            return f'<p style="{FADED}">{escape(regions.note)}</p>', {}
        tiles = []
        for part, share in regions.probabilities.items():
            best = int(share.argmax())
            tile = clip_tile(regions.clips[part], label, share, self.classes)
            title = f"{part.split()[0]}: {shorten(self.classes[best], 12)}"
            tiles.append(tile._replace(title=f"{title} {100 * share[best]:.0f} %"))
        movie = tiles_html(tiles, "the whole clip, its actor alone, its background alone")
        return movie, regions.probabilities


def readable_clip(clips: Callable[[int], tuple[Tensor, Tensor | None]], row: int) -> Tensor | str:
    """Return the clip of an index row, or why there is none."""
    try:
        return clips(row)[0]
    except (OSError, ValueError, RuntimeError) as error:  # moved or deleted meanwhile
        return f"cannot be read: {shorten(str(error), 90)}"


def comparable_runs(run: RunDir) -> dict[str, RunDir]:
    """Return the tested runs beside a run, by name."""
    try:
        folders = sorted(run.folder.parent.iterdir())
    except OSError:
        return {}
    runs = [RunDir(folder) for folder in folders if folder != run.folder]
    return {other.name: other for other in runs if other.metrics_path.is_file()}


def _dropdown(description: str, options: list) -> widgets.Dropdown:
    return widgets.Dropdown(
        options=options,
        description=description,
        layout=widgets.Layout(width="205px"),
        style={"description_width": "48px"},
    )


def _bars_html(
    title: str, share: np.ndarray, label: int, classes: tuple[str, ...], color: str
) -> str:
    """Return the five most probable classes as bars; the true one is green."""
    lines = []
    for k in np.argsort(-share)[:5]:
        fill = RIGHT if k == label else color
        name = escape(shorten(classes[k], 18))
        lines.append(
            f'<div style="display:flex;align-items:center;line-height:1.3;font-size:12px">'
            f'<span style="width:8.5em;text-align:right;padding-right:6px">{name}</span>'
            f'<span style="width:{max(1, 60 * share[k]):.0f}px;height:10px;background:{fill}">'
            f'</span><span style="padding-left:4px">{100 * share[k]:.0f} %</span></div>'
        )
    heading = f'<div style="{FADED};font-size:12px">{escape(shorten(title, 28))}</div>'
    return f'<div style="min-width:210px">{heading}{"".join(lines)}</div>'
