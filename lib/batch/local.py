"""Execution of a batch on this machine, several jobs at a time.

Ctrl-C asks the runs to save a checkpoint and waits for them.
"""

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

import torch
from tqdm import tqdm

from lib.batch.jobs import POLL_S, Batch, Job, JobError, make_batch
from lib.batch.plan import Grid, PlannedRun, estimate_clips
from lib.config import TrainSettings
from lib.fileio import LockedError
from lib.params import make_settings
from lib.runs.run_dir import RunDir, format_duration, read_status

LOCKED_POLL_S = 5.0
# glibc keeps freed memory for the next step instead of returning it to the kernel: a tenth less
# time of a demo run on a CPU, with the same results.
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**31)}


def run_here(batch: Batch, jobs: int = 1) -> int:
    """Do a batch, `jobs` runs at a time, print failures, and return their number.

    KeyboardInterrupt after checkpoints were saved.
    """
    pool = Pool(make_slots(jobs), [job.planned for job in batch.work])
    if pool.do(batch.prepare):
        pool.do(batch.work)
        pool.do(batch.reports)
    return print_failures(batch.refused | pool.failures)


def print_failures(failures: Mapping[str, tuple[Path, str]]) -> int:
    """Print failures, title -> folder and problem, and return their number."""
    for title, (folder, problem) in failures.items():
        print(f"FAILED {title}: {problem}", file=sys.stderr)
        print(f"  executed notebook with the traceback, batch.log: {folder}", file=sys.stderr)
    return len(failures)


class Pool:
    """Executes jobs, as many at a time as there are slots.

    A slot is the environment variables of a share of the machine; the progress of `runs` is shown
    in a terminal.
    """

    def __init__(self, slots: Sequence[Mapping[str, str]], runs: Sequence[PlannedRun] = ()):
        self.slots, self.runs = slots, runs
        self.failures: dict[str, tuple[Path, str]] = {}
        self._active: list[Job] = []
        self._stopping = threading.Event()

    def do(self, jobs: Iterable[Job]) -> bool:
        """Do jobs in their order and return True if all succeeded.

        KeyboardInterrupt after the runs were asked to save a checkpoint, and ended.
        """
        waiting, failed_before = deque(jobs), len(self.failures)
        with ThreadPoolExecutor(len(self.slots)) as threads:
            workers = [threads.submit(self._work, slot, waiting) for slot in self.slots]
            try:
                self._show_progress(workers)
            except KeyboardInterrupt:
                self._stopping.set()
                say("stopping: runs save a checkpoint (Ctrl-C again to end at once)")
                while wait(workers, POLL_S).not_done:
                    for job in list(self._active):
                        job.stop()
                raise
            finally:
                for job in list(self._active):
                    Job.stop(job)
        for worker in workers:
            worker.result()  # raises errors of the batch itself
        return len(self.failures) == failed_before

    def _work(self, slot: Mapping[str, str], waiting: deque[Job]) -> None:
        """Do one job after the other."""
        locked = set()
        while waiting and not self._stopping.is_set():
            try:
                job = waiting.popleft()
            except IndexError:  # another thread took it
                return
            self._active.append(job)
            started = time.monotonic()
            try:
                result = job.do(slot)
                say(f"{job.title}: {format_duration(time.monotonic() - started)}, {result}")
            except LockedError as error:  # another process does it: others first
                if job not in locked:
                    say(f"{job.title}: waits: {error}")
                locked.add(job)
                waiting.append(job)
                self._stopping.wait(LOCKED_POLL_S)
            except (JobError, OSError, ValueError) as error:
                self.failures[job.title] = (job.folder, str(error))
                say(f"{job.title}: failed: {error}")
            finally:
                self._active.remove(job)

    def _show_progress(self, workers: list[Future]) -> None:
        """Show the share of the training in a terminal until all workers are done."""
        share = share_of(self.runs)
        layout = "{percentage:5.1f} % of the training |{bar:30}| about {remaining} left"
        with tqdm(total=1.0, initial=share, leave=False, disable=None, bar_format=layout) as bar:
            while wait(workers, 2.0).not_done:
                bar.n = share_of(self.runs)
                bar.refresh()


def say(text: str) -> None:
    """Print a line above the progress bar."""
    with tqdm.external_write_mode():
        print(text, flush=True)


def share_of(runs: Sequence[PlannedRun]) -> float:
    """Return the share of the training of runs that is done, in [0, 1]; 0 without runs."""
    clips = [estimate_clips(run.settings) for run in runs]
    weights = [1] * len(runs) if None in clips else clips
    shares = [read_status(run.run_dir).share for run in runs]
    done = sum(share * weight for share, weight in zip(shares, weights, strict=True))
    return done / max(1, sum(weights))


def make_slots(jobs: int) -> list[dict[str, str]]:
    """Share GPUs, or else cores, among jobs; ValueError if there are GPUs, but fewer than jobs."""
    if jobs == 1:
        return [{} if torch.cuda.is_available() else KEEP_MEMORY]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    gpus = visible.split(",")[:count] if visible else list(map(str, range(count)))
    if gpus and len(gpus) < jobs:
        raise ValueError(f"--jobs: {jobs} at the same time, but there are {len(gpus)} GPUs")
    if gpus:
        return [{"CUDA_VISIBLE_DEVICES": ",".join(gpus[i::jobs])} for i in range(jobs)]
    threads = os.environ.get("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
    return [{"OMP_NUM_THREADS": threads} | KEEP_MEMORY for _ in range(jobs)]


def run_again(folder: str, grid: Grid) -> int:
    """Train and test a run with some other settings and return the number of failures.

    `grid` has these settings, among them the `run_dir` of the new run. ValueError if there is no
    run, its data is missing, or the grid names more than one run.
    """
    if several := [name for name, values in grid.items() if len(values) > 1]:
        raise ValueError(f"--set {several[0]}: several values; with --from give one")
    if "run_dir" not in grid:
        raise ValueError("--set run_dir: with --from, name the folder of the new run")
    first, changes = RunDir(folder), {name: values[0] for name, values in grid.items()}
    values = first.settings().model_dump() | changes
    settings = make_settings(TrainSettings, values, f"--from {folder} --set")
    return run_here(make_batch([PlannedRun(first.params_path, values, settings)]))
