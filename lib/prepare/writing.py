"""Writing what `lib.data.dataset` reads."""

import json
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
