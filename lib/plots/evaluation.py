"""Figures of a tested run, readable with 2 classes and with 400."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.evaluate.run_results import SplitResult
from lib.plots.panels import BarPanel, bar_panels
from lib.plots.style import (
    BLUE,
    FAMILY_COLORS,
    GRAY,
    ORANGE,
    PURPLE,
    REPORT_WIDTH,
    SKY,
    shorten,
    styled,
)

MAX_CLASSES = 20  # in a figure; of more, those with the most mistakes are shown
MAX_NAMES = 30  # classes; more names cannot be read
NAME_LENGTH = 22  # letters of a class name next to an axis


# --- Confusion matrices: counts (K, K), row the true class, column the predicted one --------------


def confusion_matrix(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the confusion matrix (K, K) of scores (N, K) and true classes (N,)."""
    matrix = np.zeros((scores.shape[1],) * 2, dtype=np.int64)
    np.add.at(matrix, (labels, scores.argmax(axis=1)), 1)
    return matrix


def confusion_matrices(results: Mapping[str, SplitResult]) -> dict[str, np.ndarray]:
    """Return the confusion matrix of each split."""
    return {name: confusion_matrix(r.scores, r.labels) for name, r in results.items()}


def recall(matrix: np.ndarray) -> np.ndarray:
    """Return the recall of each class, percent; NaN for classes without videos."""
    videos = matrix.sum(axis=1)
    share = np.full(len(matrix), np.nan)
    np.divide(100.0 * matrix.diagonal(), videos, out=share, where=videos > 0)
    return share


def confused_classes(matrix: np.ndarray, count: int, around: int | None = None) -> np.ndarray:
    """Return the classes with the most mistakes, in their order.

    Args:
        matrix: Confusion matrix.
        count: Maximum number of classes.
        around: A class to keep, together with the classes that it is most confused with.
    """
    if len(matrix) <= count:
        return np.arange(len(matrix))
    wrong = matrix - np.diag(matrix.diagonal())
    weight = wrong.sum(0) + wrong.sum(1)
    if around is not None:
        weight = (wrong[around] + wrong[:, around]) * (weight.max() + 1) + weight
        weight[around] = weight.max() + 1
    return np.sort(np.argsort(-weight, kind="stable")[:count])


def select_confused_classes(
    matrices: Mapping[str, np.ndarray], classes: Sequence[str]
) -> tuple[dict[str, np.ndarray], list[str], str]:
    """Reduce confusion matrices to at most `MAX_CLASSES` classes.

    Returns:
        The matrices; where classes are left out, the last column `(others)` counts the videos
        predicted as these. The names of the rows and columns. A remark for the title.
    """
    kept = confused_classes(sum(matrices.values()), MAX_CLASSES)
    names = [classes[k] for k in kept]
    if len(kept) == len(classes):
        return dict(matrices), names, ""
    reduced = {}
    for name, matrix in matrices.items():
        part = np.zeros((len(kept) + 1,) * 2, dtype=matrix.dtype)
        part[:-1, :-1] = matrix[np.ix_(kept, kept)]
        part[:-1, -1] = matrix[kept].sum(axis=1) - part[:-1, :-1].sum(axis=1)
        reduced[name] = part
    remark = f" (the {len(kept)} of {len(classes)} classes with the most mistakes)"
    return reduced, [*names, "(others)"], remark


@styled
def plot_confusions(
    matrices: Mapping[str, np.ndarray], classes: Sequence[str], title: str
) -> Figure:
    """Show confusion matrices side by side: colors are percent of the true class, texts counts.

    Args:
        matrices: Name -> confusion matrix.
        classes: Class names; with more than `MAX_NAMES` the axes count classes, and the cells have
            no texts.
        title: Title of the figure.
    """
    side = min(9, max(3, 1.7 + 0.36 * len(classes)))
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
        if len(classes) <= MAX_NAMES:
            _name_cells(axis, matrix, share, classes)
        axis.set_title(f"{name}\n{100 * matrix.trace() / max(matrix.sum(), 1):.1f} % right")
    number = "" if len(classes) <= MAX_NAMES else f" (number, of {len(classes)})"
    for axis in grid.flat[: len(matrices)]:
        axis.set_xlabel(f"predicted class{number}")
    for axis in grid[:, 0]:
        axis.set_ylabel(f"true class{number}")
    shown = grid.flat[: len(matrices)].tolist()
    figure.colorbar(image, ax=shown, label="videos of the true class (%)", shrink=0.8 / rows)
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


def plot_class_accuracy(matrices: Mapping[str, np.ndarray], classes: Sequence[str]) -> Figure:
    """Show the recall of each class on several splits.

    Args:
        matrices: Split -> confusion matrix.
        classes: Class names; of many, those with the most mistakes are shown.
    """
    total = sum(matrices.values())
    kept = confused_classes(total, MAX_CLASSES)
    names = [shorten(classes[k], NAME_LENGTH) for k in kept]
    table = pd.DataFrame({name: recall(m)[kept] for name, m in matrices.items()}, index=names)
    title = "No videos" if table.isna().all(axis=None) else f"Worst: {table.mean(axis=1).idxmin()}"
    if len(kept) < len(classes):
        title += f"; the {len(kept)} of {len(classes)} classes with the most mistakes"
    panel = BarPanel(
        table,
        "true class",
        "recognized videos of the class (%)",
        title,
        (BLUE, ORANGE, PURPLE, SKY),
        limit=108,
        text=lambda value: "no video" if np.isnan(value) else f"{value:.0f}",
    )
    height = 0.9 + len(kept) * max(0.26, 0.15 * len(matrices))
    return bar_panels([panel], (8, height), is_horizontal=True)


def plot_invariance(families: pd.DataFrame, accuracy: pd.DataFrame) -> Figure:
    """Show stability of predictions under augmentation, and their use of actor and background.

    Args:
        families: Columns family, agreement (percent), kl (nats).
        accuracy: Columns input, top1 (percent).
    """
    by_family, by_input = families.set_index("family"), accuracy.set_index("input")
    colors = [
        next((color for family, color in FAMILY_COLORS.items() if family in name), GRAY)
        for name in families["family"]
    ]
    axis, least_stable = "family of augmentations", by_family["agreement"].idxmin()
    percent = {"limit": 108, "text": "{:.0f}".format}
    panels = [
        BarPanel(
            by_family[["agreement"]],
            axis,
            "same class afterwards (%)",
            f"Least stable: {least_stable}",
            [colors],
            **percent,
        ),
        BarPanel(
            by_family[["kl"]],
            axis,
            "KL divergence (nats)",
            "Change of the prediction",
            [colors],
            text="{:.2f}".format,
        ),
        BarPanel(
            by_input[["top1"]],
            "input of the network",
            "top-1 accuracy (%)",
            "Actor or background",
            [GRAY],
            **percent,
        ),
    ]
    figure = bar_panels(panels, (11, 3.6))
    for axes in figure.axes:
        axes.tick_params(axis="x", rotation=20)
    return figure
