"""Clips of one source video: they stay on one side of a split, or training would see the answers.

Two clips cut from one video share the place, the people and the light.
"""

import re
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from lib.data.video_reader import read_frames
from lib.fileio import reading

# What numbers the clips of one source at the end of a name: _c02, -clip3; else _000012_000022
_NUMBERED = re.compile(
    r"(?:[_\-. ]+(?:clip|part|seg|segment|scene|shot|c|p|s)[_\-]?\d+)+$|(?:[_\-. ]+\d+)+$", re.I
)
GROUP_COLUMNS = ("name", "group")
THUMBNAIL = 16  # side of the pictures that are compared, pixels
NEAR = 3.0  # mean difference of two of them that are taken for the same, of 255


def groups_by_name(names: pd.Series, classes: pd.Series) -> pd.Series:
    """Return for each video the source it was cut from, as far as names tell.

    The source is the name without the numbers at its end: `v_Diving_g01_c02` is of `v_Diving_g01`.
    Where that leaves one source for a whole class (`walk_01`, `walk_02`), numbers merely count
    videos, and each stands for itself.

    Args:
        names: `class/stem`.
        classes: Class of each.
    """
    stems = names.str.rsplit("/", n=1).str[-1]
    sources = stems.str.replace(_NUMBERED, "", regex=True)
    is_counting = (sources.groupby(classes).transform("nunique") == 1) | (sources == "")
    return sources.where(~is_counting, names)


def groups_from_file(path: Path, names: pd.Series) -> pd.Series:
    """Return for each video the source that a table names.

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
    keys = [name if name in set(names) else str(Path(name).with_suffix("")) for name in table.name]
    if (twice := pd.Index(keys)).has_duplicates:
        raise ValueError(
            f"groups_file: {path}: {twice[twice.duplicated()][0]!r} stands there twice"
        )
    groups = names.map(dict(zip(keys, table["group"], strict=True)))
    if groups.isna().any():
        lacking = names[groups.isna()]
        raise ValueError(
            f"groups_file: {path}: {len(lacking)} of {len(names)} videos have no group, the "
            f"first: {lacking.iloc[0]!r}"
        )
    return groups


def split_groups(labels: np.ndarray, groups: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Draw a share of each class's videos, whole groups only.

    Class by class, groups are taken in a drawn order as long as they bring the class nearer to its
    share; without groups of several videos that is a draw of so many videos of each class.

    Args:
        labels: Class index of each video, shape (N,).
        groups: Group of each, shape (N,).
        fraction: Share, in (0, 1).
        seed: Seed of the order.

    Returns:
        Which videos are drawn, shape (N,), bool.
    """
    drawn = np.zeros(len(labels), dtype=bool)
    members = pd.Series(np.arange(len(labels))).groupby(groups, sort=False).indices
    settled: set = set()  # groups that an earlier class has decided on
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        sizes = pd.Series(groups[rows]).value_counts(sort=False)
        order = np.random.default_rng([seed, int(label)]).permutation(len(sizes))
        wanted = min(max(1, round(fraction * len(rows))), len(rows) - 1)
        count = int(drawn[rows].sum())
        free = {name: sizes[name] for name in sizes.index[order] if name not in settled}
        for name in _fill(free, count, wanted, len(rows)):
            drawn[members[name]] = True
        settled |= set(free)
    return drawn


def _fill(sizes: dict[str, int], count: int, wanted: int, limit: int) -> list[str]:
    """Return the groups that bring `count` nearest to `wanted`, in order; below `limit`."""
    taken = []
    for name, size in sizes.items():
        if abs(count + size - wanted) < abs(count - wanted) and count + size < limit:
            taken.append(name)
            count += size
    if count == 0 and sizes:  # all are large
        smallest = min(sizes, key=lambda name: sizes[name])
        taken = [smallest] if sizes[smallest] < limit else []
    return taken


def near_equal_starts(paths: list[Path], is_val: np.ndarray) -> list[tuple[Path, Path]]:
    """Return pairs of a validation and a training video that begin with nearly the same picture.

    Args:
        paths: Of all videos; one that cannot be read is left out.
        is_val: Which of them are for validation, shape (N,), bool.

    Returns:
        For each such validation video the nearest training video.
    """
    pictures = np.stack([_thumbnail(path) for path in paths]).reshape(len(paths), -1)
    train = np.flatnonzero(~is_val)
    pairs = []
    for row in np.flatnonzero(is_val):
        difference = np.abs(pictures[train] - pictures[row]).mean(axis=1)
        nearest = int(np.argmin(np.nan_to_num(difference, nan=np.inf)))
        if difference[nearest] < NEAR:
            pairs.append((paths[row], paths[train[nearest]]))
    return pairs


def _thumbnail(path: Path) -> np.ndarray:
    """Return the first frame, small and grey, shape (THUMBNAIL, THUMBNAIL); NaN if unreadable."""
    try:
        frame = read_frames(path, np.array([0]))[0].mean(axis=2)
    except ValueError:
        return np.full((THUMBNAIL, THUMBNAIL), np.nan, dtype=np.float32)
    size = (THUMBNAIL, THUMBNAIL)
    return np.asarray(Image.fromarray(frame.astype(np.float32)).resize(size, Image.Resampling.BOX))
