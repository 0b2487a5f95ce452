"""ImageNet class probabilities of frames, computed by an image classifier for distillation."""

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from lib.data.dataset import VideoDataset, VideoRecord
from lib.data.frame_tables import NUM_CLASSES, FrameRows, TeacherScores
from lib.data.video_reader import iterate_frames
from lib.models.classifier import InputSpec
from lib.models.hub import (
    LITE0,
    build_classifier,
    classifier_spec,
    image_network_names,
    is_image_network,
    lite0_weights,
    load_classifier,
    torchvision_models,
)
from lib.prepare.download import download, sha256_of
from lib.prepare.parallel import compute_table

BATCH = 64  # images in one call of the network


@dataclass(frozen=True)
class Teacher:
    """An image classifier, its input, and its provenance as plain JSON: name and weights."""

    network: nn.Module
    spec: InputSpec
    made_with: dict

    @torch.inference_mode()
    def probabilities(self, images: np.ndarray, device: torch.device | str) -> np.ndarray:
        """Classify images (B, S, S, 3), uint8; return probabilities (B, 1000), float32."""
        batch = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float()
        spec = self.spec
        mean, std = (torch.tensor(v, device=device).view(3, 1, 1) for v in (spec.mean, spec.std))
        logits: Tensor = self.network((batch - mean) / std)
        if logits.shape[1] != NUM_CLASSES:
            raise ValueError(
                f"teacher_model: {self.made_with['model']} has {logits.shape[1]} classes, not "
                f"ImageNet's {NUM_CLASSES}; choose another model"
            )
        return logits.softmax(dim=1).cpu().numpy()


def load_teacher(model: str, weights: Path) -> Teacher:
    """Load an image classifier by name: `efficientnet_lite0`, one of torchvision, or `timm/<name>`.

    ValueError if there is no such classifier, or the weights cannot be read or do not fit.
    """
    _check_classifier(model)
    network = build_classifier(model)
    try:
        load_classifier(network, Path(weights), model)
    except (ValueError, FileNotFoundError) as error:
        raise ValueError(f"teacher_{error}") from error
    return Teacher(network, classifier_spec(model), teacher_made_with(model, weights))


def teacher_made_with(model: str, weights: Path) -> dict:
    """Return the provenance of a classifier, as plain JSON."""
    return {"model": model, "weights_sha256": sha256_of(weights)}


def _check_classifier(model: str) -> None:
    if not is_image_network(model):
        raise ValueError(
            f"teacher_model: there is no image classifier {model!r}; choose timm/<name> or one of "
            f"{', '.join(image_network_names())}"
        )


def published_weights(model: str, folder: Path, allowed: bool) -> Path:
    """Return the file of a classifier's published ImageNet weights, in `folder` if downloaded.

    ValueError if there is no such classifier, or the file is damaged, or missing and not `allowed`
    to be downloaded; the message has its address and path.
    """
    _check_classifier(model)
    if model == LITE0:
        return lite0_weights()
    if model.startswith("timm/"):
        raise ValueError(f"teacher_weights: not set; give the file of {model}'s ImageNet weights")
    url = torchvision_models().get_model_weights(model.removeprefix("torchvision/")).DEFAULT.url
    digits = re.search(r"-([0-9a-f]{8})\.", url)  # the beginning of the SHA-256
    return download(url, folder / Path(url).name, digits and digits[1], allowed)


def images_of_video(record: VideoRecord, stride: int, resize: int, crop: int) -> np.ndarray:
    """Return every `stride`-th frame, scaled to a short side and cropped: (n, crop, crop, 3)."""
    from torchvision.transforms import functional  # late, because it takes seconds

    images = []
    for frame in iterate_frames(record, np.arange(0, record.num_frames, stride)):
        image = functional.center_crop(functional.resize(Image.fromarray(frame), resize), crop)
        images.append(np.asarray(image))
    return np.stack(images)


def score_frames(
    dataset: VideoDataset, teacher: Teacher, stride: int = 4, num_processes: int = 0
) -> Path:
    """Classify every `stride`-th frame of all videos; return the path of `teacher.safetensors`.

    A call after an interrupted one continues. The network is on a GPU if there is one, and
    `num_processes` decode, 0 for one per core. ValueError if a video cannot be read, or the network
    does not have ImageNet's classes.
    """
    made_with = {**teacher.made_with, "stride": stride}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    teacher.network.eval().to(device)

    def score(images: np.ndarray) -> FrameRows:
        parts = np.array_split(images, -(-len(images) // BATCH))
        rows = np.concatenate([teacher.probabilities(part, device) for part in parts])
        return FrameRows(rows, np.arange(len(rows), dtype=np.int32) * stride)

    size = {"resize": teacher.spec.short_side, "crop": teacher.spec.crop_size}
    read = partial(images_of_video, stride=stride, **size)
    return compute_table(
        dataset, TeacherScores, read, made_with, "ImageNet classes", num_processes, finish=score
    )
