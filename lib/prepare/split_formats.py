"""Read the formats in which splits are published.

All readers return the entries in the order of the file. Errors name the file, the line and the
expected format.
"""

import csv
import json
import re
from pathlib import Path
from typing import NamedTuple

from lib.data.dataset import parse_split
from lib.fileio import reading

HMDB_PARTS = {"1": "train", "2": "test", "0": "unused"}


class SplitEntry(NamedTuple):
    """One video of a published split.

    Attributes:
        name: `class/stem`, or the stem alone if the split does not give the class.
        label: Label in the split, or None.
        frames: Number of frames in the split, or None.
    """

    name: str
    label: int | None = None
    frames: int | None = None


def read_split_file(path: Path) -> list[SplitEntry]:
    """Read a split in any format of one file, recognized by its suffix and first line.

    Formats: lines `class/name frames label`; UCF-101's `Class/video.avi [label]`; Kinetics'
    `.csv`; Something-Something's `.json` with its `labels.json` in the same folder.

    Raises:
        ValueError: If it cannot be read; names the file and the line.
    """
    if path.suffix == ".csv":
        return read_kinetics_csv(path)
    if path.suffix == ".json":
        return read_something_json(path, path.with_name("labels.json"))
    first = next((line for _, line in _lines(path)), "")
    is_ucf = re.fullmatch(r"\S.*\.avi(\s+\d+)?", first)
    return read_ucf_split_file(path) if is_ucf else read_reference_split(path)


def read_reference_split(path: Path) -> list[SplitEntry]:
    """Read lines `class/name frames label`, or `id frames label`.

    The former are those of the reference and of MMAction2's rawframes, the latter those of TSM and
    TCL for Something-Something v2.
    """
    names, labels, frames = parse_split(path)
    return list(map(SplitEntry, names, labels.tolist(), frames.tolist()))


def read_ucf_split_file(path: Path) -> list[SplitEntry]:
    """Read UCF-101's `trainlist01.txt` (`Class/v_Class_g08_c01.avi 1`) or `testlist01.txt`.

    Training labels start at 1; test splits have no labels.
    """
    entries = []
    for number, line in _lines(path):
        match = re.fullmatch(r"(\S+/\S.*?)\.avi(?:\s+(\d+))?", line)
        if not match:
            raise ValueError(f"{path}, line {number}: {line!r} is not `Class/video.avi [label]`")
        entries.append(SplitEntry(match[1], None if match[2] is None else int(match[2]) - 1))
    return _not_empty(entries, path)


def read_ucf_split(folder: Path, split: int) -> dict[str, list[SplitEntry]]:
    """Read "train" and "test" of UCF-101's official split 1, 2 or 3 from a folder, at any depth."""
    return {
        part: read_ucf_split_file(_files(folder, f"{part}list{split:02d}.txt")[0])
        for part in ("train", "test")
    }


def read_hmdb_split(folder: Path, split: int) -> dict[str, list[SplitEntry]]:
    """Read HMDB-51's official split 1, 2 or 3 from a folder, at any depth.

    Its files `<class>_test_split<n>.txt` have lines `video.avi 0|1|2`.

    Returns:
        Entries of "train", "test" and "unused" (clips that the split leaves out).
    """
    parts: dict[str, list[SplitEntry]] = {part: [] for part in HMDB_PARTS.values()}
    suffix = f"_test_split{split}.txt"
    for path in _files(folder, f"*{suffix}"):
        for number, line in _lines(path):
            fields = line.rsplit(maxsplit=1)
            if len(fields) != 2 or fields[1] not in HMDB_PARTS:
                raise ValueError(f"{path}, line {number}: {line!r} is not `video.avi 0|1|2`")
            name = f"{path.name.removesuffix(suffix)}/{fields[0].removesuffix('.avi')}"
            parts[HMDB_PARTS[fields[1]]].append(SplitEntry(name))
    _not_empty(parts["train"], folder)
    return parts


def read_kinetics_csv(path: Path) -> list[SplitEntry]:
    """Read Kinetics' `train.csv` or `val.csv`: label, youtube_id, time_start, time_end, ...

    A clip is named as in CVDF's archives, `<id>_<start>_<end>` with six digits each. A test split
    without labels gives names without a class.
    """
    entries = []
    for number, row in enumerate(csv.DictReader(_text(path).splitlines()), start=2):
        try:
            start, end = int(float(row["time_start"])), int(float(row["time_end"]))
            stem = f"{row['youtube_id']}_{start:06d}_{end:06d}"
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path}, line {number}: needs the columns youtube_id, time_start and time_end "
                f"({error}); it has {list(row)}"
            ) from error
        label = row.get("label", "").replace(" ", "_")
        entries.append(SplitEntry(f"{label}/{stem}" if label else stem))
    return _not_empty(entries, path)


def read_something_json(path: Path, labels_path: Path) -> list[SplitEntry]:
    """Read Something-Something v2's `train.json` with its `labels.json`.

    Args:
        path: Records with `id` and `template`.
        labels_path: {template without brackets: label}.
    """
    with reading(labels_path, "get the file that came with the split"):
        labels = {_plain(n): int(i) for n, i in json.loads(labels_path.read_bytes()).items()}
    with reading(path, "it must be a JSON list of records with `id` and a known `template`"):
        records = json.loads(path.read_bytes())
        entries = [SplitEntry(str(r["id"]), labels[_plain(r["template"])]) for r in records]
    return _not_empty(entries, path)


def _plain(template: str) -> str:
    return template.replace("[", "").replace("]", "")


def read_categories(path: Path) -> list[str]:
    """Read class names, one per line; the position of a line is the label."""
    return [line for _, line in _lines(path)]


def _text(path: Path) -> str:
    with reading(path, "give a split file in UTF-8 text"):
        return path.read_text(encoding="utf-8-sig")


def _lines(path: Path) -> list[tuple[int, str]]:
    """Return (number, text) of the lines that are not blank, without outer blanks."""
    lines = enumerate(_text(path).splitlines(), start=1)
    return [(number, line.strip()) for number, line in lines if line.strip()]


def _files(folder: Path, pattern: str) -> list[Path]:
    """Return the files below a folder whose name matches a pattern, sorted by name."""
    files = sorted(folder.rglob(pattern), key=lambda path: path.name)
    if not files:
        raise ValueError(f"{folder}: has no {pattern}")
    return files


def _not_empty(entries: list[SplitEntry], path: Path) -> list[SplitEntry]:
    if not entries:
        raise ValueError(f"{path}: the split is empty")
    return entries
