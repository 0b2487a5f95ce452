"""Processes that are spawned: starting them, waiting for them, and which of them failed first."""

import math
import multiprocessing
import os
import pickle
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import NoReturn

import psutil
from torch.multiprocessing import ProcessRaisedException

from lib.run.begin import begin
from lib.run.stop import signal_name

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
