"""Index any folder of videos: find, name, inspect, group and split them.

Clips of one source video share place, people and light. They form a group, and a split never
separates a group (leakage).
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from lib.data.dataset import VideoDataset, write_dataset, write_split
from lib.data.video_reader import FRAME_FILE
from lib.fileio import reading, write_text
from lib.prepare.inspect_videos import inspect_videos

VIDEO_SUFFIXES = {".avi", ".mp4", ".mkv", ".webm", ".mov", ".mpg", ".mpeg", ".m4v"}
PARTS = ["train", "val"]
BROKEN_FILE = "broken.csv"
GROUPS_FILE = "groups.csv"
GROUP_COLUMNS = ("name", "group")
MAX_DEPTH = 6  # of folders below the root; links may form cycles
# Number of a clip at the end of a name: _c02, -clip3; else _000012_000022
_CLIP_NUMBER = re.compile(
    r"(?:[_\-. ]+(?:clip|part|seg|segment|scene|shot|c|p|s)[_\-]?\d+)+$|(?:[_\-. ]+\d+)+$", re.I
)


def index_folder(
    root: Path,
    folder: Path,
    val_fraction: float,
    seed: int,
    num_processes: int = 0,
    groups_file: Path | None = None,
) -> VideoDataset:
    """Index a folder of videos, `<class>/<video>` or `{train,val}/<class>/<video>`.

    A video is a file, or a folder of frames `img_00001.jpg` ... . Unreadable videos are left out
    and listed in `broken.csv`; the source of each video is listed in `groups.csv`.

    Args:
        root: The videos.
        folder: The prepared folder to create.
        val_fraction: Share of each class that becomes `val` if there is no folder `val`.
        seed: Seed of that split.
        num_processes: Worker processes; 0 for one per core.
        groups_file: Table of the source of each video; None derives sources from the names.
    """
    videos = find_videos(root)
    print(f"{root}: {len(videos)} videos in {videos['class'].nunique()} classes")
    index = open_videos(videos, root, folder, num_processes)
    classes = sorted(index["class"].unique())
    index["label"] = index["class"].map(classes.index)
    if groups_file is None:
        groups = groups_by_name(index["name"], index["class"])
    else:
        groups = groups_from_file(groups_file, index["name"])
    table = pd.DataFrame({"name": index["name"], "group": groups})
    write_text(folder / GROUPS_FILE, table.to_csv(index=False))
    if groups.nunique() < len(index):
        print(f"{groups.nunique()} groups of clips of one source video (all: {GROUPS_FILE})")
    source = {"made_by": "lib.prepare.own_folder", "root": str(root)}
    if videos["part"].iloc[0]:
        is_val = (index["part"] == "val").to_numpy()
    else:
        is_val = split_groups(index["label"].to_numpy(), groups.to_numpy(), val_fraction, seed)
        source |= {"val_fraction": val_fraction, "seed": seed, "groups": int(groups.nunique())}
        source["groups_file"] = groups_file and str(groups_file)
    splits = {"train": ~is_val, "val": is_val}
    for part, is_in in splits.items():
        if missing := sorted(set(classes) - set(index["class"][is_in])):
            raise ValueError(
                f"{root}: no readable video of {missing} in {part!r}: a class needs two videos, of "
                f"two sources ({GROUPS_FILE}); add videos, remove the class, or give train/ and "
                "val/ or a groups_file yourself"
            )
    if leaked := set(groups[is_val]) & set(groups[~is_val]):
        print(f"WARNING: {len(leaked)} groups are in train and in val, the first: {min(leaked)!r}")
    draft = VideoDataset("folder", folder, tuple(classes), root, index)
    for part, is_in in splits.items():
        write_split(draft, part, np.flatnonzero(is_in))
    return write_dataset(folder, "folder", classes, root, index, source)


def open_videos(
    videos: pd.DataFrame, root: Path, folder: Path, num_processes: int = 0
) -> pd.DataFrame:
    """Inspect every video; return the readable ones with the columns of `VideoInfo`.

    Args:
        videos: At least the column path, relative to `root`.
        root: The folder of the videos.
        folder: The prepared folder; gets `broken.csv` and the progress of the inspection.
        num_processes: Worker processes; 0 for one per core.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [root / path for path in videos["path"]]
    infos = inspect_videos(paths, num_processes, progress_file=folder / "opened.jsonl")
    index = pd.concat([videos.reset_index(drop=True), infos], axis=1)
    index["is_kept"] = infos["error"].isna()
    index["reason"] = infos["error"].fillna(infos["note"])
    report = index.loc[index["reason"].notna(), ["path", "is_kept", "reason"]]
    write_text(folder / BROKEN_FILE, report.to_csv(index=False))
    for is_kept, rows in report.groupby("is_kept"):
        text = "are damaged, and are kept" if is_kept else "cannot be read and are left out"
        print(f"{len(rows)} videos {text} (all: {folder / BROKEN_FILE}):")
        for path, reason in zip(rows["path"].head(10), rows["reason"], strict=False):
            print(f"  {path}: {reason}")
    index = index[index["is_kept"]].drop(columns=["error", "note", "is_kept", "reason"])
    if index.empty:
        raise ValueError(
            f"{root}: none of its {len(videos)} videos can be read; see {folder / BROKEN_FILE}"
        )
    return index.reset_index(drop=True)


def find_videos(root: Path) -> pd.DataFrame:
    """Return columns part, class, name, path of the videos below `root`, sorted by path."""
    if not root.is_dir():
        raise ValueError(f"videos_dir: {root} is not a folder")
    parts = [part for part in PARTS if (root / part).is_dir()]
    if parts not in ([], PARTS):
        raise ValueError(f"{root}: has {parts[0]!r} but not both of {PARTS}; create the other one")
    rows = [
        (part, name.split("/")[0], name, (Path(part) / path).as_posix())
        for part in parts or [""]
        for name, path in walk_videos(root / part, depth=1)
        if name[0] != "/"
    ]
    if not rows:
        raise ValueError(
            f"{root}: no videos ({', '.join(sorted(VIDEO_SUFFIXES))}) in class folders; expected "
            "<class>/<video> or {train,val}/<class>/<video>"
        )
    videos = pd.DataFrame(rows, columns=["part", "class", "name", "path"])
    _check_names(videos, root)
    return videos


def _check_names(videos: pd.DataFrame, root: Path) -> None:
    duplicates = videos[videos["name"].duplicated(keep=False)].sort_values(["name", "path"])
    if len(duplicates):
        raise ValueError(
            f"{root}: {duplicates['name'].nunique()} names are used by more than one video, the "
            f"first: {' and '.join(duplicates['path'].iloc[:2])}; rename or remove one of each"
        )
    for name, path in zip(videos["name"], videos["path"], strict=True):
        if not name.isprintable() or any(part != part.strip() for part in name.split("/", 1)):
            raise ValueError(
                f"{root}: the name {path!r} begins or ends with a space, or has characters that "
                "cannot be printed, which a split file cannot hold; rename it"
            )


def walk_videos(
    folder: Path, depth: int = MAX_DEPTH, inside: str = ""
) -> Iterator[tuple[str, str]]:
    """Yield name and path below `folder` of the videos in it: files and folders of frames.

    A name is `<its folder>/<stem>`. The search starts at the relative path `inside` and goes
    `depth` levels of folders down.
    """
    for entry in sorted(os.scandir(folder / inside), key=lambda entry: entry.name):
        path = f"{inside}/{entry.name}".lstrip("/")
        if _is_video(entry):
            stem = entry.name if entry.is_dir() else Path(entry.name).stem
            yield f"{Path(inside).name}/{stem}", path
        elif entry.is_dir() and not entry.name.startswith(".") and path.count("/") < depth:
            yield from walk_videos(folder, depth, path)


def _is_video(entry: os.DirEntry) -> bool:
    if entry.name.startswith("."):
        return False
    if Path(entry.name).suffix.lower() in VIDEO_SUFFIXES:
        return entry.is_file() or entry.is_symlink()  # a dead link is reported when it is opened
    return entry.is_dir() and os.path.exists(os.path.join(entry.path, FRAME_FILE.format(1)))


# --- Groups ---------------------------------------------------------------------------------------


def groups_by_name(names: pd.Series, classes: pd.Series) -> pd.Series:
    """Return the source of each video, derived from its name `class/stem`.

    The source is the name without the numbers at its end: `v_Diving_g01_c02` is of `v_Diving_g01`.
    If that leaves one source for a whole class (`walk_01`, `walk_02`), the numbers only count
    videos, and each video is its own source.
    """
    stems = names.str.rsplit("/", n=1).str[-1]
    sources = stems.str.replace(_CLIP_NUMBER, "", regex=True)
    is_counting = (sources.groupby(classes).transform("nunique") == 1) | (sources == "")
    return sources.where(~is_counting, names)


def groups_from_file(path: Path, names: pd.Series) -> pd.Series:
    """Return the source of each video from a CSV table with the columns name and group.

    A name is `class/stem`, with or without suffix.
    """
    with reading(f"groups_file: {path}", f"give a CSV table with the columns {GROUP_COLUMNS}"):
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        if missing := [column for column in GROUP_COLUMNS if column not in table]:
            raise ValueError(f"no column {missing}")
        is_name = table["name"].isin(names)
        keys = table["name"].where(is_name, table["name"].str.replace(r"\.[^./]+$", "", regex=True))
        if keys.duplicated().any():
            raise ValueError(f"{keys[keys.duplicated()].iloc[0]!r} is listed more than once")
    groups = names.map(dict(zip(keys, table["group"], strict=True)))
    if groups.isna().any():
        raise ValueError(
            f"groups_file: {path}: {groups.isna().sum()} of {len(names)} videos have no group, the "
            f"first: {names[groups.isna()].iloc[0]!r}"
        )
    return groups


def split_groups(labels: np.ndarray, groups: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Draw a share of each class's videos, whole groups only.

    Class by class, groups are taken in a random order as long as they bring the class nearer to
    its share; if every group is one video, that is a draw of a fixed number per class.

    Args:
        labels: Class index of each video, shape (N,).
        groups: Group of each video, shape (N,).
        fraction: Share, in (0, 1).
        seed: Seed of the order.

    Returns:
        True for the drawn videos, shape (N,).
    """
    is_drawn = np.zeros(len(labels), dtype=bool)
    decided: set = set()  # groups of earlier classes
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        sizes = pd.Series(groups[rows]).value_counts(sort=False)
        order = np.random.default_rng([seed, int(label)]).permutation(len(sizes))
        target = min(max(1, round(fraction * len(rows))), len(rows) - 1)
        count = int(is_drawn[rows].sum())
        free = {name: sizes[name] for name in sizes.index[order] if name not in decided}
        chosen = _choose_groups(free, count, target, len(rows))
        is_drawn |= pd.Series(groups).isin(chosen).to_numpy()
        decided |= set(free)
    return is_drawn


def _choose_groups(sizes: dict[str, int], count: int, target: int, limit: int) -> list[str]:
    """Return the groups that bring `count` nearest to `target`, in order; below `limit`."""
    chosen = []
    for name, size in sizes.items():
        if abs(count + size - target) < abs(count - target) and count + size < limit:
            chosen.append(name)
            count += size
    if count == 0 and sizes:  # every group is large
        smallest = min(sizes, key=lambda name: sizes[name])
        chosen = [smallest] if sizes[smallest] < limit else []
    return chosen
