"""Numbers that single frames have, of all videos of a data set, in one memory-mapped file.

`person_boxes.safetensors` holds `boxes` (N, 5) float32: x1, y1, x2, y2 in pixels of the video's
frame, and a score in [0, 1]; and `num_frames` (V,) int64, the frames of each video that were looked
at. `teacher.safetensors` holds `probabilities` (N, 1000) float16 (halves: three digits, and what is
below 6e-8 becomes 0). Beside them, both hold

- `frames` (N,) int32: the 0-based frame of each row; rows are sorted by video and frame,
- `video_offsets` (V + 1,) int64: where the rows of each video start,
- `names`: the videos' names, joined by newlines, as uint8,

and in the metadata `made_with`, what made them, as JSON.
"""

import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from safetensors import safe_open
from safetensors.numpy import save_file

from lib.data.dataset import VideoDataset
from lib.fileio import reading, write_atomic

PERSON_BOXES_FILE = "person_boxes.safetensors"
TEACHER_FILE = "teacher.safetensors"
REMEDY = "delete that file, and make it again with notebooks/1_prepare_data.ipynb"


class FrameTable:
    """A file of rows; can be sent to another process, which opens the file for itself.

    Args:
        path: The file.
        rows_name: What its rows are called there.
    """

    def __init__(self, path: Path, rows_name: str):
        self.path, self.rows_name = path, rows_name
        with reading(path, REMEDY), safe_open(path, framework="numpy") as file:
            self.names = file.get_tensor("names").tobytes().decode().split("\n")
            self._offsets = file.get_tensor("video_offsets")
            steps = np.diff(self._offsets, prepend=0, append=file.get_slice("frames").get_shape())
            is_whole = self._offsets.shape == (len(self.names) + 1,) and (steps >= 0).all()
            shape = file.get_slice(rows_name).get_shape()
            if not is_whole or steps[0] or steps[-1] or len(shape) != 2 or shape[0] != steps.sum():
                raise ValueError("the rows of its videos are not where they should be")
        self._file = None

    def __getstate__(self) -> dict:
        """Leave the open file behind."""
        return {**self.__dict__, "_file": None}

    def frames(self, position: int) -> np.ndarray:
        """Return the frame of each row of the video at a position of `names`, int32."""
        return self._cut("frames", self._offsets[position], self._offsets[position + 1])

    def rows(self, position: int, first: int = 0, stop: int | None = None) -> np.ndarray:
        """Return rows of the video at a position of `names`, the first of its being 0."""
        start, end = self._offsets[position : position + 2]
        return self._cut(self.rows_name, start + first, end if stop is None else start + stop)

    def _cut(self, name: str, start: int, stop: int) -> np.ndarray:
        if self._file is None:
            self._file = safe_open(self.path, framework="numpy").__enter__()
        values = self._file.get_slice(name)
        if values.get_shape()[0] == 0:  # safetensors refuses to slice nothing,
            return self._file.get_tensor(name)
        if start == stop:  # and to slice at the end
            return values[:0]
        return values[int(start) : int(stop)]


class PersonBoxes:
    """Looks up the person boxes of sampled frames.

    Args:
        dataset: The data set whose `person_boxes.safetensors` to read.

    Raises:
        ValueError: If the file is missing, or lacks a video of the index.
    """

    def __init__(self, dataset: VideoDataset):
        path = dataset.folder / PERSON_BOXES_FILE
        if not path.is_file():
            raise ValueError(
                f"{path}: no person boxes; make them with notebooks/1_prepare_data.ipynb or "
                "python -m lib.prepare (which also takes over an actors.safetensors of an earlier "
                "version), or set labeled_scene_p and unlabeled_scene_p to 0"
            )
        self._table = FrameTable(path, "boxes")
        self._positions = _find(self._table, dataset, "boxes")
        with reading(path, REMEDY), safe_open(path, framework="numpy") as file:
            self._num_frames = file.get_tensor("num_frames")[self._positions]

    def lookup(
        self, row: int, frame_indices: np.ndarray, min_score: float = 0.0
    ) -> list[np.ndarray]:
        """Return the boxes of some frames of one video.

        Args:
            row: The video's row in the index.
            frame_indices: 0-based frame indices, shape (T,).
            min_score: Boxes must score above this, in [0, 1].

        Returns:
            For each frame an array (n, 4), x1 y1 x2 y2 in pixels of the video's frame.
        """
        found = self.lookup_scored(row, frame_indices)
        return [frame[frame[:, 4] > min_score, :4] for frame in found]

    def lookup_scored(self, row: int, frame_indices: np.ndarray) -> list[np.ndarray]:
        """Return the boxes of some frames of one video with their scores, arrays (n, 5)."""
        if (last := int(frame_indices.max())) >= self._num_frames[row]:
            raise ValueError(
                f"{self._table.path}: frame {last} was asked for, the boxes of index row {row} end "
                f"after {self._num_frames[row]} frames; make the boxes again"
            )
        position = self._positions[row]
        frames = self._table.frames(position)
        starts = np.searchsorted(frames, frame_indices)
        stops = np.searchsorted(frames, frame_indices, side="right")
        first = int(starts.min())
        near = self._table.rows(position, first, int(stops.max()))
        if not np.isfinite(near).all():
            raise ValueError(f"{self._table.path}: damaged (boxes that are no numbers); {REMEDY}")
        return [near[a - first : b - first] for a, b in zip(starts, stops, strict=True)]


def has_person_boxes(dataset: VideoDataset) -> bool:
    """Tell whether a data set has person boxes."""
    return (dataset.folder / PERSON_BOXES_FILE).is_file()


def open_person_boxes(dataset: VideoDataset) -> PersonBoxes | None:
    """Open the person boxes of a data set; None if it has none."""
    return PersonBoxes(dataset) if has_person_boxes(dataset) else None


class TeacherScores:
    """Looks up the ImageNet class probabilities of frames.

    Args:
        dataset: The data set whose `teacher.safetensors` to read.

    Raises:
        ValueError: If the file is missing, or lacks a video of the index.
    """

    def __init__(self, dataset: VideoDataset):
        path = dataset.folder / TEACHER_FILE
        if not path.is_file():
            raise ValueError(
                f"{path}: no ImageNet scores; make them with notebooks/1_prepare_data.ipynb "
                "(teacher_scores), or set distillation_weight to 0"
            )
        self._table = FrameTable(path, "probabilities")
        self._positions = _find(self._table, dataset, "scores")

    def lookup(self, row: int, frame_index: int) -> np.ndarray:
        """Return the probabilities of the scored frame nearest to a frame.

        Args:
            row: The video's row in the index.
            frame_index: 0-based.

        Returns:
            Probabilities, shape (1000,), float32; of two equally near frames the earlier one's.
        """
        position = self._positions[row]
        nearest = int(np.abs(self._table.frames(position) - int(frame_index)).argmin())
        return self._table.rows(position, nearest, nearest + 1)[0].astype(np.float32)


def _find(table: FrameTable, dataset: VideoDataset, what: str) -> np.ndarray:
    """Return where the videos of the index are in a table, shape (videos,), int64."""
    positions = pd.Index(table.names).get_indexer(pd.Index(dataset.index["name"]))
    if (positions < 0).any():
        missing = dataset.index["name"].iloc[int(np.argmax(positions < 0))]
        raise ValueError(
            f"{table.path}: has no {what} for {(positions < 0).sum()} videos of the index, the "
            f"first: {missing}; make the {what} again with notebooks/1_prepare_data.ipynb"
        )
    return positions


OLD_BOXES_FILE = "actors.safetensors"  # of earlier versions, with an offset for each frame
SCALED_TO = "scaled_to"  # in `made_with`: short side of the frames that the boxes were scaled to
NUM_CLASSES = 1000  # of ImageNet
NO_BOXES = np.zeros((0, 5), np.float32)
NO_SCORES = np.zeros((0, NUM_CLASSES), np.float16)


class FrameRows(NamedTuple):
    """Rows of one video.

    Attributes:
        rows: Shape (n, D).
        frames: 0-based frame of each row, sorted, shape (n,), int32.
    """

    rows: np.ndarray
    frames: np.ndarray


def write_table(
    path: Path,
    rows_name: str,
    names: Sequence[str],
    results: Iterable[FrameRows],
    empty: np.ndarray,
    made_with: Mapping | None = None,
    tensors: Mapping[str, np.ndarray] | None = None,
) -> Path:
    """Write a table, which may be larger than memory.

    Args:
        path: The file.
        rows_name: What its rows are called there.
        names: The videos' names, length V.
        results: Their rows, in the order of `names`.
        empty: No rows, shape (0, D), of the type to write.
        made_with: What made the rows; plain JSON.
        tensors: Further arrays, by name.

    Returns:
        The path of the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    frames, counts = [np.zeros(0, np.int32)], [0]
    with tempfile.TemporaryFile(dir=path.parent) as file:
        for _, result in zip(names, results, strict=True):
            file.write(result.rows.astype(empty.dtype).tobytes())
            frames.append(result.frames.astype(np.int32))
            counts.append(len(result.frames))
        file.flush()
        shape = (sum(counts), empty.shape[1])
        rows = np.memmap(file, empty.dtype, "r", shape=shape) if shape[0] else empty
        arrays = {
            rows_name: rows,
            "frames": np.concatenate(frames),
            "video_offsets": np.cumsum(counts),
            "names": np.frombuffer("\n".join(names).encode(), np.uint8),
            **(tensors or {}),
        }
        metadata = {"made_with": json.dumps(made_with or {})}
        return write_atomic(path, lambda temporary: save_file(arrays, temporary, metadata))


def write_box_rows(
    folder: Path,
    names: Sequence[str],
    num_frames: Sequence[int],
    results: Iterable[FrameRows],
    made_with: Mapping | None = None,
) -> Path:
    """Write the person boxes of a data set, given video by video.

    Args:
        folder: The prepared folder.
        names: The videos' names, length V.
        num_frames: Their numbers of frames, length V.
        results: Their boxes, rows (n, 5), in the order of `names`.
        made_with: What made the boxes; plain JSON.
    """
    counts = {"num_frames": np.array(num_frames, np.int64)}
    path = Path(folder) / PERSON_BOXES_FILE
    return write_table(path, "boxes", names, results, NO_BOXES, made_with, counts)


def write_person_boxes(
    folder: Path,
    names: Sequence[str],
    boxes: Sequence[Sequence[np.ndarray]],
    made_with: Mapping | None = None,
) -> Path:
    """Write the person boxes of a data set, given frame by frame.

    Args:
        folder: The prepared folder.
        names: The videos' names, length V.
        boxes: For each video, for each of its frames, an array (n, 5), n >= 0.
        made_with: What made the boxes; plain JSON.
    """
    results = (
        FrameRows(
            np.concatenate([NO_BOXES, *video]),
            np.repeat(np.arange(len(video)), [len(frame) for frame in video]),
        )
        for video in boxes
    )
    return write_box_rows(folder, names, [len(video) for video in boxes], results, made_with)


def write_scores(
    folder: Path, names: Sequence[str], results: Iterable[FrameRows], made_with: Mapping
) -> Path:
    """Write the ImageNet probabilities of a data set, rows (n, 1000), n >= 1, video by video."""
    path = Path(folder) / TEACHER_FILE
    return write_table(path, "probabilities", names, results, NO_SCORES, made_with)


def read_made_with(path: Path) -> dict | None:
    """Return what made a table; None where there is no such file."""
    if not path.is_file():
        return None
    with reading(path, REMEDY), safe_open(path, framework="numpy") as file:
        return json.loads((file.metadata() or {}).get("made_with", "{}"))


def is_made_with(folder: Path, made_with: Mapping) -> bool:
    """Tell whether the boxes of a prepared folder are of such settings, at any size of frame."""
    found = read_made_with(folder / PERSON_BOXES_FILE)
    return found is not None and {k: v for k, v in found.items() if k != SCALED_TO} == made_with


def take_over_old_boxes(folder: Path) -> None:
    """Turn the person boxes of an earlier version, if there are any, into today's file."""
    old = folder / OLD_BOXES_FILE
    if not old.is_file() or (folder / PERSON_BOXES_FILE).is_file():
        return
    with safe_open(old, framework="numpy") as file:
        boxes, starts, videos, names = map(
            file.get_tensor, ("boxes", "frame_offsets", "video_offsets", "names")
        )
    results = (
        FrameRows(
            boxes[starts[first] : starts[stop]],
            np.repeat(np.arange(stop - first), np.diff(starts[first : stop + 1])),
        )
        for first, stop in zip(videos[:-1], videos[1:], strict=True)
    )
    names = names.tobytes().decode().split("\n")
    write_box_rows(folder, names, np.diff(videos), results, read_made_with(old))
    old.unlink()
