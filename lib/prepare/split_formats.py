"""Reading the lists in which data sets are published, each in its own format.

All readers return the entries in the order of the file; errors name the file, the line and what was
expected there.
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
    """One line of a list.

    Attributes:
        name: `class/stem`, or the stem alone where the list does not say the class.
        label: The label that the list gives, or None.
        frames: The number of frames that it gives, or None.
    """

    name: str
    label: int | None = None
    frames: int | None = None


def read_split_file(path: Path) -> list[SplitEntry]:
    """Read a list in any of the formats of one file, told apart by its ending and first line.

    Those are: lines `class/name frames label`; UCF-101's `Class/video.avi [label]`; Kinetics'
    `.csv`; Something-Something's `.json` with its `labels.json` beside it.

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

    The first are the reference's, as MMAction2's rawframes lists; the others those of TSM and TCL
    of Something-Something v2.
    """
    names, labels, frames = parse_split(path)
    return list(map(SplitEntry, names, labels.tolist(), frames.tolist()))


def read_ucf_split_file(path: Path) -> list[SplitEntry]:
    """Read UCF-101's `trainlist01.txt` (`Class/v_Class_g08_c01.avi 1`) or `testlist01.txt`.

    The test lists have no labels; the training lists count from 1.
    """
    entries = []
    for number, line in _lines(path):
        match = re.fullmatch(r"(\S+/\S.*?)\.avi(?:\s+(\d+))?", line)
        if not match:
            raise ValueError(f"{path}, line {number}: {line!r} is not `Class/video.avi [label]`")
        label = None if match[2] is None else int(match[2]) - 1
        entries.append(SplitEntry(match[1], label))
    return _not_empty(entries, path)


def read_ucf_split(folder: Path, split: int) -> dict[str, list[SplitEntry]]:
    """Read UCF-101's official split from a folder of its files, at any depth.

    Args:
        folder: Holds `trainlist01.txt`, `testlist01.txt` and so on.
        split: 1, 2 or 3.

    Returns:
        Entries of "train" and "test".
    """
    parts = ("train", "test")
    return {
        part: read_ucf_split_file(_files(folder, f"{part}list{split:02d}.txt")[0]) for part in parts
    }


def read_hmdb_split(folder: Path, split: int) -> dict[str, list[SplitEntry]]:
    """Read HMDB-51's official split from a folder of its files, at any depth.

    Args:
        folder: Holds `<class>_test_split<n>.txt`, lines `video.avi 0|1|2`.
        split: 1, 2 or 3.

    Returns:
        Entries of "train", "test" and "unused" (clips that the split leaves out).
    """
    parts: dict[str, list[SplitEntry]] = {part: [] for part in HMDB_PARTS.values()}
    ending = f"_test_split{split}.txt"
    for path in _files(folder, f"*{ending}"):
        for number, line in _lines(path):
            fields = line.rsplit(maxsplit=1)
            if len(fields) != 2 or fields[1] not in HMDB_PARTS:
                raise ValueError(f"{path}, line {number}: {line!r} is not `video.avi 0|1|2`")
            name = f"{path.name.removesuffix(ending)}/{fields[0].removesuffix('.avi')}"
            parts[HMDB_PARTS[fields[1]]].append(SplitEntry(name))
    _not_empty(parts["train"], folder)
    return parts


def read_kinetics_csv(path: Path) -> list[SplitEntry]:
    """Read Kinetics' `train.csv` or `val.csv`: label, youtube_id, time_start, time_end, ...

    A clip is named as CVDF's archives do, `<id>_<start>_<end>` with six digits each. A test list
    without labels gives names without a class.
    """
    entries = []
    reader = csv.DictReader(_text(path).splitlines())
    for number, row in enumerate(reader, start=2):
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
    found = _json(labels_path, dict)
    with reading(labels_path, "take the file that came with the list"):
        labels = {_plain(name): int(label) for name, label in found.items()}
    entries = []
    for number, record in enumerate(_json(path, list), start=1):
        try:
            template = _plain(record["template"])
            entries.append(SplitEntry(str(record["id"]), labels[template]))
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"{path}, record {number}: {error} is missing; expected `id` and a `template` of "
                f"{labels_path}"
            ) from error
    return _not_empty(entries, path)


def read_categories(path: Path) -> list[str]:
    """Read class names, one a line, the line's position being the label."""
    return [line for _, line in _lines(path)]


def _plain(template: str) -> str:
    return template.replace("[", "").replace("]", "")


def _json(path: Path, kind: type) -> list | dict:
    with reading(path, "it must be JSON, get it again"):
        value = json.loads(path.read_bytes())
        if not isinstance(value, kind):
            raise ValueError(f"holds a {type(value).__name__}, expected a {kind.__name__}")
        return value


def _text(path: Path) -> str:
    with reading(path, "name a list that is text in UTF-8"):
        return path.read_text(encoding="utf-8-sig")


def _lines(path: Path) -> list[tuple[int, str]]:
    """Return (number, text) of the lines that are not blank, without outer blanks."""
    lines = enumerate(_text(path).splitlines(), start=1)
    return [(number, line.strip()) for number, line in lines if line.strip()]


def _files(folder: Path, name: str) -> list[Path]:
    """Return the files of this name, or pattern of names, below a folder, sorted by name."""
    found = sorted(folder.rglob(name), key=lambda path: path.name)
    if not found:
        raise ValueError(f"{folder}: holds no {name}")
    return found


def _not_empty(entries: list[SplitEntry], path: Path) -> list[SplitEntry]:
    if not entries:
        raise ValueError(f"{path}: the list is empty")
    return entries
