"""Results that a data set has per video: kept while they are made, so that no work is done twice.

The result of a video is an array of rows and the 0-based frame of each row: boxes for the actors,
probabilities for the teacher.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from lib.files import write_atomic

SAVE_EVERY_S = 20.0


class VideoRows(NamedTuple):
    """The result of one video.

    Attributes:
        rows: Shape (n, D).
        frames: 0-based frame of each row, sorted, shape (n,), int32.
    """

    rows: np.ndarray
    frames: np.ndarray


class UnfinishedRows:
    """The results so far, in a folder of files; open it with `with`, which saves at the end.

    Args:
        folder: The prepared folder.
        kind: What the results are, for the name of the folder.
        made_with: Settings that decide the results; results of other settings are not reused.
    """

    def __init__(self, folder: Path, kind: str, made_with: dict):
        key = hashlib.sha256(json.dumps(made_with, sort_keys=True).encode()).hexdigest()[:10]
        self.folder = Path(folder) / f"unfinished-{kind}-{key}"
        self._where: dict[str, tuple[Path, int]] = {}
        self._waiting: dict[str, VideoRows] = {}
        self._saved = time.monotonic()
        for path in sorted(self.folder.glob("*.safetensors")):
            with safe_open(path, framework="numpy") as file:
                names = unpack_names(file.get_tensor("names"))
            self._where |= {name: (path, position) for position, name in enumerate(names)}

    def __enter__(self) -> "UnfinishedRows":
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Save what has been added, whatever ended the block."""
        self.save()

    def __contains__(self, name: str) -> bool:
        """Tell whether a video's result is there."""
        return name in self._where or name in self._waiting

    def add(self, name: str, result: VideoRows) -> None:
        """Keep the result of one video; it is on disk at the latest after `SAVE_EVERY_S`."""
        self._waiting[name] = result
        if time.monotonic() - self._saved > SAVE_EVERY_S:
            self.save()

    def save(self) -> None:
        """Write what has been added since the last time."""
        self._saved = time.monotonic()
        if not self._waiting:
            return
        names, results = list(self._waiting), list(self._waiting.values())
        path = self.folder / f"{time.time_ns()}.safetensors"
        tensors = {
            "rows": np.concatenate([result.rows for result in results]),
            "frames": np.concatenate([result.frames for result in results]),
            "video_offsets": np.cumsum([0, *(len(result.rows) for result in results)]),
            "names": pack_names(names),
        }
        write_atomic(path, lambda temporary: save_file(tensors, temporary))
        self._where |= {name: (path, position) for position, name in enumerate(names)}
        self._waiting.clear()

    def read(self, names: Sequence[str]) -> Iterator[VideoRows]:
        """Yield the results of some videos, in their order; all must be there."""
        self.save()
        files: dict[Path, tuple] = {}
        for name in names:
            path, position = self._where[name]
            if path not in files:
                file = safe_open(path, framework="numpy").__enter__()
                offsets = file.get_tensor("video_offsets")
                files[path] = (file.get_slice("rows"), file.get_slice("frames"), offsets, file)
            rows, frames, offsets, _ = files[path]
            start, stop = int(offsets[position]), int(offsets[position + 1])
            if start == stop:  # safetensors refuses an empty slice at the end of the file
                width = rows.get_shape()[1]
                yield VideoRows(np.zeros((0, width), np.float32), np.zeros(0, np.int32))
            else:
                yield VideoRows(rows[start:stop], frames[start:stop])

    def remove(self) -> None:
        """Delete the folder: the results are somewhere else now."""
        shutil.rmtree(self.folder, ignore_errors=True)


def pack_names(names: Sequence[str]) -> np.ndarray:
    """Return names as one array of bytes, uint8."""
    return np.frombuffer("\n".join(names).encode(), dtype=np.uint8)


def unpack_names(packed: np.ndarray) -> list[str]:
    """Undo `pack_names`."""
    return packed.tobytes().decode().split("\n")


def write_streamed(
    path: Path,
    tensors: Mapping[str, np.ndarray],
    name: str,
    shape: tuple[int, ...],
    dtype: type,
    parts: Iterable[np.ndarray],
    metadata: Mapping[str, str],
) -> Path:
    """Write a safetensors file of which one array is larger than memory.

    Args:
        path: The file.
        tensors: The arrays that fit, by name.
        name: Name of the large array.
        shape: Its shape.
        dtype: Its type.
        parts: Its parts along the first axis.
        metadata: Texts by name.

    Raises:
        ValueError: If the parts are not as long as `shape` says.
    """
    header: dict = {"__metadata__": dict(metadata)}
    end = 0
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    for key, array in tensors.items():
        header[key] = _entry(array.dtype, array.shape, end, array.nbytes)
        end += array.nbytes
    header[name] = _entry(np.dtype(dtype), shape, end, size)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for array in tensors.values():
                file.write(np.ascontiguousarray(array).tobytes())
            written = sum(file.write(np.ascontiguousarray(p, dtype).tobytes()) for p in parts)
        if written != size:
            raise ValueError(f"{path}: {written} bytes of {name}, expected {size}")

    return write_atomic(path, write)


_TYPE_NAMES = {"float16": "F16", "float32": "F32", "int32": "I32", "int64": "I64", "uint8": "U8"}


def _entry(dtype: np.dtype, shape: tuple[int, ...], start: int, size: int) -> dict:
    return {
        "dtype": _TYPE_NAMES[dtype.name],
        "shape": list(shape),
        "data_offsets": [start, start + size],
    }
