"""Clips as rows of frames."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torchvision.utils import draw_bounding_boxes

from lib.plots.style import BOX, styled

GAP = 0.03  # around a frame, fraction of its width


@styled
def clip_rows(
    clips: Mapping[str, Tensor],
    title: str,
    frames: int = 8,
    xlabel: str = "frame of the clip",
    columns: Sequence[object] | None = None,
) -> Figure:
    """Show clips as rows of frames.

    Args:
        clips: Row label -> clip (T, 3, H, W) or mask (T, 1, H, W), uint8; masks are 0 or 1.
        title: Title of the figure.
        frames: Maximum number of frames of a clip, evenly spaced.
        xlabel: Name of the columns.
        columns: Label of each frame, length T, such as its number in the video; None for its number
            in the first clip.
    """
    length = min(map(len, clips.values()))
    count = min(frames, length)
    heights = np.cumsum([0.0, *(clip.shape[-2] / clip.shape[-1] for clip in clips.values())])
    size = (1.15 * count + 1.4, 1.15 * heights[-1] + 0.6)
    figure, axes = plt.subplots(figsize=size, layout="constrained")
    for clip, (top, bottom) in zip(clips.values(), pairwise(heights), strict=True):
        for left, index in enumerate(_evenly(len(clip), count)):
            image = clip[index].permute(1, 2, 0).numpy()
            extent = (left + GAP, left + 1 - GAP, bottom - GAP, top + GAP)
            colors = {"cmap": "gray", "vmin": 0, "vmax": 1}  # of masks
            axes.imshow(image, extent=extent, **colors if image.shape[-1] == 1 else {})
    labels = columns or range(length)
    axes.set(xlim=(0, count), ylim=(heights[-1], 0), xlabel=xlabel)
    axes.set_xticks(np.arange(count) + 0.5, [labels[k] for k in _evenly(len(labels), count)])
    axes.set_yticks((heights[:-1] + heights[1:]) / 2, list(clips))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    figure.suptitle(title)
    return figure


def _evenly(length: int, count: int) -> list[int]:
    return np.linspace(0, length - 1, count).round().astype(int).tolist()


def with_boxes(frames: np.ndarray, boxes: Sequence[np.ndarray] | None) -> Tensor:
    """Return frames (T, H, W, 3), uint8, as a clip (T, 3, H, W) with boxes drawn in.

    Boxes are one array (n, 4) per frame, x1 y1 x2 y2 in pixels; None for no boxes.
    """
    clip = torch.from_numpy(frames).permute(0, 3, 1, 2)
    if boxes is None:
        return clip
    width, drawn = max(1, round(min(clip.shape[-2:]) / 100)), clip.clone()
    for index, corners in enumerate(boxes):
        if len(corners):
            corners = torch.from_numpy(corners)
            drawn[index] = draw_bounding_boxes(clip[index], corners, colors=BOX, width=width)
    return drawn
