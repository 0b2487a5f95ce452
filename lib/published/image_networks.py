"""Image classifiers as video networks: frame by frame, then averaged over time.

EfficientNet-Lite0 (whose ImageNet weights a package carries), every classifier of torchvision, and
every one of timm under `timm/<name>`. With a temporal shift, part of the channels of neighbouring
frames change places in the middle of the network, which costs no parameters.

Source: Wang et al., "Temporal Segment Networks" (arXiv 1608.00859); Lin et al., "TSM" (arXiv
1811.08383).
"""

from functools import lru_cache
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from lib.learn.inputs import InputSpec
from lib.published.efficientnet_lite import EfficientNetLite0, published_file, translate
from lib.published.weights import build_published, differences, read_tensors

LITE0 = "efficientnet_lite0"
# Classifiers of torchvision with more than one head, or without a linear one.
_UNUSUAL = {"googlenet", "inception_v3", "squeezenet1_0", "squeezenet1_1"}
# Where the branch of a residual block begins, by the class of the block.
_BRANCHES = {
    "BasicBlock": ("conv1",),
    "Bottleneck": ("conv1",),
    "Block": ("expand",),
    "MBConv": ("block",),
    "FusedMBConv": ("block",),
    "InvertedResidual": ("block", "conv", "conv_pw"),
    "CNBlock": ("block",),
}


class TemporalShift(nn.Module):
    """Moves a share of the channels by one frame, half of them each way; zeros come in.

    Source: Lin et al., "TSM", section 3; the first channels are those of the next frame.
    """

    def __init__(self, share: float) -> None:
        """Build the shift; `num_frames` must be set before it is used.

        Args:
            share: Share of the channels moved, in (0, 1].
        """
        super().__init__()
        self.share, self.num_frames = share, 1

    def forward(self, frames: Tensor) -> Tensor:
        """Shift maps (B · T, C, H, W) within each clip of T frames."""
        clips = frames.unflatten(0, (-1, self.num_frames))
        count = int(frames.shape[1] * self.share / 2)
        out = clips.clone()
        out[:, :-1, :count] = clips[:, 1:, :count]
        out[:, -1, :count] = 0
        out[:, 1:, count : 2 * count] = clips[:, :-1, count : 2 * count]
        out[:, 0, count : 2 * count] = 0
        return out.flatten(0, 1)


class ImageNetwork(nn.Module):
    """An image network without its head, averaged over the frames of a clip.

    Channels lie last in memory, which makes a step on a CPU up to three times faster.
    """

    def __init__(self, network: nn.Module, with_deviation: bool = False) -> None:
        """Wrap a network.

        Args:
            network: Turns images (N, 3, H, W) into features (N, D).
            with_deviation: Give the standard deviation over the frames beside the mean.
        """
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)
        self.with_deviation = with_deviation

    def forward(self, clips: Tensor) -> Tensor:
        """Return features (B, D) of clips (B, 3, T, H, W); (B, 2 · D) with the deviation."""
        num_frames = clips.shape[2]
        for module in self.network.modules():
            if isinstance(module, TemporalShift):
                module.num_frames = num_frames
        frames = clips.transpose(1, 2).flatten(0, 1).contiguous(memory_format=torch.channels_last)
        features = self.network(frames).unflatten(0, (-1, num_frames))
        mean = features.mean(dim=1)
        if not self.with_deviation:
            return mean
        return torch.cat([mean, features.std(dim=1, correction=0)], dim=1)


def image_network_names() -> list[str]:
    """Return the names of the image networks, but for timm's."""
    names = _torchvision().list_models(module=_torchvision())
    return [LITE0, *(name for name in names if name not in _UNUSUAL)]


def is_image_network(name: str) -> bool:
    """Whether a name (`torchvision/` may stand before it) is that of an image network."""
    return name.startswith("timm/") or name.removeprefix("torchvision/") in image_network_names()


def build_image_network(
    name: str,
    *,
    pretrained: bool = False,
    weights: Path | None = None,
    temporal_shift: float = 0.0,
    with_deviation: bool = False,
) -> tuple[ImageNetwork, int, float]:
    """Build an image network as the backbone of a video network.

    Args:
        name: Of an image network.
        pretrained: Take the published ImageNet weights.
        weights: Take the weights of this file, of this network; its head is left out.
        temporal_shift: Share of the channels that move by one frame, in [0, 1]; 0 for none.
        with_deviation: Give the standard deviation over the frames beside the mean.

    Returns:
        The network, the number of its features, and the dropout before its own head.

    Raises:
        ValueError: If there is no such network, its weights cannot be had or do not fit, or it has
            no blocks that are known to take a shift.
    """
    network = build_classifier(name, pretrained)
    if weights is not None:
        load_classifier(network, weights, name, with_head=False)
    feature_dim, dropout = _cut_head(network, name)
    if temporal_shift:
        _insert_shifts(network, temporal_shift, name)
    return ImageNetwork(network, with_deviation), feature_dim * (1 + with_deviation), dropout


def build_classifier(name: str, pretrained: bool = False) -> nn.Module:
    """Return an image network as published, with its 1000 classes of ImageNet.

    Raises:
        ValueError: If there is no such network, or its published weights cannot be had.
    """
    if name == LITE0:
        network = EfficientNetLite0()
        if pretrained:
            load_classifier(network, published_file(), name)
        return network
    if name.startswith("timm/"):
        timm, bare = _timm(), name.removeprefix("timm/")
        if not bare.startswith("hf-hub:") and not timm.is_model(bare):
            raise ValueError(f"timm has no network {bare!r}; timm.list_models() lists them")
        if not pretrained and not bare.startswith("hf-hub:"):
            return timm.create_model(bare)
        return build_published(lambda: timm.create_model(bare, pretrained=pretrained), name)
    bare = name.removeprefix("torchvision/")
    if not pretrained:
        return _torchvision().get_model(bare)
    return build_published(lambda: _torchvision().get_model(bare, weights="DEFAULT"), name)


def load_classifier(network: nn.Module, path: Path, name: str, with_head: bool = True) -> None:
    """Load a file of weights into an image network, strictly.

    Args:
        network: From `build_classifier`.
        path: State dict of this network: `.safetensors`, or of `torch.save`, of which only tensors
            are read. EfficientNet-Lite0 may have the published names.
        name: Of the network, for the message.
        with_head: Whether the last layer is loaded too; if not, the file's classes do not matter.

    Raises:
        ValueError: If the file cannot be read or is not of this network; names what differs.
    """
    tensors = read_tensors(path)
    if isinstance(network, EfficientNetLite0):
        tensors = translate(tensors)
    expected = network.state_dict()
    if not with_head:
        head = f"{_head(network, name)}."
        tensors = {key: value for key, value in tensors.items() if not key.startswith(head)}
        tensors |= {key: value for key, value in expected.items() if key.startswith(head)}
    if problems := differences({key: (key, value) for key, value in tensors.items()}, expected):
        shown = problems[:8] + ([f"and {len(problems) - 8} more"] if len(problems) > 8 else [])
        raise ValueError("\n  ".join([f"weights: {path} does not fit {name}:", *shown]))
    network.load_state_dict(tensors)


def image_input_spec(name: str) -> InputSpec:
    """Return what an image network was published with; clips as in the paper.

    Raises:
        ValueError: If there is no such network.
    """
    if name == LITE0:
        return InputSpec(mean=(127.5,) * 3, std=(127.5,) * 3)
    if name.startswith("timm/"):
        return _timm_input_spec(name)
    bare = name.removeprefix("torchvision/")
    weights = _torchvision().get_model_weights(bare).DEFAULT
    preset = weights.transforms()
    return InputSpec(
        mean=tuple(255 * value for value in preset.mean),
        std=tuple(255 * value for value in preset.std),
        short_side=preset.resize_size[0],
        crop_size=preset.crop_size[0],
        min_crop_size=weights.meta["min_size"][0],
        fixed_crop_size=bare.startswith(("vit", "maxvit")),  # they embed or partition one size
    )


@lru_cache
def _timm_input_spec(name: str) -> InputSpec:
    with torch.device("meta"):
        published = build_classifier(name).pretrained_cfg
    size, least = published["input_size"][1], published.get("min_input_size", (3, 1, 1))[1]
    is_fixed = published.get("fixed_input_size", False)
    return InputSpec(
        mean=tuple(255 * value for value in published["mean"]),
        std=tuple(255 * value for value in published["std"]),
        short_side=round(size / (published.get("crop_pct") or 0.875)),
        crop_size=size,
        min_crop_size=size if is_fixed else least,
        fixed_crop_size=is_fixed,
    )


def _head(network: nn.Module, name: str) -> str:
    """Return the name of the last linear layer."""
    layers = [key for key, part in network.named_modules() if isinstance(part, nn.Linear)]
    if not layers:
        raise ValueError(f"{name} has no linear head, so that it cannot become a video network")
    return layers[-1]


def _cut_head(network: nn.Module, name: str) -> tuple[int, float]:
    """Replace the last linear layer by the identity, and switch off the dropout before it.

    Returns:
        The number of features that went into it, and the dropout's probability.
    """
    head = _head(network, name)
    feature_dim = network.get_submodule(head).in_features
    network.set_submodule(head, nn.Identity())
    parent, _, key = head.rpartition(".")
    siblings = list(network.get_submodule(parent).named_children())
    position = [child for child, _ in siblings].index(key)
    before = siblings[position - 1][1] if position else None
    if not isinstance(before, nn.Dropout):
        return feature_dim, 0.0
    dropout, before.p = before.p, 0.0
    return feature_dim, dropout


def _insert_shifts(network: nn.Module, share: float, name: str) -> None:
    branches = [
        (block, key)
        for block in network.modules()
        if getattr(block, "use_res_connect", getattr(block, "has_skip", True))
        for key in _BRANCHES.get(type(block).__name__, ())
        if hasattr(block, key)
    ]
    for block, key in branches:
        setattr(block, key, nn.Sequential(TemporalShift(share), getattr(block, key)))
    if not branches:
        raise ValueError(
            f"temporal_shift: {name} has no residual blocks that are known here; set it to 0 or "
            "take a ResNet, an EfficientNet or a MobileNet"
        )


def _torchvision() -> ModuleType:
    import torchvision  # here, for it takes seconds to import

    return torchvision.models


def _timm() -> ModuleType:
    try:
        import timm
    except ImportError as error:
        raise ValueError(
            "timm is not installed: pip install 'video-invariances[timm]', or take a network of "
            "torchvision"
        ) from error
    return timm
