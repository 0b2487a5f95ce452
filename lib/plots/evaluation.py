"""Figures of a tested run, made so that they stay readable with 2 classes and with 400."""

from collections.abc import Iterator, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from torch import Tensor

from lib.config import TrainSettings
from lib.evaluate.clip_regions import CenterClips
from lib.evaluate.run_results import SplitResult
from lib.jupyter.tiles import Tile, tiles_html
from lib.plots.clips import clip_rows
from lib.plots.style import (
    ACCURACY,
    BLUE,
    FAMILY_COLORS,
    GRAY,
    ORANGE,
    PURPLE,
    REPORT_WIDTH,
    SKY,
    VERMILLION,
    shorten,
    styled,
)

MAX_CLASSES = 20  # in a figure; of more, those with the most mistakes are shown
LONGEST_NAME = 24  # letters of a class name beside an axis
MAX_NAMES = 30  # classes; more names cannot be read
MAX_MISTAKES = 4  # in a figure or movie
NAME_LENGTH = 22
RIGHT, WRONG = ACCURACY, VERMILLION


def confused_classes(matrix: np.ndarray, count: int, around: int | None = None) -> np.ndarray:
    """Return the classes to show of many, in their order: those with the most mistakes.

    Args:
        matrix: Counts (K, K): row the true class, column the predicted one.
        count: Most classes.
        around: With it, this class and those that it is taken for or that are taken for it.
    """
    if len(matrix) <= count:
        return np.arange(len(matrix))
    wrong = matrix - np.diag(matrix.diagonal())
    weight = wrong.sum(0) + wrong.sum(1)
    if around is not None:
        weight = (wrong[around] + wrong[:, around]) * (weight.max() + 1) + weight
        weight[around] = weight.max() + 1
    return np.sort(np.argsort(-weight, kind="stable")[:count])


def shown_part(
    matrices: Mapping[str, np.ndarray], classes: Sequence[str]
) -> tuple[dict[str, np.ndarray], list[str], str]:
    """Cut confusion matrices down to the classes that a figure has room for.

    Returns:
        The matrices; where classes are left out, videos taken for these are in a last column
        `(others)`. The names of the rows and columns, shortened. What to add to the title.
    """
    shown = confused_classes(sum(matrices.values()), MAX_CLASSES)
    names = [shorten(classes[k], NAME_LENGTH) for k in shown]
    if len(shown) == len(classes):
        return dict(matrices), names, ""
    parts = {}
    for name, matrix in matrices.items():
        part = np.zeros((len(shown) + 1,) * 2, dtype=matrix.dtype)
        part[:-1, :-1] = matrix[np.ix_(shown, shown)]
        part[:-1, -1] = matrix[shown].sum(axis=1) - part[:-1, :-1].sum(axis=1)
        parts[name] = part
    left_out = f" (the {len(shown)} of {len(classes)} classes with the most mistakes)"
    return parts, [*names, "(others)"], left_out


@styled
def confusions(matrices: Mapping[str, np.ndarray], classes: Sequence[str], title: str) -> Figure:
    """Show confusion matrices side by side, as shares of each true class, with the counts.

    Args:
        matrices: Name -> counts, shape (K, K): row the true class, column the predicted one.
        classes: Class names; with more than `MAX_NAMES` the axes count classes, and no videos are
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
        if len(classes) <= MAX_NAMES:
            ticks = range(len(classes))
            axis.set_xticks(ticks, names, rotation=45, ha="right")
            axis.set_yticks(ticks, names)
            for row, column in np.argwhere(matrix > 0):
                color = "white" if share[row, column] > 55 else "black"
                count = matrix[row, column]
                axis.text(column, row, count, ha="center", va="center", color=color, fontsize=8)
        many = "" if len(classes) <= MAX_NAMES else f" (number, of {len(classes)})"
        axis.set(xlabel=f"predicted class{many}")
        axis.set_title(f"{name}\n{100 * matrix.trace() / max(matrix.sum(), 1):.1f} % right")
    for axis in grid[:, 0]:
        axis.set_ylabel(f"true class{many}")
    label, shown = "share of the true class (%)", grid.flat[: len(matrices)].tolist()
    figure.colorbar(image, ax=shown, label=label, shrink=0.8 / rows)
    figure.suptitle(title)
    return figure


@styled
def class_bars(matrices: Mapping[str, np.ndarray], classes: Sequence[str]) -> Figure:
    """Show the share of each class's videos that is recognised, a bar for each list.

    Args:
        matrices: List name -> confusion matrix (K, K).
        classes: Class names.
    """
    total = sum(matrices.values())
    shown = confused_classes(total, MAX_CLASSES)
    height = 0.9 + len(shown) * max(0.26, 0.15 * len(matrices))
    figure, axis = plt.subplots(figsize=(8, height), layout="constrained")
    table = pd.DataFrame({name: recall(matrix)[shown] for name, matrix in matrices.items()})
    table.fillna(0).plot.barh(ax=axis, width=0.8, color=[BLUE, ORANGE, PURPLE, SKY])
    for bars, shares in zip(axis.containers, table.to_numpy().T, strict=True):
        texts = ["no video" if np.isnan(share) else f"{share:.0f}" for share in shares]
        axis.bar_label(bars, texts, padding=2, fontsize=7)
    axis.set_yticks(range(len(shown)), [shorten(classes[k], NAME_LENGTH) for k in shown])
    axis.invert_yaxis()
    axis.set(xlabel="videos of the class recognised (%)", ylabel="true class", xlim=(0, 108))
    axis.legend(loc="upper left", bbox_to_anchor=(1, 1))
    axis.set_title(_class_title(recall(total), classes, len(shown)))
    return figure


def recall(matrix: np.ndarray) -> np.ndarray:
    """Return the share of each class's videos that is recognised, percent; NaN without videos."""
    videos = matrix.sum(axis=1)
    share = np.full(len(matrix), np.nan)
    np.divide(100.0 * matrix.diagonal(), videos, out=share, where=videos > 0)
    return share


def _class_title(share: np.ndarray, classes: Sequence[str], shown: int) -> str:
    if np.isnan(share).all():
        return "No videos"
    worst, best = int(np.nanargmin(share)), int(np.nanargmax(share))
    title = f"Worst: {shorten(classes[worst], NAME_LENGTH)} ({share[worst]:.0f} %)"
    title += f", best: {shorten(classes[best], NAME_LENGTH)} ({share[best]:.0f} %)"
    if shown < len(classes):
        title += f"; the {shown} of {len(classes)} classes with the most mistakes"
    return title


@styled
def comparison_figure(pairs: Mapping[str, SplitResult]) -> Figure:
    """Show on how many videos of a list two runs are right and wrong.

    Args:
        pairs: Of the two runs, from `paired_results`.
    """
    names, (ours, other) = list(pairs), pairs.values()
    a, b = (result.scores.argmax(1) == result.labels for result in (ours, other))
    parts = (
        ("both right", a & b, RIGHT),
        (f"only {shorten(names[0], 30)}", a & ~b, BLUE),
        (f"only {shorten(names[1], 30)}", ~a & b, ORANGE),
        ("both wrong", ~a & ~b, GRAY),
    )
    figure, axis = plt.subplots(figsize=(8, 1.7), layout="constrained")
    left = 0
    for name, which, color in parts:
        count = int(which.sum())
        axis.barh([0], [count], left=left, color=color, label=name)
        if count > 0.03 * len(a):
            axis.text(left + count / 2, 0, count, ha="center", va="center", color="white")
        left += count
    same = 100 * (ours.scores.argmax(1) == other.scores.argmax(1)).mean()
    axis.set(yticks=[], xlabel="videos", xlim=(0, max(left, 1)))
    axis.legend(loc="upper left", bbox_to_anchor=(1, 1))
    axis.set_title(f"The two runs give the same class for {same:.0f} % of {len(a)} videos")
    return figure


def message_figure(text: str) -> Figure:
    """Return a figure that only says something, where there is nothing to draw."""
    figure, axis = plt.subplots(figsize=(8, 0.8))
    axis.axis("off")
    axis.text(0.5, 0.5, text, ha="center", va="center")
    return figure


def confident_mistakes(result: SplitResult) -> np.ndarray:
    """Return positions in the list of the mistakes, the most confident first; maybe none."""
    found = np.flatnonzero(result.scores.argmax(axis=1) != result.labels)
    return found[np.argsort(-result.probabilities[found].max(axis=1), kind="stable")]


def clip_tile(clip: Tensor | str, label: int, share: np.ndarray, classes: Sequence[str]) -> Tile:
    """Return a tile that names the predicted and, if it is another, the true class.

    Args:
        clip: The clip, or why there is none.
        label: True class.
        share: Probabilities (K,) of its classes.
        classes: Class names.
    """
    predicted = int(share.argmax())
    title = f"{shorten(classes[predicted], 14)} {100 * share[predicted]:.0f} %"
    if predicted != label:
        title += f" ← {shorten(classes[label], 12)}"
    return Tile(title, RIGHT if predicted == label else WRONG, clip)


def confusion_matrix(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return counts, shape (K, K): row the true class, column the predicted one."""
    matrix = np.zeros((scores.shape[1],) * 2, dtype=np.int64)
    np.add.at(matrix, (labels, scores.argmax(axis=1)), 1)
    return matrix


def matrices_of(results: Mapping[str, SplitResult]) -> dict[str, np.ndarray]:
    """Return the confusion matrix of each list."""
    return {name: confusion_matrix(r.scores, r.labels) for name, r in results.items()}


def mistakes(result: SplitResult, settings: TrainSettings, title: str) -> Figure:
    """Show the mistakes that the network was most sure of, a row each.

    Args:
        result: Of one list.
        settings: The run's, for its clips.
        title: Says what to see.
    """
    rows, classes = {}, result.dataset.classes
    for row, clip, label, share in _mistaken_clips(result, settings):
        best = int(share.argmax())
        name = result.dataset.record(row).name.split("/")[-1]
        rows[f"{classes[best]} ({100 * share[best]:.0f} %)\n← {classes[label]}\n{name}"] = clip
    return clip_rows(rows, title) if rows else message_figure(f"{title}: none")


def mistakes_movie(result: SplitResult, settings: TrainSettings) -> str:
    """Return HTML that plays the most confident mistakes on a list, predicted ← true class."""
    classes = result.dataset.classes
    tiles = [
        clip_tile(clip, label, share, classes)
        for _, clip, label, share in _mistaken_clips(result, settings)
    ]
    return tiles_html(tiles, "the most confident mistakes")


def _mistaken_clips(
    result: SplitResult, settings: TrainSettings
) -> Iterator[tuple[int, Tensor, int, np.ndarray]]:
    """Yield index row, clip, true class and probabilities (K,) of the mistakes."""
    clips, shares = CenterClips(result.dataset, settings), result.probabilities
    for position in confident_mistakes(result)[:MAX_MISTAKES]:
        row = int(result.rows[position])
        yield row, clips(row)[0], int(result.labels[position]), shares[position]


@styled
def top5_of_mistakes(pairs: Mapping[str, SplitResult], split_name: str) -> Figure:
    """Show the five most probable classes of the first run's most confident mistakes.

    A panel a video, a row a run.

    Args:
        pairs: Run name -> result on one list; from `paired_results`.
        split_name: The list.
    """
    result = next(iter(pairs.values()))
    found, classes = confident_mistakes(result), result.dataset.classes
    if not len(found):
        return message_figure(f"{split_name}: no mistakes")
    shown = found[:MAX_MISTAKES]
    truth = result.labels[shown]
    size = (2.9 * len(shown), 1.75 * len(pairs) + 0.5)
    figure, grid = plt.subplots(
        len(pairs), len(shown), figsize=size, squeeze=False, layout="constrained", sharex=True
    )
    for axes, (name, one) in zip(grid, pairs.items(), strict=True):
        for axis, row, label in zip(axes, one.probabilities[shown], truth, strict=True):
            best = np.argsort(-row)[:5]
            colors = [RIGHT if k == label else GRAY for k in best]
            axis.barh(range(len(best)), 100 * row[best], color=colors)
            axis.set_yticks(range(len(best)), [shorten(classes[k], 16) for k in best])
            axis.invert_yaxis()
            axis.set_xlim(0, 100)
            axis.set_title(f"true: {shorten(classes[label], 20)}", fontsize=9)
        axes[0].set_ylabel(shorten(name, 24), fontsize=9)
    figure.supxlabel("probability (%); green: the true class", fontsize=9)
    is_second = np.argsort(-result.scores[found], axis=1)[:, 1] == result.labels[found]
    figure.suptitle(
        f"{split_name}: in {is_second.sum()} of {len(found)} mistakes the true class comes "
        "second; the most confident mistakes"
    )
    return figure


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
        axis.margins(y=0.1)  # room for the numbers on the bars
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
