"""Following a run while it is trained: a live view with a stop button, read from the run's folder.

The training is not in the view's hands: whoever opens a view of the same folder, in this notebook
after a reload or in another one, sees the same run and can stop it.
"""

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import pandas as pd
from IPython.display import HTML, display

from lib.config import TrainSettings
from lib.fileio import lock_owner
from lib.jupyter.html import FADED, escape, has_reader
from lib.plots.style import ACCURACY, VERMILLION
from lib.plots.training import curves_png
from lib.runs.run_dir import RunDir, RunStatus, format_duration, read_status
from lib.train.fit import fit

POLL_S = 1.0
DRAW_SHARE = 0.1  # of the time may go into drawing: the training may be in the same process
DRAW_WAIT_S = 5.0  # but that long a picture may be old
NAME = f"{FADED};font-size:85%"
TILE = "display:inline-block;min-width:7.5em;margin:0 1.2em .4em 0"
DONE_COLOR, FAILED_COLOR = ACCURACY, VERMILLION


class TrainingMonitor:
    """A live view of one run; `update` brings it up to date.

    Args:
        folder: The run's folder; it need not be there yet, and may be deleted.
    """

    def __init__(self, folder: str | Path):
        self.run = RunDir(folder)
        self.headline = widgets.HTML()
        self.bar = widgets.FloatProgress(
            value=0, min=0, max=1, layout=widgets.Layout(width="100%", height="14px")
        )
        self.stop = widgets.Button(
            description="Stop",
            icon="stop",
            tooltip="Save a checkpoint and end; running the cell again continues from there",
            disabled=True,
        )
        self.stop.on_click(self._ask_to_stop)
        self.numbers = widgets.HTML()
        self.curves = widgets.Image(
            format="png", layout=widgets.Layout(width="100%", max_width="990px")
        )
        self.error = widgets.HTML()
        top = widgets.HBox(
            [self.stop, self.headline], layout=widgets.Layout(align_items="center", grid_gap="12px")
        )
        self.widget = widgets.VBox([top, self.bar, self.numbers, self.curves, self.error])
        self._within: list[dict[str, Any]] = []  # points of the epoch that is not in the log yet
        self._drawn: object = None
        self._draw_next = 0.0
        self.is_starting = False  # somebody is about to train it: what the folder says is old
        self.state = self.update()

    def update(self) -> RunStatus:
        """Read the folder, show what it says, and return it."""
        state = read_status(self.run.folder)
        self.is_starting = self.is_starting and state.is_ended
        log = self._with_present_epoch(state)
        if self.is_starting:
            state = replace(state, phase="starting")
        elif self._within and state.phase in ("stopped", "failed"):
            state = replace(state, progress=self._within[-1])  # of an epoch that did not end
        self.state = state
        self.headline.value = headline(state, self.run)
        self.bar.value = state.share
        self.bar.style.bar_color = FAILED_COLOR if state.phase == "failed" else DONE_COLOR
        self.stop.disabled = state.phase not in ("training", "starting")
        self.stop.description = "Stopping …" if state.phase == "stopping" else "Stop"
        self.numbers.value = tiles(state)
        self.error.value = _error_html(state.error) if state.phase == "failed" else ""
        self._draw(state, log)
        return state

    async def follow(self) -> None:
        """Keep it up to date until the run ends."""
        while not self.update().is_ended:
            await asyncio.sleep(POLL_S)

    def _ask_to_stop(self, _: object = None) -> None:
        if read_status(self.run.folder).phase in ("training", "starting"):
            self.run.ask_to_stop()
        self.update()

    def _draw(self, state: RunStatus, log: pd.DataFrame) -> None:
        """Draw the curves if there is something new, and if there was not much drawing lately."""
        now = time.perf_counter()
        key = (len(state.log), len(self._within), state.phase == "missing")
        if key == self._drawn or (now < self._draw_next and not state.is_ended):
            return
        self.curves.value = curves_png(log) if len(log) else b""
        self._drawn = key
        self._draw_next = now + min((time.perf_counter() - now) / DRAW_SHARE, DRAW_WAIT_S)

    def _with_present_epoch(self, state: RunStatus) -> pd.DataFrame:
        """Return the log with points of the present epoch, at fractions of epochs."""
        progress = state.progress or {}
        logged = state.log[-1]["step"] if state.log else 0
        self._within = [point for point in self._within if point["step"] > logged]
        newest = self._within[-1]["step"] if self._within else logged
        if progress.get("step", 0) > newest:
            epoch = progress["step"] / progress["steps_per_epoch"]
            self._within.append(progress | {"epoch": epoch})
        return pd.DataFrame([*state.log, *self._within])


def headline(state: RunStatus, run: RunDir) -> str:
    """Return in a sentence how a run stands, as HTML."""
    begun = state.log[-1]["epoch"] + 1 if state.log else 1
    name = f"<b>{escape(run.name)}</b>"
    saved = "; there was no checkpoint yet, it starts again" if state.step is None else ""
    where = f"with {state.epoch} of {state.epochs} epochs saved"
    again = "run the training cell again to continue" + saved
    sentences = {
        "missing": f"there is no run in {escape(str(run.folder))} (not begun, or deleted)",
        "waiting": "nothing is trained yet",
        "starting": "the processes start, data and network are loaded …",
        "training": f"in epoch {min(begun, state.epochs)} of {state.epochs}",
        "stopping": "a checkpoint is saved at the end of the present steps, then it ends",
        "stopped": f"stopped {where}; {again}",
        "failed": f"failed {where}; its traceback is below",
        "finished": f"finished: {state.epochs} epochs",
    }
    return f"{name} {sentences[state.phase]}"


def tiles(state: RunStatus) -> str:
    """Return the newest numbers of a run, as HTML; what was not measured yet shows a dash."""
    latest, is_live = state.latest, not state.is_ended
    if state.phase == "missing" or not (latest or is_live):
        return ""
    entries = [
        ("loss", _number(latest.get("loss/total"), ".3f")),
        ("labelled", _number(latest.get("loss/labeled"), ".3f")),
    ]
    if "loss/unlabeled" in latest:
        entries += [
            ("unlabelled", _number(latest.get("loss/unlabeled"), ".3f")),
            ("confident", _number(latest.get("ssl/mask_rate"), ".0f", " %", 100)),
            ("of these right", _number(latest.get("ssl/pseudo_label_accuracy"), ".0f", " %", 100)),
        ]
    entries += [
        ("validation top-1", _number(latest.get("eval/top1_video"), ".1f", " %")),
        ("learning rate", _number(latest.get("lr"), ".3g")),
        ("clips/s", _number(latest.get("samples_per_s"), ".0f")),
        ("memory", _number(latest.get("memory_mb"), ".2f", " GB", 1e-3)),
    ]
    if is_live:
        left = (state.progress or {}).get("seconds_left")
        entries.append(("time left", "–" if left is None else format_duration(left)))
    cells = [
        f'<span style="{TILE}"><span style="{NAME}">{name}</span><br><b>{value}</b></span>'
        for name, value in entries
    ]
    return f'<div style="line-height:1.35">{"".join(cells)}</div>'


def _number(value: float | None, form: str, unit: str = "", scale: float = 1) -> str:
    return "–" if value is None else f"{value * scale:{form}}{unit}"


def _error_html(error: str) -> str:
    return (
        f'<pre style="border-left:4px solid {FAILED_COLOR};padding:.5em 1em;line-height:1.3;'
        f'font-size:85%;max-height:24em;overflow:auto">{escape(error)}</pre>'
    )


async def train(settings: TrainSettings) -> RunDir:
    """Train a run, or continue it, as `fit` does; in JupyterLab with a live view. Await it.

    The training is in another thread (its spawned processes, if any, in their own), so that the
    kernel answers the view's buttons and a reloaded page while the cell runs. If another process
    trains this run already, it is only followed, to its end.

    Args:
        settings: The run.

    Raises:
        ValueError: As `fit` does.
        KeyboardInterrupt: After a checkpoint was saved; the same call continues.
    """
    if not has_reader():
        return fit(settings)
    run = RunDir(settings.run_dir)
    if who := lock_owner(run.lock_path):
        return await _follow(run, settings, who)
    monitor = TrainingMonitor(run.folder)
    monitor.is_starting = True
    shown = display(monitor.widget, display_id=True)
    work = asyncio.ensure_future(asyncio.to_thread(fit, settings))
    try:
        while not work.done():
            monitor.update()
            await asyncio.wait([work], timeout=POLL_S)
        return work.result()
    except asyncio.CancelledError:
        print("interrupted: saving a checkpoint and ending (to end at once, restart the kernel)")
        while not work.done():
            run.ask_to_stop()  # again and again: a run that only starts removes an old one
            monitor.update()
            await asyncio.wait([work], timeout=POLL_S)
        raise KeyboardInterrupt from None
    finally:
        monitor.is_starting = False
        state = monitor.update()
        # The widget is gone with its kernel, but this stays in the saved notebook.
        shown.update(HTML(headline(state, run) + tiles(state)))


async def _follow(run: RunDir, settings: TrainSettings, who: str) -> RunDir:
    """Show a run that another process trains until it ends."""
    if differ := run.differences(settings):
        raise ValueError("\n  ".join([f"{run.folder} is trained with other settings:", *differ]))
    print(f"{run.folder} is trained by {who}: following it")
    monitor = TrainingMonitor(run.folder)
    display(monitor.widget)
    await monitor.follow()
    return run


def watch(folder: str | Path) -> None:
    """Show a run of any process in this notebook, up to date until it ends; returns at once.

    Args:
        folder: The run's folder.
    """
    monitor = TrainingMonitor(folder)
    display(monitor.widget)
    _watching.add(task := asyncio.ensure_future(monitor.follow()))
    task.add_done_callback(_watching.discard)


_watching: set[asyncio.Task] = set()  # the event loop itself does not keep them
