"""Reading exactly the requested frames of a video file or of a folder of images."""

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import simplejpeg
from PIL import Image
from simplejpeg import decode_jpeg

from lib.data.dataset import CACHE_FOLDER, VideoDataset, VideoRecord
from lib.data.frame_index import FrameIndex, fingerprint, iterate_file
from lib.fileio import write_atomic

FRAME_FILE = "img_{:05d}.jpg"  # 1-based, as in MMAction2's rawframes trees
NUMBERED_IMAGE = re.compile(r"(.*?)(\d+)(\.(?:jpe?g|png))", re.I)
PREPARE_AGAIN = "prepare the data set again, with notebooks/1_prepare_data.ipynb"
DECORD = "decord"  # in the column reader of the index


class UnreadableVideoError(ValueError):
    """A video cannot be read, or is not the one that was prepared."""


def find_frame_files(folder: Path) -> list[str]:
    """Return the names of the frames in a folder: its numbered images, by number.

    In a folder of several kinds, images called `img_...` are the frames and others optical flow.
    ValueError if there is no such image, a number is missing, or the kinds are unclear.
    """
    kinds: dict[tuple[str, str], list[str]] = {}
    for match in filter(None, map(NUMBERED_IMAGE.fullmatch, os.listdir(folder))):
        kinds.setdefault((match[1], match[3]), []).append(match[0])
    if not kinds:
        raise ValueError("it holds no numbered images (.jpg, .png)")
    frames = [kind for kind in kinds if kind[0] == FRAME_FILE.split("{")[0]] or list(kinds)
    if len(frames) != 1:
        texts = sorted(f"{prefix}…{suffix}" for prefix, suffix in frames)
        raise ValueError(f"it holds images of several kinds ({', '.join(texts)}): keep one")
    names = sorted(kinds[frames[0]], key=lambda name: int(NUMBERED_IMAGE.fullmatch(name)[2]))
    expected = [_frame_name(names[0], number) for number in range(len(names))]
    if missing := set(expected) - set(names):
        raise ValueError(f"{min(missing)} is missing")
    return names


def _frame_name(first: str, number: int) -> str:
    """Return the name of a frame; `first` is the name of frame 0."""
    prefix, digits, suffix = NUMBERED_IMAGE.fullmatch(first).groups()
    return f"{prefix}{int(digits) + number:0{len(digits)}d}{suffix}"


def read_frames(source: str | Path | VideoRecord, frame_indices: np.ndarray) -> np.ndarray:
    """Read frames of a video file or of a folder of images.

    Args:
        source: A video file; a folder of numbered images (see `find_frame_files`); or a record of
            the index, which is faster: its frames are found by seeking.
        frame_indices: 0-based indices in any order, repeats allowed, shape (T,).

    Returns:
        RGB frames, shape (T, H, W, 3), uint8.

    UnreadableVideoError if the video cannot be decoded, has no such frame, or is not the one that
    was prepared; names the file.
    """
    numbers, positions = np.unique(np.asarray(frame_indices), return_inverse=True)
    frames = None
    for position, frame in enumerate(iterate_frames(source, numbers)):
        if frames is None:
            frames = np.empty((len(numbers), *frame.shape), dtype=np.uint8)
        frames[position] = frame
    is_ascending = len(numbers) == len(positions) and (np.diff(positions) > 0).all()
    return frames if is_ascending else frames[positions]


def iterate_frames(
    source: str | Path | VideoRecord, frame_indices: np.ndarray
) -> Iterator[np.ndarray]:
    """Yield frames (H, W, 3) one by one, each decoded once: a long video needs little memory.

    Source and errors are those of `read_frames`; the indices must be strictly ascending.
    """
    record = source if isinstance(source, VideoRecord) else None
    path = Path(source) if record is None else record.path
    numbers = np.asarray(frame_indices) + (0 if record is None else record.first_frame)
    frames = (_iterate_images if path.is_dir() else _iterate_video)(path, numbers, record)
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
        if record is None:
            yield from iterate_file(path, numbers)
            return
        if record.fingerprint and fingerprint(path) != record.fingerprint:
            raise ValueError("it is not the file that was prepared")
        index = FrameIndex.unpack(record.seek) if record.seek else None
        yield from iterate_file(path, numbers, index, record.reader == DECORD)
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        remedy = "" if record is None else f"; {PREPARE_AGAIN}"
        problem = f"{path}: cannot be read as a video ({reason}){remedy}"
        raise UnreadableVideoError(problem) from error


def _iterate_images(
    folder: Path, numbers: np.ndarray, record: VideoRecord | None
) -> Iterator[np.ndarray]:
    if record is None:
        first = find_frame_files(folder)[0]
    else:
        first = record.seek or FRAME_FILE.format(1)
    for number in numbers:
        file = folder / _frame_name(first, number)
        try:
            if file.suffix.lower() == ".png":
                with Image.open(file, formats=["PNG"]) as image:
                    yield np.asarray(image.convert("RGB"))
            else:
                yield decode_jpeg(file.read_bytes(), colorspace="RGB")
        except (OSError, SyntaxError, ValueError) as error:
            raise UnreadableVideoError(f"{file}: cannot be read as an image ({error})") from error


class FrameReader:
    """Reads the frames of clips, from a cache of decoded videos where they fit into it.

    The cache holds the first videos of a data set, in its folder; the frames are the same. The
    process that reads a video first writes its file, which gets its name when it is complete. Two
    processes that write the same video write the same bytes. The name is a hash of everything that
    determines the content.

    Args:
        dataset: The data set; None reads videos of any one, without a cache.
        frame_cache_mb: Largest size of the cache, megabytes; 0 for none.
    """

    def __init__(self, dataset: VideoDataset | None = None, frame_cache_mb: float = 0):
        self._num_cached = 0
        if dataset is None:
            return
        self.folder = dataset.folder / CACHE_FOLDER
        shapes = dataset.index[["frames", "height", "width"]].to_numpy(dtype=np.int64)
        ends = 3 * shapes.prod(axis=1).cumsum()
        self._num_cached = int((ends <= frame_cache_mb * 1e6).sum())

    def read(self, record: VideoRecord, frame_indices: np.ndarray) -> np.ndarray:
        """Return the frames (T, H, W, 3), uint8, of `record` at 0-based `frame_indices`."""
        if record.row >= self._num_cached:
            return read_frames(record, frame_indices)
        content = f"{record} {av.__version__} {simplejpeg.__version__}"
        path = self.folder / f"{hashlib.sha256(content.encode()).hexdigest()[:20]}.rgb"
        frames = _read_cached(path, record, frame_indices)
        if frames is None:
            video = read_frames(record, np.arange(record.num_frames))
            try:
                write_atomic(path, video.tofile)
            except OSError as error:
                raise ValueError(f"frame_cache_mb: {error}; or set it to 0") from error
            frames = video[frame_indices]
        return frames


def _read_cached(path: Path, record: VideoRecord, frame_indices: np.ndarray) -> np.ndarray | None:
    """Return frames (T, H, W, 3), uint8, of a cached video; None if they are not there yet.

    Only their bytes are read: mapping the file costs more than the frames of a clip.
    """
    frames = np.empty((len(frame_indices), record.height, record.width, 3), dtype=np.uint8)
    try:
        with open(path, "rb", buffering=0) as file:
            for frame, index in zip(frames, frame_indices, strict=True):
                file.seek(int(index) * frame.nbytes)
                if file.readinto(frame) != frame.nbytes:  # cut short by a crash of the machine
                    return None
    except OSError:
        return None
    return frames
