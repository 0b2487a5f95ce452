"""What spawned processes of the tests import: small networks, and workers."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lib.config import TrainSettings
from lib.data.dataset import read_dataset
from lib.models.networks import VideoClassifier
from lib.models.video_resnet import Conv2Plus1d, VideoResNet
from lib.runs.distributed import DistContext
from lib.train import fit, run_model
from lib.train.run_data import Normalize
from lib.train.scoring import EvalProtocol, VideoViews, score_videos

_train_worker = fit.train_worker


class TinyBackbone(nn.Module):
    """Two convolutions and a mean: clips (B, 3, T, H, W) -> features (B, 8)."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv3d(3, 6, 3, stride=(1, 2, 2))
        self.conv2 = nn.Conv3d(6, 8, (2, 3, 3), stride=(1, 2, 2))

    def forward(self, clips: Tensor) -> Tensor:
        return torch.relu(self.conv2(torch.relu(self.conv1(clips)))).mean(dim=(2, 3, 4))


def tiny_r2plus1d(
    num_classes: int, dropout: float = 0.5, teacher_classes: int = 0
) -> VideoClassifier:
    """A network with the names and the batch norm of the reference's R(2+1)D-34, but small."""
    backbone = VideoResNet(
        Conv2Plus1d,
        layers=(2, 1, 1, 1),
        widths=(4, 8, 8, 12),
        stem_width=4,
        stem_kernel=(3, 7, 7),
        spatial_strides=(1, 2, 2, 2),
        temporal_strides=(1, 2, 2, 2),
    )
    return VideoClassifier(backbone, 12, num_classes, dropout, teacher_classes)


def build_tiny(settings: TrainSettings, num_classes: int) -> VideoClassifier:
    """Stand in for `run_model.build_run_model`."""
    teacher_classes = 1000 if settings.distillation_weight else 0
    return VideoClassifier(TinyBackbone(), 8, num_classes, settings.dropout, teacher_classes)


def tiny_worker(world: DistContext, settings: TrainSettings) -> None:
    """`fit.train_worker` with the tiny network, also in a spawned process."""
    run_model.build_run_model = build_tiny
    _train_worker(world, settings)


def make_scoring_model() -> VideoClassifier:
    torch.manual_seed(0)
    return VideoClassifier(TinyBackbone(), 8, num_classes=2, dropout=0.5)


def score_worker(
    world: DistContext, folder: Path, rows: np.ndarray, protocol: EvalProtocol, out: Path
) -> None:
    """Score videos and save what this rank was given."""
    normalize = Normalize((127.0,) * 3, (127.0,) * 3)
    views = VideoViews(read_dataset(folder), rows, protocol)
    scores = score_videos(make_scoring_model(), normalize, views, world)
    np.save(out / f"scores_{world.rank}.npy", scores)
