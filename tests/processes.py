"""Workers for the tests of launching; little is imported, for each spawned process imports it."""

import fcntl
import os
import signal
import time
from pathlib import Path

import torch
import torch.distributed as dist

from lib.runs.distributed import DistContext


def talk_worker(world: DistContext, folder: Path) -> None:
    """Save what the processes tell each other."""
    total = world.all_reduce(torch.tensor([1.0 + world.rank, 10.0]))
    said = world.all_gather(f"rank {world.rank}")
    agreed = [world.broadcast(world.rank == 0), world.broadcast(world.rank == 1)]
    lines = [str(world.world_size), str(total.tolist()), str(said), str(agreed), str(world.device)]
    (folder / f"{world.rank}.txt").write_text("\n".join(lines))


def sleep_worker(world: DistContext, folder: Path) -> None:
    """Hold a lock, which the system takes from a dead process, for ten minutes."""
    with open(folder / f"{world.rank}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (folder / f"{world.rank}.started").touch()
        time.sleep(600)


def failing_worker(world: DistContext, folder: Path) -> None:
    """Fail in rank 1 while rank 0 sleeps."""
    if world.rank == 0:
        sleep_worker(world, folder)
    while not (folder / "0.started").exists():
        time.sleep(0.05)
    raise RuntimeError("rank 1 has a bad day")


def is_alive(folder: Path, rank: int) -> bool:
    """Whether the process that runs `sleep_worker` in this rank is still there."""
    with open(folder / f"{rank}.lock") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def killed_worker(world: DistContext, folder: Path) -> None:
    """Be killed in rank 1, by which rank 0 loses its connection."""
    world.all_reduce(torch.zeros(1))
    if world.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    world.all_reduce(torch.zeros(1))


def failing_loader_worker(world: DistContext, folder: Path) -> None:
    """Fail in rank 1 while its loader has a process that takes no notice of SIGTERM."""
    if world.rank == 0:
        sleep_worker(world, folder)
    from lib.data.clip_dataset import make_loader  # imports pandas, which no other worker needs

    for _ in make_loader(range(1000), 1):
        while not (folder / "0.started").exists():
            time.sleep(0.05)
        raise RuntimeError("rank 1 has a bad day")


def absent_worker(world: DistContext, folder: Path) -> None:
    """Fail in rank 1 before what rank 0 waits for, and say if a group is taken down."""
    real = dist.destroy_process_group
    dist.destroy_process_group = lambda: ((folder / "destroyed").touch(), real())
    if world.rank == 1:
        raise RuntimeError("rank 1 has a bad day")
    world.all_reduce(torch.zeros(1))
