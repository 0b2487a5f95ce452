"""Reproduction of a run from its folder alone, and runs like it with other settings.

The folder holds the settings; the data must be where they say. Equal losses mean that code, data
and machine compute what they computed then.
"""

from pathlib import Path
from typing import Any

from lib.batch.jobs import make_batch
from lib.batch.local import run_here
from lib.batch.plan import Grid, PlannedRun
from lib.config import TrainSettings, project_path
from lib.params import make_settings
from lib.runs.environment import numerics_summary
from lib.runs.run_dir import RunDir

MAX_LOSSES = 100


def run_again(folder: str | Path, grid: Grid | None = None) -> int:
    """Train and test a run again and return the number of failures.

    Args:
        folder: The run.
        grid: Settings that differ, with the `run_dir` of the new run. Without them the run is
            reproduced in `<folder>_again`, and its first losses are compared.

    Raises:
        ValueError: If there is no run, its data is missing, or the grid names more than one run.
    """
    first, changes = RunDir(folder), _single_values(grid or {})
    place = project_path(changes.get("run_dir", f"{first.folder}_again"))
    values = first.settings().model_dump() | changes | {"run_dir": str(place)}
    settings = make_settings(TrainSettings, values, f"--from {folder} --set")
    batch = make_batch([PlannedRun(first.params_path, values, settings)])
    if changes:
        return run_here(batch)
    batch.reports = []  # one run is no study
    if failures := run_here(batch):
        return failures
    differs = difference(first, RunDir(place))
    print(differs or f"{place}: its first losses equal those of {first.folder} to the last digit")
    return int(bool(differs))


def _single_values(grid: Grid) -> dict[str, Any]:
    if several := [name for name, values in grid.items() if len(values) > 1]:
        raise ValueError(f"--set {several[0]}: several values; with --from give one")
    if grid and "run_dir" not in grid:
        raise ValueError("--set run_dir: with --from and --set, name the folder of the new run")
    return {name: values[0] for name, values in grid.items()}


def difference(first: RunDir, second: RunDir) -> str:
    """Return where the mean losses of the epochs, at most the first hundred, first differ."""
    pairs = list(zip(first.log_entries(), second.log_entries(), strict=False))[:MAX_LOSSES]
    for before, now in pairs:
        if before["loss/total"] != now["loss/total"]:
            text = (
                f"epoch {before['epoch']}: the loss was {before['loss/total']!r} and is "
                f"{now['loss/total']!r}"
            )
            computed = [numerics_summary(run.environment()) for run in (first, second)]
            if computed[0] == computed[1]:
                return f"{text}, on machines that compute alike: code or data have changed"
            return f"{text}; the machines or PyTorch differ: {computed[0]}, now {computed[1]}"
    return "" if pairs else f"{first.folder} or {second.folder} has no epoch in its log"
