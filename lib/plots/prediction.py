"""Figures of the predictions on single videos."""

import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from lib.evaluate.calibration import Calibration
from lib.evaluate.clip_regions import ClipRegions
from lib.evaluate.new_videos import Prediction
from lib.fileio import write_atomic
from lib.plots.clips import clip_rows
from lib.plots.style import GRAY, REPORT_WIDTH, shorten, styled

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
    title = f"{shorten(classes[prediction.label], 30)} {100 * prediction.video.max():.0f} %"
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
            rows[f"{name}, {region}:\n{_best(regions, region, classes)}"] = regions.clips[region]
    return clip_rows(rows, f"{prediction.record.path.name}: the most confident clip of each class")


def regions_figure(regions: ClipRegions, classes: tuple[str, ...], label: int) -> Figure:
    """Show a clip of class `label`, its actor and its background alone, with the predictions."""
    rows = {f"{name}\n{_best(regions, name, classes)}": c for name, c in regions.clips.items()}
    title = f"Predictions on the regions of a clip of {shorten(classes[label], 30)}"
    return clip_rows(rows, "; ".join(filter(None, [title, regions.note])))


def _best(regions: ClipRegions, region: str, classes: tuple[str, ...]) -> str:
    share = regions.probabilities[region]
    return f"{shorten(classes[int(share.argmax())], 20)} {100 * share.max():.0f} %"


@styled
def reliability_figure(calibration: Calibration) -> Figure:
    """Draw the accuracy over the confidence, before and after calibration."""
    figure, axes = plt.subplots(figsize=(5, 4), layout="constrained")
    axes.plot([0, 1], [0, 1], color=GRAY, linewidth=1)
    name = f"divided by {calibration.temperature:.2f}"
    for label, curve in (("as trained", calibration.before), (name, calibration.after)):
        axes.plot(curve[:, 0], curve[:, 1], "o-", label=label)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="confidence", ylabel="accuracy")
    axes.set_title(f"Calibrated confidence is on the line ({calibration.videos} videos)")
    axes.legend(loc="upper left")
    return figure


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG and close it."""
    write_atomic(path, lambda temporary: figure.savefig(temporary, dpi=110))
    plt.close(figure)
    return path
