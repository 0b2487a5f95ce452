"""Objectives beyond the paper: FixMatch with thresholds that adapt to the predictions so far.

Each keeps its statistics in buffers; every process of a run has those of its own clips.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lib.train.objectives import OBJECTIVES, FixMatchObjective

UNSEEN, NOT_LISTED = -1, -2


@dataclass(eq=False)
class FlexMatchObjective(FixMatchObjective):
    """FixMatch with a lower threshold for classes to which few videos are confidently assigned.

    T(c) = τ · β(c) / (2 − β(c)) with β(c) = σ(c) / max(max σ, number of videos without a confident
    prediction), σ(c) being the number of videos whose last confident (p >= τ) prediction is c.

    Buffers: `selected`, shape (rows,), the last confident class of each video, `UNSEEN` or
    `NOT_LISTED`.

    Source: Zhang et al., "FlexMatch" (arXiv 2110.08263), equations 5 to 8 and 11, algorithm 1.
    """

    def begin(self, rows: np.ndarray, num_classes: int) -> None:
        """Mark every video of the run as unseen."""
        selected = torch.full((int(rows.max()) + 1,), NOT_LISTED)
        selected[torch.from_numpy(np.asarray(rows))] = UNSEEN
        self.register_buffer("selected", selected)

    def confidence_mask(self, logits: Tensor, rows: Tensor) -> Tensor:
        """Return 1 where the probability reaches the threshold of its class, else 0."""
        confidence, predicted = logits.softmax(dim=1).max(dim=1)
        counts = torch.bincount(self.selected[self.selected >= 0], minlength=logits.shape[1])
        largest = torch.maximum(counts.max(), (self.selected == UNSEEN).sum()).clamp(min=1)
        beta = counts / largest
        is_confident = confidence >= self.confidence_threshold
        self.selected[rows[is_confident]] = predicted[is_confident]
        threshold = self.confidence_threshold * (beta / (2 - beta))
        return (confidence >= threshold[predicted]).to(logits.dtype)


@dataclass(eq=False)
class FreeMatchObjective(FixMatchObjective):
    """FixMatch with thresholds that follow the confidence, and a fairness loss.

    τ(c) = τ · p̃(c) / max p̃, with moving averages τ of the largest probability and p̃ of the
    probabilities.

    Buffers: these averages, `mean_confidence` () and `mean_probabilities` (K,), and that of the
    predicted classes, `mean_histogram` (K,); they start at 1 / K.

    Args:
        threshold_momentum: Momentum of the moving averages, in [0, 1).
        fairness_weight: Weight of the fairness loss within the unlabeled loss.

    Source: Wang et al., "FreeMatch" (arXiv 2205.07246), equations 5 to 8 and 10.
    """

    threshold_momentum: float = 0.999
    fairness_weight: float = 0.01

    def begin(self, rows: np.ndarray, num_classes: int) -> None:
        """Start the averages from a uniform distribution."""
        self.register_buffer("mean_confidence", torch.tensor(1 / num_classes))
        self.register_buffer("mean_probabilities", torch.full((num_classes,), 1 / num_classes))
        self.register_buffer("mean_histogram", torch.full((num_classes,), 1 / num_classes))

    def confidence_mask(self, logits: Tensor, rows: Tensor | None) -> Tensor:
        """Return 1 where the probability exceeds the threshold of its class, else 0."""
        probabilities = logits.float().softmax(dim=1)
        confidence, predicted = probabilities.max(dim=1)
        histogram = F.one_hot(predicted, logits.shape[1]).float().mean(dim=0)
        momentum = self.threshold_momentum
        self.mean_confidence = _average(self.mean_confidence, confidence.mean(), momentum)
        self.mean_probabilities = _average(
            self.mean_probabilities, probabilities.mean(dim=0), momentum
        )
        self.mean_histogram = _average(self.mean_histogram, histogram, momentum)
        threshold = self.mean_confidence * self.mean_probabilities / self.mean_probabilities.max()
        return (confidence > threshold[predicted]).to(logits.dtype)

    def unlabeled_loss(self, logits: Tensor, pseudo_labels: Tensor, mask: Tensor) -> Tensor:
        """Return the loss of the strong views with the fairness loss."""
        loss = super().unlabeled_loss(logits, pseudo_labels, mask)
        return loss + self.fairness_weight * self.fairness_loss(logits, mask)

    def fairness_loss(self, logits: Tensor, mask: Tensor) -> Tensor:
        """Return the self-adaptive fairness loss of the strong views, −H(p̃ / h̃, p̄ / h̄).

        Source: Wang et al., "FreeMatch", equations 10 to 12.
        """
        confident = logits.float().softmax(dim=1)[mask > 0]
        if not len(confident):
            return logits.sum() * 0
        histogram = F.one_hot(confident.argmax(dim=1), logits.shape[1]).float().mean(dim=0)
        expected = _normalized_ratio(self.mean_probabilities, self.mean_histogram)
        actual = _normalized_ratio(confident.mean(dim=0), histogram)
        return (expected * torch.log(actual + 1e-12)).sum()


@dataclass(eq=False)
class SoftMatchObjective(FixMatchObjective):
    """FixMatch with a weight for every pseudo-label instead of a threshold.

    The weight is exp(−(min(p − μ, 0))² / (2σ²)), a Gaussian of the confidence below its mean and 1
    above it. p is the largest probability after alignment of the classes (p(c) / p̃(c),
    normalized), μ and σ² are moving averages of its mean and variance.

    Buffers: `mean` (), from 1 / K; `variance` (), from 1; `mean_probabilities` p̃ (K,), from 1 / K.

    Args:
        threshold_momentum: Momentum of the moving averages, in [0, 1).

    Source: Chen et al., "SoftMatch" (arXiv 2301.10921), equations 4 to 8.
    """

    threshold_momentum: float = 0.999

    def begin(self, rows: np.ndarray, num_classes: int) -> None:
        """Start the averages from a uniform distribution."""
        self.register_buffer("mean", torch.tensor(1 / num_classes))
        self.register_buffer("variance", torch.tensor(1.0))
        self.register_buffer("mean_probabilities", torch.full((num_classes,), 1 / num_classes))

    def confidence_mask(self, logits: Tensor, rows: Tensor | None) -> Tensor:
        """Return the weight of each pseudo-label, in [0, 1]."""
        probabilities = logits.float().softmax(dim=1)
        momentum = self.threshold_momentum
        self.mean_probabilities = _average(
            self.mean_probabilities, probabilities.mean(dim=0), momentum
        )
        uniform = 1 / logits.shape[1]
        aligned = probabilities * uniform / self.mean_probabilities
        confidence = (aligned / aligned.sum(dim=1, keepdim=True)).max(dim=1).values
        variance = confidence.var() if len(confidence) > 1 else torch.zeros_like(self.variance)
        self.mean = _average(self.mean, confidence.mean(), momentum)
        self.variance = _average(self.variance, variance, momentum)
        below = torch.clamp(confidence - self.mean, max=0)
        return torch.exp(-below.square() / (2 * self.variance)).to(logits.dtype)


OBJECTIVES.update(
    flexmatch=FlexMatchObjective, freematch=FreeMatchObjective, softmatch=SoftMatchObjective
)


def _average(mean: Tensor, value: Tensor, momentum: float) -> Tensor:
    return momentum * mean + (1 - momentum) * value


def _normalized_ratio(probabilities: Tensor, histogram: Tensor) -> Tensor:
    """Return probabilities / histogram with sum 1; a class that was never predicted counts 0."""
    ratio = torch.where(histogram > 0, probabilities / histogram.clamp(min=1e-12), 0.0)
    return ratio / ratio.sum()
