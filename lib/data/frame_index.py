"""Index of the frames of a video file, and decoding exactly the requested frames with it.

The number of a frame is its position in a plain decode of the whole file. Preparation decodes a
file once that way, builds its `FrameIndex` and verifies that seeking with it gives the same frames.
Reading then seeks to the nearest key frame before a requested frame, skips frames that no other
frame needs, and converts only the requested ones. A file that fails the verification has no index
and is decoded from its start, which is exact for every file.
"""

import base64
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.container import InputContainer
from av.video.reformatter import VideoReformatter

MAX_KEYS = 1000  # key frames of an index; more are left out, since each is verified
NUM_SPREAD_CHECKS = 8  # places of a file where frames are read together to verify its index
MIN_SKIPPED = 2  # up to this many unwanted frames are decoded, which is faster than a seek
DECORD_BATCH = 16  # frames in memory at a time
FINGERPRINT_BYTES = 4096  # read at each end of a file
# Decoders that cannot leave out single frames that no other frame needs. A packet of MPEG-4 may
# hold two frames, and skipping the first loses the second. Libraries outside FFmpeg (libdav1d) skip
# what they were told to skip when they were opened.
CANNOT_SKIP = re.compile("mpeg4$|lib")


class FrameIndex(NamedTuple):
    """Positions of the frames of a video file."""

    times: np.ndarray  # packet time of each frame (see `packet_time`), (N,), int64
    keys: np.ndarray  # numbers of the frames at which decoding can start, ascending from 0, int64

    @classmethod
    def build(cls, times: Sequence[int | None], keys: Sequence[int]) -> "FrameIndex | None":
        """Return the index of a file from the times of its frames and its key frames' numbers.

        None if the frames cannot be told apart by time.
        """
        if None in times or len(set(times)) < len(times) or keys[:1] != [0]:
            return None
        return cls(np.array(times), np.array(keys[:: -(-len(keys) // MAX_KEYS)]))

    def verify(self, path: Path, checksums: Sequence[int]) -> bool:
        """Return True if seeking with this index gives the frames of a plain decode.

        The first two frames and the last one that are decoded from each key frame are read one by
        one, and some frames all over the file together. `checksums` are of the plain decode.
        """
        last = len(checksums) - 1
        ends = [self.keys, np.minimum(self.keys + 1, last), np.append(self.keys[1:] - 1, last)]
        spread = np.linspace(0, last, NUM_SPREAD_CHECKS).astype(int)
        spread = np.union1d(spread, np.minimum(spread + 1, last))
        with suppress(av.FFmpegError, LookupError):
            return all(
                checksums[number] == checksum(frame)
                for numbers in (spread, spread[::2], *np.unique(ends)[:, None])
                for number, frame in zip(numbers, _decode(path, numbers, self), strict=True)
            )
        return False

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


# Metadata need not be UTF-8; PyAV 19 accepts any and has no such option.
ANY_METADATA = {"metadata_errors": "ignore"} if int(av.__version__.split(".")[0]) < 19 else {}


@contextmanager
def open_stream(path: Path) -> Iterator[tuple[InputContainer, av.VideoStream]]:
    """Open a file and its first video stream, decoded in this thread.

    The absolute path of a file named `http:x.mp4` is no address. ValueError if it has no video
    stream, or one of an unknown codec; av.FFmpegError if it is not a video file.
    """
    local = {"protocol_whitelist": "file"}  # nothing that a file refers to is fetched
    with av.open(str(path.absolute()), options=local, **ANY_METADATA) as container:
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


def decode_packet(container: InputContainer, packet: av.Packet) -> list[av.VideoFrame] | None:
    """Return the frames that a packet completes; None if it cannot be decoded.

    A damaged packet loses only its own frames, as in other programs.
    """
    packet_time(container, packet)
    try:
        return packet.decode()
    except av.InvalidDataError:
        return None


def frame_rate(times: Sequence[int | None], stream: av.VideoStream) -> float:
    """Return the rate per second of consecutive frames or packets by their times, in any order.

    0 if these do not tell. The header's rate is more precise where it is right within a frame or
    so. It may as well be the resolution of a clock: 1000 in files of browsers and screen recorders.
    """
    known = [time for time in times if time is not None]
    seconds = float((max(known) - min(known)) * stream.time_base) if known else 0.0
    if not seconds:
        return 0.0
    header, steps = float(stream.average_rate or 0), len(known) - 1
    if abs(header * seconds - steps) < 1.5:
        return header
    rate, tick = steps / seconds, float(stream.time_base)
    is_whole = abs(round(rate) * seconds - steps) <= rate * tick  # but for rounded times
    return float(round(rate)) if is_whole else round(rate, 2)


def to_rgb(frame: av.VideoFrame, reformatter: VideoReformatter) -> np.ndarray:
    """Return a frame as players show it, (H, W, 3), uint8: turned and mirrored by its matrix."""
    rgb = reformatter.reformat(frame, format="rgb24", threads=1)
    plane = rgb.planes[0]  # its lines may end in padding; the array keeps it alive
    lines = np.frombuffer(plane, np.uint8).reshape(rgb.height, plane.line_size)
    pixels = lines[:, : 3 * rgb.width].reshape(rgb.height, rgb.width, 3)
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return pixels
    # It maps a pixel's column and row to (a · column + c · row, b · column + d · row).
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].astype(float)
    determinant = a * d - b * c
    if determinant < 0:
        pixels, a, b = pixels[:, ::-1], -a, -b
    if determinant != 0:  # other matrices show no picture, and are ignored
        pixels = np.rot90(pixels, round(-np.arctan2(b, a) / (np.pi / 2)))
    return np.ascontiguousarray(pixels)


def iterate_file(
    path: Path, numbers: np.ndarray, index: FrameIndex | None = None, with_decord: bool = False
) -> Iterator[np.ndarray]:
    """Yield some frames of a video file, RGB, upright, shape (H, W, 3), uint8.

    Their 0-based `numbers` (T,) are strictly ascending, at least one. Frames that decord (if
    preparation has proved it to be exact for this file) or an index does not lead to are decoded
    from the start. ValueError if there is no such frame; av.FFmpegError if the file cannot be read.
    """
    faster = [read_by_decord] if with_decord else []
    if index is not None:
        faster.append(partial(_decode, index=index))
    for read in faster:
        with suppress(av.FFmpegError, LookupError):
            for frame in read(path, numbers):
                yield frame
                numbers = numbers[1:]
            return
    yield from _decode(path, numbers)


def read_by_decord(path: Path, numbers: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the frames that decord gives, arguments as `iterate_file`; LookupError if it fails."""
    try:
        import decord  # takes a second to load, and most data sets do not need it
    except (ImportError, OSError, RuntimeError) as error:
        raise LookupError(f"decord: {error}") from error
    decord.logging.set_level(decord.logging.QUIET)
    try:
        reader = decord.VideoReader(str(path.absolute()), num_threads=1)
        for start in range(0, len(numbers), DECORD_BATCH):
            yield from reader.get_batch(numbers[start : start + DECORD_BATCH]).asnumpy()
    except (decord.DECORDError, RuntimeError, IndexError) as error:
        raise LookupError(f"decord: {error}") from error


def _decode(
    path: Path, numbers: np.ndarray, index: FrameIndex | None = None
) -> Iterator[np.ndarray]:
    """Yield frames as `iterate_file`; raise LookupError if the index does not lead to them."""
    reformatter = VideoReformatter()
    with open_stream(path) as (container, stream):
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
    for packet in container.demux(stream):
        for frame in decode_packet(container, packet) or []:
            if number == numbers[position]:
                yield frame
                position += 1
                if position == len(numbers):
                    return
            number += 1
    raise ValueError(f"frame {numbers[-1]} does not exist, the video has {number}")


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
    """Yield the frames with the given packet times, in this order, from the stream's position on.

    The decoder is drained at the end, so that the next seek starts with an empty one.
    """
    decoder = stream.codec_context
    unwanted = "DEFAULT" if CANNOT_SKIP.match(decoder.name) else "NONREF"
    unsent, rest, none = set(times), iter(times), object()
    expected = next(rest)
    for packet in container.demux(stream):
        time = packet_time(container, packet)
        decoder.skip_frame = "DEFAULT" if time in unsent else unwanted
        frames = packet.decode()
        unsent.discard(time)
        if not unsent and packet.size:  # drain the frames that the decoder still holds
            frames += decoder.decode(None)
        for frame in frames:
            if frame.pts == expected:
                expected = next(rest, none)
                yield frame
        if not unsent:
            break
    if expected is not none:
        raise LookupError("a frame is not where the index says")
