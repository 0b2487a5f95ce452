"""Results of a run, read from its folder: its log, and the test result on each split."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp
from torch import Tensor

from lib.config import project_path
from lib.data.dataset import VideoDataset
from lib.fileio import reading
from lib.registry import did_you_mean
from lib.runs.run_dir import RunDir, read_result
from lib.train.run_data import load_data
from lib.train.scoring import metrics

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0
SMALLEST = 1e-12  # probability whose logarithm is taken


def as_logits(fused: Tensor, fusion: str) -> Tensor:
    """Return fused logits as they are, and the logarithm of fused probabilities; (..., K)."""
    return fused.clamp(min=SMALLEST).log() if fusion == "probabilities" else fused


def fused_probabilities(fused: Tensor, fusion: str, temperature: float = 1.0) -> Tensor:
    """Return class probabilities softmax(z / temperature), z as in `as_logits`, shape (..., K)."""
    return (as_logits(fused, fusion) / temperature).softmax(dim=-1)


@dataclass(frozen=True)
class Calibration:
    """A temperature fitted on the validation split, and the reliability there, (groups, 3)."""

    temperature: float
    before: np.ndarray  # at temperature 1; columns confidence, accuracy, videos
    after: np.ndarray  # at `temperature`
    videos: int


def calibrate(fused: np.ndarray, labels: np.ndarray, fusion: str) -> Calibration:
    """Fit a temperature to the fused scores (N, K) and labels (N,) of a split."""
    scores = torch.from_numpy(fused)
    temperature = fit_temperature(as_logits(scores, fusion).numpy(), labels)
    before, after = (
        reliability(fused_probabilities(scores, fusion, t).numpy(), labels)
        for t in (1.0, temperature)
    )
    return Calibration(temperature, before, after, len(labels))


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the temperature of logits (N, K) with the smallest cross-entropy, in [0.05, 20]."""
    rows = np.arange(len(labels))
    margins = logits.astype(np.float64) - logits[rows, labels, None]
    margins[rows, labels] = -np.inf

    def cross_entropy(log_temperature: float) -> float:  # has one minimum
        with np.errstate(invalid="ignore"):  # NaN scores of a diverged run
            others = logsumexp(margins / np.exp(log_temperature), axis=1)
            return float(np.logaddexp(0, others).mean())

    bounds = np.log([MIN_TEMPERATURE, MAX_TEMPERATURE])
    return float(np.exp(minimize_scalar(cross_entropy, bounds=bounds, options={"xatol": 1e-6}).x))


def reliability(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return mean confidence, accuracy and size of five equal groups of videos by confidence."""
    confidence, is_right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    groups = np.array_split(np.argsort(confidence, kind="stable"), min(5, len(labels)))
    return np.array([(confidence[g].mean(), is_right[g].mean(), len(g)) for g in groups])


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


def read_cross_validation(run: RunDir) -> tuple[float, int] | None:
    """Return the cross-validated top-1 of a probe, percent, and its videos; None without one."""
    last = (run.log_entries() or [{}])[-1]
    if "eval/videos_cross_validated" not in last:
        return None
    return last["eval/top1_cross_validated"], int(last["eval/videos_cross_validated"])


def best_in_validation(runs: Iterable[RunDir]) -> RunDir | None:
    """Return the tested run with the best validation accuracy; None if no run is tested there.

    Of equal ones a linear probe comes first, then more rounds of self-training, then the first. If
    that is a probe, the best probe in cross-validation, which has more videos, takes its place.
    """
    ranks = {}
    for run in runs:
        settings, splits = run.settings(), read_result(run)["splits"]
        if settings.val_split in splits:
            is_probe, rounds = settings.objective == "linear_probe", settings.self_training_rounds
            ranks[run] = (splits[settings.val_split]["top1"], is_probe, rounds)
    best = max(ranks, key=ranks.get, default=None)
    probes = {run: cross for run in ranks if (cross := read_cross_validation(run))}
    if best in probes:
        best = max(probes, key=lambda run: (probes[run], ranks[run]))
    return best


def recommended_run(study_dir: str | Path) -> RunDir:
    """Return the run of a study to predict with, as of `best_in_validation`.

    ValueError if no run of the study is tested on its validation split.
    """
    folder = project_path(study_dir)
    runs = (RunDir(path.parent) for path in sorted(folder.glob("*/metrics.json")))
    if (best := best_in_validation(runs)) is None:
        names = [] if folder.exists() else [path.name for path in folder.parent.glob("*")]
        hint = did_you_mean(folder.name, names) or "; give a finished run"
        raise ValueError(
            f"{folder}: neither a run nor a folder of runs that are tested on their validation "
            f"split{hint}"
        )
    return best
