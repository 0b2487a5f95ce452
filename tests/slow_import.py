"""Stands in for PyTorch on a cold disk: its import takes ten minutes, and says where it is."""

import os
import time
from pathlib import Path

Path(os.environ["IMPORTING"], str(os.getpid())).touch()
time.sleep(600)


def worker(world) -> None:
    """Never reached."""
