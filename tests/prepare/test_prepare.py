"""Indexing folders of videos, among them files that nobody wants to meet."""

import os
import shutil
import struct
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest
from conftest import write_lossless
from PIL import Image
from unreliable import inspect_or_crash, square_or_fail

from lib.config import PROJECT_ROOT, PrepareSettings
from lib.data.dataset import read_dataset, write_dataset
from lib.data.video_reader import read_frames
from lib.prepare import inspect_videos as inspection
from lib.prepare import steps as prepare_module
from lib.prepare.__main__ import main
from lib.prepare.find_videos import find_videos
from lib.prepare.inspect_videos import inspect_video, inspect_videos
from lib.prepare.own_folder import index_folder
from lib.prepare.parallel import map_in_workers
from lib.prepare.steps import dataset_folder, open_dataset, prepare, status_of
from lib.prepare.synthetic import write_video

SHARED = PROJECT_ROOT.parent / "shared" / "data"
needs_real_videos = pytest.mark.skipif(
    not SHARED.is_dir(), reason=f"no real videos in {SHARED}; they are not part of the project"
)


def make_video(path: Path, num_frames: int = 6, size: tuple[int, int] = (48, 64)) -> Path:
    """Write a grey video whose frame t has the value 20 + 10·t."""
    values = 20 + 10 * np.arange(num_frames, dtype=np.uint8)
    frames = np.broadcast_to(values[:, None, None, None], (num_frames, *size, 3))
    return write_video(path, np.ascontiguousarray(frames), fps=10)


def make_folder(root: Path, names: list[str]) -> Path:
    source = make_video(root.parent / "source.mp4")
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, root / name)
    return root


def settings_for(root: Path, **values) -> PrepareSettings:
    return PrepareSettings(
        dataset="folder", videos_dir=str(root), prepared_dir=str(root.parent / "data"), **values
    )


# --- Good folders ---------------------------------------------------------------------------------


def test_folder_with_spaces_is_prepared_and_its_lists_read_back(tmp_path):
    names = [f"{action}/clip {n}, a b.mp4" for action in ("high jump", "run") for n in range(5)]
    dataset = prepare(settings_for(make_folder(tmp_path / "my videos", names)))
    assert dataset.classes == ("high jump", "run")
    assert dataset.index["frames"].tolist() == [6] * 10
    assert set(dataset.index[["width", "height"]].itertuples(index=False, name=None)) == {(64, 48)}
    train, val = dataset.read_split("train"), dataset.read_split("val")
    assert len(train) == 8 and len(val) == 2 and not set(train) & set(val)
    assert dataset.index["label"][val].tolist() == [0, 1]
    record = dataset.record(int(val[0]))
    assert read_frames(record.path, np.array([5]))[0].mean() == pytest.approx(70, abs=3)
    dataset = prepare(settings_for(tmp_path / "my videos", labeled_counts=[3]))
    assert len(dataset.read_split("train_3perclass_seed0")) == 6


def test_parts_are_taken_from_the_folders(tmp_path):
    names = ["train/a/1.mp4", "train/b/2.mp4", "train/b/3.mp4", "val/a/4.mp4", "val/b/5.mp4"]
    dataset = prepare(settings_for(make_folder(tmp_path / "videos", names)))
    assert dataset.index["name"][dataset.read_split("val")].tolist() == ["a/4", "b/5"]


def write_images(folder: Path, names: list[str]) -> Path:
    """Write images into a folder, each of another shade."""
    folder.mkdir(parents=True)
    for number, name in enumerate(names):
        kind = "PNG" if name.lower().endswith("png") else "JPEG"
        Image.new("RGB", (32, 24), (80 * number,) * 3).save(folder / name, format=kind)
    return folder


@pytest.mark.parametrize(
    "names",
    [
        ["img_00001.jpg", "img_00002.jpg", "img_00003.jpg"],
        ["img_00000.jpg", "img_00001.jpg", "img_00002.jpg"],  # as denseflow numbers them
        ["frame_000001.jpg", "frame_000002.jpg", "frame_000003.jpg"],
        ["image_00009.jpeg", "image_00010.jpeg", "image_00011.jpeg"],
        ["8.JPG", "9.JPG", "10.JPG"],
        ["v_g01_c02_01.png", "v_g01_c02_02.png", "v_g01_c02_03.png"],
    ],
    ids=lambda names: names[0],
)
def test_folders_of_numbered_images_are_videos(tmp_path, names):
    for name in ("a/one", "a/two", "b/one", "b/two"):
        folder = write_images(tmp_path / "rawframes" / name, names)
    (folder / names[1]).rename(folder / "kept")
    with pytest.raises(ValueError, match=r"no readable video of \['b'\] in 'val'"):
        prepare(settings_for(tmp_path / "rawframes"))
    report = next((tmp_path / "data").glob("folder-*/broken.csv")).read_text()
    assert f"b/two,False,{names[1]} is missing" in report
    (folder / "kept").rename(folder / names[1])
    dataset = prepare(settings_for(tmp_path / "rawframes"))
    assert dataset.index["frames"].tolist() == [3] * 4
    for record in map(dataset.record, range(4)):
        assert (record.width, record.height) == (32, 24)
        shades = read_frames(record, np.array([2, 0, 1])).mean(axis=(1, 2, 3))
        assert shades == pytest.approx([160, 0, 80], abs=2)
        np.testing.assert_array_equal(read_frames(record.path, np.array([1, 2])),
                                      read_frames(record, np.array([1, 2])))  # fmt: skip


def test_broken_folders_of_images_are_named(tmp_path):
    names = ["img_00001.jpg", "img_00002.jpg", "img_00003.jpg"]
    for name in ("whole", "whole2", "cut"):
        write_images(tmp_path / "videos" / "a" / name, names)
    cut = tmp_path / "videos" / "a" / "cut" / "img_00002.jpg"
    cut.write_bytes(cut.read_bytes()[:-200])
    write_images(tmp_path / "videos" / "a" / "two kinds", ["x_1.jpg", "x_2.jpg", "y_1.jpg"])
    flow = ["flow_x_00001.jpg", "flow_x_00002.jpg", *names]
    write_images(tmp_path / "videos" / "a" / "flow", flow)
    dataset = prepare(settings_for(tmp_path / "videos"))
    assert dataset.index["name"].tolist() == ["a/flow", "a/whole", "a/whole2"]
    assert dataset.index["frames"].tolist() == [3, 3, 3]
    report = pd.read_csv(dataset.folder / "broken.csv").set_index("path")["reason"]
    assert "img_00002.jpg: cannot be read as an image" in report["a/cut"]
    assert report["a/two kinds"] == "it holds images of several kinds (x_….jpg, y_….jpg): keep one"


def test_pictures_beside_videos_are_not_their_frames(tmp_path):
    root = make_folder(tmp_path / "videos", ["a/1.mp4", "a/2.mp4"])
    for name in ("cover_1.jpg", "cover_2.jpg"):
        Image.new("RGB", (32, 24)).save(root / "a" / name)
    found = find_videos(root)
    assert found.videos["name"].tolist() == ["a/1", "a/2"]
    assert "cover_1.jpg" in found.ignored[0]


@pytest.mark.slow
def test_a_second_call_opens_nothing_and_changes_nothing(tmp_path, monkeypatch):
    settings = settings_for(make_folder(tmp_path / "videos", ["a/1.mp4", "a/2.mp4"]))
    first = prepare(settings)
    before = {p: p.stat().st_mtime_ns for p in first.folder.rglob("*") if p.is_file()}
    monkeypatch.setattr(prepare_module, "index_folder", None)
    assert prepare(settings).index.equals(first.index)
    assert {p: p.stat().st_mtime_ns for p in first.folder.rglob("*") if p.is_file()} == before


def test_interrupted_opening_continues_where_it_was(tmp_path, monkeypatch):
    root = make_folder(tmp_path / "videos", [f"a/{n}.mp4" for n in range(4)])
    paths = sorted((root / "a").iterdir())
    progress = tmp_path / "opened.jsonl"
    first = inspect_videos(paths[:3], 1, progress_file=progress)
    opened = []

    def interrupted(_, items, *__):
        opened.extend(items)
        if items:
            raise KeyboardInterrupt
        return []

    monkeypatch.setattr(inspection, "map_in_workers", interrupted)
    assert inspect_videos(paths[:3], 1, progress_file=progress) == first
    with pytest.raises(KeyboardInterrupt):
        inspect_videos(paths, 1, progress_file=progress)
    assert opened == paths[3:]
    progress.write_text(progress.read_text()[:-20])  # the last line was cut off by a crash
    opened.clear()
    with pytest.raises(KeyboardInterrupt):
        inspect_videos(paths[:3], 1, progress_file=progress)
    assert len(opened) == 1


def test_open_dataset_prepares_a_folder_that_was_not(tmp_path):
    root = make_folder(tmp_path / "videos", ["a/1.mp4", "a/2.mp4"])
    dataset = open_dataset("folder", str(root), str(tmp_path / "data"))
    assert read_dataset(dataset.folder).index.equals(dataset.index)


# --- Folders that cannot be used ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["notes.txt"], "no videos"),
        (["1.mp4", "2.mp4"], "2 videos and none has a class; put some into class folders"),
        (["a/1.mp4", "a/2.mp4", "b/1.mp4"], r"no readable video of \['b'\] in 'val'"),
        (["train/a/1.mp4"], "'train' but not both"),
        (
            ["train/a/1.mp4", "train/b/2.mp4", "val/a/3.mp4"],
            r"no readable video of \['b'\] in 'val'",
        ),
        (["a/1.mp4", "a/2 .mp4"], "begins or ends with a space"),
        (["a/1.mp4", "a/2\n.mp4"], "cannot be printed"),
    ],
)
def test_wrong_layouts_say_what_is_wrong(tmp_path, names, message):
    root = make_folder(tmp_path / "videos", names)
    with pytest.raises(ValueError, match=message):
        prepare(settings_for(root))


@pytest.mark.parametrize("name", ["2024", "a, b", "c #1", "d: e", "[f]", "no", "{g}", "null"])
def test_a_folder_on_the_command_line_may_have_any_name(tmp_path, name, monkeypatch):
    seen = []
    monkeypatch.setattr("lib.prepare.__main__.prepare", seen.append)
    monkeypatch.setattr("lib.prepare.__main__.status_of", lambda _: pd.DataFrame())
    options = ["--val_fraction", "0.5", "--download", "true", "--labeled_counts", "1", "5"]
    options += ["--split_files", name, "/b/c.txt", "--person_boxes", "motion"]
    assert main(["--dataset", "folder", "--videos_dir", name, *options]) == 0
    (settings,) = seen
    assert settings.videos_dir == name and settings.download is True
    assert settings.val_fraction == 0.5 and settings.labeled_counts == [1, 5]
    assert settings.split_files == [name, "/b/c.txt"] and settings.person_boxes == "motion"


def test_missing_folder_and_unknown_dataset(tmp_path):
    with pytest.raises(ValueError, match="is not a folder"):
        find_videos(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="videos_dir: dataset 'folder' needs"):
        dataset_folder("folder", None, "data")
    with pytest.raises(ValueError, match="no data set 'ufc101'; did you mean 'ucf101'"):
        dataset_folder("ufc101", None, "data")


@pytest.fixture
def read_only(tmp_path):
    """Make a folder read-only; root, who may write everywhere, becomes nobody meanwhile."""
    made = []

    def protect(folder: Path) -> None:
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
            made.append(path)
        if os.geteuid() == 0:
            for parent in [tmp_path, *tmp_path.parents]:
                if parent.name.startswith("pytest-") or parent == tmp_path:
                    parent.chmod(0o755)
            os.seteuid(65534)
            if not os.access(folder, os.R_OK, effective_ids=True):
                pytest.skip(f"nobody may not read {folder}")

    yield protect
    os.seteuid(os.getuid())
    for path in made:
        path.chmod(0o755)


def test_read_only_data_folder(tmp_path, read_only):
    settings = settings_for(make_folder(tmp_path / "videos", ["a/1.mp4", "a/2.mp4"]))
    (tmp_path / "data").mkdir()
    read_only(tmp_path / "data")
    with pytest.raises(ValueError, match="prepared_dir: nothing can be written"):
        prepare(settings)


@pytest.mark.slow
def test_a_complete_data_set_may_be_read_only_and_more_cannot_be_made_of_it(tmp_path, read_only):
    root = make_folder(tmp_path / "videos", [f"a/{n}.mp4" for n in range(5)])
    settings = settings_for(root, person_boxes="motion", num_processes=1)
    dataset = prepare(settings)
    read_only(tmp_path / "data")
    assert prepare(settings).index.equals(dataset.index)
    for change in ({"labeled_counts": [1]}, {"detector_stride": 2}, {"storage": "frames"}):
        with pytest.raises(ValueError, match="prepared_dir: nothing can be written to"):
            prepare(settings.model_copy(update=change))


def test_another_split_is_said_not_to_have_been_drawn(tmp_path):
    root = make_folder(tmp_path / "videos", [f"a/{n}.mp4" for n in range(4)])
    prepare(settings_for(root))
    plan = status_of(settings_for(root, val_fraction=0.5)).set_index("part")
    assert "val was drawn with val_fraction 0.2, not 0.5" in plan["details"]["changes"]
    assert "changes" not in set(status_of(settings_for(root))["part"])


def test_plan_of_a_folder_counts_its_videos(tmp_path):
    root = make_folder(tmp_path / "videos", [f"a/{n}.mp4" for n in range(4)])
    (tmp_path / "net.onnx").write_bytes(b"not opened here")
    settings = settings_for(
        root, person_boxes="yolox", detector_weights=str(tmp_path / "net.onnx"), num_processes=1
    )
    plan = status_of(settings).set_index("part")["details"]
    assert "4 labeled videos in 1 classes, 0 unlabeled, to open" in plan["videos"]
    assert "180 frames, about 0:05 min with YOLOX-Nano on 1 cores" in plan["person boxes"]
    assert "GB are free" in plan["in all"]


def test_data_folder_that_is_a_file(tmp_path):
    (tmp_path / "data").write_text("not a folder")
    root = make_folder(tmp_path / "videos", ["a/1.mp4", "a/2.mp4"])
    with pytest.raises(ValueError, match="prepared_dir: nothing can be written"):
        prepare(settings_for(root))


# --- Files that cannot be used --------------------------------------------------------------------


def write_audio(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        silence = np.zeros((1, 44100), np.float32)
        frame = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


def test_broken_files_are_listed_and_the_rest_goes_on(tmp_path, capsys):
    root = make_folder(tmp_path / "videos", ["a/1.mp4", "a/2.mp4", "a/3.mp4"])
    whole = make_video(tmp_path / "long.mp4", 60, (128, 128)).read_bytes()
    (root / "a" / "empty.mp4").write_bytes(b"")
    (root / "a" / "half.mp4").write_bytes(whole[: len(whole) // 2])
    (root / "a" / "codec.mp4").write_bytes(whole.replace(b"avc1", b"zzzz"))
    (root / "a" / "noise.avi").write_bytes(np.random.default_rng(0).bytes(20_000))
    (root / "a" / "text.mov").write_text("not a video")
    write_audio(root / "a" / "audio.mp4")
    (root / "a" / "dangling.mp4").symlink_to(tmp_path / "nothing")
    make_video(root / "a" / "one frame.mp4", num_frames=1)
    (root / "a" / "._1.mp4").write_bytes(b"left by another system")
    dataset = prepare(settings_for(root))
    assert dataset.index["name"].tolist() == ["a/1", "a/2", "a/3", "a/one frame"]
    assert dataset.index["frames"].tolist() == [6, 6, 6, 1]
    report = (dataset.folder / "broken.csv").read_text()
    for line in (
        "a/audio.mp4,False,it has no video stream",
        "a/codec.mp4,False,its codec is not known",
        "a/dangling.mp4,False,cannot be opened (No such file or directory)",
        "a/empty.mp4,False,the file is empty",
        "a/half.mp4,False,it",
        "a/noise.avi,False,it is not a video",
        "a/text.mov,False,it is not a video",
    ):
        assert line in report
    assert "7 videos cannot be read and are left out" in capsys.readouterr().out


@pytest.mark.parametrize(("height", "width"), [(49, 65), (47, 63), (2160, 3840), (200, 66)])
def test_odd_and_large_sizes_are_what_is_read(tmp_path, height, width):
    with av.open(str(tmp_path / "video.avi"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        picture = np.full((height, width, 3), 90, np.uint8)
        for _ in range(2):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    assert inspect_video(tmp_path / "video.avi")[2:6] == (width, height, None, None)
    frames = read_frames(tmp_path / "video.avi", np.array([1, 0]))
    assert frames.shape == (2, height, width, 3)


# The first two rows of display matrices as phones write them, and what players then show
COS, SIN = float(np.cos(np.radians(89.4))), float(np.sin(np.radians(89.4)))
MATRICES = {
    "clockwise": ((0, 1, -1, 0), lambda x: np.rot90(x, -1)),
    "half turn": ((-1, 0, 0, -1), lambda x: np.rot90(x, 2)),
    "counterclockwise": ((0, -1, 1, 0), lambda x: np.rot90(x)),
    "nearly clockwise": ((COS, SIN, -SIN, COS), lambda x: np.rot90(x, -1)),
    "scaled": ((0, 0.5, -2, 0), lambda x: np.rot90(x, -1)),
    "left to right": ((-1, 0, 0, 1), lambda x: x[:, ::-1]),
    "upside down": ((1, 0, 0, -1), lambda x: x[::-1]),
    "transposed": ((0, 1, 1, 0), lambda x: x.transpose(1, 0, 2)),
    "other diagonal": ((0, -1, -1, 0), lambda x: np.rot90(x, 2).transpose(1, 0, 2)),
    "zero": ((0, 0, 0, 0), lambda x: x),
    "flat": ((1, 0, 1, 0), lambda x: x),
}


@pytest.mark.parametrize("name", MATRICES)
def test_videos_are_turned_and_mirrored_as_their_header_says(tmp_path, name):
    coded = np.zeros((64, 128, 3), np.uint8)
    coded[:32, :64], coded[:32, 64:] = 250, 120  # corners tell what went where
    path = write_video(tmp_path / "video.mp4", np.stack([coded] * 4), fps=10)
    (a, b, c, d), show = MATRICES[name]
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 44
    fixed = [round(value * (1 << 16)) for value in (a, b, 0, c, d, 0, 0, 0)]
    data[matrix : matrix + 36] = struct.pack(">9i", *fixed, 1 << 30)
    path.write_bytes(data)
    shown, found = show(coded), inspect_video(path)
    assert (found.frames, found.height, found.width) == (4, *shown.shape[:2])
    assert found.error is found.note is None
    for indices in ([0, 3], [2]):
        read = read_frames(path, np.array(indices))[0]
        assert np.abs(read.astype(int) - shown).mean() < 10


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_variable_frame_rate_loses_and_repeats_no_frame(tmp_path, suffix):
    path, rng = tmp_path / f"video.{suffix}", np.random.default_rng(0)
    times = np.cumsum(rng.integers(10, 400, size=20))  # milliseconds
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for number, time in enumerate(times.tolist()):
            picture = np.full((48, 64, 3), 10 + 10 * number, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert inspect_video(path)[0] == 20
    for indices in (np.arange(20), np.array([3, 17])):
        levels = read_frames(path, indices).mean(axis=(1, 2, 3))
        assert levels == pytest.approx(10 + 10 * indices, abs=3)


@pytest.mark.parametrize("width", [2, 16, 32, 48, 56, 58])
def test_a_narrow_video_is_read_exactly(tmp_path, width):
    frames = np.zeros((6, 48, width, 3), np.uint8)
    frames += (40 * np.arange(6, dtype=np.uint8))[:, None, None, None]
    frames[:, :, : width // 2, 1] = 200
    path = write_lossless(tmp_path / "narrow.mkv", frames)
    found = inspect_video(path)
    assert (found.frames, found.width, found.height, found.error) == (6, width, 48, None)
    np.testing.assert_array_equal(read_frames(path, np.arange(6)), frames)


def test_the_plan_counts_videos_that_are_decoded_from_their_start(tmp_path):
    root = make_folder(tmp_path / "videos", [f"a/{n}.mp4" for n in range(3)])
    settings = settings_for(root)
    dataset = prepare(settings)
    assert (dataset.index["seek"] != "").all() and dataset.index["fingerprint"].nunique() == 1
    assert "seeking" not in set(status_of(settings)["part"])
    index = dataset.index.assign(seek=["", "", dataset.index["seek"][2]])
    write_dataset(dataset.folder, "folder", dataset.classes, dataset.root, index, {})
    details = status_of(settings).set_index("part")["details"]["seeking"]
    assert details.startswith("2 of 3 videos are decoded from their start")


def test_nothing_readable_is_an_error(tmp_path):
    root = make_folder(tmp_path / "videos", [])
    (root / "a").mkdir(parents=True)
    (root / "a" / "1.mp4").write_bytes(b"")
    with pytest.raises(ValueError, match="none of its 1 videos can be read"):
        prepare(settings_for(root))


@pytest.mark.slow
def test_a_crashing_decoder_loses_only_its_file(tmp_path, monkeypatch):
    names = [f"a/{name}.mp4" for name in ("1", "2", "3", "segfault", "abort", "4", "5")]
    root = make_folder(tmp_path / "videos", names)
    monkeypatch.setattr(inspection, "inspect_video", inspect_or_crash)
    dataset = index_folder(root, tmp_path / "data", 0.2, 0, num_processes=2)
    assert dataset.index["name"].tolist() == [f"a/{n}" for n in range(1, 6)]
    report = (tmp_path / "data" / "broken.csv").read_text()
    assert "a/segfault.mp4,False,the decoder crashed (SIGSEGV)" in report
    assert "a/abort.mp4,False,the decoder crashed (SIGABRT)" in report


@pytest.mark.slow
def test_a_frozen_decoder_is_given_up(tmp_path, monkeypatch):
    root = make_folder(tmp_path / "videos", ["a/1.mp4", "a/freeze.mp4"])
    monkeypatch.setattr(inspection, "inspect_video", inspect_or_crash)
    found = inspect_videos([root / "a/freeze.mp4", root / "a/1.mp4"], 1, timeout_s=3)
    assert found[0].error == "no result after 3 s, given up"
    assert found[1].frames == 6


def test_workers_answer_every_item_once():
    outcomes = {o.position: o for o in map_in_workers(square_or_fail, list(range(8)), 2)}
    assert [outcomes[n].value for n in range(8)] == [0, 1, 4, None, 16, 25, 36, 49]
    assert outcomes[3].error == "three is not liked"
    assert list(map_in_workers(square_or_fail, [])) == []


@pytest.mark.slow
def test_a_script_that_cannot_be_imported_again_is_told_why(tmp_path):
    script = "from lib.prepare.parallel import map_in_workers\nlist(map_in_workers(abs, [1]))\n"
    (tmp_path / "script.py").write_text(script)
    command = [sys.executable, tmp_path / "script.py"]
    path = os.pathsep.join([str(PROJECT_ROOT), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path}
    said = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert said.returncode != 0 and "needs `if __name__ == '__main__':`" in said.stderr


# --- Real videos ----------------------------------------------------------------------------------


@pytest.mark.slow
@needs_real_videos
def test_real_clips_open_with_and_without_utf8_metadata(tmp_path):
    paths = sorted((SHARED / "clips").iterdir())
    found = inspect_videos(paths, 2)
    assert all(info.error is None and info.frames > 20 for info in found)
    name = "cartwheel_f_cm_np2_le_med_6.avi"
    pairs = zip(paths, found, strict=True)
    cartwheel = [info.frames for path, info in pairs if path.name.endswith(name)]
    assert cartwheel == [83]  # as in the published lists; decord repeats the last one


@needs_real_videos
def test_a_truncated_avi_is_kept_and_reported(tmp_path):
    whole = (SHARED / "clips" / "v_Basketball_g01_c01.avi").read_bytes()
    (tmp_path / "half.avi").write_bytes(whole[: len(whole) // 2])
    found = inspect_video(tmp_path / "half.avi")
    assert found.error is None and 0 < found.frames < 141
    assert "damaged: 1 of its" in found.note and found.seek == ""
