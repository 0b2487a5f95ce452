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
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from lib.batch.jobs import Job, Pool, has_results, make_slots
from lib.batch.plan import (
    COMPLETE,
    REFUSED,
    Grid,
    PlannedRun,
    data_needs,
    plan_text,
    problems,
    read_plan,
    state_of,
)
from lib.batch.slurm import FinalJob, Resources, check_executor, do_locally, submit_to_slurm
from lib.files import check_writable


def run(
    paths: str | Path | Sequence[str | Path],
    grid: Grid | None = None,
    jobs: int | None = None,
    retry: int = 0,
    executor: str | None = None,
    resources: Resources | None = None,
) -> int:
    """Run studies or single runs and return the number of failures.

    Args:
        paths: Run files, studies, folders of studies or patterns, relative to the project's root.
        grid: Values per parameter, laid over every run; see `lib.batch.plan.read_plan`.
        jobs: Runs at the same time; None for one, and as many as it allows in Slurm.
        retry: How often a run that failed is tried again.
        executor: `slurm` submits the jobs and returns, `local` does them here in the same way;
            None does them here.
        resources: What each run gets in Slurm.

    Raises:
        ValueError: If files or data do not fit; nothing has been started then.
        KeyboardInterrupt: After checkpoints were saved.
    """
    if executor is not None:
        check_executor(executor)
    runs = read_plan([paths] if isinstance(paths, str | Path) else paths, grid)
    states = {planned.run_dir: state_of(planned) for planned in runs}
    to_do = [planned for planned in runs if states[planned.run_dir][0] not in (COMPLETE, REFUSED)]
    if missing := problems(data_needs(to_do)):
        raise ValueError("\n".join(["data is missing; nothing was started", *missing]))
    folders = list(dict.fromkeys(planned.run_dir.parent for planned in runs))
    for folder in folders:
        check_writable(folder, "run_dir", "choose another run_dir")
        print(f"{folder.name}: {sum(p.run_dir.parent == folder for p in runs)} runs -> {folder}")
    prepare, work, refused = prepare_jobs(to_do, folders[0]), [], {}
    for number, planned in enumerate(runs, start=1):
        title = f"[{number}/{len(runs)}] {planned.name}"
        state, detail = states[planned.run_dir]
        if state == COMPLETE:
            print(f"{title}: complete")
        elif state == REFUSED:
            print(f"{title}: refused")
            refused[title] = (planned.run_dir, detail)
        else:
            work.append(run_job(planned, title, 1 + retry))
    changed = {planned.run_dir.parent for planned in to_do}
    reports = report_jobs(f for f in folders if f in changed or not has_report(f))
    if executor is None or not (work or reports):
        failures = refused | do_here(prepare, work, reports, jobs or 1)
        for folder in filter(has_report, folders):
            print(f"report: {folder / 'report.html'}")
        return say_failures(failures)
    final, place = FinalJob(reports, runs), folders[0] / "cluster"
    resources = resources or Resources()
    if executor == "slurm":
        numbers = submit_to_slurm(prepare, work, final, place, resources, jobs)
        print(f"submitted as jobs {', '.join(numbers)}; the last one makes the report")
        print(f"what they print: {place}; how far the runs are: the same command with --dry-run")
        return say_failures(refused)
    is_done = do_locally(prepare, work, final, place, resources, make_slots(jobs or 1))
    return say_failures(refused) or int(not is_done)


def do_here(
    prepare: Sequence[Job], work: Sequence[Job], reports: Sequence[Job], jobs: int
) -> dict[str, tuple[Path, str]]:
    """Do a batch in processes of this machine and return what failed."""
    pool = Pool(make_slots(jobs), [job.run for job in work])
    if pool.do(prepare):
        pool.do(work)
        pool.do(job for job in reports if has_results(job.folder))
    return pool.failures


def run_job(planned: PlannedRun, title: str, tries: int) -> Job:
    """Return the job of training and evaluating a run."""
    request = {
        "step": "run",
        "folder": str(planned.run_dir),
        "parameters": planned.parameters,
    }
    return Job(title, planned.run_dir, request, planned, tries)


def prepare_jobs(runs: Iterable[PlannedRun], folder: Path) -> list[Job]:
    """Return the jobs of making the data sets that the batch makes by itself."""
    jobs = []
    for need in data_needs(runs):
        if not need.is_prepared:
            names = ("dataset", "data_root", "data_dir")
            parameters = {name: getattr(need, name) for name in names}
            request = {"step": "prepare", "folder": str(folder), "parameters": parameters}
            jobs.append(Job(f"prepare {need.dataset}", folder, request))
    return jobs


def report_jobs(folders: Iterable[Path]) -> list[Job]:
    """Return the jobs of making reports of studies."""
    return [
        Job(f"report {folder.name}", folder, {"step": "report", "folder": str(folder)})
        for folder in folders
    ]


def has_report(folder: Path) -> bool:
    """Whether a study has its page."""
    return (folder / "report.html").is_file()


def say_failures(failures: Mapping[str, tuple[Path, str]]) -> int:
    """Print what failed and return how many."""
    for title, (folder, problem) in failures.items():
        print(f"FAILED {title}: {problem}", file=sys.stderr)
        print(f"  executed notebook with the traceback, batch.log: {folder}", file=sys.stderr)
    return len(failures)


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


RESOURCE_HELP = {
    "partition": (str, "partition (the cluster's default)"),
    "nodes": (int, "machines of a run (1)"),
    "gpus": (int, "GPUs on each machine (1)"),
    "cpus": (int, "cores on each machine (8)"),
    "memory_gb": (float, "memory on each machine (the cluster's default)"),
    "hours": (float, "time limit; a run that needs longer is queued again (24)"),
    "options": (str, "any further option of sbatch, as in qos=long"),
}


def add_cluster_options(parser: argparse.ArgumentParser) -> None:
    """Add `--executor` and what a run gets in Slurm, the fields of `Resources`."""
    parser.add_argument(
        "--executor",
        choices=("slurm", "local"),
        help="submit the runs to Slurm and return; or do them here in the same way",
    )
    group = parser.add_argument_group("with --executor slurm")
    for name, (kind, text) in RESOURCE_HELP.items():
        if name == "options":
            group.add_argument(
                "--sbatch", dest=name, action="append", default=[], metavar="NAME=VALUE", help=text
            )
        else:
            flag = "--" + name.replace("_", "-")
            group.add_argument(flag, type=kind, metavar=name.upper().split("_")[0], help=text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m lib.batch",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("paths", nargs="+", help="run files, studies, folders of studies, patterns")
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
    options = parser.parse_args(arguments)
    if options.jobs is not None and options.jobs < 1:
        parser.error("--jobs must be at least 1")
    given = {name: getattr(options, name) for name in RESOURCE_HELP}
    given = {name: value for name, value in given.items() if value not in (None, [])}
    if given and options.executor != "slurm":
        parser.error(f"--{next(iter(given)).replace('_', '-')} goes with --executor slurm")
    try:
        grid = dict(parse_set(text) for text in options.set)
        if options.dry_run:
            print(plan_text(read_plan(options.paths, grid)))
            return 0
        if "options" in given:
            given["options"] = dict(parse_option(text) for text in given["options"])
        resources = Resources(**given)
        arguments = (options.paths, grid, options.jobs, options.retry, options.executor, resources)
        return 1 if run(*arguments) else 0
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        return 130
