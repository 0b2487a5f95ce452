"""A run made again from its folder alone, and compared with what it was.

The folder holds the settings; the data must be where they say. Equal losses mean that code, data
and machine compute what they computed then.
"""

from pathlib import Path

from lib.batch.plan import PlannedRun
from lib.batch.run import do_here, make_batch, say_failures
from lib.parameters import read_yaml
from lib.run.environment import arithmetic
from lib.run.folder import Run

MOST_LOSSES = 100


def run_again(folder: str | Path) -> int:
    """Train and test a run again, in `<folder>_again`, and return the number of failures.

    Raises:
        ValueError: If there is no run, or its data are missing.
    """
    first = Run(folder)
    place = first.folder.with_name(f"{first.name}_again")
    settings = first.settings().model_copy(update={"run_dir": str(place)})
    parameters = read_yaml(first.params_path) | {"run_dir": str(place)}
    batch = make_batch([PlannedRun(place.name, first.params_path, parameters, settings)])
    batch.reports = []  # one run is no study
    if failures := batch.refused | do_here(batch, 1):
        return say_failures(failures)
    differs = difference(first, Run(place))
    print(differs or f"{place}: its first losses are those of {first.folder}, to the last digit")
    return int(bool(differs))


def difference(first: Run, second: Run) -> str:
    """Return where the mean losses of the epochs, the first hundred at most, first differ."""
    pairs = list(zip(first.log_entries(), second.log_entries(), strict=False))[:MOST_LOSSES]
    for one, other in pairs:
        before, now = one["loss/total"], other["loss/total"]
        if before != now:
            text = f"epoch {one['epoch']}: the loss was {before!r} and is {now!r}"
            computed = [arithmetic(run.environment()) for run in (first, second)]
            if computed[0] == computed[1]:
                return f"{text}, on machines that compute alike: code or data have changed"
            return f"{text}; the machines or PyTorch differ: {computed[0]}, now {computed[1]}"
    return "" if pairs else f"{first.folder} or {second.folder} has no epoch in its log"
