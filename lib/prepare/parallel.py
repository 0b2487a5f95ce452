"""Work on many files in processes of which each may die without harm to the others.

A corrupt video can crash or freeze the library that decodes it. Here such a file costs its own
result and nothing else: the process is replaced and the work goes on.
"""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, TimeoutError, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context
from typing import Any

from pebble import ProcessExpired, ProcessFuture, ProcessPool


@dataclass(frozen=True)
class TaskResult:
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
) -> Iterator[TaskResult]:
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
    if not count:
        return
    pool = ProcessPool(count, initializer=_start, initargs=[function], context=get_context("spawn"))
    todo = ((pool.schedule(_call, [item], timeout=timeout_s), i) for i, item in enumerate(items))
    try:
        waiting = dict(islice(todo, 2 * count))  # no more: a pool looks through all that it has
        while waiting:
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                position = waiting.pop(future)
                waiting |= islice(todo, 1)
                yield TaskResult(position, *_result(future, timeout_s))
    finally:
        pool.stop()
        pool.join()


_function: Callable[[Any], Any]  # of a worker process, sent once; a detector keeps its session


def _start(function: Callable[[Any], Any]) -> None:
    global _function
    _function = function
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # decoders print there, at length


def _call(item: Any) -> Any:
    return _function(item)


def _result(future: ProcessFuture, timeout_s: float) -> tuple[Any, str | None]:
    """Return the value of a finished call, or why there is none."""
    try:
        return future.result(), None
    except BrokenProcessPool as error:
        raise RuntimeError(
            "no worker process could start (its own message stands above); a script that uses this "
            "needs `if __name__ == '__main__':`"
        ) from error
    except TimeoutError:
        return None, f"no result after {timeout_s:g} s, given up"
    except ProcessExpired as error:
        code = error.exitcode
        ending = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        return None, f"the decoder crashed ({ending})"
    except Exception as error:  # becomes the reason in the list of failures
        return None, str(error).strip() or type(error).__name__
