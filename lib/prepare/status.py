"""Status of a data set: a table of the steps that prepare it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd

from lib.data.dataset import VideoDataset, gigabytes

THERE, TO_DO, MISSING, OPTIONAL = "there", "to do", "missing", "optional"


@dataclass(frozen=True)
class Step:
    """A part of a prepared data set."""

    part: str
    state: str  # "there", "to do", "missing" or "optional"
    details: str  # for the user
    # Creates or updates the part, given the data set (None before its videos are opened); None if
    # there is nothing to do, or another step does it.
    run: Callable[[VideoDataset | None], object] | None = None
    size: float = 0.0  # estimated disk space, bytes
    blocks: bool = False  # preparing cannot start, for the reason in `details`


def status_table(steps: Sequence[Step], free: int) -> pd.DataFrame:
    """Return the columns part, state and details of steps and their sum; `free` is in bytes."""
    missing = dict.fromkeys(step.part for step in steps if step.state == MISSING)
    todo = [step for step in steps if step.state == TO_DO]
    size = sum(step.size for step in todo)
    state, details = THERE, "nothing to do"
    if todo:
        state, details = TO_DO, f"about {gigabytes(size)} on disk, {gigabytes(free)} are free"
    if missing:
        state, details = MISSING, f"missing: {', '.join(missing)}. Other parts: {details}"
    if size > free:
        state, details = MISSING, f"too little room on the disk. {details}"
    rows = [(step.part, step.state, step.details) for step in steps]
    return pd.DataFrame([*rows, ("in all", state, details)], columns=["part", "state", "details"])


def status_text(table: pd.DataFrame) -> str:
    """Return a status table as text, one line per step."""
    return "\n".join("{:<24} {:<8} {}".format(*row) for row in table.itertuples(index=False))
