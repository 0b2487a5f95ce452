"""Class probabilities of fused scores, and their calibration by a temperature.

`fusion` is the quantity that a test averages over the views of a video (`test_average`): `logits`
or `probabilities`.

Source: Guo et al., "On Calibration of Modern Neural Networks" (arXiv 1706.04599), section 4.2.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp
from torch import Tensor

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
