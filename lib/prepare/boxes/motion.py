"""The moving part of a video, found without any network.

For footage in which a person detector fails: a still camera, people that are small, drawn or seen
from an odd side. Whatever differs from the median frame counts as moving, so a moving camera makes
the whole frame move.
"""

from collections.abc import Iterable

import numpy as np

BLOCK = 4  # side of the blocks of pixels that are compared, pixels
MIN_DIFFERENCE = 18.0  # of a block's mean from its median over time, in any channel, 0..255
MIN_AREA = 0.003  # share of the frame that must move for a box
TAIL = 0.02  # share of the moving blocks left outside at each side, as specks
MEDIAN_FRAMES = 48  # frames that the median is taken over, at most


def moving_boxes(frames: Iterable[np.ndarray]) -> list[np.ndarray]:
    """Find the region that differs from the median frame.

    Args:
        frames: RGB frames of one video, in order, shape (H, W, 3), uint8; none is kept.

    Returns:
        For each frame an array (n, 5), float32, n = 0 or 1: x1, y1, x2, y2 in pixels, and a score
        in [0.5, 1], higher where the moving blocks fill more of the box.
    """
    averaged = []
    for frame in frames:
        height, width = frame.shape[:2]
        averaged.append(_block_means(frame))
    blocks = np.stack(averaged)
    picked = np.linspace(0, len(blocks) - 1, min(len(blocks), MEDIAN_FRAMES)).round().astype(int)
    still = np.median(blocks[picked], axis=0)
    moving = np.abs(blocks - still).max(axis=3) > MIN_DIFFERENCE
    scale = np.array([width / moving.shape[2], height / moving.shape[1]] * 2)
    return [_box(one, scale) for one in moving]


def _block_means(frame: np.ndarray) -> np.ndarray:
    """Average blocks of pixels: (H, W, 3) uint8 -> (H', W', 3) float32."""
    height, width = frame.shape[:2]
    side = min(BLOCK, height, width)
    rows, columns = height // side, width // side
    cut = frame[: rows * side, : columns * side]
    return cut.reshape(rows, side, columns, side, 3).mean(axis=(1, 3), dtype=np.float32)


def _box(moving: np.ndarray, scale: np.ndarray) -> np.ndarray:
    y, x = np.nonzero(moving)
    if len(x) < max(1, MIN_AREA * moving.size):
        return np.zeros((0, 5), dtype=np.float32)
    x1, x2 = np.quantile(x, [TAIL, 1 - TAIL])
    y1, y2 = np.quantile(y, [TAIL, 1 - TAIL])
    box = np.array([np.floor(x1), np.floor(y1), np.ceil(x2) + 1, np.ceil(y2) + 1])
    filled = len(x) / np.prod(box[2:] - box[:2])
    return np.array([[*(box * scale), 0.5 + 0.5 * min(1.0, filled)]], dtype=np.float32)
