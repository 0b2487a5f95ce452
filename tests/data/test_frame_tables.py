import pickle

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from lib.data.dataset import write_dataset
from lib.data.frame_tables import (
    PERSON_BOXES_FILE,
    FrameRows,
    PersonBoxes,
)


def box(video: int, frame: int, number: int = 0, score: float = 0.9) -> list[float]:
    return [video, frame, number + 10, frame + 20.5, score]


# Video 0 has two boxes in frame 1 and none in frame 2; video 1 has none at all.
BOXES = [
    [[box(0, 0)], [box(0, 1), box(0, 1, 1, 0.4)], [], [box(0, 3, 0, 0.41)]],
    [[], []],
    [[box(2, 0)], [box(2, 1)], [box(2, 2)]],
]


def write_boxes(folder, names, boxes) -> None:
    rows = [FrameRows.stack([np.array(frame).reshape(-1, 5) for frame in video]) for video in boxes]
    PersonBoxes.write(folder, names, [len(video) for video in boxes], rows)


@pytest.fixture
def dataset(tmp_path):
    names = ["a/v0", "a/ü 1", "b/v2"]
    index = pd.DataFrame(
        {
            "name": names,
            "path": names,
            "class": ["a", "a", "b"],
            "label": [0, 0, 1],
            "frames": [len(video) for video in BOXES],
            "fps": 25.0,
            "width": 100,
            "height": 80,
        }
    )
    write_boxes(tmp_path, names, BOXES)
    return write_dataset(tmp_path, "mine", ["a", "b"], tmp_path, index, {})


def expected(video: int, frames: list[int], min_score: float = 0.0) -> list[np.ndarray]:
    return [
        np.array([b[:4] for b in BOXES[video][frame] if b[4] > min_score]).reshape(-1, 4)
        for frame in frames
    ]


@pytest.mark.parametrize("frames", [[0], [1, 3], [3, 1, 1, 0], [2], [2, 2], [0, 1, 2, 3]])
def test_the_boxes_of_the_asked_frames_come_back(dataset, frames):
    found = PersonBoxes(dataset).lookup(0, np.array(frames))
    assert len(found) == len(frames)
    for have, want in zip(found, expected(0, frames), strict=True):
        assert have.shape == want.shape
        np.testing.assert_allclose(have, want, rtol=1e-6)


def test_a_video_between_others_may_have_no_box(dataset):
    assert [boxes.shape for boxes in PersonBoxes(dataset).lookup(1, np.array([0, 1]))] == [
        (0, 4)
    ] * 2


@pytest.mark.parametrize(
    "boxes", [[BOXES[0], [[], []], [[], [], []]], [[[]] * 4, [[]] * 2, [[]] * 3]]
)
def test_the_last_video_or_all_may_have_no_box(dataset, boxes):
    write_boxes(dataset.folder, dataset.index["name"].tolist(), boxes)
    boxes = PersonBoxes(dataset)
    assert [frame.shape for frame in boxes.lookup(2, np.array([0, 2]))] == [(0, 4)] * 2
    assert [frame.shape for frame in boxes.lookup(1, np.array([1]))] == [(0, 4)]


def test_scores_must_be_above_the_smallest_one(dataset):
    boxes = PersonBoxes(dataset)
    counts = {
        score: [len(boxes) for boxes in boxes.lookup(0, np.array([1, 3]), score)]
        for score in (0.3, 0.4001, 0.42, 0.9001)
    }
    assert counts == {0.3: [2, 1], 0.4001: [1, 1], 0.42: [1, 0], 0.9001: [0, 0]}


def test_videos_are_found_by_name_whatever_the_order_of_the_file(dataset):
    names = dataset.index["name"].tolist()
    order = [2, 0, 1]
    names_in_file = ["b/extra", *(names[i] for i in order)]
    write_boxes(dataset.folder, names_in_file, [BOXES[0], *(BOXES[i] for i in order)])
    boxes = PersonBoxes(dataset)
    np.testing.assert_allclose(boxes.lookup(2, np.array([2]))[0], expected(2, [2])[0])
    np.testing.assert_allclose(boxes.lookup(0, np.array([0]))[0], expected(0, [0])[0])


def test_it_can_be_sent_to_another_process_after_use(dataset):
    boxes = PersonBoxes(dataset)
    boxes.lookup(0, np.array([0]))
    again = pickle.loads(pickle.dumps(boxes))
    np.testing.assert_allclose(again.lookup(2, np.array([1]))[0], expected(2, [1])[0])


def test_the_file_holds_the_documented_arrays(dataset):
    tensors = load_file(dataset.folder / PERSON_BOXES_FILE)
    assert tensors["boxes"].shape == (7, 5) and tensors["boxes"].dtype == np.float32
    assert tensors["frames"].tolist() == [0, 1, 1, 3, 0, 1, 2]
    assert tensors["frames"].dtype == np.int32
    assert tensors["video_offsets"].tolist() == [0, 4, 4, 7]
    assert tensors["num_frames"].tolist() == [4, 2, 3]
    assert tensors["names"].tobytes().decode() == "a/v0\na/ü 1\nb/v2"


def test_a_missing_file_is_named_with_the_remedy(dataset):
    (dataset.folder / PERSON_BOXES_FILE).unlink()
    with pytest.raises(ValueError, match=f"{PERSON_BOXES_FILE}: no person boxes.*1_prepare_data"):
        PersonBoxes(dataset)


def test_the_remedy_names_settings_that_there_are(dataset):
    from lib.config import TrainSettings

    (dataset.folder / PERSON_BOXES_FILE).unlink()
    with pytest.raises(ValueError) as error:
        PersonBoxes(dataset)
    named = str(error.value).split("set ")[-1].removesuffix(" to 0").split(" and ")
    assert len(named) == 2 and set(named) <= set(TrainSettings.model_fields)


def test_a_video_without_an_entry_is_named(dataset):
    names = dataset.index["name"].tolist()
    write_boxes(dataset.folder, names[:2], BOXES[:2])
    with pytest.raises(ValueError, match="no person boxes for 1 videos .* the first: b/v2"):
        PersonBoxes(dataset)


def test_a_frame_after_the_last_one_is_refused(dataset):
    with pytest.raises(ValueError, match="frame 4 does not exist.*end after 4 frames"):
        PersonBoxes(dataset).lookup(0, np.array([0, 4]))
