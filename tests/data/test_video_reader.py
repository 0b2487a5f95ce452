import json
import pickle
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from conftest import CODED_FRAMES, CODED_SIZE, coded_frames
from PIL import Image

from lib.config import PROJECT_ROOT
from lib.data import video_reader as video
from lib.data.clip_dataset import random_clip_indices, uniform_clip_indices
from lib.data.dataset import VideoDataset, write_dataset
from lib.data.video_reader import FrameReader, iterate_frames, read_frames
from lib.prepare.synthetic import write_video

GOLDEN = json.loads((PROJECT_ROOT / "tests/golden" / "frame_indices.json").read_text())
TEST_CLIPS = [key for key in GOLDEN if key.startswith("test_")]
TRAIN_RANGES = [key for key in GOLDEN if key.startswith("train_")]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbers(frames: np.ndarray) -> list[int]:
    """The frame numbers that frames of `coded_frames(0)` carry."""
    assert (frames[..., 0] == frames[:, :1, :1, 0]).all()
    return (frames[:, 0, 0, 0] // 4).tolist()


# --- Which frames ---------------------------------------------------------------------------------


@pytest.mark.parametrize("key", TEST_CLIPS)
def test_uniform_clips_equal_the_reference(key):
    _, num_frames, num_clips = key.split("_")
    indices = uniform_clip_indices(int(num_frames), 8, 8, int(num_clips))
    assert indices.tolist() == GOLDEN[key]
    assert indices.dtype == np.int64


@pytest.mark.parametrize("key", TRAIN_RANGES)
def test_random_clips_start_in_the_reference_range(key):
    num_frames = int(key.split("_")[1])
    smallest, largest = GOLDEN[key]
    draw = generator()
    clips = np.stack([random_clip_indices(num_frames, 8, 8, draw) for _ in range(3000)])
    starts = clips[:, 0]
    assert smallest <= starts.min() and starts.max() <= largest
    if largest - smallest < 300:  # then 3,000 draws meet both ends
        assert (starts.min(), starts.max()) == (smallest, largest)
    np.testing.assert_array_equal(clips, (starts[:, None] + 8 * np.arange(8)) % num_frames)


def test_random_starts_are_uniform():
    draw = generator()
    starts = [random_clip_indices(73, 8, 8, draw)[0] for _ in range(5000)]
    counts = np.bincount(starts, minlength=10)
    assert len(counts) == 10 and counts.min() > 400 and counts.max() < 600


def test_the_generator_alone_decides():
    first, again, other = (random_clip_indices(900, 8, 8, generator(s)) for s in (1, 1, 2))
    assert first.tolist() == again.tolist() != other.tolist()
    torch.manual_seed(5)
    assert random_clip_indices(900, 8, 8, generator(1)).tolist() == first.tolist()


# --- Reading them ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "indices",
    [[0], [39], [0, 8, 16, 24, 32], [32, 24, 0], [7, 7, 7], [5, 39, 5, 0], list(range(40))],
)
def test_exactly_the_asked_frames_come_back(coded, indices):
    frames = read_frames(coded.record(0).path, np.array(indices))
    assert frames.dtype == np.uint8 and frames.shape == (len(indices), *CODED_SIZE, 3)
    np.testing.assert_array_equal(frames, coded_frames(0)[indices])


def test_a_clip_longer_than_the_video_wraps_around(coded):
    indices = random_clip_indices(CODED_FRAMES, 8, 8, generator())
    assert indices.max() < CODED_FRAMES
    assert numbers(read_frames(coded.record(0).path, indices)) == [0, 8, 16, 24, 32, 0, 8, 16]


@pytest.mark.parametrize(
    ("codec", "suffix", "options"),
    [
        ("libx264", ".mp4", {"crf": "10", "g": "12", "bf": "3"}),  # frames that need later ones
        ("libx264", ".mkv", {"crf": "10", "g": "250"}),  # a single key frame
        ("mpeg4", ".avi", {"qscale": "2", "g": "12"}),  # as UCF-101
        ("mpeg4", ".avi", {"qscale": "2", "g": "12", "bf": "2"}),  # as HMDB-51: no times to seek by
        ("mjpeg", ".avi", {}),
    ],
)
def test_compressed_videos_give_the_right_frames(tmp_path, codec, suffix, options):
    path = tmp_path / f"video{suffix}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.height, stream.width = 64, 64
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for number in range(60):
            bars = np.repeat([number >> bit & 1 for bit in range(8)], 8)  # eight, black or white
            frame = np.broadcast_to(bars[None, :, None] * 255, (64, 64, 3)).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    indices = np.array([59, 0, 13, 12, 11, 30, 30, 47])
    bars = read_frames(path, indices).reshape(8, 64, 8, 8, 3).mean(axis=(1, 3, 4)) > 127
    assert (bars @ 2 ** np.arange(8)).tolist() == indices.tolist()


def test_a_key_frame_that_decord_does_not_find_changes_nothing():
    """A video of ours (x264) in which decord 3.4 seeks to frame 0 instead of key frame 9."""
    path = PROJECT_ROOT / "tests/golden" / "wrong_seek.mp4"
    whole = read_frames(path, np.arange(32))
    for indices in ([7, 9, 13, 28], [5, 9, 22, 28], *([index] for index in range(32))):
        np.testing.assert_array_equal(read_frames(path, np.array(indices)), whole[indices])


@pytest.mark.parametrize("indices", [[0], [0, 1, 2], [3, 17, 39], list(range(40))])
def test_frames_one_after_the_other_are_the_same(coded, tmp_path, indices):
    path = coded.record(1).path
    expected = read_frames(path, np.array(indices))
    np.testing.assert_array_equal(np.stack(list(iterate_frames(path, np.array(indices)))), expected)
    for number, frame in enumerate(read_frames(path, np.arange(40)), start=1):
        Image.fromarray(frame).save(tmp_path / f"img_{number:05d}.jpg", quality=100, subsampling=0)
    stored = np.stack(list(iterate_frames(tmp_path, np.array(indices)))).astype(int)
    assert np.abs(stored - expected).max() < 10


def test_walking_through_what_cannot_be_read_names_it(coded, tmp_path):
    with pytest.raises(ValueError, match="none.mp4: no such video file"):
        list(iterate_frames(tmp_path / "none.mp4", np.array([0])))
    with pytest.raises(ValueError, match="frame 40 does not exist, the video has 40"):
        list(iterate_frames(coded.record(0).path, np.array([0, 40])))


def test_a_folder_of_jpeg_frames_is_read(tmp_path):
    for number in range(4):
        shade = np.full((48, 64, 3), 60 * number + 5, dtype=np.uint8)
        Image.fromarray(shade).save(tmp_path / f"img_{number + 1:05d}.jpg", quality=95)
    frames = read_frames(tmp_path, np.array([3, 0, 2, 2]))
    assert frames.shape == (4, 48, 64, 3) and frames.dtype == np.uint8
    np.testing.assert_allclose(frames.mean(axis=(1, 2, 3)), [185, 5, 125, 125], atol=2)


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize(("height", "width"), [(48, 64), (31, 45), (1, 1)])
def test_jpeg_frames_have_the_pixels_that_pillow_gives(tmp_path, height, width, subsampling):
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(256, size=(8, 9, 3), dtype=np.uint8))
    path = tmp_path / "img_00001.jpg"
    small.resize((width, height)).save(path, quality=90, subsampling=subsampling)
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(read_frames(tmp_path, np.array([0]))[0], expected)


def test_only_jpeg_is_taken_for_a_frame(tmp_path):
    Image.new("RGB", (64, 48)).save(tmp_path / "img_00001.jpg", format="PNG")
    with pytest.raises(ValueError, match=r"img_00001\.jpg: cannot be read as an image"):
        read_frames(tmp_path, np.array([0]))


def test_a_gray_jpeg_frame_becomes_rgb(tmp_path):
    Image.fromarray(np.full((48, 64), 90, dtype=np.uint8)).save(tmp_path / "img_00001.jpg")
    assert read_frames(tmp_path, np.array([0])).shape == (1, 48, 64, 3)


# --- Files that cannot be read --------------------------------------------------------------------


def test_a_missing_video_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"gone\.avi: no such video file"):
        read_frames(tmp_path / "gone.avi", np.array([0]))


@pytest.mark.parametrize("content", [b"", b"this is not a video" * 100])
def test_a_file_that_is_no_video_is_named(tmp_path, content):
    path = tmp_path / "bad.mp4"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"bad\.mp4: cannot be read as a video"):
        read_frames(path, np.array([0]))


def test_a_truncated_video_is_named(tmp_path):
    whole = write_video(tmp_path / "whole.mp4", coded_frames(0), 8)
    path = tmp_path / "cut.mp4"
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"cut\.mp4: cannot be read as a video"):
        read_frames(path, np.arange(CODED_FRAMES))


def test_a_frame_beyond_the_end_is_refused(coded):
    path = coded.record(0).path
    with pytest.raises(ValueError, match=r"v0\.mkv.*frame 40 does not exist, the video has 40"):
        read_frames(path, np.array([0, 40]))


def test_a_missing_or_broken_jpeg_is_named(tmp_path):
    Image.new("RGB", (64, 48)).save(tmp_path / "img_00001.jpg")
    (tmp_path / "img_00002.jpg").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"img_00002\.jpg: cannot be read as an image"):
        read_frames(tmp_path, np.array([0, 1]))
    with pytest.raises(ValueError, match=r"img_00003\.jpg: cannot be read as an image"):
        read_frames(tmp_path, np.array([2]))


# --- The cache of decoded videos ------------------------------------------------------------------

VIDEO_BYTES = CODED_FRAMES * CODED_SIZE[0] * CODED_SIZE[1] * 3
VIDEO_MB = VIDEO_BYTES / 1e6


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """The names of the files that were decoded, in order."""
    names = []
    real = video.read_frames

    def recorded(record, frame_indices):
        names.append(record.path.stem)
        return real(record, frame_indices)

    monkeypatch.setattr(video, "read_frames", recorded)
    return names


@pytest.fixture
def own(coded, tmp_path) -> VideoDataset:
    """The coded data set in a folder of its own."""
    (tmp_path / "own").mkdir()
    return write_dataset(tmp_path / "own", "own", coded.classes, coded.root, coded.index, {})


def cached_files(dataset: VideoDataset) -> list[Path]:
    return sorted(dataset.folder.glob("decoded/*"))


@pytest.mark.parametrize("videos_that_fit", [0, 0.9, 1, 2.5, 100])
def test_results_never_depend_on_the_cache(own, decoded, videos_that_fit):
    reader = FrameReader(own, videos_that_fit * VIDEO_MB)
    for _ in range(2):
        for row in (0, 1, 2):
            for indices in ([3, 1, 1], [39], list(range(40))):
                frames = reader.read(own.record(row), np.array(indices))
                np.testing.assert_array_equal(frames, coded_frames(row)[indices])
    kept = min(3, int(videos_that_fit))  # decoded once; the others each time, 2 · 3 reads
    counts = [decoded.count(f"v{row}") for row in (0, 1, 2)]
    assert counts == [1] * kept + [6] * (3 - kept)
    assert len(cached_files(own)) == kept


def test_all_readers_share_one_cache(own, decoded):
    first, second = FrameReader(own, 10), FrameReader(own, 10)
    third = pickle.loads(pickle.dumps(first))  # as a loader's worker is given it
    for reader in (first, second, third, pickle.loads(pickle.dumps(first))):
        for row in range(4):
            frames = reader.read(own.record(row), np.array([5, 30]))
            np.testing.assert_array_equal(frames, coded_frames(row)[[5, 30]])
    assert sorted(decoded) == ["v0", "v1", "v2", "v3"]
    assert len(cached_files(own)) == 4


def test_what_a_caller_does_to_frames_does_not_reach_the_cache(own):
    reader = FrameReader(own, 10)
    for _ in range(3):
        frames = reader.read(own.record(0), np.arange(4))
        np.testing.assert_array_equal(frames, coded_frames(0)[:4])
        frames[:] = 0


def test_a_cached_file_that_was_cut_short_is_written_again(own, decoded):
    FrameReader(own, 10).read(own.record(0), np.array([0]))
    (path,) = cached_files(own)
    path.write_bytes(path.read_bytes()[:-1])
    for _ in range(2):
        frames = FrameReader(own, 10).read(own.record(0), np.array([39]))
        np.testing.assert_array_equal(frames, coded_frames(0)[[39]])
    assert decoded == ["v0", "v0"]


def test_a_data_set_that_is_prepared_again_has_another_cache(own, decoded):
    FrameReader(own, 10).read(own.record(0), np.array([0]))
    swapped = own.index.assign(path=own.index["path"].to_numpy()[::-1])
    again = write_dataset(own.folder, "own", own.classes, own.root, swapped, {})
    assert cached_files(own) == []
    frames = FrameReader(again, 10).read(again.record(0), np.array([7]))
    np.testing.assert_array_equal(frames, coded_frames(3)[[7]])


def test_a_cache_that_cannot_be_written_names_the_setting(own):
    (own.folder / "decoded").touch()  # a file in the place of its folder
    with pytest.raises(ValueError, match="frame_cache_mb: .*cannot be written.*or set it to 0"):
        FrameReader(own, 10).read(own.record(1), np.array([2]))
