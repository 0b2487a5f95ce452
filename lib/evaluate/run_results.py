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
    """The test result on one split of a data set."""

    dataset: VideoDataset
    rows: np.ndarray  # of the index, (N,)
    scores: np.ndarray  # fused, (N, K)
    labels: np.ndarray  # class indices, (N,)
    fusion: str  # averaged quantity, `logits` or `probabilities` (`test_average`)
    temperature: float = 1.0  # calibrated, if the validation split is tested

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
    """Return the fused scores (N, K) and labels (N,) of a split; None if it is not tested."""
    path = split_file(run, "scores", split_name, ".npz")
    if not path.is_file():
        return None
    with reading(path, "test the run again (notebooks/4_evaluate.ipynb)"), np.load(path) as file:
        scores, labels = file["scores"], file["labels"]
        if scores.ndim != 2 or scores.dtype.kind != "f" or labels.shape != scores.shape[:1]:
            raise ValueError("scores have a wrong type or shape")
        if labels.dtype.kind != "i" or not (0 <= labels.min() <= labels.max() < scores.shape[1]):
            raise ValueError("labels are not class indices")
        return scores, labels


def read_calibration(run: RunDir) -> Calibration | None:
    """Return the calibration of a run on its validation split; None if that is not tested."""
    settings = run.settings()
    saved = read_scores(run, settings.val_split)
    return None if saved is None else calibrate(*saved, settings.test_average)


def read_results(run: RunDir) -> dict[str, SplitResult]:
    """Return the results of a tested run by split; ValueError if a split has changed since."""
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
    """Return run name -> result on a split, of a tested run and of another one if there is one.

    A second run of the same name is named by its folder; it must be tested on the same videos.
    """
    ours = results[split_name]
    if other is None:
        return {run.name: ours}
    theirs = read_results(other).get(split_name)
    same_data = theirs is not None and theirs.dataset.folder == ours.dataset.folder
    if not same_data or not np.array_equal(ours.rows, theirs.rows):
        videos = f"the {len(ours.rows)} videos of split {split_name!r} of {ours.dataset.folder}"
        raise ValueError(f"{other.folder}: not tested on {videos}; choose a run that was")
    return {run.name: ours, other.name if other.name != run.name else str(other.folder): theirs}
