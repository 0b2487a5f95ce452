"""Checkpoints: written atomically, checksummed, the two newest kept.

A checkpoint is PyTorch's own file, a zip archive with a checksum (CRC-32) for each of its parts.
Its name is its progress: `epoch_0012_step_00003456.pt`, 12 complete epochs and 3456 steps.
"""

import os
import re
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

from lib.fileio import write_atomic

FILE_NAME = re.compile(r"epoch_(\d+)_step_(\d+)\.pt")
NUM_KEPT = 2


class Progress(NamedTuple):
    """Optimizer steps and complete epochs of a checkpoint."""

    step: int
    epoch: int


def read_progress(path: Path) -> Progress | None:
    """Return the progress in a checkpoint's file name, None for another file."""
    match = FILE_NAME.fullmatch(path.name)
    return Progress(int(match[2]), int(match[1])) if match else None


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder by progress, newest first."""
    paths = [path for path in folder.glob("*.pt") if read_progress(path)]
    return sorted(paths, key=read_progress, reverse=True)


def save_newest(folder: Path, state: dict[str, Any]) -> Path:
    """Write the newest checkpoint of a folder and delete all but the newest `NUM_KEPT`.

    Args:
        folder: The folder.
        state: The content, with the entries `model`, `step` and `epoch` (complete epochs).
    """
    path = folder / f"epoch_{state['epoch']:04d}_step_{state['step']:08d}.pt"
    write_checkpoint(path, state)
    for old in list_checkpoints(folder)[NUM_KEPT:]:
        old.unlink()
    return path


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint; it is completely on the disk before it gets its name."""
    import torch

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            try:
                torch.save(state, file)
            except RuntimeError as error:  # PyTorch's own, raised while it handles a full disk
                raise error.__context__ or error from None
            file.flush()
            os.fsync(file.fileno())

    write_atomic(path, write)
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)  # the new name is on the disk too
    os.close(folder)


def read_checkpoint(path: Path, mmap: bool = False) -> dict[str, Any]:
    """Read a checkpoint of this project, without unpickling objects.

    Args:
        path: The file.
        mmap: Leave the tensors in the file until they are used.

    Raises:
        ValueError: If it is damaged or not a checkpoint of this project.
    """
    import torch

    try:
        with zipfile.ZipFile(path) as archive:
            if (damaged := archive.testzip()) is not None:
                raise zipfile.BadZipFile(f"wrong checksum of {damaged}")
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:
        raise ValueError(
            f"{path}: cannot be read as a checkpoint ({str(error) or type(error).__name__}); "
            "train the run again, it continues from the checkpoint before if there is one"
        ) from error
    if not isinstance(state, dict) or "model" not in state:
        raise ValueError(f"{path}: not a checkpoint of this project (no entry 'model')")
    return state


def restore_newest(folder: Path) -> dict[str, Any] | None:
    """Return the newest readable checkpoint of a folder, None if there is no checkpoint.

    Its tensors stay in the file. Damaged newer checkpoints are deleted, with a message.

    Raises:
        ValueError: If checkpoints exist and none can be read.
    """
    problems: dict[Path, str] = {}
    for path in list_checkpoints(folder):
        try:
            state = read_checkpoint(path, mmap=True)
        except ValueError as error:
            problems[path] = str(error)
            continue
        for damaged, problem in problems.items():
            print(f"{problem}\ncontinuing from the checkpoint before it, {path.name}")
            damaged.unlink()
        return state
    if problems:
        text = "\n  ".join(problems.values())
        raise ValueError(f"{text}; no earlier one is left: delete {folder} to train from the start")
    return None
