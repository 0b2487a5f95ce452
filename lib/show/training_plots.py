"""Pictures and tables of one run in training: its schedule before, its curves meanwhile."""

import io

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lib.config import TrainSettings
from lib.learn.schedule import count_steps, learning_rate, ramp_up
from lib.learn.setup import Data
from lib.run.folder import Run
from lib.show.evaluation_figures import message_figure
from lib.show.plots import learning_curves, read_log
from lib.show.style import LABELED, UNLABELED, styled


def curves_png(log: pd.DataFrame) -> bytes:
    """Return the learning curves of a log as a PNG."""
    figure = learning_curves(log)
    titles = ("Loss", "Pseudo-labels", "Top-1 accuracy")  # the numbers stand above the picture
    for axis, title in zip(figure.axes, titles, strict=True):
        axis.set_title("", loc="left")
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
        f"{settings.lr:g} to 0" + f", anew after {settings.restarts}" * bool(settings.restarts)
    )
    return figure


def curves(run: Run) -> Figure:
    """Show the learning curves of a run as far as it is; says so if there is nothing yet."""
    log = read_log(run)
    if len(log):
        return learning_curves(log)
    return message_figure("no epoch of this run has ended yet")


def validations(run: Run, count: int = 3) -> pd.DataFrame:
    """Return the last entries of the log that were validated, a column each; maybe none."""
    log = read_log(run)
    if "eval/top1_video" not in log:
        return pd.DataFrame(index=pd.Index([], name="not validated yet"))
    return log.dropna(subset=["eval/top1_video"]).tail(count).set_index("epoch").T
