"""Loader processes and the signals of a job, from their first moment on."""

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
from lib.data.dataloader import STOP, _begin, start


def begin_slowly(worker: int) -> None:
    """Be signalled before a loader process begins as it should, as in its first moments."""
    for number in STOP:
        signal.signal(number, signal.SIG_DFL)  # what PyTorch sets first
        os.kill(os.getpid(), number)
    _begin(os.getppid(), worker)


def test_a_signal_in_the_first_moment_of_a_loader_process_does_not_end_it():
    batches = start(range(4), 1, worker_init_fn=begin_slowly)
    assert [int(batch) for batch in batches] == [0, 1, 2, 3]
    assert not set(STOP) & signal.pthread_sigmask(signal.SIG_BLOCK, [])  # they arrive here again


def die(queue: multiprocessing.Queue) -> None:
    """Start a loader process and die before it begins."""

    def orphaned(worker: int) -> None:
        queue.put(os.getpid())
        while psutil.pid_exists(mother) and os.getppid() == mother:
            time.sleep(0.01)
        _begin(mother, worker)

    mother = os.getpid()
    start(range(4), 1, worker_init_fn=orphaned)
    os._exit(0)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
def test_a_loader_process_whose_parent_died_before_it_began_ends():
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    parent = context.Process(target=die, args=(queue,))
    parent.start()
    pid = queue.get(timeout=60)
    parent.join()
    wait_until(lambda: not psutil.pid_exists(pid), "the end of the loader process")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the usual method serves")
def test_loader_processes_are_children_where_python_starts_processes_in_another_way():
    code = (
        "import multiprocessing\n"
        "from lib.data.dataloader import start\n"
        "if __name__ == '__main__':\n"
        "    multiprocessing.set_start_method('forkserver')  # the default from Python 3.14 on\n"
        "    batches = start(range(4), 2)\n"
        "    print([int(batch) for batch in batches])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.strip() == "[0, 1, 2, 3]", done.stderr
