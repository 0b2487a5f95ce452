"""Linear probe: logistic regression on the features of videos, as the head of a network."""

from collections.abc import Callable
from functools import partial
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
MAX_CROSS_VALIDATED = 200  # labeled videos; more have a validation split that is large enough
NUM_FOLDS = 5
PRIOR_COUNT = 5  # labels added to each class before its frequency is computed


def logistic_regression(features: np.ndarray, labels: np.ndarray, l2: float) -> "Pipeline":
    """Fit a logistic regression on features scaled to mean 0 and standard deviation 1.

    Minimizes mean CE + l2/2 · |W|², l2 > 0, W being the weights on the scaled features. `features`
    are (N, D), `labels` (N,) class indices of at least two classes.
    """
    from sklearn.linear_model import LogisticRegression  # takes a second, and few runs need it
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    c = 1 / (len(labels) * l2)
    if len(np.unique(labels)) == 2:  # scikit-learn fits the difference of both logits
        c *= 2
    classifier = LogisticRegression(C=c, tol=TOLERANCE, max_iter=MAX_ITERATIONS)
    model = make_pipeline(StandardScaler(), classifier)
    # BLAS would use all cores, busy ones too: 40 times the processor time, and other last digits.
    with threadpool_limits(torch.get_num_threads(), "blas"):
        return model.fit(features.astype(np.float64), labels)


def self_train(
    features: np.ndarray, labels: np.ndarray, unlabeled: np.ndarray, l2: float, rounds: int
) -> "Pipeline":
    """Self-train a logistic regression: each round adds more of its most confident pseudo-labels.

    Round r of R `rounds` fits the labeled videos and the most confident 0.8 · r / R of the others,
    whose features `unlabeled` (U, D) are; none, U = 0, has no round. Other arguments are those of
    `logistic_regression`. Each class with a label has a share of n + 5 of them, n being the number
    of its labels: nearly equal shares where labels are few, the shares of the labels where they are
    many.

    Source: Cascante-Bonilla et al., Curriculum Labeling, 2021; a share for each class: Zou et al.,
    Class-Balanced Self-Training, 2018.
    """
    classes, counts = np.unique(labels, return_counts=True)
    shares = (counts + PRIOR_COUNT) / (counts + PRIOR_COUNT).sum()
    model = logistic_regression(features, labels, l2)
    for number in range(1, rounds + 1) if len(unlabeled) else ():
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


def cross_validate(
    fit: Callable[..., "Pipeline"],
    features: np.ndarray,
    labels: np.ndarray,
    unlabeled: np.ndarray,
    groups: np.ndarray,
    unlabeled_groups: np.ndarray,
) -> np.ndarray | None:
    """Predict each labeled video by a probe that saw no video of its source.

    `fit` is (features, labels, unlabeled features) -> model, other arguments are those of
    `self_train`; `groups` (N,) and `unlabeled_groups` (U,) are the sources of the videos. Returns
    True where the prediction is right, shape (N,); None if the sources are too few.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    num_folds = min(NUM_FOLDS, len(np.unique(groups)), np.bincount(labels).max())
    if num_folds < 2:
        return None
    folds = StratifiedGroupKFold(num_folds, shuffle=True, random_state=0)
    correct = np.zeros(len(labels), dtype=bool)
    for train, test in folds.split(features, labels, groups):
        if len(np.unique(labels[train])) < 2:
            return None
        others = unlabeled[~np.isin(unlabeled_groups, groups[test])]
        model = fit(features[train], labels[train], others)
        correct[test] = model.predict(features[test].astype(np.float64)) == labels[test]
    return correct


def fit_head(
    head: nn.Linear,
    compute_features: Callable[[VideoDataset, np.ndarray], np.ndarray],
    data: RunData,
    l2: float,
    rounds: int,
    world: DistContext,
) -> Stats:
    """Make a linear probe the head of a network; the first process fits that of all.

    `compute_features` is (data set, index rows (N,)) -> features of the videos, shape (N, D);
    `rounds` of self-training are made if there are videos without a label. Returns log entries:
    loss and accuracy on the labeled videos; where these are few, the accuracy of `cross_validate`
    on them and the validation videos.
    """
    labels = data.labeled.index["label"].to_numpy()[data.labeled_rows]
    features = compute_features(data.labeled, data.labeled_rows)
    is_used = rounds and len(data.other_rows)
    unlabeled = compute_features(data.unlabeled, data.other_rows) if is_used else features[:0]
    fit = partial(self_train, l2=l2, rounds=rounds)
    fitted = world.rank == 0 and linear_layer(fit(features, labels, unlabeled), head.out_features)
    weight, bias = map(torch.from_numpy, world.broadcast(fitted))
    with torch.no_grad():
        head.weight.copy_(weight)
        head.bias.copy_(bias)
    logits = F.linear(torch.from_numpy(features).double(), weight, bias)
    loss = F.cross_entropy(logits, torch.from_numpy(labels))
    targets = F.one_hot(torch.from_numpy(labels), head.out_features)
    stats = {"loss/total": mean_of(loss)} | labeled_stats(loss, logits, targets)
    if len(data.labeled_rows) + len(data.val_rows) <= MAX_CROSS_VALIDATED:
        features = np.concatenate([features, compute_features(data.labeled, data.val_rows)])
        of_first = world.rank == 0 and _cross_validation_stats(fit, features, unlabeled, data)
        stats |= world.broadcast(of_first)
    return stats


def _cross_validation_stats(
    fit: Callable[..., "Pipeline"], features: np.ndarray, unlabeled: np.ndarray, data: RunData
) -> Stats:
    rows, groups = np.concatenate([data.labeled_rows, data.val_rows]), data.labeled.groups()
    labels = data.labeled.index["label"].to_numpy()[rows]
    others = groups[data.other_rows[: len(unlabeled)]]
    correct = cross_validate(fit, features, labels, unlabeled, groups[rows], others)
    if correct is None:
        return {}
    right, count = torch.tensor(100.0 * correct.sum()), torch.tensor(float(len(correct)))
    return {
        "eval/top1_cross_validated": (right, count),
        "eval/videos_cross_validated": mean_of(count),
    }
