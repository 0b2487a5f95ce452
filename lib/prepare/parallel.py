"""Process many videos in worker processes; a crash costs only the file that caused it.

A corrupt video can crash or freeze the library that decodes it. The process is then replaced, and
the crash becomes the error of that file.
"""

import hashlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, TimeoutError, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import get_context
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pebble import ProcessExpired, ProcessFuture, ProcessPool
from tqdm.auto import tqdm

from lib.data.dataset import VideoDataset, VideoRecord
from lib.data.frame_tables import FrameRows, FrameTable
from lib.fileio import write_atomic

TIMEOUT_S = 3600.0  # for one video


class TaskResult(NamedTuple):
    """Result of the item at a position: the function's value, or the reason of its failure."""

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
    timeout_s: float = TIMEOUT_S,
) -> Iterator[TaskResult]:
    """Call a function on every item in worker processes; yield results as they are ready.

    An exception, the death of a process or a time-out becomes the `error` of that item. Function
    and items must be picklable; 0 processes are one per core. RuntimeError if no process can be
    started at all.
    """
    count = min(num_processes or num_cores(), len(items))
    if not count:
        return
    pool = ProcessPool(count, initializer=_start, initargs=[function], context=_context())
    todo = ((pool.schedule(_call, [item], timeout=timeout_s), i) for i, item in enumerate(items))
    try:
        waiting = dict(islice(todo, 2 * count))  # no more: pebble polls all that are scheduled
        while waiting:
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                position = waiting.pop(future)
                waiting |= islice(todo, 1)
                yield TaskResult(position, *_result(future, timeout_s))
    finally:
        pool.stop()
        pool.join()


def _context() -> BaseContext:
    """Return the context of new processes.

    On Linux they are forked from a process that has imported this module: a tenth of the start.
    """
    if sys.platform != "linux":
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def compute_table(
    dataset: VideoDataset,
    table: type[FrameTable],
    work: Callable[[VideoRecord], Any],
    made_with: Mapping,
    title: str,
    num_processes: int = 0,
    finish: Callable[[Any], FrameRows] | None = None,
) -> Path:
    """Compute a table of all videos in worker processes; return its path.

    The rows of each video are first written to a file in a folder of these settings. A file that
    exists is done, so a repeated call continues where an earlier one ended.

    `work` is called with a record in a worker process and returns `FrameRows`, or what `finish`
    turns into them in this process. `made_with` are the settings of the work, plain JSON; `title`
    is the text of the progress bar.
    """
    folder = dataset.folder / f"unfinished-{table.rows_name}-{_digest(json.dumps(made_with))}"
    records = [dataset.record(row) for row in range(len(dataset.index))]
    paths = [
        folder / f"{_digest(f'{record.name}|{record.num_frames}|{record.fingerprint}')}.npz"
        for record in records  # their names may be too long for a file
    ]
    todo = [row for row, path in enumerate(paths) if not path.is_file()]
    results = map_in_workers(work, [records[row] for row in todo], num_processes)
    errors = []
    done = len(records) - len(todo)
    for result in tqdm(results, title, len(records), initial=done, unit="video"):
        row = todo[result.position]
        if result.error is not None:
            errors.append(f"{records[row].name}: {result.error}")
            continue
        rows = result.value if finish is None else finish(result.value)
        write_atomic(paths[row], lambda path, rows=rows: np.savez(path, **rows._asdict()))
    if errors:
        raise ValueError(
            f"{dataset.folder}: {title}: {len(errors)} of {len(records)} videos failed, the first: "
            f"{errors[0]}; fix or remove these videos and run again (other results are kept)"
        )
    names, num_frames = dataset.index["name"].tolist(), dataset.index["frames"].tolist()
    path = table.write(dataset.folder, names, num_frames, map(_read_rows, paths), made_with)
    shutil.rmtree(folder)
    return path


def _read_rows(path: Path) -> FrameRows:
    with np.load(path) as arrays:
        return FrameRows(**arrays)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:20]


_function: Callable[[Any], Any]  # of a worker process, sent once; a detector keeps its session


def _start(function: Callable[[Any], Any]) -> None:
    global _function
    _function = function
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # decoders print many messages there


def _call(item: Any) -> Any:
    return _function(item)


def _result(future: ProcessFuture, timeout_s: float) -> tuple[Any, str | None]:
    """Return the value of a finished call and its error."""
    try:
        return future.result(), None
    except BrokenProcessPool as error:
        raise RuntimeError(
            "no worker process could start (see its own message above); a script that calls this "
            "needs `if __name__ == '__main__':`"
        ) from error
    except TimeoutError:
        return None, f"no result after {timeout_s:g} s, given up"
    except ProcessExpired as error:
        code = error.exitcode
        ending = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        return None, f"the decoder crashed ({ending})"
    except Exception as error:
        return None, str(error).strip() or type(error).__name__
