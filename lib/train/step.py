"""What an objective is given for a step and what it returns; what of it is logged."""

from typing import NamedTuple

import torch
from torch import Tensor


class ClipTensors(NamedTuple):
    """A batch of clips on the device, normalised.

    Attributes:
        weak: Weak views, shape (B, C, T, H, W); None where only strong ones are used.
        strong: Strong views, same shape, or None.
        person_mask: 1 on people in the weak views, shape (B, 1, T, H, W), or None.
        targets: One-hot labels, shape (B, K). Of unlabelled clips they are only compared with, and
            zero where the class is not known.
        teacher: ImageNet probabilities, shape (B, 1000), or None.
        soft: Class probabilities that another model gives, shape (B, K), or None.
        row: Index row of each video, shape (B,), or None.
    """

    weak: Tensor | None
    strong: Tensor | None
    person_mask: Tensor | None
    targets: Tensor
    teacher: Tensor | None = None
    soft: Tensor | None = None
    row: Tensor | None = None


class StepLoss(NamedTuple):
    """What an objective returns.

    Attributes:
        loss: What to minimise, a scalar.
        stats: For the log: name -> (sum, count); means over any number of batches are exact.
    """

    loss: Tensor
    stats: dict[str, tuple[Tensor, Tensor]]


def mean_of(value: Tensor) -> tuple[Tensor, Tensor]:
    """Return a mean as (sum, count) of one batch."""
    return value.detach(), torch.ones_like(value)


def labeled_stats(loss: Tensor, logits: Tensor, targets: Tensor) -> dict:
    """Return the log entries of the labelled clips; `targets` are the labels before mixing."""
    correct = (logits.argmax(dim=1) == targets.argmax(dim=1)).to(loss.dtype)
    count = torch.full_like(loss, len(logits)).detach()
    return {"loss/labeled": mean_of(loss), "train/top1_clip": (correct.sum(), count)}


def unlabeled_stats(loss: Tensor, weak_logits: Tensor, keep: Tensor, targets: Tensor) -> dict:
    """Return the log entries of the unlabelled clips; zero targets mean an unknown class."""
    known = targets.sum(dim=1) * keep
    correct = (weak_logits.argmax(dim=1) == targets.argmax(dim=1)).to(keep.dtype)
    return {
        "loss/unlabeled": mean_of(loss),
        "ssl/mask_rate": (keep.sum(), torch.full_like(loss, len(keep)).detach()),
        "ssl/pseudo_label_accuracy": ((correct * known).sum(), known.sum()),
    }
