"""Static figures that set groups of runs side by side; each function draws one and returns it."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lib.show.style import COLORS, GREEN, VERMILLION, shorten, styled

GAIN, LOSS = GREEN, VERMILLION


@styled
def accuracy_bars(summary: pd.DataFrame) -> Figure:
    """Show top-1 per group of runs and list: bars are means over seeds, dots the single runs.

    Args:
        summary: Columns group, split, top1 (percent); one row a run and list.
    """
    groups, splits = list(dict.fromkeys(summary["group"])), list(dict.fromkeys(summary["split"]))
    means = summary.groupby(["group", "split"])["top1"].mean()
    height = 0.3 * len(splits) + 0.15
    figure, axis = plt.subplots(figsize=(8, 1.3 + height * len(groups)), layout="constrained")
    for number, split in enumerate(splits):
        for position, group in enumerate(groups):
            if (group, split) not in means:
                continue
            values = summary[(summary["group"] == group) & (summary["split"] == split)]["top1"]
            y = position + (number - (len(splits) - 1) / 2) * 0.8 / len(splits)
            label = split if position == 0 else None
            color = COLORS[number % len(COLORS)]
            axis.barh(y, values.mean(), 0.74 / len(splits), color=color, label=label)
            axis.scatter(values, [y] * len(values), color="black", ec="white", s=16, zorder=3)
            mean = f"{values.mean():.1f}"
            axis.text(1, y, mean, va="center", fontsize=9, color="white", fontweight="bold")
    axis.set_yticks(range(len(groups)), [shorten(group, 40) for group in groups])
    axis.invert_yaxis()
    axis.set(xlabel="top-1 accuracy (%); dots: single seeds", ylabel="runs", xlim=(0, 110))
    first = means.xs(splits[0], level="split")
    axis.set_title(f"{shorten(first.idxmax(), 40)} is best on {splits[0]}: {first.max():.1f} %")
    axis.grid(axis="x")
    axis.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


@styled
def ablation_bars(summary: pd.DataFrame, baseline: str) -> Figure:
    """Show what each group of runs gains over the baseline, sorted by the gain on the first list.

    Bars are differences of means over seeds, dots the single seeds against that mean.

    Args:
        summary: Columns group, split, top1 (percent); one row a run and list.
        baseline: The group that the others are compared with.
    """
    splits = list(dict.fromkeys(summary["split"]))
    top1 = summary.set_index(["split", "group"])["top1"]
    means = top1.groupby(level=[0, 1]).mean()
    gains = {split: means[split] - means[split][baseline] for split in splits}
    order = gains[splits[0]].drop(baseline).sort_values().index
    figure, axis = plt.subplots(
        figsize=(7.5, 1.5 + 0.24 * len(order) * len(splits)), layout="constrained"
    )
    height = 0.8 / len(splits)
    for number, split in enumerate(splits):
        y = np.arange(len(order)) - (number - (len(splits) - 1) / 2) * height
        values = gains[split].reindex(order)
        axis.barh(y, values, height * 0.92, color=COLORS[number], alpha=0.75, label=split)
        for position, group in zip(y, order, strict=True):
            single = top1[split].get(group, pd.Series(dtype=float)) - means[split][baseline]
            dots = np.atleast_1d(single)
            axis.scatter(dots, np.full(len(dots), position), color="black", s=8, zorder=3)
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_yticks(range(len(order)), [shorten(group, 40) for group in order])
    axis.set(xlabel=f"top-1 minus that of {baseline} (points; dots: single seeds)")
    axis.set_ylabel("group of runs")
    if len(order):
        best, gain = order[-1], gains[splits[0]][order[-1]]
        axis.set_title(f"{best}: {gain:+.1f} points on {splits[0]}, the most of all")
    axis.grid(axis="x")
    if len(splits) > 1:
        axis.legend()
    return figure


@styled
def class_gains(
    before: np.ndarray,
    after: np.ndarray,
    classes: Sequence[str],
    names: tuple[str, str],
    split: str,
) -> Figure:
    """Show by how much the accuracy of each class changes from one group of runs to another.

    Args:
        before: Confusion matrix (K, K) of the first group: row the true class, column
            the predicted one.
        after: That of the second.
        classes: Class names.
        names: The groups' names.
        split: The list's name.
    """
    gains = 100 * (_recall(after) - _recall(before))
    order = np.argsort(gains)
    figure, axis = plt.subplots(figsize=(7.5, 1.4 + 0.2 * len(classes)), layout="constrained")
    axis.barh(
        range(len(order)), gains[order], color=[GAIN if g >= 0 else LOSS for g in gains[order]]
    )
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_yticks(range(len(order)), [shorten(classes[k], 24) for k in order])
    axis.set(xlabel="change of the share of recognised videos (points)", ylabel="class")
    axis.set_title(
        f"On {split}, {names[1]} is better than {names[0]} in {(gains > 0).sum()} of "
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
        1, len(panels), figsize=(5.5 * len(panels), 3.4), squeeze=False, layout="constrained"
    )
    for axis, (table, xlabel, ylabel) in zip(axes[0], panels, strict=True):
        width = 0.8 / len(table)
        for number, (group, values) in enumerate(table.iterrows()):
            x = np.arange(len(values)) + (number - (len(table) - 1) / 2) * width
            color = COLORS[number % len(COLORS)]
            axis.bar(x, values, width * 0.95, color=color, alpha=0.8, label=group)
        axis.set_xticks(range(table.shape[1]), table.columns)
        axis.set(xlabel=xlabel, ylabel=ylabel, ylim=(0, 102))
        axis.grid(axis="y")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    mean = agreement.mean(axis=1)
    axes[0, 0].set_title(f"{mean.idxmax()} keeps its class most often")
    return figure


def _recall(matrix: np.ndarray) -> np.ndarray:
    return matrix.diagonal() / np.maximum(matrix.sum(axis=1), 1)
