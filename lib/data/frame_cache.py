"""The decoded videos of a small data set, in one file that all processes map into memory."""

import errno
import hashlib
import os
import shutil
import warnings
import zlib
from pathlib import Path

import av
import numpy as np
import simplejpeg

from lib.data.dataset import DECODED_FILES, VideoDataset

IS_THERE = 1 << 32  # added to a checksum, so that the mark of a video that is there is never 0
MARK = np.dtype("<u8")


class FrameCache:
    """The decoded copy of the first videos of a data set, a file beside its index.

    A video is written by the process that reads it first. No process waits for another: two that
    write the same video write the same bytes. The file begins with a mark for each video, its
    checksum; each process compares it once, for a machine may have stopped while it was written.
    The file's name stands for all that decides its contents.

    Args:
        dataset: The data set.
        size_mb: Largest size of the copy, megabytes; videos that do not fit are not in it.
    """

    def __init__(self, dataset: VideoDataset, size_mb: float):
        self._shapes = dataset.index[["frames", "height", "width"]].to_numpy(dtype=np.int64)
        ends = 3 * self._shapes.prod(axis=1).cumsum()
        self._num_videos = int((ends <= size_mb * 1e6).sum())
        self._starts = np.concatenate([[0], ends]) + MARK.itemsize * self._num_videos
        self._is_checked = np.zeros(self._num_videos, dtype=bool)
        self.path = dataset.folder / DECODED_FILES.replace("*", _key(dataset, self._num_videos))
        self._bytes: np.ndarray | None = None

    def __getstate__(self) -> dict:
        """Leave the mapped file behind: each process maps it itself."""
        return {**self.__dict__, "_bytes": None}

    def holds(self, row: int) -> bool:
        """Tell whether the video of an index row is in the copy, or is to be."""
        if row < self._num_videos and self._bytes is None:
            try:
                _make(self.path, int(self._starts[self._num_videos]))
                self._bytes = np.asarray(np.memmap(self.path, np.uint8, "r"))
            except OSError as error:
                self._give_up(error)
        return row < self._num_videos

    def read(self, row: int) -> np.ndarray | None:
        """Return the frames (T, H, W, 3), read-only, of a row that it holds; None if not there."""
        mark = int(self._bytes[MARK.itemsize * row :][: MARK.itemsize].view(MARK)[0])
        frames = self._bytes[self._starts[row] : self._starts[row + 1]]
        if not mark or not (self._is_checked[row] or zlib.crc32(frames) + IS_THERE == mark):
            return None
        self._is_checked[row] = True
        return frames.reshape(*self._shapes[row], 3)

    def write(self, row: int, frames: np.ndarray) -> None:
        """Write the frames (T, H, W, 3), uint8, of a row that it holds.

        A full disk ends the copy, not the work.
        """
        mark = np.array([zlib.crc32(frames) + IS_THERE], dtype=MARK)
        try:
            with open(self.path, "r+b") as file:
                for start, array in (self._starts[row], frames), (MARK.itemsize * row, mark):
                    file.seek(int(start))
                    file.write(array.data)
                    file.flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self._num_videos = 0
        warnings.warn(
            f"{self.path}: there is no decoded copy ({error.strerror}), so videos are decoded each "
            "time they are read, which is slower; make room, or set frame_cache_mb to 0",
            stacklevel=4,
        )


def _make(path: Path, size: int) -> None:
    """Make a file of this size, which takes no room until it is written; again changes nothing."""
    if not path.exists() and shutil.disk_usage(path.parent).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with open(path, "ab") as file:
        file.truncate(size)


def _key(dataset: VideoDataset, num_videos: int) -> str:
    """Return a name for the index, its first videos and the versions of what decodes them."""
    index = dataset.index[["path", "frames", "width", "height", "fingerprint"]].iloc[:num_videos]
    made_with = f"{dataset.root} {av.__version__} {simplejpeg.__version__}\n"
    return hashlib.sha256((made_with + index.to_csv()).encode()).hexdigest()[:12]
