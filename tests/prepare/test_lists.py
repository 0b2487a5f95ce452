"""Labelled lists: drawing, reading published formats, taking them over, comparing."""

import numpy as np
import pandas as pd
import pytest

from lib.config import PROJECT_ROOT
from lib.data.dataset import (
    VideoDataset,
    draw_labeled_rows,
    draw_rows,
    parse_split,
    write_dataset,
    write_split,
)
from lib.prepare.published_splits import (
    SplitEntry,
    class_counts,
    find_entries,
    import_split,
    read_categories,
    read_kinetics_csv,
    read_reference_split,
    read_split_file,
    read_video_list,
    summarize_splits,
)

SHARED = PROJECT_ROOT.parent / "shared" / "data"
LISTS = SHARED / "reference_lists"
needs_lists = pytest.mark.skipif(
    not LISTS.is_dir(), reason=f"no published lists in {LISTS}; they are not part of the project"
)


def make_dataset(folder, names, name="folder", frames=10) -> VideoDataset:
    index = pd.DataFrame({"name": names, "path": names, "frames": frames})
    index["class"] = [text.rsplit("/", 1)[0] for text in names]
    classes = sorted(set(index["class"]), key=str.upper)
    index["label"] = index["class"].map(classes.index)
    index["fps"], index["width"], index["height"] = 25, 64, 48
    return write_dataset(folder, name, classes, folder, index, {})


# --- Drawing --------------------------------------------------------------------------------------


def test_draws_are_stratified_nested_and_seeded():
    labels = np.repeat([0, 1, 2], [100, 40, 3])
    rows = np.random.default_rng(0).permutation(143)
    small, large = (draw_labeled_rows(labels, rows, share, seed=1) for share in (0.05, 0.2))
    assert set(small) <= set(large)
    assert np.bincount(labels[small]).tolist() == [5, 2, 1]
    assert np.bincount(labels[large]).tolist() == [20, 8, 1]
    assert (draw_labeled_rows(labels, rows, 0.05, seed=1) == small).all()
    assert set(draw_labeled_rows(labels, rows, 0.05, seed=2)) != set(small)
    assert set(draw_labeled_rows(labels, np.sort(rows), 0.05, seed=1)) == set(small)
    counted = draw_rows(labels, rows, lambda size: min(5, size), seed=1)
    assert np.bincount(labels[counted]).tolist() == [5, 5, 3]
    assert set(small) <= set(counted)


# --- Formats --------------------------------------------------------------------------------------


def write(path, text):
    path.write_bytes(text.encode())
    return path


def test_reference_format_with_windows_lines_spaces_and_a_byte_order_mark(tmp_path):
    path = write(tmp_path / "list.txt", "\ufeffa b/c d  e 12 0\r\n\r\nx/y 3 1\r\n")
    entries = [SplitEntry("a b/c d  e", 0, 12), SplitEntry("x/y", 1, 3)]
    assert read_reference_split(path) == entries
    names, labels, _ = parse_split(path)
    assert names == ["a b/c d  e", "x/y"] and labels.tolist() == [0, 1]
    path = write(tmp_path / "ids.txt", "201282 45 74\n50875 42 0\n")
    assert read_reference_split(path)[0] == SplitEntry("201282", 74, 45)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a/b 1\n", "line 1: 'a/b 1' is not"),
        ("a/b 1 0\na/c 1 x\n", "line 2"),
        ("a/b 1 0\na/b 1 0\n", "'a/b' is listed more than once"),
        ("\n", "is empty"),
    ],
)
def test_reference_lists_that_are_wrong(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read_reference_split(write(tmp_path / "list.txt", text))
    with pytest.raises(ValueError, match="cannot be read"):
        read_reference_split(tmp_path / "none.txt")


def test_ucf_lists(tmp_path):
    train = write(tmp_path / "trainlist01.txt", "A/v_A_g08_c01.avi 1\r\nB/v_B_g08_c02.avi 2\r\n")
    assert read_video_list(train) == [
        SplitEntry("A/v_A_g08_c01", 0),
        SplitEntry("B/v_B_g08_c02", 1),
    ]
    test = write(tmp_path / "testlist01.txt", "A/v_A_g01_c01.avi\n")
    assert read_video_list(test) == [SplitEntry("A/v_A_g01_c01")]
    with pytest.raises(ValueError, match="line 1: 'v_A_g01.avi' is not"):
        read_video_list(write(tmp_path / "wrong.txt", "v_A_g01.avi\n"))


def test_kinetics_csv(tmp_path):
    path = write(
        tmp_path / "train.csv",
        'label,youtube_id,time_start,time_end,split\n"golf, putting",-_CLrgdPvhk,21,31,train\n',
    )
    assert read_kinetics_csv(path) == [SplitEntry("golf,_putting/-_CLrgdPvhk_000021_000031")]
    path = write(tmp_path / "test.csv", "youtube_id,time_start,time_end\nabc,1,2\n")
    assert read_kinetics_csv(path) == [SplitEntry("abc_000001_000002")]
    with pytest.raises(ValueError, match="wrong.csv: damaged .*needs columns youtube_id"):
        read_kinetics_csv(write(tmp_path / "wrong.csv", "label,id\nx,y\n"))


def test_formats_are_told_apart(tmp_path):
    texts = {
        "a.txt": "A/v_A_g08_c01 20 3\n",
        "b.txt": "\nA/v_A_g08_c01.avi 4\r\n",
        "c.txt": "A/v_A_g08_c01.avi\n",
        "d.csv": "label,youtube_id,time_start,time_end\nyoga,abc,1,2\n",
    }
    read = {name: read_split_file(write(tmp_path / name, text)) for name, text in texts.items()}
    name = "A/v_A_g08_c01"
    assert read["a.txt"] == [SplitEntry(name, 3, 20)] and read["b.txt"] == [SplitEntry(name, 3)]
    assert read["c.txt"] == [SplitEntry(name)]
    assert read["d.csv"] == [SplitEntry("yoga/abc_000001_000002")]
    for bad in (tmp_path / "none.txt", tmp_path / "none.csv"):
        with pytest.raises(ValueError, match="cannot be read .No such file.*UTF-8 text"):
            read_split_file(bad)
    (tmp_path / "latin.csv").write_bytes(b"label,youtube_id\n\xe9,x\n")
    with pytest.raises(ValueError, match="latin.csv: damaged .*utf-8.*in UTF-8 text"):
        read_split_file(tmp_path / "latin.csv")


# --- Taking over ----------------------------------------------------------------------------------


def test_import_reports_what_is_missing_and_what_differs(tmp_path, capsys):
    dataset = make_dataset(tmp_path, ["a/1", "a/2", "b/3"])
    entries = [SplitEntry("b/3", 1, 10), SplitEntry("a/2", 1, 12), SplitEntry("a/9", 0, 10)]
    entries.append(SplitEntry("Swim ming/1", 2, 10))
    import_split(dataset, "published", entries, "published.txt")
    assert dataset.read_split("published").tolist() == [2, 1]
    assert capsys.readouterr().out == (
        "published: 2 videos, 1 with other frames, 1 with another label, 1 missing, "
        "1 of an unknown class\n"
    )
    report = (tmp_path / "splits" / "published.problems.csv").read_text().splitlines()
    assert report[1:] == [
        "a/2,with other frames,12,10",
        "a/2,with another label,1,0",
        "a/9,missing,,",
        "Swim ming/1,of an unknown class,,",
    ]
    import_split(dataset, "published", entries[:1], "published.txt")
    assert not (tmp_path / "splits" / "published.problems.csv").exists()
    with pytest.raises(ValueError, match="none of its 1 videos is in .* .'x/y'. there, 'a/1'"):
        import_split(dataset, "published", [SplitEntry("x/y")], "published.txt")
    with pytest.raises(ValueError, match="lists 'a/1' more than once"):
        import_split(dataset, "published", [SplitEntry("a/1"), SplitEntry("a/1")], "published.txt")


def test_classes_written_differently_and_youtube_ids(tmp_path):
    names = [
        "playing guitar/-_CLrgdPvhk_000021_000031",
        "skiing (not slalom or crosscountry)/aaaaaaaaaaa_000001_000011",
        "yoga/bbbbbbbbbbb",
    ]
    dataset = make_dataset(tmp_path, names, name="kinetics400")
    listed = [
        "yoga/bbbbbbbbbbb_000003_000013",
        "skiing_-not_slalom_or_crosscountry-/aaaaaaaaaaa_000001_000011",
        "playing_guitar/-_CLrgdPvhk_000021_000031",
        "yoga/ccccccccccc_000003_000013",
    ]
    assert find_entries(dataset, listed).tolist() == [2, 1, 0, -1]


def test_a_stem_that_two_classes_have_is_not_guessed(tmp_path):
    dataset = make_dataset(tmp_path, ["a/1", "b/1", "b/2"])
    assert find_entries(dataset, ["1", "2", "b/1"]).tolist() == [-1, 2, 1]
    assert find_entries(dataset, ["c/2", "a/2"]).tolist() == [-1, -1]  # videos of another class


# --- Comparing ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line, file",
    [
        ("{0}.mp4 {1}", "mmaction2.txt"),
        ("data/videos/{0}.mp4 {1}", "prefix.txt"),
        ("{0}.MP4 12 {1}", "frames.txt"),
        ("/data/my videos/{0}.mp4,{1}", "videomae.csv"),
        ("{0}.webm", "names.txt"),
    ],
)
def test_lists_of_video_files_are_imported(tmp_path, line, file):
    dataset = make_dataset(tmp_path, ["a/1", "a/deep/2", "b/1", "b/3"])
    names, labels = ["a/1", "deep/2", "b/3"], [0, 1, 2]
    lines = map(line.format, names, labels)
    entries = read_split_file(write(tmp_path / file, "\n".join(lines)))
    problems = import_split(dataset, "mine", entries, file)
    assert dataset.index["name"].iloc[dataset.read_split("mine")].tolist() == [
        "a/1", "a/deep/2", "b/3",
    ]  # fmt: skip
    assert set(problems["problem"]) <= {"with other frames"}


def test_summary_of_splits(tmp_path):
    dataset = make_dataset(tmp_path, ["a/1", "a/2", "b/3", "c/4"])
    write_split(dataset, "train", [0, 1, 2])
    write_split(dataset, "some", [1, 3])
    assert class_counts(dataset, "some").tolist() == [1, 0, 1]
    summary = summarize_splits(dataset)
    assert summary.loc["some"].tolist() == pytest.approx([2, 0, 2, 0, 1, 1 / 3])


# --- The published lists themselves ---------------------------------------------------------------


@needs_lists
def test_reference_lists_of_ucf101(tmp_path):
    train = read_reference_split(LISTS / "ucf101/ucf101_train_split_1_rawframes.txt")
    val = read_reference_split(LISTS / "ucf101/ucf101_val_split_1_rawframes.txt")
    names = [entry.name for entry in [*train, *val]]
    dataset = make_dataset(tmp_path, names, "ucf101", [entry.frames for entry in [*train, *val]])
    assert len(dataset.classes) == 101
    problems = import_split(dataset, "train", train, "train")["problem"]
    assert not problems.str.contains("missing").any()
    assert import_split(dataset, "val", val, "val").empty
    folder = LISTS / "ucf101/videossl_splits"
    for percent, count in ((5, 476), (10, 953), (20, 1907), (50, 4768)):
        path = folder / f"ucf101_train_{percent}_percent_labeled_split_1_rawframes.txt"
        name, entries = f"reference_{percent}percent", read_reference_split(path)
        assert import_split(dataset, name, entries, "x").empty
        assert len(dataset.read_split(name)) == count
    few, more = (set(dataset.read_split(f"reference_{n}percent")) for n in (5, 10))
    counts = class_counts(dataset, "reference_5percent")
    assert counts.index[counts == 0].tolist() == ["CliffDiving"] and not few <= more


@needs_lists
def test_hmdb51_reference_lists_label_some_clips_as_another_class(tmp_path):
    folder = LISTS / "hmdb51/videossl_splits"
    train = read_reference_split(folder / "hmdb51_train_100_percent_labeled_split_1_rawframes.txt")
    dataset = make_dataset(tmp_path, sorted(entry.name for entry in train), "hmdb51")
    wrong = {}
    for percent in (40, 50, 60, 100):
        path = folder / f"hmdb51_train_{percent}_percent_labeled_split_1_rawframes.txt"
        entries = read_reference_split(path)
        problems = import_split(dataset, f"reference_{percent}percent", entries, "x")
        assert "missing" not in set(problems["problem"])
        wrong[percent] = int((problems["problem"] == "with another label").sum())
    assert wrong == {40: 54, 50: 73, 60: 65, 100: 132}
    assert len(dataset.read_split("reference_100percent")) == 5236


@needs_lists
def test_class_order_of_the_lists_ignores_capitals():
    for path in (
        "ucf101/ucf101_train_split_1_rawframes.txt",
        "kinetics400/videossl_splits/kinetics100_train_100_percent_labeled_rawframes.txt",
    ):
        labels = {e.name.split("/")[0]: e.label for e in read_reference_split(LISTS / path)}
        assert [labels[name] for name in sorted(labels, key=str.upper)] == list(range(len(labels)))


def test_categories(tmp_path):
    assert read_categories(write(tmp_path / "category.txt", "A b\r\nC\r\n")) == ["A b", "C"]
