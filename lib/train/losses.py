"""The loss terms of the method: pure functions of tensors, one per equation."""

import torch
import torch.nn.functional as F
from torch import Tensor


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the cross-entropy of each clip with soft targets.

    Args:
        logits: Shape (B, K).
        targets: Class probabilities, shape (B, K).

    Returns:
        Shape (B,), at least 0.
    """
    return -(targets * F.log_softmax(logits, dim=1)).sum(dim=1)


def confident(logits: Tensor, threshold: float) -> Tensor:
    """Return 1 where the largest probability reaches the threshold, else 0.

    Args:
        logits: Shape (B, K).
        threshold: In (0, 1].

    Returns:
        Shape (B,), float.

    Source: Zou et al., section 3.1; Sohn et al., FixMatch, equation 4.
    """
    return (logits.softmax(dim=1).max(dim=1).values >= threshold).to(logits.dtype)


def hard_targets(logits: Tensor) -> Tensor:
    """Return the predicted class as one-hot probabilities, shape (B, K).

    Source: Sohn et al., FixMatch, equation 4.
    """
    return F.one_hot(logits.argmax(dim=1), logits.shape[1]).to(logits.dtype)


def sharpened_targets(logits: Tensor, temperature: float) -> Tensor:
    """Return softmax(logits / temperature), shape (B, K).

    Source: Xie et al., UDA, section 3.2 (training signal with a sharpening temperature).
    """
    return (logits / temperature).softmax(dim=1)


def fixmatch_loss(logits: Tensor, targets: Tensor, keep: Tensor) -> Tensor:
    """Return mean(keep · CE) over all unlabelled clips, confident or not.

    Args:
        logits: Of the strong views, shape (B, K).
        targets: Pseudo-labels, shape (B, K).
        keep: 1 for confident clips, else 0, shape (B,).

    Source: Sohn et al., FixMatch, equation 4.
    """
    return (keep * soft_cross_entropy(logits, targets)).mean()


def uda_loss(logits: Tensor, targets: Tensor, keep: Tensor) -> Tensor:
    """Return the mean of CE over the confident clips, 0 if there is none.

    Arguments as `fixmatch_loss`.

    Source: Xie et al., UDA, section 3.2.
    """
    kept = keep.sum()
    return (keep * soft_cross_entropy(logits, targets)).sum() / torch.clamp(kept, min=1)
