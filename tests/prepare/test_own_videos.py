"""Own videos: `auto` settings, and splits that keep clips of one source together."""

import json
import re
import shutil
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest

from lib.batch.plan import (
    COMPLETE,
    REFUSED,
    TO_EVALUATE,
    count_videos,
    expand,
    notes_of,
    plan_text,
    read_plan,
    state_of,
)
from lib.config import PROJECT_ROOT, PrepareSettings
from lib.data.dataset import read_dataset
from lib.data.video_reader import FrameReader
from lib.prepare.auto_settings import (
    Hardware,
    VideoStats,
    data_warnings,
    fill_auto,
    video_stats,
)
from lib.prepare.find_videos import find_videos
from lib.prepare.own_folder import groups_by_name, groups_from_file, split_groups
from lib.prepare.steps import open_dataset, prepare
from lib.prepare.synthetic import write_video
from lib.runs.run_dir import RunDir
from lib.train.run_data import load_data, make_streams

RECIPE = dict.fromkeys(
    ("model", "pretrained", "clip_len", "frame_interval", "short_side", "crop_size",
     "test_crop_size", "labeled_batch", "epochs", "num_processes"), "auto",
) | {"objective": "fixmatch", "unlabeled_batch": 16, "labeled_fraction": 0.1}  # fmt: skip


def test_auto_values_follow_videos_and_hardware():
    stats = VideoStats(frames=60, fps=25.0, short_side=144, num_train=72)
    values, reasons = fill_auto(RECIPE, stats, Hardware(has_weights=True, cores=4))
    assert values["model"] == "efficientnet_lite0" and values["pretrained"] is True
    assert values["frame_interval"] == 6  # 0.75 · 60 frames over 8
    assert (values["short_side"], values["crop_size"]) == (160, 140)
    assert values["epochs"] == 25  # 100 steps, 72 // 16 = 4 an epoch
    assert values["num_processes"] == 2
    assert values["unlabeled_batch"] == 16
    assert any("short_side 160" in line and "weights" in line for line in reasons)
    weights = Hardware(has_weights=True)
    probe, _ = fill_auto(RECIPE | {"objective": "linear_probe"}, stats, weights)
    assert (probe["clip_len"], probe["frame_interval"], probe["epochs"]) == (8, 6, 1)
    learned = {"lr": "auto", "freeze_batch_norm": "auto"}
    for objective in ("supervised", "fixmatch"):  # both start from the head of a probe
        run, _ = fill_auto(RECIPE | learned | {"objective": objective}, stats, weights)
        assert (run["lr"], run["freeze_batch_norm"], run["clip_len"]) == (0.001, True, 8)
    small, _ = fill_auto(RECIPE, stats, Hardware())
    assert (small["short_side"], small["crop_size"]) == (96, 84)


def test_auto_values_of_long_and_small_videos():
    values, _ = fill_auto(RECIPE, VideoStats(7000, 25.0, 64), Hardware(has_gpu=True))
    assert values["frame_interval"] == 8
    assert (values["short_side"], values["crop_size"], values["test_crop_size"]) == (64, 56, 56)
    assert (values["model"], values["pretrained"]) == ("r2plus1d_34", False)


def test_set_values_decide_the_auto_values():
    parameters = RECIPE | {"short_side": 200, "model": "r3d_small", "frame_interval": 3}
    values, reasons = fill_auto(parameters, VideoStats(), Hardware(has_weights=True))
    assert (values["short_side"], values["crop_size"], values["frame_interval"]) == (200, 172, 3)
    crop = "crop_size 172, test_crop_size 172: short_side was set; the crop is seven eighths"
    assert crop in reasons
    assert values["pretrained"] is False


def videos_of(counts: dict[str, int], part: str = "") -> pd.DataFrame:
    rows = [
        (part, name, f"{name}/{i}", f"{name}/{i}.avi")
        for name in counts
        for i in range(counts[name])
    ]
    videos = pd.DataFrame(rows, columns=["part", "class", "name", "path"])
    return videos.assign(start_s=np.nan, end_s=np.nan)


def test_video_stats_ignore_metadata_that_is_not_text(tmp_path):
    path, comment = tmp_path / "a.mkv", "comment of thirty characters.."
    with av.open(str(path), "w") as container:
        container.metadata["comment"] = comment
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "bgr0"
        for _ in range(6):
            container.mux(stream.encode(av.VideoFrame(64, 48, "bgr0")))
        container.mux(stream.encode())
    path.write_bytes(path.read_bytes().replace(comment.encode(), b"\xff" * len(comment)))
    videos = videos_of({"a": 1}).assign(path="a.mkv")
    stats = video_stats(videos, tmp_path)
    assert (stats.frames, stats.fps, stats.short_side) == (6, 10.0, 48)


def test_data_warnings_before_a_run():
    with pytest.raises(ValueError, match="one class, 'walk'; add a folder"):
        data_warnings(videos_of({"walk": 9}), {}, VideoStats())
    few, small = data_warnings(
        videos_of({"walk": 20, "run": 100}), {"short_side": 96}, VideoStats(short_side=360)
    )
    assert few.startswith("only 4 validation videos of 'walk' and 24 in total: one video is 4.2")
    assert "360 pixels are scaled to 96" in small
    assert data_warnings(videos_of({"a": 50, "b": 60}), {"short_side": 200}, VideoStats()) == []


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("own") / "videos"
    for name in ("a/s1_c1", "a/s1_c2", "a/s2_c1", "b/s1_c3", "b/s3_c1", "b/s4_c1"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_video(folder / f"{name}.avi", np.full((6, 48, 64, 3), 90, dtype=np.uint8), fps=10)
    return folder


def test_video_stats_from_headers(root):
    stats = video_stats(find_videos(root).videos, root)
    assert stats.frames == 6 and stats.num_train == 4


def test_plan_resolves_auto_values(root, tmp_path):
    grid = {
        "videos_dir": [str(root)],
        "run_dir": [str(tmp_path / "run")],
        "seeds": [0],
        "model": ["r3d_small"],
    }
    runs = read_plan([PROJECT_ROOT / "params/folder/semi.yaml"], grid)
    assert runs[0].settings.model == "r3d_small" and runs[0].settings.epochs >= 140
    assert "auto" not in [v for k, v in runs[0].parameters.items() if k != "device"]
    assert any("frame_interval 1" in note for note in notes_of(runs))
    (tmp_path / "run_seed0").mkdir()
    (tmp_path / "run_seed0" / "params.yaml").write_text(
        runs[0].settings.model_copy(update={"epochs": 7}).as_yaml()
    )
    begun = read_plan([PROJECT_ROOT / "params/folder/semi.yaml"], grid)
    assert begun[0].settings.epochs == 7 and begun[0].notes == ()


def test_a_wrong_value_is_named_before_others_follow_from_it(root):
    grid = {"videos_dir": [str(root)], "epochs": ["many"], "clip_len": [0]}
    with pytest.raises(ValueError, match=r"semi\.yaml: settings that cannot be used") as error:
        read_plan([PROJECT_ROOT / "params/folder/semi.yaml"], grid)
    lines = str(error.value).splitlines()[1:]
    assert [line.split(":")[0].strip() for line in lines] == ["clip_len", "epochs"]


def test_linear_probe_ignores_epochs_of_the_study(root, tmp_path):
    grid = {
        "videos_dir": [str(root)],
        "epochs": [3],
        "objective": ["linear_probe"],
        "pretrained": [True],
    }
    (run,) = read_plan([PROJECT_ROOT / "params/folder/probe.yaml"], grid)
    assert run.settings.epochs == 1
    assert "epochs 1: a probe has one; the value that was set is for the other runs" in run.notes


@pytest.mark.parametrize(
    "stems, sources",
    [
        (["v_Dive_g01_c01", "v_Dive_g01_c02", "v_Dive_g02_c01"], 2),
        (["tape-3_clip1", "tape-3_clip2", "tape-4_clip1"], 2),
        (["abc_000012_000022", "abc_000032_000042", "xyz_000001_000011"], 2),
        (["walk_01", "walk_02", "walk_03"], 3),  # the numbers only count videos
        (["one", "two", "three"], 3),
        (["1", "2", "3"], 3),
        (["VID_1001", "VID_1002", "IMG_1003"], 3),  # words of a camera are no source
        (["PXL_20230101_120000", "20230102_130000", "MVI_0001"], 3),
        (["WhatsApp Video 2023-01-01 at 10.11.12", "GOPR0001", "DSC_0002"], 3),
        (["Alien_1", "Alien_2", "Heat_1"], 2),
    ],
)
def test_groups_by_name(stems, sources):
    names = pd.Series([f"k/{stem}" for stem in stems])
    assert groups_by_name(names, pd.Series(["k"] * len(stems))).nunique() == sources


def test_split_keeps_groups_together_and_class_shares():
    generator = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 100)
    groups = labels * 1000 + generator.integers(0, 20, len(labels))
    val = split_groups(labels, groups, 0.2, seed=3)
    assert not set(groups[val]) & set(groups[~val])
    assert all(14 <= val[labels == label].sum() <= 26 for label in range(3))


def test_split_without_groups_draws_a_fixed_number_per_class():
    labels = np.repeat([0, 1], [10, 4])
    val = split_groups(labels, np.arange(14), 0.2, seed=0)
    order = np.random.default_rng([0, 0]).permutation(10)
    assert set(np.flatnonzero(val[:10])) == set(order[:2]) and val[10:].sum() == 1


def test_split_takes_a_large_group_only_without_alternative():
    labels = np.zeros(12, dtype=int)
    assert split_groups(labels, np.repeat([0, 1], 6), 0.1, seed=0).sum() == 6
    assert split_groups(labels, np.zeros(12, dtype=int), 0.1, seed=0).sum() == 0


def test_split_finds_a_group_for_a_class_whose_groups_are_decided():
    labels = np.array([0, 0, 0, 1, 1])
    groups = np.array(["p", "q", "r", "p", "q"])
    for seed in range(8):
        val = split_groups(labels, groups, 0.3, seed)
        assert set(labels[val]) == set(labels[~val]) == {0, 1}
        assert not set(groups[val]) & set(groups[~val])


def test_prepared_folder_keeps_groups_of_a_file_together(root, tmp_path, capsys):
    table = tmp_path / "groups.csv"
    table.write_text(
        "name,group\na/s1_c1.avi,x\na/s1_c2,x\na/s2_c1,y\nb/s1_c3,x\nb/s3_c1,z\nb/s4_c1,z\n"
    )
    settings = PrepareSettings(
        dataset="folder", videos_dir=str(root), prepared_dir=str(tmp_path / "data"),
        groups_file=str(table), num_processes=1,
    )  # fmt: skip
    dataset = prepare(settings)
    printed = capsys.readouterr().out
    assert "3 groups of clips" in printed
    sides = [set(dataset.index["name"].iloc[dataset.read_split(part)]) for part in ("train", "val")]
    assert sorted(map(len, sides)) == [3, 3] and {"a/s1_c1", "a/s1_c2", "b/s1_c3"} in sides
    again = read_dataset(dataset.folder)
    assert pd.read_csv(again.folder / "groups.csv")["group"].nunique() == 3


@pytest.mark.parametrize(
    "text, problem",
    [
        ("video,group\na/x,1\n", "no column"),
        ("name,group\na/x,1\n", "1 of 2 videos have no group"),
        ("name,group\na/x,1\na/x.avi,2\n", "more than once"),
    ],
)
def test_malformed_groups_file_is_refused(tmp_path, text, problem):
    path = tmp_path / "groups.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"groups_file.*{problem}"):
        groups_from_file(path, pd.Series(["a/x", "a/y"]))


def test_test_protocol_may_change_after_training(tmp_path):
    file = PROJECT_ROOT / "params/demo/supervised.yaml"
    grid = {"run_dir": [str(tmp_path)], "seed": [0]}
    begun = read_plan([file], grid)[0]
    run = RunDir(tmp_path)
    run.params_path.write_text(begun.settings.as_yaml())
    run.save({"model": {}, "step": 1, "epoch": begun.settings.epochs})
    result = {"top1": 50.0, "top5": 90.0, "mean_class_accuracy": 50.0, "videos": 4}
    protocol = {k: v for k, v in begun.settings.model_dump().items() if k.startswith("test_")}
    metrics = {"protocol": protocol, "labels": 2, "splits": {"val": result}}
    run.metrics_path.write_text(json.dumps(metrics))
    assert state_of(begun) == (COMPLETE, "")
    other = read_plan([file], grid | {"test_splits": [["val", "train"]], "test_num_clips": [7]})[0]
    assert state_of(other) == (TO_EVALUATE, "")
    run.start(other.settings)
    assert run.settings() == other.settings
    assert state_of(read_plan([file], grid | {"lr": [9.0]})[0])[0] == REFUSED


@pytest.fixture(scope="module")
def long_videos(tmp_path_factory) -> Path:
    """Two videos of 40 frames, 10 a second, whose gray value is 5 times the frame number."""
    folder = tmp_path_factory.mktemp("long") / "videos"
    folder.mkdir()
    gray = 5 * np.arange(40, dtype=np.uint8)
    frames = np.broadcast_to(gray[:, None, None, None], (40, 48, 64, 3))
    for name in ("day1", "day2"):
        write_video(folder / f"{name}.avi", np.ascontiguousarray(frames), fps=10)
    rows = [f"{day},{k},{k + 0.8},{'ab'[k % 2]}" for day in ("day1", "day2") for k in range(3)]
    rows += ["day1,3,4,", "day2,3,9,", "day1,7,8,a"]
    (folder / "segments.csv").write_text("\n".join(["video,start_s,end_s,class", *rows]))
    return folder


def test_segments_are_units_of_their_own_frames(long_videos, tmp_path, capsys):
    settings = PrepareSettings(
        dataset="folder", videos_dir=str(long_videos), prepared_dir=str(tmp_path / "data"),
        num_processes=1,
    )  # fmt: skip
    dataset = prepare(settings)
    assert "segment 7 to 8 s: the video has 40 frames, 10 a second" in capsys.readouterr().out
    index = dataset.index.set_index("name")
    assert index.loc["day1@2.00-2.80", ["first_frame", "frames", "class"]].tolist() == [20, 8, "a"]
    assert index.loc["day2@3.00-9.00", ["first_frame", "frames", "label"]].tolist() == [30, 10, -1]
    record = dataset.record(dataset.index["name"].tolist().index("day1@2.00-2.80"))
    for reader in (FrameReader(), FrameReader(dataset, 100)):
        frames = reader.read(record, np.array([0, 3, 7]))
        assert np.abs(frames.mean((1, 2, 3)) - [100, 115, 135]).max() < 3
    train, val = (set(dataset.index["name"].iloc[dataset.read_split(s)]) for s in ("train", "val"))
    sources = [{name.split("@")[0] for name in names} for names in (train, val)]
    assert not sources[0] & sources[1], "segments of one video stay on one side"
    assert not any(name.endswith("@3.00-9.00") or "@3.00-4.00" in name for name in val)


def test_a_run_uses_all_labels_and_the_unlabeled_videos(root, tmp_path):
    folder = tmp_path / "videos"
    shutil.copytree(root, folder)
    (folder / "unlabeled").mkdir()
    for name in ("x", "y", "z"):
        shutil.copy(root / "a/s1_c1.avi", folder / "unlabeled" / f"{name}.avi")
    grid = {
        "videos_dir": [str(folder)],
        "prepared_dir": [str(tmp_path / "data")],
        "model": ["r3d_small"],
        "pretrained": [False],
    }
    (planned,) = read_plan([PROJECT_ROOT / "params/folder/semi.yaml"], grid)
    assert planned.settings.run_dir == "outputs/videos/semi_seed0"
    before = count_videos(planned.settings)
    assert before == (4, 3, 2) and "4 labeled, 3 unlabeled, 2 for val" in plan_text([planned])
    dataset = open_dataset("folder", str(folder), str(tmp_path / "data"))
    labels = dataset.index["label"].to_numpy()
    data = load_data(planned.settings)
    assert sum(count_videos(planned.settings)) == 9
    assert (labels[data.labeled_rows] >= 0).all() and (labels[data.val_rows] >= 0).all()
    assert (labels[data.other_rows] == -1).all() and len(data.other_rows) == 3
    assert set(data.labeled_rows) | set(data.other_rows) == set(data.unlabeled_rows)
    _, unlabeled = make_streams(planned.settings, data)
    assert not unlabeled.clips.has_labels  # no accuracy of pseudo-labels from labeled videos
    with pytest.raises(ValueError, match="3 of its videos have no label"):
        dataset.read_labeled_split("train")


def test_a_second_folder_of_the_same_name_gets_outputs_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr("lib.config.PROJECT_ROOT", tmp_path)
    first, second = tmp_path / "one/videos", tmp_path / "two/videos"
    for folder in (first, second):
        folder.mkdir(parents=True)
    values = {"run_dir": "outputs/folder/semi", "dataset": "folder"}
    (run,) = expand(values | {"videos_dir": str(first)}, {})
    assert run["run_dir"] == "outputs/videos/semi"
    folder = tmp_path / run["run_dir"]
    folder.mkdir(parents=True)
    (folder / "params.yaml").write_text(f"videos_dir: {first}\n")
    (again,) = expand(values | {"videos_dir": str(first)}, {})
    (other,) = expand(values | {"videos_dir": str(second)}, {})
    assert again["run_dir"] == run["run_dir"]
    assert re.fullmatch(r"outputs/videos-[0-9a-f]{6}/semi", other["run_dir"])
