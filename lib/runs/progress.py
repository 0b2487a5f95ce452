"""Progress of a run for people: `progress.json`, printed lines, TensorBoard events."""

import json
import shutil
import time
from contextlib import suppress
from typing import Any, NamedTuple

from lib.fileio import write_text
from lib.runs.run_dir import RunDir, format_duration

WRITE_INTERVAL_S = 2.0


class LogColumn(NamedTuple):
    """Label, number format, unit (with a space in front) and scale of an entry of the log."""

    label: str
    format: str
    unit: str = ""
    scale: float = 1

    def text(self, value: float | None) -> str:
        """Return a value with its unit; a dash if there is none."""
        return "–" if value is None else f"{value * self.scale:{self.format}}{self.unit}"

    def labeled(self, value: float | None) -> str:
        """Return the label and the value with its unit."""
        return f"{self.label} {self.text(value)}"


LOG_COLUMNS = {
    "loss/total": LogColumn("loss", ".3f"),
    "loss/labeled": LogColumn("labeled", ".3f"),
    "loss/unlabeled": LogColumn("unlabeled", ".3f"),
    "loss/distillation": LogColumn("distillation", ".3f"),
    "ssl/mask_rate": LogColumn("confident", ".0f", " %", 100),
    "ssl/pseudo_label_accuracy": LogColumn("of these right", ".0f", " %", 100),
    "train/top1_clip": LogColumn("labeled clips", ".0f", " %", 100),
    "eval/top1_video": LogColumn("validation top-1", ".1f", " %"),
    "eval/top1_cross_validated": LogColumn("cross-validated top-1", ".1f", " %"),
    "lr": LogColumn("learning rate", ".3g"),
    "samples_per_s": LogColumn("clips/s", ".0f"),
    "memory_mb": LogColumn("memory", ".2f", " GB", 1e-3),
}
PRINTED = (
    "loss/total", "ssl/mask_rate", "ssl/pseudo_label_accuracy", "eval/top1_video", "samples_per_s",
)  # fmt: skip


class ProgressFile:
    """Writer of `progress.json`, the position of a run within its epoch, in optimizer steps."""

    def __init__(self, run: RunDir, step: int, last_step: int, steps_per_epoch: int):
        self.run, self.first_step = run, step
        self.last_step, self.steps_per_epoch = last_step, steps_per_epoch
        self.started = time.perf_counter()
        self.written: float | None = None

    def is_due(self) -> bool:
        """Return True if the file is older than two seconds."""
        return self.written is None or time.perf_counter() - self.written > WRITE_INTERVAL_S

    def write(
        self, step: int, lr: float, samples_per_s: float, means: dict[str, float | None]
    ) -> None:
        """Write the state after a step, ignoring errors; `means` are of this process and epoch."""
        self.written = time.perf_counter()
        per_step = (self.written - self.started) / max(1, step - self.first_step)
        state = {
            "step": step,
            "last_step": self.last_step,
            "steps_per_epoch": self.steps_per_epoch,
            "lr": lr,
            "samples_per_s": round(samples_per_s, 1),
            "seconds_left": round(per_step * (self.last_step - step), 1),
        }
        with suppress(OSError):
            self.run.check_exists()  # a deleted folder must not be created again
            write_text(self.run.progress_path, json.dumps(state | means) + "\n")


class LogPrinter:
    """Printer of one line per validated epoch, read from the log of a run of `epochs` epochs."""

    def __init__(self, run: RunDir, epochs: int):
        self.run, self.epochs = run, epochs
        entries = run.log_entries()
        self.num_printed = len(entries)
        self.first_epoch = entries[-1]["epoch"] if entries else 0
        self.started = time.perf_counter()
        self.is_stopping = False

    def update(self) -> None:
        """Print new entries and a new stop request; files that cannot be read are skipped."""
        with suppress(OSError, ValueError):
            entries = self.run.log_entries()
            for entry in entries[self.num_printed :]:
                if "eval/top1_video" in entry:
                    print(self._line(entry), flush=True)
            self.num_printed = len(entries)
        if not self.is_stopping and self.run.stop_path.exists():
            self.is_stopping = True
            print("stopping: saving a checkpoint (interrupt again to end at once)", flush=True)

    def _line(self, entry: dict[str, Any]) -> str:
        columns = [LOG_COLUMNS[key].labeled(entry[key]) for key in PRINTED if key in entry]
        if num_trained := entry["epoch"] - self.first_epoch:
            elapsed = time.perf_counter() - self.started
            left = elapsed / num_trained * (self.epochs - entry["epoch"])
            columns.append(f"{format_duration(left)} left")
        return " | ".join([f"epoch {entry['epoch']}/{self.epochs}", *columns])


class EventWriter:
    """Writer of TensorBoard events, in `tensorboard/` of a run; starts with the existing log."""

    def __init__(self, run: RunDir):
        from torch.utils.tensorboard import SummaryWriter

        shutil.rmtree(run.folder / "tensorboard", ignore_errors=True)
        self.writer = SummaryWriter(str(run.folder / "tensorboard"))
        for entry in run.log_entries():
            self.add(entry)

    def add(self, entry: dict[str, Any]) -> None:
        """Write one entry of the log, at its step."""
        for name, value in entry.items():
            if name != "step" and value is not None:
                self.writer.add_scalar(name, value, entry["step"])
        self.writer.flush()
