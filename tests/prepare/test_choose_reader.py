"""decord reads the files for which it is proved, and no result depends on who reads."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from coded_videos import FILES, X264, noise, record_of, write_coded
from conftest import write_lossless

from lib.config import PROJECT_ROOT, ClipSettings, PrepareSettings
from lib.data import frame_index
from lib.data.clip_dataset import ClipDataset, Stream, ViewSpec
from lib.data.dataset import VideoRecord, write_dataset
from lib.data.frame_index import read_by_decord
from lib.data.video_reader import read_frames
from lib.prepare import choose_reader
from lib.prepare.choose_reader import ASKED, SLOWER, prove_decord
from lib.prepare.parallel import TaskResult
from lib.prepare.steps import prepare, status_of


def assert_exact_if_proved(record: VideoRecord, num_clips: int = 20) -> bool:
    """Compare random clips by decord with PyAV, if decord is proved; return True if it is."""
    if prove_decord([record]) != "decord":
        return False
    whole = read_frames(record, np.arange(record.num_frames))
    rng = np.random.default_rng(0)
    for gap in range(num_clips):
        clip = (rng.integers(record.num_frames) + gap * np.arange(8)) % record.num_frames
        clip = np.unique(clip if gap else rng.integers(record.num_frames, size=5))
        found = np.stack(list(read_by_decord(record.path, clip)))
        np.testing.assert_array_equal(found, whole[clip])
    return True


@pytest.mark.parametrize("name", FILES)
def test_decord_gives_the_right_frames_of_every_kind_of_file_it_is_proved_for(tmp_path, name):
    suffix, codec, options = FILES[name]
    path = write_coded(tmp_path / f"video{suffix}", noise(40), codec, **options)
    is_proved = assert_exact_if_proved(record_of(path))
    if name in ("ucf.avi", "mjpeg.avi", "vp9.webm"):
        assert is_proved


@pytest.mark.parametrize("width", [2, 16, 32, 48, 56, 58])
def test_decord_gives_the_right_frames_of_narrow_videos_or_does_not_read_them(tmp_path, width):
    frames = noise(12, 48, 64)[:, :, :width]
    assert_exact_if_proved(record_of(write_lossless(tmp_path / "narrow.mkv", frames)))


def test_a_wrong_seek_is_found():
    """A video of ours (x264) in which decord 3.4 seeks to frame 0 instead of key frame 9."""
    record = record_of(PROJECT_ROOT / "tests" / "golden" / "wrong_seek.mp4")
    assert prove_decord([record]).startswith("decord gives other frames: 9 of ")


@pytest.mark.parametrize("name", ["b_frames.mp4", "hmdb.avi", "h264.avi"])
def test_decord_reads_no_b_frames(tmp_path, name):
    """At the end of such files it gives now the last frame and now the one before it."""
    suffix, codec, options = FILES[name]
    path = write_coded(tmp_path / f"video{suffix}", noise(20), codec, **options)
    assert prove_decord([record_of(path)]) == "it has B-frames"


def test_a_file_is_proved_once_for_the_frames_of_its_segments(tmp_path, monkeypatch):
    record = record_of(write_coded(tmp_path / "video.avi", noise(60), "mpeg4", g="12"))
    first, second = (replace(record, first_frame=f, num_frames=8) for f in (17, 50))
    reads = []

    def read(path, numbers):
        reads.append(numbers.tolist())
        return read_by_decord(path, numbers)

    monkeypatch.setattr(choose_reader, "read_by_decord", read)
    assert prove_decord([first, second]) == "decord"
    assert reads[0] == [*range(17, 25), *range(50, 58)] and max(map(max, reads)) == 57
    assert reads[4:6] == [[17, 24, 50], [23, 24, 57]]  # 24 is a key frame, 25 to 49 are not used
    numbers = np.array([0, 3, 7])
    by_decord = read_frames(replace(second, reader="decord"), numbers)
    np.testing.assert_array_equal(by_decord, read_frames(record, 50 + numbers))


def test_what_decord_does_not_give_is_read_by_pyav(tmp_path, monkeypatch):
    record = record_of(write_coded(tmp_path / "video.mp4", noise(40), "libx264", **X264))
    numbers = np.array([3, 14, 15, 39])
    right = read_frames(record, numbers)

    def fail(path, selected):
        yield from right[:2]
        raise LookupError("decord: gone")

    monkeypatch.setattr(frame_index, "read_by_decord", fail)
    found = read_frames(replace(record, reader="decord"), numbers)
    np.testing.assert_array_equal(found, right)


# --- Preparation ----------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path) -> Path:
    """Four videos of which decord gives three exactly."""
    folder = tmp_path / "videos" / "a"
    folder.mkdir(parents=True)
    for number in range(3):
        frames = np.roll(noise(20), number, axis=0)
        write_coded(folder / f"{number}.avi", frames, "mpeg4", g="12")
    golden = PROJECT_ROOT / "tests" / "golden" / "wrong_seek.mp4"
    (folder / "3.mp4").write_bytes(golden.read_bytes())
    return folder.parent


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch) -> None:
    """Start no worker processes to prove decord."""

    def call(function, items, num_processes=0):
        for position, item in enumerate(items):
            try:
                yield TaskResult(position, function(item))
            except ValueError as error:
                yield TaskResult(position, error=str(error))

    monkeypatch.setattr(choose_reader, "map_in_workers", call)


def settings_for(root: Path, reader: str) -> PrepareSettings:
    folder = str(root.parent / "data")
    return PrepareSettings(
        dataset="folder", videos_dir=str(root), prepared_dir=folder, reader=reader, num_processes=1
    )


def details(settings: PrepareSettings) -> str:
    return status_of(settings).set_index("part")["details"]["reader"]


def test_decord_reads_what_it_is_proved_for_and_the_status_says_why_not_the_rest(root):
    asked = settings_for(root, "decord")
    assert details(asked) == "decord: decord is tried"
    index = prepare(asked).index
    assert index["reader"].tolist()[:3] == ["decord"] * 3
    assert index["reader"][3].startswith("decord gives other frames: 9 of")
    text = "decord 3, PyAV 1; 1: decord gives other frames"
    assert details(asked) == details(settings_for(root, "auto")) == text
    assert prepare(settings_for(root, "auto")).index.equals(index)
    by_av = prepare(settings_for(root, "av")).index
    assert by_av["reader"].tolist() == [ASKED] * 3 + index["reader"].tolist()[3:]
    assert prepare(asked).index.equals(index)


def test_an_interrupted_proof_is_continued(root, monkeypatch):
    prepare(settings_for(root, "av"))
    proved, real = [], choose_reader.prove_decord

    def interrupted(segments):
        if len(proved) == 2:
            raise KeyboardInterrupt
        proved.append(segments[0].name)
        return real(segments)

    monkeypatch.setattr(choose_reader, "prove_decord", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(settings_for(root, "decord"))
    monkeypatch.setattr(choose_reader, "prove_decord", lambda each: proved.append(each[0].name))
    prepare(settings_for(root, "decord"))
    assert proved == ["a/0", "a/1", "a/2", "a/3"]


def test_segments_of_a_file_share_its_proof(root, monkeypatch):
    dataset = prepare(settings_for(root, "av"))
    index = pd.concat([dataset.index, dataset.index.assign(name=dataset.index["name"] + "@")])
    dataset = write_dataset(dataset.folder, "folder", dataset.classes, root, index, {})
    proved, real = [], choose_reader.prove_decord

    def prove(segments):
        proved.append([record.name for record in segments])
        return real(segments)

    monkeypatch.setattr(choose_reader, "prove_decord", prove)
    readers = choose_reader.choose_readers(dataset, "decord").index["reader"].tolist()
    assert proved == [[f"a/{number}", f"a/{number}@"] for number in range(4)]
    assert readers[:4] == readers[4:] and readers[:3] == ["decord"] * 3


@pytest.mark.parametrize("is_faster", [True, False])
def test_auto_takes_the_faster_reader_of_many_videos(root, monkeypatch, is_faster):
    assert set(prepare(settings_for(root, "auto")).index["reader"]) == {""}
    real = choose_reader.compare_speed

    def measured(record):
        pyav, decord = sorted(real(record), reverse=is_faster)
        return pyav, decord

    monkeypatch.setattr(choose_reader, "MIN_FILES", 4)
    monkeypatch.setattr(choose_reader, "compare_speed", measured)
    readers = prepare(settings_for(root, "auto")).index["reader"].tolist()
    assert readers[:3] == [("decord" if is_faster else SLOWER)] * 3
    assert details(settings_for(root, "auto")).startswith(f"decord {3 * is_faster}, PyAV")


@pytest.mark.parametrize("num_workers", [0, 2])
def test_training_clips_are_the_same_bit_for_bit_with_either_reader(root, num_workers):
    batches = []
    for reader in ("av", "decord"):
        dataset = prepare(settings_for(root, reader))
        settings = ClipSettings(
            clip_len=4, frame_interval=3, short_side=24, crop_size=16, frame_cache_mb=0
        )
        clips = ClipDataset(dataset, settings, ViewSpec(weak=True, strong=True), (0, 0))
        stream = Stream(clips, np.arange(4), 3, (0, 2, 0))
        batches.append(list(stream.load(0, 24, num_workers=num_workers)))
    for one, other in zip(*batches, strict=True):
        assert torch.equal(one.weak, other.weak) and torch.equal(one.strong, other.strong)


# --- Real videos ----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "at_least"),
    [("clips/*", 2), ("ucf101_avi/*/*", 5), ("weizmann/*/*", 8), ("ucf101_10/*/*/*", 5)],
)
def test_real_videos_are_read_exactly_by_decord_where_it_is_proved(shared, place, at_least):
    paths = sorted(shared("data").glob(place))
    some = paths[:: max(1, len(paths) // 10)][:15]
    assert sum(assert_exact_if_proved(record_of(path)) for path in some) >= at_least
