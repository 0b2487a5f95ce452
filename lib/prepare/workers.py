"""Work on many files in processes of which each may die without harm to the others.

A corrupt video can crash or freeze the library that decodes it. Here such a file costs its own
result and nothing else: the process is replaced and the work goes on.
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any

START_S = 300.0  # longest time for a process to start; a busy cluster's disk is slow


@dataclass(frozen=True)
class Outcome:
    """What came of one item.

    Attributes:
        position: Position of the item.
        value: What the function returned; None where it failed.
        error: Why there is no value; None where there is one.
    """

    position: int
    value: Any = None
    error: str | None = None


def num_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def map_in_workers(
    function: Callable[[Any], Any],
    items: Sequence[Any],
    num_processes: int = 0,
    timeout_s: float = 300.0,
) -> Iterator[Outcome]:
    """Call a function on every item in spawned processes; yield what is ready.

    An exception, the death of a process or a time-out becomes the `error` of that item.

    Args:
        function: A function of a module, or an object that can be pickled and called.
        items: Its arguments; anything that can be pickled.
        num_processes: Processes; 0 for one per core.
        timeout_s: Longest time for one item, seconds.

    Yields:
        One outcome per item, in the order in which they are ready.

    Raises:
        RuntimeError: If no process can be started at all.
    """
    count = min(num_processes or num_cores(), len(items))
    rest = iter(enumerate(items))
    busy: dict[Connection, _Worker] = {}
    try:
        for _ in range(count):
            _give(_Worker(function), rest, busy, timeout_s)
        while busy:
            overdue = min(worker.deadline for worker in busy.values())
            ready = wait(list(busy), timeout=max(0.0, overdue - time.monotonic()))
            now = time.monotonic()
            late = [c for c, worker in busy.items() if worker.deadline <= now and c not in ready]
            for connection in [*ready, *late]:
                worker = busy.pop(connection)
                outcome = worker.timed_out(timeout_s) if connection in late else worker.receive()
                if outcome is None:
                    worker.deadline = now + timeout_s
                    busy[connection] = worker
                    continue
                _give(worker if worker.is_alive else _Worker(function), rest, busy, timeout_s)
                yield outcome
    finally:
        for worker in busy.values():
            worker.stop()


def _give(worker: "_Worker", rest: Iterator, busy: dict, timeout_s: float) -> None:
    """Send the next item to a worker, or stop it where none is left."""
    position, item = next(rest, (None, None))
    if position is None:
        worker.stop()
        return
    worker.send(position, item, timeout_s)
    busy[worker.connection] = worker


class _Worker:
    """One process that waits for items; it is started with its first item."""

    def __init__(self, function: Callable):
        self.function = function
        self.connection: Connection | None = None
        self.is_alive = True
        self.has_started = False
        self.position, self.deadline = -1, 0.0

    def send(self, position: int, item: Any, timeout_s: float) -> None:
        if self.connection is None:
            context = get_context("spawn")
            self.connection, other = context.Pipe()
            self.process = context.Process(target=_serve, args=(other, self.function), daemon=True)
            self.process.start()
            other.close()
        self.position, self.deadline = position, time.monotonic() + timeout_s
        if not self.has_started:
            self.deadline += START_S
        with contextlib.suppress(ConnectionError):  # it has died meanwhile; `receive` will say so
            self.connection.send(item)

    def receive(self) -> Outcome | None:
        """Return the outcome that has arrived, or None where the process has only just started."""
        try:
            value, error = self.connection.recv()
        except (EOFError, ConnectionError):
            self.process.join()
            self.stop()
            if not self.has_started:
                raise RuntimeError(
                    f"a worker process could not start ({self._ending()}; its own message stands "
                    "above); a script that uses this needs `if __name__ == '__main__':`"
                ) from None
            return Outcome(self.position, error=f"the decoder crashed ({self._ending()})")
        if not self.has_started:
            self.has_started = True
            return None
        return Outcome(self.position, value, error)

    def timed_out(self, timeout_s: float) -> Outcome:
        self.stop()
        return Outcome(self.position, error=f"no result after {timeout_s:g} s, given up")

    def _ending(self) -> str:
        code = self.process.exitcode or 0
        return signal.Signals(-code).name if code < 0 else f"exit status {code}"

    def stop(self) -> None:
        self.is_alive = False
        if self.connection is not None:
            self.process.kill()
            self.process.join()
            self.connection.close()


def _serve(connection: Connection, function: Callable) -> None:
    """Say that the process has started, then answer items until the other side is gone."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # decoders print there, at length
    connection.send((None, None))
    while True:
        try:
            item = connection.recv()
        except (EOFError, KeyboardInterrupt):
            return
        try:
            answer = (function(item), None)
        except Exception as error:  # becomes the reason in the list of failures
            answer = (None, str(error).strip() or type(error).__name__)
        connection.send(answer)
