"""The log of a run once more as TensorBoard events (the optional package `tensorboard`)."""

import shutil
from importlib.util import find_spec
from typing import Any

from lib.run.folder import Run


def check_tensorboard() -> None:
    """Raise ValueError, with the remedy, if TensorBoard is not installed."""
    if find_spec("tensorboard") is None:
        raise ValueError(
            "tensorboard: true needs the package tensorboard; "
            "pip install -e '.[tracking]', or set it to false"
        )


class EventWriter:
    """Writes `tensorboard/` of a run.

    It starts from the log that the run continues, so that no step is there twice.

    Args:
        run: The run.
    """

    def __init__(self, run: Run):
        from torch.utils.tensorboard import SummaryWriter

        folder = run.folder / "tensorboard"
        shutil.rmtree(folder, ignore_errors=True)
        self.writer = SummaryWriter(str(folder))
        for entry in run.log_entries():
            self.add(entry)

    def add(self, entry: dict[str, Any]) -> None:
        """Write one entry of the log, at its step."""
        for name, value in entry.items():
            if name != "step" and value is not None:
                self.writer.add_scalar(name, value, entry["step"])
        self.writer.flush()
