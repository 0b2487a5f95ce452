"""A prepared data set on disk: its index of videos and its lists.

A data set is a folder with

- `index.csv`: one row a video (name, path, class, label, frames, fps, width, height, and what a
  reader needs: fingerprint, seek),
- `splits/*.txt`: which videos belong to a part, lines `class/name frames label`; a list of the same
  name in `splits/decided` names those whose label may differ (`lib.evaluate.pseudo_labels`),
- `dataset.json`: its name, its class names in label order, where its videos are, where it is from,
- `person_boxes.safetensors` and `teacher.safetensors`, where they have been made.

Nothing here makes a data set: `lib.prepare` does.
"""

import hashlib
import json
import shlex
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lib.config import project_path
from lib.fileio import read_json, reading, write_text
from lib.registry import did_you_mean


def prepared_folder(name: str, videos_dir: str | None, prepared_dir: str) -> Path:
    """Return where a data set is prepared: `data/<name>`, for `folder` one for each `videos_dir`.

    Raises:
        ValueError: If `folder` comes without `videos_dir`.
    """
    if name != "folder":
        return project_path(prepared_dir) / name
    if videos_dir is None:
        raise ValueError(
            "videos_dir: dataset 'folder' needs the folder of your videos "
            "(<class>/<video> or {train,val}/<class>/<video>)"
        )
    root = project_path(videos_dir)
    digest = hashlib.sha256(str(root).encode()).hexdigest()[:6]
    return project_path(prepared_dir) / f"folder-{root.name}-{digest}"


def is_prepared(folder: Path) -> bool:
    """Tell whether a folder holds a complete data set."""
    return (folder / "dataset.json").is_file()


INDEX_COLUMNS = ["name", "path", "class", "label", "frames", "fps", "width", "height"]
REMEDY = "prepare the data set again (delete dataset.json)"
MAX_SIZE = 10**8  # frames of a video, pixels of a side
DECODED_FILES = "decoded-*.bin"  # see lib.data.frame_cache
READER_COLUMNS = [
    "fingerprint",
    "seek",
]  # what lib.data.frame_index knows of a file; empty: nothing


@dataclass(frozen=True)
class VideoRecord:
    """One video.

    Attributes:
        row: Its row in the index.
        name: `class/stem`, unique in its data set.
        path: The video file, or the folder of its JPEG frames.
        label: Class index in [0, number of classes).
        num_frames: Frames that can be decoded.
        height: Height of a frame in pixels.
        width: Width of a frame in pixels.
        fingerprint: Tells the prepared file from another; empty where it is not known.
        seek: A packed `FrameIndex`; empty where the file is decoded from its start.
    """

    row: int
    name: str
    path: Path
    label: int
    num_frames: int
    height: int
    width: int
    fingerprint: str = ""
    seek: str = ""


@dataclass(frozen=True)
class VideoDataset:
    """A prepared data set.

    Attributes:
        name: Name in the catalog.
        folder: The prepared folder.
        classes: Class names; the position is the label.
        root: The folder that the index's paths are relative to.
        index: One row a video, columns `INDEX_COLUMNS` and `READER_COLUMNS`.
    """

    name: str
    folder: Path
    classes: tuple[str, ...]
    root: Path
    index: pd.DataFrame

    def record(self, row: int) -> VideoRecord:
        """Return the video of one index row."""
        name, path, *numbers, fingerprint, seek = (column[row] for column in self._record_columns)
        label, frames, height, width = map(int, numbers)
        path = self.root / path
        return VideoRecord(int(row), name, path, label, frames, height, width, fingerprint, seek)

    @cached_property
    def _record_columns(self) -> list[np.ndarray]:
        """What records are made of; a row of the table itself takes pandas 0.2 ms."""
        columns = ["name", "path", "label", "frames", "height", "width", *READER_COLUMNS]
        return [self.index[column].to_numpy() for column in columns]

    def split_path(self, split_name: str) -> Path:
        """Return the file of a list, given by name (in `splits/`) or by a path ending in `.txt`."""
        path = Path(split_name)
        return path if path.suffix == ".txt" else self.folder / "splits" / f"{split_name}.txt"

    def split_names(self) -> list[str]:
        """Return the names of the lists that there are, sorted."""
        return sorted(path.stem for path in (self.folder / "splits").glob("*.txt"))

    def read_split(self, split_name: str) -> np.ndarray:
        """Return the index rows of a list's videos, in the list's order, int64.

        Raises:
            ValueError: As `read_labels`.
        """
        return self.read_labels(split_name)[0]

    def read_labels(self, split_name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the index rows of a list's videos and their labels there, in its order, int64.

        Raises:
            ValueError: If there is no such list, a line has not three columns, a video is not in
                the index or its label differs; names the file, the lines and the remedy.
        """
        path = self.split_path(split_name)
        if not path.is_file():
            hint = did_you_mean(split_name, self.split_names())
            raise ValueError(f"{path}: no such list, there are {self.split_names()}{hint}")
        names, labels, _ = parse_split(path)
        rows = pd.Index(self.index["name"]).get_indexer(pd.Index(names))
        if (rows < 0).any():
            unknown = [names[i] for i in np.flatnonzero(rows < 0)]
            raise ValueError(
                f"{path}: {len(unknown)} of {len(names)} videos are not in "
                f"{self.folder / 'index.csv'}, the first: {unknown[:3]}; prepare the data set "
                "again, or take these lines out of the list"
            )
        is_other = self.index["label"].to_numpy()[rows] != labels
        if (decided := path.parent / "decided" / path.name).is_file():
            is_other &= ~np.isin(names, parse_split(decided)[0]) | (labels >= len(self.classes))
        if is_other.any():
            line = int(is_other.argmax())
            known = int(self.index["label"].iloc[rows[line]])
            raise ValueError(
                f"{path}: {is_other.sum()} labels differ from the index, the first: {names[line]} "
                f"has {labels[line]} here and {known} ({self.classes[known]}) in the index; "
                "labels are positions in the class list of dataset.json"
            )
        return rows.astype(np.int64), labels

    def relabeled(self, rows: np.ndarray, labels: np.ndarray) -> "VideoDataset":
        """Return the data set with other labels for some rows of its index."""
        index = self.index.copy()
        index.iloc[rows, index.columns.get_loc("label")] = labels
        return replace(self, index=index)


def parse_split(path: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Read a list with lines `class/name frames label`; names may contain spaces.

    Returns:
        Names, labels and numbers of frames, each of shape (number of lines,), int64.

    Raises:
        ValueError: If a line is malformed, a video is listed twice or the list is empty; names
            the file and the line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read as text ({error})") from error
    lines = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        fields = line.rsplit(maxsplit=2)
        if len(fields) != 3 or not fields[1].isdecimal() or not fields[2].isdecimal():
            raise ValueError(f"{path}, line {number}: {line!r} is not `class/name frames label`")
        lines.append((fields[0].strip(), int(fields[1]), int(fields[2])))
    if not lines:
        raise ValueError(f"{path}: the list is empty")
    names, frames, labels = zip(*lines, strict=True)
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise ValueError(f"{path}: {name!r} is listed more than once")
    return list(names), np.array(labels, np.int64), np.array(frames, np.int64)


def draw_labeled_rows(
    labels: np.ndarray, rows: np.ndarray, fraction: float, seed: int
) -> np.ndarray:
    """Draw a class-stratified part of a list.

    Every class keeps round(fraction · its videos), at least one. One seed gives nested parts: the
    5 % part lies inside the 10 % part.

    Args:
        labels: Label of each index row, shape (videos in the index,).
        rows: Index rows to draw from, shape (N,).
        fraction: Share of each class's videos, in (0, 1].
        seed: Seed of the draw.

    Returns:
        The drawn rows in the order of `rows`, int64.

    Raises:
        ValueError: If `fraction` is outside (0, 1].
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"labeled_fraction must be in (0, 1], got {fraction}")
    return draw_rows(labels, rows, lambda size: max(1, round(fraction * size)), seed)


def draw_rows(
    labels: np.ndarray, rows: np.ndarray, how_many: Callable[[int], int], seed: int
) -> np.ndarray:
    """Draw so many of a class's videos as `how_many` says for the size of the class."""
    kept = []
    for label in np.unique(labels[rows]):
        of_class = np.sort(rows[labels[rows] == label])
        order = np.random.default_rng([seed, int(label)]).permutation(len(of_class))
        kept.append(of_class[order[: how_many(len(of_class))]])
    return rows[np.isin(rows, np.concatenate(kept))]


def open_prepared(name: str, videos_dir: str | None, prepared_dir: str) -> VideoDataset:
    """Open a data set that has been prepared.

    Raises:
        ValueError: If it has not been; gives the command that does it.
    """
    folder = prepared_folder(name, videos_dir, prepared_dir)
    if is_prepared(folder):
        return read_dataset(folder)
    given = {"dataset": name, "videos_dir": videos_dir, "prepared_dir": prepared_dir}
    options = [f"--{key} {shlex.quote(value)}" for key, value in given.items() if value]
    raise ValueError(
        f"dataset: {name!r} is not prepared in {project_path(prepared_dir)}; first run "
        f"python -m lib.prepare {' '.join(options)}"
    )


def read_dataset(folder: str | Path) -> VideoDataset:
    """Open a prepared data set.

    Raises:
        ValueError: If the folder is not a prepared data set, or its index lacks columns or names
            a video twice.
    """
    folder = Path(folder).resolve()
    if not is_prepared(folder):
        raise ValueError(
            f"{folder}: no dataset.json, so this is not a prepared data set; "
            "prepare it with notebooks/1_prepare_data.ipynb"
        )
    description = read_description(folder)
    with reading(folder / "index.csv", REMEDY):
        index = _read_index(folder / "index.csv", len(description["classes"]))
    root = folder / description["root"]  # an absolute root replaces the folder
    return VideoDataset(description["name"], folder, tuple(description["classes"]), root, index)


def read_description(folder: Path) -> dict[str, Any]:
    """Return `dataset.json`; ValueError, with the remedy, if it is damaged."""
    description = read_json(folder / "dataset.json", REMEDY)
    with reading(folder / "dataset.json", REMEDY):
        classes, source = description["classes"], description["source"]
        texts = [description["name"], description["root"], *classes]
        is_whole = isinstance(classes, list) and classes and isinstance(source, dict)
        if not is_whole or not all(isinstance(text, str) and "\0" not in text for text in texts):
            raise ValueError("name, root, classes or source are missing")
    return description


def _read_index(path: Path, num_classes: int) -> pd.DataFrame:
    types = dict.fromkeys(["name", "path", "class", *READER_COLUMNS], str)
    types |= dict.fromkeys(["label", "frames", "width", "height"], np.int64) | {"fps": np.float64}
    index = pd.read_csv(path, dtype=types, keep_default_na=False)
    if missing := [column for column in INDEX_COLUMNS if column not in index]:
        raise ValueError(f"no column {missing}")
    if index["name"].duplicated().any():
        raise ValueError(f"{index['name'][index['name'].duplicated()].iloc[0]!r} stands twice")
    sizes, labels = index[["frames", "width", "height"]].to_numpy(), index["label"]
    if not len(index) or sizes.min() < 1 or sizes.max() > MAX_SIZE:
        raise ValueError("a number of frames, a width or a height is impossible")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(f"a label is not one of {num_classes} classes")
    return in_order(index)


def in_order(index: pd.DataFrame) -> pd.DataFrame:
    """Return the columns of an index; what it does not know about reading is empty."""
    return index.reindex(columns=INDEX_COLUMNS + READER_COLUMNS, fill_value="")


def write_dataset(
    folder: Path,
    name: str,
    classes: Sequence[str],
    root: Path,
    index: pd.DataFrame,
    source: dict,
) -> VideoDataset:
    """Write `index.csv` and, last, `dataset.json`, which marks the data set as complete.

    Args:
        folder: The prepared folder.
        name: Name in the catalog.
        classes: Class names in label order.
        root: Folder that the paths in `index` are relative to.
        index: One row a video, columns `INDEX_COLUMNS` and, where they are known,
            `READER_COLUMNS`.
        source: Where the data is from and what made it, for the reader; plain JSON.
    """
    folder, root = folder.resolve(), root.resolve()
    for copy in folder.glob(DECODED_FILES):
        copy.unlink()  # of what was there before
    write_text(folder / "index.csv", in_order(index).to_csv(index=False))
    inside = root.is_relative_to(folder)
    description = {
        "name": name,
        "classes": list(classes),
        "root": root.relative_to(folder).as_posix() if inside else root.as_posix(),
        "source": source,
    }
    write_text(folder / "dataset.json", json.dumps(description, indent=1) + "\n")
    return read_dataset(folder)


def write_split(dataset: VideoDataset, split_name: str, rows: Sequence[int] | np.ndarray) -> Path:
    """Write the videos of the given index rows as a list, if it is new; return its path."""
    part = dataset.index.iloc[np.asarray(rows, dtype=np.int64)]
    lines = [
        f"{name} {frames} {label}\n"
        for name, frames, label in zip(part["name"], part["frames"], part["label"], strict=True)
    ]
    return write_changed(dataset.split_path(split_name), "".join(lines))


def write_changed(path: Path, text: str) -> Path:
    """Write a text file unless it holds this text already; return the path."""
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return path
    return write_text(path, text)


def check_room(
    folder: Path, needed: float, what: str, remedy: str = "or set prepared_dir to another disk"
) -> None:
    """Make sure that so many bytes can be written to a folder, which need not be there yet.

    Args:
        folder: The folder.
        needed: Bytes.
        what: What needs them, for the message.
        remedy: What to do where there is no room to be made.

    Raises:
        ValueError: If there is too little room.
    """
    if needed > free_bytes(folder):
        raise ValueError(
            f"{what}: about {gigabytes(needed)} are needed below {folder}, "
            f"{gigabytes(free_bytes(folder))} are free; make room, {remedy}"
        )


def free_bytes(folder: Path) -> int:
    """Return the free bytes of the disk that a folder, which need not be there yet, is on."""
    return shutil.disk_usage(existing(folder)).free


def existing(folder: Path) -> Path:
    """Return a folder, or the nearest one above it that is there."""
    while not folder.is_dir():
        folder = folder.parent
    return folder


def gigabytes(size: float) -> str:
    """Say a number of bytes for a reader."""
    return f"{size / 1e9:.1f} GB"
