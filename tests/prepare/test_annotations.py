import json

import numpy as np
import pandas as pd
import pytest

from lib.data.dataset import (
    INDEX_COLUMNS,
    draw_labeled_rows,
    parse_split,
    read_dataset,
    write_dataset,
    write_split,
)

# PAPER.md, "Lists": lines of the reference's lists.
REFERENCE_LISTS = {
    "ucf101/ucf101_train_split_1_rawframes.txt": (9537, 101),
    "ucf101/ucf101_val_split_1_rawframes.txt": (3783, 101),
    "ucf101/videossl_splits/ucf101_train_5_percent_labeled_split_1_rawframes.txt": (476, 100),
    "hmdb51/hmdb51_val_split_1_rawframes.txt": (1530, 51),
    "hmdb51/videossl_splits/hmdb51_train_100_percent_labeled_split_1_rawframes.txt": (5236, 51),
    "kinetics400/videossl_splits/kinetics100_train_100_percent_labeled_rawframes.txt": (85114, 100),
}


def make_index(names: list[str], labels: list[int], classes: list[str]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "name": names,
            "path": [f"videos/{name}.avi" for name in names],
            "class": [classes[label] for label in labels],
            "label": labels,
            "frames": range(10, 10 + len(names)),
            "fps": 25.0,
            "width": 320,
            "height": 240,
        }
    )


@pytest.fixture
def dataset(tmp_path):
    names = ["None/a video.v2", "NA/b", "None/c", "NA/d"]  # classes that pandas takes for empty
    index = make_index(names, [1, 0, 1, 0], ["NA", "None"])
    return write_dataset(tmp_path / "set", "mine", ["NA", "None"], tmp_path / "set", index, {})


# --- The data set ---------------------------------------------------------------------------------


def test_a_data_set_is_read_as_it_was_written(dataset):
    again = read_dataset(dataset.folder)
    assert (again.name, again.classes, again.root) == ("mine", ("NA", "None"), dataset.folder)
    pd.testing.assert_frame_equal(again.index, dataset.index)
    assert again.index["class"].tolist() == ["None", "NA", "None", "NA"]
    record = again.record(2)
    assert record.path == dataset.folder / "videos/None/c.avi"
    assert (record.row, record.name, record.label) == (2, "None/c", 1)
    assert (record.num_frames, record.height, record.width) == (12, 240, 320)


def test_a_data_set_can_be_moved_if_its_videos_lie_in_it(dataset, tmp_path):
    moved = dataset.folder.rename(tmp_path / "elsewhere")
    assert read_dataset(moved).record(0).path == moved / "videos/None/a video.v2.avi"


def test_videos_outside_of_the_folder_stay_where_they_are(tmp_path):
    index = make_index(["a/x"], [0], ["a"])
    write_dataset(tmp_path / "set", "mine", ["a"], tmp_path / "my videos", index, {})
    moved = (tmp_path / "set").rename(tmp_path / "elsewhere")
    assert read_dataset(moved).record(0).path == tmp_path / "my videos/videos/a/x.avi"


def test_the_source_is_kept_for_the_reader(tmp_path):
    index = make_index(["a/x"], [0], ["a"])
    write_dataset(tmp_path, "mine", ["a"], tmp_path, index, {"made_by": "me"})
    assert json.loads((tmp_path / "dataset.json").read_text())["source"] == {"made_by": "me"}


def test_a_folder_that_is_not_prepared_is_refused_with_the_remedy(tmp_path):
    with pytest.raises(ValueError, match=f"{tmp_path}.*not a prepared data set.*1_prepare_data"):
        read_dataset(tmp_path)


def test_an_index_without_a_column_is_refused(dataset):
    path = dataset.folder / "index.csv"
    pd.read_csv(path).drop(columns="frames").to_csv(path, index=False)
    with pytest.raises(ValueError, match=r"index\.csv: damaged .no column \['frames'\]"):
        read_dataset(dataset.folder)


def test_an_index_with_a_name_twice_is_refused(dataset):
    index = dataset.index.assign(name="NA/b")
    index[INDEX_COLUMNS].to_csv(dataset.folder / "index.csv", index=False)
    with pytest.raises(ValueError, match=r"index\.csv: damaged .'NA/b' is there twice"):
        read_dataset(dataset.folder)


# --- Lists ----------------------------------------------------------------------------------------


def test_a_list_is_read_in_its_own_order(dataset):
    path = write_split(dataset, "train", [3, 0, 1])
    assert path == dataset.folder / "splits/train.txt"
    assert path.read_text() == "NA/d 13 0\nNone/a video.v2 10 1\nNA/b 11 0\n"
    rows = dataset.read_split("train")
    assert rows.tolist() == [3, 0, 1] and rows.dtype == np.int64
    assert dataset.split_names() == ["train"]


@pytest.mark.parametrize("name", ["train_0.5percent_seed0", "split.1", "half"])
def test_a_list_of_any_name_lies_in_the_folder_of_lists(dataset, name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert write_split(dataset, name, [2]) == dataset.folder / "splits" / f"{name}.txt"
    assert dataset.read_split(name).tolist() == [2]


def test_a_list_may_be_given_by_its_path(dataset, tmp_path):
    path = tmp_path / "my list.txt"
    path.write_text("NA/b 11 0\n")
    assert dataset.read_split(str(path)).tolist() == [1]


def test_a_missing_list_is_named_with_those_there_are(dataset):
    write_split(dataset, "train", [0])
    write_split(dataset, "val", [1])
    with pytest.raises(ValueError, match=r"\['train', 'val'\]; did you mean 'train'"):
        dataset.read_split("trian")


def test_videos_that_are_not_in_the_index_are_named(dataset):
    dataset.split_path("train").parent.mkdir()
    dataset.split_path("train").write_text("NA/b 11 0\nNA/z 9 0\n")
    with pytest.raises(ValueError, match=r"train\.txt: 1 of 2 videos .*index\.csv.*'NA/z'"):
        dataset.read_split("train")


def test_labels_that_differ_from_the_index_give_a_warning(dataset):
    dataset.split_path("train").parent.mkdir()
    dataset.split_path("train").write_text("NA/b 11 0\nNA/d 13 1\n")
    with pytest.warns(UserWarning, match=r"1 of 2 labels differ.*NA/d is .* and 'NA' in the index"):
        rows, labels = dataset.read_labels("train")
    assert labels.tolist() == [0, 1] and dataset.index["label"].iloc[rows].tolist() == [0, 0]


def test_lines_may_hold_spaces_blank_lines_and_a_byte_order_mark(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("\ufeffPlaying Guitar/v 1 .x 30 7\r\n\r\n  a/b\t4 0  \n", encoding="utf-8")
    names, labels, _ = parse_split(path)
    assert names == ["Playing Guitar/v 1 .x", "a/b"]
    assert labels.tolist() == [7, 0] and labels.dtype == np.int64


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a/b 4 0\na/c 4\n", "line 2: 'a/c 4' is not"),
        ("a/b 4 -2\n", "line 1: 'a/b 4 -2' is not"),
        ("a/b 4.5 1\n", "line 1"),
        ("\n\n", "the split is empty"),
        ("a/b 4 0\na/c 4 0\na/b 4 0\n", "'a/b' is listed more than once"),
    ],
)
def test_a_malformed_list_is_refused_by_file_and_line(tmp_path, text, message):
    path = tmp_path / "list.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"list\.txt.*" + message):
        parse_split(path)


@pytest.mark.parametrize("name", REFERENCE_LISTS)
def test_the_reference_lists_are_read(shared, name):
    names, labels, _ = parse_split(shared(f"data/reference_lists/{name}"))
    assert (len(names), len(np.unique(labels))) == REFERENCE_LISTS[name]


# --- Labelled parts -------------------------------------------------------------------------------

LABELS = np.repeat([0, 1, 2], [40, 25, 3])
ROWS = np.random.default_rng(0).permutation(68)


def test_every_class_keeps_its_share_and_at_least_one_video():
    drawn = draw_labeled_rows(LABELS, ROWS, 0.1, seed=0)
    assert np.bincount(LABELS[drawn]).tolist() == [4, 2, 1]
    assert drawn.dtype == np.int64


def test_drawn_rows_keep_the_order_of_the_list():
    drawn = draw_labeled_rows(LABELS, ROWS, 0.5, seed=1).tolist()
    assert drawn == [row for row in ROWS.tolist() if row in drawn]


def test_each_class_has_a_draw_of_its_own():
    """Not the same places of two classes that are equally large."""
    labels, rows = np.repeat([0, 1], 20), np.arange(40)
    drawn = draw_labeled_rows(labels, rows, 0.5, seed=0)
    assert (drawn[:10] + 20).tolist() != drawn[10:].tolist()


def test_a_share_is_rounded_to_the_nearest():
    labels = np.repeat([0, 1], [18, 17])
    drawn = draw_labeled_rows(labels, np.arange(35), 0.2, seed=0)
    assert np.bincount(labels[drawn]).tolist() == [4, 3]  # of 3.6 and 3.4


def test_smaller_parts_lie_inside_larger_ones():
    parts = [set(draw_labeled_rows(LABELS, ROWS, f, seed=3)) for f in (0.05, 0.1, 0.5, 1)]
    assert all(small <= large for small, large in zip(parts, parts[1:], strict=False))
    assert parts[-1] == set(ROWS)


def test_the_draw_depends_on_the_seed_and_not_on_the_order_of_the_list():
    draw = {seed: set(draw_labeled_rows(LABELS, ROWS, 0.2, seed)) for seed in (0, 1)}
    assert draw[0] != draw[1]
    assert set(draw_labeled_rows(LABELS, ROWS[::-1], 0.2, 0)) == draw[0]


def test_only_rows_of_the_list_are_drawn():
    rows = np.array([1, 2, 50, 51])
    assert set(draw_labeled_rows(LABELS, rows, 0.5, 0)) < set(rows.tolist())
