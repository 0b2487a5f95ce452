"""The video networks of torchvision, by its names; `torchvision/` may stand before them."""

from types import ModuleType

from torch import nn

from lib.learn.inputs import InputSpec
from lib.published.weights import build_published


def torchvision_video_names() -> list[str]:
    """Return the names of torchvision's video networks."""
    return _models().list_models(module=_models().video)


def build_torchvision_video(name: str, pretrained: bool = False) -> tuple[nn.Module, int, float]:
    """Build a network without its head.

    Args:
        name: One of `torchvision_video_names()`.
        pretrained: Take the published Kinetics-400 weights.

    Returns:
        The network, the number of its features, and the dropout before its own head.

    Raises:
        ValueError: If the published weights cannot be had.
    """
    bare = name.removeprefix("torchvision/")
    if pretrained:
        network = build_published(lambda: _models().get_model(bare, weights="DEFAULT"), name)
    else:
        network = _models().get_model(bare)
    feature_dim, dropout = _cut_head(network)
    return network, feature_dim, dropout


def torchvision_video_spec(name: str) -> InputSpec:
    """Return what a network's published weights were evaluated with, used or not.

    Args:
        name: One of `torchvision_video_names()`.
    """
    bare = name.removeprefix("torchvision/")
    weights = _models().get_model_weights(bare).DEFAULT
    preset = weights.transforms()
    embeds_positions = bare.startswith("mvit")  # one entry a patch
    return InputSpec(
        mean=tuple(255 * value for value in preset.mean),
        std=tuple(255 * value for value in preset.std),
        short_side=min(preset.resize_size),
        crop_size=preset.crop_size[0],
        min_clip_len=weights.meta.get("min_temporal_size", 1),
        min_crop_size=weights.meta["min_size"][0],
        fixed_clip_len=embeds_positions,
        fixed_crop_size=embeds_positions,
    )


def _models() -> ModuleType:
    import torchvision.models.video  # here, for it takes seconds to import

    return torchvision.models


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
