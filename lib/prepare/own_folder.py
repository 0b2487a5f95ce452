"""Index any folder of videos: inspect, group and split them.

Clips of one source video share place, people and light. They form a group, and a split never
separates a group (leakage).
"""

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from lib.data.dataset import GROUPS_FILE, VideoDataset, write_dataset, write_split
from lib.fileio import write_text
from lib.prepare.find_videos import (
    count_text,
    find_videos,
    has_own_split,
    read_table,
    without_suffix,
)
from lib.prepare.inspect_videos import VideoInfo, inspect_videos

BROKEN_FILE = "broken.csv"
GROUP_COLUMNS = ("name", "group")
# Number of a clip at the end of a name: _c02, -clip3; else _000012_000022
_CLIP_NUMBER = re.compile(
    r"(?:[_\-. ]+(?:clip|part|seg|segment|scene|shot|c|p|s)[_\-]?\d+)+$|(?:[_\-. ]+\d+)+$", re.I
)
# In the names that cameras, phones and recorders give, next to numbers and dates
_CAMERA_WORDS = set(
    "video vid movie mov mvi img image photo dsc dscn dscf dji pxl gopr gopro gx gh imgp whatsapp "
    "signal telegram screen screenshot recording record rec capture webcam cam camera clip file "
    "sample untitled output new at am pm wa mp".split()
)


def index_folder(
    root: Path,
    folder: Path,
    val_fraction: float,
    seed: int,
    num_processes: int = 0,
    groups_file: Path | None = None,
) -> VideoDataset:
    """Index a folder of videos, laid out as `lib.prepare.find_videos` says.

    Unreadable videos are left out and listed in `broken.csv`; the source of each video is listed in
    `groups.csv`. The split `train` has labeled and unlabeled videos, `val` labeled ones only:
    without a folder `val` the share `val_fraction` of each class, drawn by `seed`. Without the
    table `groups_file`, the source of a video is derived from its name. ValueError if the folder or
    a table cannot be used, or a class lacks a video in a split.
    """
    videos, ignored = find_videos(root)
    print("\n".join([f"{root}: {count_text(videos)}", *(f"  left out: {x}" for x in ignored)]))
    index = open_videos(videos, root, folder, num_processes)
    classes = sorted(set(index["class"]) - {""})
    index["label"] = index["class"].map({name: k for k, name in enumerate(classes)} | {"": -1})
    names = index["name"].where(index["start_s"].isna(), index["video"])
    if groups_file is None:
        groups = groups_by_name(names, index["class"])
    else:
        groups = groups_from_file(groups_file, names)
    table = pd.DataFrame({"name": index["name"], "group": groups})
    write_text(folder / GROUPS_FILE, table.to_csv(index=False))
    if groups.nunique() < len(index):
        print(f"{groups.nunique()} groups of clips of one source video (all: {GROUPS_FILE})")
    source = {"made_by": "lib.prepare.own_folder", "root": str(root)}
    if has_own_split(videos):
        is_val = (index["part"] == "val").to_numpy()
    else:
        is_val = _draw_val(index, groups, val_fraction, seed)
        source |= {"val_fraction": val_fraction, "seed": seed, "groups": int(groups.nunique())}
        source["groups_file"] = groups_file and str(groups_file)
    splits = {"train": _train_rows(index, groups, is_val), "val": np.flatnonzero(is_val)}
    for part, rows in splits.items():
        if missing := sorted(set(classes) - set(index["class"].iloc[rows])):
            raise ValueError(
                f"{root}: no readable video of {missing} in {part!r}: a class needs two videos, of "
                f"two sources ({GROUPS_FILE}); add videos, remove the class, or give train/ and "
                "val/ or a groups_file yourself"
            )
    draft = VideoDataset("folder", folder, tuple(classes), root, index)
    for part, rows in splits.items():
        write_split(draft, part, rows)
    return write_dataset(folder, "folder", classes, root, index, source)


def _draw_val(index: pd.DataFrame, groups: pd.Series, fraction: float, seed: int) -> np.ndarray:
    """Return True for the labeled videos that are drawn for validation."""
    is_val, rows = np.zeros(len(index), dtype=bool), np.flatnonzero(index["label"] >= 0)
    labels = index["label"].to_numpy()[rows]
    is_val[rows] = split_groups(labels, groups.to_numpy()[rows], fraction, seed)
    counts = pd.DataFrame({"class": index["class"], "val": is_val}).iloc[rows].groupby("class")
    for name, (count, total) in counts["val"].agg(["sum", "count"]).iterrows():
        if abs(count - fraction * total) > max(1, 0.1 * total):
            print(
                f"WARNING: {count} of {total} videos of {name!r} are in val, since groups stay "
                f"whole; correct the groups in {GROUPS_FILE}, and give them as groups_file"
            )
    return is_val


def _train_rows(index: pd.DataFrame, groups: pd.Series, is_val: np.ndarray) -> np.ndarray:
    """Return the training videos: all others but unlabeled ones of the sources in `val`."""
    is_close = ~is_val & groups.isin(groups[is_val]).to_numpy()
    is_left_out = is_close & (index["label"] < 0).to_numpy()
    if is_left_out.any():
        print(f"{is_left_out.sum()} unlabeled videos are of sources in val and not trained on")
    if leaked := set(groups[is_close & ~is_left_out]):
        print(f"WARNING: {len(leaked)} groups are in train and in val, the first: {min(leaked)!r}")
    return np.flatnonzero(~is_val & ~is_left_out)


def open_videos(
    videos: pd.DataFrame, root: Path, folder: Path, num_processes: int = 0
) -> pd.DataFrame:
    """Inspect every video; return the readable ones with the columns of `VideoInfo`.

    `videos` have at least the column path, relative to `root`; a segment also start_s and end_s.
    The prepared folder gets `broken.csv` and the progress of the inspection.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = videos["path"].drop_duplicates()
    progress_file = folder / "opened.jsonl"
    infos = inspect_videos(
        [root / path for path in paths], num_processes, progress_file=progress_file
    )
    table = pd.DataFrame(infos, columns=VideoInfo._fields).assign(path=paths.to_numpy())
    index = videos.merge(table, on="path")
    if "start_s" in index:
        _cut_segments(index)
    index["is_kept"] = index["error"].isna()
    index["reason"] = index["error"].fillna(index["note"])
    report = index.loc[index["reason"].notna(), ["path", "is_kept", "reason"]].drop_duplicates()
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


def _cut_segments(index: pd.DataFrame) -> None:
    """Set the first frame and the number of frames of segments from their times, in place."""
    rates = index["fps"].where(index["fps"] > 0)
    first = (index["start_s"] * rates).round()
    last = (index["end_s"] * rates).round().clip(upper=index["frames"])
    is_segment = index["start_s"].notna() & index["error"].isna()
    is_outside = is_segment & ~(first < last)
    index.loc[is_outside, "error"] = [
        f"segment {start:g} to {end:g} s: the video has {frames} frames, {fps:g} a second"
        for start, end, frames, fps in index.loc[
            is_outside, ["start_s", "end_s", "frames", "fps"]
        ].itertuples(index=False)
    ]
    index["first_frame"] = first.where(is_segment, 0).fillna(0).astype(np.int64)
    index["frames"] = (last - first).where(is_segment, index["frames"]).fillna(0).astype(np.int64)


# --- Groups ---------------------------------------------------------------------------------------


def groups_by_name(names: pd.Series, classes: pd.Series) -> pd.Series:
    """Return the source of each video, derived from its name `class/stem`.

    The source is the name without the numbers at its end: `v_Diving_g01_c02` is of `v_Diving_g01`.
    If that leaves one source for a whole class (`walk_01`, `walk_02`), or the words of a camera's
    names (`VID_1001`), the numbers only count videos, and each video is its own source.
    """
    stems = names.str.rsplit("/", n=1).str[-1]
    sources = stems.str.replace(_CLIP_NUMBER, "", regex=True)
    is_counting = (sources.groupby(classes).transform("nunique") == 1) | (sources == "")
    words = sources.str.lower().str.findall("[a-z][a-z]+").map(set)
    is_counting |= words.map(_CAMERA_WORDS.issuperset)
    return sources.where(~is_counting, names)


def groups_from_file(path: Path, names: pd.Series) -> pd.Series:
    """Return the source of each video from a CSV table with the columns name and group.

    A name is `class/stem`, with or without suffix.
    """
    table = read_table(path, GROUP_COLUMNS)
    keys = table["name"].where(table["name"].isin(names), table["name"].map(without_suffix))
    if keys.duplicated().any():
        raise ValueError(f"{path}: {keys[keys.duplicated()].iloc[0]!r} is listed more than once")
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

    Returns True for the drawn ones of N videos with class indices `labels` and groups `groups`; the
    share is in (0, 1).
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
        if not is_drawn[rows].any():  # earlier classes left all its groups to the others
            is_drawn = _draw_smallest(is_drawn, labels, groups, sizes.sort_values().index)
        decided |= set(free)
    return is_drawn


def _draw_smallest(
    is_drawn: np.ndarray, labels: np.ndarray, groups: np.ndarray, names: Iterable[str]
) -> np.ndarray:
    """Draw the first group too that leaves a video of every class undrawn, if there is one."""
    for name in names:
        more = is_drawn | (groups == name)
        if set(labels[~more]) == set(labels):
            return more
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
