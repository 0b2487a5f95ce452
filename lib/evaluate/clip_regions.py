"""Center clips with their person masks, and predictions on the actor or the background alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lib.augment.views import EvalTransform, boxes_to_mask, eval_crops, resized_size
from lib.config import ClipSettings
from lib.data.clip_sampling import uniform_clip_indices
from lib.data.dataset import VideoDataset
from lib.data.frame_tables import open_person_boxes
from lib.data.video_reader import FrameReader
from lib.evaluate.trained_model import TrainedModel

CLIP_REGIONS = ("whole clip", "actor only", "background only")


class CenterClips:
    """The center clip of a video and its person mask, as in validation; deterministic."""

    def __init__(self, dataset: VideoDataset, settings: ClipSettings):
        self.dataset, self.settings = dataset, settings
        self.transform = EvalTransform(settings.short_side, settings.crop_size, 1)
        self.reader = FrameReader()
        self.boxes = open_person_boxes(dataset)

    def __call__(self, row: int) -> tuple[Tensor, Tensor | None]:
        """Return the clip (T, 3, H, W), uint8, and the mask (T, 1, H, W), None without boxes."""
        record, s = self.dataset.record(row), self.settings
        indices = uniform_clip_indices(record.num_frames, s.clip_len, s.frame_interval, 1)[0]
        clip = self.transform(self.reader.read(record, indices))[0]
        if self.boxes is None:
            return clip, None
        boxes = self.boxes.lookup(row, indices, s.person_min_score)
        return clip, center_crop_mask(boxes, record.height, record.width, self.transform)


def center_crop_mask(
    boxes: Sequence[np.ndarray], height: int, width: int, transform: EvalTransform
) -> Tensor:
    """Return 1 inside the boxes of frames of height x width: (T, 1, crop, crop), uint8."""
    side = transform.crop_size
    resized_height, resized_width = resized_size(height, width, transform.short_side)
    x, y, *_ = eval_crops(resized_height, resized_width, side, 1)[0]
    scale = np.array([resized_width / width, resized_height / height] * 2)
    moved = [frame * scale - np.array([x, y, x, y]) for frame in boxes]
    return boxes_to_mask(moved, side, side)


def actor_and_background(clips: Tensor, mask: Tensor, fill: Tensor) -> tuple[Tensor, Tensor]:
    """Return the actors alone and the background alone of clips (..., T, 3, H, W).

    The background is covered in all frames at every pixel that an actor visits: a hole that moves
    with the actor would show the action. The mask is 1 on people, (..., T, 1, H, W); `fill` is the
    color of covered pixels.
    """
    ever = mask.amax(dim=-4, keepdim=True).bool()
    return torch.where(mask.bool(), clips, fill), torch.where(ever, fill, clips)


@dataclass(frozen=True)
class ClipRegions:
    """A clip, its actor alone and its background alone, with the predictions, by region."""

    clips: dict[str, Tensor]  # (T, 3, H, W), uint8
    probabilities: dict[str, np.ndarray]  # of the classes, (K,)
    note: str = ""  # the reason why there is only the whole clip


def predict_regions(
    model: TrainedModel, clip: Tensor, mask: Tensor | None = None, note: str = ""
) -> ClipRegions:
    """Predict a clip (T, 3, H, W), uint8, as a whole, its actors and its background alone.

    Without a mask (T, 1, H, W), or with a note, the whole clip only.
    """
    clips = {CLIP_REGIONS[0]: clip}
    if mask is not None and not note:
        fill = model.normalize.mean.round().to("cpu", torch.uint8)
        clips |= zip(CLIP_REGIONS[1:], actor_and_background(clip, mask, fill), strict=True)
    logits = model.view_logits(torch.stack(list(clips.values())))
    probabilities = model.probabilities(logits[:, None]).numpy()
    return ClipRegions(clips, dict(zip(clips, probabilities, strict=True)), note)


def boxes_note(mask: Tensor | None) -> str:
    """Return the reason why a mask of person boxes leaves no actor or no background, or ""."""
    if mask is None:
        return "no person boxes: notebook 1 creates them"
    if not mask.any():
        return "no person was found in this clip"
    return "the boxes cover the whole clip" if mask.all() else ""
