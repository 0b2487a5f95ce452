"""Loader processes: what Ctrl-C and SIGTERM mean is for the training process, and they end with it.

A cluster sends signals to all processes of a job, and one that makes clips is still needed.
"""

import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from functools import partial
from multiprocessing.queues import Queue
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

STOP = (signal.SIGINT, signal.SIGTERM)


def start(dataset: Dataset, num_workers: int, **options: Any) -> Iterator:
    """Start a loader; signals wait until they are ignored in its processes (`_begin`).

    These begin as copies of this one, as its children; Python 3.14 would do otherwise on Linux.

    Args:
        dataset: What is loaded.
        num_workers: Number of processes; 0 loads here.
        options: Of PyTorch's `DataLoader`.
    """
    if num_workers:
        context = "fork" if sys.platform == "linux" else None
        own = {"worker_init_fn": partial(_begin, os.getpid()), "multiprocessing_context": context}
        options = {"num_workers": num_workers, **own, **options}
    loader = DataLoader(dataset, generator=torch.Generator(), **options)  # not the global one
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP)
    try:
        return iter(loader)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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
