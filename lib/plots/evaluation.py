"""Figures of a tested run, legible with 2 classes and with 400.

Confusion matrices are counts of shape (K, K): row the true class, column the predicted class.
"""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.evaluate.run_results import SplitResult
from lib.plots.panels import BarPanel, bar_panels
from lib.plots.style import FAMILY_COLORS, GRAY, REPORT_WIDTH, shorten, styled

MAX_CLASSES = 20  # in a figure; of more, those with the most mistakes are shown
MAX_NAMES = 30  # classes; more names are illegible
NAME_LENGTH = 22  # characters of a class name next to an axis


def confusion_matrix(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the confusion matrix of scores (N, K) and true classes (N,)."""
    matrix = np.zeros((scores.shape[1],) * 2, dtype=np.int64)
    np.add.at(matrix, (labels, scores.argmax(axis=1)), 1)
    return matrix


def confusion_matrices(results: Mapping[str, SplitResult]) -> dict[str, np.ndarray]:
    """Return the confusion matrix of each split."""
    return {name: confusion_matrix(r.scores, r.labels) for name, r in results.items()}


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


def select_confused_classes(
    matrices: Mapping[str, np.ndarray], classes: Sequence[str]
) -> tuple[dict[str, np.ndarray], list[str], str]:
    """Reduce confusion matrices to the `MAX_CLASSES` classes with the most mistakes.

    Returns:
        The matrices, with a last column `(others)` for videos predicted as classes left out; the
        names of rows and columns; and a remark for the title.
    """
    kept = confused_classes(sum(matrices.values()), MAX_CLASSES)
    names = [classes[k] for k in kept]
    if len(kept) == len(classes):
        return dict(matrices), names, ""
    reduced = {}
    for name, matrix in matrices.items():
        part = np.pad(matrix[np.ix_(kept, kept)], (0, 1))
        part[:-1, -1] = matrix[kept].sum(axis=1) - part.sum(axis=1)[:-1]
        reduced[name] = part
    return reduced, [*names, "(others)"], _kept_remark(kept, classes)


def _kept_remark(kept: np.ndarray, classes: Sequence[str]) -> str:
    return f" (the {len(kept)} of {len(classes)} classes with the most mistakes)"


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


def plot_class_accuracy(matrices: Mapping[str, np.ndarray], classes: Sequence[str]) -> Figure:
    """Show the recall of each class from the confusion matrix of each split."""
    kept = confused_classes(sum(matrices.values()), MAX_CLASSES)
    names = [shorten(classes[k], NAME_LENGTH) for k in kept]
    table = pd.DataFrame({name: recall(m)[kept] for name, m in matrices.items()}, index=names)
    title = "No videos" if table.isna().all(axis=None) else f"Worst: {table.mean(axis=1).idxmin()}"
    if len(kept) < len(classes):
        title += _kept_remark(kept, classes)
    value = "recognized videos of the class (%)"
    panel = BarPanel(table, "true class", value, title, limit=108, text=_recall_text)
    height = 0.9 + len(kept) * max(0.26, 0.15 * len(matrices))
    return bar_panels([panel], (8, height), is_horizontal=True)


def _recall_text(value: float) -> str:
    return "no video" if np.isnan(value) else f"{value:.0f}"


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
    family, network_input = "family of augmentations", "input of the network"
    agreement, change, top1 = by_family[["agreement"]], by_family[["kl"]], by_input[["top1"]]
    same, least_stable = "same class afterwards (%)", f"Least stable: {agreement.idxmin().iloc[0]}"
    kl, accuracy_name = "KL divergence (nats)", "top-1 accuracy (%)"
    percent, plain = "{:.0f}".format, "{:.2f}".format
    panels = [
        BarPanel(agreement, family, same, least_stable, [colors], 108, percent),
        BarPanel(change, family, kl, "Change of the prediction", [colors], text=plain),
        BarPanel(top1, network_input, accuracy_name, "Actor or background", [GRAY], 108, percent),
    ]
    figure = bar_panels(panels, (11, 3.6))
    for axes in figure.axes:
        axes.tick_params(axis="x", rotation=20)
    return figure
