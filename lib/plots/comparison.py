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
    BarPanel,
    bar_panels,
    shorten,
    styled,
)

MAX_NAME = 32  # characters of a group name next to an axis


def plot_accuracy(summary: pd.DataFrame, colors: Mapping[str, str]) -> Figure:
    """Show top-1 by group, a panel per split: bars are means over seeds, dots single runs.

    `summary` has the columns group, split, top1 (percent); one row per run and split.
    """
    groups, panels = list(dict.fromkeys(summary["group"])), []
    names = [shorten(group, MAX_NAME) for group in groups]
    of_groups = [colors[group] for group in groups]
    for split, rows in summary.groupby("split", sort=False):
        means = rows.groupby("group")["top1"].mean().reindex(groups)
        table = pd.DataFrame({split: means.to_numpy()}, index=names)
        value = "top-1 accuracy (%); dots: single seeds"
        panels.append(BarPanel(table, "runs", value, shorten(split, 40), [of_groups], limit=112))
    figure = bar_panels(panels, (REPORT_WIDTH, 1.3 + 0.4 * len(groups)), is_horizontal=True)
    for axis, (_, rows) in zip(figure.axes, summary.groupby("split", sort=False), strict=True):
        axis.set_xticks(range(0, 101, 20))
        for y, group in enumerate(groups):
            values = rows.loc[rows["group"] == group, "top1"].tolist()
            _dots(axis, values, y, 16)
            if values:
                axis.text(103, y, f"{np.mean(values):.1f}", va="center", fontsize=9)
    for axis in figure.axes[1:]:
        axis.set(yticklabels=[], ylabel="")
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
    colors = [[RIGHT if gain >= 0 else WRONG for gain in table["gain"]]]
    panel = BarPanel(table, "class", "change of recall (points)", title, colors)
    size = (REPORT_WIDTH, 1.4 + 0.2 * len(classes))
    figure = bar_panels([panel], size, is_horizontal=True)
    figure.axes[0].axvline(0, color="black", linewidth=0.8)
    return figure


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
    title = f"{agreement.mean().idxmin()} augmentation changes the class most often"
    columns = "family of augmentations", "input of the network"
    of_groups = [colors[group] for group in agreement.index]
    same, top1 = "same class when augmented (%)", "top-1 accuracy (%)"
    panels = [BarPanel(agreement.T, columns[0], same, title, of_groups, limit=102)]
    if accuracy.shape[1]:
        panels.append(BarPanel(accuracy.T, columns[1], top1, "", of_groups, limit=102))
    return bar_panels(panels, (REPORT_WIDTH, 3.6))
