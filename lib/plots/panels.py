"""Two kinds of figures that most plots are built from: panels of lines and panels of bars."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.plots.style import COLORS, styled


class Line(NamedTuple):
    """One line of a panel; a single point is drawn as a dot.

    Attributes:
        x: Shape (N,).
        y: Shape (N,).
        color: Color.
        label: Name in the legend; None for none.
    """

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
    """Groups of bars on one pair of axes.

    Attributes:
        table: One row a category, one column a series.
        category: Name of the axis of the categories.
        value: Name and unit of the axis of the values.
        title: Title.
        colors: One color a series, or a list of one color a category for each series.
        limit: Largest value of the axis, which then starts at 0; None: chosen by the data.
        text: Value -> text at the end of its bar; None for no texts.
    """

    table: pd.DataFrame
    category: str
    value: str
    title: str = ""
    colors: Sequence[str | Sequence[str]] = COLORS
    limit: float | None = None
    text: Callable[[float], str] | None = None


@styled
def line_panels(panels: Sequence[LinePanel], figsize: tuple[float, float]) -> Figure:
    """Draw panels of lines side by side.

    Args:
        panels: The panels.
        figsize: Width and height, inches.
    """
    figure, axes = plt.subplots(
        1, len(panels), figsize=figsize, squeeze=False, layout="constrained"
    )
    for axis, panel in zip(axes[0], panels, strict=True):
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
    """Draw panels of bars side by side.

    Args:
        panels: The panels.
        figsize: Width and height, inches.
        is_horizontal: Draw categories from top to bottom instead of from left to right.
    """
    figure, axes = plt.subplots(
        1, len(panels), figsize=figsize, squeeze=False, layout="constrained"
    )
    for axis, panel in zip(axes[0], panels, strict=True):
        _draw_bars(axis, panel, is_horizontal)
    if panels[0].table.shape[1] > 1:
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right upper")
    return figure


def _draw_bars(axis: Axes, panel: BarPanel, is_horizontal: bool) -> None:
    table, thickness = panel.table, 0.8 / panel.table.shape[1]
    if is_horizontal:
        draw, set_limits, values, categories = axis.barh, axis.set_xlim, axis.xaxis, axis.yaxis
    else:
        draw, set_limits, values, categories = axis.bar, axis.set_ylim, axis.yaxis, axis.xaxis
    for number, (name, color) in enumerate(zip(table, panel.colors, strict=False)):
        positions = np.arange(len(table)) + (number + 0.5) * thickness - 0.4
        bars = draw(positions, table[name].fillna(0), thickness, color=color, label=name)
        if panel.text is not None:
            texts = [panel.text(value) for value in table[name]]
            axis.bar_label(bars, texts, padding=2, fontsize=8)
            axis.margins(0.1)  # room for the texts
    categories.set_ticks(range(len(table)), table.index)
    categories.set_label_text(panel.category)
    values.set_label_text(panel.value)
    values.grid(visible=True)
    axis.set_title(panel.title)
    if is_horizontal:
        axis.invert_yaxis()
    if panel.limit is not None:
        set_limits(0, panel.limit)


def message_figure(text: str) -> Figure:
    """Return a figure with a text only, where there is nothing to draw."""
    figure, axis = plt.subplots(figsize=(8, 0.8))
    axis.axis("off")
    axis.text(0.5, 0.5, text, ha="center", va="center")
    return figure
