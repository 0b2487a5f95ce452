"""Decoding exactly the wanted frames of a video file.

A frame's number is its place in a plain decode of the whole file. Preparation decodes it so once
and keeps what a reader needs to find a frame without that: a `FrameIndex`. Reading seeks to the
key frame before, leaves out frames that no other one needs, and converts only the wanted ones. A
file in which that does not find the same frames has no table, and is decoded from its start.
"""

import base64
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.video.reformatter import VideoReformatter

WORTH_A_SEEK = 2  # so many unwanted frames are decoded rather than left out by seeking
FINGERPRINT_BYTES = 4096  # at either end of a file


class FrameIndex(NamedTuple):
    """Where the frames of a video file are.

    Attributes:
        times: Of each frame, the time of its packet (see `packet_time`), shape (N,), int64.
        keys: Numbers of the frames that decoding can start at, ascending, from 0 on, int64.
    """

    times: np.ndarray
    keys: np.ndarray

    @classmethod
    def unpack(cls, text: str) -> "FrameIndex":
        """Undo `lib.prepare.inspect_videos.pack`; a damaged text is a ValueError."""
        try:
            raw = zlib.decompress(base64.b64decode(text, validate=True))
            count, *_ = values = np.frombuffer(raw, dtype="<i8")
            times, keys = values[1 : count + 1].cumsum(), values[count + 1 :].cumsum()
            if not (len(times) == count > 0 and len(keys) and 0 == keys[0] <= keys[-1] < count):
                raise ValueError("frames are missing")
        except (ValueError, zlib.error) as error:
            raise ValueError(f"its entry in the column seek is damaged ({error})") from error
        return cls(times, keys)


def fingerprint(path: Path) -> str:
    """Return what tells a file from another at the cost of two short reads: size and checksum."""
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        checksum = zlib.crc32(file.read(FINGERPRINT_BYTES))
        file.seek(max(0, size - FINGERPRINT_BYTES))
        return f"{size}-{zlib.crc32(file.read(FINGERPRINT_BYTES), checksum):08x}"


@contextmanager
def open_stream(path: Path) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """Open a file and its first video stream, to be decoded in this thread.

    Raises:
        ValueError: If it has no video.
        av.FFmpegError: If it is not a video file.
    """
    with av.open(str(path), metadata_errors="ignore") as container:
        if not container.streams.video:
            raise ValueError("it has no video stream (audio only?)")
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        yield container, stream


def packet_time(container: av.container.InputContainer, packet: av.Packet) -> int | None:
    """Return the time that a packet and its frame are known by.

    AVI files have no presentation times, and FFmpeg guesses other ones after a seek; the decoding
    time, which there counts the packets, takes their place in the packet, and so in its frame.
    """
    if container.format.name == "avi":
        packet.pts = packet.dts
    return packet.pts


def decode_all(
    container: av.container.InputContainer, stream: av.VideoStream
) -> Iterator[av.VideoFrame | None]:
    """Yield the frames of a stream from where it stands; None for a packet without a readable one.

    A damaged packet loses its own frames only, as in other programs.
    """
    for packet in container.demux(stream):
        packet_time(container, packet)
        try:
            yield from packet.decode()
        except av.InvalidDataError:
            yield None


def iterate_file(
    path: Path, wanted: np.ndarray, table: FrameIndex | None = None
) -> Iterator[np.ndarray]:
    """Yield the wanted frames of a video file.

    Args:
        path: The file.
        wanted: 0-based frame numbers, strictly ascending, at least one, shape (T,).
        table: Where its frames are; None decodes from its start.

    Yields:
        RGB frames, upright, shape (H, W, 3), uint8.

    Raises:
        ValueError: If there is no such frame, or the table is not that of this file.
        av.FFmpegError: If the file cannot be read.
    """
    if table is not None and wanted[-1] >= len(table.times):
        raise _beyond(wanted[-1], len(table.times))
    with open_stream(path) as (container, stream):
        reformatter = VideoReformatter()
        places = (container, stream, wanted)
        for frame in _walk(*places) if table is None else _seek(*places, table):
            yield to_rgb(frame, reformatter)


def to_rgb(frame: av.VideoFrame, reformatter: VideoReformatter) -> np.ndarray:
    """Return a frame as the file says that it is to be shown, (H, W, 3), uint8."""
    rgb = reformatter.reformat(frame, format="rgb24", threads=1)
    plane = rgb.planes[0]  # its lines may end in padding; the array keeps it alive
    lines = np.frombuffer(plane, np.uint8).reshape(rgb.height, plane.line_size)
    pixels = lines[:, : 3 * rgb.width].reshape(rgb.height, rgb.width, 3)
    turns = frame.rotation // 90
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


def _walk(
    container: av.container.InputContainer, stream: av.VideoStream, wanted: np.ndarray
) -> Iterator[av.VideoFrame]:
    position = number = 0
    for frame in decode_all(container, stream):
        if frame is None:
            continue
        if number == wanted[position]:
            yield frame
            position += 1
            if position == len(wanted):
                return
        number += 1
    raise _beyond(wanted[-1], number)


def _beyond(frame: int, count: int) -> ValueError:
    return ValueError(f"frame {frame} was asked for, the video has {count}")


def _seek(
    container: av.container.InputContainer,
    stream: av.VideoStream,
    wanted: np.ndarray,
    table: FrameIndex,
) -> Iterator[av.VideoFrame]:
    keys = table.keys[np.searchsorted(table.keys, wanted, side="right") - 1]
    is_first = np.concatenate([[True], keys[1:] > wanted[:-1] + 1 + WORTH_A_SEEK])
    starts = np.flatnonzero(is_first)
    for start, stop in zip(starts, [*starts[1:], len(wanted)], strict=True):
        if keys[start] > 0:
            container.seek(int(table.times[keys[start]]), stream=stream)
        yield from _decode_part(container, stream, table.times[wanted[start:stop]].tolist())


def _decode_part(
    container: av.container.InputContainer, stream: av.VideoStream, times: list[int]
) -> Iterator[av.VideoFrame]:
    """Yield the frames of some packets, from where the stream stands; the decoder is emptied."""
    decoder = stream.codec_context
    # MPEG-4's packets may hold two frames, of which the second is lost when the first is skipped.
    unwanted = "DEFAULT" if decoder.name == "mpeg4" else "NONREF"
    unsent, waiting = set(times), set(times)
    for packet in container.demux(stream):
        time = packet_time(container, packet)
        decoder.skip_frame = "DEFAULT" if time in unsent else unwanted
        frames = packet.decode()
        unsent.discard(time)
        if not unsent and packet.size:  # what the decoder holds back comes out now
            frames += decoder.decode(None)
        for frame in frames:
            if frame.pts in waiting:
                waiting.discard(frame.pts)
                yield frame
        if not unsent:
            break
    if waiting:
        raise ValueError("its frames are not where they were when it was prepared: prepare again")
