"""Run experiments through the notebooks, with papermill.

    python -m lib.batch params/demo
    python -m lib.batch params --dry-run
    python -m lib.batch params/synthetic --set seed=0,1,2 --jobs 2
    python -m lib.batch params/ucf101 --executor slurm --gpus 8 --hours 48

For each run file: notebook 3 (train), then notebook 4 (evaluate); before them notebook 1 for the
embedded data set and for your own videos, after them notebook 5 and the page `report.html` of each
study. What is complete is skipped; a run that fails is reported at the end and costs only itself.
Ctrl-C saves checkpoints and ends; the same command goes on. With `--executor slurm` all that is
submitted as jobs of a cluster, and the command ends.
"""

import argparse
import signal
import sys
from collections.abc import Sequence
from typing import Any

import yaml

from lib.batch.local import run
from lib.batch.plan import plan_text, read_plan
from lib.batch.reproduce import run_again
from lib.batch.slurm import Resources


def parse_set(text: str) -> tuple[str, list[Any]]:
    """Return the name and the values of `NAME=VALUE,VALUE`.

    Raises:
        ValueError: If it is not of that form.
    """
    name, equals, value = text.partition("=")
    try:
        values = yaml.safe_load(f"[{value}]")
    except yaml.YAMLError as error:
        raise ValueError(f"--set {text}: not valid YAML: {error}") from error
    if not equals or not name or not values:
        raise ValueError(f"--set {text}: must be NAME=VALUE or NAME=VALUE,VALUE")
    return name, values


def parse_option(text: str) -> tuple[str, str]:
    """Return the name and the value of `NAME=VALUE`, an option of sbatch.

    Raises:
        ValueError: If it is not of that form.
    """
    name, equals, value = text.removeprefix("--").partition("=")
    if not equals or not name or not value:
        raise ValueError(f"--sbatch {text}: must be NAME=VALUE, as in --sbatch qos=long")
    return name, value


def add_cluster_options(parser: argparse.ArgumentParser) -> None:
    """Add `--executor` and what a run gets in Slurm, the fields of `Resources`."""
    parser.add_argument(
        "--executor",
        choices=("slurm", "local"),
        help="submit the runs to Slurm and return; or do them here in the same way",
    )
    add = parser.add_argument_group("with --executor slurm").add_argument
    add("--partition", help="partition (the cluster's default)")
    add("--nodes", type=int, help="machines of a run (1)")
    add("--gpus", type=int, help="GPUs on each machine (1)")
    add("--cpus", type=int, help="cores on each machine (8)")
    add("--memory-gb", type=float, help="memory on each machine (the cluster's default)")
    add("--hours", type=float, help="time limit; a run that needs longer is queued again (24)")
    options = "any further option of sbatch, as in qos=long"
    add("--sbatch", action="append", metavar="NAME=VALUE", help=options)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m lib.batch",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("paths", nargs="*", help="run files, studies, folders of studies, patterns")
    parser.add_argument(
        "--from",
        dest="again",
        metavar="RUN",
        help="make a run again from its folder alone, beside it, and compare the first 100 losses; "
        "with --set a run like it with other settings, in the run_dir that is set",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="lay a parameter over every run (YAML); several values, with commas, make a grid",
    )
    parser.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    parser.add_argument("--jobs", type=int, metavar="N", help="runs at the same time (1)")
    parser.add_argument(
        "--retry",
        type=int,
        nargs="?",
        const=1,
        default=0,
        metavar="N",
        help="try a failed run again, N times (1)",
    )
    add_cluster_options(parser)
    return parser


def read_resources(parser: argparse.ArgumentParser, options: argparse.Namespace) -> Resources:
    """Return what was asked for in Slurm; ends the program if that goes with something else."""
    names = ("partition", "nodes", "gpus", "cpus", "memory_gb", "hours", "sbatch")
    given = {name: value for name in names if (value := getattr(options, name)) is not None}
    if given and options.executor != "slurm":
        parser.error(f"--{next(iter(given)).replace('_', '-')} goes with --executor slurm")
    if "sbatch" in given:
        given["options"] = dict(parse_option(text) for text in given.pop("sbatch"))
    return Resources(**given)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = make_parser()
    options = parser.parse_args(arguments)
    if options.jobs is not None and options.jobs < 1:
        parser.error("--jobs must be at least 1")
    if (not options.paths) == (options.again is None):
        parser.error("give run files or studies, or --from and the folder of a run")
    try:
        grid = dict(parse_set(text) for text in options.set)
        if options.again is not None:
            return run_again(options.again, grid)
        resources = read_resources(parser, options)
        if options.dry_run:
            print(plan_text(read_plan(options.paths, grid)))
            return 0
        how = (options.jobs, options.retry, options.executor, resources)
        return 1 if run(options.paths, grid, *how) else 0
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        return 130


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    sys.exit(main())
