"""Person boxes of a data set: one flat, memory-mapped file, read frame by frame.

`actors.safetensors` holds `boxes` (N, 5) float32 (x1, y1, x2, y2 in pixels of the video's frame,
score in [0, 1]), sorted by video and frame; `frame_offsets` (F + 1,) int64, where the boxes of
each frame start; `video_offsets` (V + 1,) int64, where the frames of each video start; and `names`,
the videos' names joined by newlines, as uint8.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors import safe_open
from safetensors.numpy import save_file

from lib.data.annotations import VideoDataset
from lib.files import write_atomic

ACTORS_FILE = "actors.safetensors"


def write_actors(folder: Path, names: Sequence[str], boxes: Sequence[Sequence[np.ndarray]]) -> Path:
    """Write the boxes of a data set.

    Args:
        folder: The prepared folder.
        names: The videos' names, length V.
        boxes: For each video, for each of its frames, an array (n, 5), n >= 0.

    Returns:
        The path of the file.
    """
    per_frame = [frame for video in boxes for frame in video]
    counts = np.array([len(frame) for frame in per_frame], dtype=np.int64)
    flat = np.concatenate([np.zeros((0, 5)), *per_frame]).astype(np.float32)
    tensors = {
        "boxes": flat,
        "frame_offsets": np.concatenate([[0], counts.cumsum()]).astype(np.int64),
        "video_offsets": np.cumsum([0, *map(len, boxes)]).astype(np.int64),
        "names": np.frombuffer("\n".join(names).encode(), dtype=np.uint8),
    }
    path = Path(folder) / ACTORS_FILE
    return write_atomic(path, lambda temporary: save_file(tensors, temporary))


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
                "set actor_cutmix_p and unlabeled_actor_cutmix_p to 0"
            )
        with safe_open(self.path, framework="numpy") as file:
            names = file.get_tensor("names").tobytes().decode().split("\n")
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
        near = boxes[int(offsets[0]) : int(offsets[-1])]
        offsets = offsets - offsets[0]
        found = [near[offsets[t - first] : offsets[t - first + 1]] for t in frame_indices]
        return [frame[frame[:, 4] > min_score, :4] for frame in found]
