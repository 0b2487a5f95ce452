"""Trackers: the log of a run, also sent to TensorBoard, Trackio, Weights & Biases or MLflow."""

import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import Any

from lib.fileio import read_json, write_text
from lib.runs.run_dir import RunDir


@contextmanager
def tracking(run: RunDir, name: str) -> Iterator[Callable[[], None]]:
    """Yield a function that sends the new entries of the log to the tracker `name`, if any.

    `<name>.json` of the run has its identifier there and the last step sent, with which a run
    continues. ValueError if the tracker cannot start; its later errors are warnings.
    """
    if name == "none":
        yield lambda: None
        return
    path = run.folder / f"{name}.json"
    sent: dict[str, Any] = {"id": None, "step": -1}
    if path.exists():
        sent |= read_json(path, f"delete it, and {name} gets the whole log as a new run")
    try:
        sent["id"], log, finish = _start(run, name, sent["id"])
    except Exception as error:
        raise ValueError(f"tracker: {name} does not start ({error}); or set none") from error

    def send(ends: bool = False) -> None:
        try:
            for entry in run.log_entries():
                if (step := entry.pop("step")) > sent["step"]:
                    log(
                        {key: value for key, value in entry.items() if value is not None}, step=step
                    )
                    sent["step"] = step
                    write_text(path, json.dumps(sent))
            if ends:
                finish()
        except Exception as error:
            warnings.warn(f"tracker: {name}: {error}; log.jsonl has all entries", stacklevel=1)

    try:
        yield send
    finally:
        send(ends=True)


def _start(run: RunDir, name: str, identifier: str | None) -> tuple[Any, Callable, Callable]:
    """Return identifier, function that logs values at a step, and function that ends the run."""
    study, config = run.folder.parent.name, run.settings().model_dump()
    if name == "tensorboard":
        from torch.utils.tensorboard import SummaryWriter

        writer = SummaryWriter(str(run.folder / name))

        def log(values: dict[str, float], step: int) -> None:
            for key, value in values.items():
                writer.add_scalar(key, value, step)
            writer.flush()

        return None, log, writer.close
    package = import_module(name)
    if name == "mlflow":
        package.set_experiment(study)
        tracked = package.start_run(identifier, run_name=run.name).info.run_id
        if identifier is None:
            package.log_params(config)
        return tracked, partial(package.log_metrics, run_id=tracked), package.end_run
    options = {"resume": "allow" if identifier else "never", "embed": False}
    if name == "wandb":
        options = {"resume": "allow", "id": identifier, "dir": run.folder}
    tracked = package.init(project=study, name=run.name, config=config, **options)
    return tracked.id, tracked.log, tracked.finish
