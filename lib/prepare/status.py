"""Status of a data set: a table of the steps that prepare it."""

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd

from lib.data.dataset import VideoDataset, gigabytes

THERE, TO_DO, MISSING = "there", "to do", "missing"


@dataclass(frozen=True)
class Step:
    """A part of a prepared data set.

    Attributes:
        part: Its name.
        state: "there", "to do" or "missing".
        details: Text for the user.
        run: Creates or updates the part, given the data set (None before its videos are opened);
            None if there is nothing to do, or another step does it.
        size: Estimated disk space, bytes.
        blocks: Whether preparing cannot start, for the reason in `details`.
    """

    part: str
    state: str
    details: str
    run: Callable[[VideoDataset | None], object] | None = None
    size: float = 0.0
    blocks: bool = False


def status_table(steps: Sequence[Step], free: int) -> pd.DataFrame:
    """Return a table of steps; its last row sums up.

    Args:
        steps: The steps.
        free: Free disk space, bytes.

    Returns:
        Columns part, state ("there", "to do" or "missing") and details.
    """
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
    """Return a status table as text for a terminal."""
    wrapper = textwrap.TextWrapper(
        100, subsequent_indent=" " * 6, break_long_words=False, break_on_hyphens=False
    )
    rows = table.itertuples(index=False)
    return "\n".join(wrapper.fill("{:<24} {:<8} {}".format(*row)) for row in rows)
