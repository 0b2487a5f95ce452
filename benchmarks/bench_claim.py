"""Whether a study's claim holds for other seeds and another machine's arithmetic.

    python -m benchmarks.bench_claim --seeds 8
    python -m benchmarks.bench_claim --report --figure demo.png    # what is there so far
    python -m benchmarks.bench_claim --study demo/ablation_small --seeds 3 --arithmetics "as is"

Trains and tests each group of the study for seeds 0, 1, ... in every arithmetic, without notebooks,
and prints the distribution of top-1 and in how many pairs of seed and arithmetic the claims of
`params/claims.csv` hold. Results are in `outputs/bench_claim/<study>.csv`, a row a test list; the
same command continues where it was interrupted. Weights perturbed by one millionth stand in for
another processor's kernels, which round differently.
"""

import argparse
import csv
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import pandas as pd
import torch
from torch import nn

from benchmarks.timing import describe_machine, print_table
from lib.batch.plan import read_plan
from lib.config import PROJECT_ROOT, EvaluateSettings, TrainSettings
from lib.evaluate.test import evaluate
from lib.prepare.steps import prepare_for
from lib.train import run_model
from lib.train.fit import fit

OUTPUTS = PROJECT_ROOT / "outputs" / "bench_claim"
COLUMNS = ["seed", "arithmetic", "group", "split", "top1"]
PERTURBATION = 1e-6  # relative, standard deviation


class Arithmetic(NamedTuple):
    """How a run computes.

    Attributes:
        num_processes: Training processes.
        num_threads: Threads over all of them.
        is_perturbed: Whether the initial weights are multiplied by 1 + `PERTURBATION` · noise.
    """

    num_processes: int = 1
    num_threads: int = 1
    is_perturbed: bool = False


ARITHMETICS = {
    "as is": Arithmetic(),
    "perturbed": Arithmetic(is_perturbed=True),
    "two processes": Arithmetic(num_processes=2, num_threads=2),
    "two threads": Arithmetic(num_threads=2),
}


def groups_of(study: str) -> dict[str, TrainSettings]:
    """Return the settings of one run of each group, by the group's name."""
    runs = read_plan([PROJECT_ROOT / "params" / study])
    return {re.sub(r"_seed\d+$", "", run.name): run.settings for run in runs}


@contextmanager
def computing_as(arithmetic: Arithmetic, seed: int) -> Iterator[None]:
    """Let the runs of this process compute with these threads and, maybe, perturbed weights."""
    build, threads = run_model.build_run_model, os.environ.get("OMP_NUM_THREADS")

    def build_perturbed(settings: TrainSettings, num_classes: int) -> nn.Module:
        model = build(settings, num_classes)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weight in model.parameters():
                noise = torch.randn(weight.shape, generator=generator)
                weight.mul_(1 + PERTURBATION * noise)
        return model

    os.environ["OMP_NUM_THREADS"] = str(arithmetic.num_threads)
    if arithmetic.is_perturbed:
        run_model.build_run_model = build_perturbed
    try:
        yield
    finally:
        run_model.build_run_model = build
        os.environ.pop("OMP_NUM_THREADS")
        if threads is not None:
            os.environ["OMP_NUM_THREADS"] = threads


def run_once(settings: TrainSettings, name: str, seed: int, folder: Path) -> dict[str, float]:
    """Train and test one run, or go on with it; return top-1 in percent by test list."""
    arithmetic = ARITHMETICS[name]
    changes = {
        "seed": seed,
        "labeled_seed": seed,
        "num_processes": arithmetic.num_processes,
        "run_dir": str(folder),
    }
    with computing_as(arithmetic, seed):
        run = fit(settings.model_copy(update=changes))
        evaluate(EvaluateSettings(run_dir=str(folder), num_processes=1))
    lists = json.loads(run.metrics_path.read_text())["splits"]
    return {test_list: numbers["top1"] for test_list, numbers in lists.items()}


def read_results(path: Path) -> pd.DataFrame:
    """Return the rows that there are so far, columns `COLUMNS`."""
    return pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=COLUMNS)


def measure(
    study: str, num_seeds: int, arithmetics: list[str], chosen: list[str], path: Path
) -> None:
    """Make the runs that are missing, of the chosen groups or of all, seed by seed."""
    groups = groups_of(study)
    if unknown := set(chosen) - set(groups):
        raise ValueError(f"--groups: {study} has no {sorted(unknown)}, only {sorted(groups)}")
    groups = {name: groups[name] for name in chosen or groups}
    path.parent.mkdir(parents=True, exist_ok=True)
    for name in arithmetics:
        for seed in range(num_seeds):
            for group, settings in groups.items():
                done = read_results(path)
                key = (done["seed"] == seed) & (done["arithmetic"] == name)
                if (key & (done["group"] == group)).any():
                    continue
                prepare_for(settings)
                folder = (
                    path.parent / Path(study).name / f"{group}_seed{seed}_{name.replace(' ', '_')}"
                )
                rows = run_once(settings, name, seed, folder).items()
                is_new = not path.exists()
                with path.open("a", newline="") as file:
                    writer = csv.writer(file)
                    if is_new:
                        writer.writerow(COLUMNS)
                    writer.writerows([seed, name, group, *row] for row in rows)


def report(study: str, path: Path) -> None:
    """Print the distribution, and in how many pairs of seed and arithmetic each claim holds."""
    results = read_results(path)
    print(describe_machine())
    top1 = results.groupby(["group", "split", "arithmetic"])["top1"]
    spread = top1.agg(["count", "mean", "std", "min", "max"]).reset_index()
    print_table("Top-1 (%)", list(spread.columns), spread.to_numpy().tolist())

    wide = results.pivot_table(
        index=["seed", "arithmetic"], columns=["group", "split"], values="top1"
    )
    rows, holds = [], []
    claims = pd.read_csv(PROJECT_ROOT / "params" / "claims.csv")
    for claim in claims[claims["study"] == Path(study).name].itertuples():
        better, worse = (claim.better, claim.split), (claim.worse, claim.split)
        if better not in wide or worse not in wide:
            continue
        gain = (wide[better] - wide[worse]).dropna()
        holds.append(gain > 0)
        rows.append(
            [f"{claim.better} > {claim.worse}", claim.split, f"{(gain > 0).sum()} of {len(gain)}"]
            + [float(value) for value in (gain.mean(), gain.min(), gain.max())]
        )
    print_table("Claims", ["claim", "split", "holds", "mean gain", "least", "most"], rows)
    if holds:
        together = pd.concat(holds, axis=1).dropna().all(axis=1)
        print(f"\nall claims hold in {together.sum()} of {len(together)} pairs")


def draw_figure(results: pd.DataFrame, path: Path) -> None:
    """Draw every run as a dot and the mean of each group as a line, a panel a test list."""
    lists = list(results["split"].unique())
    order = results[results["split"] == lists[-1]].groupby("group")["top1"].mean().sort_values()
    size = (4.5 * len(lists), 1.2 + 0.3 * len(order))
    figure, panels = plt.subplots(
        1, len(lists), figsize=size, sharey=True, squeeze=False, layout="constrained"
    )
    for panel, name in zip(panels[0], lists, strict=True):
        for height, group in enumerate(order.index):
            top1 = results[(results["split"] == name) & (results["group"] == group)]["top1"]
            panel.plot(top1, [height] * len(top1), "o", color="C0", alpha=0.5, markersize=5)
            panel.plot([top1.mean()] * 2, [height - 0.35, height + 0.35], "k-")
        panel.set(title=name, xlabel="top-1 (%)", xlim=(-2, 102))
        panel.grid(alpha=0.3)
    panels[0, 0].set_yticks(range(len(order)), order.index)
    figure.savefig(path, dpi=130)


def main() -> None:
    """Measure what is missing and print what there is."""
    parser = argparse.ArgumentParser(prog="benchmarks.bench_claim", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--study", default="demo", help="a folder below params/")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--arithmetics", nargs="+", choices=ARITHMETICS, default=list(ARITHMETICS))
    parser.add_argument("--groups", nargs="+", default=[], help="of the study; all if not given")
    parser.add_argument("--report", action="store_true", help="train nothing")
    parser.add_argument("--figure", type=Path, help="a picture of all runs that are there")
    arguments = parser.parse_args()
    path = OUTPUTS / f"{Path(arguments.study).name}.csv"
    if not arguments.report:
        chosen = arguments.arithmetics, arguments.groups
        measure(arguments.study, arguments.seeds, *chosen, path)
    report(arguments.study, path)
    if arguments.figure is not None:
        draw_figure(read_results(path), arguments.figure)


if __name__ == "__main__":
    main()
