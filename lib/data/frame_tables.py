"""Annotations of videos: person boxes and ImageNet scores per frame, soft targets per video.

Each table is one memory-mapped file in the prepared folder. `person_boxes.safetensors` holds
`boxes` (N, 5) float32: x1, y1, x2, y2 in pixels of the video's frame, and a score in [0, 1].
`teacher.safetensors` holds `probabilities` (N, 1000) float16 (three digits; below 6e-8 they are 0).
Both also hold

- `frames` (N,) int32: the 0-based frame of each row; rows are sorted by video and frame,
- `video_offsets` (V + 1,) int64: the first row of each video,
- `num_frames` (V,) int64: the number of frames of each video when the table was computed,
- `names`: the names of the videos, joined by newlines, as uint8,

and in the metadata `made_with`, the settings that the rows were computed with, as JSON.
"""

import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import pandas as pd
from safetensors import safe_open
from safetensors.numpy import save_file

from lib.data.dataset import VideoDataset
from lib.fileio import reading, write_atomic

PERSON_BOXES_FILE = "person_boxes.safetensors"
TEACHER_FILE = "teacher.safetensors"
SOFT_TARGETS = "soft_targets_"  # and the network: tables (CSV) that `lib.prepare` makes
SCALED_TO = "scaled_to"  # in `made_with`: short side of the frames that the boxes were scaled to
NUM_CLASSES = 1000  # of ImageNet
REMEDY = "delete that file, and compute it again with notebooks/1_prepare_data.ipynb"


class FrameRows(NamedTuple):
    """Rows of one video."""

    rows: np.ndarray  # (n, D)
    frames: np.ndarray  # 0-based frame of each row, sorted, (n,), int32

    @classmethod
    def stack(cls, rows_of_frames: Sequence[np.ndarray]) -> "FrameRows":
        """Join the rows of each frame of a video, arrays (n_t, D), n_t >= 0."""
        counts = [len(rows) for rows in rows_of_frames]
        return cls(np.concatenate(rows_of_frames), np.repeat(np.arange(len(counts)), counts))


class FrameTable:
    """A table of a data set; a pickled copy opens the file again in its own process.

    ValueError if the file is missing or damaged, or lacks a video of the index.
    """

    file_name: ClassVar[str]
    rows_name: ClassVar[str]
    content: ClassVar[str]  # name of the rows in messages
    opt_out: ClassVar[str]  # settings without which nobody needs the table
    no_rows: ClassVar[np.ndarray]  # shape (0, D), of the type that is stored

    def __init__(self, dataset: VideoDataset):
        self.path = dataset.folder / self.file_name
        if not self.path.is_file():
            raise ValueError(
                f"{self.path}: no {self.content}; compute them with notebooks/1_prepare_data.ipynb "
                f"or python -m lib.prepare, or set {self.opt_out} to 0"
            )
        with reading(self.path, REMEDY), safe_open(self.path, framework="numpy") as file:
            names = file.get_tensor("names").tobytes().decode().split("\n")
            offsets, num_frames = file.get_tensor("video_offsets"), file.get_tensor("num_frames")
            (num_rows,) = file.get_slice("frames").get_shape()
            is_whole = len(offsets) == len(num_frames) + 1 == len(names) + 1
            is_whole &= file.get_slice(self.rows_name).get_shape()[0] == offsets[-1] == num_rows
            if not is_whole or offsets[0] != 0 or (np.diff(offsets) < 0).any():
                raise ValueError("the offsets of its videos do not fit its rows")
        positions = pd.Index(names).get_indexer(pd.Index(dataset.index["name"]))
        if (positions < 0).any():
            missing = dataset.index["name"].iloc[int(np.argmax(positions < 0))]
            raise ValueError(
                f"{self.path}: has no {self.content} for {(positions < 0).sum()} videos of the "
                f"index, the first: {missing}; {REMEDY}"
            )
        self._starts, self._stops = offsets[positions], offsets[positions + 1]
        self._num_frames = num_frames[positions]
        self._file = None

    def __getstate__(self) -> dict:
        """Leave out the open file."""
        return {**self.__dict__, "_file": None}

    def read(self, row: int) -> FrameRows:
        """Return all rows of the video of one index row."""
        start, stop = int(self._starts[row]), int(self._stops[row])
        if start == stop:  # safetensors cannot slice at the end of an array
            return FrameRows(self.no_rows, np.zeros(0, np.int32))
        if self._file is None:
            self._file = safe_open(self.path, framework="numpy")
        arrays = map(self._file.get_slice, (self.rows_name, "frames"))
        return FrameRows(*(array[start:stop] for array in arrays))

    @classmethod
    def write(
        cls,
        folder: Path,
        names: Sequence[str],
        num_frames: Sequence[int],
        results: Iterable[FrameRows],
        made_with: Mapping | None = None,
    ) -> Path:
        """Write the table of a data set, which may be larger than memory; return its path.

        `names`, `num_frames` and `results` are of the V videos, in one order; `made_with` are the
        settings that the rows were computed with, plain JSON. The folder is created.
        """
        folder.mkdir(parents=True, exist_ok=True)
        frames, counts = [np.zeros(0, np.int32)], [0]
        with tempfile.TemporaryFile(dir=folder) as file:
            for _, result in zip(names, results, strict=True):
                file.write(result.rows.astype(cls.no_rows.dtype).tobytes())
                frames.append(result.frames.astype(np.int32))
                counts.append(len(result.frames))
            file.flush()
            shape = (sum(counts), cls.no_rows.shape[1])
            rows = np.memmap(file, cls.no_rows.dtype, "r", shape=shape) if shape[0] else cls.no_rows
            arrays = {
                cls.rows_name: rows,
                "frames": np.concatenate(frames),
                "video_offsets": np.cumsum(counts),
                "num_frames": np.array(num_frames, np.int64),
                "names": np.frombuffer("\n".join(names).encode(), np.uint8),
            }
            metadata = {"made_with": json.dumps(made_with or {})}
            path = folder / cls.file_name
            return write_atomic(path, lambda temporary: save_file(arrays, temporary, metadata))


class PersonBoxes(FrameTable):
    """The person boxes of a data set."""

    file_name, rows_name, content = PERSON_BOXES_FILE, "boxes", "person boxes"
    opt_out = "labeled_scene_p and unlabeled_scene_p"
    no_rows = np.zeros((0, 5), np.float32)

    def lookup(
        self, row: int, frame_indices: np.ndarray, min_score: float = 0.0
    ) -> list[np.ndarray]:
        """Return the boxes (n, 4) of some frames (T,) of a video that score above `min_score`.

        They are x1 y1 x2 y2 in pixels of the video's frame.
        """
        boxes = self.lookup_scored(row, frame_indices)
        return [frame[frame[:, 4] > min_score, :4] for frame in boxes]

    def lookup_scored(self, row: int, frame_indices: np.ndarray) -> list[np.ndarray]:
        """Return the boxes of some frames of one video with their scores, arrays (n, 5)."""
        if (last := int(frame_indices.max())) >= self._num_frames[row]:
            raise ValueError(
                f"{self.path}: frame {last} does not exist, the boxes of index row {row} end "
                f"after {self._num_frames[row]} frames; {REMEDY}"
            )
        boxes, frames = self.read(row)
        if not np.isfinite(boxes).all():
            raise ValueError(f"{self.path}: damaged (a box is NaN or infinite); {REMEDY}")
        starts = np.searchsorted(frames, frame_indices)
        stops = np.searchsorted(frames, frame_indices, side="right")
        return [boxes[start:stop] for start, stop in zip(starts, stops, strict=True)]


class TeacherScores(FrameTable):
    """The ImageNet class probabilities of some frames of each video."""

    file_name, rows_name, content = TEACHER_FILE, "probabilities", "ImageNet scores"
    opt_out = "distillation_weight"
    no_rows = np.zeros((0, NUM_CLASSES), np.float16)

    def lookup(self, row: int, frame_index: int) -> np.ndarray:
        """Return the probabilities (1000,), float32, of the scored frame nearest to a frame.

        Of two equally near frames it is the earlier one.
        """
        probabilities, frames = self.read(row)
        nearest = int(np.abs(frames - int(frame_index)).argmin())
        return probabilities[nearest].astype(np.float32)


def has_person_boxes(dataset: VideoDataset) -> bool:
    """Return True if a data set has person boxes."""
    return (dataset.folder / PERSON_BOXES_FILE).is_file()


def read_made_with(path: Path) -> dict | None:
    """Return the settings that a table was computed with, None if there is no such file."""
    if not path.is_file():
        return None
    with reading(path, REMEDY), safe_open(path, framework="numpy") as file:
        return json.loads((file.metadata() or {}).get("made_with", "{}"))


def open_person_boxes(dataset: VideoDataset) -> PersonBoxes | None:
    """Open the person boxes of a data set; None if it has none."""
    return PersonBoxes(dataset) if has_person_boxes(dataset) else None


def read_soft_targets(path: Path, dataset: VideoDataset, rows: np.ndarray) -> np.ndarray:
    """Return the probabilities of a data set's videos, shape (videos of the index, K), float32.

    The videos at the index rows `rows` must be in the file; other missing ones become zeros.

    Raises:
        ValueError: If the file is missing, has other classes, lacks a video, or a row is not a
            distribution; names the difference.
    """
    try:
        table = pd.read_csv(path, dtype={"name": str})
    except (OSError, ValueError) as error:
        raise ValueError(f"soft_targets: {path} cannot be read ({error})") from error
    columns, expected = set(table.columns), {"name", *dataset.classes}
    if columns != expected:
        raise ValueError(
            f"soft_targets: {path} must have a column `name` and one for each class of "
            f"{dataset.folder}; missing: {_first(expected - columns)}; "
            f"unexpected: {_first(columns - expected)}"
        )
    table = table.drop_duplicates("name").set_index("name")[list(dataset.classes)]
    names = dataset.index["name"]
    missing = names.iloc[rows][~names.iloc[rows].isin(table.index)]
    if len(missing):
        raise ValueError(
            f"soft_targets: {path} has no row for {len(missing)} of {len(rows)} videos, the "
            f"first: {missing.iloc[0]}"
        )
    values = table.to_numpy(np.float64)
    is_valid = (values >= 0).all(axis=1) & (np.abs(values.sum(axis=1) - 1) < 1e-3)
    if not is_valid.all():
        raise ValueError(
            f"soft_targets: {path}: the row of {table.index[~is_valid][0]} is not a distribution "
            "(values at least 0, sum 1)"
        )
    return table.reindex(names).fillna(0.0).to_numpy(np.float32)


def _first(names: set[str]) -> str:
    """Format up to three names."""
    return ", ".join(sorted(names)[:3]) + (" …" if len(names) > 3 else "") or "–"
