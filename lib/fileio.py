"""Files shared by several processes: atomic writes, locks, and read errors that name the file."""

import json
import os
import secrets
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout


class LockedError(ValueError):
    """The lock is held by another process."""


def check_writable(folder: Path, field: str, remedy: str) -> None:
    """Create the folder that a setting (`field`) names; ValueError if it cannot be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        problem = f"nothing can be written to {folder} ({error.strerror})"
        raise ValueError(f"{field}: {problem}; {remedy}") from error


def write_atomic(path: str | Path, write: Callable[[Path], object]) -> Path:
    """Call `write` with a temporary file, rename that file to `path` and return `path`.

    The temporary file has the suffix of `path` and is in its folder, which is created. After an
    error the old file is unchanged.
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
    """Convert any exception of the body to a ValueError with source (file), problem and remedy."""
    try:
        yield
    except Exception as error:
        problem = "cannot be read" if isinstance(error, OSError) else "damaged"
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ValueError(f"{source}: {problem} ({reason}); {remedy}") from error


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
    """Hold an operating system lock while the body runs; it ends with its process.

    The lock file is not deleted; a file next to it names the owner. LockedError if another process
    still holds the lock after `wait_s` seconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, timeout=wait_s)
    try:
        lock.acquire()
    except Timeout:
        owner = lock_owner(path) or "another process"
        raise LockedError(
            f"{path.parent}: in use by {owner}; wait until it ends, or choose another run_dir"
        ) from None
    owner_path = path.with_suffix(".owner")
    try:
        write_text(owner_path, f"process {os.getpid()} on {socket.gethostname()}")
        yield
    finally:
        owner_path.unlink(missing_ok=True)
        lock.release()


def lock_owner(path: Path) -> str | None:
    """Return the process that holds the lock of a file, None if the lock is free."""
    owner_path = path.with_suffix(".owner")
    if not owner_path.is_file():
        return None
    try:
        with FileLock(path, timeout=0.2):
            return None  # its owner was killed
    except (Timeout, OSError):  # a lock file of another user cannot be opened
        with suppress(OSError):
            return owner_path.read_text(encoding="utf-8")
    return "another process"
