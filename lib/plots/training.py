"""Figures of training: learning curves."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.plots.style import ACCURACY, GRAY, LABELED, REPORT_WIDTH, UNLABELED, styled
from lib.runs.progress import LOG_COLUMNS

TOP1 = "eval/top1_video"
PERCENT = (0, 102)  # limits of an axis
CURVES = {  # title: name of the y-axis, its limits, log keys with colors, log keys in the title
    "Loss": (
        "cross-entropy (nats)",
        None,
        {"loss/labeled": LABELED, "loss/unlabeled": UNLABELED, "loss/distillation": GRAY},
        ["loss/total"],
    ),
    "Pseudo-labels": (
        "fraction of clips (%)",
        PERCENT,
        {"ssl/mask_rate": UNLABELED, "ssl/pseudo_label_accuracy": ACCURACY},
        ["ssl/mask_rate", "ssl/pseudo_label_accuracy"],
    ),
    "Top-1": ("correct (%)", PERCENT, {"train/top1_clip": LABELED, TOP1: ACCURACY}, [TOP1]),
}


def _draw(axis: Axes, x: Sequence, y: Sequence, color: str, label: str | None = None) -> None:
    """Draw a line; a single point is drawn as a dot."""
    axis.plot(x, y, "o" if len(x) == 1 else "-", color=color, label=label)


def _finish(axis: Axes, xlabel: str, ylabel: str, **properties: object) -> None:
    """Name the axes, draw the grid, and a legend where a line has a label."""
    axis.set(xlabel=xlabel, ylabel=ylabel, **properties)
    axis.grid(visible=True)
    if any(axis.get_legend_handles_labels()):
        axis.legend()


@styled
def plot_learning_curves(log: pd.DataFrame, with_values: bool = True) -> Figure:
    """Show losses, pseudo-labels and validation accuracy of a log with one row per epoch.

    With `with_values`, the titles are the last values.
    """
    if not len(log):
        figure = plt.figure(figsize=(8, 0.8))
        figure.text(0.5, 0.5, "no epoch of this run has ended yet", ha="center", va="center")
        return figure
    last = log.reindex(columns=list(LOG_COLUMNS)).astype(float).ffill().iloc[-1].dropna()
    figure, grid = plt.subplots(1, len(CURVES), figsize=(11, 3.4), layout="constrained")
    for axis, (title, (ylabel, ylim, colors, in_title)) in zip(grid, CURVES.items(), strict=True):
        for key in filter(last.__contains__, colors):
            points, column = log[["epoch", key]].dropna(), LOG_COLUMNS[key]
            values = column.scale * points[key].astype(float)
            _draw(axis, points["epoch"], values, colors[key], column.label)
        ends = [LOG_COLUMNS[key].labeled(last[key]) for key in in_title if key in last]
        if with_values:
            title = ", ".join(ends) or f"{title}: nothing logged"
        _finish(axis, "epoch", ylabel, title=title, ylim=ylim)
        axis.xaxis.get_major_locator().set_params(integer=True)
    return figure


@styled
def plot_validation_curves(
    logs: Mapping[str, Sequence[pd.DataFrame]], colors: Mapping[str, str]
) -> Figure:
    """Show validation accuracy over training time: logs and color of each group of runs."""
    figure, axis = plt.subplots(figsize=(REPORT_WIDTH, 3.8), layout="constrained")
    for group, logs_of_group in logs.items():
        label = group
        for log in logs_of_group:
            points = log.reindex(columns=["seconds", TOP1]).dropna()
            if len(points):
                _draw(axis, points["seconds"] / 60, points[TOP1], colors[group], label)
                label = None  # once in the legend
    title = "" if axis.lines else "No run was validated yet"
    _finish(axis, "training time (minutes)", "validation top-1 (%)", title=title, ylim=PERCENT)
    return figure
