"""Live view of a run: progress, curves and a stop button.

The monitor only reads the run's folder, so that any notebook can open a view of it, also after a
reload; closing a view does not affect the training.
"""

import asyncio
import io
import time
from dataclasses import replace
from pathlib import Path

import ipywidgets as widgets
import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import HTML, display

from lib.config import TrainSettings
from lib.fileio import lock_owner
from lib.jupyter.html import FADED, error_html, is_interactive, render
from lib.plots.style import ACCURACY, VERMILLION
from lib.plots.training import plot_learning_curves
from lib.runs.progress import LOG_COLUMNS
from lib.runs.run_dir import RunDir, RunStatus, differences, format_duration, read_status
from lib.train.fit import fit

POLL_S = 1.0
DRAW_SHARE = 0.1  # fraction of the time for drawing: the training may be in the same process
MAX_DRAW_WAIT_S = 5.0  # longest time between two pictures
OPTIONAL = ("loss/unlabeled", "ssl/mask_rate", "ssl/pseudo_label_accuracy")  # semi-supervised only
NUMBERS = (
    "loss/total", "loss/labeled", *OPTIONAL, "eval/top1_video", "lr", "samples_per_s", "memory_mb",
)  # fmt: skip
HEADLINES = {  # phase of a run: sentence
    "missing": "there is no run in {{ run.folder }} (not started, or deleted)",
    "waiting": "nothing is trained yet",
    "starting": "starts the processes, loads data and network …",
    "training": "in epoch {{ epoch }} of {{ s.epochs }}",
    "stopping": "saves a checkpoint after the present step, then ends",
    "stopped": "stopped with {{ s.epoch }} of {{ s.epochs }} epochs saved; run the training cell "
    "again to continue{% if s.step is none %}; without a checkpoint, it starts again{% endif %}",
    "failed": "failed with {{ s.epoch }} of {{ s.epochs }} epochs saved; its traceback is below",
    "finished": "finished: {{ s.epochs }} epochs",
}
TABLE = """\
<div style="line-height:1.35">{% for name, value in numbers.items() -%}
<span style="display:inline-block;min-width:5.5em;margin:0 .9em .4em 0">
<span style="{{ faded }};font-size:85%">{{ name }}</span><br><b>{{ value }}</b></span>
{%- endfor %}</div>
"""


class TrainingMonitor:
    """Live view of one run; `update` brings it up to date.

    Args:
        folder: Folder of the run; it may be missing.

    Attributes:
        is_starting: Set before `fit` starts, while the folder has the state of an earlier training.
        status: The status at the last update.
    """

    def __init__(self, folder: str | Path):
        self.run = RunDir(folder)
        self.headline, self.numbers, self.error = widgets.HTML(), widgets.HTML(), widgets.HTML()
        layout = widgets.Layout(width="100%", height="14px")
        self.bar = widgets.FloatProgress(value=0, min=0, max=1, layout=layout)
        tooltip = "Save a checkpoint and end; running the cell again continues from there"
        self.stop = widgets.Button(icon="stop", tooltip=tooltip)
        self.stop.on_click(self._request_stop)
        layout = widgets.Layout(width="100%", max_width="990px")
        self.curves = widgets.Image(format="png", layout=layout)
        layout = widgets.Layout(align_items="center", grid_gap="12px")
        top = widgets.HBox([self.stop, self.headline], layout=layout)
        self.widget = widgets.VBox([top, self.bar, self.numbers, self.curves, self.error])
        self._drawn: object = None
        self._draw_next = 0.0
        self.is_starting = False
        self.status = self.update()

    def update(self) -> RunStatus:
        """Read the folder, show its state, and return it."""
        status = read_status(self.run.folder)
        self.is_starting = self.is_starting and status.is_ended
        if self.is_starting:
            status = replace(status, phase="starting")
        self.status, has_failed = status, status.phase == "failed"
        self.headline.value, self.numbers.value = headline(status, self.run), numbers_html(status)
        self.bar.value = status.share
        self.bar.style.bar_color = VERMILLION if has_failed else ACCURACY
        self.error.value = error_html(status.error) if has_failed else ""
        self.stop.disabled = status.phase not in ("training", "starting")
        self.stop.description = "Stopping …" if status.phase == "stopping" else "Stop"
        self._draw(status)
        return status

    async def follow(self) -> None:
        """Update the view until the run ends."""
        while not self.update().is_ended:
            await asyncio.sleep(POLL_S)

    def _request_stop(self, _: object) -> None:
        if read_status(self.run.folder).phase in ("training", "starting"):
            self.run.ask_to_stop()
        self.update()

    def _draw(self, status: RunStatus) -> None:
        """Draw the curves if there is something new and the last picture is old enough."""
        now = time.perf_counter()
        key = len(status.log), status.phase == "missing"
        if key == self._drawn or (now < self._draw_next and not status.is_ended):
            return
        self.curves.value = curves_png(pd.DataFrame(status.log)) if status.log else b""
        self.curves.layout.display = "block" if status.log else "none"
        self._drawn = key
        self._draw_next = now + min((time.perf_counter() - now) / DRAW_SHARE, MAX_DRAW_WAIT_S)


def headline(status: RunStatus, run: RunDir) -> str:
    """Return the status of a run as a sentence, as HTML."""
    epoch = min(status.log[-1]["epoch"] + 1 if status.log else 1, status.epochs)
    template = "<b>{{ run.name }}</b> " + HEADLINES[status.phase]
    return render(template, run=run, s=status, epoch=epoch)


def numbers_html(status: RunStatus) -> str:
    """Return the latest numbers of a run as HTML; a dash for what was not measured yet."""
    latest = status.latest
    if status.phase == "missing" or (status.is_ended and not latest):
        return ""
    hidden = () if "loss/unlabeled" in latest else OPTIONAL
    columns = {key: LOG_COLUMNS[key] for key in NUMBERS if key not in hidden}
    numbers = {column.label: column.text(latest.get(key)) for key, column in columns.items()}
    if not status.is_ended:
        left = latest.get("seconds_left")
        numbers["time left"] = "–" if left is None else format_duration(left)
    return render(TABLE, numbers=numbers, faded=FADED)


def curves_png(log: pd.DataFrame) -> bytes:
    """Return the learning curves as a PNG, without the numbers that the monitor shows above it."""
    figure, buffer = plot_learning_curves(log, with_values=False), io.BytesIO()
    plt.setp(figure.axes, xlim=(0, None))
    figure.savefig(buffer, format="png", dpi=90)
    plt.close(figure)
    return buffer.getvalue()


async def train(settings: TrainSettings) -> RunDir:
    """Train or continue a run like `fit`; in JupyterLab with a live view.

    `fit` runs in another thread, so that the kernel handles the buttons of the view and a reloaded
    page. A run that another process trains is followed until it ends.

    Raises:
        ValueError: As `fit` does.
        KeyboardInterrupt: After a checkpoint was saved; the same call continues.
    """
    if not is_interactive():
        return fit(settings)
    run = RunDir(settings.run_dir)
    owner = lock_owner(run.lock_path)
    if owner and (changes := differences(run.settings(), settings)):
        message = f"{run.folder} is trained with other settings:"
        raise ValueError("\n  ".join([message, *changes]))
    monitor = TrainingMonitor(run.folder)
    if owner:
        print(f"{run.folder} is trained by {owner}: following it")
        display(monitor.widget)
        await monitor.follow()
        return run
    monitor.is_starting = True
    output = display(monitor.widget, display_id=True)
    work = asyncio.ensure_future(asyncio.to_thread(fit, settings))
    try:
        while not work.done():
            monitor.update()
            await asyncio.wait([work], timeout=POLL_S)
        return work.result()
    except asyncio.CancelledError:
        print("interrupted: saving a checkpoint and ending (to end at once, restart the kernel)")
        while not work.done():
            run.ask_to_stop()  # repeatedly: a run that only starts removes an old request
            monitor.update()
            await asyncio.wait([work], timeout=POLL_S)
        raise KeyboardInterrupt from None
    finally:
        monitor.is_starting = False
        status = monitor.update()
        # The widget ends with its kernel; this stays in the saved notebook.
        output.update(HTML(headline(status, run) + numbers_html(status)))


def watch(folder: str | Path) -> None:
    """Show a live view of a run folder until the run ends; return at once."""
    monitor = TrainingMonitor(folder)
    display(monitor.widget)
    _watching.add(task := asyncio.ensure_future(monitor.follow()))
    task.add_done_callback(_watching.discard)


_watching: set[asyncio.Task] = set()  # the event loop itself does not keep its tasks
