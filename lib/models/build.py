"""Networks by name: R(2+1)D and R3D in several sizes, and what each is fed.

Every network is a `VideoClassifier`; clips are float tensors of shape (B, 3, T, H, W). Those of
torchvision and timm, and files of weights, are asked of `lib.models.published`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import torch
from torch import nn

from lib.models.classifier import InputSpec as InputSpec
from lib.models.classifier import VideoClassifier as VideoClassifier
from lib.models.video_resnet import (
    ConvBuilder,
    CpuConv3d,
    FrameDifferences,
    VideoResNet,
    conv2plus1d,
    conv3d,
    group_norm,
    thin_conv2plus1d,
)


def r2plus1d_34(
    num_classes: int, dropout: float = 0.5, teacher_classes: int = 0
) -> VideoClassifier:
    """Build the paper's R(2+1)D-34: 63.6 M parameters with 101 classes.

    Source: the reference's configs/semi/r2plus1d_r34_8x8x1_360e_ucf101_rgb_all_5percent_vidssl.py.
    """
    backbone = _reference_backbone(conv2plus1d, (3, 4, 6, 3))
    return VideoClassifier(backbone, backbone.feature_dim, num_classes, dropout, teacher_classes)


def r3d_18(num_classes: int, dropout: float = 0.5, teacher_classes: int = 0) -> VideoClassifier:
    """Build the reference's R3D-18: 33.2 M parameters with 101 classes.

    It also halves the frames by max-pooling after its first stage, as its R(2+1)D does not.
    Source: the reference's configs/semi/r3d_r18_8x8x1_360e_ucf101_rgb_all_kd_5percent_vidssl.py.
    """
    backbone = _reference_backbone(conv3d, (2, 2, 2, 2), nn.MaxPool3d((2, 1, 1)))
    return VideoClassifier(backbone, backbone.feature_dim, num_classes, dropout, teacher_classes)


def _reference_backbone(
    conv: ConvBuilder, layers: Sequence[int], stage1_pool: nn.Module | None = None
) -> VideoResNet:
    return VideoResNet(
        conv,
        layers=layers,
        widths=(64, 128, 256, 512),
        stem_width=64,
        stem_kernel=(3, 7, 7),
        spatial_strides=(1, 2, 2, 2),
        temporal_strides=(1, 2, 2, 2),
        stem_pool=nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
        stage1_pool=stage1_pool,
        norm=partial(nn.BatchNorm3d, eps=1e-3),
    )


def r2plus1d_small(
    num_classes: int, dropout: float = 0.2, teacher_classes: int = 0
) -> VideoClassifier:
    """Build a small R(2+1)D for a CPU and clips of 8 frames of 48 to 64 pixels; ours.

    21 million multiplications for a clip of 48 pixels, 0.24 M parameters. All frames are kept to
    the end, because halving them twice cost accuracy. Channels lie last in memory, which makes a
    training step on a CPU a quarter faster.
    """
    backbone = VideoResNet(
        thin_conv2plus1d,
        layers=(1, 1, 1, 1),
        widths=(16, 32, 48, 96),
        stem_width=8,
        stem_kernel=(3, 3, 3),
        spatial_strides=(2, 2, 2, 2),
        temporal_strides=(1, 1, 1, 1),
    ).to(memory_format=torch.channels_last_3d)
    return VideoClassifier(backbone, backbone.feature_dim, num_classes, dropout, teacher_classes)


def r3d_small(num_classes: int, dropout: float = 0.2, teacher_classes: int = 0) -> VideoClassifier:
    """Build a small R3D that sees a motion before it sees much else; ours.

    For a CPU and clips of 8 frames of 32 pixels or so. It is given the frames and their
    differences, and has group norm: what it learns from the labelled clips does not depend on the
    other clips of a batch.
    """
    backbone = VideoResNet(
        partial(conv3d, build=CpuConv3d),
        layers=(1, 1, 1),
        widths=(16, 32, 64),
        stem_width=8,
        stem_kernel=(3, 3, 3),
        spatial_strides=(2, 2, 2),
        temporal_strides=(1, 2, 1),
        norm=group_norm,
        in_channels=6,
    )
    with_motion = nn.Sequential(FrameDifferences(), backbone)
    return VideoClassifier(with_motion, backbone.feature_dim, num_classes, dropout, teacher_classes)


class Network(NamedTuple):
    """A network of this project: its constructor and what it is fed."""

    build: Callable[..., VideoClassifier]
    input: InputSpec


NETWORKS = {
    "r2plus1d_34": Network(r2plus1d_34, InputSpec()),
    "r3d_18": Network(r3d_18, InputSpec(min_clip_len=2)),
    "r2plus1d_small": Network(r2plus1d_small, InputSpec()),
    "r3d_small": Network(r3d_small, InputSpec()),
}


def build_model(
    name: str,
    num_classes: int,
    *,
    pretrained: bool = False,
    weights: Path | None = None,
    dropout: float | None = None,
    teacher_classes: int = 0,
    tsm_fraction: float = 0.0,
    temporal_std_pooling: bool = False,
) -> VideoClassifier:
    """Build a network by name.

    Args:
        name: Of `NETWORKS`, of a network of torchvision, or `timm/<name>`; all but timm's are
            `lib.models.published.model_names()`. `r3d_18` is the reference's; torchvision's
            network of that name is `torchvision/r3d_18`, a prefix that its others may have too.
        num_classes: Number of action classes, at least 1.
        pretrained: Start from the published weights (Kinetics-400, or ImageNet for an image
            network; downloaded once, to `torch.hub`'s folder); the heads are new.
        weights: Start from this file: of an image network its own state dict, whose head is left
            out; of a video network a checkpoint of the reference or of MMAction2.
        dropout: Probability of dropping a feature before a head, in [0, 1); None for the network's
            own.
        teacher_classes: Number of classes of a distilled teacher; 0 for none.
        tsm_fraction: Share of an image network's channels that move by one frame, in [0, 1].
        temporal_std_pooling: Append the deviation over the frames to an image network's features.

    Raises:
        ValueError: If there is no such network, or its weights cannot be had or do not fit.
    """
    if name not in NETWORKS:
        return _published().build_network(
            name,
            num_classes,
            pretrained=pretrained,
            weights=weights,
            dropout=dropout,
            teacher_classes=teacher_classes,
            tsm_fraction=tsm_fraction,
            temporal_std_pooling=temporal_std_pooling,
        )
    _check_pretrained(name, pretrained)
    check_has_frames_alone(name, tsm_fraction, temporal_std_pooling)
    given = {} if dropout is None else {"dropout": dropout}
    model = NETWORKS[name].build(num_classes, teacher_classes=teacher_classes, **given)
    if weights is not None:
        _published().load_reference_weights(model, weights)
    return model


def _published() -> ModuleType:
    from lib.models import published  # only where a run names what others have published

    return published


def check_has_frames_alone(name: str, tsm_fraction: float, temporal_std_pooling: bool) -> None:
    """Raise ValueError if a video network is given settings that are for image networks."""
    if tsm_fraction or temporal_std_pooling:
        raise ValueError(
            f"tsm_fraction and temporal_std_pooling are for image networks, and {name!r} is none; "
            "set them to 0 and false"
        )


def _check_pretrained(name: str, pretrained: bool) -> None:
    if pretrained:
        raise ValueError(
            f"there are no published weights for {name!r}: train it from scratch "
            f"(pretrained = False), load a checkpoint of the reference or of MMAction2 with "
            f"load_reference_weights, or take a torchvision network such as 'r2plus1d_18'"
        )


def input_spec(name: str, pretrained: bool = False) -> InputSpec:
    """Return what a network is fed.

    For a torchvision network this is what its published weights were evaluated with, whether they
    are used or not: the transforms and metadata that torchvision keeps with them.

    Args:
        name: As in `build_model`.
        pretrained: Whether its published weights are used; there must be some.

    Raises:
        ValueError: If there is no such network, or no published weights for it.
    """
    if name in NETWORKS:
        _check_pretrained(name, pretrained)
        return NETWORKS[name].input
    return _published().published_spec(name)


def check_input(name: str, clip_len: int, crop_size: int) -> None:
    """Check that a network takes clips of this size.

    Args:
        name: As in `build_model`.
        clip_len: Frames in a clip.
        crop_size: Side of the square crop, pixels; that of testing is to be checked too.

    Raises:
        ValueError: If it does not, or if there is no such network.
    """
    input_spec(name).check(name, clip_len, crop_size)
