"""A linear probe: a logistic regression on features is the network's head."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.config import TrainSettings
from lib.data.dataset import VideoDataset
from lib.runs.distributed import DistContext
from lib.train.setup import Data
from lib.train.step import labeled_stats, mean_of

MAX_ITERATIONS = 1000
MAX_USED = 0.8  # of the unlabelled videos, in the last round
PRIOR_COUNT = 5  # labels that each class is given before its frequency is taken


def logistic_regression(
    features: Tensor, labels: Tensor, num_classes: int, l2: float
) -> tuple[Tensor, Tensor]:
    """Fit a logistic regression on features scaled to mean 0 and deviation 1.

    Minimises mean CE + l2/2 · |W|², W being the weights on the scaled features, with L-BFGS from 0.

    Args:
        features: Shape (N, D).
        labels: Class indices, shape (N,).
        num_classes: K.
        l2: Above 0; 1 / N is scikit-learn's `C = 1`.

    Returns:
        Weights (K, D) and biases (K,) that act on the features as they are, float64.
    """
    features = features.double()
    mean, std = features.mean(dim=0), features.std(dim=0, correction=0)
    std = torch.where(std > 0, std, 1.0)
    scaled = (features - mean) / std
    weight = torch.zeros(num_classes, features.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(num_classes, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS(
        [weight, bias],
        max_iter=MAX_ITERATIONS,
        tolerance_grad=1e-8,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        solver.zero_grad()
        value = F.cross_entropy(F.linear(scaled, weight, bias), labels)
        value = value + l2 / 2 * weight.square().sum()
        value.backward()
        return value

    solver.step(loss)
    weight, bias = weight.detach() / std, bias.detach()
    return weight, bias - weight @ mean


def self_train(
    features: Tensor, labels: Tensor, unlabeled: Tensor, num_classes: int, l2: float, rounds: int
) -> tuple[Tensor, Tensor]:
    """Fit a logistic regression that also learns from its own answers, more of them in each round.

    Round r of R is fitted anew to the labelled videos and to the surest 0.8 · r / R of the others;
    a class has the share of n + 5 of them, n being its labels: as much as any other where labels
    are few, its share of the labels where they are many. FixMatch without its strong views.

    Args:
        features: Of the labelled videos, shape (N, D).
        labels: Their class indices, shape (N,).
        unlabeled: Features of the others, shape (U, D).
        num_classes: K; a class without a label is never an answer.
        l2: As of `logistic_regression`.
        rounds: R; 0 learns from the labels alone.

    Returns:
        As `logistic_regression`.

    Source: Cascante-Bonilla et al., Curriculum Labeling, 2021; a share for each class: Zou et al.,
    Class-Balanced Self-Training, 2018.
    """
    count = labels.bincount(minlength=num_classes).double()
    frequency = (count + PRIOR_COUNT) * (count > 0)
    frequency, unlabeled = frequency / frequency.sum(), unlabeled.double()
    weight, bias = logistic_regression(features, labels, num_classes, l2)
    for number in range(1, rounds + 1):
        sure, said = F.linear(unlabeled, weight, bias).softmax(dim=1).max(dim=1)
        most = (MAX_USED * number / rounds * len(unlabeled) * frequency).ceil().int()
        order = sure.argsort(descending=True, stable=True)
        said = said[order]
        chosen = torch.cat([(said == k).nonzero()[: most[k], 0] for k in range(num_classes)])
        together = torch.cat([features, unlabeled[order[chosen]]])
        answers = torch.cat([labels, said[chosen]])
        weight, bias = logistic_regression(together, answers, num_classes, l2)
    return weight, bias


def fit_head(
    head: nn.Linear,
    score: Callable[[VideoDataset, np.ndarray], np.ndarray],
    data: Data,
    settings: TrainSettings,
    world: DistContext,
) -> dict[str, tuple[Tensor, Tensor]]:
    """Make such a regression the head of a network.

    Args:
        head: The network's last layer.
        score: Data set, index rows (N,) -> features of the videos, shape (N, D).
        data: What is learned from.
        settings: The run: `probe_l2`, and `self_training_rounds` where there are unlabelled videos.
        world: The processes; the first fits the head of all.

    Returns:
        For the log: loss and accuracy on the labelled videos, name -> (sum, count).
    """
    labels = torch.from_numpy(data.labeled.index["label"].to_numpy()[data.labeled_rows])
    features = torch.from_numpy(score(data.labeled, data.labeled_rows))
    others = data.other_rows
    rounds = settings.self_training_rounds if len(others) else 0
    unlabeled = torch.from_numpy(score(data.unlabeled, others)) if rounds else features[:0]
    how = head.out_features, settings.probe_l2, rounds
    fitted = self_train(features, labels, unlabeled, *how) if world.rank == 0 else None
    weight, bias = world.broadcast(fitted)
    with torch.no_grad():
        head.weight.copy_(weight)
        head.bias.copy_(bias)
    logits = F.linear(features.double(), weight, bias)
    loss = F.cross_entropy(logits, labels)
    stats = labeled_stats(loss, logits, F.one_hot(labels, head.out_features))
    return {"loss/total": mean_of(loss)} | stats
