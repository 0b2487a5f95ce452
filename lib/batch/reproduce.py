"""A run made again from its folder alone, and compared with what it was.

The folder holds the settings; the data must be where they say. Equal losses mean that code, data
and machine compute what they computed then. With settings of its own it is a new run beside it.
"""

from pathlib import Path
from typing import Any

from lib.batch.local import do_here, make_batch
from lib.batch.plan import Grid, PlannedRun
from lib.config import TrainSettings, project_path
from lib.params import make_settings, read_yaml
from lib.runs.environment import numerics_summary
from lib.runs.run_dir import RunDir

MAX_LOSSES = 100


def run_again(folder: str | Path, grid: Grid | None = None) -> int:
    """Train and test a run again, in `<folder>_again`, and return the number of failures.

    Args:
        folder: The run.
        grid: Settings that are to differ; then it is a new run, in the `run_dir` that they name.

    Raises:
        ValueError: If there is no run, or its data are missing.
    """
    if grid:
        return _run_with(folder, _single_values(grid))
    first = RunDir(folder)
    place = first.folder.with_name(f"{first.name}_again")
    settings = first.settings().model_copy(update={"run_dir": str(place)})
    parameters = read_yaml(first.params_path) | {"run_dir": str(place)}
    batch = make_batch([PlannedRun(place.name, first.params_path, parameters, settings)])
    batch.folders, batch.reports = [], []  # one run is no study
    if failed := do_here(batch, 1):
        return failed
    differs = difference(first, RunDir(place))
    print(differs or f"{place}: its first losses are those of {first.folder}, to the last digit")
    return int(bool(differs))


def _run_with(folder: str | Path, changes: dict[str, Any]) -> int:
    """Train and test a run with the settings of another but for some; returns failures."""
    first, place = RunDir(folder), project_path(changes["run_dir"])
    values = first.settings().model_dump() | changes
    settings = make_settings(TrainSettings, values, f"--from {folder} --set")
    return do_here(make_batch([PlannedRun(place.name, first.params_path, values, settings)]), 1)


def _single_values(grid: Grid) -> dict[str, Any]:
    if many := [name for name, values in grid.items() if len(values) > 1]:
        raise ValueError(f"--set {many[0]}: has several values; with --from give one")
    if not isinstance((grid.get("run_dir") or [None])[0], str):
        raise ValueError("--set run_dir: with --from and --set, name the folder of the new run")
    return {name: values[0] for name, values in grid.items()}


def difference(first: RunDir, second: RunDir) -> str:
    """Return where the mean losses of the epochs, the first hundred at most, first differ."""
    pairs = list(zip(first.log_entries(), second.log_entries(), strict=False))[:MAX_LOSSES]
    for one, other in pairs:
        before, now = one["loss/total"], other["loss/total"]
        if before != now:
            text = f"epoch {one['epoch']}: the loss was {before!r} and is {now!r}"
            computed = [numerics_summary(run.environment()) for run in (first, second)]
            if computed[0] == computed[1]:
                return f"{text}, on machines that compute alike: code or data have changed"
            return f"{text}; the machines or PyTorch differ: {computed[0]}, now {computed[1]}"
    return "" if pairs else f"{first.folder} or {second.folder} has no epoch in its log"
