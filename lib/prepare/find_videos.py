"""Find the videos of any folder, with their classes and segments.

A folder holds `<class>/...` or `{train,val}/<class>/...`; videos in `unlabeled/` and next to the
class folders have no class. A table `labels.csv` (name, class) or `segments.csv` (video, start_s,
end_s, class) in the folder gives the classes instead of its folders; an empty class is unlabeled.
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from lib.data.video_reader import FRAME_FILE, NUMBERED_IMAGE
from lib.fileio import reading, write_text
from lib.registry import did_you_mean

VIDEO_SUFFIXES = frozenset(
    ".3gp .asf .avi .flv .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .vob .webm .wmv".split()
)
PARTS = ["train", "val"]
UNLABELED_DIR = "unlabeled"
LABELS_FILE, SEGMENTS_FILE = "labels.csv", "segments.csv"
LABEL_COLUMNS = ("name", "class")
SEGMENT_COLUMNS = ("video", "start_s", "end_s", "class")
MAX_DEPTH = 6  # of folders below the root; links may form cycles


class FoundVideos(NamedTuple):
    """Videos of a folder, sorted by path.

    Columns part (train, val or empty), class (empty: unlabeled), name, path, video (name of the
    file), start_s and end_s (of a segment, else NaN).
    """

    videos: pd.DataFrame
    ignored: list[str]  # a line for each kind of file that is left out


def find_videos(root: Path, needs_classes: bool = True) -> FoundVideos:
    """Return the videos below `root` and what is left out.

    ValueError if there are no videos, the layout is ambiguous, a table cannot be used, or no video
    has a class but `needs_classes`.
    """
    parts = _parts(root)
    files = list(walk_files(root))
    videos = pd.DataFrame({"path": [path for path, is_video in files if is_video]}, dtype=object)
    if videos.empty:
        raise ValueError(f"{root}: no videos ({', '.join(sorted(VIDEO_SUFFIXES))})")
    places = [_place(path, bool(parts)) for path in videos["path"]]
    videos[["part", "class", "video"]] = pd.DataFrame(places, dtype=object)
    is_beside = videos["part"].eq("-")
    ignored = foreign_files(files) + _beside(videos[is_beside])
    videos = _named(videos[~is_beside].reset_index(drop=True), root)
    if not {LABELS_FILE, SEGMENTS_FILE} & set(os.listdir(root)):
        ignored += _empty_classes(root, parts, set(videos["class"]))
    videos = _with_tables(videos.assign(name=videos["video"], start_s=np.nan, end_s=np.nan), root)
    is_useless = videos["part"].eq("val") & videos["class"].eq("")
    if is_useless.any():
        first = videos["path"][is_useless].iloc[0]
        ignored.append(f"{is_useless.sum()} videos in val/ without a class, the first: {first}")
        videos = videos[~is_useless].reset_index(drop=True)
    if needs_classes and not videos["class"].any():
        raise ValueError(
            f"{root}: {len(videos)} videos and none has a class; put some into class folders "
            f"(<class>/<video> or {{train,val}}/<class>/<video>), or name their classes in "
            f"{LABELS_FILE} ({', '.join(LABEL_COLUMNS)}); docs/own_videos.md has a tool that "
            "chooses the first ones"
        )
    return FoundVideos(videos, ignored)


def count_text(videos: pd.DataFrame) -> str:
    """Return the numbers of videos and classes of `find_videos` as text."""
    classes = videos["class"][videos["class"] != ""]
    text = f"{len(classes):,} labeled videos in {classes.nunique()} classes"
    return f"{text}, {len(videos) - len(classes):,} unlabeled"


def split_counts(videos: pd.DataFrame, val_fraction: float) -> dict[str, tuple[int, int]]:
    """Return the labeled and unlabeled videos of `train` and `val`, before any is opened.

    Without folders `train` and `val` the numbers are those of a split without groups.
    """
    labeled = videos[videos["class"] != ""]
    if has_own_split(videos):
        num_val = int((labeled["part"] == "val").sum())
    else:
        sizes = labeled["class"].value_counts()
        num_val = int((val_fraction * sizes).round().clip(lower=1).sum())
    return {
        "train": (len(labeled) - num_val, len(videos) - len(labeled)),
        "val": (num_val, 0),
    }


def has_own_split(videos: pd.DataFrame) -> bool:
    """Return True if the videos of `find_videos` are divided into train and val."""
    return bool((videos["part"] == "val").any())


def walk_files(folder: Path, inside: str = "") -> Iterator[tuple[str, bool]]:
    """Yield each visible file and folder of frames below `folder`, and True if it is a video.

    Paths are relative and sorted within their folder; an empty folder counts as a file, with `/`.
    """
    entries = sorted(os.scandir(folder / inside), key=lambda entry: entry.name)
    visible = [entry for entry in entries if not entry.name.startswith(".")]
    if inside and not visible:
        yield f"{inside}/", False
    for entry in visible:
        path = f"{inside}/{entry.name}".lstrip("/")
        if _is_video(entry):
            yield path, True
        elif not entry.is_dir():
            yield path, False
        elif path.count("/") < MAX_DEPTH:
            yield from walk_files(folder, path)


def video_paths(folder: Path) -> list[str]:
    """Return the relative paths of the videos and folders of frames below a folder."""
    return [path for path, is_video in walk_files(folder) if is_video]


def without_suffix(path: str) -> str:
    """Return the relative path of a video, or of a folder of frames, without the suffix."""
    stem, suffix = os.path.splitext(path)
    return stem if suffix.lower() in VIDEO_SUFFIXES else path


def _is_video(entry: os.DirEntry) -> bool:
    """Return True for a video file, or a folder of numbered images but no videos or folders."""
    if not entry.is_dir():  # a dead link is reported when it is opened
        return _has_suffix(entry) and (entry.is_file() or entry.is_symlink())
    if os.path.exists(os.path.join(entry.path, FRAME_FILE.format(1))):  # large trees are not listed
        return True
    inside = list(os.scandir(entry.path))
    has_images = any(NUMBERED_IMAGE.fullmatch(file.name) for file in inside)
    return has_images and not any(file.is_dir() or _has_suffix(file) for file in inside)


def _has_suffix(entry: os.DirEntry) -> bool:
    return Path(entry.name).suffix.lower() in VIDEO_SUFFIXES


def _parts(root: Path) -> list[str]:
    """Return the folders `train` and `val`, or none."""
    if not root.is_dir():
        raise ValueError(f"videos_dir: {root} is not a folder")
    parts = [part for part in PARTS if (root / part).is_dir()]
    if parts not in ([], PARTS):
        raise ValueError(f"{root}: has {parts[0]!r} but not both of {PARTS}; create the other one")
    return parts


def _place(path: str, has_parts: bool) -> tuple[str, str, str]:
    """Return part ("-": beside train/ and val/), class and name of a video from its path."""
    *folders, _ = path.split("/")
    part, name = "", without_suffix(path)
    if has_parts:
        part = folders.pop(0) if folders else UNLABELED_DIR
        if part not in (*PARTS, UNLABELED_DIR):
            return "-", "", name
        if part == UNLABELED_DIR:
            return "train", "", name
        name = name.split("/", 1)[1]
    class_name = folders[0] if folders and folders[0] != UNLABELED_DIR else ""
    return part, class_name, name


def _named(videos: pd.DataFrame, root: Path) -> pd.DataFrame:
    """Return the videos with unique names: where names clash, the relative path is the name."""
    is_shared = videos["video"].duplicated(keep=False)
    videos["video"] = videos["video"].where(~is_shared, videos["path"].map(without_suffix))
    is_shared = videos["video"].duplicated(keep=False)
    videos["video"] = videos["video"].where(~is_shared, videos["path"])
    for name, path in zip(videos["video"], videos["path"], strict=True):
        if not name.isprintable() or any(part != part.strip() for part in name.split("/")):
            raise ValueError(
                f"{root}: the name {path!r} begins or ends with a space, or has characters that "
                "cannot be printed, which a split file cannot hold; rename it"
            )
    return videos


def foreign_files(files: Sequence[tuple[str, bool]]) -> list[str]:
    """Return a line about the files of `walk_files` that are not videos, if there are any."""
    tables = (LABELS_FILE, SEGMENTS_FILE)
    foreign = [p for p, is_video in files if not is_video and p[-1] != "/" and p not in tables]
    if not foreign:
        return []
    suffixes = Counter(os.path.splitext(path)[1].lower() or "no suffix" for path in foreign)
    kinds = ", ".join(f"{count} {suffix}" for suffix, count in suffixes.most_common(5))
    return [f"{len(foreign)} files that are not videos ({kinds}), the first: {foreign[0]}"]


def _beside(videos: pd.DataFrame) -> list[str]:
    folders = videos["path"].str.split("/").str[0].value_counts(sort=False)
    return [
        f"folder {name}/ with {count} videos, beside train/ and val/; a test list can be a data "
        f"set of its own, videos without a class belong into {UNLABELED_DIR}/"
        for name, count in folders.items()
    ]


def _empty_classes(root: Path, parts: Sequence[str], classes: set[str]) -> list[str]:
    """Return a line for each class folder without a video."""
    skipped = classes | {UNLABELED_DIR}
    places = [root / part for part in parts] or [root]
    names = {entry.name for place in places for entry in os.scandir(place) if entry.is_dir()}
    empty = sorted(name for name in names - skipped if not name.startswith("."))
    return [f"class folder {name}/, which has no video" for name in empty]


# --- Tables ---------------------------------------------------------------------------------------


def read_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Read a CSV table as text; ValueError if a column is missing."""
    with reading(path, f"give a CSV table with the columns {', '.join(columns)}"):
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
        if missing := [column for column in columns if column not in table]:
            raise ValueError(f"no column {missing}")
    return table.apply(lambda column: column.str.strip())


def _rows_of(table: pd.DataFrame, path: Path, column: str, names: pd.Series) -> np.ndarray:
    """Return the position in `names` of each row; a name may have its suffix or lack its folder."""
    short = names.str.rsplit("/", n=1).str[-1]
    is_unique = ~short.duplicated(keep=False)
    known = dict(zip(short[is_unique], names.index[is_unique], strict=True))
    known |= dict(zip(names, names.index, strict=True))
    rows = []
    for line, name in enumerate(table[column], start=2):
        row = known.get(name, known.get(without_suffix(name)))
        if row is None:
            raise ValueError(
                f"{path}, line {line}: no video {name!r} below {path.parent}"
                f"{did_you_mean(without_suffix(name), names)}"
            )
        rows.append(row)
    return np.array(rows, dtype=np.int64)


def _with_tables(videos: pd.DataFrame, root: Path) -> pd.DataFrame:
    """Return the videos with the classes and the segments of the tables in `root`."""
    labels, segments = root / LABELS_FILE, root / SEGMENTS_FILE
    if labels.is_file():
        videos["class"] = _classes_from_file(labels, videos["video"])
    elif segments.is_file():
        videos["class"] = ""
    return _with_segments(videos, segments) if segments.is_file() else videos


def _classes_from_file(path: Path, names: pd.Series) -> np.ndarray:
    """Return the class of each video by `labels.csv`; empty without one."""
    table = read_table(path, LABEL_COLUMNS)
    rows = _rows_of(table, path, "name", names)
    if len(np.unique(rows)) < len(rows):
        twice = table["name"].iloc[int(pd.Series(rows).duplicated().to_numpy().argmax())]
        raise ValueError(f"{path}: {twice!r} is listed more than once")
    classes = np.full(len(names), "", dtype=object)
    classes[rows] = table["class"]
    return classes


def write_class(root: Path, name: str, class_name: str) -> Path:
    """Set the class of a video of `find_videos` in `labels.csv`, and return that file.

    Other rows and columns stay. A new table starts with the classes that the folders give.
    ValueError if `name` is not the file of one video, or the table cannot be used.
    """
    path, videos = root / LABELS_FILE, find_videos(root, needs_classes=False).videos
    videos = videos[videos["start_s"].isna()].reset_index(drop=True)
    if name not in set(videos["video"]):
        raise ValueError(f"{root}: {name!r} is no video, or a segment: edit {SEGMENTS_FILE}")
    if path.is_file():
        table = read_table(path, LABEL_COLUMNS)
    else:
        labeled = videos[videos["class"] != ""]
        table = pd.DataFrame({"name": labeled["video"], "class": labeled["class"]})
    is_same = videos["video"].to_numpy()[_rows_of(table, path, "name", videos["video"])] == name
    if not is_same.any():
        table = pd.concat([table, pd.DataFrame({"name": [name]})], ignore_index=True).fillna("")
        is_same = table["name"] == name
    table.loc[is_same, "class"] = class_name.strip()
    return write_text(path, table.to_csv(index=False))


def _with_segments(videos: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Replace the videos that `segments.csv` names by their segments."""
    table = read_table(path, SEGMENT_COLUMNS)
    rows = _rows_of(table, path, "video", videos["video"])
    times = table[["start_s", "end_s"]].apply(pd.to_numeric, errors="coerce")
    is_wrong = ~((times["start_s"] >= 0) & (times["end_s"] > times["start_s"])).to_numpy()
    if is_wrong.any():
        line = int(is_wrong.argmax())
        raise ValueError(
            f"{path}, line {line + 2}: start_s {table['start_s'].iloc[line]!r} and end_s "
            f"{table['end_s'].iloc[line]!r} are not 0 <= start_s < end_s, in seconds"
        )
    segments = videos.iloc[rows].reset_index(drop=True)
    segments = segments.assign(**{"class": table["class"]}, **times)
    ends = [f"@{start:.2f}-{end:.2f}" for start, end in times.itertuples(index=False)]
    segments["name"] = segments["video"] + ends
    if segments["name"].duplicated().any():
        twice = segments["name"][segments["name"].duplicated()].iloc[0]
        raise ValueError(f"{path}: segment {twice!r} is listed more than once")
    others = videos.drop(index=np.unique(rows))
    return pd.concat([segments, others]).sort_values(["path", "start_s"], ignore_index=True)
