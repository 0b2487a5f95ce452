"""Figures of what is said of new videos."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from lib.evaluate.actor_background import DecidingClip
from lib.evaluate.calibration import Calibration
from lib.evaluate.invariance import PARTS
from lib.evaluate.predict import Prediction
from lib.fileio import write_atomic
from lib.plots.clips import clip_rows
from lib.plots.style import COLORS, GRAY, REPORT_WIDTH, shorten, styled

MAX_LINES = 6  # classes that get a line of their own


@styled
def timeline(prediction: Prediction, classes: tuple[str, ...]) -> Figure:
    """Draw the probabilities of the classes over the time of a video."""
    figure, axes = plt.subplots(figsize=(REPORT_WIDTH, 3), layout="constrained")
    order = np.argsort(-prediction.clips.max(axis=0), kind="stable")[:MAX_LINES]
    for number, label in enumerate(order):
        color = COLORS[number % len(COLORS)]
        name = shorten(classes[label], 30)
        axes.plot(prediction.seconds, prediction.clips[:, label], ".-", color=color, label=name)
    said = f"{shorten(classes[prediction.label], 30)} {100 * prediction.video.max():.0f} %"
    axes.set(ylim=(0, 1.02), ylabel="probability", title=f"{prediction.path.name}: {said}")
    axes.set_xlim(0, max(prediction.span, prediction.record.num_frames) / (prediction.fps or 1))
    axes.set_xlabel("middle of the clip, seconds" if prediction.fps else "frame")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def deciding_figure(
    prediction: Prediction, decided: Sequence[DecidingClip], classes: tuple[str, ...]
) -> Figure:
    """Show for each class that was seen the clip that speaks most for it, and its parts."""
    rows = {}
    for one in decided:
        name = shorten(classes[one.label], 20)
        rows[_row_name(name, one.shares[PARTS[0]][one.label], one.note)] = one.views[PARTS[0]]
        for part in [part for part in PARTS[1:] if part in one.shares]:
            best = int(one.shares[part].argmax())
            said = f"{name}, {part}:\n{shorten(classes[best], 20)}"
            rows[_row_name(said, one.shares[part][best])] = one.views[part]
    return clip_rows(rows, f"{prediction.path.name}: the clips that decided")


def _row_name(said: str, share: float, note: str = "") -> str:
    below = "\n".join(["", *textwrap.wrap(note, 28)])
    return f"{said} {100 * share:.0f} %{below}"


@styled
def reliability_figure(calibration: Calibration) -> Figure:
    """Draw how often the network is right where it is so sure, before and after calibration."""
    figure, axes = plt.subplots(figsize=(5, 4), layout="constrained")
    axes.plot([0, 1], [0, 1], color=GRAY, linewidth=1)
    names = ("as trained", f"divided by {calibration.temperature:.2f}")
    for name, part, color in zip(
        names, (calibration.before, calibration.after), COLORS, strict=False
    ):
        axes.plot(part[:, 0], part[:, 1], "o-", color=color, label=name)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="confidence", ylabel="share of right answers")
    axes.set_title(f"On the line confidence is earned ({calibration.videos} videos)")
    axes.legend(loc="upper left")
    return figure


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG and forget it."""
    write_atomic(path, lambda temporary: figure.savefig(temporary, dpi=110))
    plt.close(figure)
    return path
