"""Jobs of a batch: each executes notebooks, every one in a process of its own."""

import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lib.batch.plan import COMPLETE, REFUSED, TO_EVALUATE, PlannedRun, notes_of, state_of
from lib.config import PROJECT_ROOT
from lib.fileio import check_writable, file_lock
from lib.prepare.requirements import DataRequirement, data_requirements, missing_data
from lib.runs.run_dir import RunDir, format_runs, read_result
from lib.runs.signals import signal_name

TRAIN, EVALUATE = "3_train.ipynb", "4_evaluate.ipynb"
POLL_S = 0.2
REPORT_WAIT_S = 600


class JobError(RuntimeError):
    """A job failed, or was stopped."""


class Job:
    """Base of the jobs of a batch.

    `title` is its name on the screen, `folder` that of its executed notebooks and its log.
    """

    def __init__(self, title: str, folder: Path):
        self.title, self.folder = title, folder
        self.log_path = folder / "batch.log"
        self.lock_wait_s = 0.0  # for another process that does the job
        self.process: subprocess.Popen | None = None

    def do(self, environment: Mapping[str, str]) -> str:
        """Do the job and return its result in words.

        `environment` has the variables of its share of the machine. JobError if the job failed,
        LockedError if another process does it.
        """
        raise NotImplementedError

    def stop(self) -> None:
        """End the job."""
        if self.process is not None:
            self.process.kill()

    def execute(
        self,
        notebook: str,
        parameters: Mapping[str, Any],
        environment: Mapping[str, str],
        output: str = "",
    ) -> None:
        """Execute a notebook in a process that Ctrl-C does not reach; JobError if it failed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "lib.batch.execute", notebook]
        command += [str(self.folder / (output or notebook)), yaml.safe_dump(dict(parameters))]
        with open(self.log_path, "a", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=PROJECT_ROOT,
                env=os.environ | environment,
                start_new_session=True,
            )
        while self.process.poll() is None:  # `wait` would hold a lock that a handler needs
            time.sleep(POLL_S)
        if (status := self.process.returncode) < 0:
            raise JobError(f"ended by {signal_name(-status)}")
        if status:
            text = self.log_path.read_text(encoding="utf-8", errors="replace")
            lines = re.sub(r"\033\[[0-9;]*m", "", text).split("\n")  # without colors
            raise JobError(next((x.strip() for x in reversed(lines) if x.strip()), "no output"))


class PrepareJob(Job):
    """Preparation of a data set: notebook 1."""

    def __init__(self, need: DataRequirement, folder: Path):
        super().__init__(f"prepare {need.dataset}", folder)
        self.parameters = need.parameters()

    def do(self, environment: Mapping[str, str]) -> str:
        """Execute notebook 1."""
        output = f"prepare_{self.parameters['dataset']}.ipynb"
        self.execute("1_prepare_data.ipynb", self.parameters, environment, output)
        return "done"


class RunJob(Job):
    """Training and test of a run: notebooks 3 and 4."""

    def __init__(self, planned: PlannedRun, title: str):
        super().__init__(title, planned.run_dir)
        self.planned = planned

    def do(self, environment: Mapping[str, str]) -> str:
        """Execute notebook 3 unless that is done, then notebook 4."""
        with file_lock(self.folder / ".batch.lock", self.lock_wait_s):
            if state_of(self.planned)[0] != COMPLETE:  # another batch may have done it meanwhile
                self.log_path.unlink(missing_ok=True)
                self._train(environment)
                self.execute(EVALUATE, {"run_dir": str(self.folder)}, environment)
        results = read_result(RunDir(self.folder))["splits"].items()
        return ", ".join(f"{split} top-1 {values['top1']:.1f} %" for split, values in results)

    def _train(self, environment: Mapping[str, str]) -> None:
        run = RunDir(self.folder)
        with file_lock(run.lock_path, self.lock_wait_s):
            pass  # no other process trains it
        if (self.folder / TRAIN).is_file() and self._is_trained():
            run.start(self.planned.settings)  # the settings of the test may have changed
            return
        try:
            self.execute(TRAIN, self.planned.parameters, environment)
        finally:
            run.stop_path.unlink(missing_ok=True)
        if not self._is_trained():
            raise JobError("stopped; the same command continues")

    def _is_trained(self) -> bool:
        return state_of(self.planned)[0] in (COMPLETE, TO_EVALUATE)

    def stop(self) -> None:
        """Ask for a checkpoint and the end of training; end anything else.

        Call it until the job is over: a run that only starts removes the request.
        """
        if self.process is None or TRAIN not in self.process.args:
            super().stop()
        elif self.process.poll() is None and self.folder.is_dir():
            RunDir(self.folder).ask_to_stop()


class ReportJob(Job):
    """Report of a study: notebook 5 and its page."""

    def __init__(self, folder: Path):
        super().__init__(f"report {folder.name}", folder)

    def do(self, environment: Mapping[str, str]) -> str:
        """Execute notebook 5 and export the page, if a run of the study is tested."""
        from lib.evaluate.run_results import recommended_run  # both import for seconds
        from lib.report.page import export_html

        if not any(self.folder.glob("*/metrics.json")):
            return "no run is tested"
        parameters = {"study_dir": str(self.folder), "title": self.folder.name}
        with file_lock(self.folder / ".report.lock", wait_s=REPORT_WAIT_S):
            self.execute("5_report.ipynb", parameters, environment)
            export_html(self.folder / "5_report.ipynb", self.folder / "report.html")
        text = str(self.folder / "report.html")
        with suppress(ValueError):  # no run is tested on its validation split
            best = recommended_run(self.folder).folder
            text += f"; recommended: python -m lib.predict {best} <videos>"
        return text


@dataclass
class Batch:
    """The jobs of a batch."""

    runs: Sequence[PlannedRun]  # complete or not
    folders: list[Path]  # of their studies
    prepare: list[Job]  # of data sets
    work: list[Job]  # the runs that are not complete
    reports: list[Job]  # those that will change
    refused: dict[str, tuple[Path, str]]  # title -> folder and reason of a run that is refused


def make_batch(runs: Sequence[PlannedRun]) -> Batch:
    """Check that runs can be done, print the studies, and return the jobs.

    ValueError if data is missing or a folder cannot be written.
    """
    titles = {run.run_dir: f"[{i}/{len(runs)}] {run.name}" for i, run in enumerate(runs, 1)}
    states = {run.run_dir: state_of(run) for run in runs}
    to_do = [run for run in runs if states[run.run_dir][0] not in (COMPLETE, REFUSED)]
    folders = list(dict.fromkeys(run.run_dir.parent for run in runs))
    prepare = _prepare_jobs(to_do, folders[0])
    _open_folders(runs, notes_of(to_do))
    refused = {}
    for folder, (state, reason) in states.items():
        if state in (COMPLETE, REFUSED):
            print(f"{titles[folder]}: {state}")
        if state == REFUSED:
            refused[titles[folder]] = (folder, reason)
    work = [RunJob(run, titles[run.run_dir]) for run in to_do]
    return Batch(runs, folders, prepare, work, _report_jobs(folders, to_do), refused)


def _open_folders(runs: Sequence[PlannedRun], notes: Iterable[str]) -> None:
    """Create the folders of the studies, and print them and the notes of runs."""
    counts = Counter(run.run_dir.parent for run in runs)
    for folder, count in counts.items():
        check_writable(folder, "run_dir", "choose another run_dir")
        print(f"{folder.name}: {format_runs(count)} -> {folder}")
    for note in notes:
        print(note)


def _prepare_jobs(runs: Sequence[PlannedRun], folder: Path) -> list[Job]:
    settings = [run.settings for run in runs]
    if missing := missing_data(settings):
        raise ValueError("\n".join(["data is missing; nothing was started", *missing]))
    needs = data_requirements(settings)
    return [PrepareJob(need, folder) for need in needs if not need.is_complete]


def _report_jobs(folders: Iterable[Path], to_do: Sequence[PlannedRun]) -> list[Job]:
    changed = {run.run_dir.parent for run in to_do}
    return [ReportJob(f) for f in folders if f in changed or not (f / "report.html").is_file()]
