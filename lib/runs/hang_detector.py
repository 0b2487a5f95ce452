"""A run that makes no step: whom it waits for, and how a stop is honoured all the same.

Each process of a run keeps a line in a file of its own that says where it is. When all these lines
stand still, the process that is behind the others, or that the system has stopped, is waited for.
"""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar

import psutil

Batch = TypeVar("Batch")
STILL_S = 60.0
SHARED_MEMORY, SHORT = Path("/dev/shm"), 100e6  # bytes; what holds the loaders' clips
CURE = (
    "set num_workers to 0 or to fewer, or enlarge it (--ipc=host or --shm-size=8g for a container, "
    "mount -o remount,size=8G /dev/shm as root)"
)
PHASES = ("reads clips", "computes", "validates", "makes a probe")
HALTED = {psutil.STATUS_STOPPED: "stopped (kill -CONT)", psutil.STATUS_DISK_SLEEP: "at a disk"}


class StandstillError(Exception):
    """A run that stands still was asked to end."""


def pulse_path(folder: Path, rank: int) -> Path:
    """Return the file in which a process says where it is."""
    return folder / f".pulse.{rank}"


class Pulse:
    """Says where a process is.

    Args:
        folder: That of the run.
        rank: The process.
    """

    def __init__(self, folder: Path, rank: int):
        self.path, self.count = pulse_path(folder, rank), 0
        self.file: BinaryIO | None = None

    def at(self, step: int, phase: str) -> None:
        """Say that a phase of a step begins, or goes on."""
        self.count += 1
        line = f"{os.getpid()} {socket.gethostname()} {step} {self.count} {phase}\n"
        with suppress(OSError):  # a full disk; the training goes on
            self.file = self.file or open(self.path, "wb", buffering=0)
            os.pwrite(self.file.fileno(), line.ljust(200).encode(), 0)

    def next(self, batches: Iterator[Batch], step: int) -> Batch:
        """Return the next of the batches, and say when it is waited for and when it is there."""
        self.at(step, "reads clips")
        batch = next(batches)
        self.at(step, "computes")
        return batch


class Place(NamedTuple):
    """Where a process is: the smaller, the further behind."""

    step: int
    phase: int
    pid: int
    host: str
    count: int


class Standstill:
    """Looks whether the processes of a run move.

    Args:
        folder: That of the run.
        size: Number of its processes.
    """

    def __init__(self, folder: Path, size: int):
        self.folder, self.size = folder, size
        self.places: list[Place | None] = []
        self.since = time.monotonic()

    def problem(self) -> str | None:
        """Return whom the run waits for; None if it made a step within `STILL_S`."""
        places = [read_place(pulse_path(self.folder, rank)) for rank in range(self.size)]
        if places != self.places:
            self.places, self.since = places, time.monotonic()
        seconds = time.monotonic() - self.since
        if seconds < STILL_S:
            return None
        waited_for = " and ".join(self._waited_for())
        return f"no step for {seconds:.0f} s: waiting for {waited_for}{_shortage()}"

    def _waited_for(self) -> list[str]:
        """Return the processes that are halted; else those that are behind, in words."""
        halts = [_halts(place) for place in self.places]
        order = [place[:2] if place else (-1, -1) for place in self.places]
        behind = [rank for rank in range(self.size) if order[rank] == min(order)]
        return [
            f"process {rank} of {self.size}, {_phase(self.places[rank])}{halts[rank]}"
            for rank in [rank for rank in range(self.size) if halts[rank]] or behind
        ]


def read_place(path: Path) -> Place | None:
    """Return where a process is; None if it has not said so."""
    try:
        pid, host, step, count, phase = path.read_text(encoding="utf-8").split(maxsplit=4)
        return Place(int(step), PHASES.index(phase.strip()), int(pid), host, int(count))
    except (OSError, ValueError):
        return None


def _phase(place: Place | None) -> str:
    if place is None:
        return "which has not begun"
    return f"{place.pid} on {place.host}, which {PHASES[place.phase]}"


def _shortage() -> str:
    """Return how to cure shared memory that is short; loaders that get none can wait in silence."""
    if not SHARED_MEMORY.is_dir() or (free := psutil.disk_usage(str(SHARED_MEMORY)).free) > SHORT:
        return ""
    return f"; {SHARED_MEMORY} has {free / 1e6:.0f} MB left: {CURE}"


def _halts(place: Place | None) -> str:
    """Return which of a process and its loader's processes the system has halted, in words."""
    if place is None or place.host != socket.gethostname():
        return ""
    with suppress(psutil.Error):
        process = psutil.Process(place.pid)
        family = [process, *process.children(recursive=True)]
        halted = [p for p in family if p.status() in HALTED]
        return "".join(f"; {p.pid} is {HALTED[p.status()]}" for p in halted)
    return ""
