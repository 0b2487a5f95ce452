"""Small videos of every kind, and their records as preparation writes them."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from lib.data.dataset import VideoRecord
from lib.prepare.inspect_videos import inspect_video

X264 = {"crf": "18", "g": "12", "sc_threshold": "0"}
FILES = {
    "mp4": (".mp4", "libx264", X264),
    "b_frames.mp4": (".mp4", "libx264", X264 | {"bf": "3"}),
    "pyramid.mp4": (".mp4", "libx264", X264 | {"bf": "4", "x264-params": "b-pyramid=normal"}),
    "open_gop.mp4": (".mp4", "libx264", X264 | {"bf": "3", "x264-params": "open-gop=1"}),
    "intra_refresh.mp4": (".mp4", "libx264", X264 | {"x264-params": "intra-refresh=1"}),
    "one_key.mkv": (".mkv", "libx264", {"crf": "18", "g": "500"}),
    "b_frames.mkv": (".mkv", "libx264", X264 | {"bf": "3"}),
    "h264.avi": (".avi", "libx264", X264 | {"bf": "2"}),
    "ucf.avi": (".avi", "mpeg4", {"qscale": "3", "g": "12"}),
    "hmdb.avi": (".avi", "mpeg4", {"qscale": "3", "g": "12", "bf": "2"}),
    "mpeg4.mp4": (".mp4", "mpeg4", {"qscale": "3", "g": "12", "bf": "1"}),
    "mpeg2.mpg": (".mpg", "mpeg2video", {"qscale": "3", "g": "12", "bf": "2"}),
    "mjpeg.avi": (".avi", "mjpeg", {}),
    "short.ts": (".ts", "libx264", X264 | {"bf": "2"}),
    "av1_one_key.mp4": (".mp4", "libsvtav1", {"preset": "10", "g": "300", "crf": "40"}),
    "vp9.webm": (".webm", "libvpx-vp9", {"crf": "30", "b": "0", "g": "12", "cpu-used": "8"}),
}


def record_of(path: Path) -> VideoRecord:
    found = inspect_video(path)
    assert found.error is None
    size = found.height, found.width
    return VideoRecord(0, "a/b", path, 0, found.frames, *size, found.fingerprint, found.seek)


def noise(num_frames: int, height: int = 64, width: int = 96) -> np.ndarray:
    """Frames of which each differs from its neighbors: a moving pattern, and noise that stays."""
    rng = np.random.default_rng(0)
    still = rng.integers(0, 60, size=(height, width, 3))
    bars = 150 * (np.arange(width)[None] // 8 + np.arange(num_frames)[:, None]) % 200
    return (still + bars[:, None, :, None]).astype(np.uint8)


def write_coded(
    path: Path, frames: np.ndarray, codec: str, times=None, rate: int = 25, **options: str
) -> Path:
    """Write frames, at `rate` a second or at `times` in milliseconds."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        if times is not None:
            stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = int(times[number]), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
