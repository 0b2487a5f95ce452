"""Inspect videos: decode each once, count its frames, and verify its frame index."""

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import pandas as pd
from av.video.reformatter import VideoReformatter
from simplejpeg import decode_jpeg_header
from tqdm.auto import tqdm

from lib.data.frame_index import FrameIndex, checksum, decode_all, fingerprint, open_stream, to_rgb
from lib.data.video_reader import FRAME_FILE, read_frames
from lib.prepare.parallel import map_in_workers

TIMEOUT_S = 900.0  # after which a decoder counts as frozen
NUM_SPREAD_CHECKS, NUM_KEY_CHECKS = 8, 3  # frames and key frames that verify a frame index


class VideoInfo(NamedTuple):
    """Result of inspecting a video; width and height are those of an upright frame, pixels."""

    frames: int = 0  # that can be decoded; 0 if the video is unreadable
    fps: float = 0.0  # 0 if not known
    width: int = 0
    height: int = 0
    error: str | None = None  # reason why the video is unreadable
    note: str | None = None  # damage of a readable video
    fingerprint: str = ""
    seek: str = ""  # packed `FrameIndex`; empty if the file must be decoded from its start


def inspect_videos(
    paths: Sequence[Path],
    num_processes: int = 0,
    timeout_s: float = TIMEOUT_S,
    progress_file: Path | None = None,
) -> pd.DataFrame:
    """Inspect video files and folders of JPEG frames in worker processes, as `map_in_workers`.

    Args:
        paths: The files.
        num_processes: Worker processes; 0 for one per core.
        timeout_s: Longest time for one file, seconds.
        progress_file: JSON lines, one per inspected file, so that a repeated call opens only files
            that are new or have changed; None to keep nothing.

    Returns:
        One row for each of `paths`, in their order, with the columns of `VideoInfo`.
    """
    progress_file = progress_file or Path(os.devnull)
    infos = _read_progress(progress_file)
    keys = [_file_key(path) for path in paths]
    todo = [position for position, key in enumerate(keys) if key not in infos]
    results = map_in_workers(inspect_video, [paths[p] for p in todo], num_processes, timeout_s)
    done = len(paths) - len(todo)
    with open(progress_file if todo else os.devnull, "a", encoding="utf-8") as log:
        for result in tqdm(results, "opening videos", len(paths), initial=done, unit="video"):
            key = keys[todo[result.position]]
            infos[key] = result.value or VideoInfo(error=result.error)
            log.write("\n" + json.dumps([key, *infos[key]]))  # after a line that was cut off, too
            log.flush()
    return pd.DataFrame([infos[key] for key in keys], columns=list(VideoInfo._fields))


def _file_key(path: Path) -> str:
    """Identify the contents of a file without reading it."""
    try:
        state = path.stat()
    except OSError:
        return f"{path}|missing"
    return f"{path}|{state.st_size}|{state.st_mtime_ns}"


def _read_progress(path: Path) -> dict[str, VideoInfo]:
    """Read the progress file; a line that was cut off by a crash is skipped."""
    infos: dict[str, VideoInfo] = {}
    for line in path.read_text("utf-8").splitlines() if path.is_file() else []:
        with suppress(ValueError, TypeError):
            key, *values = json.loads(line)
            infos[key] = VideoInfo(*values)
    return infos


def inspect_video(path: Path) -> VideoInfo:
    """Decode a video from its first to its last frame, or check every JPEG file of a folder.

    Errors that would otherwise appear after hours of training become the `error` of the result.
    """
    try:
        if path.is_dir():
            return _inspect_folder(path)
        if path.stat().st_size == 0:
            return VideoInfo(error="the file is empty")
        return _inspect_file(path)
    except av.FFmpegError as error:
        return VideoInfo(error=f"it is not a video or its header is damaged ({error.strerror})")
    except OSError as error:
        return VideoInfo(error=f"cannot be opened ({error.strerror or error})")
    except ValueError as error:
        return VideoInfo(error=str(error))


def _inspect_folder(folder: Path) -> VideoInfo:
    """Count the frames `img_00001.jpg` ... of a folder."""
    prefix = FRAME_FILE.split("{")[0]
    names = sorted(path.name for path in folder.iterdir() if path.name.startswith(prefix))
    sizes = []
    for number, name in enumerate(names or [""], start=1):
        if name != FRAME_FILE.format(number):
            raise ValueError(f"{FRAME_FILE.format(number)} is missing")
        try:
            sizes.append(decode_jpeg_header((folder / name).read_bytes())[:2])
        except ValueError as error:
            raise ValueError(f"{name} is not a JPEG image ({error})") from error
    height, width = _common_size(sizes)
    read_frames(folder, np.array([len(names) - 1]))
    return VideoInfo(len(names), 0.0, width, height)


def _common_size(sizes: list[tuple[int, int]]) -> tuple[int, int]:
    """Return the height and width of all frames; ValueError if they differ or there is none."""
    if not sizes:
        raise ValueError("its frames cannot be decoded: truncated or damaged")
    for number, (height, width) in enumerate(sizes):
        if (height, width) != sizes[0]:
            raise ValueError(
                f"its frames change from {sizes[0][1]} × {sizes[0][0]} to {width} × {height} "
                f"pixels at frame {number}: scale them to one size"
            )
    return sizes[0]


def _inspect_file(path: Path) -> VideoInfo:
    num_packets, to_check = _frames_to_check(path)
    times, keys, sizes, checksums, num_damaged = [], [], [], {}, 0
    reformatter = VideoReformatter()
    with open_stream(path) as (container, stream):
        num_promised, fps = stream.frames, float(stream.average_rate or 0)
        for frame in decode_all(container, stream):
            num_damaged += frame is None or frame.is_corrupt
            if frame is None:
                continue
            number = len(times)
            times.append(frame.pts)
            if frame.key_frame:
                keys.append(number)
            sizes.append(_upright_size(frame))
            if number in to_check:
                checksums[number] = checksum(to_rgb(frame, reformatter))
    height, width = _common_size(sizes)
    note = _damage(len(times), num_packets, num_promised, num_damaged)
    index = FrameIndex.build(times, keys)
    is_usable = index is not None and num_damaged == 0 and index.verify(path, checksums)
    seek = index.pack() if is_usable else ""
    return VideoInfo(len(times), fps, width, height, None, note, fingerprint(path), seek)


def _upright_size(frame: av.VideoFrame) -> tuple[int, int]:
    is_turned = frame.rotation % 180 != 0
    return (frame.width, frame.height) if is_turned else (frame.height, frame.width)


def _damage(frames: int, num_packets: int, num_promised: int, num_damaged: int) -> str | None:
    if num_damaged:
        return f"damaged: {num_damaged} of its {max(frames, num_packets)} frames are not whole"
    if num_promised > num_packets:
        return f"truncated or damaged: {frames} of the {num_promised} frames in its header"
    return None


def _frames_to_check(path: Path) -> tuple[int, set[int]]:
    """Return the number of packets, and frames all over the video and around some key frames."""
    with open_stream(path) as (container, stream):
        is_key = np.array([packet.is_keyframe for packet in container.demux(stream) if packet.size])
    spread = np.linspace(0, len(is_key) - 1, NUM_SPREAD_CHECKS).astype(int)
    keys = np.flatnonzero(is_key)[1:]
    some_keys = keys[np.linspace(0, len(keys) - 1, min(len(keys), NUM_KEY_CHECKS)).astype(int)]
    pairs = {number + near for number in spread for near in (0, 1)}
    return len(is_key), pairs | {number + near for number in some_keys for near in (-2, -1, 0, 1)}
