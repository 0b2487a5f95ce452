"""Linear probe: logistic regression on the features of videos, as the head of a network."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from lib.data.dataset import VideoDataset
from lib.runs.distributed import DistContext
from lib.train.objectives import Stats, labeled_stats, mean_of
from lib.train.run_data import RunData

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

MAX_ITERATIONS = 1000
TOLERANCE = 1e-8  # largest entry of the gradient
ABSENT_LOGIT = -20.0  # of a class without a label; the logits of the others have mean 0
MAX_USED = 0.8  # share of the unlabeled videos in the last round
PRIOR_COUNT = 5  # labels added to each class before its frequency is computed


def logistic_regression(features: np.ndarray, labels: np.ndarray, l2: float) -> "Pipeline":
    """Fit a logistic regression on features scaled to mean 0 and standard deviation 1.

    Minimizes mean CE + l2/2 · |W|², W being the weights on the scaled features.

    Args:
        features: Shape (N, D).
        labels: Class indices, shape (N,), of at least two classes.
        l2: Weight of the penalty, above 0.
    """
    from sklearn.linear_model import LogisticRegression  # takes a second, and few runs need it
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    c = 1 / (len(labels) * l2)
    if len(np.unique(labels)) == 2:  # scikit-learn fits the difference of both logits
        c *= 2
    classifier = LogisticRegression(C=c, tol=TOLERANCE, max_iter=MAX_ITERATIONS)
    return make_pipeline(StandardScaler(), classifier).fit(features.astype(np.float64), labels)


def self_train(
    features: np.ndarray, labels: np.ndarray, unlabeled: np.ndarray, l2: float, rounds: int
) -> "Pipeline":
    """Self-train a logistic regression: each round adds more of its most confident pseudo-labels.

    Round r of R fits the labeled videos and the most confident 0.8 · r / R of the others. Each
    class with a label has a share of n + 5 of them, n being the number of its labels: nearly equal
    shares where labels are few, the shares of the labels where they are many.

    Args:
        features: Features of the labeled videos, shape (N, D).
        labels: Their class indices, shape (N,).
        unlabeled: Features of the other videos, shape (U, D).
        l2: As of `logistic_regression`.
        rounds: R; 0 uses the labels alone.

    Source: Cascante-Bonilla et al., Curriculum Labeling, 2021; a share for each class: Zou et al.,
    Class-Balanced Self-Training, 2018.
    """
    classes, counts = np.unique(labels, return_counts=True)
    shares = (counts + PRIOR_COUNT) / (counts + PRIOR_COUNT).sum()
    model = logistic_regression(features, labels, l2)
    for number in range(1, rounds + 1):
        probabilities = model.predict_proba(unlabeled)
        predicted = classes[probabilities.argmax(axis=1)]
        quotas = np.ceil(MAX_USED * number / rounds * len(unlabeled) * shares).astype(int)
        order = np.argsort(-probabilities.max(axis=1), kind="stable")
        chosen = np.concatenate(
            [order[predicted[order] == k][:n] for k, n in zip(classes, quotas, strict=True)]
        )
        model = logistic_regression(
            np.concatenate([features, unlabeled[chosen]]),
            np.concatenate([labels, predicted[chosen]]),
            l2,
        )
    return model


def linear_layer(model: "Pipeline", num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return weights (K, D) and biases (K,) for unscaled features, float64.

    A class without a label is never predicted.
    """
    scaler, classifier = model
    coef, intercept = classifier.coef_, classifier.intercept_
    if len(classifier.classes_) == 2:
        coef, intercept = (np.concatenate([-coef, coef]) / 2, np.r_[-intercept, intercept] / 2)
    weight = np.zeros((num_classes, coef.shape[1]))
    bias = np.full(num_classes, ABSENT_LOGIT)
    weight[classifier.classes_] = coef / scaler.scale_
    bias[classifier.classes_] = intercept
    return weight, bias - weight @ scaler.mean_


def fit_head(
    head: nn.Linear,
    compute_features: Callable[[VideoDataset, np.ndarray], np.ndarray],
    data: RunData,
    l2: float,
    rounds: int,
    world: DistContext,
) -> Stats:
    """Make a linear probe the head of a network.

    Args:
        head: The network's last layer.
        compute_features: (data set, index rows (N,)) -> features of the videos, shape (N, D).
        data: The videos.
        l2: As of `logistic_regression`.
        rounds: Rounds of self-training, if there are videos without a label.
        world: The processes; the first one fits the head of all.

    Returns:
        Log entries: loss and accuracy on the labeled videos.
    """
    labels = data.labeled.index["label"].to_numpy()[data.labeled_rows]
    features = compute_features(data.labeled, data.labeled_rows)
    rounds = rounds if len(data.other_rows) else 0
    unlabeled = compute_features(data.unlabeled, data.other_rows) if rounds else features[:0]
    fitted = None
    if world.rank == 0:
        model = self_train(features, labels, unlabeled, l2, rounds)
        fitted = linear_layer(model, head.out_features)
    weight, bias = map(torch.from_numpy, world.broadcast(fitted))
    with torch.no_grad():
        head.weight.copy_(weight)
        head.bias.copy_(bias)
    logits = F.linear(torch.from_numpy(features).double(), weight, bias)
    loss = F.cross_entropy(logits, torch.from_numpy(labels))
    targets = F.one_hot(torch.from_numpy(labels), head.out_features)
    return {"loss/total": mean_of(loss)} | labeled_stats(loss, logits, targets)
