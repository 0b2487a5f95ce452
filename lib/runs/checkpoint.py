"""Checkpoints: written whole, the one before kept, checked when they are read.

A checkpoint is PyTorch's own file, a zip archive with a checksum (CRC-32) of each of its parts. The
comment of the archive says how far it is, so that a batch is planned without loading PyTorch.
"""

import json
import os
import zipfile
from pathlib import Path
from typing import Any

from lib.fileio import write_atomic


def previous_path(path: Path) -> Path:
    """Return where the checkpoint before the one at `path` is kept."""
    return path.with_suffix(".previous.pt")


def write_checkpoint(path: Path, state: dict[str, Any], keep_previous: bool) -> None:
    """Write a checkpoint; it is on the disk, whole, before it takes the place of the one before.

    Args:
        path: The file.
        state: What is saved; with the entries `model`, `step` and `epoch` (whole ones).
        keep_previous: Whether the checkpoint that was there is kept, at `previous_path`.
    """
    import torch

    def write(temporary: Path) -> None:
        torch.save(state, temporary)
        with zipfile.ZipFile(temporary, "a") as archive:
            how_far = {"step": state["step"], "epoch": state["epoch"]}
            archive.comment = json.dumps(how_far).encode()
        _sync(temporary)
        if keep_previous and path.exists():
            path.replace(previous_path(path))

    write_atomic(path, write)
    _sync(path.parent)


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_checkpoint(path: Path, mmap: bool = False) -> dict[str, Any]:
    """Read a checkpoint of this project, without unpickling objects.

    Args:
        path: The file.
        mmap: Leave the tensors in the file until they are used.

    Raises:
        ValueError: If it is missing, damaged or not a checkpoint of this project.
    """
    import torch

    if not path.is_file():
        raise ValueError(
            f"{path}: no such checkpoint; train the run first (notebooks/3_train.ipynb)"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            if (damaged := archive.testzip()) is not None:
                raise zipfile.BadZipFile(f"{damaged} does not have its checksum")
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:
        raise ValueError(
            f"{path}: cannot be read as a checkpoint ({str(error) or type(error).__name__}); "
            "train the run again, from the checkpoint before it if there is one"
        ) from error
    if not isinstance(state, dict) or "model" not in state:
        raise ValueError(f"{path}: not a checkpoint of this project (no entry 'model')")
    return state


def how_far(path: Path) -> tuple[int, int | None] | None:
    """Return the steps and the whole epochs made when a checkpoint was saved.

    Returns:
        None if there is no whole checkpoint; older ones do not tell the epochs.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            said = archive.comment
        known = json.loads(said) if said else read_checkpoint(path, mmap=True)
        return known["step"], known.get("epoch")
    except (OSError, ValueError, LookupError, TypeError, zipfile.BadZipFile):
        return None


def restore_checkpoint(path: Path) -> dict[str, Any] | None:
    """Return the checkpoint at `path`, None if there never was one; its tensors stay in the file.

    The one before takes the place of one that is damaged, or was lost; says so.

    Raises:
        ValueError: If it is damaged and there is none before it.
    """
    problem = f"{path} is not there"
    if path.exists():
        try:
            return read_checkpoint(path, mmap=True)
        except ValueError as error:
            problem = str(error)
    previous = previous_path(path)
    if previous.exists():
        state = read_checkpoint(previous, mmap=True)
        print(f"{problem}\ngoing on from the checkpoint before it, of step {state['step']}")
        previous.replace(path)
        return state
    if path.exists():
        raise ValueError(f"{problem}; here there is none: delete the file to start anew")
    return None
