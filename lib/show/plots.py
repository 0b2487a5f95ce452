"""Static figures: each function draws one figure and returns it."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from lib.run.folder import Run
from lib.show.style import (
    ACCURACY,
    COLORS,
    FAMILY_COLORS,
    GRAY,
    LABELED,
    RATE,
    REPORT_WIDTH,
    UNLABELED,
    shorten,
    styled,
)

LONGEST_NAME = 24  # letters of a class name beside an axis
MOST_NAMES = 30  # classes; more names cannot be read
GAP = 0.03  # around a frame, share of its width


def read_log(run: Run) -> pd.DataFrame:
    """Return a run's log as a table: one row an epoch, NaN where a value was not measured."""
    return pd.DataFrame(run.log_entries())


@styled
def clip_rows(
    clips: Mapping[str, Tensor],
    title: str,
    frames: int = 8,
    xlabel: str = "frame of the clip",
    columns: Sequence[object] | None = None,
) -> Figure:
    """Show clips as rows of frames.

    Args:
        clips: Row label -> clip (T, 3, H, W) or mask (T, 1, H, W), uint8; masks are 0 or 1.
        title: Says what to see.
        frames: Most frames shown of a clip, evenly spaced.
        xlabel: What the columns are.
        columns: What stands below them; their numbers where it is not given.
    """
    count = min(frames, min(len(clip) for clip in clips.values()))
    heights = np.cumsum([0.0, *(clip.shape[-2] / clip.shape[-1] for clip in clips.values())])
    figure, axes = plt.subplots(
        figsize=(1.15 * count + 1.4, 1.15 * heights[-1] + 0.6), layout="constrained"
    )
    for clip, (top, bottom) in zip(clips.values(), pairwise(heights), strict=True):
        shown = np.linspace(0, len(clip) - 1, count).round().astype(int)
        for left, index in enumerate(shown):
            image = clip[int(index)].permute(1, 2, 0).numpy()
            place = (left + GAP, left + 1 - GAP, bottom - GAP, top + GAP)
            if image.shape[-1] == 1:
                axes.imshow(image[..., 0], cmap="gray", vmin=0, vmax=1, extent=place)
            else:
                axes.imshow(image, extent=place)
    axes.set(xlim=(0, count), ylim=(heights[-1], 0), xlabel=xlabel)
    axes.set_xticks(np.arange(count) + 0.5, columns or range(count))
    axes.set_yticks((heights[:-1] + heights[1:]) / 2, list(clips))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    figure.suptitle(title)
    return figure


@styled
def learning_curves(log: pd.DataFrame) -> Figure:
    """Show a run's losses, its pseudo-labels and its validation accuracy over the epochs.

    Args:
        log: `read_log`.
    """
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
    losses, pseudo, accuracy = axes
    _line(losses, log, "loss/labeled", LABELED, "labelled")
    _line(losses, log, "loss/unlabeled", UNLABELED, "unlabelled")
    _line(losses, log, "loss/distillation", RATE, "distillation")
    loss, rate, right, best = (
        _last(log, name)
        for name in ("loss/total", "ssl/mask_rate", "ssl/pseudo_label_accuracy", "eval/top1_video")
    )
    losses.set(title="Loss" + (f": {loss:.2f} at the end" if loss is not None else ""))
    losses.set(xlabel="epoch", ylabel="cross-entropy (nats)")
    _line(pseudo, log, "ssl/mask_rate", RATE, "confident", scale=100)
    _line(pseudo, log, "ssl/pseudo_label_accuracy", ACCURACY, "of these right", scale=100)
    title = "Pseudo-labels"
    if rate is not None and right is not None:
        title = f"{100 * rate:.0f} % confident, {100 * right:.0f} % of these right"
    pseudo.set(title=title, xlabel="epoch", ylabel="share of clips (%)", ylim=(0, 102))
    _line(accuracy, log, "train/top1_clip", LABELED, "labelled clips", scale=100)
    _line(accuracy, log, "eval/top1_video", ACCURACY, "validation videos")
    title = "not validated yet" if best is None else f"validation ends at {best:.1f} %"
    accuracy.set(title=f"Top-1: {title}", xlabel="epoch", ylabel="correct (%)", ylim=(0, 102))
    for axis in axes:
        axis.xaxis.get_major_locator().set_params(integer=True)
        _finish(axis)
    if "ssl/mask_rate" not in log:
        pseudo.text(
            0.5, 0.5, "supervised run:\nno pseudo-labels", ha="center", transform=pseudo.transAxes
        )
    return figure


def _last(log: pd.DataFrame, column: str) -> float | None:
    """Return the last value of a column; None where there is none."""
    values = log[column].dropna() if column in log else []
    return float(values.iloc[-1]) if len(values) else None


def _line(
    axis: Axes, log: pd.DataFrame, column: str, color: str, label: str, scale: float = 1
) -> None:
    if column in log:
        part = log[["epoch", column]].dropna()
        values = scale * part[column].astype(float)
        axis.plot(part["epoch"], values, _dot(part), color=color, label=label)


def _dot(points: pd.DataFrame) -> str:
    """Return how a line is drawn; a single point, which is none, as a dot."""
    return "o" if len(points) == 1 else "-"


def _finish(axis: Axes) -> None:
    axis.grid(visible=True)
    if axis.get_legend_handles_labels()[0]:
        axis.legend()


@styled
def confusions(matrices: Mapping[str, np.ndarray], classes: Sequence[str], title: str) -> Figure:
    """Show confusion matrices side by side, as shares of each true class, with the counts.

    Args:
        matrices: Name -> counts, shape (K, K): row the true class, column the predicted one.
        classes: Class names; with more than `MOST_NAMES` the axes count classes, and no videos are
            written into the cells.
        title: Says what to see.
    """
    side = min(9, max(3, 1.7 + 0.36 * len(classes)))
    names = [shorten(name, LONGEST_NAME) for name in classes]
    columns = min(len(matrices), max(1, int(REPORT_WIDTH / side)))  # a wider figure is shrunk
    rows = -(-len(matrices) // columns)
    size = (side * columns + 1, side * rows + 0.4)
    figure, grid = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="compressed")
    for axis in grid.flat[len(matrices) :]:
        axis.remove()
    for axis, (name, matrix) in zip(grid.flat, matrices.items(), strict=False):
        share = 100 * matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
        image = axis.imshow(share, cmap="Blues", vmin=0, vmax=100)
        axis.spines[:].set_visible(False)
        if len(classes) <= MOST_NAMES:
            ticks = range(len(classes))
            axis.set_xticks(ticks, names, rotation=45, ha="right")
            axis.set_yticks(ticks, names)
            for row, column in np.argwhere(matrix > 0):
                color = "white" if share[row, column] > 55 else "black"
                count = matrix[row, column]
                axis.text(column, row, count, ha="center", va="center", color=color, fontsize=8)
        many = "" if len(classes) <= MOST_NAMES else f" (number, of {len(classes)})"
        axis.set(xlabel=f"predicted class{many}")
        axis.set_title(f"{name}\n{100 * matrix.trace() / max(matrix.sum(), 1):.1f} % right")
    for axis in grid[:, 0]:
        axis.set_ylabel(f"true class{many}")
    label, shown = "share of the true class (%)", grid.flat[: len(matrices)].tolist()
    figure.colorbar(image, ax=shown, label=label, shrink=0.8 / rows)
    figure.suptitle(title)
    return figure


@styled
def validation_curves(logs: Mapping[str, pd.DataFrame]) -> Figure:
    """Show the validation accuracy of several runs over their training time.

    Args:
        logs: Run name -> `read_log`; runs that differ only in `_seed…` share a colour.
    """
    figure, axis = plt.subplots(figsize=(REPORT_WIDTH, 3.8), layout="constrained")
    groups = list(dict.fromkeys(group_of(name) for name in logs))
    for name, log in logs.items():
        group = group_of(name)
        color = COLORS[groups.index(group) % len(COLORS)]
        if "eval/top1_video" not in log:
            continue
        part = log[["seconds", "eval/top1_video"]].dropna()
        label = group if group not in axis.get_legend_handles_labels()[1] else None
        minutes, top1 = part["seconds"] / 60, part["eval/top1_video"]
        axis.plot(minutes, top1, _dot(part), color=color, label=label)
    axis.set(xlabel="training time (minutes)", ylabel="validation top-1 (%)", ylim=(0, 102))
    ends = [value for log in logs.values() if (value := _last(log, "eval/top1_video")) is not None]
    axis.set_title(_range_title(ends))
    axis.grid(visible=True)
    if ends:
        axis.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _range_title(ends: Sequence[float]) -> str:
    if not ends:
        return "No run was validated yet"
    low, high = f"{min(ends):.1f} %", f"{max(ends):.1f} %"
    return f"Validation ends {f'at {low}' if low == high else f'between {low} and {high}'}"


@styled
def invariance_bars(families: pd.DataFrame, accuracy: pd.DataFrame) -> Figure:
    """Show how often a prediction survives each augmentation, and what it is made from.

    Args:
        families: Columns family, agreement (percent), kl (nats).
        accuracy: Columns input, top1 (percent).
    """
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained")
    colors = [_family_color(name) for name in families["family"]]
    seen = [GRAY] * len(accuracy)
    panels = (
        (families["family"], families["agreement"], "same class afterwards (%)", "family", colors),
        (families["family"], families["kl"], "KL divergence (nats)", "family", colors),
        (accuracy["input"], accuracy["top1"], "top-1 accuracy (%)", "what the network sees", seen),
    )
    for axis, (names, values, ylabel, xlabel, color) in zip(axes, panels, strict=True):
        bars = axis.bar(names, values, color=color)
        axis.bar_label(bars, fmt="{:.2f}" if "nats" in ylabel else "{:.0f}", fontsize=9)
        axis.set(xlabel=xlabel, ylabel=ylabel)
        axis.tick_params(axis="x", rotation=20)
        if "nats" not in ylabel:
            axis.set_ylim(0, 108)
        axis.grid(axis="y")
    weakest = families.loc[families["agreement"].idxmin()]
    axes[0].set_title(f"Least stable: {weakest['family']}")
    axes[1].set_title("Change of the prediction")
    axes[2].set_title("What it is made from")
    return figure


def _family_color(name: str) -> str:
    return next((color for family, color in FAMILY_COLORS.items() if family in name), GRAY)


def group_of(run_name: str) -> str:
    """Return the name of a run without its seed: runs of one group differ only in the seed."""
    return run_name.rsplit("_seed", 1)[0]
