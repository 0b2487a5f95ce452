"""Loader processes: what Ctrl-C and SIGTERM mean is for the training process, and they end with it.

A cluster sends signals to all processes of a job, and one that makes clips is still needed.
"""

import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.queues import Queue

from torch.utils.data import DataLoader

STOP = (signal.SIGINT, signal.SIGTERM)


def worker_start(num_workers: int) -> Callable[[int], None] | None:
    """Return what each loader process of this process does first; None without such."""
    return partial(_begin, os.getpid()) if num_workers else None


def _begin(parent: int, worker: int) -> None:
    """Take no notice of signals, but of a SIGTERM of the training process itself.

    So it ends its loaders when it ends after an error, and would wait for them forever.
    """
    Queue._on_queue_feeder_error = staticmethod(_end_unsent)  # which else only prints the error
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_by, args=(parent,), daemon=True).start()
    else:  # macOS has it not
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.getppid() != parent:  # it died meanwhile, which PyTorch would never notice
        os._exit(1)


def _end_by(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)


def _end_unsent(error: Exception, batch: object) -> None:
    """End a loader that cannot hand over a batch: by SIGBUS, if shared memory is too small."""
    traceback.print_exception(error)
    os.kill(os.getpid(), signal.SIGBUS if "No space left" in str(error) else signal.SIGKILL)


def start(loader: DataLoader) -> Iterator:
    """Start a loader's processes; signals wait until they are ignored in them (`worker_start`)."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP)
    try:
        return iter(loader)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
