"""Results of a run, read from its folder: its log, and the test result on each split."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from lib.data.dataset import VideoDataset
from lib.evaluate.calibration import Calibration, calibrate, fused_probabilities
from lib.fileio import reading
from lib.runs.run_dir import RunDir
from lib.train.run_data import load_data
from lib.train.scoring import metrics


def group_of(run_name: str) -> str:
    """Return the name of a run without its seed: runs of one group differ only in the seed."""
    return run_name.rsplit("_seed", 1)[0]


def read_log(run: RunDir) -> pd.DataFrame:
    """Return a run's log as a table: one row per epoch, NaN where a value was not measured."""
    return pd.DataFrame(run.log_entries())


@dataclass(frozen=True)
class SplitResult:
    """The test result on one split.

    Attributes:
        dataset: The data set.
        rows: Index rows of the videos, shape (N,).
        scores: Fused scores, shape (N, K).
        labels: Class indices, shape (N,).
        fusion: The averaged quantity, `logits` or `probabilities` (`test_average`).
        temperature: Calibrated temperature of the run; 1 if its validation split is not tested.
    """

    dataset: VideoDataset
    rows: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    fusion: str
    temperature: float = 1.0

    @property
    def metrics(self) -> dict[str, float]:
        """`top1`, `top5` and `mean_class_accuracy`, in percent."""
        return metrics(self.scores, self.labels)

    @property
    def probabilities(self) -> np.ndarray:
        """Class probabilities of the videos, shape (N, K)."""
        scores = torch.from_numpy(self.scores)
        return fused_probabilities(scores, self.fusion, self.temperature).numpy()


def split_file(run: RunDir, kind: str, split_name: str, suffix: str) -> Path:
    """Return the path of a result of a split, `<kind>_<split><suffix>` in the run's folder."""
    return run.folder / f"{kind}_{Path(split_name).name.removesuffix('.txt')}{suffix}"


def read_scores(run: RunDir, split_name: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the fused scores (N, K) and labels (N,) of a split; None if it is not tested.

    Raises:
        ValueError: If the file is damaged.
    """
    path = split_file(run, "scores", split_name, ".npz")
    if not path.is_file():
        return None
    with reading(path, "test the run again (notebooks/4_evaluate.ipynb)"), np.load(path) as file:
        scores, labels = file["scores"], file["labels"]
        if scores.ndim != 2 or scores.dtype.kind != "f" or labels.shape != scores.shape[:1]:
            raise ValueError("scores have a wrong type or shape")
        if labels.dtype.kind != "i" or not (0 <= labels.min() <= labels.max() < scores.shape[1]):
            raise ValueError("labels are no class indices")
        return scores, labels


def read_calibration(run: RunDir) -> Calibration | None:
    """Return the calibration of a run on its validation split; None if that is not tested.

    Raises:
        ValueError: If the file of the scores is damaged.
    """
    settings = run.settings()
    saved = read_scores(run, settings.val_split)
    return None if saved is None else calibrate(*saved, settings.test_average)


def read_results(run: RunDir) -> dict[str, SplitResult]:
    """Return the results of a tested run by split.

    Raises:
        ValueError: If a split is not tested, or its videos or labels have changed since.
    """
    settings, calibration, results = run.settings(), read_calibration(run), {}
    temperature = 1.0 if calibration is None else calibration.temperature
    dataset = load_data(settings).labeled
    for name in settings.test_splits:
        path = split_file(run, "scores", name, ".npz")
        if (saved := read_scores(run, name)) is None:
            raise ValueError(f"{path}: missing; test the run first (notebooks/4_evaluate.ipynb)")
        rows = dataset.read_split(name)
        if not np.array_equal(dataset.index["label"].to_numpy()[rows], saved[1]):
            raise ValueError(f"{path}: split {name!r} has changed since; test the run again")
        results[name] = SplitResult(dataset, rows, *saved, settings.test_average, temperature)
    return results


def paired_results(
    run: RunDir, results: dict[str, SplitResult], other: RunDir | None, split_name: str
) -> dict[str, SplitResult]:
    """Return the results of one run or of two runs on a split.

    Args:
        run: The tested run.
        results: Its results by split.
        other: A second tested run, or None.
        split_name: The split.

    Returns:
        Run name -> result; for a second run of the same name its folder -> result.

    Raises:
        ValueError: If the second run was not tested on the same videos.
    """
    ours = results[split_name]
    if other is None:
        return {run.name: ours}
    theirs = read_results(other).get(split_name)
    same_data = theirs is not None and theirs.dataset.folder == ours.dataset.folder
    if not same_data or not np.array_equal(ours.rows, theirs.rows):
        raise ValueError(
            f"{other.folder}: not tested on the {len(ours.rows)} videos of split {split_name!r} of "
            f"{ours.dataset.folder}; choose a run that was"
        )
    return {run.name: ours, other.name if other.name != run.name else str(other.folder): theirs}
