"""Static figures that set groups of runs side by side; each function draws one and returns it."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lib.plots.evaluation import recall
from lib.plots.style import COLORS, GREEN, REPORT_WIDTH, VERMILLION, shorten, styled

GAIN, LOSS = GREEN, VERMILLION
LONGEST_NAME = 40  # letters of a group beside an axis


@styled
def accuracy_bars(summary: pd.DataFrame) -> Figure:
    """Show top-1 per group of runs and split: bars are means over seeds, dots the single runs.

    Args:
        summary: Columns group, split, top1 (percent); one row per run and split.
    """
    groups, splits = list(dict.fromkeys(summary["group"])), list(dict.fromkeys(summary["split"]))
    height = 1.3 + (0.3 * len(splits) + 0.15) * len(groups)
    figure, axis = plt.subplots(figsize=(REPORT_WIDTH, height), layout="constrained")
    top1 = {key: part["top1"] for key, part in summary.groupby(["group", "split"])}
    for number, name in enumerate(splits):
        label = name
        for position, group in enumerate(groups):
            if (values := top1.get((group, name))) is None:
                continue
            y = position + (number - (len(splits) - 1) / 2) * 0.8 / len(splits)
            color = COLORS[number % len(COLORS)]
            axis.barh(y, values.mean(), 0.74 / len(splits), color=color, label=label)
            axis.scatter(values, [y] * len(values), color="black", ec="white", s=16, zorder=3)
            mean = f"{values.mean():.1f}"
            axis.text(1, y, mean, va="center", fontsize=9, color="white", fontweight="bold")
            label = None
    axis.set_yticks(range(len(groups)), [shorten(group, LONGEST_NAME) for group in groups])
    axis.invert_yaxis()
    axis.set(xlabel="top-1 accuracy (%); dots: single seeds", ylabel="runs", xlim=(0, 102))
    axis.set_title(ahead_in_every_seed(summary, splits[0]))
    axis.grid(axis="x")
    axis.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def ahead_in_every_seed(summary: pd.DataFrame, split_name: str) -> str:
    """Return in words whether a group's worst seed is above every other group's best one.

    Args:
        summary: Columns group, split, top1 (percent); one row per run and split.
        split_name: The split.
    """
    top1 = summary[summary["split"] == split_name].groupby("group")["top1"]
    seeds = top1.agg(["min", "max", "count"])
    if len(seeds) < 2 or seeds["count"].min() < 2:
        return f"Top-1 on {split_name}: single runs, which decide nothing" if len(seeds) else ""
    first = seeds["min"].idxmax()
    others = seeds.drop(first)["max"]
    if seeds.loc[first, "min"] <= others.max():
        return f"On {split_name} no group is ahead of all others in every seed"
    return (
        f"On {split_name} every seed of {shorten(first, LONGEST_NAME)} is ahead of all others: "
        f"at least {seeds.loc[first, 'min']:.1f} % against at most {others.max():.1f} %"
    )


@styled
def difference_intervals(comparisons: pd.DataFrame, differences: Sequence[pd.Series]) -> Figure:
    """Show paired differences of groups: each seed a dot, the interval of the mean a bar.

    Args:
        comparisons: Columns better, worse, split, seeds, difference, low, high, verdict; one row
            per comparison, at least one.
        differences: Differences of each comparison by seed, points.
    """
    height = 1.3 + 0.32 * len(comparisons)
    figure, axis = plt.subplots(figsize=(REPORT_WIDTH, height), layout="constrained")
    axis.use_sticky_edges = False
    splits = list(dict.fromkeys(comparisons["split"]))
    rows = comparisons.to_dict("records")
    for y, (row, values) in enumerate(zip(rows, differences, strict=True)):
        color = COLORS[splits.index(row["split"]) % len(COLORS)]
        if row["seeds"] > 1:
            axis.barh(y, row["high"] - row["low"], 0.5, left=row["low"], color=color, alpha=0.35)
        if len(values):
            axis.plot([row["difference"]] * 2, [y - 0.25, y + 0.25], color=color, linewidth=2)
        axis.scatter(values, [y] * len(values), color="black", ec="white", s=24, zorder=3)
    axis.axvline(0, color="black", linewidth=1)
    axis.set_yticks(range(len(comparisons)), [_label(row) for _, row in comparisons.iterrows()])
    axis.set_ylim(len(comparisons) - 0.4, -0.6)
    axis.set_xlabel("difference of top-1 (points); dots: single seeds, bars: 95 % interval")
    axis.set_ylabel("comparison")
    counts = comparisons["verdict"].value_counts()
    words = ("holds", "not decided", "contradicted")
    held, undecided, against = (counts.get(word, 0) for word in words)
    axis.set_title(
        f"Of {len(comparisons)} comparisons {held} hold, {undecided} are not decided, "
        f"{against} are contradicted"
    )
    axis.grid(axis="x")
    return figure


def _label(row: Mapping[str, object]) -> str:
    better, worse = (shorten(row[name], 32) for name in ("better", "worse"))
    return f"{better} − {worse}, {shorten(row['split'], 16)}"


@styled
def class_gains(
    before: np.ndarray,
    after: np.ndarray,
    classes: Sequence[str],
    names: tuple[str, str],
    split_name: str,
) -> Figure:
    """Show by how much the accuracy of each class changes from one group of runs to another.

    Args:
        before: Confusion matrix (K, K) of the first group: row the true class, column
            the predicted one.
        after: That of the second.
        classes: Class names.
        names: The groups' names.
        split_name: The split.
    """
    gains = np.nan_to_num(recall(after) - recall(before))  # without videos there is none
    order = np.argsort(gains)
    figure, axis = plt.subplots(
        figsize=(REPORT_WIDTH, 1.4 + 0.2 * len(classes)), layout="constrained"
    )
    axis.barh(
        range(len(order)), gains[order], color=[GAIN if g >= 0 else LOSS for g in gains[order]]
    )
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_yticks(range(len(order)), [shorten(classes[k], 24) for k in order])
    axis.set(xlabel="change of the share of recognised videos (points)", ylabel="class")
    axis.set_title(
        f"On {split_name}, {names[1]} is better than {names[0]} in {(gains > 0).sum()} of "
        f"{len(classes)} classes and worse in {(gains < 0).sum()}",
    )
    axis.grid(axis="x")
    return figure


@styled
def invariance_comparison(agreement: pd.DataFrame, accuracy: pd.DataFrame) -> Figure:
    """Show invariance scores of groups of runs side by side.

    Args:
        agreement: A row a group, a column a family: how often the class stays, percent.
        accuracy: A row a group, a column an input (the clip, its actor, its background): top-1 in
            percent. No columns where there were no person boxes.
    """
    panels = [
        (agreement, "family of augmentations", "same class after it (%)"),
        (accuracy, "what the network sees", "top-1 accuracy (%)"),
    ]
    panels = [panel for panel in panels if panel[0].shape[1]]
    figure, axes = plt.subplots(
        1, len(panels), figsize=(REPORT_WIDTH, 3.6), squeeze=False, layout="constrained"
    )
    for axis, (table, xlabel, ylabel) in zip(axes[0], panels, strict=True):
        table.T.plot.bar(ax=axis, width=0.8, rot=0, alpha=0.8, legend=False)
        axis.set(xlabel=xlabel, ylabel=ylabel, ylim=(0, 102))
        axis.grid(axis="y")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    mean = agreement.mean()
    axes[0, 0].set_title(f"{mean.idxmin()} augmentation changes the class most often")
    return figure
