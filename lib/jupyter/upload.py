"""Upload of a new video in JupyterLab, and its prediction."""

import base64
import hashlib
import re
from collections.abc import Callable
from pathlib import Path

import ipywidgets as widgets
from IPython.display import display

from lib.config import project_path
from lib.evaluate.new_videos import open_video, remarks
from lib.evaluate.trained_model import TrainedModel, check_finished
from lib.fileio import write_atomic
from lib.jupyter.html import error_html, is_interactive, render, wrapping
from lib.plots.evaluation import best_class
from lib.predict import REGIONS_HELP, report_video
from lib.prepare.find_videos import VIDEO_SUFFIXES
from lib.runs.run_dir import RunDir

MAX_MB = 9  # Jupyter's default limit of a message from the page to the kernel is 10 MiB
NAME_LENGTH = 40  # characters of the uploaded name that are kept
SUFFIXES = ", ".join(sorted(VIDEO_SUFFIXES))
HELP = (
    f"A video of at most {MAX_MB} MB ({SUFFIXES}). A larger one does not reach the kernel, and the "
    "button has no effect then: run this cell again, put the video into JupyterLab's file browser "
    "on the left, and enter its path here."
)
ANSWER = """\
<b>{{ best }}</b> in {{ prediction.starts | length }} clips of {{ prediction.record.path.name }}
{% for remark in remarks %}<br>{{ remark }}{% endfor %}
<p>Each line is a class over time; the predicted class is on top.</p>
<img alt="timeline of the video" style="max-width:100%" src="data:image/png;base64,{{ timeline }}">
<p>{{ regions }}</p>
<img alt="deciding clips of the video" style="max-width:100%"
src="data:image/png;base64,{{ clips }}">"""


def safe_name(name: str, content: bytes) -> str:
    """Return a file name of harmless characters of an uploaded name and a hash of the content."""
    suffix = Path(name).suffix.lower()
    if suffix not in VIDEO_SUFFIXES:
        raise ValueError(f"{name}: not a video; its name must end in one of {SUFFIXES}")
    stem = re.sub(r"[^A-Za-z0-9]+", "_", Path(name).stem).strip("_")[:NAME_LENGTH]
    return f"{stem or 'video'}_{hashlib.sha256(content).hexdigest()[:8]}{suffix}"


class UploadView:
    """An upload button and a path field for one video at a time, with the prediction below.

    `folder` gets the uploads and figures.
    """

    def __init__(self, run: RunDir):
        self.run, self.folder = run, run.folder / "predictions" / "uploads"
        self._model: TrainedModel | None = None
        self.upload = widgets.FileUpload(accept=SUFFIXES, description="upload a video")
        self.path = widgets.Text(placeholder="or the path of a video on this machine")
        self.go = widgets.Button(description="predict", icon="play")
        self.upload.layout.width, self.path.layout.width = "170px", "340px"
        self.upload.observe(self._on_upload, names="value")
        self.go.on_click(lambda _: self._show(lambda: project_path(self.path.value.strip())))
        self.path.observe(self._enable, names="value")
        self.answer = widgets.HTML()
        controls = widgets.HBox([self.upload, self.path, self.go], layout=wrapping())
        self.widget = widgets.VBox([widgets.HTML(HELP), controls, self.answer])
        self._enable()

    def _enable(self, _: object = None) -> None:
        self.upload.disabled, self.go.disabled = False, not self.path.value.strip()

    def _on_upload(self, _: object) -> None:
        if self.upload.value:
            file = self.upload.value[0]
            self._show(lambda: self.save(file["name"], bytes(file["content"])))
            self.upload.value = ()  # accepts the same file again, and keeps it out of the notebook

    def save(self, name: str, content: bytes) -> Path:
        """Write an upload under a safe name and return its path."""
        if len(content) > MAX_MB * 1e6:
            raise ValueError(f"{name}: {len(content) / 1e6:.0f} MB, more than {MAX_MB} MB")
        path = self.folder / safe_name(name, content)
        return write_atomic(path, lambda temporary: temporary.write_bytes(content))

    def _show(self, get_path: Callable[[], Path]) -> None:
        """Show the prediction of the video at the path that `get_path` returns, or its error."""
        self.answer.value, self.upload.disabled, self.go.disabled = "predicting …", True, True
        try:
            path = get_path()
            video = open_video(path)
            self._model = self._model or TrainedModel.load(self.run)
            prediction, *figures = report_video(self._model, video, self.folder / path.stem)
            timeline, clips = (base64.b64encode(file.read_bytes()).decode() for file in figures)
            self.answer.value = render(
                ANSWER,
                prediction=prediction,
                best=best_class(prediction.video, self._model.classes, 60),
                remarks=remarks(self._model.protocol.span, [video]),
                regions=REGIONS_HELP,
                timeline=timeline,
                clips=clips,
            )
        except (ValueError, OSError, RuntimeError) as error:
            self.answer.value = error_html(error)
        finally:
            self._enable()


def show_upload(run: RunDir) -> None:
    """Show the upload in JupyterLab, or why the run cannot predict; nothing in batch execution."""
    if is_interactive():
        try:
            check_finished(run)
            display(UploadView(run).widget)
        except ValueError as error:
            print(error)
