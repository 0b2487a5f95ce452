"""Opening every video once: how many frames, how large, or why it cannot be read."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import pandas as pd
from av.video.reformatter import VideoReformatter
from simplejpeg import decode_jpeg_header
from tqdm.auto import tqdm

from lib.data.frame_index import (
    FrameIndex,
    checksum,
    decode_all,
    fingerprint,
    open_stream,
    to_rgb,
)
from lib.data.video_reader import read_frames
from lib.fileio import reading, write_text
from lib.prepare.parallel import map_in_workers

TIMEOUT_S = 900.0  # a decoder that has not answered by then has frozen
NUM_SPREAD_CHECKS, NUM_KEY_CHECKS = 8, 3  # frames and key frames that verify a frame index
SAVE_EVERY_S = 30.0
FRAME_PREFIX = "img_"  # folders of frames: img_00001.jpg, ..., as in MMAction2's rawframes trees


class VideoInfo(NamedTuple):
    """What is known of a video.

    Attributes:
        frames: Frames that can be decoded; 0 where it cannot be read.
        fps: Frames per second; 0 where it is not known.
        width: Width of an upright frame, pixels.
        height: Its height.
        error: Why it cannot be read; None where it can.
        note: What to know about a readable one, or None.
        fingerprint: Tells the file from another.
        seek: Where its frames are, a packed `FrameIndex`; empty: it is decoded from its start.
    """

    frames: int = 0
    fps: float = 0.0
    width: int = 0
    height: int = 0
    error: str | None = None
    note: str | None = None
    fingerprint: str = ""
    seek: str = ""


def inspect_videos(
    paths: Sequence[Path],
    num_processes: int = 0,
    timeout_s: float = TIMEOUT_S,
    progress_file: Path | None = None,
) -> pd.DataFrame:
    """Open every video, or folder of JPEG frames, in worker processes and count its frames.

    A file that crashes or freezes the decoder loses its own row only.

    Args:
        paths: The files.
        num_processes: Worker processes; 0 for one per core.
        timeout_s: Longest time for one file, seconds.
        progress_file: Where to keep what is known, so that a repeated call opens only files that
            are new or have changed; None to keep nothing.

    Returns:
        One row for each of `paths`, in their order, with the columns of `VideoInfo`.
    """
    known = _read_progress(progress_file)
    keys = [_key(path) for path in paths]
    rows = [known.get(key) for key in keys]
    missing = [position for position, row in enumerate(rows) if row is None]
    saved = time.monotonic()
    try:
        todo = [paths[position] for position in missing]
        outcomes = map_in_workers(inspect_video, todo, num_processes, timeout_s)
        done = len(paths) - len(todo)
        for outcome in tqdm(outcomes, "opening videos", len(paths), initial=done, unit="video"):
            rows[missing[outcome.position]] = outcome.value or VideoInfo(error=outcome.error)
            if time.monotonic() - saved > SAVE_EVERY_S:
                _write_progress(progress_file, keys, rows)
                saved = time.monotonic()
    finally:
        if missing:
            _write_progress(progress_file, keys, rows)
    return pd.DataFrame(rows, columns=list(VideoInfo._fields))


def inspect_video(path: Path) -> VideoInfo:
    """Decode a video once, from its first frame to its last, or look at every JPEG of a folder.

    So a damaged file is found here and not after hours of training.
    """
    try:
        if path.is_dir():
            return _probe_folder(path)
        if path.stat().st_size == 0:
            return VideoInfo(error="the file is empty")
        return _probe_file(path)
    except av.FFmpegError as error:
        return VideoInfo(error=f"it is not a video or its header is damaged ({error.strerror})")
    except OSError as error:
        return VideoInfo(error=f"cannot be opened ({error.strerror or error})")
    except ValueError as error:
        return VideoInfo(error=str(error))


def _probe_folder(folder: Path) -> VideoInfo:
    """Count the frames `img_00001.jpg` ... of a folder; their frame rate is not known (0)."""
    names = sorted(p.name for p in folder.iterdir() if p.name.startswith(FRAME_PREFIX))
    for position, name in enumerate(names, start=1):
        expected = f"{FRAME_PREFIX}{position:05d}.jpg"
        if name != expected:
            raise ValueError(f"{expected} is missing, {name} stands in its place")
    if not names:
        raise ValueError(f"it has no {FRAME_PREFIX}00001.jpg")
    height, width = _one_size([_jpeg_size(folder / name) for name in names])
    read_frames(folder, np.array([len(names) - 1]))
    return VideoInfo(len(names), 0.0, width, height)


def _jpeg_size(path: Path) -> tuple[int, int]:
    try:
        return decode_jpeg_header(path.read_bytes())[:2]
    except ValueError as error:
        raise ValueError(f"{path.name} is not a JPEG image ({error})") from error


def _one_size(sizes: list[tuple[int, int]]) -> tuple[int, int]:
    """Return the height and width of all frames."""
    for number, (height, width) in enumerate(sizes):
        if (height, width) != sizes[0]:
            raise ValueError(
                f"its frames change from {sizes[0][1]} × {sizes[0][0]} to {width} × {height} "
                f"pixels at frame {number}: scale them to one size"
            )
    return sizes[0]


@dataclass
class _Decoded:
    """What one decode of a whole file has shown; `checksums` of the frames that are looked up."""

    num_packets: int
    promised: int
    fps: float
    times: list[int | None] = field(default_factory=list)
    keys: list[int] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    checksums: dict[int, int] = field(default_factory=dict)
    num_damaged: int = 0


def _probe_file(path: Path) -> VideoInfo:
    decoded = _decode(path)
    frames = len(decoded.times)
    if not frames:
        raise ValueError("its frames cannot be decoded: truncated or damaged")
    height, width = _one_size(decoded.sizes)
    note = None
    if decoded.num_damaged:
        note = f"damaged: {decoded.num_damaged} of its {frames} frames are not whole"
    elif decoded.promised > decoded.num_packets:
        note = (
            f"truncated or damaged: {frames} of the {decoded.promised} frames its header promises"
        )
    index = None if decoded.num_damaged else FrameIndex.build(decoded.times, decoded.keys)
    seek = index.pack() if index and index.verify(path, decoded.checksums) else ""
    return VideoInfo(frames, decoded.fps, width, height, None, note, fingerprint(path), seek)


def _decode(path: Path) -> _Decoded:
    reformatter = VideoReformatter()
    with open_stream(path) as (container, stream):
        keys = [packet.is_keyframe for packet in container.demux(stream) if packet.size]
        to_check = _frames_to_check(np.array(keys))
    with open_stream(path) as (container, stream):
        rate = float(stream.average_rate or 0)
        decoded = _Decoded(len(keys), stream.frames, rate)
        for frame in decode_all(container, stream):
            decoded.num_damaged += frame is None or frame.is_corrupt
            if frame is None:
                continue
            number = len(decoded.times)
            decoded.times.append(frame.pts)
            if frame.key_frame:
                decoded.keys.append(number)
            is_turned = frame.rotation % 180 != 0
            decoded.sizes.append((frame.height, frame.width)[:: -1 if is_turned else 1])
            if number in to_check:
                decoded.checksums[number] = checksum(to_rgb(frame, reformatter))
    return decoded


def _frames_to_check(is_key: np.ndarray) -> set[int]:
    """Choose frames all over a video, among them those around some of its key frames."""
    spread = np.linspace(0, len(is_key) - 1, NUM_SPREAD_CHECKS).astype(int)
    keys = np.flatnonzero(is_key)[1:]
    some_keys = keys[np.linspace(0, len(keys) - 1, min(len(keys), NUM_KEY_CHECKS)).astype(int)]
    pairs = {number + near for number in spread for near in (0, 1)}
    return pairs | {number + near for number in some_keys for near in (-2, -1, 0, 1)}


def _key(path: Path) -> str:
    """Identify the contents of a file without reading it."""
    try:
        state = path.stat()
    except OSError:
        return f"{path}|missing"
    return f"{path}|{state.st_size}|{state.st_mtime_ns}"


def _read_progress(path: Path | None) -> dict[str, VideoInfo]:
    if path is None or not path.is_file():
        return {}
    texts = dict.fromkeys(["key", "error", "note", "fingerprint", "seek"], object)
    with reading(path, "delete that file; the videos are opened again"):
        table = pd.read_csv(path, dtype=texts)
        if list(table.columns) != ["key", *VideoInfo._fields]:
            return {}  # of another version
        table = table.astype({name: int for name in ("frames", "width", "height")})
    table[["fingerprint", "seek"]] = table[["fingerprint", "seek"]].fillna("")
    table = table.astype(object).where(table.notna(), None)
    return {row[0]: VideoInfo(*row[1:]) for row in table.itertuples(index=False, name=None)}


def _write_progress(path: Path | None, keys: list[str], rows: list[VideoInfo | None]) -> None:
    if path is None:
        return
    known = [(key, *row) for key, row in zip(keys, rows, strict=True) if row is not None]
    write_text(path, pd.DataFrame(known, columns=["key", *VideoInfo._fields]).to_csv(index=False))
