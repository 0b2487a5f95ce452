"""Operations that move a clip's pixels: nearest neighbor, `fill` where the source lies outside.

A mask follows its clip through them by the same call with `fill=0`. `operations.py` says what all
operations have in common.
"""

import math
from collections.abc import Sequence
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from lib.augment.checks import checked, in_range

Fill = int | Sequence[int]  # one value for all channels, or one per channel


def rotate(clip: Tensor, degrees: float, fill: Fill) -> Tensor:
    """Rotate each frame about its center.

    Args:
        clip: Frames, shape (T, C, H, W), uint8.
        degrees: Angle; positive turns the picture counter-clockwise.
        fill: Value outside the picture in [0, 255], one or one per channel.

    Source: FixMatch, Rotate; `PIL.Image.Image.rotate`.
    """
    height, width = checked(clip).shape[-2:]
    angle = -math.radians(degrees % 360.0)
    cos, sin = round(math.cos(angle), 15), round(math.sin(angle), 15)
    x0 = width / 2 + (-cos * width / 2 - sin * height / 2)
    y0 = height / 2 + (sin * width / 2 - cos * height / 2)
    return _affine(clip, (cos, sin, x0, -sin, cos, y0), fill)


def shear_x(clip: Tensor, shear: float, fill: Fill) -> Tensor:
    """Shift each row to the left in proportion to its distance from the top.

    Args:
        clip: Frames, shape (T, C, H, W), uint8.
        shear: Pixels per row, in [-1, 1]; negative shifts to the right.
        fill: Value outside the picture in [0, 255], one or one per channel.

    Source: FixMatch, ShearX; Pillow's affine `transform`.
    """
    step, first = _fixed_point(in_range("shear", shear, -1, 1)), _fixed_point(0.5 + shear * 0.5)
    sheared, height = _filled(clip, fill), clip.shape[-2]
    shifts = [(row * step + first) >> 16 for row in range(height)]
    for _, group in groupby(range(height), shifts.__getitem__):
        rows = list(group)  # they all move by the same distance
        block = (..., slice(rows[0], rows[-1] + 1), slice(None))
        _copy_shifted(sheared[block], clip[block], shifts[rows[0]], 0)
    return sheared


def shear_y(clip: Tensor, shear: float, fill: Fill) -> Tensor:
    """Shift each column upwards in proportion to its distance from the left.

    Args:
        clip: Frames, shape (T, C, H, W), uint8.
        shear: Pixels per column, in [-1, 1]; negative shifts downwards.
        fill: Value outside the picture in [0, 255], one or one per channel.

    Source: FixMatch, ShearY; Pillow's affine `transform`.
    """
    return _affine(clip, (1, 0, 0, in_range("shear", shear, -1, 1), 1, 0), fill)


def translate_x(clip: Tensor, pixels: float, fill: Fill) -> Tensor:
    """Shift each frame to the left.

    Args:
        clip: Frames, shape (T, C, H, W), uint8.
        pixels: Distance, rounded to whole pixels; negative shifts to the right.
        fill: Value outside the picture in [0, 255], one or one per channel.

    Source: FixMatch, TranslateX; Pillow's affine `transform`.
    """
    return _copy_shifted(_filled(clip, fill), clip, _fixed_point(pixels + 0.5) >> 16, 0)


def translate_y(clip: Tensor, pixels: float, fill: Fill) -> Tensor:
    """Shift each frame upwards.

    Args:
        clip: Frames, shape (T, C, H, W), uint8.
        pixels: Distance, rounded to whole pixels; negative shifts downwards.
        fill: Value outside the picture in [0, 255], one or one per channel.

    Source: FixMatch, TranslateY; Pillow's affine `transform`.
    """
    return _copy_shifted(_filled(clip, fill), clip, 0, _fixed_point(pixels + 0.5) >> 16)


def cutout(clip: Tensor, size_px: float, center_xy: tuple[float, float], fill: Fill) -> Tensor:
    """Paint the same square on each frame.

    Args:
        clip: Frames, shape (T, C, H, W), uint8.
        size_px: Side of the square, at least 0. Both its edges are painted, so it covers about
            `size_px` + 1 pixels, and 0 still paints one.
        center_xy: Center (x, y) in pixels. A square that would begin left of or above the frame
            begins at the border; one that would end outside is cut off there.
        fill: Value of the square in [0, 255], one or one per channel.

    Source: FixMatch, Cutout; the reference's `CutoutAbs`, drawn as by `PIL.ImageDraw`.
    """
    painted = checked(clip).clone()
    height, width = clip.shape[-2:]
    in_range("size_px", size_px, 0, math.inf)
    left, top = (int(max(0, center - size_px / 2)) for center in center_xy)
    right, bottom = int(min(width, left + size_px)), int(min(height, top + size_px))
    painted[..., top : bottom + 1, left : right + 1] = _fill_values(fill, clip)
    return painted


def _fill_values(fill: Fill, clip: Tensor) -> Tensor:
    """Return the fill as uint8 on the clip's device, shape (C or 1, 1, 1)."""
    values, channels = np.array(fill).reshape(-1), clip.shape[1]
    fits = len(values) in (1, channels) and values.dtype.kind in "iu"
    if not fits or values.min() < 0 or values.max() > 255:
        raise ValueError(f"fill must be 1 or {channels} whole numbers in [0, 255], not {fill!r}")
    return torch.from_numpy(values.astype(np.uint8)).view(-1, 1, 1).to(clip.device)


def _fixed_point(value: float) -> int:
    """Return a coordinate in 1/65536 pixel, the unit of Pillow's affine sampling."""
    return math.floor(value * 65536 + 0.5)


def _affine(clip: Tensor, matrix: Sequence[float], fill: Fill) -> Tensor:
    """Let each pixel center (x, y) show (a x + b y + c, d x + e y + f)."""
    height, width = checked(clip).shape[-2:]
    planes = clip.reshape(-1, height * width)
    a, b, c, d, e, f = matrix
    c, f = c + a * 0.5 + b * 0.5, f + d * 0.5 + e * 0.5
    a, b, c, d, e, f = map(_fixed_point, (a, b, c, d, e, f))
    column = torch.arange(
        width, dtype=torch.int32, device=clip.device
    )  # holds coordinates up to 32767 pixels
    row = torch.arange(height, dtype=torch.int32, device=clip.device).view(-1, 1)
    x, y = (column * a + (row * b + c)) >> 16, (column * d + (row * e + f)) >> 16
    x_inside, y_inside = x.clamp(0, width - 1), y.clamp(0, height - 1)
    is_inside = ((x == x_inside) & (y == y_inside)).byte()
    source = y_inside.mul_(width).add_(x_inside).view(1, -1).long()
    warped = planes.gather(1, source.expand(len(planes), -1)).view(clip.shape)
    return warped.mul_(is_inside).add_((1 - is_inside) * _fill_values(fill, clip))


def _filled(clip: Tensor, fill: Fill) -> Tensor:
    """Return a clip of the same shape that shows nothing but the fill."""
    return _fill_values(fill, checked(clip)).expand(clip.shape).contiguous()


def _copy_shifted(target: Tensor, source: Tensor, x: int, y: int) -> Tensor:
    """Let pixel (i, j) of the target show pixel (i + x, j + y) of the source, if there is one."""
    height, width = source.shape[-2:]
    x, y = max(-width, min(x, width)), max(-height, min(y, height))
    shown = target[..., max(0, -y) : height - max(0, y), max(0, -x) : width - max(0, x)]
    shown.copy_(source[..., max(0, y) : height + min(0, y), max(0, x) : width + min(0, x)])
    return target
