"""Loader processes and the signals of a job, from their first moment on."""

import multiprocessing
import os
import signal
import time

import psutil
import pytest
from test_distributed import wait_until
from torch.utils.data import DataLoader

from lib.data.loading import STOP, start, worker_start


def begin_slowly(worker: int) -> None:
    """Be signalled before a loader process begins as it should, as in its first moments."""
    for number in STOP:
        signal.signal(number, signal.SIG_DFL)  # what PyTorch sets first
        os.kill(os.getpid(), number)
    worker_start(1).func(os.getppid(), worker)


def test_a_signal_in_the_first_moment_of_a_loader_process_does_not_end_it():
    batches = start(DataLoader(range(4), num_workers=1, worker_init_fn=begin_slowly))
    assert [int(batch) for batch in batches] == [0, 1, 2, 3]
    assert not set(STOP) & signal.pthread_sigmask(signal.SIG_BLOCK, [])  # they arrive here again


def die(queue: multiprocessing.Queue) -> None:
    """Start a loader process and die before it begins."""

    def orphaned(worker: int) -> None:
        queue.put(os.getpid())
        while psutil.pid_exists(mother) and os.getppid() == mother:
            time.sleep(0.01)
        begin(worker)

    mother, begin = os.getpid(), worker_start(1)
    start(DataLoader(range(4), num_workers=1, worker_init_fn=orphaned))
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
