"""Cache of decoded videos, one memory-mapped file each, shared by all processes."""

import errno
import hashlib
import os
import shutil
import warnings
from pathlib import Path

import av
import numpy as np
import simplejpeg

from lib.data.dataset import CACHE_FOLDER, VideoDataset, VideoRecord
from lib.fileio import write_atomic


class FrameCache:
    """The first videos of a data set, decoded, in the folder of the data set.

    The process that reads a video first writes its file, which gets its name when it is complete.
    Two processes that write the same video write the same bytes. The name is a hash of everything
    that determines the content.

    Args:
        dataset: The data set.
        size_mb: Largest size of the cache, megabytes; videos that do not fit are not cached.
    """

    def __init__(self, dataset: VideoDataset, size_mb: float):
        shapes = dataset.index[["frames", "height", "width"]].to_numpy(dtype=np.int64)
        ends = 3 * shapes.prod(axis=1).cumsum()
        self._num_videos = int((ends <= size_mb * 1e6).sum())
        self.folder = dataset.folder / CACHE_FOLDER
        if self._num_videos and not self.folder.is_dir():
            if shutil.disk_usage(dataset.folder).free < ends[self._num_videos - 1]:
                self._give_up(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))

    def holds(self, record: VideoRecord) -> bool:
        """Return True if a video is in the cache or belongs there."""
        return record.row < self._num_videos

    def read(self, record: VideoRecord) -> np.ndarray | None:
        """Return the frames (T, H, W, 3) of a video, read-only; None if they are not there yet."""
        try:
            return np.load(self._path(record), mmap_mode="r")
        except (OSError, ValueError, EOFError):  # absent, or cut short by a crash of the machine
            return None

    def write(self, record: VideoRecord, frames: np.ndarray) -> None:
        """Write the frames (T, H, W, 3), uint8, of a video; a full disk ends the caching only."""
        try:
            write_atomic(self._path(record), lambda temporary: np.save(temporary, frames))
        except OSError as error:
            self._give_up(error)

    def _path(self, record: VideoRecord) -> Path:
        content = f"{record} {av.__version__} {simplejpeg.__version__}"
        return self.folder / f"{hashlib.sha256(content.encode()).hexdigest()[:20]}.npy"

    def _give_up(self, error: OSError) -> None:
        self._num_videos = 0
        warnings.warn(
            f"{self.folder}: decoded videos are not cached ({error.strerror}), so each video is "
            "decoded whenever it is read, which is slower; make room, or set frame_cache_mb to 0",
            stacklevel=4,
        )
