"""What spawned processes of the tests import: a network without batch norm, and workers."""

import fcntl
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lib.config import TrainSettings
from lib.data.annotations import read_dataset
from lib.learn import training
from lib.learn.distributed import World
from lib.learn.models import VideoClassifier
from lib.learn.scoring import Protocol, score_videos

_train_worker = training.train_worker


class TinyBackbone(nn.Module):
    """Two convolutions and a mean: clips (B, 3, T, H, W) -> features (B, 8)."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv3d(3, 6, 3, stride=(1, 2, 2))
        self.conv2 = nn.Conv3d(6, 8, (2, 3, 3), stride=(1, 2, 2))

    def forward(self, clips: Tensor) -> Tensor:
        return torch.relu(self.conv2(torch.relu(self.conv1(clips)))).mean(dim=(2, 3, 4))


def build_tiny(settings: TrainSettings, num_classes: int) -> VideoClassifier:
    """Stand in for `training.build_run_model`."""
    teacher_classes = 1000 if settings.distillation_weight else 0
    return VideoClassifier(TinyBackbone(), 8, num_classes, settings.dropout, teacher_classes)


def tiny_worker(world: World, settings: TrainSettings) -> None:
    """`training.train_worker` with the tiny network, also in a spawned process."""
    training.build_run_model = build_tiny
    _train_worker(world, settings)


def make_scoring_model() -> VideoClassifier:
    torch.manual_seed(0)
    return VideoClassifier(TinyBackbone(), 8, num_classes=2, dropout=0.5)


def score_worker(
    world: World, folder: Path, rows: np.ndarray, protocol: Protocol, out: Path
) -> None:
    """Score videos and save what this rank was given."""
    normalize = training.Normalize((127.0,) * 3, (127.0,) * 3)
    scores = score_videos(
        make_scoring_model(), normalize, read_dataset(folder), rows, protocol, world
    )
    np.save(out / f"scores_{world.rank}.npy", scores)


def talk_worker(world: World, folder: Path) -> None:
    """Save what the processes tell each other."""
    total = world.sum_(torch.tensor([1.0 + world.rank, 10.0]))
    said = world.gather(f"rank {world.rank}")
    agreed = [world.agree(world.rank == 0), world.agree(world.rank == 1)]
    lines = [str(world.size), str(total.tolist()), str(said), str(agreed), str(world.device)]
    (folder / f"{world.rank}.txt").write_text("\n".join(lines))


def sleep_worker(world: World, folder: Path) -> None:
    """Hold a lock, which the system takes from a dead process, for ten minutes."""
    with open(folder / f"{world.rank}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (folder / f"{world.rank}.started").touch()
        time.sleep(600)


def failing_worker(world: World, folder: Path) -> None:
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
