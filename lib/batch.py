"""Run experiments through the notebooks, with papermill.

    python -m lib.batch params/demo
    python -m lib.batch params --dry-run
    python -m lib.batch params/synthetic --set seed=0,1,2 --jobs 2

For each run file: notebook 3 (train), then notebook 4 (evaluate); before them notebook 1 for the
embedded data set and for your own videos, after them notebook 5 and the page `report.html` of each
study. What is complete is skipped; a run that fails is reported at the end and costs only itself.
Ctrl-C saves checkpoints and ends; the same command goes on.
"""

import argparse
import signal
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from lib.jobs import Job, Pool, make_slots
from lib.plan import (
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


def run(
    paths: str | Path | Sequence[str | Path],
    grid: Grid | None = None,
    jobs: int = 1,
    retry: int = 0,
) -> int:
    """Run studies or single runs and return the number of failures.

    Args:
        paths: Run files, studies, folders of studies or patterns, relative to the project's root.
        grid: Values per parameter, laid over every run; see `lib.plan.read_plan`.
        jobs: Runs at the same time.
        retry: How often a run that failed is tried again.

    Raises:
        ValueError: If files or data do not fit; nothing has been started then.
        KeyboardInterrupt: After checkpoints were saved.
    """
    runs = read_plan([paths] if isinstance(paths, str | Path) else paths, grid)
    states = {planned.run_dir: state_of(planned) for planned in runs}
    to_do = [planned for planned in runs if states[planned.run_dir][0] not in (COMPLETE, REFUSED)]
    if missing := problems(data_needs(to_do)):
        raise ValueError("\n".join(["data is missing; nothing was started", *missing]))
    folders = list(dict.fromkeys(planned.run_dir.parent for planned in runs))
    for folder in folders:
        check_writable(folder)
        print(f"{folder.name}: {sum(p.run_dir.parent == folder for p in runs)} runs -> {folder}")
    pool = Pool(make_slots(jobs), to_do)
    if not pool.do(prepare_jobs(to_do, folders[0])):
        return say_failures(pool.failures)
    work, changed = [], set()
    for number, planned in enumerate(runs, start=1):
        title = f"[{number}/{len(runs)}] {planned.name}"
        state, detail = states[planned.run_dir]
        if state == COMPLETE:
            print(f"{title}: complete")
        elif state == REFUSED:
            print(f"{title}: refused")
            pool.failures[title] = (planned.run_dir, detail)
        else:
            changed.add(planned.run_dir.parent)
            work.append(run_job(planned, title, 1 + retry))
    pool.do(work)
    pool.do(report_jobs([f for f in folders if f in changed or not has_report(f)]))
    for folder in filter(has_report, folders):
        print(f"report: {folder / 'report.html'}")
    return say_failures(pool.failures)


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
    """Return the jobs of making reports, for studies with an evaluated run."""
    return [
        Job(f"report {folder.name}", folder, {"step": "report", "folder": str(folder)})
        for folder in folders
        if any(folder.glob("*/metrics.json"))
    ]


def has_report(folder: Path) -> bool:
    """Whether a study has its page."""
    return (folder / "report.html").is_file()


def check_writable(folder: Path) -> None:
    """Make a folder.

    Raises:
        ValueError: If nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"run_dir: nothing can be written to {folder} ({error.strerror}); "
            "choose another run_dir"
        ) from error


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
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at the same time")
    parser.add_argument(
        "--retry",
        type=int,
        nargs="?",
        const=1,
        default=0,
        metavar="N",
        help="try a failed run again, N times (1)",
    )
    options = parser.parse_args(arguments)
    if options.jobs < 1:
        parser.error("--jobs must be at least 1")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    try:
        grid = dict(parse_set(text) for text in options.set)
        if options.dry_run:
            print(plan_text(read_plan(options.paths, grid)))
            return 0
        return 1 if run(options.paths, grid, options.jobs, options.retry) else 0
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
