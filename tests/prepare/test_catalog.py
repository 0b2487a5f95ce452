"""Known data sets: archives, lists, layouts, plans; all files are made here, none is downloaded."""

import hashlib
import io
import os
import stat
import struct
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lib.config import PROJECT_ROOT, PrepareSettings
from lib.data import dataset as writing
from lib.data.frame_tables import FrameRows, PersonBoxes
from lib.data.video_reader import read_frames
from lib.prepare import public_datasets as public_datasets
from lib.prepare.__main__ import main
from lib.prepare.catalog import CATALOG, PublishedSplit, RemoteFile, dataset_folder
from lib.prepare.download import extract, extract_nested
from lib.prepare.jpeg_frames import store_frames
from lib.prepare.public_datasets import (
    PublishedFiles,
    class_order,
    index_public_dataset,
    match_listed_videos,
)
from lib.prepare.published_splits import SplitEntry
from lib.prepare.status import status_text
from lib.prepare.steps import prepare, status_of
from lib.prepare.synthetic import write_video

LISTS = PROJECT_ROOT.parent / "shared" / "data" / "reference_lists"


def make_video(path: Path, num_frames: int = 6) -> Path:
    values = 20 + 30 * np.arange(num_frames, dtype=np.uint8)
    frames = np.broadcast_to(values[:, None, None, None], (num_frames, 48, 64, 3))
    return write_video(path, np.ascontiguousarray(frames), fps=10)


def rar_bytes(files: dict[str, bytes], mode: int = stat.S_IFREG | 0o644) -> bytes:
    """Write a rar archive (format 3) without compression, which needs no program to read."""

    def block(kind: int, flags: int, body: bytes) -> bytes:
        rest = struct.pack("<BHH", kind, flags, 7 + len(body)) + body
        return struct.pack("<H", zlib.crc32(rest) & 0xFFFF) + rest

    data = b"Rar!\x1a\x07\x00" + block(0x73, 0, bytes(6))
    for name, content in files.items():
        encoded = name.encode()
        sizes = (len(content), len(content), 3, zlib.crc32(content), 0, 20, 0x30)
        head = struct.pack("<IIBIIBB", *sizes) + struct.pack("<HI", len(encoded), mode) + encoded
        data += block(0x74, 0x8000, head) + content
    return data + block(0x7B, 0x4000, b"")


def zip_bytes(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


# --- Archives -------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [zip_bytes, rar_bytes])
def test_archives_are_unpacked_once(tmp_path, make):
    archive = tmp_path / "archive"
    archive.write_bytes(make({"a/b c.txt": b"one", "d.txt": b"two"}))
    assert extract(archive, tmp_path / "out") == [
        tmp_path / "out/a/b c.txt",
        tmp_path / "out/d.txt",
    ]
    assert (tmp_path / "out/a/b c.txt").read_bytes() == b"one"
    before = (tmp_path / "out/d.txt").stat().st_mtime_ns
    (tmp_path / "out/a/b c.txt").write_bytes(b"o")  # half of it, as after a crash
    extract(archive, tmp_path / "out")
    assert (tmp_path / "out/a/b c.txt").read_bytes() == b"one"
    assert (tmp_path / "out/d.txt").stat().st_mtime_ns == before


@pytest.mark.parametrize("make", [zip_bytes, rar_bytes])
@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/evil", "C:/evil", "..\\evil"])
def test_names_that_lead_out_are_refused_before_anything_is_written(tmp_path, make, name):
    archive = tmp_path / "archive"
    archive.write_bytes(make({"good.txt": b"x", name: b"x"}))
    with pytest.raises(ValueError, match="is outside of the folder"):
        extract(archive, tmp_path / "deep" / "out")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["archive"]


def test_links_are_refused(tmp_path):
    info = zipfile.ZipInfo("link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "links.zip", "w") as archive:
        archive.writestr(info, "/etc")
    link = rar_bytes({"link": b"/etc"}, stat.S_IFLNK | 0o777)
    (tmp_path / "links.rar").write_bytes(link)
    for name in ("links.zip", "links.rar"):
        with pytest.raises(ValueError, match="'link' is a link or a device"):
            extract(tmp_path / name, tmp_path / "out")


def test_archives_that_cannot_be_used(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="not a zip or rar archive"):
        extract(tmp_path / "none.zip", tmp_path)
    (tmp_path / "page.rar").write_text("<html>not found</html>")
    with pytest.raises(ValueError, match="not a zip or rar archive, perhaps an error page"):
        extract(tmp_path / "page.rar", tmp_path)
    whole = zip_bytes({"a.txt": os.urandom(5000)})
    (tmp_path / "damaged.zip").write_bytes(whole[:1000] + bytes(100) + whole[1100:])
    with pytest.raises(ValueError, match="damaged.zip: cannot be extracted"):
        extract(tmp_path / "damaged.zip", tmp_path / "out")
    (tmp_path / "good.zip").write_bytes(whole)
    monkeypatch.setattr(writing, "free_bytes", lambda _: 0)
    with pytest.raises(ValueError, match="make room, or set prepared_dir to another disk"):
        extract(tmp_path / "good.zip", tmp_path / "out2")


def test_a_missing_unpacker_is_named(tmp_path, monkeypatch):
    packed = rar_bytes({"a.txt": b"x" * 100}).replace(b"\x14\x30", b"\x14\x33", 1)
    header = packed.index(b"a.txt") - 32
    size = struct.unpack_from("<H", packed, header + 5)[0]
    crc = struct.pack("<H", zlib.crc32(packed[header + 2 : header + size]) & 0xFFFF)
    (tmp_path / "packed.rar").write_bytes(packed[:header] + crc + packed[header + 2 :])
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="install unrar, unar, 7z or bsdtar"):
        extract(tmp_path / "packed.rar", tmp_path / "out")


def test_archive_of_archives(tmp_path):
    inner = {"run.rar": rar_bytes({"run/1.avi": b"1"}), "sit.rar": rar_bytes({"sit/2.avi": b"2"})}
    (tmp_path / "all.rar").write_bytes(rar_bytes(inner))
    extract_nested(tmp_path / "all.rar", tmp_path / "out")
    extract_nested(tmp_path / "all.rar", tmp_path / "out")
    files = sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").glob("*/*"))
    assert files == ["run/1.avi", "sit/2.avi"]


# --- The catalog itself ---------------------------------------------------------------------------


def test_catalog_is_complete():
    assert list(CATALOG) == [
        "synthetic", "synthetic_nuisances", "folder", "ucf101", "hmdb51", "kinetics100",
        "kinetics400", "mini_ssv2",
    ]  # fmt: skip
    for name, entry in CATALOG.items():
        names = [published.name for published in entry.splits]
        assert len(set(names)) == len(names) and entry.license
        assert not names or {"train", "val"} <= set(names)
        for file in (p.file for p in entry.splits):
            pinned = "githubusercontent" in file.url
            assert (file.checksum is not None and len(file.checksum) == 64) == pinned, name
        for file in entry.archives:
            kind, _, digits = file.checksum.rpartition(":")
            assert len(digits) == {"": 64, "md5": 32}[kind], name


@pytest.mark.skipif(not LISTS.is_dir(), reason=f"no published lists in {LISTS}")
def test_checksums_and_counts_are_those_of_the_published_lists():
    checked = 0
    for entry in CATALOG.values():
        for published in entry.splits:
            if "vt-vl-lab" in published.file.url:
                path = LISTS / published.file.url.split("/data/")[1]
                assert hashlib.sha256(path.read_bytes()).hexdigest() == published.file.checksum
                assert len(path.read_text().splitlines()) == published.num_videos
                checked += 1
    assert checked == 17


# --- A small "UCF-101" ----------------------------------------------------------------------------

NAMES = {
    "train": ["Hammering/v_Hammering_g08_c01", "HammerThrow/v_HammerThrow_g08_c01"],
    "val": ["Hammering/v_Hammering_g01_c01", "HammerThrow/v_HammerThrow_g01_c01"],
}


@pytest.fixture
def small_ucf(tmp_path, monkeypatch) -> Path:
    """Two classes, four videos in a rar, lists and splits, all in a folder `sources`."""
    sources = tmp_path / "sources"
    video = make_video(tmp_path / "video.avi").read_bytes()
    files = {f"UCF-101/{n}.avi": video for part in NAMES.values() for n in part}
    files["UCF-101/Other/v_Other_g01_c01.avi"] = video
    sources.mkdir()
    (sources / "UCF101.rar").write_bytes(rar_bytes(files))
    lists = []
    for part, names in NAMES.items():
        path = sources / f"{part}.txt"
        path.write_text("".join(f"{n} {6 + k} {k}\n" for k, n in enumerate(names)))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        url = f"http://127.0.0.1:9/{part}.txt"
        lists.append(PublishedSplit(part, RemoteFile(url, digest), 2))
    entry = replace(
        CATALOG["ucf101"],
        num_classes=2,
        num_videos=4,
        splits=tuple(lists),
        archives=(RemoteFile("http://127.0.0.1:9/UCF101.rar", size_gb=1e-5),),
        videos_gb=1e-5,
    )
    monkeypatch.setitem(CATALOG, "ucf101", entry)
    return sources


def settings_for(tmp_path, **values) -> PrepareSettings:
    return PrepareSettings(
        **{
            "dataset": "ucf101",
            "prepared_dir": str(tmp_path / "data"),
            "num_processes": 1,
            **values,
        }
    )


def test_from_archives_to_a_data_set(small_ucf, tmp_path, capsys):
    dataset = prepare(settings_for(tmp_path, downloads_dir=str(small_ucf)))
    assert dataset.classes == ("Hammering", "HammerThrow")
    assert dataset.index["name"].tolist() == NAMES["train"] + NAMES["val"]
    assert dataset.read_split("train").tolist() == [0, 1]
    assert dataset.read_split("val").tolist() == [2, 3]
    out = capsys.readouterr().out
    assert "4 listed videos, 1 others left out" in out
    assert "train: 2 videos, 1 with other frames" in out
    assert read_frames(dataset.record(0).path, np.array([0])).shape == (1, 48, 64, 3)


def test_a_split_without_any_video_is_left_out(small_ucf, tmp_path, capsys):
    for name in (NAMES["train"][0], NAMES["val"][1]):
        make_video(tmp_path / "mine" / f"{name}.avi")
    entry = CATALOG["ucf101"]
    (small_ucf / "few.txt").write_text(f"{NAMES['train'][1]} 6 1\n")
    few = PublishedSplit("reference_few", RemoteFile("http://127.0.0.1:9/few.txt"), 1)
    CATALOG["ucf101"] = replace(entry, splits=(*entry.splits, few))
    settings = settings_for(
        tmp_path, downloads_dir=str(small_ucf), videos_dir=str(tmp_path / "mine")
    )
    dataset = prepare(settings)
    assert "reference_few: none of its 1 videos is there, left out" in capsys.readouterr().out
    assert "reference_few" not in dataset.split_names()


def test_videos_of_your_own_folder_and_missing_ones(small_ucf, tmp_path, capsys):
    make_video(tmp_path / "mine" / "any" / "v_HammerThrow_g08_c01.avi")
    make_video(tmp_path / "mine" / "hammering" / "v_Hammering_g01_c01.avi")
    settings = settings_for(
        tmp_path,
        downloads_dir=str(small_ucf),
        videos_dir=str(tmp_path / "mine"),
    )
    dataset = prepare(settings)
    assert dataset.index["label"].tolist() == [1, 0]
    assert "train: 1 videos, 1 missing, 1 with other frames" in capsys.readouterr().out
    absent = status_of(settings).set_index("part")["details"]["absent videos"]
    assert absent.startswith("2 of 4, named in")
    report = (dataset.folder / "splits" / "train.problems.csv").read_text()
    assert "Hammering/v_Hammering_g08_c01,missing" in report


def test_what_is_absent_is_said_with_its_address(small_ucf, tmp_path):
    with pytest.raises(
        ValueError, match=r"split train: http://127.0.0.1(.|\n)*split val: (.|\n)*archive: "
    ):
        prepare(settings_for(tmp_path))
    (small_ucf / "train.txt").write_text("changed a/b 1 0\n")
    with pytest.raises(ValueError, match="train.txt: its checksum is not"):
        prepare(settings_for(tmp_path, downloads_dir=str(small_ucf)))


def test_a_wrong_checksum_of_an_optional_split_is_an_error(small_ucf, tmp_path):
    (small_ucf / "few.txt").write_text(f"{NAMES['train'][1]} 6 1\n")
    few = PublishedSplit("reference_few", RemoteFile("http://127.0.0.1:9/few.txt", "0" * 64), 1)
    entry = CATALOG["ucf101"]
    CATALOG["ucf101"] = replace(entry, splits=(*entry.splits, few))
    settings = settings_for(tmp_path, downloads_dir=str(small_ucf))
    with pytest.raises(ValueError, match="few.txt: its checksum is not"):
        prepare(settings)
    (small_ucf / "few.txt").unlink()  # an absent one is left out
    assert "reference_few" not in prepare(settings).split_names()


def test_wrong_folder_and_twice_the_same_video(small_ucf, tmp_path):
    common = {"downloads_dir": str(small_ucf)}
    with pytest.raises(ValueError, match="videos_dir: .* is not a folder"):
        prepare(settings_for(tmp_path, videos_dir=str(tmp_path / "none"), **common))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="has no video of UCF-101"):
        prepare(settings_for(tmp_path, videos_dir=str(tmp_path / "empty"), **common))
    for folder in ("one", "two"):
        make_video(tmp_path / "mine" / folder / "v_Hammering_g01_c01.avi")
    with pytest.raises(ValueError, match="is there twice, as one/.* and two/"):
        prepare(settings_for(tmp_path, videos_dir=str(tmp_path / "mine"), **common))


def test_no_videos_to_download_without_registration(tmp_path):
    message = "videos_dir: Mini-Something-Something v2 needs the folder"
    with pytest.raises(ValueError, match=message):
        prepare(settings_for(tmp_path, dataset="mini_ssv2"))


# --- Layouts --------------------------------------------------------------------------------------

CLIPS = ["playing_guitar/aaaaaaaaaaa_000001_000011", "ski_(sport)/-_bbbbbbbbb_000002_000012"]


@pytest.mark.parametrize(
    "files",
    [
        ["aaaaaaaaaaa_000001_000011.mp4", "-_bbbbbbbbb_000002_000012.mp4"],
        [
            "train/playing guitar/aaaaaaaaaaa_000001_000011.mp4",
            "val/x/-_bbbbbbbbb_000002_000012.mp4",
        ],
        ["playing_guitar/aaaaaaaaaaa.mp4", "ski_-sport-/-_bbbbbbbbb_000002_000012.mkv"],
    ],
)
def test_kinetics_layouts(tmp_path, files):
    for file in [*files, "part_0/ccccccccccc_000001_000011.mp4", "notes.txt", ".x/hidden.mp4"]:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes(b"not opened here")
    lists = {"train": [SplitEntry(CLIPS[0], 0), SplitEntry(CLIPS[1], 1)]}
    videos, unknown = match_listed_videos(tmp_path, lists, is_kinetics=True)
    assert videos["name"].tolist() == CLIPS and videos["path"].tolist() == files
    assert videos["class"].tolist() == ["playing_guitar", "ski_(sport)"] and unknown == 1


def test_rawframes_tree_in_place(tmp_path, monkeypatch):
    for name in ("a/one", "b/two"):
        (tmp_path / "rawframes" / name).mkdir(parents=True)
        for number in (1, 2):
            path = tmp_path / "rawframes" / name / f"img_{number:05d}.jpg"
            Image.new("RGB", (32, 24), (90 * number,) * 3).save(path)
    lists = {"train": [SplitEntry("a/one", 0, 2), SplitEntry("b/two", 1, 2)]}
    lists["val"] = lists["train"]
    monkeypatch.setattr(public_datasets, "read_splits", lambda *_: lists)
    root, files = tmp_path / "rawframes", PublishedFiles(tmp_path / "data")
    dataset = index_public_dataset("ucf101", root, files, num_processes=1)
    assert dataset.index["frames"].tolist() == [2, 2]
    assert read_frames(dataset.record(1).path, np.array([1])).mean() == pytest.approx(180, abs=2)


def test_class_order_follows_the_majority_of_labels():
    entries = [SplitEntry(f"climb/{n}", 0) for n in range(3)]
    entries += [SplitEntry("climb/x", 1), SplitEntry("climb_stairs/y", 1), SplitEntry("walk/z", 2)]
    assert class_order({"train": entries}) == ["climb", "climb_stairs", "walk"]
    assert class_order({"train": [SplitEntry("b/1"), SplitEntry("a/2")]}) == ["a", "b"]
    with pytest.raises(ValueError, match="each of 2 classes its own label"):
        class_order({"train": [SplitEntry("a/1", 0), SplitEntry("b/1", 0)]})


# --- Frames as files ------------------------------------------------------------------------------


def test_frames_hold_the_same_pictures_and_boxes_move_with_them(small_ucf, tmp_path):
    dataset = prepare(settings_for(tmp_path, downloads_dir=str(small_ucf)))
    video = read_frames(dataset.record(0).path, np.arange(6))
    box = np.array([[8, 12, 32, 24, 0.9]])
    rows = [FrameRows.stack([box] * 6)] * 4
    names = dataset.index["name"].tolist()
    PersonBoxes.write(dataset.folder, names, [6] * 4, rows, {"method": "x"})
    stored = store_frames(dataset, short_side=24, num_processes=1)
    record = stored.record(0)
    assert (record.width, record.height, record.num_frames) == (32, 24, 6)
    assert record.path == stored.folder / "frames" / NAMES["train"][0]
    frames = read_frames(record.path, np.arange(6))
    assert frames.shape == (6, 24, 32, 3)
    assert frames.mean(axis=(1, 2, 3)) == pytest.approx(video.mean(axis=(1, 2, 3)), abs=1)
    assert PersonBoxes(stored).lookup(0, np.array([2]))[0].tolist() == [[4, 6, 16, 12]]
    again = store_frames(stored, short_side=24)
    assert again.index.equals(stored.index)
    assert stored.read_split("train").tolist() == [0, 1]


def test_frames_at_their_own_size_through_the_settings(small_ucf, tmp_path):
    settings = settings_for(
        tmp_path, downloads_dir=str(small_ucf), storage="frames", frames_short_side=0
    )
    dataset = prepare(settings)
    assert dataset.record(0).path.is_dir() and dataset.record(0).height == 48
    assert prepare(settings).index.equals(dataset.index)


# --- Plans ----------------------------------------------------------------------------------------


def test_plan_without_network_writes_nothing(tmp_path, capsys, monkeypatch):
    def no_network(*_, **__):
        raise AssertionError("a plan opened a connection")

    monkeypatch.setattr("socket.socket.connect", no_network)
    for name in ("ucf101", "hmdb51", "kinetics100", "kinetics400", "mini_ssv2", "synthetic"):
        assert main(["--dataset", name, "--prepared_dir", str(tmp_path / "data"), "--status"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "13,320 videos" in out and "UCF101.rar" in out and "checksum known" in out
    assert "train.csv, no checksum is published" in out
    assert "in all missing missing: split train, split val" in out
    assert not (tmp_path / "data").exists()


def test_plan_adds_up_and_a_full_disk_stops_before_any_work(small_ucf, tmp_path, monkeypatch):
    settings = settings_for(
        tmp_path, downloads_dir=str(small_ucf), storage="frames", frames_short_side=0
    )
    plan = status_of(settings).set_index("part")["details"]
    assert plan["frames"].startswith("720 to write") and "0.02 GB" in plan["in all"]
    monkeypatch.setattr(writing, "free_bytes", lambda _: 1000)
    monkeypatch.setattr("lib.prepare.steps.free_bytes", lambda _: 1000)
    assert "too little room" in status_of(settings).set_index("part")["details"]["in all"]
    with pytest.raises(ValueError, match="prepared_dir: about 0 GB are needed below .*make room"):
        prepare(settings)
    assert not list((tmp_path / "data" / "ucf101").iterdir())


def test_frames_that_do_not_fit_are_not_begun(small_ucf, tmp_path, monkeypatch):
    dataset = prepare(settings_for(tmp_path, downloads_dir=str(small_ucf)))
    monkeypatch.setattr(writing, "free_bytes", lambda _: 1000)
    message = "the frames of 4 videos: about 0 GB.*make room.*keep storage = 'videos'"
    with pytest.raises(ValueError, match=message):
        store_frames(dataset, short_side=24)
    assert not (dataset.folder / "frames").exists()


def test_missing_files_are_found_out_before_any_work(small_ucf, tmp_path):
    for values in (
        {"person_boxes": "yolox", "detector_weights": "none.onnx"},
        {"person_boxes": "import", "boxes_file": "none.csv"},
        {"teacher_scores": "compute", "teacher_weights": "none.pth"},
        {"split_files": ["none.txt"]},
    ):
        settings = settings_for(tmp_path, downloads_dir=str(small_ucf), **values)
        assert "missing" in set(status_of(settings)["state"])
        with pytest.raises(ValueError, match="none.(onnx|csv|pth|txt): (no such|cannot be read)"):
            prepare(settings)
    assert not (tmp_path / "data").exists()


def test_another_folder_is_not_taken_for_the_one_that_was_prepared(small_ucf, tmp_path):
    for name in (NAMES["train"][0], NAMES["val"][1]):
        make_video(tmp_path / "mine" / f"{name}.avi")
    settings = settings_for(
        tmp_path, downloads_dir=str(small_ucf), videos_dir=str(tmp_path / "mine")
    )
    dataset = prepare(settings)
    assert prepare(settings).index.equals(dataset.index)
    other = settings.model_copy(update={"videos_dir": str(tmp_path / "other")})
    with pytest.raises(ValueError, match="was made from .*mine, not from .*other; omit"):
        prepare(other)


@pytest.mark.slow
def test_plan_follows_the_work(small_ucf, tmp_path):
    settings = settings_for(tmp_path, downloads_dir=str(small_ucf), person_boxes="motion")
    plan = status_of(settings).set_index("part")["state"]
    assert plan["split train"] == "there" and plan["extracting"] == "to do"
    prepare(settings)
    text = " ".join(status_text(status_of(settings)).split())
    assert (
        "videos there 4, root" in text
        and "person boxes there made with method motion, stride 4" in text
    )
    assert "in all there nothing to do" in text
    frames = settings.model_copy(update={"storage": "frames", "frames_short_side": 24})
    prepare(frames)
    written = (tmp_path / "data/ucf101/person_boxes.safetensors").stat().st_mtime_ns
    assert set(status_of(frames)["state"]) == {
        "there",
        "optional",
    }  # boxes were scaled, not found anew
    prepare(frames)
    assert (tmp_path / "data/ucf101/person_boxes.safetensors").stat().st_mtime_ns == written


def test_command_line_errors(tmp_path, capsys):
    assert main(["--dataset", "ufc101", "--status"]) == 1
    assert "no data set 'ufc101'" in capsys.readouterr().err
    assert main(["--dataset", "ucf101", "--val_fraction", "2", "--status"]) == 1
    assert "val_fraction" in capsys.readouterr().err
    assert main(["--dataset", "ucf101", "--prepared_dir", str(tmp_path)]) == 1
    assert "set download to true" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (
            OSError(28, "No space left on device"),
            1,
            "No space left on device",
        ),
        (KeyboardInterrupt(), 130, "stopped. Finished parts are kept: run again to continue"),
    ],
)
def test_work_that_ends_early_says_how_to_go_on(tmp_path, capsys, monkeypatch, error, status, said):
    def fail(_):
        raise error

    monkeypatch.setattr("lib.prepare.__main__.prepare", fail)
    assert main(["--dataset", "synthetic", "--prepared_dir", str(tmp_path)]) == status
    assert said in capsys.readouterr().err


def test_folder_of_a_data_set(tmp_path):
    assert dataset_folder("ucf101", None, str(tmp_path)) == tmp_path / "ucf101"
