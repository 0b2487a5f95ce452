"""Person boxes of a data set: one flat, memory-mapped file, read frame by frame.

`actors.safetensors` holds `boxes` (N, 5) float32 (x1, y1, x2, y2 in pixels of the video's frame,
score in [0, 1]), sorted by video and frame; `frame_offsets` (F + 1,) int64, where the boxes of
each frame start; `video_offsets` (V + 1,) int64, where the frames of each video start; and `names`,
the videos' names joined by newlines, as uint8.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors import safe_open
from safetensors.numpy import save_file

from lib.data.dataset import VideoDataset
from lib.data.rows import VideoRows, pack_names, unpack_names
from lib.files import write_atomic

ACTORS_FILE = "actors.safetensors"
SCALED_TO = "scaled_to"  # in `made_with`: short side of the frames that the boxes were scaled to


def write_actors(
    folder: Path,
    names: Sequence[str],
    boxes: Sequence[Sequence[np.ndarray]],
    made_with: dict | None = None,
) -> Path:
    """Write the boxes of a data set.

    Args:
        folder: The prepared folder.
        names: The videos' names, length V.
        boxes: For each video, for each of its frames, an array (n, 5), n >= 0.
        made_with: What made the boxes; plain JSON.

    Returns:
        The path of the file.
    """
    flat = [
        VideoRows(
            np.concatenate([np.zeros((0, 5)), *video]).astype(np.float32),
            np.repeat(np.arange(len(video)), [len(frame) for frame in video]).astype(np.int32),
        )
        for video in boxes
    ]
    return write_actor_rows(folder, names, [len(video) for video in boxes], flat, made_with)


def write_actor_rows(
    folder: Path,
    names: Sequence[str],
    num_frames: Sequence[int],
    results: Iterable[VideoRows],
    made_with: dict | None = None,
) -> Path:
    """Write the boxes of a data set, given video by video.

    Args:
        folder: The prepared folder.
        names: The videos' names, length V.
        num_frames: Their numbers of frames, length V.
        results: Their boxes, rows (n, 5), and the frames of these, in the order of `names`.
        made_with: What made the boxes; plain JSON.

    Returns:
        The path of the file.
    """
    boxes, counts = [np.zeros((0, 5), dtype=np.float32)], [np.zeros(0, dtype=np.int64)]
    for count, result in zip(num_frames, results, strict=True):
        boxes.append(result.rows.astype(np.float32))
        counts.append(np.bincount(result.frames, minlength=count))
    tensors = {
        "boxes": np.concatenate(boxes),
        "frame_offsets": np.concatenate([[0], np.concatenate(counts).cumsum()]).astype(np.int64),
        "video_offsets": np.cumsum([0, *num_frames]).astype(np.int64),
        "names": pack_names(names),
    }
    metadata = {"made_with": json.dumps(made_with or {})}
    path = Path(folder) / ACTORS_FILE
    return write_atomic(path, lambda temporary: save_file(tensors, temporary, metadata))


def read_made_with(folder: Path) -> dict | None:
    """Return what made the boxes of a prepared folder; None where there are none."""
    path = Path(folder) / ACTORS_FILE
    if not path.is_file():
        return None
    with safe_open(path, framework="numpy") as file:
        return json.loads((file.metadata() or {}).get("made_with", "{}"))


def is_made_with(folder: Path, made_with: dict) -> bool:
    """Tell whether the boxes of a prepared folder are of such settings, at any size of frame."""
    found = read_made_with(folder)
    return found is not None and {k: v for k, v in found.items() if k != SCALED_TO} == made_with


class ActorBoxes:
    """Looks up the boxes of sampled frames; opens the file once per process.

    Args:
        dataset: The data set whose `actors.safetensors` to read.

    Raises:
        ValueError: If the file is missing, or lacks a video of the index.
    """

    def __init__(self, dataset: VideoDataset):
        self.path = dataset.folder / ACTORS_FILE
        if not self.path.is_file():
            raise ValueError(
                f"{self.path}: no person boxes; make them with notebooks/1_prepare_data.ipynb, or "
                "set labeled_scene_p and unlabeled_scene_p to 0"
            )
        with safe_open(self.path, framework="numpy") as file:
            names = unpack_names(file.get_tensor("names"))
            video_offsets = file.get_tensor("video_offsets")
        positions = pd.Index(names).get_indexer(pd.Index(dataset.index["name"]))
        if (positions < 0).any():
            missing = dataset.index["name"].iloc[int(np.argmax(positions < 0))]
            raise ValueError(
                f"{self.path}: has no boxes for {(positions < 0).sum()} videos of the index, the "
                f"first: {missing}; make the boxes again with notebooks/1_prepare_data.ipynb"
            )
        self._first_frame = video_offsets[positions]
        self._num_frames = np.diff(video_offsets)[positions]
        self._file = None

    def __getstate__(self) -> dict:
        """Leave the open file behind: each process opens its own."""
        return {**self.__dict__, "_file": None}

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
        if self._file is None:
            file = safe_open(self.path, framework="numpy").__enter__()
            self._file = (file.get_slice("frame_offsets"), file.get_slice("boxes"), file)
        frame_offsets, boxes, _ = self._file
        first, last = int(frame_indices.min()), int(frame_indices.max())
        if last >= self._num_frames[row]:
            raise ValueError(
                f"{self.path}: frame {last} was asked for, the boxes of index row {row} end after "
                f"{self._num_frames[row]} frames; make the boxes again"
            )
        start = int(self._first_frame[row])
        offsets = frame_offsets[start + first : start + last + 2]
        start, stop = int(offsets[0]), int(offsets[-1])
        # safetensors refuses an empty slice at the end of the file
        near = boxes[start:stop] if start < stop else np.zeros((0, 5), dtype=np.float32)
        offsets = offsets - offsets[0]
        return [near[offsets[t - first] : offsets[t - first + 1]] for t in frame_indices]
