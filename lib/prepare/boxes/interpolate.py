"""Boxes of every frame from boxes of every k-th frame."""

from collections.abc import Sequence

import numpy as np

from lib.data.frame_tables import FrameRows
from lib.prepare.boxes.yolox import iou_matrix

# Boxes of neighbouring key frames whose generalised IoU is lower are different people: 1 for equal
# boxes, 0 for neighbours that touch, -1/3 with a gap of one width between two boxes of one size.
MIN_GIOU = -0.4


def key_frames(num_frames: int, stride: int) -> np.ndarray:
    """Return every `stride`-th frame and the last one, int64."""
    return np.unique(np.r_[np.arange(0, num_frames, stride), num_frames - 1])


def fill_frames(keys: np.ndarray, boxes: Sequence[np.ndarray]) -> FrameRows:
    """Give the frames between key frames their boxes.

    The boxes of two neighbouring key frames are matched, best overlap first. A matched pair moves
    linearly from one to the other; a box without a partner stays where it is for half of the way.

    Args:
        keys: Key frames, ascending, from 0 to the last frame, shape (K,).
        boxes: For each of them an array (n, 5): x1, y1, x2, y2, score.

    Returns:
        The boxes of all frames, rows (N, 5), float32.
    """
    frames, rows = [np.full(len(boxes[0]), keys[0])], [boxes[0]]
    for start, stop, first, second in zip(keys[:-1], keys[1:], boxes[:-1], boxes[1:], strict=True):
        pairs = match_boxes(first, second)
        alone_first = np.setdiff1d(np.arange(len(first)), pairs[:, 0])
        alone_second = np.setdiff1d(np.arange(len(second)), pairs[:, 1])
        for frame in range(start + 1, stop):
            share = (frame - start) / (stop - start)
            between = (1 - share) * first[pairs[:, 0]] + share * second[pairs[:, 1]]
            stays = first[alone_first] if share < 0.5 else second[alone_second]
            rows += [between, stays]
            frames.append(np.full(len(between) + len(stays), frame))
        rows.append(second)
        frames.append(np.full(len(second), stop))
    return FrameRows(
        np.concatenate([np.zeros((0, 5)), *rows]).astype(np.float32),
        np.concatenate(frames).astype(np.int32),
    )


def match_boxes(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Match the boxes of two frames greedily, best first; return positions (pairs, 2), int64.

    The measure is the generalised IoU, so that someone who has left the old box is still found.
    """
    closeness = giou_matrix(first, second)
    pairs = []
    while closeness.size and closeness.max() > MIN_GIOU:
        i, j = np.unravel_index(closeness.argmax(), closeness.shape)
        pairs.append((i, j))
        closeness[i], closeness[:, j] = -1, -1
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def giou_matrix(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the generalised IoU, in (-1, 1], of boxes (n, 4+) and (m, 4+), shape (n, m).

    IoU minus the share of the smallest box around both that neither covers.

    Source: Rezatofighi et al., Generalized Intersection over Union, CVPR 2019.
    """
    iou = iou_matrix(first, second)
    low = np.minimum(first[:, None, :2], second[None, :, :2])
    high = np.maximum(first[:, None, 2:4], second[None, :, 2:4])
    hull = np.prod(high - low, axis=2).clip(min=1e-9)
    area_first = np.prod(first[:, 2:4] - first[:, :2], axis=1)[:, None]
    area_second = np.prod(second[:, 2:4] - second[:, :2], axis=1)[None]
    union = (area_first + area_second) / (1 + iou)
    return iou - (hull - union) / hull
