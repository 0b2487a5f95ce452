"""Files shared by several processes: atomic writes, locks, and read errors that name the file."""

import json
import os
import secrets
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout


class LockedError(ValueError):
    """The lock is held by another process."""


def check_writable(folder: Path, field: str, remedy: str) -> None:
    """Create a folder and check that files can be written there.

    Args:
        folder: The folder.
        field: The setting that names it.
        remedy: The last part of the error message.

    Raises:
        ValueError: If nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"{field}: nothing can be written to {folder} ({error.strerror}); {remedy}"
        ) from error


def write_atomic(path: str | Path, write: Callable[[Path], object]) -> Path:
    """Call `write` with a temporary file in the same folder, then rename that file to `path`.

    Args:
        path: The file to create or replace; its folder is created.
        write: Writes the complete file to the path that it is given, which has the same suffix.

    Returns:
        `path`.

    Raises:
        OSError: If it cannot be written; the old file is left as it was.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.touch(exist_ok=False)
            write(temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        reason = f"cannot be written ({error.strerror or error}); free space or change permissions"
        raise OSError(error.errno, f"{reason}, then run again", str(path)) from error
    return path


def write_text(path: str | Path, text: str) -> Path:
    """Write UTF-8 text with `write_atomic`."""
    return write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


@contextmanager
def reading(source: Path | str, remedy: str) -> Iterator[None]:
    """Convert any exception raised while a file is read into one ValueError.

    Args:
        source: The file, or a place in it.
        remedy: The last part of the error message.

    Raises:
        ValueError: If the body fails; names the source, the problem and the remedy.
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
    """Return the JSON object in a file; errors as in `reading`."""
    with reading(path, remedy):
        return parse_json_object(path.read_bytes())


def parse_json_object(content: bytes) -> dict[str, Any]:
    """Return the JSON object in UTF-8 text."""
    value = json.loads(content)
    if not isinstance(value, dict):
        raise ValueError("a JSON object is expected")
    return value


@contextmanager
def file_lock(path: Path, wait_s: float = 0.0) -> Iterator[None]:
    """Hold an operating system lock while the body runs, so that one process writes a run.

    The lock ends with its process, however that ends. The owner is recorded in a file next to it.

    Args:
        path: The lock file; it is created and not deleted.
        wait_s: Time to wait for another process that holds the lock, seconds.

    Raises:
        LockedError: If another process still holds it then; names the process and its machine.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, timeout=wait_s)
    try:
        lock.acquire()
    except Timeout:
        owner = _read_owner(path)
        raise LockedError(
            f"{path.parent}: in use by {owner}; wait until it ends, or choose another run_dir"
        ) from None
    owner_path = _owner_path(path)
    try:
        write_text(owner_path, f"process {os.getpid()} on {socket.gethostname()}")
        yield
    finally:
        owner_path.unlink(missing_ok=True)
        lock.release()


def lock_owner(path: Path) -> str | None:
    """Return the process that holds the lock of a file, None if the lock is free."""
    if not _owner_path(path).is_file():
        return None
    try:
        with FileLock(path, timeout=0.2):
            return None  # its owner was killed
    except (Timeout, OSError):  # a lock file of another user cannot be opened
        return _read_owner(path)


def _owner_path(path: Path) -> Path:
    return path.with_suffix(".owner")


def _read_owner(path: Path) -> str:
    try:
        return _owner_path(path).read_text(encoding="utf-8")
    except OSError:
        return "another process"
