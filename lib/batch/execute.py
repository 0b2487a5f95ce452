"""One job of a batch, in a process of its own, which `lib.batch.jobs` starts.

The job is a line of JSON on the standard input. Whoever wrote it keeps the pipe open: when that
process is gone, so is this one, and with it the notebook's kernel. SIGTERM asks a run that trains
for a checkpoint and its end, and ends everything else.
"""

import json
import os
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lib.batch.plan import NOTEBOOKS
from lib.config import EvaluateSettings, ReportSettings
from lib.files import LockedError, exclusive
from lib.parameters import make_settings
from lib.prepare.settings import PrepareSettings
from lib.run.folder import Run
from lib.run.stop import signals_ask

FAILED, STOPPED, LOCKED = 1, 3, 4


def execute(notebook: str, output: Path, parameters: Mapping[str, Any]) -> None:
    """Execute one of the project's notebooks; the executed copy is kept on failure too."""
    import papermill

    output.parent.mkdir(parents=True, exist_ok=True)
    papermill.execute_notebook(
        NOTEBOOKS / notebook,
        output,
        dict(parameters),
        kernel_name="python3",
        cwd=NOTEBOOKS,
        progress_bar=False,
    )


def prepare_data(folder: Path, parameters: dict[str, Any]) -> int:
    """Execute notebook 1."""
    make_settings(PrepareSettings, parameters, "prepare")
    execute("1_prepare_data.ipynb", folder / f"prepare_{parameters['dataset']}.ipynb", parameters)
    return 0


def train_and_evaluate(folder: Path, parameters: dict[str, Any]) -> int:
    """Execute notebooks 3 and 4 for one run; `STOPPED` if it was asked to stop before its end."""
    record = Run(folder)
    with exclusive(folder / ".batch.lock"):
        with signals_ask(record.ask_to_stop):  # only who holds the lock may
            is_over = train(record, parameters)
        record.stop_path.unlink(missing_ok=True)
        if not is_over:
            return STOPPED
        evaluate = {"run_dir": str(folder)}
        make_settings(EvaluateSettings, evaluate, record.name)
        execute("4_evaluate.ipynb", folder / "4_evaluate.ipynb", evaluate)
    return 0


def train(record: Run, parameters: dict[str, Any]) -> bool:
    """Execute notebook 3, unless that is done; whether the run is finished then.

    An interrupt of the notebook's kernel is not an error. A run that was trained without the
    notebook is finished, and the notebook only shows it.
    """
    from papermill.exceptions import PapermillExecutionError

    output = record.folder / "3_train.ipynb"
    if record.is_finished() and output.exists():
        return True
    try:
        execute("3_train.ipynb", output, parameters)
    except PapermillExecutionError as error:
        if error.ename != "KeyboardInterrupt":
            raise
        return record.is_finished()
    return record.is_finished()


def make_report(folder: Path) -> int:
    """Execute notebook 5 for a study and export its page."""
    from lib.show.page import export_html

    parameters = {"study_dir": str(folder), "title": folder.name}
    make_settings(ReportSettings, parameters, "report")
    with exclusive(folder / ".report.lock", wait_s=600):
        execute("5_report.ipynb", folder / "5_report.ipynb", parameters)
        export_html(folder / "5_report.ipynb", folder / "report.html")
    return 0


STEPS = {"prepare": prepare_data, "run": train_and_evaluate, "report": make_report}


def main() -> int:
    """Do the job on the standard input and return the exit status."""
    job = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_batch, daemon=True).start()
    step = STEPS[job.pop("step")]
    try:
        return step(Path(job.pop("folder")), **job)
    except LockedError as error:
        print(error)
        return LOCKED


def _end_with_batch() -> None:
    sys.stdin.read()
    os._exit(FAILED)


if __name__ == "__main__":
    sys.exit(main())
