"""What labels are worth to a probe: accuracy over the share of labels, three draws of each.

    python -m benchmarks.bench_probe RECIPE PROBE --set data_root=/videos
        --group "from scratch" 10 54.7 56.1 47.1 --out docs/images/pretrained.png

The features of every video are computed once; each draw is then a logistic regression of a second.
Prints a table in Markdown, and the time for the features of 1,000 videos.
"""

import argparse
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
import yaml

from lib.config import TrainSettings
from lib.data.dataset import draw_labeled_rows
from lib.learn.probe import logistic_regression
from lib.learn.scoring import metrics, score_videos
from lib.learn.setup import (
    build_run_model,
    load_data,
    read_settings,
    run_normalize,
    val_protocol,
)
from lib.run.processes import World

SHARES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
DRAWS = (0, 1, 2)


def probe_accuracies(settings: TrainSettings) -> tuple[dict[float, list[float]], int, float]:
    """Return share -> top-1 (%) of each draw on the validation list; videos; seconds for them."""
    data = load_data(settings.model_copy(update={"labeled_fraction": 1.0}))
    model = build_run_model(settings, len(data.labeled.classes))
    rows, count = data.labeled_rows, len(data.labeled_rows)
    started = time.perf_counter()
    features = score_videos(
        model.backbone,
        run_normalize(settings),
        data.labeled,
        np.concatenate([rows, data.val_rows]),
        val_protocol(settings),
        World(0, 1, torch.device("cpu")),
    )
    seconds = time.perf_counter() - started
    labels = data.labeled.index["label"].to_numpy()
    place = {row: position for position, row in enumerate(rows)}
    test = torch.from_numpy(features[count:]).double()
    found: dict[float, list[float]] = {}
    for share in SHARES:
        for draw in DRAWS if share < 1 else DRAWS[:1]:
            chosen = draw_labeled_rows(labels, rows, share, draw)
            own = torch.from_numpy(features[[place[row] for row in chosen]])
            targets = torch.from_numpy(labels[chosen])
            weight, bias = logistic_regression(
                own, targets, len(data.labeled.classes), settings.probe_l2
            )
            scores = (test @ weight.T + bias).numpy()
            found.setdefault(share, []).append(metrics(scores, labels[data.val_rows])["top1"])
    return found, len(features), seconds


def draw_figure(
    found: dict[float, list[float]], groups: list[tuple[str, float, list[float]]], path: Path
) -> None:
    """Draw accuracy over labels; groups are (label, share in percent, top-1 in percent of each)."""
    figure, axes = plt.subplots(figsize=(8, 4.2), layout="constrained")
    shares = [100 * share for share in found]
    axes.plot(shares, [np.mean(values) for values in found.values()], "-", label="probe, mean")
    for share, values in found.items():
        axes.plot([100 * share] * len(values), values, "o", color="C0", markersize=4)
    for number, (label, share, values) in enumerate(groups):
        place = [share * 1.07 ** (number - (len(groups) - 1) / 2)] * len(values)  # side by side
        look = {"marker": "sD^vP*X"[number % 7], "color": f"C{1 + number}"}
        axes.plot(place, values, linestyle=":", markersize=5, label=label, **look)
    axes.set_xscale("log")
    axes.set_xticks(shares, [f"{share:g}" for share in shares])
    axes.set(xlabel="labelled videos (% of the training list)", ylabel="top-1 (%)")
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=130)


def main() -> None:
    """Measure, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, help="recipe and run of a probe")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE")
    parser.add_argument(
        "--group", nargs="+", action="append", default=[], metavar="NAME SHARE TOP1 …"
    )
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    changes = dict(pair.split("=", 1) for pair in given.set)
    settings = read_settings(given.files)
    values = settings.model_dump() | {k: yaml.safe_load(v) for k, v in changes.items()}
    found, videos, seconds = probe_accuracies(TrainSettings(**values))
    print("| labels | draws | top-1, mean (%) | each |\n|---|---|---|---|")
    for share, tops in found.items():
        each = ", ".join(f"{top:.1f}" for top in tops)
        print(f"| {100 * share:g} % | {len(tops)} | {np.mean(tops):.1f} | {each} |")
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
