"""Weak, strong and test views of a clip, and person masks.

The parameters of a view are drawn once, then applied to frames and boxes alike. A frame is decoded,
cropped and resized once: the weak view's crop is drawn in the coordinates of the frame scaled to
`short_side` and mapped back to whole pixels of the decoded frame; boxes follow the same map and
the mask is painted at the final size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lib.augment.randaugment import OperationParams, RandAugment
from lib.augment.temporal import TemporalAugment, TemporalParams


def boxes_to_mask(boxes: Sequence[np.ndarray | Tensor], height: int, width: int) -> Tensor:
    """Paint the boxes of each frame into a mask.

    Boxes are x1 y1 x2 y2 in pixels, shape (N_t, 4) for each frame; N_t may be 0. Coordinates are
    cut to the frame and lose their fraction; the right and lower edges lie outside the box, so that
    (1.9, 0, 3.9, 1) covers columns 1 and 2 of row 0.

    Returns:
        Mask, shape (T, 1, H, W), uint8: 1 in a box, 0 elsewhere.

    Source: Zou et al., ActorCutMix; the reference's `BuildHumanMask`, which also makes the mask
    of a clip without any box all ones. Ours leaves that to the caller.
    """
    mask = np.zeros((len(boxes), 1, height, width), dtype=np.uint8)
    for frame, frame_boxes in enumerate(boxes):
        corners = np.asarray(frame_boxes, dtype=np.float64).tolist()
        for x1, y1, x2, y2 in corners:  # lists are faster than arrays of so few
            left, right = (int(min(max(x, 0), width)) for x in (x1, x2))
            top, bottom = (int(min(max(y, 0), height)) for y in (y1, y2))
            mask[frame, 0, top:bottom, left:right] = 1
    return torch.from_numpy(mask)


ASPECT_RANGE = (3 / 4, 4 / 3)


def resized_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Return (height, width) after scaling the short side to `short_side`, rounded half up."""
    scale = short_side / min(height, width)
    return int(height * scale + 0.5), int(width * scale + 0.5)


def eval_crops(
    height: int, width: int, crop_size: int, num_crops: int
) -> list[tuple[int, int, int, int]]:
    """Return the boxes x1 y1 x2 y2, half-open, of the evaluation crops of a resized frame, pixels.

    `crop_size` is at most the short side of the frame. `num_crops` is 1 for the center crop or 3
    for both ends of the longer side, then the middle.

    Source: Zou et al., section 4.1 (3 crops of 256, 10 clips).
    """
    x, y = (width - crop_size) // 2, (height - crop_size) // 2
    corners = [(x, y)]
    if num_crops == 3:
        ends = [(0, y), (2 * x, y)] if width >= height else [(x, 0), (x, 2 * y)]
        corners = [*ends, (x, y)]
    return [(left, top, left + crop_size, top + crop_size) for left, top in corners]


def resize(clip: Tensor, height: int, width: int) -> Tensor:
    """Resize a uint8 clip (T, C, H, W) bilinearly, without antialiasing, as the reference does."""
    if clip.shape[-2:] == (height, width):
        return clip
    return F.interpolate(clip, (height, width), mode="bilinear", align_corners=False)


class WeakParams(NamedTuple):
    """A drawn weak view: the crop in pixels of the decoded frame, half-open, and the flip."""

    left: int
    top: int
    right: int
    bottom: int
    is_flipped: bool


@dataclass(frozen=True)
class WeakTransform:
    """Random resized crop and horizontal flip.

    Args:
        short_side: Short side of the frame in whose coordinates the crop is drawn, pixels.
        crop_size: Side of the result, pixels.
        crop_area_min: Smallest area of the crop, share of the frame; the largest is 1.
        flip_p: Probability of the flip.

    Source: Zou et al., section 4.1.
    """

    short_side: int = 256
    crop_size: int = 224
    crop_area_min: float = 0.08
    flip_p: float = 0.5

    def draw(self, height: int, width: int, generator: torch.Generator) -> WeakParams:
        """Draw the parameters for frames of this size."""
        frame_height, frame_width = resized_size(height, width, self.short_side)
        box = _draw_crop(frame_height, frame_width, self.crop_area_min, generator)
        is_flipped = bool(torch.rand((), generator=generator) < self.flip_p)
        left, right = _whole_pixels(box[0], box[2], width / frame_width, width)
        top, bottom = _whole_pixels(box[1], box[3], height / frame_height, height)
        return WeakParams(left, top, right, bottom, is_flipped)

    def apply(self, frames: np.ndarray, params: WeakParams) -> Tensor:
        """Crop, resize and flip frames (T, H, W, 3), uint8.

        Returns:
            The view, shape (T, 3, crop, crop), uint8, contiguous: resizing leaves the channels
            last, and each operation on the view would have to lay it out again.
        """
        cropped = frames[:, params.top : params.bottom, params.left : params.right]
        clip = resize(torch.from_numpy(cropped).permute(0, 3, 1, 2), self.crop_size, self.crop_size)
        flipped = clip.numpy()[..., :: -1 if params.is_flipped else 1]
        return torch.from_numpy(np.ascontiguousarray(flipped))  # twice as fast as torch's copy

    def mask(self, boxes: Sequence[np.ndarray], params: WeakParams) -> Tensor:
        """Paint the person boxes of the clip at the size of the view.

        `boxes` has an array (n, 4) for each frame, x1 y1 x2 y2 in pixels of the decoded frame.

        Returns:
            1 on people, shape (T, 1, crop_size, crop_size), uint8; all ones if the whole clip has
            no box, so that no actor is mistaken for background.
        """
        if not any(len(frame) for frame in boxes):
            return torch.ones((len(boxes), 1, self.crop_size, self.crop_size), dtype=torch.uint8)
        origin = np.array([params.left, params.top] * 2)
        scale = self.crop_size / (np.array([params.right, params.bottom] * 2) - origin)
        moved = [(frame - origin) * scale for frame in boxes]
        mask = boxes_to_mask(moved, self.crop_size, self.crop_size)
        return mask.flip(-1) if params.is_flipped else mask


def _draw_crop(
    height: int, width: int, area_min: float, generator: torch.Generator
) -> tuple[int, int, int, int]:
    """Draw x1 y1 x2 y2: area U(area_min, 1), aspect log-uniform; after ten tries the center."""
    low, high = np.log(ASPECT_RANGE)
    for _ in range(10):
        area, aspect, x, y = torch.rand(4, generator=generator).tolist()
        area = (area_min + area * (1 - area_min)) * height * width
        aspect = np.exp(low + aspect * (high - low))
        crop_width, crop_height = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
        if 0 < crop_width <= width and 0 < crop_height <= height:
            left, top = int(x * (width - crop_width + 1)), int(y * (height - crop_height + 1))
            return left, top, left + crop_width, top + crop_height
    side = min(height, width)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def _whole_pixels(start: int, stop: int, scale: float, limit: int) -> tuple[int, int]:
    """Map an interval to whole pixels in [0, limit], at least one."""
    first = min(round(start * scale), limit - 1)
    return first, max(first + 1, min(round(stop * scale), limit))


class StrongParams(NamedTuple):
    """A drawn strong view: RandAugment's operations and the temporal one."""

    operations: list[OperationParams]
    temporal: TemporalParams


@dataclass(frozen=True)
class StrongTransform:
    """RandAugment, then the temporal operation, on a weak view."""

    randaugment: RandAugment
    temporal: TemporalAugment

    def draw(
        self, clip_len: int, height: int, width: int, generator: torch.Generator
    ) -> StrongParams:
        """Draw both parts for a clip of this size."""
        operations = self.randaugment.draw(height, width, generator)
        return StrongParams(operations, self.temporal.draw(clip_len, generator))

    @staticmethod
    def apply(clip: Tensor, params: StrongParams) -> Tensor:
        """Return the strong view of a weak view (T, 3, H, W), uint8."""
        return TemporalAugment.apply(RandAugment.apply(clip, params.operations), params.temporal)


@dataclass(frozen=True)
class EvalTransform:
    """Resize the short side, then one or three crops.

    Args:
        short_side: Short side of the resized frame, pixels.
        crop_size: Side of the crops, pixels.
        num_crops: 1 or 3.
    """

    short_side: int = 256
    crop_size: int = 256
    num_crops: int = 3

    def __call__(self, frames: np.ndarray) -> Tensor:
        """Return the crops (num_crops, T, 3, crop, crop) of frames (T, H, W, 3), uint8."""
        return self.views(self.resize(frames), np.arange(len(frames))[None])

    def resize(self, frames: np.ndarray) -> Tensor:
        """Return frames (N, H, W, 3), uint8, as contiguous (N, 3, h, w), short side scaled."""
        size = resized_size(*frames.shape[1:3], self.short_side)
        resized = resize(torch.from_numpy(frames).permute(0, 3, 1, 2), *size)
        return torch.from_numpy(np.ascontiguousarray(resized.numpy()))  # faster than torch's copy

    def views(self, resized: Tensor, clips: np.ndarray) -> Tensor:
        """Return the crops of several clips: positions (clips, T) in resized frames (N, 3, h, w).

        Returns:
            Shape (clips · num_crops, T, 3, crop, crop), on the device of the frames; the crops of
            a clip are neighbors.
        """
        boxes = eval_crops(*resized.shape[2:], self.crop_size, self.num_crops)
        shape = (len(clips), len(boxes), clips.shape[1], 3, self.crop_size, self.crop_size)
        views = torch.empty(shape, dtype=resized.dtype, device=resized.device)
        source, target = resized, views
        if not resized.is_cuda:  # NumPy copies three to six times as fast
            source, target = resized.numpy(), views.numpy()
        for clip, positions in enumerate(clips.tolist()):
            for crop, (x1, y1, x2, y2) in enumerate(boxes):
                for time, position in enumerate(positions):
                    target[clip, crop, time] = source[position, :, y1:y2, x1:x2]
        return views.flatten(0, 1)
