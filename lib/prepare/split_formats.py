"""Read the formats in which splits are published.

All readers keep the order of the file; their ValueErrors have the file, the line and the format.
"""

import re
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from lib.data.dataset import parse_split
from lib.fileio import reading
from lib.prepare.find_videos import VIDEO_SUFFIXES

_SUFFIX = "|".join(sorted(suffix[1:] for suffix in VIDEO_SUFFIXES))
# The last folder and the stem of a video file, and numbers
VIDEO_LINE = re.compile(rf"(?:.*/)?([^/]+/[^/]+)\.(?:{_SUFFIX})((?:[\s,]+\d+){{0,2}})", re.I)
HMDB_PARTS = {"1": "train", "2": "test", "0": "unused"}


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


def read_ucf_split(folder: Path, split: int) -> dict[str, list[SplitEntry]]:
    """Read "train" and "test" of UCF-101's official split 1, 2 or 3 from a folder, at any depth."""
    return {
        part: read_video_list(_files(folder, f"{part}list{split:02d}.txt")[0])
        for part in ("train", "test")
    }


def read_hmdb_split(folder: Path, split: int) -> dict[str, list[SplitEntry]]:
    """Read HMDB-51's official split 1, 2 or 3 from a folder, at any depth.

    Its files `<class>_test_split<n>.txt` have lines `video.avi 0|1|2`: "unused", "train", "test".
    """
    parts = {part: [] for part in HMDB_PARTS.values()}
    suffix = f"_test_split{split}.txt"
    for path in _files(folder, f"*{suffix}"):
        for number, line in _lines(path):
            fields = line.rsplit(maxsplit=1)
            if len(fields) != 2 or fields[1] not in HMDB_PARTS:
                raise ValueError(f"{path}, line {number}: {line!r} is not `video.avi 0|1|2`")
            name = f"{path.name.removesuffix(suffix)}/{fields[0].removesuffix('.avi')}"
            parts[HMDB_PARTS[fields[1]]].append(SplitEntry(name))
    return parts


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


def _files(folder: Path, pattern: str) -> list[Path]:
    """Return the files below a folder, sorted by name; ValueError if none matches the pattern."""
    if files := sorted(folder.rglob(pattern), key=lambda path: path.name):
        return files
    raise ValueError(f"{folder}: has no {pattern}")
