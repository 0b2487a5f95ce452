"""Which frames of a video make a clip, and reading them."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import decord
import numpy as np
from decord import VideoReader
from PIL import Image

from lib.data.dataset import VideoRecord

if TYPE_CHECKING:
    import torch

FRAME_FILE = "img_{:05d}.jpg"  # 1-based, as in MMAction2's rawframes trees

decord.logging.set_level(decord.logging.ERROR)


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


def read_frames(path: str | Path, frame_indices: np.ndarray) -> np.ndarray:
    """Read frames of a video file or of a folder of JPEG frames.

    Args:
        path: A video file, or a folder with `img_00001.jpg`, `img_00002.jpg`, ...
        frame_indices: 0-based indices in any order, repeats allowed, shape (T,).

    Returns:
        RGB frames, shape (T, H, W, 3), uint8.

    Raises:
        ValueError: If the video cannot be decoded or has no such frame; names the file.
    """
    path = Path(path)
    wanted, positions = np.unique(np.asarray(frame_indices), return_inverse=True)
    if path.is_dir():
        frames = np.stack([_read_jpeg(path, index) for index in wanted])
    else:
        frames = _read_video(path, wanted)
    return frames if len(wanted) == len(positions) and _is_sorted(positions) else frames[positions]


def iterate_frames(path: str | Path, frame_indices: np.ndarray) -> Iterator[np.ndarray]:
    """Read frames one after the other, decoding each once; for long walks through one video.

    Args:
        path: As in `read_frames`.
        frame_indices: 0-based indices, ascending, shape (T,).

    Yields:
        RGB frames, shape (H, W, 3), uint8.

    Raises:
        ValueError: As in `read_frames`.
    """
    path = Path(path)
    wanted = np.asarray(frame_indices)
    if path.is_dir():
        for index in wanted:
            yield _read_jpeg(path, index)
        return
    if not path.is_file():
        raise ValueError(f"{path}: no such video file")
    try:
        reader = _open_video(path, wanted[-1])
        yield from _walk(reader, wanted)
    except Exception as error:  # decord raises bare errors of several kinds, none with the path
        raise _unreadable(path, error) from error


def _is_sorted(positions: np.ndarray) -> bool:
    return bool((np.diff(positions) > 0).all())


def _read_video(path: Path, wanted: np.ndarray) -> np.ndarray:
    if not path.is_file():
        raise ValueError(f"{path}: no such video file")
    try:
        reader = _open_video(path, wanted[-1])
        if not _would_seek(reader, wanted):
            return reader.get_batch(wanted.tolist()).asnumpy()
        return np.stack(list(_walk(reader, wanted)))
    except Exception as error:  # decord raises bare errors of several kinds, none with the path
        raise _unreadable(path, error) from error


def _open_video(path: Path, last: int) -> VideoReader:
    reader = VideoReader(str(path), num_threads=1)
    if last >= len(reader):
        raise ValueError(f"frame {last} was asked for, the video has {len(reader)}")
    return reader


def _unreadable(path: Path, error: Exception) -> ValueError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
    return ValueError(f"{path}: cannot be read as a video ({reason})")


def _would_seek(reader: VideoReader, wanted: np.ndarray) -> bool:
    """Whether decord would seek to a key frame on its way to the wanted frames.

    It does not notice where it lands: in most files of HMDB-51 (AVI with B-frames) and in some MP4
    files it then returns other frames without a word.
    """
    keys = np.asarray(reader.get_key_indices())
    return bool(((keys > 0) & (keys <= wanted[-1])).any())


def _walk(reader: VideoReader, wanted: np.ndarray) -> Iterator[np.ndarray]:
    """Decode every frame up to the last one of `wanted`, which is sorted, and yield these."""
    position = 0
    for index in range(wanted[-1] + 1):
        frame = reader.next()
        if index == wanted[position]:
            position += 1
            yield frame.asnumpy()


def _read_jpeg(folder: Path, index: int) -> np.ndarray:
    file = folder / FRAME_FILE.format(index + 1)
    try:
        with Image.open(file) as image:
            return np.asarray(image.convert("RGB"))
    except OSError as error:
        raise ValueError(f"{file}: cannot be read as an image ({error})") from error


class FrameReader:
    """Reads clips and keeps the videos that fit into `cache_mb` decoded in memory.

    Small data sets are decoded once instead of once an epoch; a video that no longer fits is read
    from disk each time, so that results never depend on the cache.

    Args:
        cache_mb: Memory for decoded videos in this process, in megabytes; 0 keeps nothing.
    """

    def __init__(self, cache_mb: float = 0):
        self._free = int(cache_mb * 1e6)
        self._videos: dict[str, np.ndarray] = {}

    def read(self, record: VideoRecord, frame_indices: np.ndarray) -> np.ndarray:
        """Return the frames (T, H, W, 3), uint8, of `record` at 0-based `frame_indices`."""
        video = self._videos.get(record.name)
        if video is not None:
            return video[frame_indices]
        size = record.num_frames * record.height * record.width * 3
        if size > self._free:
            return read_frames(record.path, frame_indices)
        video = read_frames(record.path, np.arange(record.num_frames))
        self._free -= video.nbytes
        self._videos[record.name] = video
        return video[frame_indices]
