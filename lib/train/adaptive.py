"""Thresholds that adapt: which pseudo-labels count, by what the network has predicted so far.

Each function takes the weak views' logits (B, K) and a state, a dictionary of tensors that it fills
and updates, and returns the weight of each clip, shape (B,), values in [0, 1]. Every process of a
run keeps the state of its own clips.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

UNSEEN, NOT_LISTED = -1, -2
State = dict[str, Tensor]


def flexmatch_weights(logits: Tensor, rows: Tensor, state: State, threshold: float) -> Tensor:
    """Lower the threshold of classes that few videos were confidently given to so far.

    T(c) = τ · β(c) / (2 − β(c)) with β(c) = σ(c) / max(max σ, videos not confident yet), σ(c) being
    how many videos were last confidently (p >= τ) predicted as c.

    Args:
        logits: Shape (B, K).
        rows: Index row of each clip's video, shape (B,).
        state: `selected`, shape (rows,): the class that a video was last confidently given,
            `UNSEEN` or `NOT_LISTED`.
        threshold: τ, in (0, 1].

    Source: Zhang et al., "FlexMatch" (arXiv 2110.08263), equations 5 to 8 and 11, algorithm 1.
    """
    confidence, predicted = logits.softmax(dim=1).max(dim=1)
    selected = state.setdefault("selected", torch.full((int(rows.max()) + 1,), UNSEEN))
    selected = state["selected"] = selected.to(logits.device)
    counts = torch.bincount(selected[selected >= 0], minlength=logits.shape[1])
    most = torch.maximum(counts.max(), (selected == UNSEEN).sum()).clamp(min=1)
    beta = counts / most
    sure = confidence >= threshold
    selected[rows[sure]] = predicted[sure]
    return (confidence >= threshold * (beta / (2 - beta))[predicted]).to(logits.dtype)


def freematch_weights(logits: Tensor, state: State, momentum: float) -> Tensor:
    """Let the threshold follow the mean confidence, and that of a class its mean probability.

    τ(c) = τ · p̃(c) / max p̃, with moving averages τ of the largest probability and p̃ of the
    probabilities, both from 1 / K on.

    Args:
        logits: Shape (B, K).
        state: `confidence` (), `probabilities` (K,), `histogram` (K,) of the predicted classes.
        momentum: Of the moving averages, in [0, 1).

    Source: Wang et al., "FreeMatch" (arXiv 2205.07246), equations 5 to 8 and 10.
    """
    probabilities = logits.float().softmax(dim=1)
    confidence, predicted = probabilities.max(dim=1)
    frequency = F.one_hot(predicted, logits.shape[1]).float().mean(dim=0)
    uniform = torch.full_like(frequency, 1 / len(frequency))
    level = _follow(state, "confidence", confidence.mean(), momentum, uniform[0])
    classes = _follow(state, "probabilities", probabilities.mean(dim=0), momentum, uniform)
    _follow(state, "histogram", frequency, momentum, uniform)
    return (confidence > (level * classes / classes.max())[predicted]).to(logits.dtype)


def freematch_fairness(logits: Tensor, keep: Tensor, state: State) -> Tensor:
    """Return the self-adaptive fairness loss of the strong views, −H(p̃ / h̃, p̄ / h̄).

    Args:
        logits: Of the strong views, shape (B, K).
        keep: 1 for clips that count, else 0, shape (B,).
        state: As `freematch_weights` left it.

    Source: Wang et al., "FreeMatch", equations 10 to 12.
    """
    kept = logits.float().softmax(dim=1)[keep > 0]
    if not len(kept):
        return logits.sum() * 0
    frequency = F.one_hot(kept.argmax(dim=1), logits.shape[1]).float().mean(dim=0)
    expected = _normalized(state["probabilities"], state["histogram"])
    return (expected * torch.log(_normalized(kept.mean(dim=0), frequency) + 1e-12)).sum()


def softmatch_weights(logits: Tensor, state: State, momentum: float) -> Tensor:
    """Weigh a clip by a Gaussian of its confidence below the mean, and by 1 above it.

    exp(−(min(p − μ, 0))² / (2σ²)), p being the largest probability after the classes are aligned
    (p(c) / p̃(c), normalised), μ and σ² moving averages of its mean (from 1 / K) and variance
    (from 1).

    Args:
        logits: Shape (B, K).
        state: `mean` (), `variance` (), `probabilities` (K,).
        momentum: Of the moving averages, in [0, 1).

    Source: Chen et al., "SoftMatch" (arXiv 2301.10921), equations 4 to 8.
    """
    probabilities = logits.float().softmax(dim=1)
    uniform = torch.full_like(probabilities[0], 1 / logits.shape[1])
    mean_of_classes = probabilities.mean(dim=0)
    classes = _follow(state, "probabilities", mean_of_classes, momentum, uniform)
    aligned = probabilities * uniform / classes
    confidence = (aligned / aligned.sum(dim=1, keepdim=True)).max(dim=1).values
    variance = confidence.var() if len(confidence) > 1 else torch.zeros_like(uniform[0])
    mean = _follow(state, "mean", confidence.mean(), momentum, uniform[0])
    variance = _follow(state, "variance", variance, momentum, torch.ones_like(uniform[0]))
    below = torch.clamp(confidence - mean, max=0)
    return torch.exp(-below.square() / (2 * variance)).to(logits.dtype)


def _follow(state: State, name: str, value: Tensor, momentum: float, start: Tensor) -> Tensor:
    """Update a moving average of the state and return it."""
    before = state.get(name, start).to(value.device)
    state[name] = momentum * before + (1 - momentum) * value
    return state[name]


def _normalized(probabilities: Tensor, histogram: Tensor) -> Tensor:
    """Return probabilities / histogram with sum 1; a class that was never predicted counts 0."""
    ratio = torch.where(histogram > 0, probabilities / histogram.clamp(min=1e-12), 0.0)
    return ratio / ratio.sum()
