"""Person boxes: the detector's arithmetic, motion, interpolation, storage and exchange."""

import pickle
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from torchvision.ops import box_iou

from lib.config import PROJECT_ROOT, PrepareSettings
from lib.data.dataset import VideoDataset, write_dataset, write_split
from lib.data.frame_tables import (
    PERSON_BOXES_FILE,
    FrameRows,
    PersonBoxes,
    read_made_with,
)
from lib.data.video_reader import read_frames
from lib.prepare import parallel
from lib.prepare.own_folder import index_folder
from lib.prepare.person_boxes import (
    YoloxDetector,
    box_statistics,
    detect_motion,
    detect_persons,
    grid_cells,
    import_boxes,
    interpolate_boxes,
    key_frames,
    letterbox,
    match_boxes,
    moving_boxes,
    yolox_made_with,
)
from lib.prepare.steps import Preparation, prepare
from lib.prepare.synthetic import render_video, write_video

SHARED = PROJECT_ROOT.parent / "shared"
WEIGHTS = SHARED / "weights" / "yolox_nano.onnx"
needs_weights = pytest.mark.skipif(
    not WEIGHTS.is_file(), reason=f"no detector in {WEIGHTS}; it is not part of the project"
)


def iou(first, second) -> float:
    pair = (torch.tensor(np.array(box), dtype=torch.float64)[None] for box in (first, second))
    return box_iou(*pair).item()


def dataset_of(folder, frames=(4, 3), names=("a/one", "b/two"), name="folder") -> VideoDataset:
    index = pd.DataFrame({"name": names, "path": names, "frames": frames})
    index["class"] = [text.split("/")[0] for text in names]
    index["label"], index["fps"], index["width"], index["height"] = range(len(names)), 10, 64, 48
    return write_dataset(folder, name, sorted(index["class"]), folder, index, {})


# --- Detector -------------------------------------------------------------------------------------


def test_letterbox_scales_pads_and_converts_to_bgr():
    frame = np.zeros((10, 20, 3), np.uint8)
    frame[..., 0] = 200  # red
    image = letterbox(frame, (40, 40))
    assert image.shape == (3, 40, 40) and image.dtype == np.float32
    assert (image[:, 20:] == 114).all()
    assert (image[2, :20] == 200).all() and (image[:2, :20] == 0).all()


def test_grid_cells_and_strides():
    cells, strides = grid_cells((416, 416))
    assert len(cells) == len(strides) == 3549
    assert cells[53].tolist() == [1, 1] and strides[53] == 8
    assert cells[-1].tolist() == [12, 12] and strides[-1] == 32


def test_overlapping_detections_are_suppressed(tmp_path):
    """Cells of 8 pixels; 3 detections, of which the second overlaps the first by 90 / 110."""
    (tmp_path / "any.onnx").touch()
    raw = np.zeros((3549, 85), np.float32)
    for cell, score, offset in ((0, 0.8, 0.0), (1, 0.9, -0.875), (9, 0.5, 0.0)):
        raw[cell, :4] = 1 + offset, 1, np.log(10 / 8), np.log(10 / 8)
        raw[cell, 4:6] = score, 1
    boxes = YoloxDetector(tmp_path / "any.onnx")._decode(raw, (416, 416), (416, 416))
    assert boxes[:, 4] == pytest.approx([0.9, 0.5])
    assert boxes[0, :4] == pytest.approx([4, 3, 14, 13], abs=1e-4)
    assert boxes[1, :4] == pytest.approx([75, 3, 85, 13], abs=1e-4)


def test_missing_or_malformed_detector_weights(tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"no network")
    for name in ("none.onnx", "bad.onnx"):
        with pytest.raises(ValueError, match=f"{name}: not an ONNX network"):
            _ = YoloxDetector(tmp_path / name).session


@needs_weights
def test_detector_survives_pickling_and_tiny_frames():
    detector = pickle.loads(pickle.dumps(YoloxDetector(WEIGHTS)))
    found = detector.detect(np.full((2, 3, 5, 3), 90, np.uint8))
    assert [boxes.shape[1] for boxes in found] == [5, 5]


def test_settings_of_boxes_that_exclude_each_other(tmp_path):
    with pytest.raises(ValueError, match="boxes_file go together"):
        PrepareSettings(person_boxes="import")
    with pytest.raises(ValueError, match="detector_weights is for person_boxes 'yolox'"):
        PrepareSettings(detector_weights="x.onnx")
    settings = PrepareSettings(person_boxes="yolox", prepared_dir=str(tmp_path))
    with pytest.raises(ValueError, match="weights/yolox_nano.onnx: not there; set download"):
        Preparation(settings).weights_file("detector", allowed=False)


# --- Motion ---------------------------------------------------------------------------------------


def test_moving_boxes_surround_the_moving_region():
    frames = np.full((9, 60, 100, 3), 90, np.uint8)
    for t in range(8):  # the last frame shows nothing
        frames[t, 20:40, 10 * t : 10 * t + 16] = 200
    boxes = moving_boxes(frames)
    assert boxes[8].shape == (0, 5)
    for t in range(8):
        assert iou(boxes[t][0, :4], [10 * t, 20, 10 * t + 16, 40]) > 0.6
        assert 0.5 <= boxes[t][0, 4] <= 1
    assert moving_boxes(frames[:1])[0].shape == (0, 5)


# --- Between key frames ---------------------------------------------------------------------------


def test_boxes_are_interpolated_between_key_frames():
    assert key_frames(10, 4).tolist() == [0, 4, 8, 9]
    assert key_frames(1, 4).tolist() == [0]
    first = np.array([[0, 0, 10, 10, 0.8], [50, 0, 60, 10, 0.5]])
    second = np.array([[200, 0, 210, 10, 0.3], [4, 4, 14, 14, 0.4]])
    result = interpolate_boxes(np.array([0, 4, 5]), [first, second, np.zeros((0, 5))])
    by_frame = [result.rows[result.frames == t] for t in range(6)]
    assert by_frame[2][0] == pytest.approx([2, 2, 12, 12, 0.6])
    assert [len(boxes) for boxes in by_frame] == [2, 2, 2, 2, 2, 0]
    assert by_frame[1][1] == pytest.approx(first[1]) and by_frame[3][1] == pytest.approx(second[0])
    assert match_boxes(first, np.zeros((0, 5))).shape == (0, 2)


def test_matching_of_boxes_without_overlap():
    boxes = np.array([[0, 0, 10, 10], [10, 0, 20, 10], [20, 0, 30, 10], [40, 0, 50, 10]], float)
    assert match_boxes(boxes[:1], boxes[2:3]).tolist() == [[0, 0]]
    assert match_boxes(boxes[:1], boxes[3:]).tolist() == []
    assert match_boxes(np.zeros((1, 4)), np.zeros((2, 4))).tolist() == []  # without area


def test_interpolation_without_boxes():
    result = interpolate_boxes(np.array([0, 3]), [np.zeros((0, 5))] * 2)
    assert result.rows.shape == (0, 5) and result.frames.shape == (0,)


# --- Work that continues --------------------------------------------------------------------------


@pytest.fixture
def moving_dataset(tmp_path) -> VideoDataset:
    """Four synthetic videos whose camera and scene stand still enough for `motion`."""
    for number in range(4):
        frames, _ = render_video("sway", "lawn", np.random.default_rng(number))
        write_video(tmp_path / "videos" / "ab"[number % 2] / f"{number}.mp4", frames, 10)
    return index_folder(tmp_path / "videos", tmp_path / "data", 0.5, 0, 1)


@pytest.mark.slow
def test_motion_boxes_continue_after_interruption(moving_dataset, monkeypatch):
    detect_motion(moving_dataset, stride=16, num_processes=2)
    boxes = PersonBoxes(moving_dataset)
    assert len(boxes.lookup(0, np.arange(32))) == 32
    assert read_made_with(moving_dataset.folder / PERSON_BOXES_FILE) == {
        "method": "motion",
        "stride": 16,
    }

    asked = []
    real = parallel.map_in_workers

    def stopped_after_two(function, records, *rest):
        asked.append(len(records))
        for number, outcome in enumerate(real(function, records, *rest)):
            if number == 2 and len(asked) == 1:
                raise KeyboardInterrupt
            yield outcome

    monkeypatch.setattr(parallel, "map_in_workers", stopped_after_two)
    with pytest.raises(KeyboardInterrupt):
        detect_motion(moving_dataset, stride=8, num_processes=1)
    detect_motion(moving_dataset, stride=8, num_processes=1)
    assert asked == [4, 2]
    assert not list(moving_dataset.folder.glob("unfinished-*"))


@pytest.mark.slow
def test_missing_video_is_named(moving_dataset):
    moving_dataset.record(1).path.unlink()
    with pytest.raises(ValueError, match=r"1 of 4 .*the first: a/2.*no such video file"):
        detect_motion(moving_dataset, stride=16, num_processes=1)
    assert list(moving_dataset.folder.glob("unfinished-*"))


def test_box_statistics(tmp_path):
    dataset = dataset_of(tmp_path)
    half = np.array([[0, 0, 32, 48, 0.9], [0, 0, 32, 24, 0.8], [0, 0, 64, 48, 0.2]])
    none = np.zeros((0, 5))
    rows = map(FrameRows.stack, [[half, none, none, half], [none] * 3])
    PersonBoxes.write(tmp_path, ["a/one", "b/two"], [4, 3], rows)
    table = box_statistics(dataset)
    assert table["frames_with_person"].tolist() == [0.5, 0]
    assert table["boxes_per_frame"].tolist() == [1, 0]
    assert table["box_area"].tolist() == [0.5, 0]
    assert table["vanishes"].tolist() == table["several"].tolist() == [True, False]
    assert table["score"].tolist() == pytest.approx([0.85, np.nan], nan_ok=True)
    assert box_statistics(dataset, min_score=0.85)["several"].tolist() == [False, False]


# --- Imported tables ------------------------------------------------------------------------------


def test_import_of_the_reference_by_the_code_of_the_guide(tmp_path, capsys, monkeypatch):
    boxes = np.array([[1, 2, 30, 40, 0.9], [5, 5, 9, 9, 0.2]])
    table = {"one": {1: boxes, 3: np.zeros((0, 5)), 9: boxes}, "two": {2: boxes[:1]}, "three": {}}
    np.save(tmp_path / "detections.npy", np.array(table, dtype=object))
    dataset = dataset_of(tmp_path / "data" / "ucf101")
    monkeypatch.chdir(tmp_path)
    guide = (PROJECT_ROOT / "docs" / "data_sets.md").read_text(encoding="utf-8")
    exec(guide.split("```python\n")[1].split("```")[0], {})
    import_boxes(dataset, tmp_path / "boxes.csv")
    assert "2 of 5 rows are of other videos or frames" in capsys.readouterr().out
    found = PersonBoxes(dataset).lookup_scored(0, np.arange(4))
    assert [len(frame) for frame in found] == [2, 0, 0, 0] and found[0] == pytest.approx(boxes)
    assert [len(x) for x in PersonBoxes(dataset).lookup(1, np.arange(3), 0.4)] == [0, 1, 0]


def test_imported_boxes_without_scores_count(tmp_path):
    dataset, path = dataset_of(tmp_path), tmp_path / "boxes.csv"
    path.write_text("name,frame,x1,y1,x2,y2\nb/two,1,3,4,9,9\nb/two,0,1,2,5,6\n")
    import_boxes(dataset, path)
    found = PersonBoxes(dataset).lookup(1, np.arange(3), min_score=0.9)
    assert [boxes.tolist() for boxes in found] == [[[1, 2, 5, 6]], [[3, 4, 9, 9]], []]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "boxes.csv: damaged .*; give a CSV table with the columns name, frame"),
        ("name,frame,x1\na/one,0,1\n", "boxes.csv: damaged .*not in index"),
        ("name,frame,x1,y1,x2,y2\na/one,0,1,1,,2\n", "a number is missing"),
        ("name,frame,x1,y1,x2,y2\na/one,0,1,1,x,2\n", "boxes.csv: damaged .*'x'"),
        ("name,frame,x1,y1,x2,y2\none,0,1,1,2,2\n", "such as frame 0 of 'a/one'"),
        ("name,frame,x1,y1,x2,y2\na/one,0,1,1,99,2\n", "boxes of a/one lie outside of its frames"),
    ],
)
def test_unusable_tables_of_boxes_are_refused(tmp_path, text, message):
    path = tmp_path / "boxes.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        import_boxes(dataset_of(tmp_path / "data"), path)


def test_existing_boxes_need_no_detector(tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"no network")
    settings = PrepareSettings(
        person_boxes="yolox",
        detector_weights=str(tmp_path / "bad.onnx"),
        prepared_dir=str(tmp_path),
    )
    dataset = dataset_of(tmp_path / "synthetic")
    for name in ("train", "val"):
        write_split(dataset, name, [0])
    with pytest.raises(ValueError, match="bad.onnx: not an ONNX network"):
        prepare(settings)
    names, rows = dataset.index["name"].tolist(), [FrameRows.stack([np.zeros((0, 5))])] * 2
    made_with = yolox_made_with(tmp_path / "bad.onnx", 4)
    PersonBoxes.write(dataset.folder, names, [4, 3], rows, made_with)
    prepare(settings)


# --- Real people ----------------------------------------------------------------------------------


@pytest.mark.slow
@needs_weights
def test_detector_finds_real_people(tmp_path):
    source = SHARED / "data" / "weizmann"
    for action in ("jack", "run"):
        (tmp_path / "videos" / action).mkdir(parents=True)
        for person in ("daria", "ido"):
            name = f"{person}_{action}.avi"
            shutil.copyfile(source / action / name, tmp_path / "videos" / action / name)
    dataset = index_folder(tmp_path / "videos", tmp_path / "data", 0.5, 0, 1)
    detect_persons(dataset, WEIGHTS, stride=8, num_processes=2)
    table = box_statistics(dataset, min_score=0.4)
    assert (table["frames_with_person"] > 0.8).all()
    assert table["box_area"].between(0.01, 0.2).all()

    yolox = PersonBoxes(dataset)
    jack = int(np.flatnonzero(dataset.index["name"] == "jack/daria_jack")[0])
    record = dataset.record(jack)
    frames = read_frames(record.path, np.arange(0, record.num_frames, 4))
    moving = moving_boxes(frames)
    overlaps = [
        iou(box[0, :4], person[0])
        for box, person in zip(moving, yolox.lookup(jack, np.arange(0, 84, 4), 0.4), strict=False)
        if len(box) and len(person)
    ]
    assert len(overlaps) > 10 and np.mean(overlaps) > 0.5
