"""Loader processes that ignore Ctrl-C and SIGTERM, and end with the training process.

A cluster sends signals to all processes of a job. The training process decides what they mean, and
needs its loaders until it has finished the current step.
"""

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from functools import partial
from multiprocessing.sharedctypes import RawValue
from multiprocessing.util import Finalize
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

TIMEOUT_S = 600.0  # for one batch; a loader process that takes longer hangs


def make_loader(dataset: Dataset, num_workers: int, **options: Any) -> Iterator:
    """Start loading and return the iterator over the batches.

    Args:
        dataset: A map-style data set.
        num_workers: Number of loader processes; 0 loads in this process.
        options: Further arguments of PyTorch's `DataLoader`.
    """
    is_ending = RawValue("b", 0)
    if num_workers:
        options = {
            "num_workers": num_workers,
            "worker_init_fn": partial(_begin, is_ending),
            "timeout": TIMEOUT_S,
            # A fork starts at once; it is not the default on Linux from Python 3.14 on.
            "multiprocessing_context": "fork" if sys.platform == "linux" else None,
            **options,
        }
    generator = torch.Generator()  # leaves the global one alone
    batches = iter(DataLoader(dataset, generator=generator, **options))
    # When this process exits, Python first calls this, then terminates the loaders by SIGTERM.
    Finalize(batches, setattr, (is_ending, "value", 1), exitpriority=0)
    return batches


def _begin(is_ending: Any, worker_id: int) -> None:
    """Ignore the signals in a loader process, except for SIGTERM when its parent exits."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0) if is_ending.value else None)
    if not multiprocessing.parent_process().is_alive():  # PyTorch notices only a later death
        os._exit(1)
