"""Person masks from person boxes."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def boxes_to_mask(boxes: Sequence[np.ndarray | Tensor], height: int, width: int) -> Tensor:
    """Paint the boxes of each frame into a mask.

    Coordinates are cut to the frame and lose their fraction; the right and lower edges lie
    outside the box, so that (1.9, 0, 3.9, 1) covers columns 1 and 2 of row 0.

    Args:
        boxes: For each frame x1 y1 x2 y2 in pixels, shape (N_t, 4); N_t may be 0.
        height: Height of the frames in pixels.
        width: Width of the frames in pixels.

    Returns:
        Mask, shape (T, 1, H, W), uint8: 1 in a box, 0 elsewhere.

    Raises:
        ValueError: If a frame's boxes are not (N_t, 4) or hold NaN.

    Source: Zou et al., ActorCutMix; the reference's `BuildHumanMask`, which also makes the mask
    of a clip without any box all ones. Ours leaves that to the caller.
    """
    mask = np.zeros((len(boxes), 1, height, width), dtype=np.uint8)
    for frame, frame_boxes in enumerate(boxes):
        corners = np.asarray(frame_boxes, dtype=np.float64)
        if corners.size and (corners.shape[1:] != (4,) or np.isnan(corners).any()):
            raise ValueError(
                f"boxes of frame {frame} must be (N, 4) numbers, x1 y1 x2 y2 without a score, "
                f"not of shape {corners.shape} or NaN"
            )
        for x1, y1, x2, y2 in corners.reshape(-1, 4).tolist():  # faster than arrays of so few
            left, right = (int(min(max(x, 0), width)) for x in (x1, x2))
            top, bottom = (int(min(max(y, 0), height)) for y in (y1, y2))
            mask[frame, 0, top:bottom, left:right] = 1
    return torch.from_numpy(mask)
