"""Runs that are killed, stopped or starved of disk at random moments, and always started again.

They are started from a server that has imported everything, so that a start costs no seconds.
"""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import psutil

from lib.config import TrainSettings
from lib.runs import checkpoint
from lib.runs.run_dir import RunDir
from lib.train.fit import fit

MAX_STARTS = 20  # of a run that only fails


def train(settings: TrainSettings, share: float | None = None) -> None:
    """Train a run, or go on with it, without a word.

    Args:
        settings: The run.
        share: How much of a checkpoint is written when the process is killed; None for not at all.
    """
    if share is not None:
        real, saves = checkpoint.write_atomic, iter(range(10**6))

        def write_a_part(path: Path, write: Callable) -> Path:
            def write_and_die(temporary: Path) -> None:
                write(temporary)
                if path.name != "best.pt" and next(saves) == 3:
                    os.truncate(temporary, int(share * temporary.stat().st_size))
                    os.kill(os.getpid(), signal.SIGKILL)

            return real(path, write_and_die)

        checkpoint.write_atomic = write_a_part
    multiprocessing.set_start_method("fork", force=True)  # of loaders, as where nobody asks
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    fit(settings)


def start(settings: TrainSettings, share: float | None = None) -> BaseProcess:
    context = multiprocessing.get_context("forkserver")
    # What training imports; the optimizer imports `torch._dynamo`, which takes three seconds.
    context.set_forkserver_preload(["lib.train.fit", "torch._dynamo", "timm"])
    process = context.Process(target=train, args=(settings, share))
    process.start()
    return process


Blow = Callable[[BaseProcess, RunDir], bool]


def kill(process: BaseProcess, run: RunDir) -> bool:
    """Kill the training process; whether it was there to be killed."""
    was_there = process.exitcode is None
    process.kill()
    process.join()
    return was_there and process.exitcode == -signal.SIGKILL


def let_it_die(process: BaseProcess, run: RunDir) -> bool:
    """Wait for a process that kills itself while it saves; whether it came to that."""
    process.join()
    return process.exitcode == -signal.SIGKILL


def kill_child(process: BaseProcess, run: RunDir) -> bool:
    """Kill a process that it has started: one of its loaders', or a spawned one."""
    while process.exitcode is None:
        with suppress(psutil.Error):  # one that has just ended
            children = psutil.Process(process.pid).children(recursive=True)
            own = [child for child in children if "resource_tracker" not in str(child.cmdline())]
            if own:
                own[-1].kill()
                process.join()
                return True
    return False


def ask_to_end(process: BaseProcess, run: RunDir) -> bool:
    """Send SIGTERM, as a cluster does."""
    process.terminate()
    process.join()
    return process.exitcode not in (0, -signal.SIGTERM)  # a checkpoint was saved


def wait_for_step(process: BaseProcess, run: RunDir, step: int) -> None:
    """Wait until a process has saved a step, which it does after each, or has ended."""
    while process.exitcode is None and (run.saved_progress() or (0, 0))[0] < step:
        time.sleep(0.002)


def go_on_after(settings: TrainSettings, blow: Blow, times: int, seed: int) -> tuple[RunDir, int]:
    """Train a run that is hit again and again, until it is finished.

    Args:
        settings: The run.
        blow: What happens to it.
        times: How often.
        seed: Of the moments, which are drawn anew each time.

    Returns:
        The run, and how often it was hit.
    """
    run, hits, rng = RunDir(settings.run_dir), 0, np.random.default_rng(seed)
    for _ in range(MAX_STARTS):
        dies = blow is let_it_die and hits < times
        process = start(settings, rng.uniform(0, 1) if dies else None)
        if hits < times:
            if not dies and rng.integers(5):  # else at once, while it begins
                step, last = (
                    (run.saved_progress() or (0, 0))[0],
                    18 * 3 // settings.unlabeled_batch - 1,
                )
                wait_for_step(process, run, int(rng.integers(step, max(step, last) + 1)))
            time.sleep(rng.uniform(0, 0.2))
            hits += blow(process, run)
        process.join()
        if run.saved_progress() and run.is_finished():
            break
    return run, hits


def fill_disk(folder: Path, keep: int) -> Path:
    """Write a file that leaves so many bytes of a disk."""
    path, free = folder / "ballast", os.statvfs(folder)
    path.write_bytes(bytes(max(0, free.f_bavail * free.f_frsize - keep)))
    return path
