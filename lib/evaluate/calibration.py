"""Confidence that means something: a temperature fitted on the validation list.

Source: Guo et al., "On Calibration of Modern Neural Networks" (arXiv 1706.04599), section 4.2.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from lib.report.results import read_scores
from lib.runs.run_dir import RunDir

NOT_CALIBRATED = "confidence is not calibrated: test the run first (notebooks/4_evaluate.ipynb)"


@dataclass(frozen=True)
class Calibration:
    """What the validation videos say about confidence.

    Attributes:
        temperature: What scores are divided by.
        before: Reliability without it, columns confidence, accuracy, videos.
        after: With it.
        videos: How many videos it rests on.
    """

    temperature: float
    before: np.ndarray
    after: np.ndarray
    videos: int


def fit_temperature(scores: np.ndarray, labels: np.ndarray) -> float:
    """Return the temperature with the smallest cross-entropy, in [0.05, 20].

    Args:
        scores: Logits, shape (N, K).
        labels: Class indices, shape (N,).
    """
    logits, targets = torch.from_numpy(scores).double(), torch.from_numpy(labels).long()
    low, high = np.log(0.05), np.log(20)
    for _ in range(4):  # the loss has one minimum in the inverse temperature
        grid = np.linspace(low, high, 41)
        losses = [float(F.cross_entropy(logits / np.exp(t), targets)) for t in grid]
        best = int(np.argmin(losses))
        low, high = grid[max(0, best - 1)], grid[min(len(grid) - 1, best + 1)]
    return float(np.exp(grid[best]))


def reliability(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return mean confidence, accuracy and number of videos of five equal parts by confidence.

    Args:
        probabilities: Shape (N, K).
        labels: Shape (N,).
    """
    confidence, is_right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    parts = np.array_split(np.argsort(confidence, kind="stable"), min(5, len(labels)))
    return np.array([(confidence[p].mean(), is_right[p].mean(), len(p)) for p in parts])


def calibrate(run: RunDir) -> Calibration | None:
    """Return the calibration of a tested run; None where its validation list was not tested.

    Raises:
        ValueError: If the file of its scores is damaged; names it and the remedy.
    """
    settings = run.settings()
    if (known := read_scores(run, settings.val_split)) is None:
        return None
    scores, labels = known
    if settings.test_average == "probabilities":
        scores = np.log(np.maximum(scores, 1e-12))
    temperature = fit_temperature(scores, labels)
    before, after = (
        reliability(torch.from_numpy(scores / t).softmax(dim=1).numpy(), labels)
        for t in (1.0, temperature)
    )
    return Calibration(temperature, before, after, len(labels))
