"""A run on disk: a folder that explains itself.

params.yaml       the settings, resolved
environment.json  versions, devices, commit, what decides how the machine computes
log.jsonl         one JSON object an epoch; with `tensorboard`, as events in tensorboard/ too
progress.json     while it is trained: where it is between the lines of its log
last.pt, best.pt  checkpoints; `last.pt` is enough to continue exactly
last.previous.pt  the checkpoint before `last.pt`, should that be damaged
stop              there if the run is asked to save a checkpoint and end
error.txt         the traceback of the process that failed first, if one did
metrics.json      the test result (notebook 4)
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lib.config import TrainSettings, project_path
from lib.fileio import check_numbers, lock_owner, parse_json, read_json, reading, write_text
from lib.params import make_settings, read_yaml
from lib.runs.checkpoint import (
    how_far,
    previous_path,
    read_checkpoint,
    restore_checkpoint,
    write_checkpoint,
)
from lib.runs.environment import arithmetic, environment

# Settings that came later, each with a default that is what runs did before, or they are refused.
LATER_SETTINGS = {"threshold_momentum", "soft_targets", "soft_target_weight", "ema_decay", "tf32"}
LATER_SETTINGS |= {"ema_teacher", "tsm_fraction", "temporal_std_pooling", "joint_forward"}
LATER_SETTINGS |= {
    "freeze_fraction",
    "freeze_batch_norm",
    "head_init",
    "probe_l2",
    "self_training_rounds",
    "lr_restart_epochs",
}
RENAMED_SETTINGS = {"actor_min_score": "person_min_score"}  # earlier name: today's

# Settings that may differ when a run is continued: they do not change what is computed.
FREE_SETTINGS = {
    "run_dir",
    "prepared_dir",
    "frame_cache_mb",
    "num_workers",
    "tensorboard",
}
FREE_SETTINGS |= {"checkpoint_every_minutes", "cudnn_benchmark", "channels_last"}
ROOTS = ("videos_dir", "unlabeled_videos_dir")  # may differ too where the earlier one is gone


class RunDir:
    """The folder of one run.

    Args:
        folder: A path; a relative one is relative to the project's root.
    """

    def __init__(self, folder: str | Path):
        self.folder = project_path(folder)
        self.params_path = self.folder / "params.yaml"
        self.log_path = self.folder / "log.jsonl"
        self.last_path = self.folder / "last.pt"
        self.best_path = self.folder / "best.pt"
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

    def open(self, settings: TrainSettings, num_processes: int = 1, data: str = "") -> None:
        """Make the folder, or check that it holds a run of the same settings and data.

        Args:
            settings: Those of the run.
            num_processes: Processes that train it, for `environment.json`.
            data: Tells its videos and labels from others; empty: they are not compared.

        Raises:
            ValueError: If it holds another run; names what differs and the remedy.
        """
        was = self.settings() if self.params_path.exists() else settings
        self._refuse(differences(was.model_dump(), settings), "holds a run of other settings")
        self._prepare_checkpoints(settings, data)
        if was.epochs != settings.epochs and self.metrics_path.exists():  # it is trained longer
            self.metrics_path.rename(self.folder / f"metrics_{was.epochs}_epochs.json")
        write_text(self.params_path, settings.as_yaml())
        self._note_environment(environment(num_processes))
        for path in (self.stop_path, self.progress_path, self.error_path):
            path.unlink(missing_ok=True)

    def _prepare_checkpoints(self, settings: TrainSettings, data: str) -> None:
        """Remove what a killed process left, see to it that `last.pt` is whole, and compare."""
        for left in (".last.*.pt", ".best.*.pt", ".pulse.*"):
            for path in self.folder.glob(left):
                path.unlink()
        if (saved := restore_checkpoint(self.last_path)) is None:
            return
        if (known := saved.get("settings")) is not None:
            self._refuse(differences(known, settings), "holds a checkpoint of other settings")
            if data and saved.get("data", data) != data:
                problem = "videos_dir has other videos, lists or labels than it was trained on"
                self._refuse([problem], "holds a checkpoint of other data")
        elif not self.params_path.exists():
            self._refuse(["no params.yaml"], "holds a checkpoint of unknown settings")

    def _refuse(self, problems: list[str], what: str) -> None:
        if problems:
            remedy = "choose another run_dir, or delete that folder"
            raise ValueError("\n  ".join([f"{self.folder} {what}:", *problems, remedy]))

    def differences(self, settings: TrainSettings) -> list[str]:
        """Return how the settings of the run here differ from others, a line a field."""
        return differences(self.settings().model_dump(), settings)

    def settings(self) -> TrainSettings:
        """Return the run's settings.

        Raises:
            ValueError: If there is no run here, or a line is missing that decides its results.
        """
        if not self.params_path.is_file():
            raise ValueError(
                f"{self.folder}: no run here (no params.yaml); train it with "
                f"notebooks/3_train.ipynb and run_dir = {str(self.folder)!r}"
            )
        values = _in_words_of_today(read_yaml(self.params_path))
        if lost := TrainSettings.model_fields.keys() - FREE_SETTINGS - values.keys():
            raise ValueError(
                f"{self.params_path}: damaged, no line for {', '.join(sorted(lost))}; put back "
                "what the run was trained with (its recipe says it), or delete the run folder"
            )
        return make_settings(TrainSettings, values, str(self.params_path))

    def append_log(self, entry: dict[str, Any]) -> None:
        """Add one entry to the log."""
        self.check_is_there()
        with open(self.log_path, "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
            file.flush()

    def truncate_log(self, epoch: int) -> None:
        """Drop entries after an epoch, which a continued run writes again."""
        entries = self.log_entries()
        kept = [json.dumps(entry) + "\n" for entry in entries if entry["epoch"] <= epoch]
        write_text(self.log_path, "".join(kept))

    def log_entries(self) -> list[dict[str, Any]]:
        """Return the log's complete entries, oldest first; empty before the first epoch.

        Raises:
            ValueError: If a line is damaged; names the file, the line and the remedy.
        """
        if not self.log_path.exists():
            return []
        lines = self.log_path.read_bytes().splitlines(keepends=True)
        whole = [line for line in lines if line.endswith(b"\n")]
        remedy = "take that line out, or delete the run folder and train it again"
        entries = []
        for number, line in enumerate(whole, 1):
            where = f"{self.log_path}, line {number}"
            entries.append(parse_json(line, where, remedy))
            with reading(where, remedy):
                check_numbers(entries[-1], ("epoch", "step"))
        return entries

    def save(self, path: Path, state: dict[str, Any]) -> None:
        """Write a checkpoint atomically; the `last.pt` before it is kept."""
        write_checkpoint(path, state, keep_previous=path == self.last_path)

    def load(self, path: Path) -> dict[str, Any]:
        """Read a checkpoint; errors as in `read_checkpoint`."""
        return read_checkpoint(path)

    def saved(self) -> tuple[int, int] | None:
        """Return steps and whole epochs of the checkpoint that the run goes on from, if any."""
        for path in (self.last_path, previous_path(self.last_path)):
            if (found := how_far(path)) is not None:
                step, epoch = found
                if epoch is None:  # a checkpoint that does not say so
                    logged = (e["epoch"] for e in self.log_entries() if e["step"] <= step)
                    epoch = max(logged, default=0)
                return step, epoch
        return None

    def is_finished(self) -> bool:
        """Whether training reached its last epoch and saved it."""
        saved = self.saved()
        return saved is not None and saved[1] >= self.settings().epochs

    def ask_to_stop(self) -> None:
        """Ask the processes that train the run to save a checkpoint and end."""
        self.stop_path.touch()

    def check_is_there(self) -> None:
        """Raise FileNotFoundError if the folder was deleted, or its disk taken away, meanwhile."""
        if not self.folder.is_dir():
            raise FileNotFoundError(
                f"{self.folder}: the folder of this run was deleted while it was trained, or its "
                "disk is gone; start the run again"
            )

    def is_asked_to_stop(self) -> bool:
        """Whether somebody asked."""
        return self.stop_path.exists()

    def _note_environment(self, now: dict[str, Any]) -> None:
        """Keep where the run is trained; of a run that moved, also how it computed before."""
        if self.is_finished():
            return  # nothing is trained here
        before = self.environment() if self.log_entries() else {}
        now["earlier"] = list(before.get("earlier", []))
        if before and arithmetic(before) != arithmetic(now):
            now["earlier"].append(arithmetic(before))
        write_text(self.environment_path, json.dumps(now, indent=1) + "\n")

    def environment(self) -> dict[str, Any]:
        """Return where the run was trained; empty if that is not known.

        Raises:
            ValueError: If the file is damaged; names it and the remedy.
        """
        if not self.environment_path.exists():
            return {}
        remedy = "delete that file, the run does without it"
        known = read_json(self.environment_path, remedy)
        with reading(self.environment_path, remedy):
            arithmetic(known)
            list(known.get("earlier", []))
            if not isinstance(known.get("gpus", []), list):
                raise ValueError("gpus are no list")
        return known


def differences(before: Mapping[str, Any], settings: TrainSettings) -> list[str]:
    """Return how settings differ from earlier ones where it changes results, a line a field.

    A run may be trained longer: what its epochs were is then one more of the restarts, and all that
    was done is as it would have been.
    """
    now, before = settings.model_dump(), _in_words_of_today(before)
    ends = [*before["lr_restart_epochs"], before["epochs"]]
    if now["lr_restart_epochs"][: len(ends)] == ends:
        before |= {"lr_restart_epochs": now["lr_restart_epochs"], "epochs": now["epochs"]}
    lines = [
        f"{name}: {before[name]!r} there, {now[name]!r} here"
        for name in now
        if name in before and name not in FREE_SETTINGS and before[name] != now[name]
        if not name.startswith("test_")  # a finished run may be tested again
        if not (name in ROOTS and is_gone(before[name]))
    ]
    is_longer = now["epochs"] > before["epochs"]
    return lines + [f"to train it longer, set lr_restart_epochs to {ends} as well"] * is_longer


def is_gone(root: str | None) -> bool:
    """Whether a place is named that is not there: what lay in it may have moved."""
    return root is not None and not project_path(root).exists()


def _in_words_of_today(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of an earlier run by today's names, with those that came later."""
    came_later = {name: TrainSettings.model_fields[name].get_default() for name in LATER_SETTINGS}
    return came_later | {RENAMED_SETTINGS.get(name, name): v for name, v in values.items()}


Phase = Literal["missing", "waiting", "starting", "training", "stopping", "stopped", "failed"]
Phase |= Literal["finished"]
METRICS = ("top1", "top5", "mean_class_accuracy", "videos")  # of a list, in `metrics.json`


@dataclass(frozen=True)
class RunStatus:
    """What the folder of a run says at one moment.

    Attributes:
        phase: `missing`: no run there; `waiting`: nobody has trained it yet; `stopped`: nobody
            trains it and epochs are missing.
        epochs: Epochs of the whole run; 0 if it is missing.
        epoch: Whole epochs in the last checkpoint: those that are not lost whatever happens.
        step: Steps in the last checkpoint; None if there is none.
        log: Entries of the log, one an epoch.
        progress: `progress.json` of a run that is trained, else empty.
        error: The traceback of a failed process; of a run that is missing, what cannot be read.
        holder: Who trains it.
        is_tested: Whether it has a test result.
    """

    phase: Phase
    epochs: int = 0
    epoch: int = 0
    step: int | None = None
    log: tuple[dict[str, Any], ...] = ()
    progress: dict[str, Any] | None = None
    error: str = ""
    lock_owner: str = ""
    is_tested: bool = False

    @property
    def latest(self) -> dict[str, Any]:
        """The newest value of everything that was measured; validation from the last one."""
        values: dict[str, Any] = {}
        for entry in (*self.log, self.progress or {}):
            values |= entry
        return values

    @property
    def is_ended(self) -> bool:
        """Whether nobody trains the run now."""
        return self.phase in ("missing", "stopped", "failed", "finished")

    @property
    def share(self) -> float:
        """How much of the training is done, in [0, 1]; while it is trained, saved or not."""
        if self.progress:
            return self.progress["step"] / self.progress["last_step"]
        epoch = self.log[-1]["epoch"] if self.log and self.lock_owner else self.epoch
        return min(1.0, epoch / self.epochs) if self.epochs else 0.0


def read_status(folder: str | Path) -> RunStatus:
    """Read the state of a run from its folder; never fails on a folder that comes or goes."""
    run = RunDir(folder)
    try:
        epochs = run.settings().epochs
        log, saved = tuple(run.log_entries()), run.saved()
    except (ValueError, OSError) as error:  # half a folder, or none
        return RunStatus("missing", error=str(error) if run.params_path.exists() else "")
    who = lock_owner(run.lock_path) or ""
    step, epoch = saved or (None, 0)
    progress = _progress(run.progress_path) if who else {}
    error = _text(run.error_path)
    if who:
        phase = _phase_in_work(bool(progress), run.is_asked_to_stop())
    else:
        phase = _phase_at_rest(epoch >= epochs, bool(error), bool(saved or log))
    is_tested = run.metrics_path.is_file()
    return RunStatus(phase, epochs, epoch, step, log, progress, error, who, is_tested)


def read_result(run: RunDir) -> dict[str, Any]:
    """Return the test result of a run.

    Raises:
        ValueError: If it is missing or damaged; names the file and the remedy.
    """
    remedy = f"test the run again (notebooks/4_evaluate.ipynb, run_dir = {str(run.folder)!r})"
    results = read_json(run.metrics_path, remedy)
    with reading(run.metrics_path, remedy):
        check_numbers({"labels": results["labels"]}, ("labels",))
        if not results["splits"]:
            raise ValueError("numbers of its lists are missing")
        for values in results["splits"].values():
            check_numbers(values, METRICS)
    return results


def _phase_in_work(has_progress: bool, is_asked_to_stop: bool) -> Phase:
    if is_asked_to_stop:
        return "stopping"
    return "training" if has_progress else "starting"


def _phase_at_rest(is_whole: bool, has_failed: bool, is_begun: bool) -> Phase:
    if is_whole:
        return "finished"
    if has_failed:
        return "failed"
    return "stopped" if is_begun else "waiting"


def _progress(path: Path) -> dict[str, Any]:
    """Return where a run is; empty where the file is missing, or damaged: it is soon rewritten."""
    try:
        progress = read_json(path, "")
        check_numbers(progress, ("step", "last_step"))
    except ValueError:
        return {}
    return progress


def format_duration(seconds: float) -> str:
    """Return a duration in words."""
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d} min"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
