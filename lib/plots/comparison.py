"""Figures that compare groups of runs; the runs of a group differ only in the seed."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.plots.evaluation import recall
from lib.plots.style import (
    COLORS,
    GREEN,
    REPORT_WIDTH,
    VERMILLION,
    BarPanel,
    bar_panels,
    shorten,
    styled,
)

MAX_NAME = 40  # characters of a group name next to an axis


def plot_accuracy(summary: pd.DataFrame) -> Figure:
    """Show top-1 by group and split: bars are means over seeds, dots single runs.

    Args:
        summary: Columns group, split, top1 (percent); one row per run and split.
    """
    table = summary.pivot_table("top1", "group", "split", aggfunc="mean", sort=False)
    named = table.set_axis([shorten(group, MAX_NAME) for group in table.index], axis=0)
    panel = BarPanel(named, "runs", "top-1 accuracy (%); dots: single seeds", limit=102)
    height = 1.3 + (0.3 * table.shape[1] + 0.15) * len(table)
    figure = bar_panels([panel], (REPORT_WIDTH, height), is_horizontal=True)
    axis = figure.axes[0]
    runs = summary.groupby(["split", "group"])["top1"].apply(list)
    for bars, split in zip(axis.containers, table, strict=True):
        for bar, group in zip(bars, table.index, strict=True):
            values = runs.get((split, group), [])
            y = bar.get_y() + bar.get_height() / 2
            _dots(axis, values, y, 16)
            if len(values):
                text = f"{np.mean(values):.1f}"
                axis.text(1, y, text, va="center", fontsize=9, color="white", fontweight="bold")
    return figure


def _dots(axis: Axes, values: Sequence[float], y: float, size: int) -> None:
    axis.scatter(values, [y] * len(values), color="black", ec="white", s=size, zorder=3)


@styled
def plot_differences(comparisons: pd.DataFrame, differences: Sequence[Sequence[float]]) -> Figure:
    """Show paired differences of groups: a dot per seed, a bar for the interval of the mean.

    Args:
        comparisons: At least one row of `lib.report.verdict.compare_groups`.
        differences: For each row the differences of top-1 of the seeds, in points.
    """
    height = 1.3 + 0.32 * len(comparisons)
    figure, axis = plt.subplots(figsize=(REPORT_WIDTH, height), layout="constrained")
    axis.use_sticky_edges = False
    splits, labels = list(dict.fromkeys(comparisons["split"])), []
    rows = zip(comparisons.to_dict("records"), differences, strict=True)
    for y, (row, values) in enumerate(rows):
        color = COLORS[splits.index(row["split"]) % len(COLORS)]
        if row["seeds"] > 1:
            axis.barh(y, row["high"] - row["low"], 0.5, left=row["low"], color=color, alpha=0.35)
        if len(values):
            axis.plot([row["difference"]] * 2, [y - 0.25, y + 0.25], color=color, linewidth=2)
        _dots(axis, values, y, 24)
        better, worse = (shorten(row[name], 32) for name in ("better", "worse"))
        labels.append(f"{better} − {worse}, {shorten(row['split'], 16)}")
    axis.axvline(0, color="black", linewidth=1)
    axis.set_yticks(range(len(labels)), labels)
    counts = comparisons["verdict"].value_counts()
    axis.set(
        ylim=(len(labels) - 0.4, -0.6),
        xlabel="difference of top-1 (points); dots: single seeds, bars: 95 % interval",
        ylabel="comparison",
        title=", ".join(f"{count} {verdict}" for verdict, count in counts.items()),
    )
    axis.grid(axis="x")
    return figure


def plot_class_gains(
    before: np.ndarray,
    after: np.ndarray,
    classes: Sequence[str],
    names: tuple[str, str],
    split_name: str,
) -> Figure:
    """Show the change of the recall of each class from one group of runs to another.

    `before` and `after` are confusion matrices (K, K), row the true class; `names` the groups.
    """
    gains = np.nan_to_num(recall(after) - recall(before))  # 0 for classes without videos
    order = np.argsort(-gains)
    table = pd.DataFrame({"gain": gains[order]}, [shorten(classes[k], 24) for k in order])
    title = (
        f"On {split_name}, {names[1]} is better than {names[0]} in {(gains > 0).sum()} of "
        f"{len(classes)} classes and worse in {(gains < 0).sum()}"
    )
    colors = [[GREEN if gain >= 0 else VERMILLION for gain in table["gain"]]]
    panel = BarPanel(table, "class", "change of recall (points)", title, colors)
    size = (REPORT_WIDTH, 1.4 + 0.2 * len(classes))
    figure = bar_panels([panel], size, is_horizontal=True)
    figure.axes[0].axvline(0, color="black", linewidth=0.8)
    return figure


def plot_invariance_of_groups(agreement: pd.DataFrame, accuracy: pd.DataFrame) -> Figure:
    """Show invariance scores of groups of runs side by side.

    Args:
        agreement: Row per group, column per family: share of unchanged predictions, percent.
        accuracy: Row per group, column per input (clip, actor, background): top-1, percent; no
            columns without person boxes.
    """
    title = f"{agreement.mean().idxmin()} augmentation changes the class most often"
    columns = "family of augmentations", "input of the network"
    panels = [BarPanel(agreement.T, columns[0], "same class after it (%)", title, limit=102)]
    if accuracy.shape[1]:
        panels.append(BarPanel(accuracy.T, columns[1], "top-1 accuracy (%)", limit=102))
    return bar_panels(panels, (REPORT_WIDTH, 3.6))
