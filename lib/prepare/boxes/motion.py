"""Boxes of the moving region of a video, without a network.

For footage with a still camera in which a person detector fails: people that are small, drawn, or
seen from an unusual angle. All that differs from the median frame is moving; with a moving camera
this is the whole frame.
"""

from collections.abc import Iterable

import numpy as np

BLOCK = 4  # side of the blocks of pixels that are compared, pixels
MIN_DIFFERENCE = 18.0  # of a block's mean from its median over time, in any channel, 0..255
MIN_AREA = 0.003  # smallest moving share of a frame with a box
TAIL = 0.02  # share of the moving blocks outside of the box at each side, against specks
MEDIAN_FRAMES = 48  # frames of the median, at most


def moving_boxes(frames: Iterable[np.ndarray]) -> list[np.ndarray]:
    """Return a box around the region of each RGB frame (H, W, 3) that differs from the median one.

    Returns:
        For each frame an array (n, 5), float32, n = 0 or 1: x1, y1, x2, y2 in pixels, and a score
        in [0.5, 1], higher if the moving blocks fill more of the box.
    """
    block_means = []
    for frame in frames:
        height, width = frame.shape[:2]
        block_means.append(_block_means(frame))
    blocks = np.stack(block_means)
    sample = np.linspace(0, len(blocks) - 1, min(len(blocks), MEDIAN_FRAMES)).round().astype(int)
    median = np.median(blocks[sample], axis=0)
    moving = np.abs(blocks - median).max(axis=3) > MIN_DIFFERENCE
    scale = np.array([width / moving.shape[2], height / moving.shape[1]] * 2)
    return [_box_around(blocks_of_frame, scale) for blocks_of_frame in moving]


def _block_means(frame: np.ndarray) -> np.ndarray:
    height, width = frame.shape[:2]
    side = min(BLOCK, height, width)
    rows, columns = height // side, width // side
    whole_blocks = frame[: rows * side, : columns * side]
    return whole_blocks.reshape(rows, side, columns, side, 3).mean(axis=(1, 3), dtype=np.float32)


def _box_around(moving: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return the box (n, 5) of the moving blocks (H', W'), bool, scaled to pixels."""
    y, x = np.nonzero(moving)
    if len(x) < max(1, MIN_AREA * moving.size):
        return np.zeros((0, 5), dtype=np.float32)
    x1, x2 = np.quantile(x, [TAIL, 1 - TAIL])
    y1, y2 = np.quantile(y, [TAIL, 1 - TAIL])
    box = np.array([np.floor(x1), np.floor(y1), np.ceil(x2) + 1, np.ceil(y2) + 1])
    filled = len(x) / np.prod(box[2:] - box[:2])
    return np.array([[*(box * scale), 0.5 + 0.5 * min(1.0, filled)]], dtype=np.float32)
