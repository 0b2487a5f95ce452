"""Any folder of videos as a data set: finding, naming, opening and splitting them."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from lib.data.dataset import VideoDataset, write_dataset, write_split
from lib.fileio import write_text
from lib.prepare.groups import (
    groups_by_name,
    groups_from_file,
    near_equal_starts,
    split_groups,
)
from lib.prepare.inspect_videos import FRAME_PREFIX, inspect_videos

VIDEO_SUFFIXES = {".avi", ".mp4", ".mkv", ".webm", ".mov", ".mpg", ".mpeg", ".m4v"}
PARTS = ("train", "val")
LAYOUTS = "<class>/<video> or {train,val}/<class>/<video>"
BROKEN_FILE = "broken.csv"
MAX_DEPTH = 6  # folders below the root in which videos are looked for; links may lead in circles
GROUPS_FILE = "groups.csv"
MAX_COMPARED = 3000  # videos whose first frames are compared
PROGRESS_FILE = "opened.csv"


def index_folder(
    root: Path,
    folder: Path,
    val_fraction: float,
    seed: int,
    num_processes: int = 0,
    groups_file: Path | None = None,
) -> VideoDataset:
    """Index a folder of videos, `<class>/<video>` or `{train,val}/<class>/<video>`.

    A video is a file, or a folder of frames `img_00001.jpg` ... . Unreadable ones are listed with
    the reason in `broken.csv` and left out.

    Args:
        root: The videos.
        folder: The prepared folder to make.
        val_fraction: Share of each class that becomes `val` where there are no parts.
        seed: Seed of that split.
        num_processes: Worker processes; 0 for one per core.
        groups_file: Table of the source that each video was cut from; None goes by the names. Such
            a group stays on one side of the split; `groups.csv` says what was taken for one.

    Raises:
        ValueError: If there is no class folder or no video, two videos have one name, or a class
            has too few videos to be split.
    """
    videos = find_videos(root)
    print(f"{root}: {len(videos)} videos in {videos['class'].nunique()} classes")
    index = open_videos(videos, root, folder, num_processes)
    classes = sorted(index["class"].unique())
    index["label"] = index["class"].map(classes.index)
    groups = find_groups(index, groups_file)
    table = pd.DataFrame({"name": index["name"], "group": groups})
    write_text(folder / GROUPS_FILE, table.to_csv(index=False))
    parts = _split(index, groups, root, val_fraction, seed)
    for text in say_groups(index, groups, parts["val"], root):
        print(text)
    draft = VideoDataset("folder", folder, tuple(classes), root, index)
    for part, rows in parts.items():
        write_split(draft, part, rows)
    source = {"made_by": "lib.prepare.own_folder", "root": str(root)}
    if not videos["part"].iloc[0]:
        source |= {"val_fraction": val_fraction, "seed": seed, "groups": int(groups.nunique())}
        source["groups_file"] = groups_file and str(groups_file)
    return write_dataset(folder, "folder", classes, root, index, source)


def open_videos(
    videos: pd.DataFrame, root: Path, folder: Path, num_processes: int = 0
) -> pd.DataFrame:
    """Open every video; return the readable ones with their frames, rate and size.

    Args:
        videos: At least the column path, relative to `root`.
        root: The folder of the videos.
        folder: The prepared folder: `broken.csv`, and what is known of the files so far.
        num_processes: Worker processes; 0 for one per core.

    Returns:
        The rows of `videos` that can be read, with frames, fps, width and height.

    Raises:
        ValueError: If no video can be read.
    """
    paths = [root / path for path in videos["path"]]
    found = inspect_videos(paths, num_processes, progress_file=folder / PROGRESS_FILE)
    is_broken = found["error"].notna().to_numpy()
    problems = found["error"].fillna(found["note"])
    report = pd.DataFrame(
        {"path": videos["path"].to_numpy(), "is_kept": ~is_broken, "reason": problems}
    )[problems.notna()]
    write_text(folder / BROKEN_FILE, report.to_csv(index=False))
    for is_kept, text in (
        (False, "cannot be read and are left out"),
        (True, "are shorter than their header says and are kept"),
    ):
        part = report[report["is_kept"] == is_kept]
        if len(part):
            print(f"{len(part)} videos {text} (all: {folder / BROKEN_FILE}):")
            for path, reason in part[["path", "reason"]].head(10).itertuples(index=False):
                print(f"  {path}: {reason}")
    found = found.drop(columns=["error", "note"])
    index = pd.concat([videos.reset_index(drop=True), found], axis=1)[~is_broken]
    if index.empty:
        raise ValueError(
            f"{root}: none of its {len(videos)} videos can be read; see {folder / BROKEN_FILE}"
        )
    return index.reset_index(drop=True).astype({"frames": int, "width": int, "height": int})


def find_videos(root: Path) -> pd.DataFrame:
    """Return columns part, class, name, path of the videos below `root`, sorted by path.

    Raises:
        ValueError: If the folder is not laid out as expected, or two videos have one name.
    """
    if not root.is_dir():
        raise ValueError(f"videos_dir: {root} is not a folder")
    parts = [part for part in PARTS if (root / part).is_dir()]
    if parts and parts != list(PARTS):
        raise ValueError(
            f"{root}: has a folder {parts[0]!r} but not both of {list(PARTS)}; give both, or class "
            "folders only"
        )
    rows = [
        (part, name.split("/")[0], name, (Path(part) / path).as_posix())
        for part in parts or [""]
        for name, path in walk_videos(root / part, depth=1)
    ]
    videos = pd.DataFrame(rows, columns=["part", "class", "name", "path"])
    videos = videos[videos["class"] != ""].reset_index(drop=True)
    if videos.empty:
        raise ValueError(f"{root}: {_why_none(root)}; expected {LAYOUTS}")
    _check_names(videos, root)
    return videos


def is_video(entry: os.DirEntry) -> bool:
    """Tell whether a folder's entry is a video file or a folder of frames."""
    if entry.name.startswith("."):
        return False
    if Path(entry.name).suffix.lower() in VIDEO_SUFFIXES:
        return entry.is_file() or entry.is_symlink()  # a dead link is reported when it is opened
    return entry.is_dir() and os.path.exists(os.path.join(entry.path, f"{FRAME_PREFIX}00001.jpg"))


def walk_videos(
    folder: Path, depth: int = MAX_DEPTH, inside: str = ""
) -> Iterator[tuple[str, str]]:
    """Yield the videos in a folder, sorted by path, files and folders of frames.

    Args:
        folder: The folder.
        depth: Of the folders below it that are looked into.
        inside: Where in it to begin.

    Yields:
        The name, `<folder that it is in>/<stem>`, and the path below `folder`.
    """
    for entry in sorted(os.scandir(folder / inside), key=lambda entry: entry.name):
        path = f"{inside}/{entry.name}".lstrip("/")
        if is_video(entry):
            stem = entry.name if entry.is_dir() else Path(entry.name).stem
            yield f"{Path(inside).name}/{stem}", path
        elif entry.is_dir() and not entry.name.startswith(".") and path.count("/") < depth:
            yield from walk_videos(folder, depth, path)


def _why_none(root: Path) -> str:
    files = [p for p in root.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES and p.is_file()]
    if not files:
        return f"no videos (files ending in {', '.join(sorted(VIDEO_SUFFIXES))})"
    name = files[0].relative_to(root)
    if name.parent == Path("."):
        return f"no class folders: {name} and {len(files) - 1} other videos lie outside of one"
    return f"its {len(files)} videos, the first of them {name}, are not where they should be"


def _check_names(videos: pd.DataFrame, root: Path) -> None:
    twice = videos[videos["name"].duplicated(keep=False)].sort_values(["name", "path"])
    if len(twice):
        raise ValueError(
            f"{root}: {twice['name'].nunique()} names stand for more than one video, the first: "
            f"{' and '.join(twice['path'].iloc[:2])}; rename or remove one of each"
        )
    for name, path in zip(videos["name"], videos["path"], strict=True):
        class_name, stem = name.split("/", 1)
        if not name.isprintable() or class_name.strip() + stem.strip() != class_name + stem:
            raise ValueError(
                f"{root}: the name {path!r} begins or ends with a space, or has characters that "
                "cannot be printed; lists could not hold it: rename it"
            )


def find_groups(index: pd.DataFrame, groups_file: Path | None) -> pd.Series:
    """Return for each video what it was cut from, by a table or by the names; see `groups`."""
    if groups_file is not None:
        return groups_from_file(groups_file, index["name"])
    return groups_by_name(index["name"], index["class"])


def say_groups(
    index: pd.DataFrame, groups: pd.Series, val: np.ndarray, root: Path
) -> Iterator[str]:
    """Say how many groups there are, and what speaks for videos of one source on both sides."""
    if groups.nunique() < len(index):
        yield f"{groups.nunique()} groups of clips of one source video (all: {GROUPS_FILE})"
    is_val = np.zeros(len(index), dtype=bool)
    is_val[val] = True
    if both := set(groups[is_val]) & set(groups[~is_val]):
        yield f"WARNING: {len(both)} groups are in train and in val, the first: {min(both)!r}"
    if len(index) > MAX_COMPARED:
        return
    if pairs := near_equal_starts([root / path for path in index["path"]], is_val):
        first = " and ".join(str(path.relative_to(root)) for path in pairs[0])
        yield (
            f"WARNING: {len(pairs)} of {len(val)} validation videos begin with nearly the same "
            f"picture as a training video, the first: {first}. If they were cut from one source, "
            "accuracy is too high: prepare with groups_file, a table with the columns name, group"
        )


def _split(
    index: pd.DataFrame, groups: pd.Series, root: Path, val_fraction: float, seed: int
) -> dict[str, np.ndarray]:
    """Return the index rows of `train` and `val`; every class is in both."""
    if index["part"].iloc[0]:
        rows = {part: np.flatnonzero(index["part"] == part) for part in PARTS}
        for part in PARTS:
            missing = set(index["class"]) - set(index["class"].iloc[rows[part]])
            if missing:
                raise ValueError(
                    f"{root / part}: no readable video of {sorted(missing)}; add one, or remove "
                    "the class from the other part"
                )
        return rows
    counts = index["class"].value_counts()
    if (counts < 2).any():
        lonely = sorted(counts[counts < 2].index)
        raise ValueError(
            f"{root}: {lonely} has one readable video, which cannot be split into train and val; "
            "add a video or remove the class"
        )
    val = split_groups(index["label"].to_numpy(), groups.to_numpy(), val_fraction, seed)
    for part, is_in in (("train", ~val), ("val", val)):
        if missing := sorted(set(index["class"]) - set(index["class"][is_in])):
            raise ValueError(
                f"{root}: no video of {missing} is left for {part!r}, since clips of one source "
                f"stay together ({GROUPS_FILE}); add videos of other sources, give train/ and val/ "
                "yourself, or a groups_file of your own"
            )
    return {"train": np.flatnonzero(~val), "val": np.flatnonzero(val)}
