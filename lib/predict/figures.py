"""Figures of what is said of new videos."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from lib.predict.calibration import Calibration
from lib.predict.predict import Classifier, Prediction, clip_of, deciding_clips, open_video
from lib.show.plots import clip_rows
from lib.show.style import COLORS, GRAY, REPORT_WIDTH, shorten, styled

MOST_LINES = 6  # classes that get a line of their own


@styled
def timeline(prediction: Prediction, classes: tuple[str, ...]) -> Figure:
    """Draw the probabilities of the classes over the time of a video."""
    figure, axes = plt.subplots(figsize=(REPORT_WIDTH, 3), layout="constrained")
    order = np.argsort(-prediction.clips.max(axis=0), kind="stable")[:MOST_LINES]
    for number, label in enumerate(order):
        color = COLORS[number % len(COLORS)]
        name = shorten(classes[label], 30)
        axes.plot(prediction.seconds, prediction.clips[:, label], ".-", color=color, label=name)
    best = int(prediction.video.argmax())
    said = f"{shorten(classes[best], 30)} {100 * prediction.video[best]:.0f} %"
    axes.set(ylim=(0, 1.02), ylabel="probability", title=f"{prediction.path.name}: {said}")
    axes.set_xlabel("middle of the clip, seconds" if prediction.fps else "frame")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def deciding_figure(classifier: Classifier, prediction: Prediction) -> Figure:
    """Show for each class that was seen the clip that speaks most for it."""
    record, rows = open_video(prediction.path)[0], {}
    for label, position in deciding_clips(prediction).items():
        share = 100 * prediction.clips[position, label]
        name = f"{shorten(classifier.classes[label], 20)}\n{share:.0f} %"
        rows[name] = clip_of(classifier, record, prediction.starts[position : position + 1])[0]
    return clip_rows(rows, f"{prediction.path.name}: the clips that decided")


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
