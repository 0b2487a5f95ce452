"""Classifiers as others have published them: EfficientNet-Lite0, torchvision's, timm's.

Torchvision's are networks of images and of videos; `torchvision/` may stand before their names.
Those of timm, of images, are `timm/<name>`.
"""

from functools import lru_cache
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

from lib.models.classifier import InputSpec
from lib.models.efficientnet_lite import THEIR_NAMES, EfficientNetLite0, published_file
from lib.models.weights import build_published, differences, with_our_names

LITE0 = "efficientnet_lite0"
# Classifiers of torchvision with more than one head, or without a linear one.
_UNUSUAL = {"googlenet", "inception_v3", "squeezenet1_0", "squeezenet1_1"}


def image_network_names() -> list[str]:
    """Return the names of the image networks, but for timm's."""
    names = torchvision_models().list_models(module=torchvision_models())
    return [LITE0, *(name for name in names if name not in _UNUSUAL)]


def video_network_names() -> list[str]:
    """Return the names of torchvision's video networks."""
    return torchvision_models().list_models(module=torchvision_models().video)


def is_image_network(name: str) -> bool:
    """Whether a name (`torchvision/` may stand before it) is that of an image network."""
    return name.startswith("timm/") or name.removeprefix("torchvision/") in image_network_names()


def build_classifier(name: str, pretrained: bool = False) -> nn.Module:
    """Return a network as published, with its 1000 classes of ImageNet, or 400 of Kinetics.

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
        is_sized = bare.startswith("vit_")  # by the crop: a published one may be of a larger crop
        size = {"image_size": classifier_spec(name).crop_size} if is_sized else {}
        return torchvision_models().get_model(bare, **size)
    return build_published(lambda: torchvision_models().get_model(bare, weights="DEFAULT"), name)


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
    their_names = THEIR_NAMES if isinstance(network, EfficientNetLite0) else ()
    tensors, expected = with_our_names(path, their_names), network.state_dict()
    if not with_head:
        head = f"{_head(network, name)}."
        tensors = {key: value for key, value in tensors.items() if not key.startswith(head)}
        tensors |= {key: (key, value) for key, value in expected.items() if key.startswith(head)}
    if problems := differences(tensors, expected):
        shown = problems[:8] + ([f"and {len(problems) - 8} more"] if len(problems) > 8 else [])
        raise ValueError("\n  ".join([f"weights: {path} does not fit {name}:", *shown]))
    network.load_state_dict({ours: tensor for ours, (_, tensor) in tensors.items()})


def classifier_spec(name: str) -> InputSpec:
    """Return what a network's published weights were evaluated with, used or not.

    Of image networks clips are as in the paper.

    Raises:
        ValueError: If there is no such network of timm.
    """
    if name == LITE0:
        return InputSpec(mean=(127.5,) * 3, std=(127.5,) * 3)
    if name.startswith("timm/"):
        return _timm_spec(name)
    bare = name.removeprefix("torchvision/")
    weights = torchvision_models().get_model_weights(bare).DEFAULT
    preset = weights.transforms()
    return InputSpec(
        mean=tuple(255 * value for value in preset.mean),
        std=tuple(255 * value for value in preset.std),
        short_side=min(preset.resize_size),
        crop_size=preset.crop_size[0],
        min_clip_len=weights.meta.get("min_temporal_size", 1),
        min_crop_size=weights.meta["min_size"][0],
        fixed_clip_len=bare.startswith("mvit"),  # it embeds positions, one entry a patch
        fixed_crop_size=bare.startswith(("mvit", "vit", "maxvit")),  # embed or partition one size
    )


@lru_cache
def _timm_spec(name: str) -> InputSpec:
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


def remove_classifier(network: nn.Module, name: str) -> tuple[int, float]:
    """Replace the last linear layer by the identity, and switch off the dropout before it.

    The S3D averages its classifier's output over time and space: without it, its features.

    Returns:
        The number of features that went into it, and the dropout's probability.
    """
    head = _head(network, name)
    last = network.get_submodule(head)
    feature_dim = last.in_features if isinstance(last, nn.Linear) else last.in_channels
    network.set_submodule(head, nn.Identity())
    parent, _, key = head.rpartition(".")
    siblings = list(network.get_submodule(parent).named_children())
    position = [child for child, _ in siblings].index(key)
    before = siblings[position - 1][1] if position else None
    if not isinstance(before, nn.Dropout):
        return feature_dim, 0.0
    dropout, before.p = before.p, 0.0
    return feature_dim, dropout


def _head(network: nn.Module, name: str) -> str:
    """Return the name of the last linear layer, which in the S3D is a convolution of one pixel."""
    kinds = nn.Linear | nn.Conv3d
    layers = [key for key, part in network.named_modules() if isinstance(part, kinds)]
    if not layers:
        raise ValueError(f"{name} has no linear head, so that it cannot become a video network")
    return layers[-1]


def torchvision_models() -> ModuleType:
    """Return torchvision's models; imported late, for it takes seconds."""
    import torchvision

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
