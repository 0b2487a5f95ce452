"""A linear probe: features once per video, and a logistic regression as the network's head."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.data.dataset import VideoDataset
from lib.learn.classifier import VideoClassifier
from lib.learn.scoring import Protocol, score_videos
from lib.learn.step import labeled_stats, mean_of
from lib.run.processes import World

MAX_ITERATIONS = 1000


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


def fit_head(
    model: VideoClassifier,
    normalize: nn.Module,
    dataset: VideoDataset,
    rows: np.ndarray,
    protocol: Protocol,
    world: World,
    l2: float,
) -> dict[str, tuple[Tensor, Tensor]]:
    """Make a logistic regression on the features of labelled videos the network's head.

    Args:
        model: The network; its backbone is put into evaluation mode and stays as it is.
        normalize: uint8 clips (B, T, 3, H, W) -> normalised (B, 3, T, H, W).
        dataset: The prepared data set.
        rows: Index rows of the labelled videos, shape (N,).
        protocol: The views of a video; its features are their mean.
        world: The processes, which share the videos; each fits the same head.
        l2: As of `logistic_regression`.

    Returns:
        For the log: loss and accuracy on the labelled videos, name -> (sum, count).
    """
    features = score_videos(model.backbone, normalize, dataset, rows, protocol, world)
    labels = torch.from_numpy(dataset.index["label"].to_numpy()[rows].copy())
    weight, bias = logistic_regression(
        torch.from_numpy(features), labels, model.head.out_features, l2
    )
    with torch.no_grad():
        model.head.weight.copy_(weight)
        model.head.bias.copy_(bias)
    logits = torch.from_numpy(features).double() @ weight.T + bias
    targets = F.one_hot(labels, model.head.out_features)
    loss = F.cross_entropy(logits, labels)
    return {"loss/total": mean_of(loss)} | labeled_stats(loss, logits, targets)
