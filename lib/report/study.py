"""Results of the runs of a study, read from their folders; a damaged run is left out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lib.evaluate.run_results import group_of, read_log, read_scores
from lib.plots.evaluation import confusion_matrix
from lib.runs.run_dir import METRICS, RunDir, read_result
from lib.train.run_data import load_data


def read_runs(study_dir: Path) -> tuple[list[RunDir], dict[str, str]]:
    """Return the tested runs of a study, sorted by name, and the problems of the others.

    Raises:
        ValueError: If no run can be read; lists the problem of each.
    """
    readable, problems = [], {}
    for path in sorted(study_dir.glob("*/params.yaml")):
        run = RunDir(path.parent)
        try:
            for row in run_rows(run):
                read_scores(run, row["split"])
            readable.append(run)
        except ValueError as error:
            problems[run.name] = str(error)
    if not readable:
        lines = "".join(f"\n  {name}: {problem}" for name, problem in problems.items())
        remedy = "run notebooks 3 and 4, or python -m lib.batch"
        raise ValueError(f"{study_dir}: no evaluated run; {remedy}{lines}")
    return readable, problems


def summarize(runs: Sequence[RunDir]) -> pd.DataFrame:
    """Return one row per run and test split, columns as of `run_rows`."""
    return pd.DataFrame([row for run in runs for row in run_rows(run)])


def run_rows(run: RunDir) -> list[dict[str, Any]]:
    """Return the row of each test split of a run: accuracies in percent, settings and cost.

    Raises:
        ValueError: If a file of the run is damaged.
    """
    settings, results, log = run.settings(), read_result(run), read_log(run)
    for name in ("seconds", "samples_per_s"):
        if name not in log or not pd.api.types.is_numeric_dtype(log[name]):
            raise ValueError(
                f"{run.log_path}: damaged, no numbers {name!r}; delete the run folder and train "
                "it again"
            )
    group = group_of(run.name)
    columns = {
        "seed": run.name.removeprefix(group).removeprefix("_seed") or str(settings.seed),
        "objective": settings.objective,
        "model": settings.model,
        "view": settings.labeled_view + " + scene" * (settings.labeled_scene_p > 0),
        "labels": results["labels"],
        "epochs": settings.epochs,
        "train_minutes": round(log["seconds"].iloc[-1] / 60, 2),
        "clips_per_s": round(log["samples_per_s"].median(), 1),
        "memory_mb": log["memory_mb"].max() if "memory_mb" in log else None,
        "machine": machine_of(run),
        "clips": settings.test_num_clips,
        "crops": settings.test_num_crops,
    }
    return [
        {"run": run.name, "group": group, "split": name}
        | {metric: round(values[metric], 3) for metric in METRICS}
        | columns
        for name, values in results["splits"].items()
    ]


def machine_of(run: RunDir) -> str:
    """Describe the GPUs, or else the cores, of the machine that trained a run."""
    environment = run.environment()
    if gpus := environment.get("gpus"):
        return f"{len(gpus)} × {gpus[0]}"
    return f"{environment['cpu_count']} CPU cores" if "cpu_count" in environment else "unknown"


def invariance_tables(runs: list[RunDir]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the measured invariance of groups of runs, means over seeds, in percent.

    Returns:
        Two tables with a row per measured group: the share of unchanged predictions with a column
        per family, the top-1 with a column per input. Both empty if notebook 4 measured nothing.
    """
    tables = []
    for name, column, value in (("families", "family", "agreement"), ("inputs", "input", "top1")):
        parts = [
            pd.read_csv(path).assign(group=group_of(run.name))
            for run in runs
            if (path := run.folder / f"invariance_{name}.csv").is_file()
        ]
        if not parts:
            return pd.DataFrame(), pd.DataFrame()
        rows = pd.concat(parts)
        table = rows.pivot_table(index="group", columns=column, values=value, sort=False)
        tables.append(table.rename_axis(columns=None).round(1))
    return tables[0], tables[1]


def differing_settings(runs: list[RunDir]) -> pd.DataFrame:
    """Return the settings that are not the same in all runs: a row per group."""
    rows = {run.name: run.settings().model_dump() for run in runs}
    table = pd.DataFrame(rows).T.drop(columns=["run_dir", "seed", "labeled_seed"])
    table.index = [group_of(name) for name in table.index]
    table = table[~table.index.duplicated()]
    return table[[column for column in table if table[column].astype(str).nunique() > 1]]


def load_confusions(
    runs: Sequence[RunDir], split_name: str, groups: Sequence[str]
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Return group -> confusion matrix on a split, the sum over its seeds; and the class names."""
    sums: dict[str, np.ndarray] = {}
    classes: tuple[str, ...] = ()
    for run in runs:
        group = group_of(run.name)
        if group in groups and (saved := read_scores(run, split_name)) is not None:
            sums[group] = sums.get(group, 0) + confusion_matrix(*saved)
            classes = classes or load_data(run.settings()).labeled.classes
    return {group: sums[group] for group in groups if group in sums}, classes
