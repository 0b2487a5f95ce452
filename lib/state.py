"""How far a run is: the one answer, for the batch, the cluster, the monitor and the report.

What counts is the last whole checkpoint, for that is where the run goes on. The log may be ahead of
it, by the epochs since, or by one line if the run was killed in between.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lib.files import check_numbers, holder, read_json, reading
from lib.run.folder import Run

Phase = Literal["missing", "waiting", "starting", "training", "stopping", "stopped", "failed"]
Phase |= Literal["finished"]
METRICS = ("top1", "top5", "mean_class_accuracy", "videos")  # of a list, in `metrics.json`


@dataclass(frozen=True)
class RunState:
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
    holder: str = ""
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
        epoch = self.log[-1]["epoch"] if self.log and self.holder else self.epoch
        return min(1.0, epoch / self.epochs) if self.epochs else 0.0


def read_state(folder: str | Path) -> RunState:
    """Read the state of a run from its folder; never fails on a folder that comes or goes."""
    run = Run(folder)
    try:
        epochs = run.settings().epochs
        log, saved = tuple(run.log_entries()), run.saved()
    except (ValueError, OSError) as error:  # half a folder, or none
        return RunState("missing", error=str(error) if run.params_path.exists() else "")
    who = holder(run.lock_path) or ""
    step, epoch = saved or (None, 0)
    progress = _progress(run.progress_path) if who else {}
    error = _text(run.error_path)
    if who:
        phase = _phase_in_work(bool(progress), run.is_asked_to_stop())
    else:
        phase = _phase_at_rest(epoch >= epochs, bool(error), bool(saved or log))
    is_tested = run.metrics_path.is_file()
    return RunState(phase, epochs, epoch, step, log, progress, error, who, is_tested)


def read_result(run: Run) -> dict[str, Any]:
    """Return the test result of a run.

    Raises:
        ValueError: If it is missing or damaged; names the file and the remedy.
    """
    remedy = f"test the run again (notebooks/4_evaluate.ipynb, run_dir = {str(run.folder)!r})"
    results = read_json(run.metrics_path, remedy)
    with reading(run.metrics_path, remedy):
        check_numbers({"labels": results["labels"]}, ("labels",))
        if not results["lists"]:
            raise ValueError("numbers of its lists are missing")
        for values in results["lists"].values():
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


def clock(seconds: float) -> str:
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
