"""Run a study: every run of a folder of parameters through the notebooks, with papermill.

    python -m lib.batch params/demo

For each run file: notebook 3 (train), then notebook 4 (evaluate); before them notebook 1 for each
data set that is not prepared, after them notebook 5 and the page `report.html`. What is complete is
skipped; a run that fails is reported at the end and costs only itself.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any

import yaml

from lib.config import (
    PROJECT_ROOT,
    EvaluateSettings,
    PrepareSettings,
    ReportSettings,
    TrainSettings,
    make_settings,
    project_path,
    read_yaml,
)

NOTEBOOKS = PROJECT_ROOT / "notebooks"
RECIPE = "recipe.yaml"
STATUS_POLL_S = 2.0


@dataclass(frozen=True)
class PlannedRun:
    """One run of a study.

    Attributes:
        name: The run file's name without suffix.
        parameters: Recipe and run file laid over each other, as papermill's `-f -f` does.
        settings: The parameters over the notebook's own defaults, checked.
    """

    name: str
    parameters: dict[str, Any]
    settings: TrainSettings

    @property
    def run_dir(self) -> Path:
        """The run's folder."""
        return project_path(self.settings.run_dir)


def read_study(study: Path, overrides: Mapping[str, Any] | None = None) -> list[PlannedRun]:
    """Read a folder with a `recipe.yaml` and one YAML file a run; checks every file.

    Args:
        study: The folder.
        overrides: Parameters laid over every run.

    Raises:
        ValueError: If there is no recipe or no run, a parameter is wrong (names the file and the
            field), or two runs share a folder.
    """
    if not (study / RECIPE).is_file():
        raise ValueError(f"{study}: no {RECIPE}; a study is a folder with a recipe and run files")
    defaults = notebook_defaults(NOTEBOOKS / "3_train.ipynb")
    recipe = read_yaml(study / RECIPE)
    runs = []
    for path in sorted(study.glob("*.yaml")):
        if path.name == RECIPE:
            continue
        parameters = recipe | read_yaml(path) | dict(overrides or {})
        settings = make_settings(TrainSettings, defaults | parameters, str(path))
        runs.append(PlannedRun(path.stem, parameters, settings))
    if not runs:
        raise ValueError(f"{study}: no run file beside {RECIPE}")
    folders: dict[Path, str] = {}
    for run in runs:
        if run.run_dir in folders:
            raise ValueError(
                f"{study}: runs {folders[run.run_dir]} and {run.name} share run_dir "
                f"{run.settings.run_dir!r}; give each its own"
            )
        folders[run.run_dir] = run.name
    return runs


def notebook_defaults(notebook: Path) -> dict[str, Any]:
    """Return the literal defaults of a notebook's parameters cell."""
    import ast
    import json

    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        if "parameters" in cell["metadata"].get("tags", []):
            return {
                statement.target.id: ast.literal_eval(statement.value)
                for statement in ast.parse("".join(cell["source"])).body
                if isinstance(statement, ast.AnnAssign)
            }
    raise ValueError(f"{notebook}: no cell tagged 'parameters'")


def run(study: str | Path, overrides: Mapping[str, Any] | None = None) -> int:
    """Run a study and return the number of runs that failed.

    Args:
        study: Folder with `recipe.yaml` and run files, relative to the project's root or absolute.
        overrides: Parameters laid over every run.

    Raises:
        ValueError: If the study's files are wrong; nothing has been started then.
    """
    study = project_path(study)
    runs = read_study(study, overrides)
    out = project_path("outputs") / study.name
    print(f"{study.name}: {len(runs)} runs -> {out}")
    failures = prepare_data(runs, out)
    if failures:
        return _say_failures(failures)
    changed = False
    for number, planned in enumerate(runs, start=1):
        title = f"[{number}/{len(runs)}] {planned.name}"
        if is_complete(planned):
            print(f"{title}: complete")
            continue
        changed = True
        started = time.perf_counter()
        try:
            train_and_evaluate(planned, title)
        except Exception as error:
            failures[planned.name] = (planned.run_dir, error)
            print(f"{title}: failed after {_clock(started)}")
        else:
            print(f"{title}: {_clock(started)}, {result_line(planned)}")
    if changed or not (out / "report.html").is_file():
        try:
            make_report(out)
        except Exception as error:
            failures["report"] = (out, error)
    if (out / "report.html").is_file():
        print(f"report: {out / 'report.html'}")
    return _say_failures(failures)


def prepare_data(runs: list[PlannedRun], out: Path) -> dict[str, tuple[Path, Exception]]:
    """Execute notebook 1 for each data set of the runs that is not prepared; returns failures."""
    from lib.data.prepare import dataset_folder

    wanted = {}
    for planned in runs:
        s = planned.settings
        sources = [(s.dataset, s.data_root)]
        if s.is_semi_supervised and s.unlabeled_dataset is not None:
            sources.append((s.unlabeled_dataset, s.unlabeled_data_root))
        for name, root in sources:
            wanted[dataset_folder(name, root, s.data_dir)] = (name, root, s.data_dir)
    failures = {}
    for folder, (name, root, data_dir) in wanted.items():
        if (folder / "dataset.json").is_file():
            continue
        started = time.perf_counter()
        parameters = {"dataset": name, "data_root": root, "data_dir": data_dir}
        make_settings(PrepareSettings, parameters, "prepare")
        try:
            execute("1_prepare_data.ipynb", out / f"prepare_{folder.name}.ipynb", parameters)
        except Exception as error:
            failures[f"prepare {name}"] = (out, error)
        else:
            print(f"prepared {name}: {_clock(started)}")
    return failures


def is_complete(planned: PlannedRun) -> bool:
    """Whether a run was trained with these settings and evaluated."""
    from lib.learn.runs import Run

    record = Run(planned.run_dir)
    return (
        record.metrics_path.is_file()
        and record.is_finished()
        and not record.differences(planned.settings)
    )


def train_and_evaluate(planned: PlannedRun, title: str) -> None:
    """Execute notebooks 3 and 4 for one run; executed copies are kept in its folder."""
    folder = planned.run_dir
    with _status(planned, title):
        execute("3_train.ipynb", folder / "3_train.ipynb", planned.parameters)
    parameters = {"run_dir": planned.settings.run_dir}
    make_settings(EvaluateSettings, parameters, planned.name)
    execute("4_evaluate.ipynb", folder / "4_evaluate.ipynb", parameters)


def make_report(out: Path) -> None:
    """Execute notebook 5 for a study and export its page."""
    from lib.show.report import export_html

    parameters = {"study_dir": str(out), "title": out.name}
    make_settings(ReportSettings, parameters, "report")
    execute("5_report.ipynb", out / "5_report.ipynb", parameters)
    export_html(out / "5_report.ipynb", out / "report.html")


def execute(notebook: str, output: Path, parameters: dict[str, Any]) -> None:
    """Execute one of the project's notebooks with parameters; the output is kept on failure too."""
    import papermill

    output.parent.mkdir(parents=True, exist_ok=True)
    papermill.execute_notebook(
        NOTEBOOKS / notebook,
        output,
        parameters,
        kernel_name="python3",
        cwd=NOTEBOOKS,
        progress_bar=False,
    )


def result_line(planned: PlannedRun) -> str:
    """Return the top-1 of each test list in words."""
    import json

    from lib.learn.runs import Run

    results = json.loads(Run(planned.run_dir).metrics_path.read_text())["lists"]
    return ", ".join(f"{name} top-1 {values['top1']:.1f} %" for name, values in results.items())


@contextmanager
def _status(planned: PlannedRun, title: str) -> Iterator[None]:
    """Show the epoch of the run that trains, in a terminal."""
    if not sys.stdout.isatty():
        yield
        return
    from lib.learn.runs import Run

    ended, record = Event(), Run(planned.run_dir)

    def show() -> None:
        while not ended.wait(STATUS_POLL_S):
            entries = record.log_entries()
            epoch = entries[-1]["epoch"] if entries else 0
            print(f"\r{title}: epoch {epoch}/{planned.settings.epochs} ", end="", flush=True)

    thread = Thread(target=show, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        print("\r" + " " * 79 + "\r", end="")


def _clock(started: float) -> str:
    seconds = int(time.perf_counter() - started)
    return f"{seconds // 60}:{seconds % 60:02d} min"


def _say_failures(failures: dict[str, tuple[Path, Exception]]) -> int:
    for name, (folder, error) in failures.items():
        lines = [line for line in str(error).strip().splitlines() if line.strip()]
        print(f"FAILED {name}: {lines[-1] if lines else type(error).__name__}", file=sys.stderr)
        print(f"  the executed notebook with the traceback is in {folder}", file=sys.stderr)
    return len(failures)


def _parse_override(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ValueError(f"--set {text}: must be NAME=VALUE")
    return name, yaml.safe_load(value)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m lib.batch", description=__doc__.split("\n")[0])
    parser.add_argument("study", type=Path, help="folder with recipe.yaml and run files")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="lay a parameter over every run (YAML value)",
    )
    options = parser.parse_args(arguments)
    try:
        overrides = dict(_parse_override(text) for text in options.set)
        return 1 if run(options.study, overrides) else 0
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
