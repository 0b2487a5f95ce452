"""Video networks: R(2+1)D and R3D, every torchvision video network, and what they are fed.

Every network is a `VideoClassifier`: a backbone that turns clips into one vector each, dropout, a
linear head and, for distillation, a second head for a teacher's classes. Clips are float tensors of
shape (B, 3, T, H, W).
"""

import difflib
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor, nn

from lib.learn.video_resnet import VideoResNet, conv2plus1d, conv3d, thin_conv2plus1d
from lib.learn.weights import load_reference_weights as load_reference_weights


class VideoClassifier(nn.Module):
    """A backbone, dropout and a linear head; a second head where a teacher is distilled."""

    def __init__(
        self,
        backbone: nn.Module,
        feature_dim: int,
        num_classes: int,
        dropout: float,
        teacher_classes: int = 0,
    ) -> None:
        """Put heads on a backbone.

        Args:
            backbone: Turns clips (B, 3, T, H, W) into features (B, D).
            feature_dim: D.
            num_classes: Number of action classes, at least 1.
            dropout: Probability of dropping a feature before each head, in [0, 1).
            teacher_classes: Number of classes of the distilled teacher; 0 for none.

        Raises:
            ValueError: If a number is out of its range.
        """
        super().__init__()
        if num_classes < 1 or teacher_classes < 0:
            raise ValueError(
                f"num_classes must be at least 1 and teacher_classes at least 0, "
                f"got {num_classes} and {teacher_classes}"
            )
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {dropout}")
        self.backbone = backbone
        self.dropout = nn.Dropout(dropout)
        self.head = _linear(feature_dim, num_classes)
        self.teacher_head = _linear(feature_dim, teacher_classes) if teacher_classes else None

    def features(self, clips: Tensor) -> Tensor:
        """Compute features (B, D) of clips (B, 3, T, H, W), before dropout."""
        return self.backbone(clips)

    def forward(self, clips: Tensor, with_teacher: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Classify clips.

        Args:
            clips: Normalised clips, shape (B, 3, T, H, W), floating point.
            with_teacher: Also predict the teacher's classes.

        Returns:
            Logits (B, num_classes); with the teacher, also logits (B, teacher_classes).

        Raises:
            ValueError: If the teacher's classes are asked of a network built without them.

        Source: as in the reference, each head has a dropout draw of its own
        (mmaction/models/recognizers/base_semi.py:45-50, heads/i3d_head.py).
        """
        features = self.features(clips)
        logits = self.head(self.dropout(features))
        if not with_teacher:
            return logits
        if self.teacher_head is None:
            raise ValueError("this network has no teacher head: build it with teacher_classes > 0")
        return logits, self.teacher_head(self.dropout(features))


def _linear(in_features: int, out_features: int) -> nn.Linear:
    layer = nn.Linear(in_features, out_features)
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)
    return layer


def r2plus1d_34(
    num_classes: int, dropout: float = 0.5, teacher_classes: int = 0
) -> VideoClassifier:
    """Build the paper's R(2+1)D-34: 63.6 M parameters with 101 classes.

    Source: the reference's configs/semi/r2plus1d_r34_8x8x1_360e_ucf101_rgb_all_5percent_vidssl.py.
    """
    backbone = VideoResNet(
        conv2plus1d,
        layers=(3, 4, 6, 3),
        widths=(64, 128, 256, 512),
        stem_width=64,
        stem_kernel=(3, 7, 7),
        spatial_strides=(1, 2, 2, 2),
        temporal_strides=(1, 2, 2, 2),
        stem_pool=nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
        norm_eps=1e-3,
    )
    return VideoClassifier(backbone, backbone.feature_dim, num_classes, dropout, teacher_classes)


def r3d_18(num_classes: int, dropout: float = 0.5, teacher_classes: int = 0) -> VideoClassifier:
    """Build the reference's R3D-18: 33.2 M parameters with 101 classes.

    It also halves the frames by max-pooling after its first stage, as its R(2+1)D does not.
    Source: the reference's configs/semi/r3d_r18_8x8x1_360e_ucf101_rgb_all_kd_5percent_vidssl.py.
    """
    backbone = VideoResNet(
        conv3d,
        layers=(2, 2, 2, 2),
        widths=(64, 128, 256, 512),
        stem_width=64,
        stem_kernel=(3, 7, 7),
        spatial_strides=(1, 2, 2, 2),
        temporal_strides=(1, 2, 2, 2),
        stem_pool=nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
        stage1_pool=nn.MaxPool3d((2, 1, 1)),
        norm_eps=1e-3,
    )
    return VideoClassifier(backbone, backbone.feature_dim, num_classes, dropout, teacher_classes)


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


_OURS = {"r2plus1d_34": r2plus1d_34, "r3d_18": r3d_18, "r2plus1d_small": r2plus1d_small}


def build_model(
    name: str,
    num_classes: int,
    *,
    pretrained: bool = False,
    dropout: float | None = None,
    teacher_classes: int = 0,
) -> VideoClassifier:
    """Build a network by name.

    Args:
        name: One of `model_names()`. `r3d_18` is the reference's; torchvision's network of that
            name is `torchvision/r3d_18`, a prefix that its other networks may have too.
        num_classes: Number of action classes, at least 1.
        pretrained: Start from the Kinetics-400 weights that torchvision publishes (downloaded once,
            to `torch.hub`'s folder); the heads are new.
        dropout: Probability of dropping a feature before a head, in [0, 1); None for the network's
            own.
        teacher_classes: Number of classes of a distilled teacher; 0 for none.

    Raises:
        ValueError: If there is no such network, or no published weights for it.
    """
    if name in _OURS:
        _check_pretrained(name, pretrained)
        build = _OURS[name]
        if dropout is None:
            return build(num_classes, teacher_classes=teacher_classes)
        return build(num_classes, dropout, teacher_classes)

    name = _torchvision_name(name)
    network = _torchvision().get_model(name, weights="DEFAULT" if pretrained else None)
    feature_dim, own_dropout = _cut_head(network)
    if dropout is None:
        dropout = own_dropout
    return VideoClassifier(network, feature_dim, num_classes, dropout, teacher_classes)


def model_names() -> list[str]:
    """Return the names that `build_model` knows."""
    names = _torchvision().list_models(module=_torchvision().video)
    return [*_OURS, *(f"torchvision/{name}" if name in _OURS else name for name in names)]


def _torchvision() -> ModuleType:
    import torchvision.models.video  # here, for it takes seconds to import

    return torchvision.models


def _torchvision_name(name: str) -> str:
    bare = name.removeprefix("torchvision/")
    if bare in _torchvision().list_models(module=_torchvision().video):
        return bare
    known = model_names()
    close = difflib.get_close_matches(name, known, n=1)
    hint = f", did you mean {close[0]!r}?" if close else "."
    raise ValueError(f"there is no network {name!r}{hint} Choose one of {', '.join(known)}")


def _check_pretrained(name: str, pretrained: bool) -> None:
    if pretrained:
        raise ValueError(
            f"there are no published weights for {name!r}: train it from scratch "
            f"(pretrained = False), load a checkpoint of the reference or of MMAction2 with "
            f"load_reference_weights, or take a torchvision network such as 'r2plus1d_18'"
        )


def _cut_head(network: nn.Module) -> tuple[int, float]:
    """Replace a torchvision network's classifier by the identity.

    The S3D averages its classifier's output over time and space: without it, its features.

    Returns:
        The number of features that went into it, and its dropout probability.
    """
    part = next(part for part in ("fc", "head", "classifier") if hasattr(network, part))
    layers = list(getattr(network, part).modules())
    setattr(network, part, nn.Identity())
    dropout = next((layer.p for layer in layers if isinstance(layer, nn.Dropout)), 0.0)
    last = layers[-1]
    return last.in_features if isinstance(last, nn.Linear) else last.in_channels, dropout


@dataclass(frozen=True)
class InputSpec:
    """The clips that a network was designed or published with, and the least that it takes.

    Attributes:
        mean: Mean of red, green, blue to subtract, in 0..255.
        std: Standard deviation of red, green, blue to divide by, in 0..255.
        short_side: Short side that frames are scaled to, pixels.
        crop_size: Side of the square crop, pixels.
        clip_len: Frames in a clip.
        frame_interval: Distance of neighbouring frames, in frames of a video at 30 per second.
        min_clip_len: Fewest frames the network takes.
        min_crop_size: Smallest crop it takes, pixels.
        fixed_size: Whether it takes these smallest clips alone.
    """

    mean: tuple[float, ...] = (123.675, 116.28, 103.53)
    std: tuple[float, ...] = (58.395, 57.12, 57.375)
    short_side: int = 256
    crop_size: int = 224
    clip_len: int = 8
    frame_interval: int = 8
    min_clip_len: int = 1
    min_crop_size: int = 1
    fixed_size: bool = False


_OUR_SPECS = {
    "r2plus1d_34": InputSpec(),
    "r3d_18": InputSpec(min_clip_len=2),
    "r2plus1d_small": InputSpec(short_side=64, crop_size=56, frame_interval=3),
}
# Frames and interval that torchvision's weights were evaluated with: their `_docs`, by family.
_TORCHVISION_CLIPS = {"mvit": (16, 4), "s3d": (128, 2), "swin3d": (32, 2)}


def input_spec(name: str, pretrained: bool = False) -> InputSpec:
    """Return what a network is fed.

    For a torchvision network this is what its published weights were evaluated with, whether they
    are used or not: the transforms and metadata that torchvision keeps with them.

    Args:
        name: One of `model_names()`.
        pretrained: Whether its published weights are used; there must be some.

    Raises:
        ValueError: If there is no such network, or no published weights for it.
    """
    if name in _OUR_SPECS:
        _check_pretrained(name, pretrained)
        return _OUR_SPECS[name]
    name = _torchvision_name(name)
    weights = _torchvision().get_model_weights(name).DEFAULT
    preset = weights.transforms()
    clip_len, frame_interval = _TORCHVISION_CLIPS.get(name.split("_")[0], (16, 2))
    return InputSpec(
        mean=tuple(255 * value for value in preset.mean),
        std=tuple(255 * value for value in preset.std),
        short_side=min(preset.resize_size),
        crop_size=preset.crop_size[0],
        clip_len=clip_len,
        frame_interval=frame_interval,
        min_clip_len=weights.meta.get("min_temporal_size", 1),
        min_crop_size=weights.meta["min_size"][0],
        fixed_size=name.startswith("mvit"),  # its position embeddings have one entry a patch
    )


def check_input(name: str, clip_len: int, crop_size: int) -> None:
    """Check that a network takes clips of this size.

    Args:
        name: One of `model_names()`.
        clip_len: Frames in a clip.
        crop_size: Side of the square crop, pixels; that of testing is to be checked too.

    Raises:
        ValueError: If it does not, or if there is no such network.
    """
    spec = input_spec(name)
    least = (spec.min_clip_len, spec.min_crop_size)
    exact = spec.fixed_size and (clip_len, crop_size) != least
    if exact or clip_len < spec.min_clip_len or crop_size < spec.min_crop_size:
        raise ValueError(
            f"{name} takes clips of {'exactly' if spec.fixed_size else 'at least'} {least[0]} "
            f"frames and crops of {'exactly' if spec.fixed_size else 'at least'} {least[1]} pixels "
            f"a side, not clip_len = {clip_len} and crop_size = {crop_size}"
        )
