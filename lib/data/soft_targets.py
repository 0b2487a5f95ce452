"""Class probabilities that some other model gives to the videos, read from a table.

A CSV file with a column `name` (the video's name in `index.csv`) and one column for each class of
the data set, in any order; a row a video, probabilities that sum to 1. Any model can write it: a
vision-language model that compares a video with the names of the classes, or an earlier run.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from lib.data.dataset import VideoDataset


def read_soft_targets(path: Path, dataset: VideoDataset, rows: np.ndarray) -> np.ndarray:
    """Return the probabilities of a data set's videos, shape (videos of the index, K), float32.

    Args:
        path: The file.
        dataset: The data set; its classes must be the file's.
        rows: Index rows of the videos that must be there; others are zeros where they are not.

    Raises:
        ValueError: If the file is missing, or of other classes or videos, or holds anything but
            probabilities; names what differs.
    """
    try:
        table = pd.read_csv(path, dtype={"name": str})
    except (OSError, ValueError) as error:
        raise ValueError(f"soft_targets: {path} cannot be read ({error})") from error
    found, wanted = set(table.columns), {"name", *dataset.classes}
    if found != wanted:
        raise ValueError(
            f"soft_targets: {path} must have a column `name` and one for each class of "
            f"{dataset.folder}; missing: {_some(wanted - found)}; others: {_some(found - wanted)}"
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
    wrong = ~((values >= 0).all(axis=1) & (np.abs(values.sum(axis=1) - 1) < 1e-3))
    if wrong.any():
        raise ValueError(
            f"soft_targets: {path}: the numbers of {table.index[wrong][0]} are no probabilities "
            "(at least 0, sum 1)"
        )
    return table.reindex(names).fillna(0.0).to_numpy(np.float32)


def _some(names: Iterable[str]) -> str:
    names = sorted(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "") or "–"
