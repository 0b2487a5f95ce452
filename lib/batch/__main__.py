"""Run experiments through the notebooks, with papermill.

    python -m lib.batch params/demo
    python -m lib.batch params --dry-run
    python -m lib.batch params/demo/synthetic --set seeds=0,1,2 --jobs 2
    python -m lib.batch params/demo --perturb 1e-6
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
from functools import partial
from typing import Any

from lib.batch.jobs import make_batch
from lib.batch.local import print_failures, run_again, run_here
from lib.batch.plan import perturbed, plan_text, read_plan
from lib.batch.slurm import Resources, check_slurm, submit
from lib.config import TrainSettings
from lib.params import SEEDS, make_settings, parse_values


def parse_set(text: str) -> tuple[str, list[Any]]:
    """Return the name and the values of `NAME=VALUE` or `NAME=VALUE,VALUE`."""
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
    add("--from", dest="again", metavar="RUN", help="a run with the settings of this one, from its "
        "folder alone, but for those of --set, which names its run_dir")  # fmt: skip
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="override a parameter of "
        "every run; several values, separated by commas, make a grid")  # fmt: skip
    add("--perturb", type=float, default=0.0, metavar="NOISE", help="train from weights times 1 + "
        "NOISE · normal noise, as RUN_perturbed: 1e-6 acts like another processor")  # fmt: skip
    add("--dry-run", action="store_true", help="print the plan and stop")
    add("--jobs", type=int, metavar="N", help="runs at the same time (1)")
    add("--executor", choices=("slurm",), help="submit the runs to Slurm and return")
    add = parser.add_argument_group("with --executor slurm").add_argument
    unset = "the cluster's default"
    for name, field in Resources.model_fields.items():
        add(f"--{name.replace('_', '-')}", help=f"{field.description} ({field.default or unset})")
    options = "any further option of sbatch, as in qos=long"
    add("--sbatch", action="append", metavar="NAME=VALUE", help=options)
    return parser


def read_resources(options: argparse.Namespace) -> tuple[Resources, dict[str, str]] | None:
    """Return the resources and further options for Slurm, None to run here."""
    names = (*Resources.model_fields, "sbatch")
    values = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if options.executor is None:
        if values:
            name = next(iter(values)).replace("_", "-")
            raise ValueError(f"--{name} goes with --executor slurm")
        return None
    pairs = [text.removeprefix("--").partition("=")[::2] for text in values.pop("sbatch", [])]
    if not all(name and value for name, value in pairs):
        raise ValueError("--sbatch: must be NAME=VALUE, as in --sbatch qos=long")
    return make_settings(Resources, values, "--executor slurm", are_texts=True), dict(pairs)


def _run(options: argparse.Namespace) -> int:
    """Do what the options ask for and return the number of failures."""
    cluster = read_resources(options)
    grid = dict(parse_set(text) for text in options.set)
    if options.again is not None:
        return run_again(options.again, grid)
    if cluster and not options.dry_run:
        check_slurm()
    runs = list(map(partial(perturbed, noise=options.perturb), read_plan(options.paths, grid)))
    if options.dry_run:
        print(plan_text(runs))
        return 0
    batch = make_batch(runs)
    if cluster is None:
        return run_here(batch, options.jobs or 1)
    if batch.work or batch.reports:
        submit(batch, *cluster, options.jobs)
    return print_failures(batch.refused)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = make_parser()
    options = parser.parse_args(arguments)
    if options.jobs is not None and options.jobs < 1:
        parser.error("--jobs must be at least 1")
    if (not options.paths) == (options.again is None):
        parser.error("give run files or studies, or --from and the folder of a run")
    if options.again is not None and options.perturb:
        parser.error("--perturb goes with run files; with --from, set init_noise")
    try:
        return min(1, _run(options))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command continues", file=sys.stderr)
        return 130


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    sys.exit(main())
