"""Checkpoints: PyTorch's files, written atomically, checked by their CRC-32, two kept.

Their name is their progress: `epoch_0012_step_00003456.pt`, 12 complete epochs and 3456 steps.
"""

import os
import re
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import torch

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
    """Write a checkpoint (with `model`, `step`, `epoch`); keep the `NUM_KEPT` newest."""
    path = folder / f"epoch_{state['epoch']:04d}_step_{state['step']:08d}.pt"
    write_checkpoint(path, state)
    for old in list_checkpoints(folder)[NUM_KEPT:]:
        old.unlink()
    return path


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint; it is completely on the disk before it gets its name."""

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


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint without unpickling objects; ValueError if it is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            if (damaged := archive.testzip()) is not None:
                raise zipfile.BadZipFile(f"wrong checksum of {damaged}")
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            f"{path}: cannot be read as a checkpoint ({str(error) or type(error).__name__}); "
            "delete that file and train the run again: it continues from the previous checkpoint"
        ) from error
