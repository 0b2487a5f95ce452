"""The runs of a study: reading their files, so that a damaged run costs only itself."""

from pathlib import Path
from typing import Any

import pandas as pd

from lib.evaluation.evaluate import read_scores
from lib.run.folder import METRICS, Run
from lib.show.plots import group_of


def read_runs(study_dir: Path) -> tuple[list[Run], dict[str, str]]:
    """Return the tested runs of a study, sorted by name, and why others are left out.

    Returns:
        The runs whose files can be read; name -> what is wrong with the others, and the remedy.

    Raises:
        ValueError: If there is no such run; says how to make one, or what is wrong with each.
    """
    sound, problems = [], {}
    for path in sorted(study_dir.glob("*/params.yaml")):
        run = Run(path.parent)
        try:
            rows_of(run)
            for name in run.metrics()["lists"]:
                read_scores(run, name)
            sound.append(run)
        except ValueError as error:
            problems[run.name] = str(error)
    if not sound:
        why = "".join(f"\n  {name}: {problem}" for name, problem in problems.items())
        remedy = "run notebooks 3 and 4, or python -m lib.batch"
        raise ValueError(f"{study_dir}: no evaluated run; {remedy}{why}")
    return sound, problems


def rows_of(run: Run) -> list[dict[str, Any]]:
    """Return a run's rows of `summarize`.

    Raises:
        ValueError: If a file of the run is damaged; names it, what is wrong and the remedy.
    """
    settings, results, log = run.settings(), run.metrics(), _training_log(run)
    known = {
        "run": run.name,
        "group": group_of(run.name),
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
        "machine": run.machine(),
        "clips": settings.test_num_clips,
        "crops": settings.test_num_crops,
    }
    return [
        known | {"list": name} | {metric: round(values[metric], 3) for metric in METRICS}
        for name, values in results["lists"].items()
    ]


def _training_log(run: Run) -> pd.DataFrame:
    log = run.read_log()
    for name in ("seconds", "samples_per_s"):
        if name not in log or not pd.api.types.is_numeric_dtype(log[name]):
            raise ValueError(
                f"{run.log_path}: damaged, no numbers {name!r}; delete the run folder and train "
                "it again"
            )
    return log
