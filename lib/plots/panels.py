"""Figures of line and bar panels, which most plots are built from."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.plots.style import COLORS, styled


class Line(NamedTuple):
    """One line of a panel, x and y of shape (N,); a single point is drawn as a dot."""

    x: Sequence[float]
    y: Sequence[float]
    color: str
    label: str | None = None


class LinePanel(NamedTuple):
    """Lines on one pair of axes."""

    lines: Sequence[Line]
    xlabel: str
    ylabel: str
    title: str = ""
    ylim: tuple[float, float] | None = None


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
def line_panels(panels: Sequence[LinePanel], figsize: tuple[float, float]) -> Figure:
    """Draw panels of lines side by side; `figsize` in inches."""
    figure = plt.figure(figsize=figsize, layout="constrained")
    for axis, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for line in panel.lines:
            marker = "o" if len(line.y) == 1 else "-"
            axis.plot(line.x, line.y, marker, color=line.color, label=line.label)
        axis.set(xlabel=panel.xlabel, ylabel=panel.ylabel, title=panel.title, ylim=panel.ylim)
        axis.grid(visible=True)
        if any(line.label for line in panel.lines):
            axis.legend()
    return figure


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
