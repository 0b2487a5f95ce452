"""Figures of training: the schedule before it, learning curves during and after it."""

from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lib.config import TrainSettings
from lib.plots.panels import Line, LinePanel, line_panels, message_figure
from lib.plots.style import ACCURACY, COLORS, LABELED, RATE, REPORT_WIDTH, UNLABELED
from lib.runs.progress import LOG_COLUMNS
from lib.train.schedule import learning_rate, ramp_up

PERCENT = (0, 102)  # limits of an axis
CURVES = {  # title: name of the y-axis, its limits, keys with colors, keys in the title
    "Loss": (
        "cross-entropy (nats)",
        None,
        {"loss/labeled": LABELED, "loss/unlabeled": UNLABELED, "loss/distillation": RATE},
        ["loss/total"],
    ),
    "Pseudo-labels": (
        "fraction of clips (%)",
        PERCENT,
        {"ssl/mask_rate": RATE, "ssl/pseudo_label_accuracy": ACCURACY},
        ["ssl/mask_rate", "ssl/pseudo_label_accuracy"],
    ),
    "Top-1": (
        "correct (%)",
        PERCENT,
        {"train/top1_clip": LABELED, "eval/top1_video": ACCURACY},
        ["eval/top1_video"],
    ),
}


def plot_learning_curves(log: pd.DataFrame, with_values: bool = True) -> Figure:
    """Show losses, pseudo-labels and validation accuracy of a run over its epochs.

    Args:
        log: One row an epoch, one column an entry of the log.
        with_values: Put the last values into the titles.
    """
    if not len(log):
        return message_figure("no epoch of this run has ended yet")
    panels = []
    for title, (ylabel, ylim, colors, in_title) in CURVES.items():
        lines = [_line(log, key, color) for key, color in colors.items() if key in log]
        ends = [LOG_COLUMNS[key].labeled(_last(log, key)) for key in in_title if _has(log, key)]
        if with_values:
            title = ", ".join(ends) or f"{title}: nothing logged"
        panels.append(LinePanel(lines, "epoch", ylabel, title, ylim))
    figure = line_panels(panels, (11, 3.4))
    for axis in figure.axes:
        axis.xaxis.get_major_locator().set_params(integer=True)
    return figure


def _line(log: pd.DataFrame, key: str, color: str) -> Line:
    points, column = log[["epoch", key]].dropna(), LOG_COLUMNS[key]
    return Line(points["epoch"], column.scale * points[key].astype(float), color, column.label)


def _has(log: pd.DataFrame, key: str) -> bool:
    return key in log and log[key].notna().any()


def _last(log: pd.DataFrame, key: str) -> float:
    return float(log[key].dropna().iloc[-1])


def plot_schedule(settings: TrainSettings, steps_per_epoch: int) -> Figure:
    """Show the learning rate and the weight of the unlabeled loss over the epochs to come."""
    count = settings.epochs * steps_per_epoch
    steps = np.unique(np.linspace(0, count - 1, min(count, 1000)).astype(int))
    curves = [("learning rate", LABELED, lambda k: learning_rate(k, steps_per_epoch, settings))]
    if settings.is_semi_supervised:
        weight = settings.unlabeled_weight
        rampup_steps = settings.unlabeled_rampup_epochs * steps_per_epoch
        ramp = (
            "unlabeled weight",
            UNLABELED,
            lambda k: ramp_up(weight, k, rampup_steps),
        )
        curves.append(ramp)
    panels = []
    for name, color, value_at in curves:
        values = [value_at(int(step)) for step in steps]
        line = Line(steps / steps_per_epoch, values, color)
        panels.append(LinePanel([line], "epoch", name, ylim=(0, 1.08 * max(*values, 1e-12))))
    figure = line_panels(panels, (5.5 * len(panels), 2.6))
    figure.suptitle(
        f"{settings.epochs} epochs of {steps_per_epoch} steps, warm-up to epoch "
        f"{settings.warmup_epochs:g}, restarts after epochs {settings.lr_restart_epochs or 'none'}"
    )
    return figure


def validation_table(log: pd.DataFrame, count: int = 3) -> pd.DataFrame:
    """Return the last validated epochs of a log, one column each; may be empty."""
    if "eval/top1_video" not in log:
        return pd.DataFrame(index=pd.Index([], name="not validated yet"))
    return log.dropna(subset=["eval/top1_video"]).tail(count).set_index("epoch").T


def plot_validation_curves(logs: Mapping[str, Sequence[pd.DataFrame]]) -> Figure:
    """Show the validation accuracy of several runs over their training time.

    Args:
        logs: Group of runs -> their logs; runs of one group have one color.
    """
    key, lines = "eval/top1_video", []
    for (group, logs_of_group), color in zip(logs.items(), cycle(COLORS), strict=False):
        points = [log[["seconds", key]].dropna() for log in logs_of_group if _has(log, key)]
        labels = [group, *[None] * len(points)]  # once in the legend
        lines += [
            Line(part["seconds"] / 60, part[key], color, label)
            for part, label in zip(points, labels, strict=False)
        ]
    title = "" if lines else "No run was validated yet"
    xlabel = "training time (minutes)"
    panel = LinePanel(lines, xlabel, "validation top-1 (%)", title, PERCENT)
    return line_panels([panel], (REPORT_WIDTH, 3.8))
