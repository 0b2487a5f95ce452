"""Finding own videos: labeled, unlabeled, segments, and what is left out. Empty files suffice."""

import pytest

from lib.prepare.find_videos import count_text, find_videos, split_counts, write_class


def make(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


def classes_of(root):
    videos = find_videos(root).videos
    return dict(zip(videos["name"], videos["class"], strict=True))


def test_videos_in_unlabeled_and_beside_class_folders_have_no_class(tmp_path):
    make(tmp_path, "a/1.mp4", "b/deep/er/2.avi", "unlabeled/x/y/3.mov", "4.webm")
    expected = {"a/1": "a", "b/deep/er/2": "b", "unlabeled/x/y/3": "", "4": ""}
    assert classes_of(tmp_path) == expected
    found = find_videos(tmp_path)
    assert found.ignored == []
    assert count_text(found.videos) == "2 labeled videos in 2 classes, 2 unlabeled"


def test_unlabeled_beside_train_and_val_is_trained_on(tmp_path):
    make(tmp_path, "train/a/1.mp4", "val/a/2.mp4", "unlabeled/3.mp4", "train/unlabeled/4.mp4")
    make(tmp_path, "train/5.mp4", "val/unlabeled/6.mp4", "test/a/7.mp4")
    videos, ignored = find_videos(tmp_path)
    parts = dict(
        zip(videos["path"], zip(videos["part"], videos["class"], strict=True), strict=True)
    )
    assert parts == {
        "train/a/1.mp4": ("train", "a"),
        "val/a/2.mp4": ("val", "a"),
        "unlabeled/3.mp4": ("train", ""),
        "train/unlabeled/4.mp4": ("train", ""),
        "train/5.mp4": ("train", ""),
    }
    assert len(ignored) == 2 and "folder test/ with 1 videos" in ignored[0]
    assert "1 videos in val/ without a class" in ignored[1]


def test_what_is_left_out_is_named_once(tmp_path):
    make(tmp_path, "a/1.mp4", "b/2.mp4", "a/notes.txt", "b/more.txt", "poster.png", ".hidden")
    make(tmp_path, "only_text/read.me")
    (tmp_path / "empty").mkdir()
    assert find_videos(tmp_path).ignored == [
        "4 files that are not videos (2 .txt, 1 .me, 1 .png), the first: a/notes.txt",
        "class folder empty/, which has no video",
        "class folder only_text/, which has no video",
    ]


def test_one_name_in_train_and_val_is_two_videos(tmp_path):
    make(tmp_path, "train/a/1.mp4", "val/a/1.mp4", "train/a/2.mp4", "train/a/2.avi")
    names = {"train/a/1", "val/a/1", "train/a/2.mp4", "train/a/2.avi"}
    assert set(classes_of(tmp_path)) == names


def test_labels_file_gives_the_classes_of_a_flat_folder(tmp_path):
    make(tmp_path, "1.mp4", "2.mp4", "3.mp4", "sub/4.mp4")
    (tmp_path / "labels.csv").write_text("name,class\n1.mp4,a\n2, b \n3.mp4,\n")
    assert classes_of(tmp_path) == {"1": "a", "2": "b", "3": "", "sub/4": ""}
    assert split_counts(find_videos(tmp_path).videos, 0.2) == {"train": (0, 2), "val": (2, 0)}


@pytest.mark.parametrize(
    "text, problem",
    [
        ("name,class\n1,a\nx.mp4,b\n", "labels.csv, line 3: no video 'x.mp4'"),
        ("name,class\n1,a\n1.mp4,b\n", "labels.csv: '1.mp4' is listed more than once"),
        ("video,class\n1,a\n", "no column .'name'.*columns name, class"),
        ("name,class\n1,\n", "none has a class"),
    ],
)
def test_malformed_labels_file_is_refused(tmp_path, text, problem):
    make(tmp_path, "1.mp4")
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(ValueError, match=problem):
        find_videos(tmp_path)


def test_a_written_class_keeps_the_rows_and_columns_of_the_table(tmp_path):
    make(tmp_path, "1.mp4", "2.mp4", "3.mp4", "sub/4.mp4")
    path = tmp_path / "labels.csv"
    path.write_text('\ufeffname,note,class\n4.mp4,"x, y",\n1.mp4,,a\n', encoding="utf-8")
    write_class(tmp_path, "sub/4", "b, c")
    write_class(tmp_path, "3", "a")
    write_class(tmp_path, "3", "ü")
    assert path.read_text() == 'name,note,class\n4.mp4,"x, y","b, c"\n1.mp4,,a\n3,,ü\n'
    assert classes_of(tmp_path) == {"1": "a", "2": "", "3": "ü", "sub/4": "b, c"}


def test_the_first_written_class_keeps_those_of_the_folders(tmp_path):
    make(tmp_path, "a/1.mp4", "b/2.mp4", "unlabeled/3.mp4", "4.mp4")
    write_class(tmp_path, "unlabeled/3", "b")
    assert classes_of(tmp_path) == {"a/1": "a", "b/2": "b", "unlabeled/3": "b", "4": ""}


def test_a_class_is_written_for_a_video_alone(tmp_path):
    make(tmp_path, "1.mp4", "2.mp4")
    (tmp_path / "segments.csv").write_text("video,start_s,end_s,class\n1,0,1,a\n")
    for name in ("1", "1@0.00-1.00", "x"):
        with pytest.raises(ValueError, match=f"'{name}' is no video, or a segment: edit segments"):
            write_class(tmp_path, name, "b")
    write_class(tmp_path, "2", "b")
    assert classes_of(tmp_path) == {"1@0.00-1.00": "a", "2": "b"}


def test_segments_replace_their_video(tmp_path):
    make(tmp_path, "day1.mp4", "day2.mp4", "day3.mp4")
    table = "video,start_s,end_s,class\nday1.mp4,10,12.5,run\nday1.mp4,0,4,jump\nday2,3,4,\n"
    (tmp_path / "segments.csv").write_text(table)
    videos = find_videos(tmp_path).videos
    assert videos[["name", "class", "path"]].to_numpy().tolist() == [
        ["day1@0.00-4.00", "jump", "day1.mp4"],
        ["day1@10.00-12.50", "run", "day1.mp4"],
        ["day2@3.00-4.00", "", "day2.mp4"],
        ["day3", "", "day3.mp4"],
    ]


@pytest.mark.parametrize("row", ["day1,4,4,a", "day1,-1,4,a", "day1,x,4,a"])
def test_segment_without_a_length_is_refused(tmp_path, row):
    make(tmp_path, "day1.mp4")
    (tmp_path / "segments.csv").write_text(f"video,start_s,end_s,class\nday1,0,1,a\n{row}\n")
    with pytest.raises(ValueError, match="segments.csv, line 3: .*not 0 <= start_s < end_s"):
        find_videos(tmp_path)
