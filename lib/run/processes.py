"""Training processes: starting them, following them, and what they tell each other."""

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
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from tempfile import TemporaryDirectory
from typing import NoReturn

import torch
import torch.distributed as dist
from torch.multiprocessing import ProcessRaisedException

from lib.run.begin import begin
from lib.run.devices import resolve_device

FOLLOW_POLL_S = 0.3
GRACE_S = 1.0  # for the other processes to end by themselves when one failed


@dataclass(frozen=True)
class World:
    """The processes of a run, seen from one of them.

    Attributes:
        rank: This process, 0 … size − 1.
        size: Number of processes.
        device: Where this process computes.
    """

    rank: int
    size: int
    device: torch.device

    def sum_(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum a tensor over the processes, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def agree(self, flag: bool) -> bool:
        """Return rank 0's flag in all processes."""
        if self.size == 1:
            return flag
        value = torch.tensor([int(flag)], device=self.device)
        dist.broadcast(value, 0)
        return bool(value.item())

    def gather(self, value: object) -> list:
        """Return the values of all processes, in the order of their ranks."""
        if self.size == 1:
            return [value]
        values = [None] * self.size
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
        torch.multiprocessing.ProcessRaisedException: With the traceback of the failed process.
        KeyboardInterrupt: On Ctrl-C, where it has no other meaning; the processes are ended.
    """
    if is_in_torchrun():
        with _followed(follow) if os.environ["RANK"] == "0" else nullcontext():
            _join_torchrun(worker, args, device)
        return
    if num_processes == 1 and device == "cpu":
        with _followed(follow), _computing_with(num_threads(1)):
            worker(World(0, 1, torch.device("cpu")), *args)
        return
    with TemporaryDirectory(prefix="rendezvous_", ignore_cleanup_errors=True) as folder:
        spawned = (worker, args, num_processes, device, f"file://{folder}/file")
        ranks = [_start(rank, *spawned) for rank in range(num_processes)]
        try:
            while not _are_done(ranks):
                follow()
        finally:
            for rank in ranks:
                rank.process.kill()
            follow()


@dataclass(frozen=True)
class Rank:
    """A process that was spawned, and where it says how it failed."""

    process: BaseProcess
    failure: Connection


def _start(rank: int, *spawned: object) -> Rank:
    context = multiprocessing.get_context("spawn")
    reader, writer = context.Pipe(duplex=False)
    call = pickle.dumps((_spawned, (rank, *spawned)))
    process = context.Process(target=begin, args=(os.getpid(), call, writer))
    process.start()
    writer.close()
    return Rank(process, reader)


def _are_done(ranks: Sequence[Rank]) -> bool:
    """Wait a little; whether all ended well. Raises as `launch` does if one did not."""
    running = [rank.process for rank in ranks if rank.process.exitcode is None]
    wait([process.sentinel for process in running], FOLLOW_POLL_S)
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


def signal_name(number: int) -> str:
    """Return the name of a signal that ended a process, with what it often means."""
    hint = ", as the system does when memory is short" if number == signal.SIGKILL else ""
    return signal.Signals(number).name + hint


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
    """Call `follow` from a thread while the body runs, and once more after it."""
    ended = threading.Event()

    def poll() -> None:
        while not ended.wait(FOLLOW_POLL_S):
            follow()

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        follow()


def _spawned(
    rank: int,
    worker: Callable,
    args: tuple,
    size: int,
    device: str,
    init: str,
) -> None:
    torch.set_num_threads(num_threads(size))
    _run_in_group(worker, args, rank, size, device, rank, init)
    leave(0)


def _join_torchrun(worker: Callable, args: tuple, device: str) -> None:
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    try:
        _run_in_group(worker, args, rank, size, device, int(os.environ["LOCAL_RANK"]), "env://")
    except BaseException:
        traceback.print_exc()
        leave(1)


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
    worker(World(rank, size, here), *args)
    if size > 1:  # after a failure the others would be waited for, and nobody would hear of it
        dist.destroy_process_group()


def leave(status: int) -> NoReturn:
    """End a training process without taking the interpreter down piece by piece.

    A thread of gloo may still hold a tensor of the last collective; if it lets go of it while the
    interpreter ends, the process aborts although all its work is done (PyTorch's pull request
    179291 describes it).
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
