"""Figures that compare groups of runs; runs of a group differ only in the seed."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lib.plots.evaluation import recall
from lib.plots.panels import BarPanel, bar_panels
from lib.plots.style import COLORS, GREEN, REPORT_WIDTH, VERMILLION, shorten, styled

GAIN, LOSS = GREEN, VERMILLION
MAX_NAME = 40  # letters of a group next to an axis


def plot_accuracy(summary: pd.DataFrame) -> Figure:
    """Show top-1 per group of runs and split: bars are means over seeds, dots the single runs.

    Args:
        summary: Columns group, split, top1 (percent); one row a run and split.
    """
    table = summary.pivot_table("top1", "group", "split", aggfunc="mean", sort=False)
    names = [shorten(group, MAX_NAME) for group in table.index]
    panel = BarPanel(
        table.set_axis(names, axis=0),
        "runs",
        "top-1 accuracy (%); dots: single seeds",
        limit=102,
    )
    height = 1.3 + (0.3 * table.shape[1] + 0.15) * len(table)
    figure = bar_panels([panel], (REPORT_WIDTH, height), is_horizontal=True)
    axis = figure.axes[0]
    runs = summary.groupby(["split", "group"])["top1"].apply(list)
    for bars, split in zip(axis.containers, table, strict=True):
        for bar, group in zip(bars, table.index, strict=True):
            values = runs.get((split, group), [])
            y = bar.get_y() + bar.get_height() / 2
            axis.scatter(values, [y] * len(values), color="black", ec="white", s=16, zorder=3)
            if len(values):
                text = f"{np.mean(values):.1f}"
                axis.text(1, y, text, va="center", fontsize=9, color="white", fontweight="bold")
    return figure


@styled
def plot_differences(comparisons: pd.DataFrame, differences: Sequence[Sequence[float]]) -> Figure:
    """Show paired differences of groups: each seed a dot, the interval of the mean a bar.

    Args:
        comparisons: From `lib.report.verdict.compare_groups`, at least one row.
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
        axis.scatter(values, [y] * len(values), color="black", ec="white", s=24, zorder=3)
        better, worse = (shorten(row[name], 32) for name in ("better", "worse"))
        labels.append(f"{better} − {worse}, {shorten(row['split'], 16)}")
    axis.axvline(0, color="black", linewidth=1)
    axis.set_yticks(range(len(labels)), labels)
    axis.set_ylim(len(labels) - 0.4, -0.6)
    axis.set_xlabel("difference of top-1 (points); dots: single seeds, bars: 95 % interval")
    axis.set_ylabel("comparison")
    counts = comparisons["verdict"].value_counts()
    axis.set_title(", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
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

    Args:
        before: Confusion matrix (K, K) of the first group, row the true class.
        after: That of the second.
        classes: Class names.
        names: Names of the groups.
        split_name: The split.
    """
    gains = np.nan_to_num(recall(after) - recall(before))  # classes without videos: 0
    order = np.argsort(-gains)
    table = pd.DataFrame({"gain": gains[order]}, [shorten(classes[k], 24) for k in order])
    title = (
        f"On {split_name}, {names[1]} is better than {names[0]} in {(gains > 0).sum()} of "
        f"{len(classes)} classes and worse in {(gains < 0).sum()}"
    )
    colors = [[GAIN if gain >= 0 else LOSS for gain in table["gain"]]]
    panel = BarPanel(table, "class", "change of recall (points)", title, colors)
    size = (REPORT_WIDTH, 1.4 + 0.2 * len(classes))
    figure = bar_panels([panel], size, is_horizontal=True)
    figure.axes[0].axvline(0, color="black", linewidth=0.8)
    return figure


def plot_invariance_of_groups(agreement: pd.DataFrame, accuracy: pd.DataFrame) -> Figure:
    """Show invariance scores of groups of runs side by side.

    Args:
        agreement: One row a group, one column a family: how often the class stays, percent.
        accuracy: One row a group, one column an input (clip, actor, background): top-1 in percent.
            No columns without person boxes.
    """
    title = f"{agreement.mean().idxmin()} augmentation changes the class most often"
    panels = [
        BarPanel(agreement.T, "family of augmentations", "same class after it (%)", title),
        BarPanel(accuracy.T, "input of the network", "top-1 accuracy (%)"),
    ]
    panels = [panel._replace(limit=102) for panel in panels if len(panel.table)]
    return bar_panels(panels, (REPORT_WIDTH, 3.6))
