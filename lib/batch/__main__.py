"""Run experiments through the notebooks, with papermill.

    python -m lib.batch params/demo
    python -m lib.batch params --dry-run
    python -m lib.batch params/demo/synthetic --set seeds=0,1,2 --jobs 2
    python -m lib.batch params/paper/ucf101 --executor slurm --gpus 8 --hours 48

For each run: notebook 3 (train), then notebook 4 (evaluate); before them notebook 1 for the
embedded data set and for your own videos, after them notebook 5 and the page `report.html` of each
study. Complete runs are skipped; a run that fails is reported at the end and does not stop the
others. Ctrl-C saves checkpoints and ends; the same command continues. With `--executor slurm` all
of that is submitted as jobs of a cluster, and the command ends.
"""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lib.batch.jobs import make_batch
from lib.batch.local import print_failures, run_again, run_here
from lib.batch.plan import Grid, plan_text, read_plan
from lib.batch.slurm import Resources, check_slurm, submit
from lib.config import TrainSettings
from lib.params import SEEDS, parse_values


def run_batch(
    paths: str | Path | Sequence[str | Path],
    grid: Grid | None = None,
    jobs: int | None = None,
    retry: int = 0,
    resources: Resources | None = None,
) -> int:
    """Run studies or single runs and return the number of failures.

    Args:
        paths: Run files, folders or patterns, relative to the project's root.
        grid: Values per parameter; see `lib.batch.plan.read_plan`.
        jobs: Runs at the same time; None for one, and as many as it allows in Slurm.
        retry: Number of times that a failed run is tried again.
        resources: Submit the runs to Slurm with these resources; None: run them here.

    Raises:
        ValueError: If files or data do not fit; nothing has been started then.
        KeyboardInterrupt: After checkpoints were saved.
    """
    if resources is not None:
        check_slurm()
    batch = make_batch(read_plan([paths] if isinstance(paths, str | Path) else paths, grid), retry)
    if resources is None:
        return run_here(batch, jobs or 1)
    if batch.work or batch.reports:
        folder = batch.folders[0] / "cluster"
        numbers = submit(batch, folder, resources, jobs)
        print(f"submitted as jobs {', '.join(numbers)}; the last one makes the report")
        print(f"their output: {folder}; state of the runs: the same command with --dry-run")
    return print_failures(batch.refused)


def parse_set(text: str) -> tuple[str, list[Any]]:
    """Return the name and the values of `NAME=VALUE` or `NAME=VALUE,VALUE`.

    Raises:
        ValueError: If it is not of that form.
    """
    name, _, value = text.partition("=")
    if not name or not value:
        raise ValueError(f"--set {text}: must be NAME=VALUE or NAME=VALUE,VALUE")
    try:
        return name, parse_values(TrainSettings, "seed" if name == SEEDS else name, value)
    except ValueError as error:
        raise ValueError(f"--set {error}") from error


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m lib.batch",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("paths", nargs="*", help="run files, studies, folders of studies, patterns")
    add("--from", dest="again", metavar="RUN", help="reproduce a run from its folder alone and "
        "compare its first 100 losses; with --set: a new run with some other settings, in the "
        "run_dir that is set")  # fmt: skip
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="override a parameter of "
        "every run; several values, separated by commas, make a grid")  # fmt: skip
    add("--dry-run", action="store_true", help="print the plan and stop")
    add("--jobs", type=int, metavar="N", help="runs at the same time (1)")
    retry = "try a failed run again, N times (1)"
    add("--retry", type=int, nargs="?", const=1, default=0, metavar="N", help=retry)
    add("--executor", choices=("slurm",), help="submit the runs to Slurm and return")
    add = parser.add_argument_group("with --executor slurm").add_argument
    add("--partition", help="partition (the cluster's default)")
    add("--nodes", type=int, help="machines of a run (1)")
    add("--gpus", type=int, help="GPUs on each machine (1)")
    add("--cpus", type=int, help="cores on each machine (8)")
    add("--memory-gb", type=float, help="memory on each machine (the cluster's default)")
    add("--hours", type=float, help="time limit; a run that needs longer is queued again (24)")
    options = "any further option of sbatch, as in qos=long"
    add("--sbatch", action="append", metavar="NAME=VALUE", help=options)
    return parser


def read_resources(
    parser: argparse.ArgumentParser, options: argparse.Namespace
) -> Resources | None:
    """Return the resources for Slurm; ends the program if they are given without it."""
    names = ("partition", "nodes", "gpus", "cpus", "memory_gb", "hours", "sbatch")
    values = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if options.executor is None:
        if values:
            parser.error(f"--{next(iter(values)).replace('_', '-')} goes with --executor slurm")
        return None
    pairs = [text.removeprefix("--").partition("=")[::2] for text in values.pop("sbatch", [])]
    if not all(name and value for name, value in pairs):
        raise ValueError("--sbatch: must be NAME=VALUE, as in --sbatch qos=long")
    return Resources(**values, options=dict(pairs))


def _run(options: argparse.Namespace, resources: Resources | None) -> int:
    """Do what the options ask for and return the number of failures."""
    grid = dict(parse_set(text) for text in options.set)
    if options.again is not None:
        return run_again(options.again, grid)
    if options.dry_run:
        print(plan_text(read_plan(options.paths, grid)))
        return 0
    return run_batch(options.paths, grid, options.jobs, options.retry, resources)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = make_parser()
    options = parser.parse_args(arguments)
    if options.jobs is not None and options.jobs < 1:
        parser.error("--jobs must be at least 1")
    if (not options.paths) == (options.again is None):
        parser.error("give run files or studies, or --from and the folder of a run")
    try:
        return min(1, _run(options, read_resources(parser, options)))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command continues", file=sys.stderr)
        return 130


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    sys.exit(main())
