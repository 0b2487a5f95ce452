"""A prepared data set on disk: its index of videos and its splits.

A data set is a folder with

- `index.csv`: one row a video or segment of one (name, path, class, label, frames, fps, width,
  height, first_frame, and for reading: fingerprint, seek, reader); without a label, class is empty
  and label −1,
- `splits/*.txt`: sets of videos, lines `class/name frames label`,
- `dataset.json`: its name, its class names in label order, the folder of its videos, its source,
- `groups.csv`: the source of each video of a folder of own videos,
- `person_boxes.safetensors` and `teacher.safetensors`, if they have been computed.

`lib.prepare` creates data sets; this module writes and reads their files.
"""

import hashlib
import json
import shlex
import shutil
import warnings
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

INDEX_COLUMNS = ["name", "path", "class", "label", "frames", "fps", "width", "height"]
UNLABELED = "unlabeled"  # shown in place of a class
READER_COLUMNS = ["fingerprint", "seek", "reader"]  # see `VideoRecord`; may be empty
MAX_SIZE = 10**8  # frames of a video, pixels of a side
GROUPS_FILE = "groups.csv"  # source of each video, if clips may share one
CACHE_FOLDER = "decoded"  # see lib.data.video_reader
REMEDY = "prepare the data set again (delete dataset.json)"


@dataclass(frozen=True)
class VideoRecord:
    """One video, or a segment of one."""

    row: int  # in the index
    name: str  # `class/stem`, unique in its data set
    path: Path  # the video file, or the folder of its frames
    label: int  # class index in [0, number of classes); −1 without a label
    num_frames: int  # that can be decoded; of a segment, its own
    height: int  # of a frame, pixels
    width: int
    fingerprint: str = ""  # of the prepared file; empty for a folder of frames
    # A packed `FrameIndex`; empty if the file is decoded from its start. For a folder, the name of
    # its first frame; empty if that is `img_00001.jpg`.
    seek: str = ""
    reader: str = ""  # `decord` if that reads the file; otherwise, if known, why PyAV does
    first_frame: int = 0  # in the file; above 0 for a segment


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
        columns = (column[row] for column in self._record_columns)
        name, path, label, frames, height, width, first, *reader = columns
        size = int(frames), int(height), int(width)
        path = self.root / path
        return VideoRecord(int(row), name, path, int(label), *size, *reader, int(first))

    def class_of(self, label: int) -> str:
        """Return the name of a class, or "unlabeled" for −1."""
        return self.classes[label] if label >= 0 else UNLABELED

    @cached_property
    def _record_columns(self) -> list[np.ndarray]:
        """Columns of the records; reading a row of the table itself takes pandas 0.2 ms."""
        numbers = ["label", "frames", "height", "width", "first_frame"]
        columns = ["name", "path", *numbers, *READER_COLUMNS]
        return [self.index[column].to_numpy() for column in columns]

    def split_path(self, split_name: str) -> Path:
        """Return the file of a split, given by its name or by a path that ends in `.txt`."""
        path = Path(split_name)
        return path if path.suffix == ".txt" else self.folder / "splits" / f"{split_name}.txt"

    def split_names(self) -> list[str]:
        """Return the names of all splits in `splits/`, sorted."""
        return sorted(path.stem for path in (self.folder / "splits").glob("*.txt"))

    def read_split(self, split_name: str) -> np.ndarray:
        """Return the index rows of a split, in its order, int64; errors as in `read_labels`."""
        return self.read_labels(split_name)[0]

    def read_labeled_split(self, split_name: str) -> np.ndarray:
        """Return the index rows as `read_split`; ValueError if a video has no label."""
        rows, labels = self.read_labels(split_name)
        if (labels < 0).any():
            raise ValueError(
                f"{self.split_path(split_name)}: {(labels < 0).sum()} of its videos have no label, "
                f"the first: {self.index['name'].iloc[rows[labels < 0][0]]}; accuracy needs labels"
            )
        return rows

    def read_labels(self, split_name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the index rows of the videos of a split and their labels there, int64.

        The labels may differ from the index (`lib.evaluate.pseudo_labels` writes such splits);
        where the index has one, that gives a warning. ValueError if there is no such split, it is
        malformed, a video is not in the index or a label is not one of the classes; names the file,
        the lines and the remedy.
        """
        path = self.split_path(split_name)
        if not path.is_file():
            hint = did_you_mean(split_name, self.split_names())
            raise ValueError(f"{path}: no such split; choose from {self.split_names()}{hint}")
        names, labels, _ = parse_split(path)
        rows = pd.Index(self.index["name"]).get_indexer(pd.Index(names)).astype(np.int64)
        if (rows < 0).any():
            missing = [names[i] for i in np.flatnonzero(rows < 0)]
            raise ValueError(
                f"{path}: {len(missing)} of {len(names)} videos are not in "
                f"{self.folder / 'index.csv'}, the first: {missing[:3]}; prepare the data set "
                "again, or delete these lines from the split"
            )
        if labels.max() >= len(self.classes):
            raise ValueError(
                f"{path}: label {labels.max()} of {names[labels.argmax()]} is not one of "
                f"{len(self.classes)} classes; labels are positions in the classes of dataset.json"
            )
        indexed = self.index["label"].to_numpy()[rows]
        differs = (indexed != labels) & (indexed >= 0)
        if differs.any():
            line = int(differs.argmax())
            warnings.warn(
                f"{path}: {differs.sum()} of {len(names)} labels differ from the index and are "
                f"used as they are, the first: {names[line]} is {self.class_of(labels[line])!r} "
                f"here and {self.class_of(self.index['label'].iloc[rows[line]])!r} in the index",
                stacklevel=2,
            )
        return rows, labels

    def groups(self) -> np.ndarray:
        """Return the source of each index row; without `groups.csv` each video is its own."""
        path, names = self.folder / GROUPS_FILE, self.index["name"]
        if not path.is_file():
            return names.to_numpy(str)
        with reading(path, REMEDY):
            table = pd.read_csv(path, dtype=str, keep_default_na=False).set_index("name")
            return table["group"].loc[names].to_numpy(str)

    def relabeled(self, rows: np.ndarray, labels: np.ndarray) -> "VideoDataset":
        """Return the data set with the given labels for some rows of its index."""
        index = self.index.copy()
        index.iloc[rows, index.columns.get_loc("label")] = labels
        return replace(self, index=index)


def parse_split(path: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Read a split file with lines `class/name frames label`; names may contain spaces.

    Returns names; labels and numbers of frames, each of shape (number of lines,), int64. ValueError
    if a line is malformed, a video is listed twice or the file has no line; names the
    file and the line.
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
        is_label = fields[-1].isdecimal() or fields[-1] == "-1"
        if len(fields) != 3 or not fields[1].isdecimal() or not is_label:
            raise ValueError(f"{path}, line {number}: {line!r} is not `class/name frames label`")
        lines.append((fields[0].strip(), int(fields[1]), int(fields[2])))
    if not lines:
        raise ValueError(f"{path}: the split is empty")
    names, frames, labels = zip(*lines, strict=True)
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise ValueError(f"{path}: {name!r} is listed more than once")
    return list(names), np.array(labels, np.int64), np.array(frames, np.int64)


def draw_labeled_rows(
    labels: np.ndarray, rows: np.ndarray, fraction: float, seed: int
) -> np.ndarray:
    """Draw a class-stratified subset of the labeled videos of a split.

    `labels` are those of all index rows, −1 without one; `rows` (N,) are those to draw from, and
    the drawn ones are in their order, int64. Every class keeps round(fraction · its videos), at
    least one, for a fraction in (0, 1]. One seed gives nested subsets: 5 % lie inside 10 %.
    """
    return draw_rows(labels, rows, lambda size: max(1, round(fraction * size)), seed)


def draw_rows(
    labels: np.ndarray, rows: np.ndarray, count_for: Callable[[int], int], seed: int
) -> np.ndarray:
    """Draw `count_for(n)` of the n videos of each class; arguments as `draw_labeled_rows`."""
    rows, kept = rows[labels[rows] >= 0], [np.zeros(0, np.int64)]
    for label in np.unique(labels[rows]):
        of_class = np.sort(rows[labels[rows] == label])
        order = np.random.default_rng([seed, int(label)]).permutation(len(of_class))
        kept.append(of_class[order[: count_for(len(of_class))]])
    return rows[np.isin(rows, np.concatenate(kept))]


def prepared_folder(name: str, videos_dir: str | None, prepared_dir: str) -> Path:
    """Return the folder of a prepared data set; `folder` has one for each `videos_dir`."""
    if name != "folder":
        return project_path(prepared_dir) / name
    if videos_dir is None:
        raise ValueError(
            "videos_dir: dataset 'folder' needs the folder of your videos "
            "(<class>/<video>, those without a class in unlabeled/)"
        )
    root = project_path(videos_dir)
    digest = hashlib.sha256(str(root).encode()).hexdigest()[:6]
    return project_path(prepared_dir) / f"folder-{root.name}-{digest}"


def is_prepared(folder: Path) -> bool:
    """Return True if a folder holds a complete data set."""
    return (folder / "dataset.json").is_file()


def open_prepared(name: str, videos_dir: str | None, prepared_dir: str) -> VideoDataset:
    """Open a prepared data set; ValueError, with the command, if it has not been prepared."""
    folder = prepared_folder(name, videos_dir, prepared_dir)
    if is_prepared(folder):
        return read_dataset(folder)
    settings = {"dataset": name, "videos_dir": videos_dir, "prepared_dir": prepared_dir}
    options = [f"--{key} {shlex.quote(value)}" for key, value in settings.items() if value]
    raise ValueError(
        f"dataset: {name!r} is not prepared in {project_path(prepared_dir)}; first run "
        f"python -m lib.prepare {' '.join(options)}"
    )


def read_dataset(folder: str | Path) -> VideoDataset:
    """Open a prepared data set.

    ValueError if the folder is not a prepared data set, or its index lacks columns or names a video
    twice.
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
        is_valid = isinstance(classes, list) and classes and isinstance(source, dict)
        if not is_valid or not all(isinstance(text, str) and "\0" not in text for text in texts):
            raise ValueError("name, root, classes or source are missing")
    return description


def _read_index(path: Path, num_classes: int) -> pd.DataFrame:
    types = dict.fromkeys(["name", "path", "class", *READER_COLUMNS], str)
    numbers = ["label", "frames", "width", "height", "first_frame"]
    types |= dict.fromkeys(numbers, np.int64) | {"fps": np.float64}
    index = pd.read_csv(path, dtype=types, keep_default_na=False)
    if missing := [column for column in INDEX_COLUMNS if column not in index]:
        raise ValueError(f"no column {missing}")
    if index["name"].duplicated().any():
        raise ValueError(f"{index['name'][index['name'].duplicated()].iloc[0]!r} is there twice")
    sizes, labels = index[["frames", "width", "height"]].to_numpy(), index["label"]
    if not len(index) or sizes.min() < 1 or sizes.max() > MAX_SIZE:
        raise ValueError("a number of frames, a width or a height is impossible")
    if labels.min() < -1 or labels.max() >= num_classes:
        raise ValueError(f"a label is not one of {num_classes} classes")
    return in_order(index)


def in_order(index: pd.DataFrame) -> pd.DataFrame:
    """Return the columns of an index in order; missing columns of the reader are empty."""
    if "first_frame" not in index:
        index = index.assign(first_frame=0)
    return index.reindex(columns=[*INDEX_COLUMNS, "first_frame", *READER_COLUMNS], fill_value="")


def write_dataset(
    folder: Path,
    name: str,
    classes: Sequence[str],
    root: Path,
    index: pd.DataFrame,
    source: dict,
) -> VideoDataset:
    """Write `index.csv` and, last, `dataset.json`, which marks the data set as complete.

    Arguments are as in `VideoDataset`; `READER_COLUMNS` may be missing. `source` is the origin of
    the data, for information; plain JSON.
    """
    folder, root = folder.resolve(), root.resolve()
    shutil.rmtree(folder / CACHE_FOLDER, ignore_errors=True)  # of an earlier preparation
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
    """Write the videos of the given index rows as a split; return its path."""
    videos = dataset.index.iloc[np.asarray(rows, dtype=np.int64)]
    table = videos[["name", "frames", "label"]].itertuples(index=False)
    lines = [f"{name} {frames} {label}\n" for name, frames, label in table]
    return write_text(dataset.split_path(split_name), "".join(lines))


def check_room(
    folder: Path, needed: float, what: str, remedy: str = "or set prepared_dir to another disk"
) -> None:
    """Raise ValueError if the disk of a folder has no room for `needed` bytes of `what`.

    `remedy` is the alternative to making room, for the message.
    """
    if needed > free_bytes(folder):
        raise ValueError(
            f"{what}: about {gigabytes(needed)} are needed below {folder}, "
            f"{gigabytes(free_bytes(folder))} are free; make room, {remedy}"
        )


def free_bytes(folder: Path) -> int:
    """Return the free bytes of the disk of a folder, which need not exist yet."""
    while not folder.is_dir():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def gigabytes(size: float) -> str:
    """Format a number of bytes."""
    return f"{round(size / 1e9, 2):,g} GB"
