"""A run on disk: a folder that explains itself.

params.yaml       the settings, resolved
environment.json  versions, devices, commit and everything that affects numerical results
log.jsonl         one JSON object per epoch; with `tensorboard`, as events in tensorboard/ too
progress.json     during training: the position within the epoch
checkpoints/      the two newest, named by their progress, and best.pt; the newest is enough to
                  continue bit for bit
stop              request to save a checkpoint and end
error.txt         the traceback of the process that failed first
metrics.json      the test result (notebook 4)
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lib.config import TrainSettings, project_path
from lib.fileio import lock_owner, parse_json_object, read_json, reading, write_text
from lib.params import make_settings, read_yaml
from lib.runs.checkpoint import (
    Progress,
    list_checkpoints,
    read_checkpoint,
    read_progress,
    restore_newest,
    save_newest,
    write_checkpoint,
)
from lib.runs.environment import environment, numerics_summary

# Settings that may change when a run is continued: they do not affect its numbers.
FREE_SETTINGS = {
    "run_dir", "prepared_dir", "frame_cache_mb", "num_workers", "tensorboard",
    "checkpoint_every_minutes", "cudnn_benchmark", "channels_last",
}  # fmt: skip
ROOTS = ("videos_dir", "unlabeled_videos_dir")  # may change if the earlier folder does not exist
METRICS = ("top1", "top5", "mean_class_accuracy", "videos")  # of a split, in `metrics.json`

Which = Literal["last", "best"]  # checkpoint: the newest one, that of the best validation


class RunDir:
    """The folder of one run.

    Args:
        folder: A path; a relative one is relative to the project's root.
    """

    def __init__(self, folder: str | Path):
        self.folder = project_path(folder)
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

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    def check_compatible(self, settings: TrainSettings, data_digest: str | None = None) -> None:
        """Check that the folder holds no run, or one that these settings and data continue.

        Damaged checkpoints are deleted if an earlier one can be read.

        Args:
            settings: The settings of the run.
            data_digest: Digest of its videos and labels; None skips their comparison.

        Raises:
            ValueError: If it holds another run; names the differences and the remedy.
        """
        if self.params_path.exists():
            self._raise_mismatch("settings", self.differences(settings))
        state = restore_newest(self.checkpoint_dir)
        if state is None:
            return
        self._raise_mismatch("settings", differences(state["settings"], settings))
        if data_digest is not None and data_digest != state["data"]:
            problem = "videos_dir has other videos, splits or labels than it was trained on"
            self._raise_mismatch("data", [problem])

    def _raise_mismatch(self, kind: str, problems: Sequence[str]) -> None:
        if problems:
            first = f"{self.folder}: holds a run with other {kind}:"
            remedy = "choose another run_dir, or delete that folder"
            raise ValueError("\n  ".join([first, *problems, remedy]))

    def start(self, settings: TrainSettings, num_processes: int = 1) -> None:
        """Write the settings and the environment of a run that begins or continues.

        Deletes what earlier processes left. If a run is extended, its test result is renamed.

        Args:
            settings: The settings of the run.
            num_processes: Number of training processes.
        """
        for path in self.checkpoint_dir.glob(".*.pt"):  # half-written by a killed process
            path.unlink()
        if self.params_path.exists() and self.metrics_path.exists():
            epochs = self.settings().epochs
            if epochs != settings.epochs:
                self.metrics_path.rename(self.folder / f"metrics_{epochs}_epochs.json")
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

    def is_asked_to_stop(self) -> bool:
        """Return True if the run is asked to end."""
        return self.stop_path.exists()

    def settings(self) -> TrainSettings:
        """Return the run's settings.

        Raises:
            ValueError: If there is no run here, or a setting that affects its numbers is missing.
        """
        if not self.params_path.is_file():
            raise ValueError(
                f"{self.folder}: no run here (no params.yaml); train it with "
                f"notebooks/3_train.ipynb and run_dir = {str(self.folder)!r}"
            )
        values = read_yaml(self.params_path)
        if missing := TrainSettings.model_fields.keys() - FREE_SETTINGS - values.keys():
            raise ValueError(
                f"{self.params_path}: damaged, no line for {', '.join(sorted(missing))}; restore "
                "the values that it was trained with (see its recipe), or delete the run folder"
            )
        return make_settings(TrainSettings, values, str(self.params_path))

    def differences(self, settings: TrainSettings) -> list[str]:
        """Return how other settings differ from the run's where it affects numbers, one a line."""
        return differences(self.settings().model_dump(), settings)

    def environment(self) -> dict[str, Any]:
        """Return the environment in which the run was trained; empty if the file is missing.

        Raises:
            ValueError: If the file is damaged; names it and the remedy.
        """
        if not self.environment_path.exists():
            return {}
        remedy = "delete that file, it is only shown in reports"
        values = read_json(self.environment_path, remedy)
        with reading(self.environment_path, remedy):
            numerics_summary(values)
            if not isinstance(values.get("gpus", []), list):
                raise ValueError("gpus is not a list")
        return values

    def append_log(self, entry: dict[str, Any]) -> None:
        """Add one entry to the log."""
        self.check_exists()
        with open(self.log_path, "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
            file.flush()

    def truncate_log(self, epoch: int) -> None:
        """Delete the entries after an epoch, which a continued run writes again."""
        kept = [entry for entry in self.log_entries() if entry["epoch"] <= epoch]
        write_text(self.log_path, "".join(json.dumps(entry) + "\n" for entry in kept))

    def log_entries(self) -> list[dict[str, Any]]:
        """Return the log's complete entries, oldest first; empty before the first epoch.

        Raises:
            ValueError: If a line is damaged; names the file, the line and the remedy.
        """
        if not self.log_path.exists():
            return []
        remedy = "delete that line, or delete the run folder and train it again"
        entries = []
        for number, line in enumerate(self.log_path.read_bytes().splitlines(keepends=True), 1):
            if line.endswith(b"\n"):  # else half-written
                with reading(f"{self.log_path}, line {number}", remedy):
                    entry = parse_json_object(line)
                    _require_numbers(entry, ("epoch", "step"))
                entries.append(entry)
        return entries

    def checkpoint_path(self, which: Which = "last") -> Path:
        """Return the newest checkpoint, or that of the best validation.

        Raises:
            ValueError: If there is none.
        """
        newest = list_checkpoints(self.checkpoint_dir)[:1]
        paths = newest if which == "last" else [self.best_path]
        if not any(path.is_file() for path in paths):
            remedy = "train the run first (notebooks/3_train.ipynb)"
            raise ValueError(f"{self.checkpoint_dir}: no {which} checkpoint; {remedy}")
        return paths[0]

    def save(self, state: dict[str, Any], which: Which = "last") -> None:
        """Write a checkpoint: the newest one of the run, or that of the best validation."""
        if which == "best":
            write_checkpoint(self.best_path, state)
        else:
            save_newest(self.checkpoint_dir, state)

    def load(self, which: Which = "last") -> dict[str, Any]:
        """Read a checkpoint; errors as in `checkpoint_path` and `read_checkpoint`."""
        return read_checkpoint(self.checkpoint_path(which))

    def saved_progress(self) -> Progress | None:
        """Return steps and complete epochs of the newest checkpoint, None if there is none."""
        newest = list_checkpoints(self.checkpoint_dir)
        return read_progress(newest[0]) if newest else None

    def is_finished(self) -> bool:
        """Return True if a checkpoint of the last epoch is saved."""
        progress = self.saved_progress()
        return progress is not None and progress.epoch >= self.settings().epochs


def differences(before: Mapping[str, Any], settings: TrainSettings) -> list[str]:
    """Return how settings differ from earlier ones where it affects numbers, one a line.

    A run may be extended: its old `epochs` becomes another entry of `lr_restart_epochs`, so that
    what was trained stays valid.
    """
    now, before = settings.model_dump(), dict(before)
    ends = [*before["lr_restart_epochs"], before["epochs"]]
    if now["lr_restart_epochs"][: len(ends)] == ends:
        before |= {"lr_restart_epochs": now["lr_restart_epochs"], "epochs": now["epochs"]}
    lines = [
        f"{name}: {before[name]!r} there, {now[name]!r} here"
        for name in now
        if name not in FREE_SETTINGS and before[name] != now[name]
        if not name.startswith("test_")  # a finished run may be tested again
        if not (name in ROOTS and is_gone(before[name]))
    ]
    if now["epochs"] > before["epochs"]:
        lines.append(f"to train it longer, set lr_restart_epochs to {ends} as well")
    return lines


def is_gone(root: str | None) -> bool:
    """Return True for a folder that does not exist, so that its content may have moved."""
    return root is not None and not project_path(root).exists()


Phase = Literal[
    "missing", "waiting", "starting", "training", "stopping", "stopped", "failed", "finished"
]


@dataclass(frozen=True)
class RunStatus:
    """The status of a run at one moment, as its folder shows it.

    Attributes:
        phase: `missing`: no run, or not readable; `waiting`: not started; `stopped`: no process
            trains it and epochs are missing.
        epochs: Epochs of the whole run; 0 if it is missing.
        epoch: Complete epochs in the newest checkpoint.
        step: Optimizer steps in the newest checkpoint; None if there is none.
        log: Entries of the log, one an epoch.
        progress: Content of `progress.json` during training, else empty.
        error: The traceback of a failed process; for a missing run, what cannot be read.
        lock_owner: The process that trains it; empty if none does.
        is_tested: True if it has a test result.
    """

    phase: Phase
    epochs: int = 0
    epoch: int = 0
    step: int | None = None
    log: tuple[dict[str, Any], ...] = ()
    progress: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    lock_owner: str = ""
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
    run = RunDir(folder)
    try:
        epochs, log = run.settings().epochs, tuple(run.log_entries())
    except (ValueError, OSError) as error:
        return RunStatus("missing", error=str(error) if run.params_path.exists() else "")
    step, epoch = run.saved_progress() or (None, 0)
    owner = lock_owner(run.lock_path) or ""
    progress = _read_progress_file(run.progress_path) if owner else {}
    error = ""
    with suppress(OSError):
        error = run.error_path.read_text(encoding="utf-8", errors="replace")
    if not owner:
        phase = _phase_at_rest(epoch >= epochs, bool(error), bool(step or log))
    elif run.is_asked_to_stop():
        phase = "stopping"
    else:
        phase = "training" if progress else "starting"
    is_tested = run.metrics_path.is_file()
    return RunStatus(phase, epochs, epoch, step, log, progress, error, owner, is_tested)


def _phase_at_rest(is_complete: bool, has_error: bool, is_begun: bool) -> Phase:
    if is_complete:
        return "finished"
    if has_error:
        return "failed"
    return "stopped" if is_begun else "waiting"


def _read_progress_file(path: Path) -> dict[str, Any]:
    """Return the content of `progress.json`; empty if missing or damaged: it is soon rewritten."""
    with suppress(ValueError):
        progress = read_json(path, "")
        _require_numbers(progress, ("step", "last_step"))
        return progress
    return {}


def read_result(run: RunDir) -> dict[str, Any]:
    """Return the test result of a run.

    Raises:
        ValueError: If it is missing or damaged; names the file and the remedy.
    """
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


def format_duration(seconds: float) -> str:
    """Return a duration as `m:ss min` or `h h mm min`."""
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d} min"
    return f"{minutes // 60} h {minutes % 60:02d} min"
