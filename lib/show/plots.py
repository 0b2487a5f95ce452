"""Static figures: each function draws one figure and returns it."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

# Okabe and Ito's palette, safe for colour-blind eyes; one colour for one thing everywhere.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
LABELED, UNLABELED, ACCURACY, RATE = COLORS[0], COLORS[1], COLORS[2], COLORS[3]


def clip_rows(
    clips: Mapping[str, Tensor], title: str, frames: int = 8, xlabel: str = "frame of the clip"
) -> Figure:
    """Show clips as rows of frames.

    Args:
        clips: Row label -> clip (T, 3, H, W) or mask (T, 1, H, W), uint8; masks are 0 or 1.
        title: Says what to see.
        frames: Most frames shown of a clip, evenly spaced.
        xlabel: What the columns are.
    """
    count = min(frames, min(len(clip) for clip in clips.values()))
    figure, grid = plt.subplots(
        len(clips),
        count,
        figsize=(1.15 * count + 1.4, 1.15 * len(clips) + 0.6),
        squeeze=False,
        layout="compressed",
    )
    for axes, (label, clip) in zip(grid, clips.items(), strict=True):
        shown = np.linspace(0, len(clip) - 1, count).round().astype(int)
        for axis, index in zip(axes, shown, strict=True):
            image = clip[int(index)].permute(1, 2, 0).numpy()
            if image.shape[-1] == 1:
                axis.imshow(image[..., 0], cmap="gray", vmin=0, vmax=1)
            else:
                axis.imshow(image)
            axis.set(xticks=[], yticks=[])
        axes[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=9)
    for number, axis in enumerate(grid[-1]):
        axis.set_xlabel(f"{number}", fontsize=8)
    figure.suptitle(title, fontsize=10)
    figure.supxlabel(xlabel, fontsize=8)
    return figure


def learning_curves(log: pd.DataFrame) -> Figure:
    """Show a run's losses, its pseudo-labels and its validation accuracy over the epochs.

    Args:
        log: `Run.read_log()`.
    """
    figure, (losses, pseudo, accuracy) = plt.subplots(1, 3, figsize=(11, 3))
    _line(losses, log, "loss/labeled", LABELED, "labelled")
    _line(losses, log, "loss/unlabeled", UNLABELED, "unlabelled")
    _line(losses, log, "loss/distillation", RATE, "distillation")
    losses.set(title="Loss", xlabel="epoch", ylabel="cross-entropy (nats)")
    _line(pseudo, log, "ssl/mask_rate", RATE, "confident", scale=100)
    _line(pseudo, log, "ssl/pseudo_label_accuracy", ACCURACY, "of these right", scale=100)
    pseudo.set(title="Pseudo-labels", xlabel="epoch", ylabel="share of clips (%)", ylim=(0, 102))
    _line(accuracy, log, "train/top1_clip", LABELED, "labelled clips", scale=100)
    _line(accuracy, log, "eval/top1_video", ACCURACY, "validation videos")
    accuracy.set(title="Top-1 accuracy", xlabel="epoch", ylabel="correct (%)", ylim=(0, 102))
    for axis in (losses, pseudo, accuracy):
        _finish(axis)
    if "ssl/mask_rate" not in log:
        pseudo.text(
            0.5, 0.5, "supervised run:\nno pseudo-labels", ha="center", transform=pseudo.transAxes
        )
    figure.tight_layout()
    return figure


def _line(
    axis: Axes, log: pd.DataFrame, column: str, color: str, label: str, scale: float = 1
) -> None:
    if column in log:
        part = log[["epoch", column]].dropna()
        axis.plot(part["epoch"], scale * part[column].astype(float), color=color, label=label)


def _finish(axis: Axes) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(frameon=False, fontsize=8)


def confusions(matrices: Mapping[str, np.ndarray], classes: Sequence[str], title: str) -> Figure:
    """Show confusion matrices side by side, as shares of each true class, with the counts.

    Args:
        matrices: Name -> counts, shape (K, K): row the true class, column the predicted one.
        classes: Class names; beyond 30 the names and counts are left out.
        title: Says what to see.
    """
    side = min(9, 1.7 + 0.36 * len(classes))
    size = (side * len(matrices) + 1, side + 0.4)
    figure, grid = plt.subplots(1, len(matrices), figsize=size, squeeze=False, layout="compressed")
    for axis, (name, matrix) in zip(grid[0], matrices.items(), strict=True):
        share = 100 * matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
        image = axis.imshow(share, cmap="Blues", vmin=0, vmax=100)
        if len(classes) <= 30:
            ticks = range(len(classes))
            axis.set_xticks(ticks, classes, rotation=45, ha="right", fontsize=8)
            axis.set_yticks(ticks, classes, fontsize=8)
            for row, column in np.argwhere(matrix > 0):
                color = "white" if share[row, column] > 55 else "black"
                count = matrix[row, column]
                axis.text(column, row, count, ha="center", va="center", color=color, fontsize=7)
        axis.set(xlabel="predicted class")
        axis.set_title(
            f"{name}\n{100 * matrix.trace() / max(matrix.sum(), 1):.1f} % right", fontsize=9
        )
    grid[0, 0].set_ylabel("true class")
    figure.colorbar(image, ax=grid[0].tolist(), label="share of the true class (%)", shrink=0.8)
    figure.suptitle(title, fontsize=10)
    return figure


def per_class_accuracy(matrices: Mapping[str, np.ndarray], classes: Sequence[str]) -> Figure:
    """Show the accuracy of each class, one bar per list.

    Args:
        matrices: List name -> confusion matrix (K, K).
        classes: Class names.
    """
    figure, axis = plt.subplots(figsize=(max(6, 0.5 * len(classes) + 2), 3.2))
    width = 0.8 / len(matrices)
    for number, (name, matrix) in enumerate(matrices.items()):
        accuracy = 100 * matrix.diagonal() / np.maximum(matrix.sum(axis=1), 1)
        x = np.arange(len(classes)) + (number - (len(matrices) - 1) / 2) * width
        axis.bar(x, accuracy, width, color=COLORS[number], label=name)
    axis.set_xticks(range(len(classes)), classes, rotation=45, ha="right", fontsize=8)
    axis.set(xlabel="class", ylabel="videos recognised (%)", ylim=(0, 105))
    _finish(axis)
    figure.tight_layout()
    return figure


def validation_curves(logs: Mapping[str, pd.DataFrame]) -> Figure:
    """Show the validation accuracy of several runs over their training time.

    Args:
        logs: Run name -> `Run.read_log()`; runs that differ only in `_seed…` share a colour.
    """
    figure, axis = plt.subplots(figsize=(7, 3.4))
    groups = list(dict.fromkeys(group_of(name) for name in logs))
    for name, log in logs.items():
        group = group_of(name)
        color = COLORS[groups.index(group) % len(COLORS)]
        part = log[["seconds", "eval/top1_video"]].dropna()
        label = group if group not in axis.get_legend_handles_labels()[1] else None
        axis.plot(part["seconds"] / 60, part["eval/top1_video"], color=color, label=label)
    axis.set(xlabel="training time (minutes)", ylabel="validation top-1 (%)", ylim=(0, 102))
    _finish(axis)
    figure.tight_layout()
    return figure


def invariance_bars(families: pd.DataFrame, accuracy: pd.DataFrame) -> Figure:
    """Show how often a prediction survives each augmentation, and what it is made from.

    Args:
        families: Columns family, agreement (percent), kl (nats).
        accuracy: Columns input, top1 (percent).
    """
    figure, axes = plt.subplots(1, 3, figsize=(11, 3))
    panels = (
        (families["family"], families["agreement"], "same class after augmentation (%)", "family"),
        (families["family"], families["kl"], "KL divergence (nats)", "family"),
        (accuracy["input"], accuracy["top1"], "top-1 accuracy (%)", "what the network sees"),
    )
    for axis, (names, values, ylabel, xlabel), color in zip(axes, panels, COLORS, strict=False):
        axis.bar(names, values, color=color, alpha=0.8)
        for position, value in enumerate(values):
            text = f"{value:.2f}" if "nats" in ylabel else f"{value:.0f}"
            axis.text(position, value, text, ha="center", va="bottom", fontsize=8)
        axis.set(xlabel=xlabel, ylabel=ylabel)
        axis.tick_params(axis="x", labelsize=8)
        if "nats" not in ylabel:
            axis.set_ylim(0, 108)
        _finish(axis)
    figure.tight_layout()
    return figure


def group_of(run_name: str) -> str:
    """Return the name of a run without its seed: runs of one group differ only in the seed."""
    return run_name.rsplit("_seed", 1)[0]
