"""Colors and fonts of all figures; a quantity has the same color in all of them.

The palette of Okabe and Ito suits color-blind readers. The background is white on dark pages too.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

BLUE, VERMILLION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, BLACK, YELLOW = "#E69F00", "#56B4E9", "#000000", "#F0E442"
GRAY = "#6E6E6E"
COLORS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK, YELLOW)  # of series

LABELED, UNLABELED, ACCURACY = BLUE, PURPLE, GREEN
BOX = ORANGE  # person boxes and their statistics
RIGHT, WRONG = ACCURACY, VERMILLION  # predictions, and what is gained or lost
VERDICT_COLORS = {"holds": RIGHT, "contradicted": WRONG, "not decided": GRAY}

ORIGINAL, WEAK, STRONG, TEMPORAL, SCENE = GRAY, BLUE, VERMILLION, PURPLE, GREEN  # views of a clip
FAMILY_COLORS = {"photometric": ORANGE, "geometric": SKY, "temporal": TEMPORAL, "scene": SCENE}

# Runs and groups of runs; no other quantity of the report has one of these colors.
GROUP_COLORS = (ORANGE, SKY, BLACK, "#882255", "#999933", "#332288", "#DDCC77", "#AA4499")

REPORT_WIDTH = 12.5  # inches, of a figure as wide as the report
STYLE = {
    "text.parse_math": False,  # a class may be called $x$
    "figure.facecolor": "white",
    "font.size": 10,
    "axes.titlesize": 11,
    "figure.titlesize": 11,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.alpha": 0.25,
    "axes.prop_cycle": plt.cycler(color=COLORS),
}


@contextmanager
def _style() -> Iterator[None]:
    """Set the style; unlike `plt.rc_context`, keep the settings of a backend loaded meanwhile."""
    before = {name: plt.rcParams[name] for name in STYLE}
    plt.rcParams.update(STYLE)
    try:
        yield
    finally:
        plt.rcParams.update(before)


styled = _style()  # decorator


def group_colors(names: Iterable[str]) -> dict[str, str]:
    """Return a color for each group of runs; they repeat after eight groups."""
    return dict(zip(names, cycle(GROUP_COLORS), strict=False))


def shorten(text: str, length: int) -> str:
    """Replace the middle of a text longer than `length` characters by `…`."""
    if len(text) <= length:
        return text
    tail = (length - 1) // 2
    return f"{text[: length - 1 - tail]}…{text[len(text) - tail :]}"


class BarPanel(NamedTuple):
    """Groups of bars on one pair of axes."""

    table: pd.DataFrame  # one row per category, one column per series
    category: str  # name of the axis of the categories
    value: str  # name and unit of the axis of the values
    title: str = ""
    colors: Sequence[str | Sequence[str]] = COLORS  # of each series, or of each of its categories
    limit: float | None = None  # end of the axis of the values, which then starts at 0
    text: Callable[[float], str] | None = None  # value -> text at the end of its bar


@styled
def bar_panels(
    panels: Sequence[BarPanel], figsize: tuple[float, float], *, is_horizontal: bool = False
) -> Figure:
    """Draw panels of bars side by side; `figsize` in inches."""
    figure = plt.figure(figsize=figsize, layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, panel in zip(axes, panels, strict=True):
        _draw_bars(axis, panel, is_horizontal)
    if panels[0].table.shape[1] > 1:
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper")
    return figure


def _draw_bars(axis: Axes, panel: BarPanel, is_horizontal: bool) -> None:
    table, thickness = panel.table, 0.8 / panel.table.shape[1]
    if is_horizontal:
        draw, set_limits, values, categories = axis.barh, axis.set_xlim, axis.xaxis, axis.yaxis
        axis.invert_yaxis()
    else:
        draw, set_limits, values, categories = axis.bar, axis.set_ylim, axis.yaxis, axis.xaxis
    for number, (name, color) in enumerate(zip(table, panel.colors, strict=False)):
        positions = np.arange(len(table)) + (number + 0.5) * thickness - 0.4
        bars = draw(positions, table[name].fillna(0), thickness, color=color, label=name)
        if panel.text is not None:
            axis.bar_label(bars, [*map(panel.text, table[name])], padding=2, fontsize=8)
            axis.margins(0.1)  # room for the texts
    categories.set_ticks(range(len(table)), table.index)
    categories.set_label_text(panel.category)
    values.set_label_text(panel.value)
    values.grid(visible=True)
    axis.set_title(panel.title)
    if panel.limit is not None:
        set_limits(0, panel.limit)
