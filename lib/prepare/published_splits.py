"""Published splits: their formats, matching of names, import; numbers of videos.

All readers keep the order of the file; their ValueErrors have the file, the line and the format.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from lib.data.dataset import VideoDataset, parse_split, write_split
from lib.fileio import reading, write_text
from lib.prepare.find_videos import VIDEO_SUFFIXES

_SUFFIX = "|".join(sorted(suffix[1:] for suffix in VIDEO_SUFFIXES))
# The last folder and the stem of a video file, and numbers
VIDEO_LINE = re.compile(rf"(?:.*/)?([^/]+/[^/]+)\.(?:{_SUFFIX})((?:[\s,]+\d+){{0,2}})", re.I)


class SplitEntry(NamedTuple):
    """One video of a published split, with its label and number of frames if the split has them."""

    name: str  # `class/stem`, or the stem alone if the split has no classes
    label: int | None = None
    frames: int | None = None


def read_split_file(path: Path) -> list[SplitEntry]:
    """Read a split in any format of one file, recognized by its suffix and first line.

    Formats: lines `class/name frames label`; video files with or without frames and label (UCF-101,
    MMAction2, VideoMAE); Kinetics' `.csv`.
    """
    if VIDEO_LINE.fullmatch(_lines(path)[0][1]):
        return read_video_list(path)
    return read_kinetics_csv(path) if path.suffix == ".csv" else read_reference_split(path)


def read_reference_split(path: Path) -> list[SplitEntry]:
    """Read `class/name frames label` (the reference, MMAction2) or `id frames label` (TSM, TCL)."""
    names, labels, frames = parse_split(path)
    return list(map(SplitEntry, names, labels.tolist(), frames.tolist()))


def read_video_list(path: Path) -> list[SplitEntry]:
    """Read lines `Class/video.avi [frames] [label]`, separated by blanks or commas.

    Other folders in front are left out. The labels are from 1, as in UCF-101's `trainlist01.txt`,
    unless there is a 0.
    """
    rows = []
    for number, line in _lines(path):
        match = VIDEO_LINE.fullmatch(line)
        if not match:
            raise ValueError(
                f"{path}, line {number}: {line!r} is not `Class/video.avi [frames] [label]`"
            )
        numbers = [int(text) for text in match[2].replace(",", " ").split()]
        rows.append((match[1], *([None, None, *numbers][-2:] if numbers else [None, None])))
    first = 0 if any(label == 0 for _, _, label in rows) else 1
    return [
        SplitEntry(name, None if label is None else label - first, frames)
        for name, frames, label in rows
    ]


def read_kinetics_csv(path: Path) -> list[SplitEntry]:
    """Read Kinetics' `train.csv` or `val.csv`: label, youtube_id, time_start, time_end, ...

    A clip is named as in CVDF's archives, `<id>_<start>_<end>` with six digits each. A test split
    without labels gives names without a class.
    """
    with reading(path, "it needs columns youtube_id, time_start and time_end, in UTF-8 text"):
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
        times = table[["time_start", "time_end"]].astype(float).astype(int)
        stems = table["youtube_id"] + times.map("_{:06d}".format).sum(axis=1)
        labels = table["label"].str.replace(" ", "_") if "label" in table else ""
        return list(map(SplitEntry, (labels + "/" + stems).str.removeprefix("/")))


def read_categories(path: Path) -> list[str]:
    """Read class names, one per line; the position of a line is the label."""
    return [line for _, line in _lines(path)]


def _lines(path: Path) -> list[tuple[int, str]]:
    """Return (number, text) of the lines that are not blank."""
    with reading(path, "give a split file in UTF-8 text"):
        lines = enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1)
    if not (lines := [(number, line.strip()) for number, line in lines if line.strip()]):
        raise ValueError(f"{path}: the file is empty")
    return lines


# --- Import ---------------------------------------------------------------------------------------


def import_split(
    dataset: VideoDataset, split_name: str, entries: Sequence[SplitEntry], source: str
) -> pd.DataFrame:
    """Write a published split as a split of this data set, and print a summary.

    Videos that are not in the index are left out, and labels are those of the index; both are
    reported in `splits/<split_name>.problems.csv`, and returned: columns name, problem, in_list,
    here; one row for each video that is missing or of an unknown class, or whose frames or label
    differ. ValueError, with `source`, if a video is listed twice, or none is in the index.
    """
    matches = find_entries(dataset, [entry.name for entry in entries])
    rows = matches[matches >= 0]
    names = dataset.index["name"]
    if len(rows) == 0:
        raise ValueError(
            f"{source}: none of its {len(entries)} videos is in {dataset.folder / 'index.csv'}, "
            f"{[entry.name for entry in entries[:1]]} there, {names.iloc[0]!r} here; is it a split "
            "of another data set?"
        )
    if len(duplicates := rows[pd.Index(rows).duplicated()]):
        raise ValueError(f"{source}: lists {names.iloc[duplicates[0]]!r} more than once")
    columns = ["name", "problem", "in_list", "here"]
    problems = pd.DataFrame(_problems(dataset, entries, matches), columns=columns)
    write_split(dataset, split_name, rows)
    report = dataset.folder / "splits" / f"{split_name}.problems.csv"
    if len(problems):
        write_text(report, problems.to_csv(index=False))
    else:
        report.unlink(missing_ok=True)
    counts = problems["problem"].value_counts(sort=False)
    parts = [f"{count} {problem}" for problem, count in counts.items()]
    print(", ".join([f"{split_name}: {len(rows)} videos", *parts]))
    return problems


def _problems(
    dataset: VideoDataset, entries: Sequence[SplitEntry], rows: np.ndarray
) -> Iterator[tuple]:
    labels, frames = dataset.index["label"].to_numpy(), dataset.index["frames"].to_numpy()
    classes = {normalize_class(name) for name in dataset.classes}
    for entry, row in zip(entries, rows.tolist(), strict=True):
        if row < 0:
            class_name = entry.name.rpartition("/")[0]
            is_known = not class_name or normalize_class(class_name) in classes
            yield entry.name, "missing" if is_known else "of an unknown class", "", ""
            continue
        if entry.frames is not None and entry.frames != frames[row]:
            yield entry.name, "with other frames", entry.frames, int(frames[row])
        if entry.label is not None and entry.label != labels[row]:
            yield entry.name, "with another label", entry.label, int(labels[row])


def find_entries(dataset: VideoDataset, names: Sequence[str]) -> np.ndarray:
    """Return the index rows of videos by their names in a published split, -1 where absent, int64.

    Keys are tried in turn: the whole name; the class in any spelling (blanks, underscores,
    brackets, capitals); the last folder and the stem; for a name without a class the stem; in
    Kinetics, the YouTube id.
    """
    keys = [(str, str), (normalize_name, normalize_name)]
    keys += [(str, lambda name: "/".join(name.split("/")[-2:])), (str, stem_of)]
    keys += [(youtube_id, youtube_id)] if has_youtube_ids(dataset.name) else []
    return match_names(names, dataset.index["name"].tolist(), keys)


def match_names(
    names: Sequence[str],
    candidates: Sequence[str],
    keys: Iterable[tuple[Callable[[str], str], Callable[[str], str]]],
) -> np.ndarray:
    """Match names with candidates; both are `class/stem` or the stem alone.

    The pairs (key of a name, key of a candidate) are tried in order; a key that several candidates
    share matches none of them. Returns positions in `candidates`, -1 without a match, int64.
    """
    positions = np.full(len(names), -1, dtype=np.int64)
    for name_key, candidate_key in keys:
        table = pd.Series(np.arange(len(candidates)), index=[candidate_key(c) for c in candidates])
        table = table[~table.index.duplicated(keep=False)]
        matches = table.reindex([name_key(name) for name in names], fill_value=-1).to_numpy()
        positions = np.where(positions < 0, matches, positions)
    return positions


def normalize_class(name: str) -> str:
    """Return a class name in lower case, with `_` for all but letters and digits."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def normalize_name(name: str) -> str:
    """Return `class/stem` with the class normalized."""
    class_name, _, stem = name.rpartition("/")
    return f"{normalize_class(class_name)}/{stem}"


def stem_of(name: str) -> str:
    """Return a name without its class."""
    return name.rpartition("/")[2]


def youtube_id(name: str) -> str:
    """Return the YouTube id, 11 characters, at the beginning of a name in Kinetics."""
    return stem_of(name)[:11]


def has_youtube_ids(dataset_name: str) -> bool:
    """Return True if a data set's videos are named by their YouTube ids."""
    return dataset_name.startswith("kinetics")


# --- Numbers --------------------------------------------------------------------------------------


def summarize_splits(dataset: VideoDataset) -> pd.DataFrame:
    """Return one row per split of a data set, with the names of the splits as index.

    Columns: videos; unlabeled (videos without a class); classes (with a video in the split); fewest
    and most (videos of a class, over all classes); of_train (share of `train` in the split).
    """
    names = dataset.split_names()
    train = dataset.read_split("train") if "train" in names else np.zeros(0)
    rows = {}
    for name in names:
        videos, counts = dataset.read_split(name), class_counts(dataset, name)
        share = np.isin(train, videos).mean() if len(train) else float("nan")
        unlabeled = len(videos) - int(counts.sum())
        classes = int((counts > 0).sum())
        rows[name] = (len(videos), unlabeled, classes, counts.min(), counts.max(), share)
    columns = ["videos", "unlabeled", "classes", "fewest", "most", "of_train"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def class_counts(dataset: VideoDataset, split_name: str) -> pd.Series:
    """Return the number of videos per class of a split, classes in label order, int64."""
    _, labels = dataset.read_labels(split_name)  # those of the split file
    counts = np.bincount(labels[labels >= 0], minlength=len(dataset.classes))
    return pd.Series(counts, index=list(dataset.classes))
