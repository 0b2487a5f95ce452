"""Files that several processes use: written so that no reader sees half of one, and locks.

Small ones are read with errors that name the file, what is wrong and the remedy.
"""

import errno
import json
import os
import re
import secrets
import socket
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}  # of a file system


class LockedError(ValueError):
    """Another process holds the lock."""


def check_writable(folder: Path, field: str, remedy: str) -> None:
    """Make a folder.

    Args:
        folder: The folder.
        field: The setting that named it.
        remedy: What to change if nothing can be written there.

    Raises:
        ValueError: If files cannot be written there; says what to change.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"{field}: nothing can be written to {folder} ({error.strerror}); {remedy}"
        ) from error


# PyTorch reports a full disk as a RuntimeError.
_FULL_DISK_OF_PYTORCH = re.compile("inline_container|PytorchStreamWriter|iostream error")


def write_atomic(path: str | Path, write: Callable[[Path], object]) -> Path:
    """Let `write` fill a temporary file beside `path`, then move it into place.

    Args:
        path: The file to make; its folder is created.
        write: Called with the temporary path (same suffix), writes the whole file.

    Returns:
        `path`.

    Raises:
        OSError: If it cannot be written; names the file, what is wrong and the remedy.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return _write_atomic(path, write)
    except (OSError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not _FULL_DISK_OF_PYTORCH.search(str(error)):
            raise
        number = getattr(error, "errno", None) or errno.EIO
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        remedy = "make room there, or make it writable, and call the same again"
        raise OSError(number, f"cannot be written: {reason}; {remedy}", str(path)) from error


def _write_atomic(path: Path, write: Callable[[Path], object]) -> Path:
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{path.suffix}")
    try:
        temporary.touch(exist_ok=False)
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def write_text(path: str | Path, text: str) -> Path:
    """Write UTF-8 text with `write_atomic` and return the path."""
    return write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


@contextmanager
def reading(source: Path | str, remedy: str) -> Iterator[None]:
    """Turn what goes wrong while a file is read into one error; libraries fail in many ways.

    Args:
        source: The file, and where in it.
        remedy: What to do if it cannot be read.

    Raises:
        ValueError: If the body fails; names the file, what is wrong and the remedy.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise ValueError(f"{source}: cannot be read ({reason}); {remedy}") from error
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise ValueError(f"{source}: damaged ({reason}); {remedy}") from error


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """Return the JSON object in a file; arguments and errors as those of `reading`."""
    with reading(path, remedy):
        content = path.read_bytes()
    return parse_json(content, str(path), remedy)


def parse_json(content: bytes, source: str, remedy: str) -> dict[str, Any]:
    """Return the JSON object in UTF-8 text; further arguments and errors as those of `reading`."""
    with reading(source, remedy):
        value = json.loads(content)
        if not isinstance(value, dict):
            raise ValueError("a JSON object is expected")
        return value


def check_numbers(values: dict[str, Any], needed: Iterable[str]) -> None:
    """Raise ValueError unless all values are numbers, or None, and the needed ones are numbers."""
    for name in {*needed, *values}:
        value = values.get(name)
        if not isinstance(value, int | float) and (value is not None or name in needed):
            raise ValueError(f"numbers {name!r} are missing")


@contextmanager
def file_lock(path: Path, wait_s: float = 0.0) -> Iterator[None]:
    """Hold a lock while the body runs, so that never two batches or notebooks write one run.

    The lock is the operating system's: it ends with the process that holds it, however that one
    ends. Who holds it stands in a file beside it.

    Args:
        path: The lock file; it is made, and stays.
        wait_s: How long to wait for a process that holds it, seconds.

    Raises:
        LockedError: If it is still held then; names the process and its machine.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = _acquire(path, wait_s)
    name = _holder_path(path)
    try:
        write_text(name, f"process {os.getpid()} on {socket.gethostname()}")
        yield
    finally:
        name.unlink(missing_ok=True)
        lock.release()


def lock_owner(path: Path) -> str | None:
    """Return who holds the lock of a file, None if nobody does."""
    if not _holder_path(path).is_file():
        return None
    try:
        with FileLock(path, timeout=0.2):
            return None
    except (Timeout, OSError):  # someone else's folder cannot be locked: what stands there counts
        return _name_of_holder(path)


def _acquire(path: Path, wait_s: float) -> FileLock:
    """Take a lock; where the file system has none, warn and go on."""
    lock = FileLock(path, timeout=wait_s)
    try:
        lock.acquire()
    except Timeout:
        remedy = "wait for it, or choose another run_dir"
        name = _name_of_holder(path)
        raise LockedError(f"{path.parent} is in use by {name}; {remedy}") from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        warnings.warn(
            f"{path}: this file system has no locks ({error.strerror}); see to it yourself that "
            "only one process writes here",
            stacklevel=5,
        )
    return lock


def _holder_path(path: Path) -> Path:
    return path.with_suffix(".holder")


def _name_of_holder(path: Path) -> str:
    try:
        return _holder_path(path).read_text(encoding="utf-8")
    except OSError:
        return "another process"
