"""Training processes: their launch, their end, and the values they exchange."""

import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing import resource_tracker
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from lib.runs.device import resolve_device
from lib.runs.signals import block_signals, end_with_parent, ignore_signals, signal_name

POLL_S = 0.3
GRACE_S = 1.0  # for the other processes to end by themselves after one failed; twice
COLLECTIVE_TIMEOUT = timedelta(minutes=30)  # a process that waits longer for another one fails


@dataclass(frozen=True)
class DistContext:
    """One of the processes of a run: its rank, the number of processes, its device."""

    rank: int
    world_size: int
    device: torch.device

    def all_reduce(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum a tensor over the processes, in place."""
        if self.world_size > 1:
            dist.all_reduce(tensor)
        return tensor

    def broadcast(self, value: Any) -> Any:
        """Return rank 0's value in every process."""
        return self.all_gather(value)[0]

    def all_gather(self, value: Any) -> list:
        """Return the values of all processes, ordered by rank."""
        if self.world_size == 1:
            return [value]
        values = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values


def is_in_torchrun() -> bool:
    """Return True if torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def is_rank_0() -> bool:
    """Return False in a process of torchrun except its first one."""
    return not is_in_torchrun() or os.environ["RANK"] == "0"


def resolve_num_processes(num_processes: int, device: str) -> int:
    """Return the number of processes; 0 means torchrun's, or one per GPU, or one on a CPU."""
    if is_in_torchrun():
        return int(os.environ["WORLD_SIZE"])
    if resolve_device(device) == "cpu":
        return max(1, num_processes)
    gpus = torch.cuda.device_count()
    if num_processes > gpus:
        raise ValueError(f"num_processes: {num_processes} is more than the {gpus} GPUs; use 0")
    return num_processes or gpus


def num_threads(num_processes: int) -> int:
    """Return the number of threads of each process: 1, or its share of OMP_NUM_THREADS.

    Another number of threads adds in another order, which changes the last digits.
    """
    if is_in_torchrun():  # which sets OMP_NUM_THREADS for each process
        return torch.get_num_threads()
    return max(1, int(os.environ.get("OMP_NUM_THREADS", 1)) // num_processes)


def launch(
    worker: Callable,
    args: tuple,
    num_processes: int,
    device: str,
    on_poll: Callable[[], None] = lambda: None,
) -> None:
    """Call `worker(world, *args)` in `num_processes` processes and wait for them.

    Under torchrun this process joins torchrun's group. One process on a CPU is this process, where
    a debugger reaches it. Otherwise processes are spawned, with pickled arguments; if one fails,
    the others are killed. The error is a ProcessRaisedException with its traceback, or a
    ChildProcessError if a signal ended it. `on_poll` is called every 0.3 seconds from a thread of
    this process (under torchrun: of rank 0), and once at the end.
    """
    if is_in_torchrun():
        rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        try:
            with _polling(on_poll if rank == 0 else lambda: None):
                _run(rank, size, device, "env://", worker, args)
        except BaseException:
            traceback.print_exc()
            exit_now(1)
    elif num_processes == 1 and device == "cpu":
        threads = torch.get_num_threads()
        torch.set_num_threads(num_threads(1))
        try:
            with _polling(on_poll):
                worker(DistContext(0, 1, torch.device("cpu")), *args)
        finally:
            torch.set_num_threads(threads)
    else:
        with _polling(on_poll), TemporaryDirectory(prefix="rendezvous_") as folder:
            _spawn(num_processes, device, f"file://{folder}/store", worker, args)


@contextmanager
def _polling(function: Callable[[], None]) -> Iterator[None]:
    is_ended = threading.Event()

    def poll() -> None:
        while not is_ended.wait(POLL_S):
            function()

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_ended.set()
        thread.join()
        function()


def _spawn(num_processes: int, *arguments: Any) -> None:
    resource_tracker.ensure_running()  # its start would unblock the signals
    with block_signals():  # in the processes too, until they ignore them
        spawned = (os.getpid(), num_processes, *arguments)
        context = mp.spawn(_spawned, spawned, num_processes, join=False)
    try:
        is_done = False
        while not is_done:
            for rank, process in enumerate(context.processes):  # others fail because of this one
                is_killed = (process.exitcode or 0) < 0
                if is_killed and not Path(context.error_files[rank]).exists():  # no exception
                    raise _killed(rank, num_processes, -process.exitcode)
            is_done = context.join(timeout=POLL_S, grace_period=GRACE_S)
    except mp.ProcessExitedException as error:
        if error.exit_code < 0:
            raise _killed(error.error_index, num_processes, -error.exit_code) from error
        raise
    finally:
        for process in context.processes:
            process.kill()
            process.join()


def _killed(rank: int, num_processes: int, number: int) -> ChildProcessError:
    problem = f"process {rank} of {num_processes}: ended by {signal_name(number)}"
    return ChildProcessError(f"{problem}; the same call continues from the last checkpoint")


def _spawned(rank: int, parent: int, size: int, *arguments: Any) -> None:
    ignore_signals()  # the parent process handles them
    end_with_parent(parent)
    torch.set_num_threads(num_threads(size))
    _run(rank, size, *arguments)
    exit_now(0)


def _run(rank: int, size: int, device: str, store: str, worker: Callable, args: tuple) -> None:
    rank_device = torch.device("cpu")
    if device == "cuda":
        rank_device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", rank)))
        torch.cuda.set_device(rank_device)
    if size > 1:
        backend = "nccl" if device == "cuda" else "gloo"
        dist.init_process_group(backend, store, COLLECTIVE_TIMEOUT, size, rank)
    worker(DistContext(rank, size, rank_device), *args)
    if size > 1:  # not after a failure: it would wait for the other processes
        dist.destroy_process_group()


def exit_now(status: int) -> NoReturn:
    """Exit without interpreter shutdown, during which threads of gloo may abort the process.

    Source: PyTorch's pull request 179291 (a thread still holds a tensor of the last collective).
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
