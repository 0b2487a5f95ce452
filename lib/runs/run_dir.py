"""A run on disk: its folder, settings, log, checkpoints and status.

params.yaml       all settings; next to it copies of the files that they name
environment.json  versions, devices, commit and everything that affects numerical results
log.jsonl         one JSON object per epoch, also sent to `tracker`
progress.json     during training: the position within the epoch
checkpoints/      the two newest, each enough to continue bit for bit, and best.pt
stop              request to save a checkpoint and end
error.txt         the traceback of the process that failed first
metrics.json      the test result (notebook 4)
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lib.config import TrainSettings, project_path
from lib.fileio import lock_owner, parse_json_object, read_json, reading, write_text
from lib.models.transformers_video import description_files
from lib.params import make_settings, read_yaml
from lib.registry import did_you_mean, find_file, map_own_names
from lib.runs import checkpoint
from lib.runs.environment import environment

# Settings that may change when a run is continued: they do not affect its numbers.
FREE_SETTINGS = {
    "run_dir", "prepared_dir", "frame_cache_mb", "num_workers", "tracker",
    "checkpoint_every_minutes", "cudnn_benchmark", "channels_last",
}  # fmt: skip
ROOTS = ("videos_dir", "unlabeled_videos_dir")  # may change if the earlier folder does not exist
METRICS = ("top1", "top5", "mean_class_accuracy", "videos")  # of a split, in `metrics.json`

Which = Literal["last", "best"]  # checkpoint: the newest one, that of the best validation


class RunDir:
    """The folder of one run; a relative path is relative to the project's root."""

    def __init__(self, folder: str | Path):
        self.folder = project_path(folder)
        if os.path.isfile(self.folder):
            raise ValueError(f"run_dir: {self.folder} is a file; choose another folder")
        self.name = self.folder.name
        self.params_path = self.folder / "params.yaml"
        self.log_path = self.folder / "log.jsonl"
        self.checkpoint_dir = self.folder / "checkpoints"
        self.best_path = self.checkpoint_dir / "best.pt"
        self.environment_path = self.folder / "environment.json"
        self.metrics_path = self.folder / "metrics.json"
        self.stop_path = self.folder / "stop"
        self.progress_path = self.folder / "progress.json"
        self.error_path = self.folder / "error.txt"
        self.lock_path = self.folder / ".train.lock"

    def check_compatible(self, settings: TrainSettings, data_digest: str | None = None) -> None:
        """Raise ValueError if the folder holds a run that these settings do not continue.

        `data_digest` is of its videos and labels; None skips their comparison.
        """
        problems = []
        if self.params_path.exists():
            problems = differences(self.settings(), settings)
        if not problems and self.saved_progress() is not None:
            state = self.load()
            before = self._make_settings(state["settings"], self.checkpoint_dir)
            problems = differences(before, settings)
            if data_digest not in (None, state["data"]):
                problems.append("videos_dir has other videos, splits or labels than before")
        if problems:
            first = f"{self.folder}: holds a run with other settings or data:"
            remedy = "choose another run_dir, or delete that folder"
            raise ValueError("\n  ".join([first, *problems, remedy]))

    def start(self, settings: TrainSettings, num_processes: int = 1) -> None:
        """Write the settings and the environment of a run that begins or continues.

        Deletes what earlier processes left. If a run is extended, its test result is renamed. Files
        that the settings name are copied into the folder.
        """
        for path in self.checkpoint_dir.glob(".*.pt"):  # half-written by a killed process
            path.unlink()
        if self.params_path.exists() and self.metrics_path.exists():
            epochs = self.settings().epochs
            if epochs != settings.epochs:
                self.metrics_path.rename(self.folder / f"metrics_{epochs}_epochs.json")
        for path in own_files(settings.model_dump()):
            write_text(self.folder / path.name, path.read_text(encoding="utf-8"))
        write_text(self.params_path, settings.as_yaml())
        if not self.is_finished():
            write_text(self.environment_path, json.dumps(environment(num_processes), indent=1))
        for path in (self.stop_path, self.progress_path, self.error_path):
            path.unlink(missing_ok=True)

    def check_exists(self) -> None:
        """Raise FileNotFoundError if the folder was deleted, or its disk removed, meanwhile."""
        if not self.folder.is_dir():
            raise FileNotFoundError(
                f"{self.folder}: deleted during training, or its disk is gone; start the run again"
            )

    def ask_to_stop(self) -> None:
        """Ask the processes that train the run to save a checkpoint and end."""
        self.stop_path.touch()

    def settings(self) -> TrainSettings:
        """Return the run's settings; a setting that is missing in `params.yaml` has its default."""
        if not self.params_path.is_file():
            others = [path.parent.name for path in self.folder.parent.glob("*/params.yaml")]
            remedy = f"; train it with notebooks/3_train.ipynb and run_dir = {str(self.folder)!r}"
            hint = did_you_mean(self.name, others) or remedy
            raise ValueError(f"{self.folder}: no run here (no params.yaml){hint}")
        return self._make_settings(read_yaml(self.params_path), self.params_path)

    def _make_settings(self, values: Mapping[str, Any], source: Path) -> TrainSettings:
        """Return settings whose names in files of the user are of this folder's copies."""

        def copied(file: str, name: str) -> str:
            copy = self.folder / Path(file).name
            return f"{copy if copy.is_file() else file}:{name}"

        return make_settings(TrainSettings, map_own_names(values, copied), str(source))

    def environment(self) -> dict[str, Any]:
        """Return the environment in which the run was trained; empty if the file is missing."""
        if not self.environment_path.exists():
            return {}
        return read_json(self.environment_path, "delete that file, it is only shown in reports")

    def append_log(self, entry: dict[str, Any]) -> None:
        """Add one entry to the log."""
        self.check_exists()
        with open(self.log_path, "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def truncate_log(self, epoch: int) -> None:
        """Delete the entries after an epoch, which a continued run writes again."""
        kept = [entry for entry in self.log_entries() if entry["epoch"] <= epoch]
        write_text(self.log_path, "".join(json.dumps(entry) + "\n" for entry in kept))

    def log_entries(self) -> list[dict[str, Any]]:
        """Return the log's complete entries, oldest first; empty before the first epoch."""
        if not self.log_path.exists():
            return []
        entries = []
        for number, line in enumerate(self.log_path.read_bytes().splitlines(keepends=True), 1):
            if line.endswith(b"\n"):  # else half-written
                with reading(f"{self.log_path}, line {number}", "delete that line"):
                    entries.append(parse_json_object(line))
                    _require_numbers(entries[-1], ("epoch", "step"))
        return entries

    def checkpoint_path(self, which: Which = "last") -> Path:
        """Return the newest checkpoint, or that of the best validation; ValueError without one."""
        newest = checkpoint.list_checkpoints(self.checkpoint_dir)[:1]
        paths = newest if which == "last" else [self.best_path]
        if not any(path.is_file() for path in paths):
            remedy = "train the run first (notebooks/3_train.ipynb)"
            raise ValueError(f"{self.checkpoint_dir}: no {which} checkpoint; {remedy}")
        return paths[0]

    def save(self, state: dict[str, Any], which: Which = "last") -> None:
        """Write a checkpoint: the newest one of the run, or that of the best validation."""
        if which == "best":
            checkpoint.write_checkpoint(self.best_path, state)
        else:
            checkpoint.save_newest(self.checkpoint_dir, state)

    def load(self, which: Which = "last") -> dict[str, Any]:
        """Read a checkpoint; errors as in `checkpoint_path` and `read_checkpoint`."""
        return checkpoint.read_checkpoint(self.checkpoint_path(which))

    def saved_progress(self) -> checkpoint.Progress | None:
        """Return steps and complete epochs of the newest checkpoint, None if there is none."""
        newest = checkpoint.list_checkpoints(self.checkpoint_dir)
        return checkpoint.read_progress(newest[0]) if newest else None

    def is_finished(self) -> bool:
        """Return True if a checkpoint of the last epoch is saved."""
        progress = self.saved_progress()
        return progress is not None and progress.epoch >= self.settings().epochs


def differences(before: TrainSettings, settings: TrainSettings) -> list[str]:
    """Return the changes of settings that affect numbers, one a line.

    A run may be extended: its old `epochs` becomes another entry of `lr_restart_epochs`, so that
    the trained part stays valid.
    """
    old, new = (map_own_names(s.model_dump(), _with_digest) for s in (before, settings))
    ends = [*before.lr_restart_epochs, before.epochs]
    if settings.lr_restart_epochs[: len(ends)] == ends:
        old |= {"lr_restart_epochs": settings.lr_restart_epochs, "epochs": settings.epochs}
    lines = [
        f"{name}: {old[name]!r} there, {new[name]!r} here"
        for name in new
        if name not in FREE_SETTINGS and old[name] != new[name]
        if not name.startswith("test_")  # a finished run may be tested again
        if not (name in ROOTS and is_gone(old[name]))
    ]
    if new["epochs"] > old["epochs"]:
        lines.append(f"to train it longer, set lr_restart_epochs to {ends} as well")
    return lines


def _with_digest(file: str, name: str) -> str:
    path = find_file(file)
    return f"{path.name}:{name} (SHA-256 {hashlib.sha256(path.read_bytes()).hexdigest()[:12]})"


def own_files(values: dict[str, Any]) -> list[Path]:
    """Return the files that values of settings name: the user's, and those of the network."""
    files: list[str] = []
    map_own_names(values, lambda file, name: files.append(file) or file)
    return [*map(find_file, dict.fromkeys(files)), *description_files(values["model"])]


def is_gone(root: str | None) -> bool:
    """Return True for a folder that does not exist, so that its content may have moved."""
    return root is not None and not project_path(root).exists()


Phase = Literal[
    "missing", "waiting", "starting", "training", "stopping", "stopped", "failed", "finished"
]


@dataclass(frozen=True)
class RunStatus:
    """The status of a run at one moment, as its folder shows it."""

    # `missing`: no run, or not readable; `waiting`: not started; `stopped`: no process trains it
    # and epochs are missing.
    phase: Phase
    epochs: int = 0  # of the whole run; 0 if it is missing
    epoch: int = 0  # complete ones in the newest checkpoint, as `step`
    step: int | None = None
    log: tuple[dict[str, Any], ...] = ()
    progress: dict[str, Any] = field(default_factory=dict)  # `progress.json` during training
    error: str = ""  # traceback of a failed process, or the problem of an unreadable run
    lock_owner: str = ""  # the process that trains it
    is_tested: bool = False

    @property
    def latest(self) -> dict[str, Any]:
        """The newest value of each logged quantity."""
        values: dict[str, Any] = {}
        for entry in (*self.log, self.progress):
            values |= entry
        return values

    @property
    def is_ended(self) -> bool:
        """True if no process trains the run."""
        return self.phase in ("missing", "stopped", "failed", "finished")

    @property
    def share(self) -> float:
        """Share of the training that is done, in [0, 1]; unsaved steps count during training."""
        if self.progress:
            return self.progress["step"] / self.progress["last_step"]
        epoch = self.log[-1]["epoch"] if self.log and self.lock_owner else self.epoch
        return min(1.0, epoch / self.epochs) if self.epochs else 0.0


def read_status(folder: str | Path) -> RunStatus:
    """Return the status of a run; a folder that is missing or changes meanwhile is no error."""
    run = None
    try:
        run = RunDir(folder)
        epochs, log = run.settings().epochs, tuple(run.log_entries())
    except (ValueError, OSError) as error:
        is_empty = run is not None and not run.params_path.exists()
        return RunStatus("missing", error="" if is_empty else str(error))
    step, epoch = run.saved_progress() or (None, 0)
    owner = lock_owner(run.lock_path) or ""
    progress = _read_progress_file(run.progress_path) if owner else {}
    error = ""
    with suppress(OSError):
        error = run.error_path.read_text(encoding="utf-8", errors="replace")
    phase = "training" if progress else "starting"
    if not owner:
        phase = _phase_at_rest(epoch >= epochs, error, step, log)
    elif run.stop_path.exists():
        phase = "stopping"
    is_tested = run.metrics_path.is_file()
    return RunStatus(phase, epochs, epoch, step, log, progress, error, owner, is_tested)


def _phase_at_rest(is_complete: bool, error: str, step: int | None, log: Sequence) -> Phase:
    if is_complete:
        return "finished"
    if error:
        return "failed"
    return "stopped" if step or log else "waiting"


def _read_progress_file(path: Path) -> dict[str, Any]:
    with suppress(ValueError):  # missing or damaged: it is soon written again
        progress = read_json(path, "")
        _require_numbers(progress, ("step", "last_step"))
        return progress
    return {}


def read_result(run: RunDir) -> dict[str, Any]:
    """Return the test result of a run; ValueError if it is missing or damaged."""
    remedy = f"test the run again (notebooks/4_evaluate.ipynb, run_dir = {str(run.folder)!r})"
    results = read_json(run.metrics_path, remedy)
    with reading(run.metrics_path, remedy):
        _require_numbers({"labels": results["labels"]}, ("labels",))
        if not results["splits"]:
            raise ValueError("splits is empty")
        for values in results["splits"].values():
            _require_numbers(values, METRICS)
    return results


def _require_numbers(values: Mapping[str, Any], required: Sequence[str]) -> None:
    """Raise ValueError unless all values are numbers or None, and the required ones numbers."""
    for name in {*required, *values}:
        value = values.get(name)
        if not isinstance(value, int | float) and (value is not None or name in required):
            raise ValueError(f"{name!r} is not a number")


def group_of(run_name: str) -> str:
    """Return the name of a run without its seed: runs of one group differ only in the seed."""
    return run_name.rsplit("_seed", 1)[0]


def format_runs(count: int) -> str:
    """Return `1 run`, `2 runs`."""
    return "1 run" if count == 1 else f"{count} runs"


def format_duration(seconds: float) -> str:
    """Return a duration as `m:ss min` or `h h mm min`."""
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d} min"
    return f"{minutes // 60} h {minutes % 60:02d} min"
