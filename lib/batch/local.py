"""Doing a batch on this machine: a few jobs at a time, each with its share of the machine.

Ctrl-C asks the runs to save a checkpoint and waits for them.
"""

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lib.batch.job import (
    LOCKED,
    POLL_S,
    Batch,
    Job,
    has_results,
    prepare_jobs,
    report_jobs,
    run_job,
    stop,
)
from lib.batch.plan import (
    COMPLETE,
    REFUSED,
    Grid,
    PlannedRun,
    estimate_clips,
    notes_of,
    read_plan,
    state_of,
)
from lib.batch.slurm import Resources, check_executor, do_locally, submit_to_slurm
from lib.fileio import check_writable
from lib.prepare.requirements import missing_data
from lib.runs.run_dir import RunDir, format_duration, read_result, read_status


def run(
    paths: str | Path | Sequence[str | Path],
    grid: Grid | None = None,
    jobs: int | None = None,
    retry: int = 0,
    executor: str | None = None,
    resources: Resources | None = None,
) -> int:
    """Run studies or single runs and return the number of failures.

    Args:
        paths: Run files, studies, folders of studies or patterns, relative to the project's root.
        grid: Values per parameter, laid over every run; see `lib.batch.plan.read_plan`.
        jobs: Runs at the same time; None for one, and as many as it allows in Slurm.
        retry: How often a run that failed is tried again.
        executor: `slurm` submits the jobs and returns, `local` does them here in the same way;
            None does them here.
        resources: What each run gets in Slurm.

    Raises:
        ValueError: If files or data do not fit; nothing has been started then.
        KeyboardInterrupt: After checkpoints were saved.
    """
    if executor is not None:
        check_executor(executor)
    batch = make_batch(read_plan([paths] if isinstance(paths, str | Path) else paths, grid), retry)
    if executor is not None and (batch.work or batch.reports):
        is_done = _hand_over(batch, executor, jobs, resources or Resources())
        return say_failures(batch.refused) or int(not is_done)
    return do_here(batch, jobs or 1)


def _hand_over(batch: Batch, executor: str, jobs: int | None, resources: Resources) -> bool:
    """Let submitit do a batch; whether all that is done already succeeded."""
    place = batch.folders[0] / "cluster"
    if executor == "local":
        return do_locally(batch, place, resources, make_slots(jobs or 1))
    numbers = submit_to_slurm(batch, place, resources, jobs)
    print(f"submitted as jobs {', '.join(numbers)}; the last one makes the report")
    print(f"what they print: {place}; how far the runs are: the same command with --dry-run")
    return True


def make_batch(runs: Sequence[PlannedRun], retry: int = 0) -> Batch:
    """Check that runs can be done, say so, and return their jobs; arguments as in `run`.

    Raises:
        ValueError: If data are missing or a folder cannot be written.
    """
    titles = {run.run_dir: f"[{i}/{len(runs)}] {run.name}" for i, run in enumerate(runs, 1)}
    states = {run.run_dir: state_of(run) for run in runs}
    to_do = [run for run in runs if states[run.run_dir][0] not in (COMPLETE, REFUSED)]
    if missing := missing_data(run.settings for run in to_do):
        raise ValueError("\n".join(["data is missing; nothing was started", *missing]))
    counts = Counter(run.run_dir.parent for run in runs)
    batch = Batch(runs, list(counts))
    for folder, count in counts.items():
        check_writable(folder, "run_dir", "choose another run_dir")
        print(f"{folder.name}: {count} runs -> {folder}")
    _say_notes(to_do)
    _say_what_is_not_done(states, titles, batch.refused)
    batch.prepare = prepare_jobs(to_do, batch.folders[0])
    batch.work = [run_job(run, titles[run.run_dir], 1 + retry) for run in to_do]
    batch.reports = report_jobs(_with_news(batch))
    return batch


def _say_notes(runs: Sequence[PlannedRun]) -> None:
    for note in notes_of(runs):
        print(note, flush=True)


def _say_what_is_not_done(
    states: Mapping[Path, tuple[str, str]], titles: Mapping[Path, str], refused: dict
) -> None:
    for place, (state, why) in states.items():
        if state in (COMPLETE, REFUSED):
            print(f"{titles[place]}: {state}")
        if state == REFUSED:
            refused[titles[place]] = (place, why)


def _with_news(batch: Batch) -> list[Path]:
    changed = {job.folder.parent for job in batch.work}
    return [folder for folder in batch.folders if folder in changed or not has_report(folder)]


def do_here(batch: Batch, jobs: int) -> int:
    """Do a batch in processes of this machine, say how it ended, and return how many failed."""
    pool = Pool(make_slots(jobs), [job.run for job in batch.work])
    if pool.do(batch.prepare):
        pool.do(batch.work)
        pool.do(job for job in batch.reports if has_results(job.folder))
    for folder in filter(has_report, batch.folders):
        print(f"report: {folder / 'report.html'}")
    return say_failures(batch.refused | pool.failures)


def has_report(folder: Path) -> bool:
    """Whether a study has its page."""
    return (folder / "report.html").is_file()


def say_failures(failures: Mapping[str, tuple[Path, str]]) -> int:
    """Print what failed and return how many."""
    for title, (folder, problem) in failures.items():
        print(f"FAILED {title}: {problem}", file=sys.stderr)
        print(f"  executed notebook with the traceback, batch.log: {folder}", file=sys.stderr)
    return len(failures)


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
            if job.is_complete():
                self._say(job, "complete")
            else:
                slot = self.free.pop(0)
                self.active.append(Active(job, job.start(slot), slot))

    def _finish(self, active: Active, waiting: list[Job]) -> None:
        self.active.remove(active)
        self.free.append(active.slot)
        job, status = active.job, active.process.returncode
        took, is_first_wait = (
            format_duration(time.monotonic() - active.started),
            job.not_before == 0,
        )
        if job.is_tried_again(status):
            waiting.append(job)
            if status != LOCKED:
                self._say(job, f"failed, is tried again: {job.last_line()}")
            elif is_first_wait:
                self._say(job, f"waits: {job.last_line()}")
        elif status == 0:
            self._say(job, f"{took}, {result_line(job.run) if job.run else 'done'}")
        else:
            self.failures[job.title] = (job.folder, job.problem(status))
            self._say(job, f"failed after {took}")

    def _say(self, job: Job, text: str) -> None:
        self.progress.clear()
        print(f"{job.title}: {text}", flush=True)


class Progress:
    """A line in a terminal: how far the runs are and how long the rest will take.

    Args:
        runs: The runs that are trained.
    """

    def __init__(self, runs: Sequence[PlannedRun]):
        clips = [estimate_clips(run.settings) for run in runs]
        self.runs = runs
        self.weights = [1] * len(runs) if None in clips else clips
        self.started, self.next, self.first = time.monotonic(), 0.0, None
        self.is_shown = sys.stdout.isatty() and bool(runs)

    def share(self) -> float:
        """Return how much of the training is done, in [0, 1]."""
        parts = [read_status(run.run_dir).share for run in self.runs]
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
            left = format_duration(elapsed * (1 - share) / (share - self.first))
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


def result_line(planned: PlannedRun) -> str:
    """Return the top-1 of each test list in words."""
    results = read_result(RunDir(planned.run_dir))["splits"]
    return ", ".join(f"{name} top-1 {values['top1']:.1f} %" for name, values in results.items())
