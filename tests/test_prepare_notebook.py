"""Notebook 1 on real footage, by papermill; small parts of it, so that it takes seconds."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from lib.data.dataset import VideoDataset, read_dataset
from lib.data.frame_tables import PersonBoxes
from lib.data.video_reader import read_frames
from lib.prepare.person_boxes import box_statistics


def link(root: Path, videos: Mapping[str, Sequence[Path]]) -> Path:
    """Make a folder of links to videos, by the folder that each belongs to."""
    for folder, paths in videos.items():
        (root / folder).mkdir(parents=True)
        for path in paths:
            (root / folder / path.name).symlink_to(path)
    return root


@pytest.fixture
def run(execute_warm, tmp_path) -> Callable[..., tuple[VideoDataset, str]]:
    """Execute the notebook on a folder; return the data set that it made and its outputs."""

    def execute(root: Path, **parameters) -> tuple[VideoDataset, str]:
        values = {"dataset": "folder", "videos_dir": str(root)}
        values["prepared_dir"] = str(tmp_path / "data")
        values["num_processes"] = 1  # each takes longer to start than these few videos
        executed = tmp_path / "executed.ipynb"
        execute_warm("1_prepare_data.ipynb", executed, values | parameters)
        outputs = [c.get("outputs", []) for c in json.loads(executed.read_text())["cells"]]
        (folder,) = (tmp_path / "data").glob("folder-*")
        return read_dataset(folder), json.dumps(outputs)

    return execute


@pytest.mark.slow
def test_weizmann_with_people_found_by_the_detector(shared, run, tmp_path):
    source, weights = shared("data/weizmann"), shared("weights/yolox_nano.onnx")
    actions = ("jack", "walk")
    videos = {action: sorted((source / action).iterdir())[:2] for action in actions}
    dataset, outputs = run(
        link(tmp_path / "weizmann", videos),
        person_boxes="yolox",
        detector_weights=str(weights),
        detector_stride=8,
        labeled_counts=[1],
    )
    assert outputs.count('"image/png"') == 4  # classes, lengths, pictures with boxes, statistics
    assert dataset.classes == actions and len(dataset.index) == 4
    assert len(dataset.read_split("train_1perclass_seed0")) == 2
    statistics = box_statistics(dataset)
    assert (statistics["frames_with_person"] > 0.7).all()
    assert statistics["box_area"].between(0.02, 0.25).all()


@pytest.mark.slow
def test_footage_too_small_for_a_detector(shared, run, tmp_path):
    source, actions = shared("data/ucf101_10"), ("Bowling", "Diving", "Rowing")
    parts = {
        f"{part}/{action}": sorted((source / part / action).iterdir())[:count]
        for part, count in (("train", 5), ("val", 2))
        for action in actions
    }
    root = link(tmp_path / "ucf101_10", parts)
    dataset, outputs = run(root, labeled_counts=[1, 2])
    assert outputs.count('"image/png"') == 3 and "no person boxes" in outputs
    assert dataset.classes == actions
    assert [len(dataset.read_split(name)) for name in ("train", "val")] == [15, 6]
    few, more = (set(dataset.read_split(f"train_{n}perclass_seed0")) for n in (1, 2))
    assert few < more < set(dataset.read_split("train"))


@pytest.mark.slow
def test_full_size_clips_of_three_data_sets_stored_as_frames(shared, run, tmp_path):
    clips = sorted(shared("data/clips").iterdir())
    videos = {"mp4": [p for p in clips if p.suffix == ".mp4"][-2:]}
    videos["avi"] = [p for p in clips if "cartwheel" in p.name or "v_Basketball" in p.name]
    dataset, outputs = run(
        link(tmp_path / "clips", videos),
        storage="frames",
        frames_short_side=128,
        person_boxes="motion",
        detector_stride=8,
    )
    assert outputs.count('"image/png"') == 4
    assert (dataset.index[["width", "height"]].min(axis=1) == 128).all()
    record = dataset.record(len(dataset.index) - 1)
    assert record.path.is_dir()
    original = tmp_path / "clips" / f"{record.name}.mp4"
    last = np.array([record.num_frames - 1])
    means = [read_frames(path, last).mean() for path in (record.path, original)]
    assert means[0] == pytest.approx(means[1], abs=2)
    assert len(PersonBoxes(dataset).lookup(record.row, last)) == 1
