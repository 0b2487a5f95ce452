"""Making rows for the frames of every video, in several processes; results are kept until the end.

They are kept video by video while they are made, so that no work is done twice.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from lib.data.dataset import VideoDataset, VideoRecord
from lib.data.frame_tables import FrameRows, FrameTable, write_table
from lib.prepare.parallel import map_in_workers

SAVE_EVERY_S = 20.0
TIMEOUT_S = 3600.0  # for one video


@contextmanager
def rows_of_videos(
    dataset: VideoDataset,
    results: "UnfinishedRows",
    work: Callable[[VideoRecord], Any],
    num_processes: int,
    title: str,
    finish: Callable[[Any], FrameRows] | None = None,
) -> Iterator[Iterator[FrameRows]]:
    """Make the rows of all videos; continue where an earlier call was.

    Args:
        dataset: The prepared data set.
        results: What there is already; it is removed when the body of `with` has ended well.
        work: Called with a video in a worker process, gives its rows; can be pickled.
        num_processes: Worker processes; 0 for one per core.
        title: What is done, for the progress bar.
        finish: Turns what `work` gave into rows, in this process; None where it gave rows.

    Yields:
        The rows, in the order of the index.

    Raises:
        ValueError: If videos cannot be read; names the first. The rows of the others are kept.
    """
    names = dataset.index["name"].tolist()
    failures = {}
    with results:
        records = [dataset.record(row) for row, name in enumerate(names) if name not in results]
        done = len(names) - len(records)
        outcomes = map_in_workers(work, records, num_processes, TIMEOUT_S)
        for outcome in tqdm(outcomes, title, len(names), initial=done, unit="video"):
            name = records[outcome.position].name
            if outcome.error is None:
                results.add(name, finish(outcome.value) if finish else outcome.value)
            else:
                failures[name] = outcome.error
    if failures:
        name, reason = next(iter(failures.items()))
        raise ValueError(
            f"{dataset.folder}: no {results.kind} could be made for {len(failures)} of "
            f"{len(names)} videos, the first: {name}: {reason}; the others are kept, run this "
            "again when it is mended"
        )
    yield results.read(names)
    results.remove()


class UnfinishedRows:
    """The results so far, in a folder of tables; open it with `with`, which saves at the end.

    Args:
        folder: The prepared folder.
        kind: What the results are, for the name of the folder and messages.
        made_with: Settings that decide the results; results of other settings are not reused.
        empty: No rows, shape (0, D), of the type to write.
    """

    def __init__(self, folder: Path, kind: str, made_with: Mapping, empty: np.ndarray):
        key = hashlib.sha256(json.dumps(made_with, sort_keys=True).encode()).hexdigest()[:10]
        self.folder = Path(folder) / f"unfinished-{kind}-{key}"
        self.kind, self.empty = kind, empty
        self._where: dict[str, tuple[FrameTable, int]] = {}
        self._waiting: dict[str, FrameRows] = {}
        self._saved = time.monotonic()
        for path in sorted(self.folder.glob("*.safetensors")):
            self._remember(path)

    def __enter__(self) -> "UnfinishedRows":
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Save what has been added, whatever ended the block."""
        self.save()

    def __contains__(self, name: str) -> bool:
        """Tell whether a video's result is there."""
        return name in self._where or name in self._waiting

    def add(self, name: str, result: FrameRows) -> None:
        """Keep the result of one video; it is on disk at the latest after `SAVE_EVERY_S`."""
        self._waiting[name] = result
        if time.monotonic() - self._saved > SAVE_EVERY_S:
            self.save()

    def save(self) -> None:
        """Write what has been added since the last time."""
        self._saved = time.monotonic()
        if self._waiting:
            path = self.folder / f"{time.time_ns()}.safetensors"
            write_table(path, "rows", [*self._waiting], self._waiting.values(), self.empty)
            self._remember(path)
            self._waiting.clear()

    def _remember(self, path: Path) -> None:
        table = FrameTable(path, "rows")
        self._where |= {name: (table, position) for position, name in enumerate(table.names)}

    def read(self, names: Sequence[str]) -> Iterator[FrameRows]:
        """Yield the results of some videos, in their order; all must be there."""
        self.save()
        for table, position in map(self._where.__getitem__, names):
            yield FrameRows(table.rows(position), table.frames(position))

    def remove(self) -> None:
        """Delete the folder: the results are somewhere else now."""
        shutil.rmtree(self.folder, ignore_errors=True)
