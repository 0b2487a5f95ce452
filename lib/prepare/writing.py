"""Writing what `lib.data.dataset` reads, and whether there is room for it."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lib.data.dataset import DECODED_FILES, VideoDataset, in_order, read_dataset
from lib.files import write_text


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


def write_list(dataset: VideoDataset, list_name: str, rows: Sequence[int] | np.ndarray) -> Path:
    """Write the videos of the given index rows as a list, if it is new; return its path."""
    part = dataset.index.iloc[np.asarray(rows, dtype=np.int64)]
    lines = [
        f"{name} {frames} {label}\n"
        for name, frames, label in zip(part["name"], part["frames"], part["label"], strict=True)
    ]
    return write_changed(dataset.list_path(list_name), "".join(lines))


def write_changed(path: Path, text: str) -> Path:
    """Write a text file unless it holds this text already; return the path."""
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return path
    return write_text(path, text)


def check_room(
    folder: Path, needed: float, what: str, remedy: str = "or set data_dir to another disk"
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
