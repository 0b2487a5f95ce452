"""Reading by seeking gives, pixel for pixel, what a plain decode of the whole file gives."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from lib.config import PROJECT_ROOT
from lib.data import frame_index
from lib.data.dataset import VideoRecord
from lib.data.frame_index import FrameIndex, fingerprint, iterate_file
from lib.data.video_reader import iterate_frames, read_frames
from lib.prepare.inspect_videos import inspect_video

SHARED = PROJECT_ROOT.parent / "shared" / "data"
needs_real_videos = pytest.mark.skipif(
    not SHARED.is_dir(), reason=f"no real videos in {SHARED}; they are not part of the project"
)


def plain_decode(path: Path) -> np.ndarray:
    """All frames of a file, in the few lines that PyAV's own documentation would use."""
    with av.open(str(path), metadata_errors="ignore") as container:
        frames = container.decode(video=0)
        return np.stack([frame.to_ndarray(format="rgb24", threads=1) for frame in frames])


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


def write_coded(path: Path, frames: np.ndarray, codec: str, times=None, **options: str) -> Path:
    """Write frames, at 25 a second or at `times` in milliseconds."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
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


def assert_exact(path: Path, num_clips: int = 12) -> VideoRecord:
    """Compare random clips, among them whole videos and single frames, with a plain decode."""
    record, expected = record_of(path), plain_decode(path)
    assert record.num_frames == len(expected)
    rng = np.random.default_rng(record.num_frames)
    clips = [rng.integers(len(expected), size=rng.integers(1, 9)) for _ in range(num_clips)]
    clips += [rng.integers(len(expected)) + 8 * np.arange(8) for _ in range(num_clips)]
    for indices in [*clips, np.arange(len(expected)), [0], [len(expected) - 1]]:
        indices = np.asarray(indices) % len(expected)
        np.testing.assert_array_equal(read_frames(record, indices), expected[indices])
    ascending = np.unique(clips[0])
    walked = np.stack(list(iterate_frames(path, ascending)))
    np.testing.assert_array_equal(walked, expected[ascending])
    return record


# --- Files of every kind --------------------------------------------------------------------------

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
    "vp9.webm": (".webm", "libvpx-vp9", {"crf": "30", "b": "0", "g": "12", "cpu-used": "8"}),
}
IS_FOUND_BY_SEEKING = set(FILES) - {"intra_refresh.mp4", "mpeg2.mpg"}


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file_is_read_exactly(tmp_path, name):
    suffix, codec, options = FILES[name]
    path = write_coded(tmp_path / f"video{suffix}", noise(70), codec, **options)
    record = assert_exact(path)
    if name in IS_FOUND_BY_SEEKING:
        assert record.seek


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_variable_frame_rate_is_read_exactly(tmp_path, suffix):
    times = np.cumsum(np.random.default_rng(0).integers(10, 400, size=50))
    path = write_coded(tmp_path / f"video{suffix}", noise(50), "libx264", times, **X264, bf="2")
    assert assert_exact(path).seek


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
@pytest.mark.parametrize("num_frames", [1, 2])
def test_the_shortest_videos_are_read_exactly(tmp_path, suffix, num_frames):
    codec = "libx264" if suffix == ".mp4" else "mpeg4"
    assert_exact(write_coded(tmp_path / f"video{suffix}", noise(num_frames), codec))


def test_a_file_without_a_table_of_frames_is_decoded_from_its_start(tmp_path):
    path = write_coded(tmp_path / "video.mp4", noise(40), "libx264", **X264)
    record = record_of(path)
    walked = replace(record, seek="")
    for indices in ([39], [0, 13, 26]):
        np.testing.assert_array_equal(
            read_frames(record, np.array(indices)), read_frames(walked, np.array(indices))
        )


def test_a_failed_verification_leaves_no_index(tmp_path, monkeypatch):
    """An index that gives a wrong frame near one key frame is not stored."""
    path = write_coded(tmp_path / "video.mp4", noise(40), "libx264", **X264)
    assert inspect_video(path).seek

    def wrong(path, numbers, index):
        times = index.times.copy()
        times[[12, 13]] = times[[13, 12]]
        return decode(path, numbers, index._replace(times=times))

    decode = frame_index._decode
    monkeypatch.setattr(frame_index, "_decode", wrong)
    found = inspect_video(path)
    assert found.frames == 40 and found.seek == ""


# --- Damaged, replaced, cut -----------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_a_damaged_video_that_is_kept_can_be_read_everywhere(tmp_path, suffix):
    """What is read does not depend on how; a picture that the decoder sees to be broken is told."""
    codec, options = ("libx264", X264) if suffix == ".mp4" else ("mpeg4", {"g": "12"})
    original = write_coded(tmp_path / f"whole{suffix}", noise(60), codec, **options)
    whole, pictures = original.read_bytes(), plain_decode(original)
    rng, path = np.random.default_rng(0), tmp_path / f"damaged{suffix}"
    noticed = 0
    for _ in range(10):
        start = int(rng.integers(len(whole) // 4, len(whole) // 2))
        path.write_bytes(whole[:start] + rng.bytes(300) + whole[start + 300 :])
        record, note = record_of(path), inspect_video(path).note
        walked = read_frames(path, np.arange(record.num_frames))
        for number in range(0, record.num_frames, 7):
            frame = read_frames(record, np.array([number]))[0]
            np.testing.assert_array_equal(frame, walked[number])
        noticed += note is not None
        if note is not None:
            assert "are not whole" in note and record.seek == ""
        elif suffix == ".avi":  # H.264 also makes pictures of noise, and nothing tells them apart
            np.testing.assert_array_equal(walked, pictures)
    assert noticed >= 4


@pytest.mark.parametrize("share", [0.5, 0.8, 0.99])
def test_a_cut_avi_is_read_as_far_as_it_goes(tmp_path, share):
    whole = write_coded(tmp_path / "whole.avi", noise(60), "mpeg4", g="12").read_bytes()
    path = tmp_path / "cut.avi"
    path.write_bytes(whole[: int(share * len(whole))])
    record, expected = record_of(path), plain_decode(path)
    assert 0 < record.num_frames == len(expected)
    for indices in (np.arange(len(expected)), np.array([len(expected) - 1])):
        np.testing.assert_array_equal(read_frames(record, indices), expected[indices])


def test_another_file_in_a_videos_place_is_noticed(tmp_path):
    path = write_coded(tmp_path / "video.mp4", noise(30), "libx264", **X264)
    record = record_of(path)
    original = path.read_bytes()
    write_coded(path, noise(30)[::-1].copy(), "libx264", **X264)
    with pytest.raises(ValueError, match="video.mp4.*not the file that was prepared.*; prepare"):
        read_frames(record, np.array([3]))
    path.write_bytes(original)
    assert read_frames(record, np.array([3])).shape == (1, 64, 96, 3)


def test_fingerprints_see_size_head_and_tail(tmp_path):
    path, content = tmp_path / "file", bytearray(np.random.default_rng(0).bytes(20_000))
    path.write_bytes(content)
    seen = {fingerprint(path)}
    for position in (0, 4095, 19_999, 16_000):
        content[position] ^= 1
        path.write_bytes(content)
        seen.add(fingerprint(path))
    path.write_bytes(content + b"x")
    assert len(seen | {fingerprint(path)}) == 6


def test_frames_of_another_size_than_in_the_index_are_refused(tmp_path):
    path = write_coded(tmp_path / "video.mp4", noise(4), "libx264")
    record = record_of(path)
    wrong = replace(record, height=48)
    with pytest.raises(ValueError, match="its frames are 96 × 64 pixels, in the index 96 × 48"):
        read_frames(wrong, np.array([0]))


@pytest.mark.parametrize("numbers", [[4], [12, 13, 20], [0, 5, 29]])
@pytest.mark.parametrize("wrong", ["all times", "one time", "too short"])
def test_frames_that_an_index_does_not_lead_to_are_decoded_from_the_start(tmp_path, numbers, wrong):
    path = write_coded(tmp_path / "video.mp4", noise(30), "libx264", **X264)
    index = FrameIndex.unpack(record_of(path).seek)
    times = {
        "all times": 10**9 + np.arange(30),
        "one time": np.where(np.arange(30) == numbers[-1], 10**9, index.times),
        "too short": index.times[:10],
    }
    found = list(iterate_file(path, np.array(numbers), index._replace(times=times[wrong])))
    np.testing.assert_array_equal(np.stack(found), plain_decode(path)[numbers])
    with pytest.raises(ValueError, match="frame 30 does not exist, the video has 30"):
        list(iterate_file(path, np.array([30]), index))


@pytest.mark.parametrize("times", [[0], [5, 3, 4, -7], 512 * np.arange(18_000)], ids=len)
def test_tables_are_packed_and_unpacked(times):
    table = FrameIndex(np.array(times), np.arange(0, len(times), 3))
    text = table.pack()
    assert text.isascii() and not set(text) & set(',"\n') and len(text) < 9000
    for before, after in zip(table, FrameIndex.unpack(text), strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize(
    "text", ["", "no table", "AAAA", FrameIndex(np.arange(9), [0]).pack()[:-8]]
)
def test_a_damaged_table_is_named(tmp_path, text):
    with pytest.raises(ValueError, match="its entry in the column seek is damaged"):
        FrameIndex.unpack(text)


# --- Real videos ----------------------------------------------------------------------------------


@pytest.mark.slow
@needs_real_videos
@pytest.mark.parametrize("path", sorted(SHARED.glob("clips/*")), ids=lambda path: path.name[:24])
def test_real_clips_are_read_exactly(path):
    assert assert_exact(path, 3).seek


@pytest.mark.slow
@needs_real_videos
@pytest.mark.parametrize("folder", ["ucf101_avi", "weizmann", "ucf101_10"])
def test_real_sets_are_read_exactly(folder):
    paths = sorted((SHARED / folder).rglob("*.avi"))
    for path in paths[:: max(1, len(paths) // 15)]:
        assert_exact(path, 4)
