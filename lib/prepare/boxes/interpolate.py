"""Interpolation of the boxes of every k-th frame to all frames."""

from collections.abc import Sequence

import numpy as np

from lib.data.frame_tables import FrameRows

# Boxes of neighboring key frames with a lower generalized IoU are of different people: 1 for equal
# boxes, 0 for boxes that touch, -1/3 for two boxes of one size with a gap of one width.
MIN_GIOU = -0.4


def key_frames(num_frames: int, stride: int) -> np.ndarray:
    """Return every `stride`-th frame and the last one, int64."""
    return np.unique(np.r_[np.arange(0, num_frames, stride), num_frames - 1])


def interpolate_boxes(keys: np.ndarray, boxes: Sequence[np.ndarray]) -> FrameRows:
    """Interpolate boxes (n, 5) of each key frame, x1, y1, x2, y2, score, to all frames.

    The boxes of two neighboring key frames are matched, best overlap first. Matched boxes are
    interpolated linearly; a box without a match is repeated up to half of the distance. The keys
    (K,) ascend from 0 to the last frame.
    """
    frames, rows = [np.full(len(boxes[0]), keys[0])], [boxes[0]]
    for start, stop, first, second in zip(keys[:-1], keys[1:], boxes[:-1], boxes[1:], strict=True):
        pairs = match_boxes(first, second)
        unmatched_first = np.delete(first, pairs[:, 0], axis=0)
        unmatched_second = np.delete(second, pairs[:, 1], axis=0)
        for frame in range(start + 1, stop):
            share = (frame - start) / (stop - start)
            between = (1 - share) * first[pairs[:, 0]] + share * second[pairs[:, 1]]
            unmatched = unmatched_first if share < 0.5 else unmatched_second
            rows += [between, unmatched]
            frames.append(np.full(len(between) + len(unmatched), frame))
        rows.append(second)
        frames.append(np.full(len(second), stop))
    return FrameRows(
        np.concatenate([np.zeros((0, 5)), *rows]).astype(np.float32),
        np.concatenate(frames).astype(np.int32),
    )


def match_boxes(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Match the boxes of two frames greedily, best first; return positions (pairs, 2), int64.

    The measure is the generalized IoU (Rezatofighi et al., CVPR 2019), which also matches a person
    who has left the old box.
    """
    import torch  # in the worker processes, because both take seconds
    from torchvision.ops import generalized_box_iou

    corners = (torch.from_numpy(boxes[:, :4]) for boxes in (first, second))
    closeness = generalized_box_iou(*corners).nan_to_num(nan=-1).numpy()  # NaN: without area
    pairs = []
    while closeness.size and closeness.max() > MIN_GIOU:
        i, j = np.unravel_index(closeness.argmax(), closeness.shape)
        pairs.append((i, j))
        closeness[i], closeness[:, j] = -1, -1
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)
