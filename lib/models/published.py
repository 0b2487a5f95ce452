"""The networks of torchvision and timm by name: video networks, and image networks over frames."""

from pathlib import Path

from lib.models.build import NETWORKS, check_has_frames_alone
from lib.models.classifier import InputSpec, VideoClassifier
from lib.models.image import build_image_network
from lib.models.image_classifiers import (
    build_classifier,
    classifier_spec,
    image_network_names,
    is_image_network,
    remove_classifier,
    video_network_names,
)
from lib.models.weights import load_reference_weights
from lib.registry import did_you_mean


def model_names() -> list[str]:
    """Return the names that `lib.models.build.build_model` knows, but for timm's."""
    names = [f"torchvision/{name}" if name in NETWORKS else name for name in video_network_names()]
    return [*NETWORKS, *names, *image_network_names()]


def build_network(
    name: str,
    num_classes: int,
    *,
    pretrained: bool,
    weights: Path | None,
    dropout: float | None,
    teacher_classes: int,
    tsm_fraction: float,
    temporal_std_pooling: bool,
) -> VideoClassifier:
    """Build a network by name; arguments and errors as those of `lib.models.build.build_model`."""
    is_image = is_image_network(name)
    if is_image:
        backbone, feature_dim, own_dropout = build_image_network(
            name,
            pretrained=pretrained,
            weights=weights,
            tsm_fraction=tsm_fraction,
            with_deviation=temporal_std_pooling,
        )
    else:
        check_has_frames_alone(name, tsm_fraction, temporal_std_pooling)
        _check_name(name)
        backbone = build_classifier(name, pretrained)
        feature_dim, own_dropout = remove_classifier(backbone, name)
    dropout = own_dropout if dropout is None else dropout
    model = VideoClassifier(backbone, feature_dim, num_classes, dropout, teacher_classes)
    if weights is not None and not is_image:
        load_reference_weights(model, weights)
    return model


def published_spec(name: str) -> InputSpec:
    """Return what a network of torchvision or timm is fed; errors as `build_network`."""
    if not is_image_network(name):
        _check_name(name)
    return classifier_spec(name)


def _check_name(name: str) -> None:
    if name.removeprefix("torchvision/") in video_network_names():
        return
    known = model_names()
    hint = did_you_mean(name, known) or "."
    raise ValueError(f"there is no network {name!r}{hint} Choose one of {', '.join(known)}")
