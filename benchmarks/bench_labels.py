"""Accuracy of a probe over the number of labels: videos that are chosen against random ones.

    python -m benchmarks.bench_labels params/pretrained/probe.yaml --set videos_dir=/videos
        --out docs/images/labels.png

The labels of the training split are hidden. Each way labels 10, 20, 40, 80 and 160 videos, from
zero on; uncertainty is that of the probe on the labels before. A draw is a first video, or a random
order. `--dev` tests on a fourth of the training split, drawn by the number of the draw, and
chooses among the rest: for the choice of a way.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.bench_probe import all_features, probe_parser, probe_settings
from lib.config import TrainSettings
from lib.evaluate.choose_videos import WAYS, choose_videos
from lib.train.linear_probe import MAX_ITERATIONS, TOLERANCE, linear_layer
from lib.train.scoring import metrics

BUDGETS = (10, 20, 40, 80, 160)
DRAWS = (0, 1, 2)


def fit_probe(
    features: np.ndarray, labels: np.ndarray, l2: float, num_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return weights (K, D) and biases (K,) of a probe, as `linear_layer(logistic_regression(…))`.

    With fewer videos than features the solution lies in the span of the videos; fitted in there, it
    takes a fifth of the time.
    """
    scaler = StandardScaler().fit(features)
    left, scales, basis = np.linalg.svd(scaler.transform(features), full_matrices=False)
    c = (2 if len(np.unique(labels)) == 2 else 1) / (len(labels) * l2)
    classifier = LogisticRegression(C=c, tol=TOLERANCE, max_iter=MAX_ITERATIONS)
    classifier.fit(left * scales, labels)
    classifier.coef_ = classifier.coef_ @ basis
    return linear_layer(make_pipeline(scaler, classifier), num_classes)


def accuracies(settings: TrainSettings, is_dev: bool) -> dict[str, list[list[float]]]:
    """Return way -> draw -> top-1 (%) for each number of labels."""
    data, features = all_features(settings)
    features = features.astype(np.float64)
    num_classes, rows = len(data.labeled.classes), data.labeled_rows
    labels = data.labeled.index["label"].to_numpy()[np.concatenate([rows, data.val_rows])]
    found: dict[str, list[list[float]]] = {}
    for way in WAYS:
        for draw in DRAWS:
            pool, test = np.split(np.arange(len(features)), [len(rows)])
            if is_dev:
                order = np.random.default_rng(draw).permutation(pool)
                test, pool = np.split(order, [len(pool) // 4])
            generator, is_labeled = np.random.default_rng(draw), np.zeros(len(pool), dtype=bool)
            probabilities, tops = None, []
            for budget in BUDGETS:
                count = budget - int(is_labeled.sum())
                chosen = choose_videos(
                    way, features[pool], is_labeled, probabilities, count, generator
                )
                is_labeled[chosen] = True
                own = pool[is_labeled]
                weight, bias = fit_probe(features[own], labels[own], settings.probe_l2, num_classes)
                logits = torch.from_numpy(features @ weight.T + bias)
                probabilities = logits[pool].softmax(dim=1).numpy()
                tops.append(metrics(logits[test].numpy(), labels[test])["top1"])
            found.setdefault(way, []).append(tops)
            print(way, draw, np.round(tops, 1), flush=True)
    return found


def draw_figure(found: dict[str, list[list[float]]], path: Path) -> None:
    """Draw accuracy over labels: the mean of the draws as a line, each draw as a point."""
    figure, axes = plt.subplots(figsize=(6.4, 4), layout="constrained")
    for (way, draws), color in zip(found.items(), ("C0", "C1", "gray"), strict=True):
        axes.plot(BUDGETS, np.mean(draws, axis=0), "-", color=color, label=f"{way}, mean")
        for tops in draws:
            axes.plot(BUDGETS, tops, "o", color=color, markersize=4)
    axes.set_xscale("log")
    axes.set_xticks(BUDGETS, map(str, BUDGETS))
    axes.minorticks_off()
    axes.set(xlabel="labeled videos", ylabel="top-1 (%)")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure, print and draw."""
    parser = probe_parser(__doc__)
    parser.add_argument("--dev", action="store_true", help="test on a part of the training split")
    given = parser.parse_args()
    found = accuracies(probe_settings(given), given.dev)
    print("| way | labels | top-1, mean (%) | draws 0, 1, 2 |\n|---|---|---|---|")
    for way, draws in found.items():
        for budget, tops in zip(BUDGETS, np.transpose(draws), strict=True):
            each = ", ".join(f"{top:.1f}" for top in tops)
            print(f"| {way} | {budget} | {tops.mean():.1f} | {each} |")
    if given.out is not None:
        draw_figure(found, given.out)


if __name__ == "__main__":
    main()
