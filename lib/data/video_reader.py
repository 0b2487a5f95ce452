"""Reading exactly the requested frames of a video file or of a folder of JPEG frames."""

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from simplejpeg import decode_jpeg

from lib.data.dataset import VideoDataset, VideoRecord
from lib.data.frame_cache import FrameCache
from lib.data.frame_index import FrameIndex, fingerprint, iterate_file

FRAME_FILE = "img_{:05d}.jpg"  # 1-based, as in MMAction2's rawframes trees
PREPARE_AGAIN = "prepare the data set again, with notebooks/1_prepare_data.ipynb"


class UnreadableVideoError(ValueError):
    """A video cannot be read, or is not the one that was prepared."""


def read_frames(source: str | Path | VideoRecord, frame_indices: np.ndarray) -> np.ndarray:
    """Read frames of a video file or of a folder of JPEG frames.

    Args:
        source: A video file; a folder with `img_00001.jpg`, `img_00002.jpg`, ...; or a record of
            the index, which is faster: its frames are found by seeking.
        frame_indices: 0-based indices in any order, repeats allowed, shape (T,).

    Returns:
        RGB frames, shape (T, H, W, 3), uint8.

    Raises:
        UnreadableVideoError: If the video cannot be decoded, has no such frame, or is not the one
            that was prepared; names the file.
    """
    numbers, positions = np.unique(np.asarray(frame_indices), return_inverse=True)
    frames = None
    for position, frame in enumerate(iterate_frames(source, numbers)):
        if frames is None:
            frames = np.empty((len(numbers), *frame.shape), dtype=np.uint8)
        elif frame.shape != frames.shape[1:]:
            raise ValueError(
                f"{source}: frame {numbers[position]} is not of the size of those before"
            )
        frames[position] = frame
    is_ascending = len(numbers) == len(positions) and (np.diff(positions) > 0).all()
    return frames if is_ascending else frames[positions]


def iterate_frames(
    source: str | Path | VideoRecord, frame_indices: np.ndarray
) -> Iterator[np.ndarray]:
    """Yield frames one by one, each decoded once, so that a long video needs little memory.

    Args:
        source: As in `read_frames`.
        frame_indices: 0-based indices, strictly ascending, shape (T,).

    Yields:
        RGB frames, shape (H, W, 3), uint8.

    Raises:
        UnreadableVideoError: As in `read_frames`.
    """
    record = source if isinstance(source, VideoRecord) else None
    path = Path(source) if record is None else record.path
    numbers = np.asarray(frame_indices)
    is_folder = path.is_dir()
    frames = _iterate_jpegs(path, numbers) if is_folder else _iterate_video(path, numbers, record)
    for frame in frames:
        if record is not None and frame.shape[:2] != (record.height, record.width):
            raise UnreadableVideoError(
                f"{path}: its frames are {frame.shape[1]} × {frame.shape[0]} pixels, in the index "
                f"{record.width} × {record.height}; {PREPARE_AGAIN}"
            )
        yield frame


def _iterate_video(
    path: Path, numbers: np.ndarray, record: VideoRecord | None
) -> Iterator[np.ndarray]:
    if not path.is_file():
        raise UnreadableVideoError(f"{path}: no such video file")
    try:
        yield from iterate_file(path, numbers, None if record is None else _index_of(record))
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        remedy = "" if record is None else f"; {PREPARE_AGAIN}"
        problem = f"{path}: cannot be read as a video ({reason}){remedy}"
        raise UnreadableVideoError(problem) from error


def _index_of(record: VideoRecord) -> FrameIndex | None:
    """Return the frame index of a video, if it has one, after checking its fingerprint."""
    if record.fingerprint and fingerprint(record.path) != record.fingerprint:
        raise ValueError("it is not the file that was prepared")
    return FrameIndex.unpack(record.seek) if record.seek else None


def _iterate_jpegs(folder: Path, numbers: np.ndarray) -> Iterator[np.ndarray]:
    for number in numbers:
        file = folder / FRAME_FILE.format(number + 1)
        try:
            yield decode_jpeg(file.read_bytes(), colorspace="RGB")
        except (OSError, ValueError) as error:
            raise UnreadableVideoError(f"{file}: cannot be read as an image ({error})") from error


class FrameReader:
    """Reads the frames of clips, from a cache of decoded videos where they fit into it.

    Cached videos are decoded once instead of once an epoch; the frames are the same.

    Args:
        dataset: The data set; None reads videos of any one, without a cache.
        frame_cache_mb: Largest size of the cache, megabytes; 0 for none.
    """

    def __init__(self, dataset: VideoDataset | None = None, frame_cache_mb: float = 0):
        has_cache = dataset is not None and frame_cache_mb > 0
        self._cache = FrameCache(dataset, frame_cache_mb) if has_cache else None

    def read(self, record: VideoRecord, frame_indices: np.ndarray) -> np.ndarray:
        """Return the frames (T, H, W, 3), uint8, of `record` at 0-based `frame_indices`."""
        if self._cache is None or not self._cache.holds(record):
            return read_frames(record, frame_indices)
        video = self._cache.read(record)
        if video is None:
            video = read_frames(record, np.arange(record.num_frames))
            self._cache.write(record, video)
        return np.asarray(video[frame_indices])
