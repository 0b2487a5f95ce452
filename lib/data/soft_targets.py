"""Soft targets: class probabilities of the videos from another model, read from a CSV file.

The file has a column `name` (the video's name in `index.csv`) and one column for each class of the
data set, in any order; one row a video, with probabilities that sum to 1. Any model can write it: a
vision-language model that compares videos with class names, or an earlier run.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from lib.data.dataset import VideoDataset


def read_soft_targets(path: Path, dataset: VideoDataset, rows: np.ndarray) -> np.ndarray:
    """Return the probabilities of a data set's videos, shape (videos of the index, K), float32.

    Args:
        path: The file.
        dataset: The data set, with the classes of the file.
        rows: Index rows of the videos that must be in the file; other missing ones become zeros.

    Raises:
        ValueError: If the file is missing, has other classes, lacks a video, or a row is not a
            distribution; names the difference.
    """
    try:
        table = pd.read_csv(path, dtype={"name": str})
    except (OSError, ValueError) as error:
        raise ValueError(f"soft_targets: {path} cannot be read ({error})") from error
    columns, expected = set(table.columns), {"name", *dataset.classes}
    if columns != expected:
        raise ValueError(
            f"soft_targets: {path} must have a column `name` and one for each class of "
            f"{dataset.folder}; missing: {_first(expected - columns)}; "
            f"unexpected: {_first(columns - expected)}"
        )
    table = table.drop_duplicates("name").set_index("name")[list(dataset.classes)]
    names = dataset.index["name"]
    missing = names.iloc[rows][~names.iloc[rows].isin(table.index)]
    if len(missing):
        raise ValueError(
            f"soft_targets: {path} has no row for {len(missing)} of {len(rows)} videos, the "
            f"first: {missing.iloc[0]}"
        )
    values = table.to_numpy(np.float64)
    is_valid = (values >= 0).all(axis=1) & (np.abs(values.sum(axis=1) - 1) < 1e-3)
    if not is_valid.all():
        raise ValueError(
            f"soft_targets: {path}: the row of {table.index[~is_valid][0]} is not a distribution "
            "(values at least 0, sum 1)"
        )
    return table.reindex(names).fillna(0.0).to_numpy(np.float32)


def _first(names: set[str]) -> str:
    """Format up to three names."""
    return ", ".join(sorted(names)[:3]) + (" …" if len(names) > 3 else "") or "–"
