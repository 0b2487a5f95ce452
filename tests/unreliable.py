"""Functions that fail in every way, for worker processes: kept apart so that these start fast."""

import os
import signal
import time
from pathlib import Path

from lib.prepare.inspect_videos import inspect_video


def inspect_or_crash(path: Path):
    """What a decoder with a bug would do."""
    if path.stem == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if path.stem == "abort":
        os.abort()
    if path.stem == "freeze":
        time.sleep(60)
    return inspect_video(path)


def square_or_fail(number: int) -> int:
    if number == 3:
        raise ValueError("three is not liked")
    return number**2
