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
        columns: Labels of the columns; None for their numbers.
    """
    count = min(frames, min(len(clip) for clip in clips.values()))
    heights = np.cumsum([0.0, *(clip.shape[-2] / clip.shape[-1] for clip in clips.values())])
    figure, axes = plt.subplots(
        figsize=(1.15 * count + 1.4, 1.15 * heights[-1] + 0.6), layout="constrained"
    )
    for clip, (top, bottom) in zip(clips.values(), pairwise(heights), strict=True):
        shown = np.linspace(0, len(clip) - 1, count).round().astype(int)
        for left, index in enumerate(shown):
            image = clip[int(index)].permute(1, 2, 0).numpy()
            extent = (left + GAP, left + 1 - GAP, bottom - GAP, top + GAP)
            if image.shape[-1] == 1:
                axes.imshow(image[..., 0], cmap="gray", vmin=0, vmax=1, extent=extent)
            else:
                axes.imshow(image, extent=extent)
    axes.set(xlim=(0, count), ylim=(heights[-1], 0), xlabel=xlabel)
    axes.set_xticks(np.arange(count) + 0.5, columns or range(count))
    axes.set_yticks((heights[:-1] + heights[1:]) / 2, list(clips))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    figure.suptitle(title)
    return figure


def with_boxes(frames: np.ndarray, boxes: Sequence[np.ndarray] | None) -> Tensor:
    """Return frames (T, H, W, 3), uint8, as a clip (T, 3, H, W) with boxes drawn in.

    Args:
        frames: Frames of a video; not modified.
        boxes: For each frame an array (n, 4), x1 y1 x2 y2 in pixels; None for no boxes.
    """
    clip = torch.from_numpy(frames).permute(0, 3, 1, 2)
    if boxes is None or not any(map(len, boxes)):
        return clip
    line = max(1, round(min(clip.shape[-2:]) / 100))
    return torch.stack(
        [
            draw_bounding_boxes(frame, torch.from_numpy(corners), colors=BOX, width=line)
            if len(corners)
            else frame
            for frame, corners in zip(clip, boxes, strict=True)
        ]
    )
