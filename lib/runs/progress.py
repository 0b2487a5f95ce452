"""Progress of a run: means over an epoch, `progress.json`, printed lines."""

import json
import resource
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lib.fileio import write_text
from lib.runs.distributed import DistContext
from lib.runs.run_dir import RunDir, format_duration

WRITE_INTERVAL_S = 2.0
ALONE = DistContext(0, 1, torch.device("cpu"))  # for means over the steps of one process


class Meter:
    """Sums of the statistics of an epoch's steps; the means over all processes are exact."""

    def __init__(self):
        self.sums: dict[str, Tensor] = {}  # name -> (sum, count)
        self.clips = 0  # of these steps, over all processes
        self._seconds_before, self._started = 0.0, time.perf_counter()

    def seconds(self) -> float:
        """Return the training time since the epoch began, without pauses between two starts."""
        return self._seconds_before + time.perf_counter() - self._started

    def state_dict(self) -> dict[str, Any]:
        """Return the content for a checkpoint within the epoch."""
        sums = {name: value.cpu() for name, value in self.sums.items()}
        return {"sums": sums, "clips": self.clips, "seconds": self.seconds()}

    def load(
        self, states: list[dict[str, Any]], device: torch.device, is_counted: bool = True
    ) -> None:
        """Continue with the sums of one or of several processes, by the `state_dict()` of each.

        Without `is_counted`, only the names are registered: another process holds the sums.
        """
        for state in states:
            sums = {name: value.to(device) for name, value in state["sums"].items()}
            self.update(sums, is_counted)
            self.clips, self._seconds_before = state["clips"], state["seconds"]

    def update(self, stats: Mapping[str, Iterable[Tensor]], is_counted: bool = True) -> None:
        """Add (sum, count) per name, or zeros for a step that was skipped."""
        for name, pair in stats.items():
            value = torch.stack([part.float() for part in pair])
            value = value if is_counted else torch.zeros_like(value)
            self.sums[name] = value + self.sums[name].to(value) if name in self.sums else value

    def means(self, world: DistContext) -> dict[str, float | None]:
        """Return sum / count per name over all processes; None where nothing was counted."""
        if not self.sums:
            return {}
        sums = [value.to(world.device) for value in self.sums.values()]  # a probe's are on the CPU
        table = world.all_reduce(torch.stack(sums)).cpu().tolist()
        return {
            name: total / count if count else None
            for name, (total, count) in zip(self.sums, table, strict=True)
        }


def peak_memory_mb(device: torch.device) -> int:
    """Return the peak memory of this process in MB: of its GPU, else of the process itself."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 1e6)
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes elsewhere
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6)


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

    def __init__(self, run: RunDir, step: int, last_step: int):
        self.run, self.first_step, self.last_step = run, step, last_step
        self.started = time.perf_counter()
        self.written: float | None = None

    def update(self, step: int, lr: float, meter: Meter) -> None:
        """Write the state after a step, every two seconds; means of this process, no errors."""
        now = time.perf_counter()
        if self.written is not None and now - self.written <= WRITE_INTERVAL_S:
            return
        self.written = now
        per_step = (self.written - self.started) / max(1, step - self.first_step)
        state = {
            "step": step,
            "last_step": self.last_step,
            "lr": lr,
            "samples_per_s": round(meter.clips / meter.seconds(), 1),
            "seconds_left": round(per_step * (self.last_step - step), 1),
        }
        with suppress(OSError):
            self.run.check_exists()  # a deleted folder must not be created again
            write_text(self.run.progress_path, json.dumps(state | meter.means(ALONE)) + "\n")


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
