"""Which frames of a video make a clip, and reading them."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np
from simplejpeg import decode_jpeg

from lib.data.dataset import VideoDataset, VideoRecord
from lib.data.frame_cache import FrameCache
from lib.data.frame_index import FrameIndex, fingerprint, iterate_file

if TYPE_CHECKING:
    import torch

FRAME_FILE = "img_{:05d}.jpg"  # 1-based, as in MMAction2's rawframes trees
PREPARE_AGAIN = "prepare the data set again, with notebooks/1_prepare_data.ipynb"


def random_clip_indices(
    num_frames: int, clip_len: int, frame_interval: int, generator: "torch.Generator"
) -> np.ndarray:
    """Draw the frames of one training clip.

    The start is uniform over the range in which the clip fits; a clip that is longer than the
    video starts at frame 0 and wraps around (modulo the number of frames).

    Args:
        num_frames: Frames in the video, at least 1.
        clip_len: Frames in the clip.
        frame_interval: Distance of two neighbouring frames of the clip, in frames.
        generator: Source of the start.

    Returns:
        0-based frame indices, shape (clip_len,), int64.

    Source: Zou et al., section 4.1 (8 frames, every 8th frame).
    """
    import torch  # here: the processes that store frames or detect people start without it

    _check_frame_counts(num_frames, clip_len, frame_interval)
    num_starts = max(1, num_frames - clip_len * frame_interval + 1)
    start = int(torch.randint(num_starts, (), generator=generator))
    return (start + np.arange(clip_len) * frame_interval) % num_frames


def uniform_clip_indices(
    num_frames: int, clip_len: int, frame_interval: int, num_clips: int
) -> np.ndarray:
    """Return the frames of evenly spaced test clips.

    The range of valid starts is cut into `num_clips` equal parts and each clip starts in the
    middle of its part; in a video shorter than a clip all start at frame 0 and wrap around.

    Args:
        num_frames: Frames in the video, at least 1.
        clip_len: Frames in each clip.
        frame_interval: Distance of two neighbouring frames of a clip, in frames.
        num_clips: Number of clips.

    Returns:
        0-based frame indices, shape (num_clips, clip_len), int64.

    Source: Zou et al., section 4.1 (10 clips in testing, 1 in validation).
    """
    _check_frame_counts(num_frames, clip_len, frame_interval)
    num_starts = num_frames - clip_len * frame_interval + 1
    starts = np.zeros(num_clips, dtype=np.int64)
    if num_starts > 0:
        part = num_starts / num_clips
        starts = (np.arange(num_clips) * part + part / 2).astype(np.int64)
    return (starts[:, None] + np.arange(clip_len) * frame_interval) % num_frames


def _check_frame_counts(num_frames: int, clip_len: int, frame_interval: int) -> None:
    for name, value in (
        ("num_frames", num_frames),
        ("clip_len", clip_len),
        ("frame_interval", frame_interval),
    ):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")


class UnreadableVideoError(ValueError):
    """A video cannot be read, or is not the one that was prepared."""


def read_frames(source: str | Path | VideoRecord, frame_indices: np.ndarray) -> np.ndarray:
    """Read frames of a video file or of a folder of JPEG frames.

    Args:
        source: A video file; a folder with `img_00001.jpg`, `img_00002.jpg`, ...; or a video of the
            index, which is faster: its frames are found by seeking.
        frame_indices: 0-based indices in any order, repeats allowed, shape (T,).

    Returns:
        RGB frames, shape (T, H, W, 3), uint8.

    Raises:
        UnreadableVideoError: If the video cannot be decoded, has no such frame, or is not the one
            that was prepared; names the file.
    """
    wanted, positions = np.unique(np.asarray(frame_indices), return_inverse=True)
    frames = None
    for number, frame in enumerate(iterate_frames(source, wanted)):
        if frames is None:
            frames = np.empty((len(wanted), *frame.shape), dtype=np.uint8)
        elif frame.shape != frames.shape[1:]:
            raise ValueError(f"{source}: frame {wanted[number]} has another size than those before")
        frames[number] = frame
    is_ascending = len(wanted) == len(positions) and (np.diff(positions) > 0).all()
    return frames if is_ascending else frames[positions]


def iterate_frames(
    source: str | Path | VideoRecord, frame_indices: np.ndarray
) -> Iterator[np.ndarray]:
    """Read frames one after the other, decoding each once; for long walks through one video.

    Args:
        source: As in `read_frames`.
        frame_indices: 0-based indices, strictly ascending, shape (T,).

    Yields:
        RGB frames, shape (H, W, 3), uint8.

    Raises:
        ValueError: As in `read_frames`.
    """
    record = source if isinstance(source, VideoRecord) else None
    path = Path(source) if record is None else record.path
    wanted = np.asarray(frame_indices)
    frames = _iterate_jpegs(path, wanted) if path.is_dir() else _iterate_video(path, wanted, record)
    for frame in frames:
        if record is not None and frame.shape[:2] != (record.height, record.width):
            raise UnreadableVideoError(
                f"{path}: its frames are {frame.shape[1]} × {frame.shape[0]} pixels, the index "
                f"says {record.width} × {record.height}; {PREPARE_AGAIN}"
            )
        yield frame


def _iterate_video(
    path: Path, wanted: np.ndarray, record: VideoRecord | None
) -> Iterator[np.ndarray]:
    if not path.is_file():
        raise UnreadableVideoError(f"{path}: no such video file")
    table = None
    try:
        if record is not None and record.fingerprint:
            if fingerprint(path) != record.fingerprint:
                raise ValueError(f"it is not the file that was prepared; {PREPARE_AGAIN}")
            table = FrameIndex.unpack(record.seek) if record.seek else None
        yield from iterate_file(path, wanted, table)
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        remedy = "" if record is None or PREPARE_AGAIN in reason else f"; {PREPARE_AGAIN}"
        problem = f"{path}: cannot be read as a video ({reason}){remedy}"
        raise UnreadableVideoError(problem) from error


def _iterate_jpegs(folder: Path, wanted: np.ndarray) -> Iterator[np.ndarray]:
    for index in wanted:
        file = folder / FRAME_FILE.format(index + 1)
        try:
            yield decode_jpeg(file.read_bytes(), colorspace="RGB")
        except (OSError, ValueError) as error:
            raise UnreadableVideoError(f"{file}: cannot be read as an image ({error})") from error


class FrameReader:
    """Reads clips, those of a small data set from its decoded copy.

    Such videos are decoded once instead of once an epoch; one that does not fit is decoded each
    time, so that results never depend on the copy.

    Args:
        dataset: The data set; None reads videos of any one, without a copy.
        frame_cache_mb: Largest size of the decoded copy, megabytes; 0 for none.
    """

    def __init__(self, dataset: VideoDataset | None = None, frame_cache_mb: float = 0):
        has_copy = dataset is not None and frame_cache_mb > 0
        self._copy = FrameCache(dataset, frame_cache_mb) if has_copy else None

    def read(self, record: VideoRecord, frame_indices: np.ndarray) -> np.ndarray:
        """Return the frames (T, H, W, 3), uint8, of `record` at 0-based `frame_indices`."""
        if self._copy is None or not self._copy.holds(record.row):
            return read_frames(record, frame_indices)
        video = self._copy.read(record.row)
        if video is None:
            video = read_frames(record, np.arange(record.num_frames))
            self._copy.write(record.row, video)
        return np.asarray(video[frame_indices])
