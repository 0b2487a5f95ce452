"""Networks by name: this library's, torchvision's, timm's and the hub's; clips that they take.

Every network is a `VideoClassifier`; clips are float tensors of shape (B, 3, T, H, W).
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from torch import nn

from lib.models.classifier import InputSpec, VideoClassifier
from lib.models.hub import (
    ImageNetwork,
    build_backbone,
    classifier_spec,
    image_network_names,
    is_image_network,
    video_network_names,
)
from lib.models.transformers_video import (
    build_hub_backbone,
    hub_spec,
    is_hub_network,
    is_image_encoder,
    missing_network,
)
from lib.models.video_resnet import (
    ChannelsLastConv3d,
    Conv2Plus1d,
    ConvBuilder,
    FrameDifferences,
    VideoResNet,
    conv3d,
)
from lib.models.weights import load_reference_weights
from lib.registry import Table, did_you_mean


def _reference_resnet(
    conv: ConvBuilder, layers: Sequence[int], pool_time: bool = False
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
        stage1_pool=nn.MaxPool3d((2, 1, 1)) if pool_time else None,
        norm=partial(nn.BatchNorm3d, eps=1e-3),
    )


def r3d_small() -> nn.Module:
    """Build the backbone of a small R3D for a CPU and clips of about 8 frames of 32 pixels; ours.

    Its input is the frames and their differences, so that it learns motion early. With group norm,
    the loss of a labeled clip does not depend on the other clips of the batch.
    """
    backbone = VideoResNet(
        partial(conv3d, build=ChannelsLastConv3d),
        layers=(1, 1, 1),
        widths=(16, 32, 64),
        stem_width=8,
        stem_kernel=(3, 3, 3),
        spatial_strides=(2, 2, 2),
        temporal_strides=(1, 2, 1),
        norm=partial(nn.GroupNorm, 8),
        in_channels=6,
    )
    return nn.Sequential(FrameDifferences(), backbone)


class Network(NamedTuple):
    """A network of this library: its backbone, the size of its features, input and dropout."""

    backbone: Callable[[], nn.Module]
    feature_dim: int
    input: InputSpec = InputSpec()
    dropout: float = 0.5


# The first is the paper's: 63.6 M parameters with 101 classes. Unlike it, the reference's R3D also
# halves the frames by max-pooling after its first stage. Sources, in the reference's configs/semi:
# r2plus1d_r34_8x8x1_360e_ucf101_rgb_all_5percent_vidssl.py,
# r3d_r18_8x8x1_360e_ucf101_rgb_all_kd_5percent_vidssl.py.
NETWORKS = Table(
    Network,
    {
        "r2plus1d_34": Network(partial(_reference_resnet, Conv2Plus1d, (3, 4, 6, 3)), 512),
        "r3d_18": Network(
            partial(_reference_resnet, conv3d, (2, 2, 2, 2), pool_time=True),
            512,
            InputSpec(min_clip_len=2),
        ),
        "r3d_small": Network(r3d_small, 64, dropout=0.2),
    },
)


def model_names() -> list[str]:
    """Return the names that `build_model` takes, except those of timm and the hub."""
    names = [f"torchvision/{name}" if name in NETWORKS else name for name in video_network_names()]
    return [*NETWORKS, *names, *image_network_names()]


def build_model(
    name: str,
    num_classes: int,
    *,
    pretrained: bool = False,
    weights: Path | None = None,
    dropout: float | None = None,
    teacher_classes: int = 0,
    temporal_std_pooling: bool = False,
) -> VideoClassifier:
    """Build a network by name, with new heads.

    Args:
        name: One of `model_names()`, `timm/<name>` or `hf/<folder or repository>`. `r3d_18` is the
            reference's; torchvision's network of that name is `torchvision/r3d_18`, a prefix that
            its others may have too.
        num_classes: Number of action classes.
        pretrained: Start from the published weights (Kinetics-400, image networks ImageNet).
        weights: Start from this file: for an image network its own state dict, whose head is
            ignored; for a video network a checkpoint of the reference or of MMAction2.
        dropout: Probability of dropping a feature before a head; None for the network's own.
        teacher_classes: Number of classes of a distilled teacher; 0 for none.
        temporal_std_pooling: Append the deviation over the frames to an image network's features.

    Raises:
        ValueError: If there is no such network, or its weights are not available or do not fit.
    """
    is_image = _check_name(name, pretrained)
    if temporal_std_pooling and not is_image:
        raise ValueError(f"temporal_std_pooling: {name!r} is no image network; set it to false")
    backbone, feature_dim, own_dropout = _build_backbone(name, pretrained, weights, is_image)
    if is_image:
        backbone = ImageNetwork(backbone, temporal_std_pooling)
        feature_dim *= 1 + temporal_std_pooling
    dropout = own_dropout if dropout is None else dropout
    model = VideoClassifier(backbone, feature_dim, num_classes, dropout, teacher_classes)
    if weights is not None and not is_image:
        load_reference_weights(model, weights)
    return model


def _build_backbone(
    name: str, pretrained: bool, weights: Path | None, is_image: bool
) -> tuple[nn.Module, int, float]:
    """Return a backbone, its number of features, its own dropout; `weights` of an image network."""
    if name in NETWORKS:
        build, feature_dim, _, own_dropout = NETWORKS[name]
        return build(), feature_dim, own_dropout
    if not is_hub_network(name):
        return build_backbone(name, pretrained, weights if is_image else None)
    if weights is not None:
        raise ValueError(
            f"weights: {name} reads the weights in its own folder; name that folder in model, "
            "hf/<folder>, and set pretrained"
        )
    return *build_hub_backbone(name, pretrained), 0.0


def input_spec(name: str, pretrained: bool = False) -> InputSpec:
    """Return the clips that a network takes; errors as in `build_model`.

    For a published network this is the input of its weights, whether they are used or not.
    """
    _check_name(name, pretrained)
    if is_hub_network(name):
        return hub_spec(name)
    return NETWORKS[name].input if name in NETWORKS else classifier_spec(name)


def _check_name(name: str, pretrained: bool) -> bool:
    """Return True for an image network; raise ValueError for an unknown name or absent weights."""
    if missing := missing_network(name):
        raise ValueError(missing)
    if is_hub_network(name):
        return is_image_encoder(name)
    if name in NETWORKS and pretrained:
        raise ValueError(
            f"pretrained: there are no published weights for {name!r}; set it to false, or choose "
            "a network of torchvision such as 'r2plus1d_18'"
        )
    if name in NETWORKS or name.removeprefix("torchvision/") in video_network_names():
        return False
    if is_image_network(name):
        return True
    others = (
        f"; choose one of {', '.join(NETWORKS)}, a network of torchvision, timm/<name>, or "
        "hf/<folder or repository>"
    )
    raise ValueError(f"there is no network {name!r}{did_you_mean(name, model_names()) or others}")
