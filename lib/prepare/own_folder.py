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
PARTS = ("train", "val")
LAYOUTS = "<class>/<video> or {train,val}/<class>/<video>"
BROKEN_FILE = "broken.csv"
GROUPS_FILE = "groups.csv"
GROUP_COLUMNS = ("name", "group")
PROGRESS_FILE = "opened.jsonl"
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
    and listed in `broken.csv`.

    Args:
        root: The videos.
        folder: The prepared folder to create.
        val_fraction: Share of each class that becomes `val` if there is no folder `val`.
        seed: Seed of that split.
        num_processes: Worker processes; 0 for one per core.
        groups_file: Table of the source of each video; None derives sources from the names.
            `groups.csv` lists the result.

    Raises:
        ValueError: If there is no class folder or no video, two videos have one name, or a class
            has too few videos to be split.
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
    _check_split(index, is_val, root)
    if leaked := set(groups[is_val]) & set(groups[~is_val]):
        print(f"WARNING: {len(leaked)} groups are in train and in val, the first: {min(leaked)!r}")
    draft = VideoDataset("folder", folder, tuple(classes), root, index)
    write_split(draft, "train", np.flatnonzero(~is_val))
    write_split(draft, "val", np.flatnonzero(is_val))
    return write_dataset(folder, "folder", classes, root, index, source)


def _check_split(index: pd.DataFrame, is_val: np.ndarray, root: Path) -> None:
    for part, is_in in (("train", ~is_val), ("val", is_val)):
        if missing := sorted(set(index["class"]) - set(index["class"][is_in])):
            raise ValueError(
                f"{root}: no readable video of {missing} in {part!r}: a class needs two videos, of "
                f"two sources ({GROUPS_FILE}); add videos, remove the class, or give train/ and "
                "val/ or a groups_file yourself"
            )


def open_videos(
    videos: pd.DataFrame, root: Path, folder: Path, num_processes: int = 0
) -> pd.DataFrame:
    """Inspect every video; return the readable ones with the columns of `VideoInfo`.

    Args:
        videos: At least the column path, relative to `root`.
        root: The folder of the videos.
        folder: The prepared folder; gets `broken.csv` and the progress of the inspection.
        num_processes: Worker processes; 0 for one per core.

    Raises:
        ValueError: If no video can be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [root / path for path in videos["path"]]
    infos = inspect_videos(paths, num_processes, progress_file=folder / PROGRESS_FILE)
    is_broken = infos["error"].notna().to_numpy()
    problems = infos["error"].fillna(infos["note"])
    report = pd.DataFrame(
        {"path": videos["path"].to_numpy(), "is_kept": ~is_broken, "reason": problems}
    )[problems.notna()]
    write_text(folder / BROKEN_FILE, report.to_csv(index=False))
    for is_kept, text in (
        (False, "cannot be read and are left out"),
        (True, "are damaged or shorter than their header says, and are kept"),
    ):
        rows = report[report["is_kept"] == is_kept]
        if len(rows):
            print(f"{len(rows)} videos {text} (all: {folder / BROKEN_FILE}):")
            for path, reason in rows[["path", "reason"]].head(10).itertuples(index=False):
                print(f"  {path}: {reason}")
    infos = infos.drop(columns=["error", "note"])
    index = pd.concat([videos.reset_index(drop=True), infos], axis=1)[~is_broken]
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
        raise ValueError(
            f"{root}: no videos ({', '.join(sorted(VIDEO_SUFFIXES))}) in class folders; expected "
            f"{LAYOUTS}"
        )
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
    """Yield the videos in a folder, sorted by path: files and folders of frames.

    Args:
        folder: The folder.
        depth: Levels of folders below it to search.
        inside: Relative path to start from.

    Yields:
        The name, `<its folder>/<stem>`, and the path below `folder`.
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
    """Return the source of each video, derived from its name.

    The source is the name without the numbers at its end: `v_Diving_g01_c02` is of `v_Diving_g01`.
    If that leaves one source for a whole class (`walk_01`, `walk_02`), the numbers only count
    videos, and each video is its own source.

    Args:
        names: `class/stem`.
        classes: Class of each.
    """
    stems = names.str.rsplit("/", n=1).str[-1]
    sources = stems.str.replace(_CLIP_NUMBER, "", regex=True)
    is_counting = (sources.groupby(classes).transform("nunique") == 1) | (sources == "")
    return sources.where(~is_counting, names)


def groups_from_file(path: Path, names: pd.Series) -> pd.Series:
    """Return the source of each video from a table.

    Args:
        path: CSV with the columns name (`class/stem`, with or without suffix) and group.
        names: `class/stem`.

    Raises:
        ValueError: If the file cannot be read, lacks a column or a video, or has one twice.
    """
    with reading(f"groups_file: {path}", f"give a CSV table with the columns {GROUP_COLUMNS}"):
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    if missing := [column for column in GROUP_COLUMNS if column not in table]:
        raise ValueError(f"groups_file: {path}: no column {missing}; it has {list(table.columns)}")
    known = set(names)
    keys = [name if name in known else str(Path(name).with_suffix("")) for name in table["name"]]
    if (duplicates := pd.Index(keys)).has_duplicates:
        first = duplicates[duplicates.duplicated()][0]
        raise ValueError(f"groups_file: {path}: {first!r} is listed more than once")
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
        True for the drawn videos, shape (N,), bool.
    """
    is_drawn = np.zeros(len(labels), dtype=bool)
    members = pd.Series(np.arange(len(labels))).groupby(groups, sort=False).indices
    decided: set = set()  # groups of earlier classes
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        sizes = pd.Series(groups[rows]).value_counts(sort=False)
        order = np.random.default_rng([seed, int(label)]).permutation(len(sizes))
        target = min(max(1, round(fraction * len(rows))), len(rows) - 1)
        count = int(is_drawn[rows].sum())
        free = {name: sizes[name] for name in sizes.index[order] if name not in decided}
        for name in _choose_groups(free, count, target, len(rows)):
            is_drawn[members[name]] = True
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
