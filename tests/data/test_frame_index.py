"""Reading by seeking gives, pixel for pixel, what a plain decode of the whole file gives."""

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from coded_videos import FILES, X264, noise, record_of, write_coded

from lib.config import PROJECT_ROOT
from lib.data import frame_index
from lib.data.dataset import VideoRecord
from lib.data.frame_index import ANY_METADATA, FrameIndex, fingerprint, iterate_file
from lib.data.video_reader import iterate_frames, read_frames
from lib.prepare.inspect_videos import inspect_video

SHARED = PROJECT_ROOT.parent / "shared" / "data"
needs_real_videos = pytest.mark.skipif(
    not SHARED.is_dir(), reason=f"no real videos in {SHARED}; they are not part of the project"
)


def plain_decode(path: Path) -> np.ndarray:
    """All frames of a file, in the few lines that PyAV's own documentation would use."""
    with av.open(str(path), **ANY_METADATA) as container:
        frames = container.decode(video=0)
        return np.stack([frame.to_ndarray(format="rgb24", threads=1) for frame in frames])


def assert_exact(path: Path, num_clips: int = 12, mirrored: bool = False) -> VideoRecord:
    """Compare random clips, whole videos and single frames with a plain decode."""
    record, expected = record_of(path), plain_decode(path)
    expected = expected[:, :, ::-1] if mirrored else expected
    assert record.num_frames == len(expected)
    rng = np.random.default_rng(record.num_frames)
    clips = [rng.integers(len(expected), size=rng.integers(1, 9)) for _ in range(num_clips)]
    clips += [rng.integers(len(expected)) + 8 * np.arange(8) for _ in range(num_clips)]
    singles = [[number] for number in range(0, len(expected), 1 + len(expected) // 100)]
    for indices in [*clips, np.arange(len(expected)), *singles, [len(expected) - 1]]:
        indices = np.asarray(indices) % len(expected)
        np.testing.assert_array_equal(read_frames(record, indices), expected[indices])
    ascending = np.unique(clips[0])
    walked = np.stack(list(iterate_frames(path, ascending)))
    np.testing.assert_array_equal(walked, expected[ascending])
    return record


# --- Files of every kind --------------------------------------------------------------------------

ALWAYS_READ = {"mp4", "b_frames.mkv", "ucf.avi", "mjpeg.avi"}
KINDS = [pytest.param(k, marks=[] if k in ALWAYS_READ else pytest.mark.slow) for k in FILES]
IS_FOUND_BY_SEEKING = set(FILES) - {"intra_refresh.mp4", "mpeg2.mpg", "short.ts"}


@pytest.mark.parametrize("name", KINDS)
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


@pytest.mark.parametrize(
    ("times", "suffix", "rate"),
    [
        (np.round(1000 * np.arange(90) / 30), ".webm", 30),
        (np.round(1000 * np.arange(90) / 29.97), ".mkv", 29.97),
        (40 * np.arange(50), ".mkv", 25),
        (np.cumsum(np.random.default_rng(0).integers(10, 400, size=50)), ".mp4", None),
    ],
)
def test_the_rate_of_frames_is_that_of_their_times(tmp_path, times, suffix, rate):
    """Files of browsers and screen recorders say 1000 frames a second."""
    codec = "libvpx-vp9" if suffix == ".webm" else "libx264"
    path = write_coded(tmp_path / f"video{suffix}", noise(len(times)), codec, times, rate=1000)
    mean = 1000 * (len(times) - 1) / (times[-1] - times[0])
    # A header's mean, which counts the duration of the last frame, is right as well.
    expected = pytest.approx(rate, rel=2e-4) if rate else pytest.approx(mean, rel=0.02)
    assert inspect_video(path).fps == expected


def test_a_name_that_looks_like_an_address_is_a_file(tmp_path, monkeypatch):
    (tmp_path / "videos").mkdir()
    monkeypatch.chdir(tmp_path / "videos")
    path = write_coded(tmp_path / "video.mp4", noise(5), "libx264")
    for name in ("http:x.mp4", "concat:a|b.mp4", "https:", "pipe:0", "video%03d.mp4"):
        path.rename(name)
        path = Path(name)
        assert inspect_video(path).error is None
        assert read_frames(path, np.array([4])).shape == (1, 64, 96, 3)


def test_nothing_is_fetched_that_a_file_refers_to(tmp_path):
    """A playlist in the place of a video would open the addresses in it."""
    other = write_coded(tmp_path / "other.ts", noise(5), "libx264")
    path = tmp_path / "video.mp4"
    for line in (f"http://127.0.0.1:9/{other.name}", f"crypto:{other}"):
        path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{line}\n#EXT-X-ENDLIST\n")
        assert inspect_video(path).error


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


@pytest.mark.parametrize("share", [0.7, 0.8, 0.99])
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


# --- Bug reports of the field -------------------------------------------------------------------

CASES = {  # file: frames, height, width, frames a second; None: refused
    "av1_one_key_frame.mp4": (100, 64, 96, 25),
    "h264_in_transport_stream.mpg": (75, 96, 128, 25),
    "mirrored.mp4": (40, 48, 64, 25),
    "rotation_zero_matrix.mp4": (40, 48, 64, 25),
    "says_1000_fps.webm": (90, 48, 64, 30),
    "nearly_all_damaged.mp4": "99 of its 100 frames are not whole",
    "unknown_codec.mp4": "its codec is not known",
}


@pytest.mark.parametrize("name", CASES)
def test_files_of_bug_reports_are_read_exactly_or_refused(shared, name):
    path, right = shared("cases") / name, CASES[name]
    found = inspect_video(path)
    if isinstance(right, str):
        assert right in found.error
        return
    assert (found.frames, found.height, found.width, found.fps) == right
    assert_exact(path, 3, mirrored=name == "mirrored.mp4")


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
