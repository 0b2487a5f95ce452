"""Import of the reference's pickled person boxes, without running code.

Format: {video: {1-based frame: array (n, 5) of x1, y1, x2, y2, score}}. A video's name is its file
name without the suffix, in Kinetics the first 11 characters (the YouTube id).
"""

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from lib.data.dataset import VideoDataset
from lib.data.frame_tables import FrameRows, PersonBoxes
from lib.fileio import reading
from lib.prepare.download import sha256_of
from lib.prepare.published_splits import has_youtube_ids, stem_of, youtube_id

REMEDY = "use a file of the reference, or detect the people"
DTYPES = {"b1", "f2", "f4", "f8", "O8"} | {kind + size for kind in "iu" for size in "1248"}


class _Dtype:
    """Stand-in for `numpy.dtype`: a number, or objects; the fields of a structure are ignored."""

    def __init__(self, code: str, *_: object):
        if code not in DTYPES:
            raise pickle.UnpicklingError(f"it asks for an array of {code!r}")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array(np.ndarray):
    """Array that is created empty and filled from its state, in native byte order."""

    def __setstate__(self, state: tuple) -> None:
        _, shape, kind, is_fortran, data = state
        if kind.dtype != object:
            shape = _from_buffer(data, kind, shape).shape  # as many numbers as bytes
        elif shape != () or type(data) is not list:
            raise pickle.UnpicklingError("it asks for an array of objects")
        super().__setstate__((1, shape, kind.dtype, is_fortran, data))


def _from_buffer(data: bytes, kind: _Dtype, shape: tuple, order: str = "C") -> np.ndarray:
    return np.frombuffer(data, kind.dtype).reshape(shape, order=order)


_ALLOWED: dict[str, Any] = {
    "numpy.ndarray": None,  # an argument of `_reconstruct`, never called
    "numpy.dtype": _Dtype,
    "_codecs.encode": str.encode,  # older pickles create bytes with it
    "builtins.bytes": lambda: b"",
    "__builtin__.bytes": lambda: b"",
}
for _package in ("numpy.core", "numpy._core"):  # NumPy 1, NumPy 2
    _ALLOWED |= {
        f"{_package}.multiarray._reconstruct": lambda *_: np.ndarray.__new__(_Array, (0,)),
        f"{_package}.multiarray.scalar": lambda kind, data: _from_buffer(data, kind, (1,))[0],
        f"{_package}.numeric._frombuffer": _from_buffer,
    }


class _SafeUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return _ALLOWED[f"{module}.{name}"]


def load_arrays(path: Path) -> Any:
    """Read a pickle, or a `.npy` file that contains one, of arrays and built-in containers.

    ValueError if it cannot be read or asks for anything else.
    """
    with reading(path, REMEDY), open(path, "rb") as file:
        is_npy = file.read(6) == b"\x93NUMPY"
        file.seek(0)
        if is_npy:
            np.lib.format.read_magic(file)
            np.lib.format.read_array_header_1_0(file)
        value = _SafeUnpickler(file).load()
    is_wrapped = isinstance(value, _Array) and value.dtype == object
    return value.item() if is_wrapped else value


def import_detections(dataset: VideoDataset, path: Path) -> Path:
    """Convert the reference's `detections.npy` to `person_boxes.safetensors`; return its path.

    Videos and frames that the file lacks get no boxes; their number is printed. ValueError if the
    file has another format or size of frames, or none of the videos.
    """
    made_with, index = import_made_with(path), dataset.index
    name_of = youtube_id if has_youtube_ids(dataset.name) else stem_of
    keys = [name_of(name) for name in index["name"]]
    table, results, num_beyond = _read_table(path, keys), [], 0
    videos = index[["name", "frames", "width", "height"]].itertuples(index=False)
    for (name, num_frames, width, height), key in zip(videos, keys, strict=True):
        entry, frames = table.get(key, {}), range(1, num_frames + 1)
        boxes = {
            n: _boxes_of(entry[n], f"{path}: video {name}: frame {n}") for n in frames if n in entry
        }
        results.append(FrameRows.stack([boxes.get(n, PersonBoxes.no_rows) for n in frames]))
        num_beyond += len(entry) - len(boxes)
        far = results[-1].rows[:, 2:4].max(axis=0, initial=0)
        if (far > 1.05 * np.array([width, height]) + 2).any():
            raise ValueError(
                f"{path}: the boxes of {name} reach to {far.round().tolist()}, but its frames are "
                f"{width} × {height}; use the frames that the boxes were computed on, or detect "
                "the people yourself"
            )
    if num_beyond:
        print(f"{path}: {num_beyond} frames beyond the ends of the videos were ignored")
    return PersonBoxes.write(
        dataset.folder, index["name"].tolist(), index["frames"].tolist(), results, made_with
    )


def import_made_with(path: Path) -> dict:
    """Return the provenance of an imported file, as plain JSON; ValueError if it is unreadable."""
    with reading(path, REMEDY):
        return {"method": "import", "file_sha256": sha256_of(path)}


def _boxes_of(value: Any, source: str) -> np.ndarray:
    if not isinstance(value, np.ndarray) or value.dtype == object:
        raise ValueError(f"{source}: expected arrays of numbers")
    boxes = np.asarray(value, dtype=np.float32)
    boxes = boxes.reshape(-1, 5) if boxes.size == 0 else boxes
    if boxes.ndim != 2 or boxes.shape[1] != 5 or not np.isfinite(boxes).all():
        raise ValueError(f"{source} has shape {boxes.shape} or is not finite")
    return boxes


def _read_table(path: Path, keys: list[str]) -> dict:
    table = load_arrays(path)
    if not isinstance(table, dict) or not all(isinstance(v, dict) for v in table.values()):
        raise ValueError(f"{path}: expected a dictionary {{video: {{frame: …}}}}")
    missing = [key for key in keys if key not in table]
    if len(missing) == len(keys):
        raise ValueError(
            f"{path}: has none of the {len(keys)} videos, its first name is "
            f"{next(iter(table), None)!r} and the first of the index {keys[0]!r}; is it the file "
            "of another data set?"
        )
    if missing:
        print(f"{path}: lacks {len(missing)} of {len(keys)} videos, the first: {missing[:3]}")
    return table
