"""Writing files so that a reader never sees half of one."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path


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


def write_atomic(path: str | Path, write: Callable[[Path], object]) -> Path:
    """Let `write` fill a temporary file beside `path`, then move it into place.

    Args:
        path: The file to make; its folder is created.
        write: Called with the temporary path (same suffix), writes the whole file.

    Returns:
        `path`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def write_text(path: str | Path, text: str) -> Path:
    """Write UTF-8 text with `write_atomic` and return the path."""
    return write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
