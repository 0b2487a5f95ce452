"""Figures of a tested run, legible with 2 classes and with 400.

Confusion matrices are counts of shape (K, K): row the true class, column the predicted class.
"""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.evaluate.invariance import ClipRegions
from lib.evaluate.new_videos import Prediction
from lib.evaluate.run_results import Calibration
from lib.fileio import write_atomic
from lib.plots.clips import clip_rows
from lib.plots.style import FAMILY_COLORS, GRAY, REPORT_WIDTH, shorten, styled

MAX_NAMES = 30  # classes; more names are illegible
NAME_LENGTH = 22  # characters of a class name next to an axis


def confusion_matrix(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the confusion matrix of scores (N, K) and true classes (N,)."""
    matrix = np.zeros((scores.shape[1],) * 2, dtype=np.int64)
    np.add.at(matrix, (labels, scores.argmax(axis=1)), 1)
    return matrix


def recall(matrix: np.ndarray) -> np.ndarray:
    """Return the recall of each class in percent; NaN for classes without videos."""
    with np.errstate(invalid="ignore"):
        return 100.0 * matrix.diagonal() / matrix.sum(axis=1)


def confused_classes(matrix: np.ndarray, count: int, around: int | None = None) -> np.ndarray:
    """Return at most `count` classes with the most mistakes, in ascending order.

    With `around`, keep that class and the classes that it is most confused with.
    """
    if len(matrix) <= count:
        return np.arange(len(matrix))
    wrong = matrix - np.diag(matrix.diagonal())
    weight = wrong.sum(0) + wrong.sum(1)
    if around is not None:
        weight = (wrong[around] + wrong[:, around]) * (weight.max() + 1) + weight
        weight[around] = weight.max() + 1
    return np.sort(np.argsort(-weight, kind="stable")[:count])


def most_confused(matrix: np.ndarray, classes: Sequence[str], count: int = 5) -> pd.DataFrame:
    """Return the pairs of classes with the most confused videos, at most `count`."""
    wrong = matrix - np.diag(matrix.diagonal())
    pairs = [divmod(int(k), len(matrix)) for k in np.argsort(-wrong, axis=None, kind="stable")]
    rows = [(classes[i], classes[j], int(wrong[i, j])) for i, j in pairs[:count] if wrong[i, j]]
    return pd.DataFrame(rows, columns=["true class", "predicted as", "videos"])


@styled
def plot_confusions(
    matrices: Mapping[str, np.ndarray], classes: Sequence[str], title: str
) -> Figure:
    """Show named confusion matrices side by side: color is percent of the true class, text counts.

    With more than `MAX_NAMES` classes, the axes have numbers and the cells have no text.
    """
    side = min(9, max(3, 1.7 + 0.36 * len(classes)))
    columns = min(len(matrices), max(1, int(REPORT_WIDTH / side)))
    rows = -(-len(matrices) // columns)
    size = (side * columns + 1, side * rows + 0.4)
    figure, grid = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="compressed")
    number = "" if len(classes) <= MAX_NAMES else f" (number, of {len(classes)})"
    used, unused = grid.flat[: len(matrices)].tolist(), grid.flat[len(matrices) :]
    for axis, (name, matrix) in zip(used, matrices.items(), strict=True):
        share = 100 * matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
        image = axis.imshow(share, cmap="Blues", vmin=0, vmax=100)
        axis.spines[:].set_visible(False)
        if len(classes) <= MAX_NAMES:
            _name_cells(axis, matrix, share, classes)
        axis.set_title(f"{name}\n{100 * matrix.trace() / max(matrix.sum(), 1):.1f} % correct")
        axis.set_xlabel(f"predicted class{number}")
    for axis in grid[:, 0]:
        axis.set_ylabel(f"true class{number}")
    for axis in unused:
        axis.remove()
    figure.colorbar(image, ax=used, label="videos of the true class (%)", shrink=0.8 / rows)
    figure.suptitle(title)
    return figure


def _name_cells(axis: Axes, matrix: np.ndarray, share: np.ndarray, classes: Sequence[str]) -> None:
    names = [shorten(name, NAME_LENGTH) for name in classes]
    axis.set_xticks(range(len(classes)), names, rotation=45, ha="right")
    axis.set_yticks(range(len(classes)), names)
    for row, column in np.argwhere(matrix > 0):
        color = "white" if share[row, column] > 55 else "black"
        text = matrix[row, column]
        axis.text(column, row, text, ha="center", va="center", color=color, fontsize=8)


@styled
def plot_invariance(families: pd.DataFrame, accuracy: pd.DataFrame) -> Figure:
    """Show stability of predictions under augmentation, and their use of actor and background.

    `families` has the columns family, agreement (percent), kl (nats); `accuracy` input, top1
    (percent).
    """
    colors = [
        next((color for family, color in FAMILY_COLORS.items() if family in name), GRAY)
        for name in families["family"]
    ]
    least_stable = families.loc[families["agreement"].idxmin(), "family"]
    panels = [
        (families, "agreement", "same class when augmented (%)", f"Least stable: {least_stable}"),
        (families, "kl", "KL divergence (nats)", "Change of the prediction"),
        (accuracy, "top1", "top-1 accuracy (%)", "Actor or background"),
    ]
    figure, grid = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained")
    for axis, (table, column, label, title) in zip(grid, panels, strict=True):
        kind = table.columns[0]
        bars = axis.bar(table[kind], table[column], color=colors if kind == "family" else GRAY)
        axis.bar_label(bars, fmt="%.2f" if column == "kl" else "%.0f", padding=2, fontsize=8)
        axis.margins(y=0.1)
        axis.tick_params(axis="x", rotation=20)
        axis.grid(axis="y")
        name = {"family": "family of augmentations", "input": "input of the network"}[kind]
        axis.set(xlabel=name, ylabel=label, title=title)
    return figure


MAX_LINES = 6  # classes with a line in the timeline


@styled
def timeline(prediction: Prediction, classes: tuple[str, ...]) -> Figure:
    """Draw the probabilities of the classes over the time of a video."""
    figure, axes = plt.subplots(figsize=(REPORT_WIDTH, 3), layout="constrained")
    seconds = (prediction.starts + prediction.span / 2) / (prediction.fps or 1)  # else frames
    order = np.argsort(-prediction.clips.max(axis=0), kind="stable")[:MAX_LINES]
    for label in order:
        name = shorten(classes[label], 30)
        axes.plot(seconds, prediction.clips[:, label], ".-", label=name)
    title = best_class(prediction.video, classes, 30)
    axes.set(ylim=(0, 1.02), ylabel="probability", title=f"{prediction.record.path.name}: {title}")
    axes.set_xlim(0, max(prediction.span, prediction.record.num_frames) / (prediction.fps or 1))
    axes.set_xlabel("middle of the clip, seconds" if prediction.fps else "frame")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def deciding_figure(prediction: Prediction, classes: tuple[str, ...]) -> Figure:
    """Show the most confident clip of each predicted class, and its regions."""
    rows = {}
    for label, regions in prediction.deciding.items():
        name = shorten(classes[label], 20)
        whole, *others = regions.clips
        title = f"{name} {100 * regions.probabilities[whole][label]:.0f} %"
        rows["\n".join([title, *textwrap.wrap(regions.note, 28)])] = regions.clips[whole]
        for region in others:
            rows[f"{name}, {region}:\n{best_class(regions.probabilities[region], classes)}"] = (
                regions.clips[region]
            )
    return clip_rows(rows, f"{prediction.record.path.name}: the most confident clip of each class")


def regions_figure(regions: ClipRegions, classes: tuple[str, ...], label: int) -> Figure:
    """Show a clip of class `label`, its actor and its background alone, with the predictions."""
    shares = regions.probabilities
    rows = {f"{name}\n{best_class(shares[name], classes)}": c for name, c in regions.clips.items()}
    title = f"Predictions on the regions of a clip of {shorten(classes[label], 30)}"
    return clip_rows(rows, "; ".join(filter(None, [title, regions.note])))


def best_class(share: np.ndarray, classes: Sequence[str], length: int = 20) -> str:
    """Return the name of the most probable class, shortened, with its probability in percent."""
    return f"{shorten(classes[int(share.argmax())], length)} {100 * share.max():.0f} %"


@styled
def reliability_figure(calibration: Calibration) -> Figure:
    """Draw the accuracy over the confidence, before and after calibration."""
    figure, axes = plt.subplots(figsize=(5, 4), layout="constrained")
    axes.plot([0, 1], [0, 1], color=GRAY, linewidth=1)
    name = f"divided by {calibration.temperature:.2f}"
    for label, curve in (("as trained", calibration.before), (name, calibration.after)):
        axes.plot(curve[:, 0], curve[:, 1], "o-", label=label)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="confidence", ylabel="accuracy")
    axes.set_title(f"On the gray line, confidence equals accuracy ({calibration.videos} videos)")
    axes.legend(loc="upper left")
    return figure


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG and close it."""
    write_atomic(path, lambda temporary: figure.savefig(temporary, dpi=110))
    plt.close(figure)
    return path
