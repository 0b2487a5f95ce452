"""Index of the frames of a video file, and decoding exactly the requested frames with it.

The number of a frame is its position in a plain decode of the whole file. Preparation decodes a
file once that way, builds its `FrameIndex` and verifies that seeking with it gives the same frames.
Reading then seeks to the nearest key frame before a requested frame, skips frames that no other
frame needs, and converts only the requested ones. A file that fails the verification has no index
and is decoded from its start.
"""

import base64
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.container import InputContainer
from av.video.reformatter import VideoReformatter

MIN_SKIPPED = 2  # up to this many unwanted frames are decoded, which is faster than a seek
FINGERPRINT_BYTES = 4096  # read at each end of a file


class FrameIndex(NamedTuple):
    """Positions of the frames of a video file.

    Attributes:
        times: Packet time of each frame (see `packet_time`), shape (N,), int64.
        keys: Numbers of the frames at which decoding can start, ascending from 0, int64.
    """

    times: np.ndarray
    keys: np.ndarray

    @classmethod
    def build(cls, times: Sequence[int | None], keys: Sequence[int]) -> "FrameIndex | None":
        """Return the index of a decoded file, None if its frames cannot be told apart by time.

        Args:
            times: Time of each frame in a plain decode of the file.
            keys: Numbers of its key frames.
        """
        if None in times or len(set(times)) < len(times) or keys[:1] != [0]:
            return None
        return cls(np.array(times), np.array(keys))

    def verify(self, path: Path, checksums: Mapping[int, int]) -> bool:
        """Return True if seeking with this index gives the frames of a plain decode.

        Args:
            path: The file.
            checksums: `checksum` of some of its frames in the plain decode, by frame number.
        """
        numbers = np.array(sorted(checksums))
        for selected in (numbers, numbers[::2], numbers[1::2]):
            expected = [checksums[number] for number in selected]
            try:
                frames = iterate_file(path, selected, self) if expected else []
                if [checksum(frame) for frame in frames] != expected:
                    return False
            except (av.FFmpegError, ValueError):
                return False
        return True

    def pack(self) -> str:
        """Return the index as text: about 60 characters for a constant frame rate."""
        parts = [len(self.times)], np.diff(self.times, prepend=0), np.diff(self.keys, prepend=0)
        packed = zlib.compress(np.concatenate(parts).astype("<i8").tobytes(), 9)
        return base64.b64encode(packed).decode()

    @classmethod
    def unpack(cls, text: str) -> "FrameIndex":
        """Return the index that `pack` wrote; raise ValueError if the text is damaged."""
        try:
            raw = zlib.decompress(base64.b64decode(text, validate=True))
            count, *_ = values = np.frombuffer(raw, dtype="<i8")
            times, keys = values[1 : count + 1].cumsum(), values[count + 1 :].cumsum()
            if not (len(times) == count > 0 and len(keys) and 0 == keys[0] <= keys[-1] < count):
                raise ValueError("frames are missing")
        except (ValueError, zlib.error) as error:
            raise ValueError(f"its entry in the column seek is damaged ({error})") from error
        return cls(times, keys)


def checksum(pixels: np.ndarray) -> int:
    """Return the CRC-32 of a frame's pixels."""
    return zlib.crc32(np.ascontiguousarray(pixels))


def fingerprint(path: Path) -> str:
    """Return a cheap fingerprint of a file: its size and the CRC-32 of both ends."""
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        start = zlib.crc32(file.read(FINGERPRINT_BYTES))
        file.seek(max(0, size - FINGERPRINT_BYTES))
        return f"{size}-{zlib.crc32(file.read(FINGERPRINT_BYTES), start):08x}"


@contextmanager
def open_stream(path: Path) -> Iterator[tuple[InputContainer, av.VideoStream]]:
    """Open a file and its first video stream, decoded in this thread.

    Raises:
        ValueError: If it has no video stream, or one of an unknown codec.
        av.FFmpegError: If it is not a video file.
    """
    with av.open(str(path), metadata_errors="ignore") as container:
        if not container.streams.video:
            raise ValueError("it has no video stream (audio only?)")
        stream = container.streams.video[0]
        if stream.codec_context is None:
            raise ValueError("its codec is not known")
        stream.codec_context.thread_count = 1
        yield container, stream


def packet_time(container: InputContainer, packet: av.Packet) -> int | None:
    """Return the time that identifies a packet and its frame.

    AVI files have no presentation times, and FFmpeg guesses different ones after a seek. Their
    decoding time counts the packets, so it replaces the presentation time of packet and frame.
    """
    if container.format.name == "avi":
        packet.pts = packet.dts
    return packet.pts


def decode_all(container: InputContainer, stream: av.VideoStream) -> Iterator[av.VideoFrame | None]:
    """Yield the remaining frames of a stream; None for a packet that cannot be decoded.

    A damaged packet loses only its own frames, as in other programs.
    """
    for packet in container.demux(stream):
        packet_time(container, packet)
        try:
            yield from packet.decode()
        except av.InvalidDataError:
            yield None


def to_rgb(frame: av.VideoFrame, reformatter: VideoReformatter) -> np.ndarray:
    """Return a frame in the orientation that the file specifies, (H, W, 3), uint8."""
    rgb = reformatter.reformat(frame, format="rgb24", threads=1)
    plane = rgb.planes[0]  # its lines may end in padding; the array keeps it alive
    lines = np.frombuffer(plane, np.uint8).reshape(rgb.height, plane.line_size)
    pixels = lines[:, : 3 * rgb.width].reshape(rgb.height, rgb.width, 3)
    turns = frame.rotation // 90
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


def iterate_file(
    path: Path, numbers: np.ndarray, index: FrameIndex | None = None
) -> Iterator[np.ndarray]:
    """Yield some frames of a video file.

    Args:
        path: The file.
        numbers: 0-based frame numbers, strictly ascending, at least one, shape (T,).
        index: Index of its frames; None decodes from the start.

    Yields:
        RGB frames, upright, shape (H, W, 3), uint8.

    Raises:
        ValueError: If there is no such frame, or the index does not fit the file.
        av.FFmpegError: If the file cannot be read.
    """
    if index is not None and numbers[-1] >= len(index.times):
        raise _no_such_frame(numbers[-1], len(index.times))
    with open_stream(path) as (container, stream):
        reformatter = VideoReformatter()
        if index is None:
            frames = _walk(container, stream, numbers)
        else:
            frames = _seek(container, stream, numbers, index)
        for frame in frames:
            yield to_rgb(frame, reformatter)


def _walk(
    container: InputContainer, stream: av.VideoStream, numbers: np.ndarray
) -> Iterator[av.VideoFrame]:
    """Yield the frames with the given numbers by decoding from the start."""
    position = number = 0
    for frame in decode_all(container, stream):
        if frame is None:
            continue
        if number == numbers[position]:
            yield frame
            position += 1
            if position == len(numbers):
                return
        number += 1
    raise _no_such_frame(numbers[-1], number)


def _no_such_frame(frame: int, count: int) -> ValueError:
    return ValueError(f"frame {frame} does not exist, the video has {count}")


def _seek(
    container: InputContainer, stream: av.VideoStream, numbers: np.ndarray, index: FrameIndex
) -> Iterator[av.VideoFrame]:
    """Yield the frames with the given numbers; seek wherever a key frame saves decoding."""
    keys = index.keys[np.searchsorted(index.keys, numbers, side="right") - 1]
    is_first = np.concatenate([[True], keys[1:] > numbers[:-1] + 1 + MIN_SKIPPED])
    starts = np.flatnonzero(is_first)
    for start, stop in zip(starts, [*starts[1:], len(numbers)], strict=True):
        if keys[start] > 0:
            container.seek(int(index.times[keys[start]]), stream=stream)
        yield from _decode_times(container, stream, index.times[numbers[start:stop]].tolist())


def _decode_times(
    container: InputContainer, stream: av.VideoStream, times: list[int]
) -> Iterator[av.VideoFrame]:
    """Yield the frames with the given packet times, from the stream's position on.

    The decoder is drained at the end, so that the next seek starts with an empty one.
    """
    decoder = stream.codec_context
    # A packet of MPEG-4 may hold two frames; skipping the first loses the second.
    skip_unwanted = "DEFAULT" if decoder.name == "mpeg4" else "NONREF"
    unsent, pending = set(times), set(times)
    for packet in container.demux(stream):
        time = packet_time(container, packet)
        decoder.skip_frame = "DEFAULT" if time in unsent else skip_unwanted
        frames = packet.decode()
        unsent.discard(time)
        if not unsent and packet.size:  # drain the frames that the decoder still holds
            frames += decoder.decode(None)
        for frame in frames:
            if frame.pts in pending:
                pending.discard(frame.pts)
                yield frame
        if not unsent:
            break
    if pending:
        raise ValueError("its frames are not where they were when it was prepared")
