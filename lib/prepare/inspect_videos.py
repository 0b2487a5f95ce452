"""Inspect videos: decode each once, count its frames, and verify its frame index."""

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from tqdm.auto import tqdm

from lib.data.frame_index import (
    FrameIndex,
    checksum,
    decode_packet,
    fingerprint,
    frame_rate,
    open_stream,
    to_rgb,
)
from lib.data.video_reader import FRAME_FILE, find_frame_files, iterate_frames
from lib.prepare.parallel import map_in_workers

TIMEOUT_S = 900.0  # after which a decoder counts as frozen
MAX_DAMAGED = 0.5  # share of the frames of a video that is kept


class VideoInfo(NamedTuple):
    """Result of inspecting a video; width and height are those of an upright frame, pixels."""

    frames: int = 0  # that can be decoded; 0 if the video is unreadable
    fps: float = 0.0  # 0 if not known
    width: int = 0
    height: int = 0
    error: str | None = None  # reason why the video is unreadable
    note: str | None = None  # damage of a readable video
    fingerprint: str = ""
    seek: str = ""  # see `VideoRecord`


def inspect_videos(
    paths: Sequence[Path],
    num_processes: int = 0,
    timeout_s: float = TIMEOUT_S,
    progress_file: Path | None = None,
) -> list[VideoInfo]:
    """Inspect video files and folders of JPEG frames in worker processes, as `map_in_workers`.

    `progress_file` gets a JSON line per inspected file, so that a repeated call opens only files
    that are new or have changed.
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
    return [infos[key] for key in keys]


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
    """Decode a video from its first to its last frame, or every image of a folder.

    Errors that would otherwise appear after hours of training become the `error` of the result.
    """
    try:
        if path.is_dir():
            names = find_frame_files(path)
            sizes = [frame.shape[:2] for frame in iterate_frames(path, np.arange(len(names)))]
            height, width = _common_size(sizes)
            first = "" if names[0] == FRAME_FILE.format(1) else names[0]
            return VideoInfo(len(names), 0.0, width, height, seek=first)
        if path.stat().st_size == 0:
            return VideoInfo(error="the file is empty")
        return _inspect_file(path)
    except av.FFmpegError as error:
        return VideoInfo(error=f"it is not a video or its header is damaged ({error.strerror})")
    except OSError as error:
        return VideoInfo(error=f"cannot be opened ({error.strerror or error})")
    except ValueError as error:
        return VideoInfo(error=str(error))


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
    times, keys, sizes, checksums, num_packets, num_damaged = [], [], [], [], 0, 0
    reformatter = VideoReformatter()
    with open_stream(path) as (container, stream):
        for packet in container.demux(stream):
            frames = decode_packet(container, packet)
            num_packets += packet.size > 0
            num_damaged += frames is None
            for frame in frames or []:
                if frame.key_frame:
                    keys.append(len(times))
                num_damaged += frame.is_corrupt
                pixels = to_rgb(frame, reformatter)
                times.append(frame.pts)
                sizes.append(pixels.shape[:2])
                checksums.append(checksum(pixels))
        num_promised, fps = stream.frames, frame_rate(times, stream)
    height, width = _common_size(sizes)
    note = _damage(len(times), num_packets, num_promised, num_damaged)
    index = FrameIndex.build(times, keys)
    is_usable = index is not None and num_damaged == 0 and index.verify(path, checksums)
    seek = index.pack() if is_usable else ""
    return VideoInfo(len(times), fps, width, height, None, note, fingerprint(path), seek)


def _damage(frames: int, num_packets: int, num_promised: int, num_damaged: int) -> str | None:
    """Return a note on the damage of a file; ValueError if little of it is whole."""
    if num_damaged:
        total = max(frames, num_packets)
        note = f"damaged: {num_damaged} of its {total} frames are not whole"
        if num_damaged > MAX_DAMAGED * total:
            raise ValueError(note)
        return note
    if num_promised > num_packets:
        return f"truncated or damaged: {frames} of the {num_promised} frames in its header"
    return None
