"""Process many videos in worker processes; a crash costs only the file that caused it.

A corrupt video can crash or freeze the library that decodes it. The process is then replaced, and
the crash becomes the error of that file.
"""

import hashlib
import json
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, TimeoutError, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from pebble import ProcessExpired, ProcessFuture, ProcessPool
from tqdm.auto import tqdm

from lib.data.dataset import VideoDataset, VideoRecord
from lib.data.frame_tables import FrameRows
from lib.fileio import write_atomic

TIMEOUT_S = 3600.0  # for one video


@dataclass(frozen=True)
class TaskResult:
    """Result of one item.

    Attributes:
        position: Position of the item.
        value: Return value of the function; None if it failed.
        error: Reason of the failure; None if there is a value.
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
    timeout_s: float = TIMEOUT_S,
) -> Iterator[TaskResult]:
    """Call a function on every item in spawned processes; yield results as they are ready.

    An exception, the death of a process or a time-out becomes the `error` of that item.

    Args:
        function: A function of a module, or an object that can be pickled and called.
        items: Its arguments; anything that can be pickled.
        num_processes: Processes; 0 for one per core.
        timeout_s: Longest time for one item, seconds.

    Raises:
        RuntimeError: If no process can be started at all.
    """
    count = min(num_processes or num_cores(), len(items))
    if not count:
        return
    pool = ProcessPool(count, initializer=_start, initargs=[function], context=get_context("spawn"))
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


def map_videos(
    dataset: VideoDataset,
    work: Callable[[VideoRecord], Any],
    folder: Path,
    title: str,
    num_processes: int = 0,
    finish: Callable[[Any], FrameRows] | None = None,
) -> Iterator[FrameRows]:
    """Compute rows for the frames of every video in worker processes; one file per video.

    A file that exists is done, so a repeated call continues where an earlier one ended.

    Args:
        dataset: The prepared data set.
        work: Called with a record in a worker process; returns rows, or the input of `finish`. It
            must be picklable.
        folder: Folder of the files, from `results_folder`; the caller deletes it after reading.
        title: Text of the progress bar.
        num_processes: Worker processes; 0 for one per core.
        finish: Called in this process on what `work` returned; returns rows.

    Returns:
        The rows of each video, in the order of the index, read one by one.

    Raises:
        ValueError: If the work failed for some videos; names the first. Other results are kept.
    """
    records = [dataset.record(row) for row in range(len(dataset.index))]
    paths = [folder / _result_name(record) for record in records]
    todo = [row for row, path in enumerate(paths) if not path.is_file()]
    results = map_in_workers(work, [records[row] for row in todo], num_processes)
    errors = {}
    done = len(records) - len(todo)
    for result in tqdm(results, title, len(records), initial=done, unit="video"):
        row = todo[result.position]
        if result.error is not None:
            errors[records[row].name] = result.error
            continue
        rows = result.value if finish is None else finish(result.value)
        write_atomic(paths[row], lambda path, rows=rows: np.savez(path, **rows._asdict()))
    if errors:
        name, error = next(iter(errors.items()))
        raise ValueError(
            f"{dataset.folder}: {title}: {len(errors)} of {len(records)} videos failed, the first: "
            f"{name}: {error}. Other results are kept: fix or remove these videos and run again"
        )
    return map(_read_rows, paths)


def _read_rows(path: Path) -> FrameRows:
    with np.load(path) as arrays:
        return FrameRows(arrays["rows"], arrays["frames"])


def results_folder(prepared: Path, kind: str, made_with: Mapping) -> Path:
    """Return the folder of unfinished results; results of other settings have another folder."""
    key = hashlib.sha256(json.dumps(made_with, sort_keys=True).encode()).hexdigest()[:10]
    return Path(prepared) / f"unfinished-{kind}-{key}"


def _result_name(record: VideoRecord) -> str:
    """Return a file name that changes with the video; names of videos may be too long for one."""
    key = f"{record.name}|{record.num_frames}|{record.fingerprint}"
    return f"{hashlib.sha256(key.encode()).hexdigest()[:20]}.npz"


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
