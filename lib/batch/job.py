"""A job of a batch, done by a process of its own (`python -m lib.batch.job`).

The process gets the job as a line of JSON on its standard input. Whoever wrote it keeps the pipe
open: when that process is gone, so is this one, and with it the notebook's kernel. SIGTERM asks a
run that trains for a checkpoint and its end, and ends everything else.
"""

import json
import math
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lib.batch.plan import COMPLETE, NOTEBOOKS, PlannedRun, state_of, write_test_settings
from lib.config import PROJECT_ROOT, EvaluateSettings, PrepareSettings, ReportSettings
from lib.fileio import LockedError, file_lock
from lib.params import make_settings, notebook_defaults
from lib.prepare.requirements import data_requirements
from lib.runs.run_dir import ROOTS, RunDir
from lib.runs.signals import signal_name, stop_on_signals

FAILED, STOPPED, LOCKED = 1, 3, 4  # statuses of the process
POLL_S = 0.2
LOCKED_POLL_S = 5.0
UNUSED = "rfc3987_syntax"  # jsonschema does without it; 1.2 s of a core, for addresses in Unicode


@dataclass
class Job:
    """Something that a process of its own does.

    Attributes:
        title: What it is called on the screen.
        folder: Where its notebooks and its log go.
        request: What the process is told.
        run: The run that it trains; None for data and reports.
        tries: How often it may still be started.
        not_before: When it may be started (clock of `time.monotonic`).
    """

    title: str
    folder: Path
    request: dict[str, Any]
    run: PlannedRun | None = None
    tries: int = 1
    not_before: float = 0.0

    @property
    def log_path(self) -> Path:
        """File of what its process prints."""
        return self.folder / "batch.log"

    def is_complete(self) -> bool:
        """Whether nothing is left to do: another batch may have done it meanwhile."""
        return self.run is not None and state_of(self.run)[0] == COMPLETE

    def start(self, environment: Mapping[str, str]) -> subprocess.Popen:
        """Start its process; Ctrl-C in the terminal does not reach it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.log_path, "w", encoding="utf-8") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "lib.batch.job"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=PROJECT_ROOT,
                env=os.environ | environment,
                start_new_session=True,
                text=True,
            )
        process.stdin.write(json.dumps(self.request) + "\n")  # stays open: see above
        process.stdin.flush()
        return process

    def is_tried_again(self, status: int, give_up: float = math.inf) -> bool:
        """Whether to start it again after its process ended.

        A run that another process holds is waited for; one that was asked to stop is not tried
        again, one that failed is, while tries are left.

        Args:
            status: Exit status of the process.
            give_up: When waiting is over (clock of `time.monotonic`).
        """
        if status == LOCKED:
            self.not_before = time.monotonic() + LOCKED_POLL_S
            return self.not_before < give_up
        self.tries -= 1
        return status not in (0, STOPPED) and self.tries > 0

    def problem(self, status: int) -> str:
        """Return what went wrong, in words."""
        if status < 0:
            return f"its process was ended by {signal_name(-status)}; the same command goes on"
        return "stopped from outside" if status == STOPPED else self.last_line()

    def last_line(self) -> str:
        """Return the last line that its process printed, without colours."""
        said = self.log_path.read_text(encoding="utf-8", errors="replace")
        said = re.sub(r"\033\[[0-9;]*m", "", said)
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        return lines[-1] if lines else "ended without a word"


def stop(processes: Sequence[subprocess.Popen]) -> None:
    """Ask jobs to end, runs that train after a checkpoint, and wait for them."""
    while running := [process for process in processes if process.poll() is None]:
        for process in running:
            process.terminate()  # again and again: a run that only starts takes no notice
        time.sleep(POLL_S)


# --- Which jobs -----------------------------------------------------------------------------------


@dataclass
class Batch:
    """The jobs of a batch.

    Attributes:
        runs: All runs, done or not.
        folders: Those of their studies.
        prepare: Jobs that make data.
        work: Jobs of the runs that are not complete.
        reports: Jobs of the reports that have something new to say.
        refused: Folder and reason of the runs that are refused, by title.
    """

    runs: Sequence[PlannedRun]
    folders: list[Path]
    prepare: list[Job] = field(default_factory=list)
    work: list[Job] = field(default_factory=list)
    reports: list[Job] = field(default_factory=list)
    refused: dict[str, tuple[Path, str]] = field(default_factory=dict)


def run_job(planned: PlannedRun, title: str, tries: int) -> Job:
    """Return the job of training and evaluating a run."""
    request = {
        "step": "run",
        "folder": str(planned.run_dir),
        "parameters": planned.parameters,
    }
    return Job(title, planned.run_dir, request, planned, tries)


def prepare_jobs(runs: Iterable[PlannedRun], folder: Path) -> list[Job]:
    """Return the jobs of making the data sets that the batch makes by itself."""
    jobs = []
    for need in data_requirements(run.settings for run in runs):
        if not need.is_complete:
            request = {"step": "prepare", "folder": str(folder), "parameters": need.parameters()}
            jobs.append(Job(f"prepare {need.dataset}", folder, request))
    return jobs


def report_jobs(folders: Iterable[Path]) -> list[Job]:
    """Return the jobs of making reports of studies."""
    return [
        Job(f"report {folder.name}", folder, {"step": "report", "folder": str(folder)})
        for folder in folders
    ]


def has_results(folder: Path) -> bool:
    """Whether a study has an evaluated run."""
    return any(folder.glob("*/metrics.json"))


# --- What the process does ------------------------------------------------------------------------


def execute(notebook: str, output: Path, parameters: Mapping[str, Any]) -> None:
    """Execute one of the project's notebooks; the executed copy is kept on failure too.

    Raises:
        ChildProcessError: If the kernel was killed; names the signal.
    """
    import papermill
    from jupyter_client.manager import AsyncKernelManager
    from jupyter_core.utils import run_sync
    from nbclient.exceptions import DeadKernelError

    output.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="kernel") as private:
        # through files: a free TCP port can be taken by another kernel before this one listens
        kernel = AsyncKernelManager(kernel_name="python3", transport="ipc", ip=f"{private}/at")
        options = {"kernel_name": "python3", "cwd": NOTEBOOKS, "progress_bar": False, "km": kernel}
        try:
            papermill.execute_notebook(NOTEBOOKS / notebook, output, dict(parameters), **options)
        except DeadKernelError as error:
            ending = kernel.provisioner.process.returncode
            how = signal_name(-ending) if ending < 0 else f"exit status {ending}"
            raise ChildProcessError(
                f"the kernel of {notebook} was ended by {how}; the same command goes on"
            ) from error
        finally:
            if run_sync(kernel.is_alive)():  # who brings a kernel ends it, before the next notebook
                run_sync(kernel.shutdown_kernel)()


def prepare_data(folder: Path, parameters: dict[str, Any]) -> int:
    """Execute notebook 1."""
    make_settings(PrepareSettings, parameters, "prepare")
    execute("1_prepare_data.ipynb", folder / f"prepare_{parameters['dataset']}.ipynb", parameters)
    return 0


def train_and_evaluate(folder: Path, parameters: dict[str, Any]) -> int:
    """Execute notebooks 3 and 4 for one run; `STOPPED` if it was asked to stop before its end."""
    run = RunDir(folder)
    with file_lock(folder / ".batch.lock"):
        with stop_on_signals(run.ask_to_stop):  # only who holds the lock may
            is_over = train(run, parameters)
        run.stop_path.unlink(missing_ok=True)
        if not is_over:
            return STOPPED
        evaluate = {"run_dir": str(folder)}
        make_settings(EvaluateSettings, evaluate, run.name)
        execute("4_evaluate.ipynb", folder / "4_evaluate.ipynb", evaluate)
    return 0


def train(run: RunDir, parameters: dict[str, Any]) -> bool:
    """Execute notebook 3, unless that is done; whether the run is finished then.

    An interrupt of the notebook's kernel is not an error. A run that was trained without the
    notebook is finished, and the notebook only shows it.
    """
    from papermill.exceptions import PapermillExecutionError

    output = run.folder / "3_train.ipynb"
    values = notebook_defaults(NOTEBOOKS / "3_train.ipynb") | parameters
    if run.is_finished() and output.exists():
        was = run.settings()
        if all(getattr(was, name) == values[name] for name in ("epochs", *ROOTS)):
            write_test_settings(run, values)
            return True
    try:
        execute("3_train.ipynb", output, parameters)
    except PapermillExecutionError as error:
        if error.ename != "KeyboardInterrupt":
            raise
    progress = run.saved_progress()  # `is_finished` would load PyTorch
    return progress is not None and progress.epoch >= values["epochs"]


def make_report(folder: Path) -> int:
    """Execute notebook 5 for a study and export its page."""
    from lib.report.page import export_html

    parameters = {"study_dir": str(folder), "title": folder.name}
    make_settings(ReportSettings, parameters, "report")
    with file_lock(folder / ".report.lock", wait_s=600):
        execute("5_report.ipynb", folder / "5_report.ipynb", parameters)
        export_html(folder / "5_report.ipynb", folder / "report.html")
    return 0


STEPS = {"prepare": prepare_data, "run": train_and_evaluate, "report": make_report}


def main() -> int:
    """Do the job on the standard input and return the exit status."""
    sys.modules.setdefault(UNUSED, None)
    job = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_batch, daemon=True).start()
    step = STEPS[job.pop("step")]
    try:
        return step(Path(job.pop("folder")), **job)
    except LockedError as error:
        print(error)
        return LOCKED


def _end_with_batch() -> None:
    sys.stdin.read()
    os._exit(FAILED)


if __name__ == "__main__":
    sys.exit(main())
