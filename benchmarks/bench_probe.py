"""What labels are worth to a probe, alone and self-trained; three draws of each share.

    python -m benchmarks.bench_probe RECIPE PROBE --set videos_dir=/videos
        --group "from scratch" 10 54.7 56.1 47.1 --out docs/images/pretrained.png

The features of every video are computed once and kept; each draw is then a logistic regression of a
second. Prints a table in Markdown, and the time for the features of 1,000 videos.
"""

import argparse
import itertools
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
import yaml

from lib.config import TrainSettings
from lib.data.dataset import draw_labeled_rows
from lib.params import read_settings
from lib.runs.distributed import DistContext
from lib.train.linear_probe import linear_layer, self_train
from lib.train.run_data import RunData, load_data
from lib.train.run_model import build_run_model, run_normalize
from lib.train.scoring import metrics
from lib.train.video_features import VideoFeatures

SHARES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
DRAWS = (0, 1, 2)
ROUNDS = 8


def all_features(settings: TrainSettings) -> tuple[RunData, np.ndarray]:
    """Return the data with every label, and features of its training, then validation videos."""
    data = load_data(settings.model_copy(update={"labeled_fraction": 1.0}))
    backbone = build_run_model(settings, len(data.labeled.classes)).backbone
    world = DistContext(0, 1, torch.device("cpu"))
    features_of = VideoFeatures(settings, backbone, run_normalize(settings), world)
    return data, features_of(data.labeled, np.concatenate([data.labeled_rows, data.val_rows]))


def probe_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser of run files, changes of their settings, and the file of a figure."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("files", nargs="+", type=Path, help="run file of a probe")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE")
    parser.add_argument("--out", type=Path)
    return parser


def probe_settings(given: argparse.Namespace) -> TrainSettings:
    """Return the settings of parsed run files and changes."""
    changes = dict(pair.split("=", 1) for pair in given.set)
    values = {name: yaml.safe_load(text) for name, text in changes.items()}
    return TrainSettings(**read_settings(given.files).model_dump() | values)


def probe_accuracies(
    settings: TrainSettings,
) -> tuple[dict[str, dict[float, list[float]]], int, float]:
    """Return way -> share -> top-1 (%) of each draw on the validation list; videos; seconds."""
    started = time.perf_counter()
    data, features = all_features(settings)
    seconds = time.perf_counter() - started
    num_classes, rows, count = len(data.labeled.classes), data.labeled_rows, len(data.labeled_rows)
    labels = data.labeled.index["label"].to_numpy()
    train, test = np.split(features, [count])
    found = {"probe": {}, "self-trained probe": {}}
    for share, draw in itertools.product(SHARES, DRAWS):
        if share == 1 and draw:
            continue
        is_labeled = np.isin(rows, draw_labeled_rows(labels, rows, share, draw))
        own, targets = train[is_labeled], labels[rows[is_labeled]]
        others = train[~is_labeled]
        for way, rounds in (("probe", 0), ("self-trained probe", ROUNDS)):
            if share == 1 and rounds:
                continue
            model = self_train(own, targets, others, settings.probe_l2, rounds)
            weight, bias = linear_layer(model, num_classes)
            top1 = metrics(test @ weight.T + bias, labels[data.val_rows])["top1"]
            found[way].setdefault(share, []).append(top1)
    return found, len(features), seconds


def draw_figure(
    found: dict[str, dict[float, list[float]]],
    groups: list[tuple[str, float, list[float]]],
    path: Path,
) -> None:
    """Draw accuracy over labels; groups are (label, share in percent, top-1 in percent of each)."""
    figure, axes = plt.subplots(figsize=(8, 4.2), layout="constrained")
    for (way, tops), color in zip(found.items(), ("C0", "black"), strict=True):
        means = [np.mean(values) for values in tops.values()]
        axes.plot([100 * share for share in tops], means, "-", color=color, label=f"{way}, mean")
        for share, values in tops.items():
            axes.plot([100 * share] * len(values), values, "o", color=color, markersize=4)
    for number, (label, share, values) in enumerate(groups):
        place = [share * 1.07 ** (number - (len(groups) - 1) / 2)] * len(values)  # side by side
        look = {"marker": "sD^vP*X"[number % 7], "color": f"C{1 + number}"}
        axes.plot(place, values, linestyle=":", markersize=5, label=label, **look)
    axes.set_xscale("log")
    axes.set_xticks([100 * share for share in SHARES], [f"{100 * share:g}" for share in SHARES])
    axes.set(xlabel="labeled videos (% of the training split)", ylabel="top-1 (%)")
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=130)


def main() -> None:
    """Measure, print and draw."""
    parser = probe_parser(__doc__)
    parser.add_argument(
        "--group", nargs="+", action="append", default=[], metavar="NAME SHARE TOP1 …"
    )
    given = parser.parse_args()
    found, videos, seconds = probe_accuracies(probe_settings(given))
    print("| labels | way | top-1, mean (%) | each |\n|---|---|---|---|")
    for way, shares in found.items():
        for share, tops in shares.items():
            each = ", ".join(f"{top:.1f}" for top in tops)
            print(f"| {100 * share:g} % | {way} | {np.mean(tops):.1f} | {each} |")
    print(
        f"\nfeatures of {videos} videos: {seconds:.0f} s, {1000 * seconds / videos:.0f} s a 1,000"
    )
    if given.out is not None:
        groups = [
            (name, float(share), list(map(float, tops))) for name, share, *tops in given.group
        ]
        draw_figure(found, groups, given.out)


if __name__ == "__main__":
    main()
