"""A lock on a folder, so that two batches, or two notebooks, never write the same run.

The lock is the operating system's (`flock`): it ends with the process that holds it, however that
one ends, so that none is ever left behind. Network file systems pass it on to other machines.
"""

import os
import socket
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

POLL_S = 0.5


class LockedError(ValueError):
    """Another process holds the lock."""


@contextmanager
def exclusive(path: Path, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the lock of a file while the body runs.

    Args:
        path: The lock file; it is made, and stays.
        wait_s: How long to wait for a process that holds it.

    Raises:
        LockedError: If it is still held then; names the process and its machine.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+", encoding="utf-8") as file:
        if _take(file, path, wait_s):
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
        yield


def holder(path: Path) -> str | None:
    """Return who holds the lock of a file, None if nobody does or there is no such file."""
    import fcntl  # not on Windows

    try:
        with open(path, encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return file.read() or "another process"
    except OSError:
        pass
    return None


def _take(file: object, path: Path, wait_s: float) -> bool:
    """Take the lock; False, with a warning, where the file system has none."""
    import fcntl  # not on Windows, which can still plan and report

    give_up = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() < give_up:
                time.sleep(POLL_S)
                continue
            file.seek(0)
            holder = file.read() or "another process"
            raise LockedError(
                f"{path.parent} is in use by {holder}; wait for it, or choose another run_dir"
            ) from None
        except OSError as error:
            warnings.warn(
                f"{path}: this file system has no locks ({error.strerror}); see to it yourself "
                "that only one process writes here",
                stacklevel=4,
            )
            return False
        return True
