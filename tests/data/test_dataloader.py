"""Loader processes: the signals of a job, the death of either side, the start methods of Python."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from test_distributed import wait_until

from lib.config import PROJECT_ROOT
from lib.data.clip_dataset import _begin, make_loader


class SignaledDataset:
    """Sends a signal to the loader process before each item."""

    def __init__(self, number: int):
        self.number = number

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> int:
        os.kill(os.getpid(), self.number)
        return index


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_loader_processes_ignore_the_signals_of_a_job(number):
    assert [int(batch) for batch in make_loader(SignaledDataset(number), 1)] == [0, 1, 2, 3]


def test_a_killed_loader_process_is_an_error():
    with pytest.raises(RuntimeError, match="DataLoader worker .*exited unexpectedly|is killed"):
        list(make_loader(SignaledDataset(signal.SIGKILL), 1))


def test_an_idle_loader_process_ends_when_its_iterator_is_deleted():
    batches = make_loader(range(400), 1, prefetch_factor=2)
    next(batches)
    (child,) = [c for c in multiprocessing.active_children() if c.daemon]
    del batches
    wait_until(lambda: not child.is_alive(), "the end of the loader process")


def run_loader(queue: multiprocessing.SimpleQueue, is_late: bool) -> None:
    """Start a loader process and die, after it began or (`is_late`) before."""

    def report(worker: int) -> None:
        queue.put(os.getpid())
        while is_late and os.getppid() == mother:
            time.sleep(0.01)
        _begin(is_ending, mother, worker)

    mother = os.getpid()
    is_ending = multiprocessing.get_context("fork").RawValue("b", 0)
    batches = make_loader(range(400), 1, worker_init_fn=report)
    if not is_late:
        next(batches)
    os.kill(mother, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="loader processes are forked on Linux")
@pytest.mark.parametrize("is_late", [False, True])
def test_a_loader_process_ends_when_its_parent_was_killed(is_late):
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    parent = context.Process(target=run_loader, args=(queue, is_late))
    parent.start()
    pid = queue.get()
    parent.join()
    wait_until(lambda: not psutil.pid_exists(pid), "the end of the loader process")


@pytest.mark.slow
def test_loaders_work_where_python_starts_processes_in_another_way():
    code = (
        "import multiprocessing\n"
        "from lib.data.clip_dataset import make_loader\n"
        "if __name__ == '__main__':\n"
        "    multiprocessing.set_start_method('forkserver')  # the default from Python 3.14 on\n"
        "    print([int(batch) for batch in make_loader(range(4), 2)])\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=120
    )
    assert process.stdout.strip() == "[0, 1, 2, 3]", process.stderr
