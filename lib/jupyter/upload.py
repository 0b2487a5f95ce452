"""A new video in JupyterLab: upload it, or name its file, and see what is said of it."""

import base64
import hashlib
import re
from collections.abc import Callable
from pathlib import Path

import ipywidgets as widgets
from IPython.display import display

from lib.config import project_path
from lib.evaluate.predict import Classifier, check_finished, load_classifier, open_video, remarks
from lib.evaluate.prediction_report import TO_SEE, Answer, answer
from lib.fileio import write_atomic
from lib.jupyter.html import escape, has_reader, wrapping
from lib.prepare.own_folder import VIDEO_SUFFIXES
from lib.runs.run_dir import RunDir

MAX_MB = 9  # a message from the page to the kernel holds 10 MiB, in Jupyter as it is
NAME_LENGTH = 40  # characters of the uploader's name that are kept
SUFFIXES = ", ".join(sorted(VIDEO_SUFFIXES))
HELP = (
    f"A video of at most {MAX_MB} MB ({SUFFIXES}). A larger one never reaches the kernel, and the "
    "button then does nothing more: run this cell again, put the video into JupyterLab's file "
    "browser on the left, and give its path here."
)


def safe_name(given: str, content: bytes) -> str:
    """Return a file name made of what is harmless in a given one, and of the content.

    Args:
        given: What the browser says that the file is called; anything.
        content: Of the file.

    Raises:
        ValueError: If it does not end like a video.
    """
    suffix = Path(given).suffix.lower()
    if suffix not in VIDEO_SUFFIXES:
        raise ValueError(f"{given}: not a video; its name must end in one of {SUFFIXES}")
    stem = re.sub(r"[^A-Za-z0-9]+", "_", Path(given).stem).strip("_")[:NAME_LENGTH]
    return f"{stem or 'video'}_{hashlib.sha256(content).hexdigest()[:8]}{suffix}"


class UploadView:
    """Takes one video at a time and shows its classes over time and the clips that decided.

    Args:
        run: A finished run.

    Attributes:
        widget: What is shown.
        folder: Where uploads and figures are written.
    """

    def __init__(self, run: RunDir):
        self.run, self.folder = run, run.folder / "predictions" / "uploads"
        self._classifier: Classifier | None = None
        self.upload = widgets.FileUpload(
            accept=",".join(sorted(VIDEO_SUFFIXES)), description="upload a video"
        )
        self.path = widgets.Text(placeholder="or the path of a video on this machine")
        self.go = widgets.Button(description="predict", icon="play")
        self.upload.layout.width, self.path.layout.width = "170px", "340px"
        self.upload.observe(lambda _: self._uploaded(), names="value")
        self.go.on_click(lambda _: self._show(lambda: project_path(self.path.value.strip())))
        self.said, self.figures = widgets.HTML(), widgets.HTML()
        controls = widgets.HBox([self.upload, self.path, self.go], layout=wrapping())
        words = widgets.HTML(_text(HELP))
        self.widget = widgets.VBox([words, controls, self.said, self.figures])

    def _uploaded(self) -> None:
        if self.upload.value:
            file = self.upload.value[0]
            self._show(lambda: self.keep(file["name"], bytes(file["content"])))
            self.upload.value = ()  # the same file may come again, and no notebook keeps it

    def keep(self, name: str, content: bytes) -> Path:
        """Write an upload under a safe name and return its path.

        Raises:
            ValueError: If it is too large, or does not end like a video.
            OSError: If it cannot be written.
        """
        if len(content) > MAX_MB * 1e6:
            raise ValueError(f"{name}: {len(content) / 1e6:.0f} MB, more than {MAX_MB} MB")
        path = self.folder / safe_name(name, content)
        return write_atomic(path, lambda temporary: temporary.write_bytes(content))

    def _show(self, find: Callable[[], Path]) -> None:
        """Predict the video that `find` returns the path of; what fails is said in a sentence."""
        self.figures.value, self.said.value = "", _text("opening the video …")
        self.upload.disabled = self.go.disabled = True
        try:
            self._predict(find())
        except (ValueError, OSError, RuntimeError) as error:
            self.said.value = _text(escape(error), "alert")
        finally:
            self.upload.disabled = self.go.disabled = False

    def _predict(self, path: Path) -> None:
        video = open_video(path)
        if self._classifier is None:
            self._classifier = load_classifier(self.run)
        notes = "".join(f"<br>{escape(text)}" for text in remarks(self._classifier, [video]))
        self.said.value = _text(f"predicting …{notes}")
        found = answer(self._classifier, video, self.folder / path.stem)
        self.said.value = _text(sentence_html(found, self._classifier.classes) + notes)
        self.figures.value = figures_html(found)


def sentence_html(found: Answer, classes: tuple[str, ...]) -> str:
    """Return what is said of a video in a few words; names are escaped."""
    video, parts = found.prediction.video, found.parts
    first, second = (-video).argsort(kind="stable")[:2]
    sure = [f"{escape(classes[k])} {100 * video[k]:.0f} %" for k in (first, second)]
    where = f"in {len(found.prediction.starts):,} clips of {escape(found.prediction.path.name)}"
    alone = [
        f"{part} alone: {escape(parts[f'{part}_only'])} "
        f"{100 * parts[f'{part}_only_confidence']:.0f} %"
        for part in ("actor", "background")
        if parts[f"{part}_only"]
    ]
    rest = "; ".join(alone) or f"actor and background alone: none, {escape(parts['parts_note'])}"
    return f"<b>{sure[0]}</b>, then {sure[1]}, {where}; {rest}."


def figures_html(found: Answer) -> str:
    """Return the figures, each below what to see in it."""
    over_time = "Each line is a class over time: where another one is on top, the answer changes."
    shown = ((over_time, "timeline", found.timeline), (TO_SEE, "deciding clips", found.clips))
    return "".join(
        f'{_text(text)}<img alt="{name} of the video" style="max-width:100%"'
        f' src="data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}">'
        for text, name, path in shown
    )


def _text(html: str, role: str = "status") -> str:
    return f'<div role="{role}" style="line-height:1.5;margin:6px 0">{html}</div>'


def show_upload(run: RunDir) -> None:
    """Show the place for a new video where somebody can use it; elsewhere nothing.

    A run that is not finished says how far it is.
    """
    if not has_reader():
        return
    try:
        check_finished(run)
    except ValueError as error:
        print(error)
        return
    display(UploadView(run).widget)
