"""The networks of torchvision and timm by name: video networks, and image networks over frames."""

from pathlib import Path

from lib.learn.classifier import VideoClassifier
from lib.learn.inputs import InputSpec
from lib.learn.models import NETWORKS, check_has_frames_alone
from lib.published.image_networks import (
    build_image_network,
    image_input_spec,
    image_network_names,
    is_image_network,
)
from lib.published.torchvision_video import (
    build_torchvision_video,
    torchvision_video_names,
    torchvision_video_spec,
)
from lib.published.weights import load_reference_weights
from lib.tables import near_miss


def model_names() -> list[str]:
    """Return the names that `lib.learn.models.build_model` knows, but for timm's."""
    names = torchvision_video_names()
    names = [f"torchvision/{name}" if name in NETWORKS else name for name in names]
    return [*NETWORKS, *names, *image_network_names()]


def build_network(
    name: str,
    num_classes: int,
    *,
    pretrained: bool,
    weights: Path | None,
    dropout: float | None,
    teacher_classes: int,
    temporal_shift: float,
    frame_deviation: bool,
) -> VideoClassifier:
    """Build a network by name; arguments and errors as those of `lib.learn.models.build_model`."""
    is_image = is_image_network(name)
    if is_image:
        backbone, feature_dim, own_dropout = build_image_network(
            name,
            pretrained=pretrained,
            weights=weights,
            temporal_shift=temporal_shift,
            with_deviation=frame_deviation,
        )
    else:
        check_has_frames_alone(name, temporal_shift, frame_deviation)
        _check_name(name)
        backbone, feature_dim, own_dropout = build_torchvision_video(name, pretrained)
    dropout = own_dropout if dropout is None else dropout
    model = VideoClassifier(backbone, feature_dim, num_classes, dropout, teacher_classes)
    if weights is not None and not is_image:
        load_reference_weights(model, weights)
    return model


def published_spec(name: str) -> InputSpec:
    """Return what a network of torchvision or timm is fed; errors as `build_network`."""
    if is_image_network(name):
        return image_input_spec(name)
    _check_name(name)
    return torchvision_video_spec(name)


def _check_name(name: str) -> None:
    if name.removeprefix("torchvision/") in torchvision_video_names():
        return
    known = model_names()
    hint = near_miss(name, known) or "."
    raise ValueError(f"there is no network {name!r}{hint} Choose one of {', '.join(known)}")
