"""Pictures and tables of training: a run's schedule before it, its curves meanwhile and after."""

import io
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.config import TrainSettings
from lib.evaluate.run_results import group_of, read_log
from lib.plots.evaluation import message_figure
from lib.plots.style import ACCURACY, COLORS, LABELED, RATE, REPORT_WIDTH, UNLABELED, styled
from lib.runs.run_dir import RunDir
from lib.train.schedule import count_steps, learning_rate, ramp_up
from lib.train.setup import Data


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


def curves_png(log: pd.DataFrame) -> bytes:
    """Return the learning curves of a log as a PNG."""
    figure = learning_curves(log)
    titles = ("Loss", "Pseudo-labels", "Top-1 accuracy")  # the numbers stand above the picture
    for axis, title in zip(figure.axes, titles, strict=True):
        axis.set_title(title)
        axis.set_xlim(left=0)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    plt.close(figure)
    return buffer.getvalue()


@styled
def schedule(settings: TrainSettings, data: Data) -> Figure:
    """Show the learning rate and the weight of the unlabelled loss over the epochs to come."""
    steps = count_steps(len(data.epoch_rows(settings)), settings)
    count = settings.epochs * steps
    shown = np.unique(np.linspace(0, count - 1, min(count, 1000)).astype(int))
    panels = [("learning rate", LABELED, [learning_rate(int(k), steps, settings) for k in shown])]
    if settings.is_semi_supervised:
        weights = [ramp_up(settings.unlabeled_weight, int(k), steps, settings) for k in shown]
        panels.append(("unlabelled weight", UNLABELED, weights))
    size = (5.5 * len(panels), 2.4)
    figure, grid = plt.subplots(1, len(panels), figsize=size, squeeze=False, layout="constrained")
    for axis, (name, color, values) in zip(grid[0], panels, strict=True):
        axis.plot(shown / steps, values, color=color)
        axis.set(xlabel="epoch", ylabel=name, ylim=(0, 1.08 * max(*values, 1e-12)))
        axis.grid()
    warmup = f"warm-up to epoch {settings.warmup_epochs:g}, then " * (settings.warmup_epochs > 0)
    figure.suptitle(
        f"{settings.epochs} epochs of {steps} steps; {warmup}the learning rate falls from "
        f"{settings.lr:g} to 0"
        + f", anew after {settings.lr_restart_epochs}"
        * bool(settings.lr_restart_epochs)
    )
    return figure


def curves(run: RunDir) -> Figure:
    """Show the learning curves of a run as far as it is; says so if there is nothing yet."""
    log = read_log(run)
    if len(log):
        return learning_curves(log)
    return message_figure("no epoch of this run has ended yet")


def validations(run: RunDir, count: int = 3) -> pd.DataFrame:
    """Return the last entries of the log that were validated, a column each; maybe none."""
    log = read_log(run)
    if "eval/top1_video" not in log:
        return pd.DataFrame(index=pd.Index([], name="not validated yet"))
    return log.dropna(subset=["eval/top1_video"]).tail(count).set_index("epoch").T


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
