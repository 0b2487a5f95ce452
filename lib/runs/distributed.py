"""Processes that are spawned: starting them, waiting for them, and which of them failed first."""

import math
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

import psutil
import torch
import torch.distributed as dist
from torch.multiprocessing import ProcessRaisedException

from lib.runs.device import resolve_device
from lib.runs.hang_detector import StandstillError
from lib.runs.signals import signal_name
from lib.runs.spawn_entry import begin

POLL_S = 0.3
GRACE_S = 1.0  # for the other processes to end by themselves when one failed


@dataclass(frozen=True)
class Rank:
    """A process that was spawned, and where it says how it failed."""

    process: BaseProcess
    failure: Connection


def start(function: Callable, *arguments: object) -> Rank:
    """Start a process that calls a function of a module, and ends with this one."""
    context = multiprocessing.get_context("spawn")
    reader, writer = context.Pipe(duplex=False)
    call = pickle.dumps((function, arguments))
    process = context.Process(target=begin, args=(os.getpid(), call, writer))
    process.start()
    writer.close()
    return Rank(process, reader)


def are_done(ranks: Sequence[Rank]) -> bool:
    """Wait a little; whether all ended well. Raises as `launch` does if one did not."""
    running = [rank.process for rank in ranks if rank.process.exitcode is None]
    wait([process.sentinel for process in running], POLL_S)
    if any(rank.process.exitcode for rank in ranks):
        end = time.monotonic() + GRACE_S
        for process in running:
            process.join(max(0.0, end - time.monotonic()))
        _raise_first(ranks)
    return all(rank.process.exitcode == 0 for rank in ranks)


def _raise_first(ranks: Sequence[Rank]) -> NoReturn:
    """Raise what ended first: a process that was killed, soon its neighbours fail; then by time."""
    killed = [n for n, rank in enumerate(ranks) if (rank.process.exitcode or 0) < 0]
    for number in sorted(killed, key=lambda n: ranks[n].process.exitcode == -signal.SIGABRT):
        ended = f"process {number} of {len(ranks)} was ended by"
        text = f"{ended} {signal_name(-ranks[number].process.exitcode)}; the same call goes on "
        raise ChildProcessError(text + "from the last checkpoint")
    said = [(*_last_word(rank), number) for number, rank in enumerate(ranks)]
    _, text, number = min(said)
    raise ProcessRaisedException(
        f"process {number} of {len(ranks)} failed:\n{text}", number, ranks[number].process.pid
    )


def _last_word(rank: Rank) -> tuple[float, str]:
    """Return when a process failed and its traceback; the end of time if it did not say."""
    try:
        return rank.failure.recv() if rank.failure.poll() else (math.inf, "it runs")
    except EOFError:
        return math.inf, f"it ended without a word, with status {rank.process.exitcode}"


def kill(rank: Rank) -> None:
    """Kill a process and what it has started: a loader that is stopped ends in no other way."""
    if rank.process.exitcode is not None:
        return
    with suppress(psutil.Error):
        for child in psutil.Process(rank.process.pid).children(recursive=True):
            child.kill()
    rank.process.kill()
    rank.process.join(GRACE_S)


FOLLOW_POLL_S = 0.3


@dataclass(frozen=True)
class DistContext:
    """The processes of a run, seen from one of them.

    Attributes:
        rank: This process, 0 … size − 1.
        world_size: Number of processes.
        device: Where this process computes.
    """

    rank: int
    world_size: int
    device: torch.device

    def all_reduce(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum a tensor over the processes, in place."""
        if self.world_size > 1:
            dist.all_reduce(tensor)
        return tensor

    def broadcast(self, value: Any) -> Any:
        """Return rank 0's value in all processes."""
        return self.all_gather(value)[0]

    def all_gather(self, value: object) -> list:
        """Return the values of all processes, in the order of their ranks."""
        if self.world_size == 1:
            return [value]
        values = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values


def is_in_torchrun() -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def resolve_num_processes(num_processes: int, device: str) -> int:
    """Return the number of processes for 0 (one per GPU, or one on a CPU), else the number itself.

    Under torchrun it is torchrun's.

    Raises:
        ValueError: If there are fewer GPUs than processes.
    """
    if is_in_torchrun():
        return int(os.environ["WORLD_SIZE"])
    if resolve_device(device) == "cpu":
        return max(1, num_processes)
    gpus = torch.cuda.device_count()
    if num_processes > gpus:
        raise ValueError(f"num_processes: {num_processes} were asked for, there are {gpus} GPUs")
    return num_processes or gpus


def launch(
    worker: Callable,
    args: tuple,
    num_processes: int,
    device: str,
    follow: Callable[[], None] = lambda: None,
) -> None:
    """Run `worker(world, *args)` in `num_processes` processes and wait for them.

    In a torchrun world the worker joins it. One process on a CPU runs right here, where a debugger
    reaches it; otherwise processes are spawned, so the worker must be importable and its arguments
    picklable. If one fails, the others are ended and its traceback is raised here.

    Each computes with one thread, or its share of OMP_NUM_THREADS: on a busy machine more threads
    are slower than one, and another number of them adds in another order, so that its results
    differ in the last digits.

    Args:
        worker: A function of a module, called as `worker(world, *args)`.
        args: Picklable.
        num_processes: As returned by `resolve_num_processes`.
        device: `cpu` or `cuda`.
        follow: Called a few times a second, and once more at the end, to show progress.

    Raises:
        ChildProcessError: If a signal has ended a process; names both.
        StandstillError: If `follow` raises it; the processes are ended.
        torch.multiprocessing.ProcessRaisedException: With the traceback of the failed process.
        KeyboardInterrupt: On Ctrl-C, where it has no other meaning; the processes are ended.
    """
    if is_in_torchrun():
        with _followed(follow) if os.environ["RANK"] == "0" else nullcontext():
            _join_torchrun(worker, args, device)
        return
    if num_processes == 1 and device == "cpu":
        with _followed(follow), _computing_with(num_threads(1)):
            worker(DistContext(0, 1, torch.device("cpu")), *args)
        return
    with TemporaryDirectory(prefix="rendezvous_", ignore_cleanup_errors=True) as folder:
        spawned = (worker, args, num_processes, device, f"file://{folder}/file")
        ranks = [start(_spawned, rank, *spawned) for rank in range(num_processes)]
        try:
            while not are_done(ranks):
                follow()
        finally:
            for rank in ranks:
                kill(rank)
            follow()


def num_threads(num_processes: int) -> int:
    """Return how many threads each process of `launch` computes with."""
    if is_in_torchrun():  # which sets OMP_NUM_THREADS for each process
        return torch.get_num_threads()
    return max(1, int(os.environ.get("OMP_NUM_THREADS", 1)) // num_processes)


@contextmanager
def _computing_with(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _followed(follow: Callable[[], None]) -> Iterator[None]:
    """Call `follow` from a thread while the body runs, and after it; pass StandstillError on."""
    ended, stood = threading.Event(), []

    def poll() -> None:
        while not ended.wait(FOLLOW_POLL_S):
            try:
                follow()
            except StandstillError as error:
                stood.append(error)
                _end_waiting(error)

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        try:
            yield
        finally:
            ended.set()
            thread.join()
            follow()
    except Exception as error:  # also of a second loader, which may die during the clean-up
        ended.set()
        raise (stood or [error])[0] from None


def _end_waiting(error: StandstillError) -> None:
    """Kill the loader's processes, of which the body notices; under torchrun end this process."""
    if is_in_torchrun():
        print(f"{error}; ended, the same call goes on from the last checkpoint", flush=True)
        exit_now(1)
    for child in multiprocessing.active_children():
        child.kill()


def _spawned(rank: int, worker: Callable, args: tuple, size: int, device: str, init: str) -> None:
    torch.set_num_threads(num_threads(size))
    _run_in_group(worker, args, rank, size, device, rank, init)
    exit_now(0)


def _join_torchrun(worker: Callable, args: tuple, device: str) -> None:
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    try:
        _run_in_group(worker, args, rank, size, device, int(os.environ["LOCAL_RANK"]), "env://")
    except BaseException:
        traceback.print_exc()
        exit_now(1)


def _run_in_group(
    worker: Callable, args: tuple, rank: int, size: int, device: str, local_rank: int, init: str
) -> None:
    here = torch.device(device, local_rank) if device == "cuda" else torch.device("cpu")
    if device == "cuda":
        torch.cuda.set_device(here)
    if size > 1:
        backend = "nccl" if device == "cuda" else "gloo"
        dist.init_process_group(
            backend, init_method=init, rank=rank, world_size=size, timeout=timedelta(minutes=30)
        )
    worker(DistContext(rank, size, here), *args)
    if size > 1:  # after a failure the others would be waited for, and nobody would hear of it
        dist.destroy_process_group()


def exit_now(status: int) -> NoReturn:
    """End a training process without taking the interpreter down piece by piece.

    A thread of gloo may still hold a tensor of the last collective; if it lets go of it while the
    interpreter ends, the process aborts although all its work is done (PyTorch's pull request
    179291 describes it).
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
