"""Doing jobs: a few processes at a time, each with its share of the machine.

A job is a process of `lib.batch.execute`. Ctrl-C asks runs to save a checkpoint and waits for them.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lib.batch.execute import LOCKED, STOPPED
from lib.batch.plan import COMPLETE, PlannedRun, estimate_clips, state_of
from lib.config import PROJECT_ROOT
from lib.run.folder import Run
from lib.run.state import read_state

POLL_S = 0.2
LOCKED_POLL_S = 5.0


@dataclass
class Job:
    """Something that a process of its own does (`lib.batch.execute`).

    Attributes:
        title: What it is called on the screen.
        folder: Where its notebooks and its log go.
        request: What it is told.
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


@dataclass
class Active:
    """A job that is being done.

    Attributes:
        job: The job.
        process: Its process.
        slot: Its share of the machine, as environment variables.
        started: When it was started.
    """

    job: Job
    process: subprocess.Popen
    slot: dict[str, str]
    started: float = field(default_factory=time.monotonic)


class Pool:
    """Does jobs, a few at a time.

    Args:
        slots: The shares of the machine: environment variables of each job.
        runs: All runs of the batch, for the progress line.
    """

    def __init__(self, slots: Sequence[dict[str, str]], runs: Sequence[PlannedRun] = ()):
        self.free = list(slots)
        self.active: list[Active] = []
        self.failures: dict[str, tuple[Path, str]] = {}
        self.progress = Progress(runs)

    def do(self, jobs: Iterable[Job]) -> bool:
        """Do jobs in their order; whether all succeeded.

        Raises:
            KeyboardInterrupt: After the runs were asked to save a checkpoint, and ended.
        """
        waiting, failed_before = list(jobs), len(self.failures)
        try:
            while waiting or self.active:
                self._start_next(waiting)
                time.sleep(POLL_S)
                self.progress.show(len(self.active))
                for active in [a for a in self.active if a.process.poll() is not None]:
                    self._finish(active, waiting)
        except KeyboardInterrupt:
            self.progress.clear()
            print("stopping: runs save a checkpoint (Ctrl-C again to end at once)", flush=True)
            stop([active.process for active in self.active])
            raise
        finally:
            for active in self.active:
                active.process.kill()
        self.progress.clear()
        return len(self.failures) == failed_before

    def _start_next(self, waiting: list[Job]) -> None:
        ready = [job for job in waiting if job.not_before <= time.monotonic()]
        for job in ready[: len(self.free)]:
            waiting.remove(job)
            if job.run is not None and state_of(job.run)[0] == COMPLETE:  # by another batch
                self._say(job, "complete")
                continue
            self.active.append(Active(job, start(job, self.free[0]), self.free.pop(0)))

    def _finish(self, active: Active, waiting: list[Job]) -> None:
        self.active.remove(active)
        self.free.append(active.slot)
        job, status = active.job, active.process.returncode
        job.tries -= 1
        if status == 0:
            result = result_line(job.run) if job.run else "done"
            self._say(job, f"{clock(time.monotonic() - active.started)}, {result}")
        elif status == LOCKED:
            if job.not_before == 0:
                self._say(job, f"waits: {last_line(job.log_path)}")
            job.tries += 1
            job.not_before = time.monotonic() + LOCKED_POLL_S
            waiting.append(job)
        elif job.tries > 0:
            self._say(job, f"failed, is tried again: {last_line(job.log_path)}")
            waiting.append(job)
        else:
            problem = "stopped from outside" if status == STOPPED else last_line(job.log_path)
            self.failures[job.title] = (job.folder, problem)
            self._say(job, f"failed after {clock(time.monotonic() - active.started)}")

    def _say(self, job: Job, text: str) -> None:
        self.progress.clear()
        print(f"{job.title}: {text}", flush=True)


def start(job: Job, slot: Mapping[str, str]) -> subprocess.Popen:
    """Start the process of a job; Ctrl-C in the terminal does not reach it."""
    job.folder.mkdir(parents=True, exist_ok=True)
    with open(job.log_path, "w", encoding="utf-8") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "lib.batch.execute"],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=PROJECT_ROOT,
            env=os.environ | slot,
            start_new_session=True,
            text=True,
        )
    process.stdin.write(json.dumps(job.request) + "\n")  # stays open: see lib.batch.execute
    process.stdin.flush()
    return process


def stop(processes: Sequence[subprocess.Popen]) -> None:
    """Ask jobs to end, runs that train after a checkpoint, and wait for them."""
    while running := [process for process in processes if process.poll() is None]:
        for process in running:
            process.terminate()  # again and again: a run that only starts takes no notice
        time.sleep(POLL_S)


class Progress:
    """A line in a terminal: how far the runs are and how long the rest will take.

    Args:
        runs: The runs that are trained.
    """

    def __init__(self, runs: Sequence[PlannedRun]):
        clips = [estimate_clips(run) for run in runs]
        self.runs = runs
        self.weights = [1] * len(runs) if None in clips else clips
        self.started, self.next, self.first = time.monotonic(), 0.0, None
        self.is_shown = sys.stdout.isatty() and bool(runs)

    def share(self) -> float:
        """Return how much of the training is done, in [0, 1]."""
        parts = [read_state(run.run_dir).share for run in self.runs]
        return sum(p * w for p, w in zip(parts, self.weights, strict=True)) / sum(self.weights)

    def show(self, num_active: int) -> None:
        """Print the line, every two seconds."""
        if not self.is_shown or time.monotonic() < self.next:
            return
        self.next = time.monotonic() + 2
        share, elapsed = self.share(), time.monotonic() - self.started
        self.first = share if self.first is None else self.first
        left = "?"
        if share > self.first:
            left = clock(elapsed * (1 - share) / (share - self.first))
        text = f"{100 * share:.1f} % of the training, {num_active} at work, about {left} left"
        print(f"\r\033[K{text}", end="", flush=True)

    def clear(self) -> None:
        """Take the line away."""
        if self.is_shown:
            print("\r\033[K", end="", flush=True)


def make_slots(jobs: int) -> list[dict[str, str]]:
    """Share GPUs, or else cores, among jobs.

    Raises:
        ValueError: If there are GPUs, but fewer than jobs.
    """
    if jobs == 1:
        return [{}]
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    gpus = visible.split(",")[:count] if visible else [str(number) for number in range(count)]
    if gpus and len(gpus) < jobs:
        raise ValueError(f"--jobs: {jobs} at the same time, but there are {len(gpus)} GPUs")
    if gpus:
        return [{"CUDA_VISIBLE_DEVICES": ",".join(gpus[i::jobs])} for i in range(jobs)]
    threads = os.environ.get("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
    return [{"OMP_NUM_THREADS": threads} for _ in range(jobs)]


def has_results(folder: Path) -> bool:
    """Whether a study has an evaluated run."""
    return any(folder.glob("*/metrics.json"))


def result_line(planned: PlannedRun) -> str:
    """Return the top-1 of each test list in words."""
    results = json.loads(Run(planned.run_dir).metrics_path.read_text())["lists"]
    return ", ".join(f"{name} top-1 {values['top1']:.1f} %" for name, values in results.items())


def last_line(log: Path) -> str:
    """Return the last line of a log, without colours."""
    text = re.sub(r"\033\[[0-9;]*m", "", log.read_text(encoding="utf-8", errors="replace"))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "ended without a word"


def clock(seconds: float) -> str:
    """Return a duration in words."""
    minutes, rest = divmod(int(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60}:{minutes % 60:02d} h"
    return f"{minutes}:{rest:02d} min"
