"""Results of tested runs: of a study, where a damaged run costs only itself, or of two runs."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lib.evaluate.test import SplitResult, scores_path
from lib.fileio import reading
from lib.runs.run_dir import METRICS, RunDir, read_result
from lib.train.setup import load_data


def read_runs(study_dir: Path) -> tuple[list[RunDir], dict[str, str]]:
    """Return the tested runs of a study, sorted by name, and why others are left out.

    Returns:
        The runs whose files can be read; name -> what is wrong with the others, and the remedy.

    Raises:
        ValueError: If there is no such run; says how to make one, or what is wrong with each.
    """
    sound, problems = [], {}
    for path in sorted(study_dir.glob("*/params.yaml")):
        run = RunDir(path.parent)
        try:
            rows_of(run)
            for name in read_result(run)["splits"]:
                read_scores(run, name)
            sound.append(run)
        except ValueError as error:
            problems[run.name] = str(error)
    if not sound:
        why = "".join(f"\n  {name}: {problem}" for name, problem in problems.items())
        remedy = "run notebooks 3 and 4, or python -m lib.batch"
        raise ValueError(f"{study_dir}: no evaluated run; {remedy}{why}")
    return sound, problems


def rows_of(run: RunDir) -> list[dict[str, Any]]:
    """Return a run's rows of `summarize`.

    Raises:
        ValueError: If a file of the run is damaged; names it, what is wrong and the remedy.
    """
    settings, results, log = run.settings(), read_result(run), _training_log(run)
    names = {"run": run.name, "group": group_of(run.name)}
    known = {
        "seed": run.name.removeprefix(group_of(run.name)).removeprefix("_seed")
        or str(settings.seed),
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
        names | {"list": name} | {metric: round(values[metric], 3) for metric in METRICS} | known
        for name, values in results["splits"].items()
    ]


def read_log(run: RunDir) -> pd.DataFrame:
    """Return a run's log as a table: one row an epoch, NaN where a value was not measured."""
    return pd.DataFrame(run.log_entries())


def group_of(run_name: str) -> str:
    """Return the name of a run without its seed: runs of one group differ only in the seed."""
    return run_name.rsplit("_seed", 1)[0]


def machine_of(run: RunDir) -> str:
    """Return the GPUs, or else the cores, of the machine that trained a run, in words."""
    known = run.environment()
    if gpus := known.get("gpus"):
        return f"{len(gpus)} × {gpus[0]}"
    return f"{known['cpu_count']} CPU cores" if "cpu_count" in known else "unknown"


def _training_log(run: RunDir) -> pd.DataFrame:
    log = read_log(run)
    for name in ("seconds", "samples_per_s"):
        if name not in log or not pd.api.types.is_numeric_dtype(log[name]):
            raise ValueError(
                f"{run.log_path}: damaged, no numbers {name!r}; delete the run folder and train "
                "it again"
            )
    return log


def read_scores(run: RunDir, split_name: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the scores (V, K) of a run on a list and the true classes (V,); None if not kept.

    Raises:
        ValueError: If the file is damaged; names it and the remedy.
    """
    path = scores_path(run, split_name)
    if not path.is_file():
        return None
    with reading(path, "test the run again (notebooks/4_evaluate.ipynb)"), np.load(path) as file:
        scores, labels = file["scores"], file["labels"]
        if scores.ndim != 2 or scores.dtype.kind != "f" or labels.shape != scores.shape[:1]:
            raise ValueError("its scores are not what they should be")
        if labels.dtype.kind != "i" or not (0 <= labels.min() <= labels.max() < scores.shape[1]):
            raise ValueError("its classes are not what they should be")
        return scores, labels


def read_results(run: RunDir) -> dict[str, SplitResult]:
    """Return the results that `evaluate` left in a run's folder, by list.

    Raises:
        ValueError: If the run is not tested, or its data have changed since.
    """
    trained, results = run.settings(), {}
    dataset = load_data(trained).labeled
    for name in trained.test_splits:
        path = scores_path(run, name)
        if (known := read_scores(run, name)) is None:
            raise ValueError(f"{path}: not there; test the run first (notebooks/4_evaluate.ipynb)")
        scores, labels = known
        rows = dataset.read_split(name)
        if not np.array_equal(dataset.index["label"].to_numpy()[rows], labels):
            raise ValueError(f"{path}: list {name!r} has changed since; test the run again")
        results[name] = SplitResult(dataset, rows, scores, labels, trained.test_average)
    return results


def results_beside(
    run: RunDir, results: dict[str, SplitResult], other: RunDir | None, split_name: str
) -> dict[str, SplitResult]:
    """Return the results of one or two runs on a list.

    Args:
        run: The tested run.
        results: Its results, by list.
        other: A second tested run, or None.
        split_name: The list.

    Returns:
        Run name -> result; a second run of the same name is called by its folder.

    Raises:
        ValueError: If the second run is not tested, or on other videos.
    """
    ours = results[split_name]
    if other is None:
        return {run.name: ours}
    theirs = read_results(other)
    if split_name not in theirs:
        raise ValueError(f"{other.folder}: not tested on {split_name!r}, only on {list(theirs)}")
    second = theirs[split_name]
    if ours.dataset.folder != second.dataset.folder or not np.array_equal(ours.rows, second.rows):
        raise ValueError(
            f"{other.folder}: tested on other videos ({second.dataset.folder}, "
            f"{len(second.rows)}) than {run.folder} ({ours.dataset.folder}, {len(ours.rows)}); "
            "compare runs of one data set and list"
        )
    name = other.name if other.name != run.name else str(other.folder)
    return {run.name: ours, name: second}
