"""Figures that compare groups of runs; the runs of a group differ only in the seed.

`colors` is the color of each group, as of `lib.plots.style.group_colors`.
"""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lib.plots.evaluation import recall
from lib.plots.style import (
    REPORT_WIDTH,
    RIGHT,
    VERDICT_COLORS,
    WRONG,
    shorten,
    styled,
)

MAX_NAME = 32  # characters of a group name next to an axis


@styled
def plot_accuracy(summary: pd.DataFrame, colors: Mapping[str, str]) -> Figure:
    """Show top-1 by group, a panel per split: bars are means over seeds, dots single runs.

    `summary` has the columns group, split, top1 (percent); one row per run and split.
    """
    groups, splits = list(dict.fromkeys(summary["group"])), summary.groupby("split", sort=False)
    size = (REPORT_WIDTH, 1.3 + 0.4 * len(groups))
    options = {"squeeze": False, "sharey": True, "layout": "constrained"}
    figure, grid = plt.subplots(1, splits.ngroups, figsize=size, **options)
    for axis, (split, rows) in zip(grid[0], splits, strict=True):
        for y, group in enumerate(groups):
            values = rows.loc[rows["group"] == group, "top1"].tolist()
            mean = np.mean(values) if values else 0
            axis.barh(y, mean, color=colors[group])
            _dots(axis, values, y, 16)
            axis.text(103, y, f"{mean:.1f}" if values else "", va="center", fontsize=9)
        axis.set(xlim=(0, 112), xticks=range(0, 101, 20), title=shorten(split, 40))
        axis.set_xlabel("top-1 accuracy (%); dots: single seeds")
        axis.grid(axis="x")
    grid[0, 0].set_yticks(range(len(groups)), [shorten(group, MAX_NAME) for group in groups])
    grid[0, 0].set_ylabel("runs")
    grid[0, 0].invert_yaxis()
    return figure


def _dots(axis: Axes, values: Sequence[float], y: float, size: int) -> None:
    axis.scatter(values, [y] * len(values), color="black", ec="white", s=size, zorder=3)


@styled
def plot_matrix(means: pd.DataFrame, comparisons: pd.DataFrame) -> Figure:
    """Show mean top-1 of each group on each split, and its gain over one baseline.

    Args:
        means: Row per group, column per split, percent.
        comparisons: Rows of `lib.report.verdict.gains_over_baseline`. Their difference is the
            color; a frame marks a question with a margin above 0.
    """
    means = means.loc[[comparisons["worse"].iloc[0], *comparisons["better"].unique()]]
    gains = comparisons.pivot(index="better", columns="split", values="difference")
    gains = gains.reindex(means.index, columns=means.columns).fillna(0).to_numpy()
    limit = max(1.0, np.abs(gains).max())
    size = (REPORT_WIDTH, 1.3 + 0.5 * len(means))
    figure, axis = plt.subplots(figsize=size, layout="constrained")
    image = axis.imshow(gains, "PuOr_r", vmin=-limit, vmax=limit, aspect="auto")
    texts = means.map("{:.1f}".format)
    for row in comparisons.to_dict("records"):
        texts.loc[row["better"], row["split"]] += "\n{difference:+.1f}".format(**row)
        if row["seeds"] > 1:
            texts.loc[row["better"], row["split"]] += " ({low:+.1f} to {high:+.1f})".format(**row)
        if row["margin"] > 0:
            column = means.columns.get_loc(row["split"])
            corner = column - 0.5, means.index.get_loc(row["better"]) - 0.5
            axis.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor="black", linewidth=2.5))
    for (row, column), text in np.ndenumerate(texts.to_numpy()):
        color = "white" if abs(gains[row, column]) > 0.6 * limit else "black"
        axis.text(column, row, text.replace("-", "−"), ha="center", va="center", color=color)
    axis.set_xticks(range(len(means.columns)), [shorten(name, 16) for name in means])
    axis.set_yticks(range(len(means)), [shorten(name, MAX_NAME) for name in means.index])
    axis.set(xlabel="test split", ylabel="runs")
    name = shorten(comparisons["worse"].iloc[0], MAX_NAME)
    figure.colorbar(image, label=f"gain over {name} (points)")
    return figure


@styled
def plot_differences(comparisons: pd.DataFrame, differences: Sequence[Sequence[float]]) -> Figure:
    """Show paired differences, colored by verdict: a dot per seed, a bar for the interval.

    `comparisons` has at least one row of `lib.report.verdict.compare_groups`; `differences` has for
    each row the differences of top-1 of the seeds, in points.
    """
    height = 1.3 + 0.32 * len(comparisons)
    figure, axis = plt.subplots(figsize=(REPORT_WIDTH, height), layout="constrained")
    axis.use_sticky_edges = False
    labels = []
    rows = zip(comparisons.to_dict("records"), differences, strict=True)
    for y, (row, values) in enumerate(rows):
        color = VERDICT_COLORS[row["verdict"]]
        if row["seeds"] > 1:
            axis.barh(y, row["high"] - row["low"], 0.5, left=row["low"], color=color, alpha=0.35)
        if len(values):
            axis.plot([row["difference"]] * 2, [y - 0.25, y + 0.25], color=color, linewidth=2)
        _dots(axis, values, y, 24)
        better, worse = (shorten(row[name], MAX_NAME) for name in ("better", "worse"))
        labels.append(f"{better} − {worse}, {shorten(row['split'], 16)}")
    axis.axvline(0, color="black", linewidth=1)
    axis.set_yticks(range(len(labels)), labels)
    counts = comparisons["verdict"].value_counts()
    axis.set(
        ylim=(len(labels) - 0.4, -0.6),
        xlabel="difference of top-1 (points); dots: single seeds, bars: 95 % interval",
        ylabel="comparison",
        title=", ".join(f"{count} × {verdict}" for verdict, count in counts.items()),
    )
    axis.grid(axis="x")
    return figure


@styled
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
    size = (REPORT_WIDTH, 1.4 + 0.2 * len(classes))
    figure, axis = plt.subplots(figsize=size, layout="constrained")
    colors = [RIGHT if gain >= 0 else WRONG for gain in gains[order]]
    axis.barh(range(len(order)), gains[order], color=colors)
    axis.set_yticks(range(len(order)), [shorten(classes[k], 24) for k in order])
    axis.invert_yaxis()
    axis.axvline(0, color="black", linewidth=0.8)
    axis.grid(axis="x")
    title = (
        f"On {split_name}, {names[1]} is better than {names[0]} in {(gains > 0).sum()} of "
        f"{len(classes)} classes and worse in {(gains < 0).sum()}"
    )
    axis.set(xlabel="change of recall (points)", ylabel="class", title=title)
    return figure


@styled
def plot_invariance_of_groups(
    agreement: pd.DataFrame, accuracy: pd.DataFrame, colors: Mapping[str, str]
) -> Figure:
    """Show invariance scores of groups of runs side by side.

    Args:
        agreement: Row per group, column per family: share of unchanged predictions, percent.
        accuracy: Row per group, column per input (clip, actor, background): top-1, percent; no
            columns without person boxes.
        colors: As above.
    """
    panels = [(agreement, "family of augmentations", "same class when augmented (%)")]
    if accuracy.shape[1]:
        panels.append((accuracy, "input of the network", "top-1 accuracy (%)"))
    options = {"squeeze": False, "layout": "constrained"}
    figure, grid = plt.subplots(1, len(panels), figsize=(REPORT_WIDTH, 3.6), **options)
    for axis, (table, name, value) in zip(grid[0], panels, strict=True):
        look = {"color": colors, "width": 0.8, "rot": 0, "legend": False}
        table.T.plot.bar(ax=axis, xlabel=name, ylabel=value, ylim=(0, 102), **look)
        axis.grid(axis="y")
    least = agreement.mean().idxmin()
    grid[0, 0].set_title(f"{least} augmentation changes the class most often")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside right upper")
    return figure
