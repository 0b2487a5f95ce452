"""Operations that change a clip's colors and leave everything where it is.

The first four map each value on its own, the next four are blends
trunc(base + factor · (clip − base)). `operations.py` says what all operations have in common.
"""

import math

import torch
from torch import Tensor

from lib.augment.checks import checked, in_range


def identity(clip: Tensor) -> Tensor:
    """Return the clip itself. Source: FixMatch, Identity."""
    return checked(clip)


def autocontrast(clip: Tensor) -> Tensor:
    """Stretch each channel of each frame to span 0 to 255.

    Args:
        clip: Frames, shape (T, C, H, W), uint8. A channel with a single value stays as it is.

    Source: FixMatch, AutoContrast; `PIL.ImageOps.autocontrast`.
    """
    planes = _planes(clip)
    low = planes.amin(1, keepdim=True).double()
    high = planes.amax(1, keepdim=True).double()
    levels = torch.arange(256).double()
    scale = levels[255] / (high - low)  # a Python number / tensor would round twice
    stretched = (levels * scale - low * scale).clamp_(0, 255)
    return _look_up(clip, planes, torch.where(high > low, stretched, levels).byte())


def equalize(clip: Tensor) -> Tensor:
    """Flatten the histogram of each channel of each frame.

    Args:
        clip: Frames, shape (T, C, H, W), uint8.

    Source: FixMatch, Equalize; `PIL.ImageOps.equalize`.
    """
    planes = _planes(clip)
    counts = torch.stack([plane.bincount(minlength=256) for plane in planes])
    brightest = counts.gather(1, planes.amax(1, keepdim=True).long())
    step = (planes.shape[1] - brightest) // 255  # pixels per output level
    below = counts.cumsum(1) - counts
    flattened = ((below + step // 2) // step.clamp(min=1)).clamp_(max=255)
    return _look_up(clip, planes, torch.where(step > 0, flattened, torch.arange(256)).byte())


def solarize(clip: Tensor, threshold: float) -> Tensor:
    """Invert the values at or above a threshold.

    Args:
        clip: Frames, shape (T, C, H, W), uint8.
        threshold: In [0, 256]; 0 inverts everything, 256 nothing.

    Source: FixMatch, Solarize; `PIL.ImageOps.solarize`.
    """
    values = checked(clip).short()
    # The sign bit of the difference, 0 or -1: torch is slow at comparing small integers.
    inverted = (math.ceil(in_range("threshold", threshold, 0, 256)) - 1 - values) >> 15
    return (values ^ inverted).byte()  # the low byte of v ^ -1 is 255 - v


def posterize(clip: Tensor, bits: float) -> Tensor:
    """Keep the highest bits of every value.

    Args:
        clip: Frames, shape (T, C, H, W), uint8.
        bits: Bits to keep, in [1, 8]; a fraction is dropped (5.33 keeps 5).

    Source: FixMatch, Posterize; `PIL.ImageOps.posterize`.
    """
    dropped = 8 - int(in_range("bits", bits, 1, 8))
    return checked(clip) & (255 >> dropped << dropped)


def color(clip: Tensor, factor: float) -> Tensor:
    """Blend each frame with its gray version.

    Args:
        clip: Frames, shape (T, C, H, W), uint8, C = 3 (RGB) or 1.
        factor: At least 0; 0 gives gray, 1 the clip, more stronger colors.

    Source: FixMatch, Color; `PIL.ImageEnhance.Color`.
    """
    clip = checked(clip).contiguous()  # three times faster if the channels came last
    return _blend(_gray(clip).float(), clip, factor)


def contrast(clip: Tensor, factor: float) -> Tensor:
    """Blend each frame with its mean gray level.

    Args:
        clip: Frames, shape (T, C, H, W), uint8, C = 3 (RGB) or 1.
        factor: At least 0; 0 gives one flat gray per frame, 1 the clip, more a stronger contrast.

    Source: FixMatch, Contrast; `PIL.ImageEnhance.Contrast`.
    """
    gray = _gray(checked(clip))
    total = gray.sum((1, 2, 3), keepdim=True).double()
    mean = total.div_(gray[0].numel()).add_(0.5).floor_()
    return _blend(mean.float(), clip, factor)


def brightness(clip: Tensor, factor: float) -> Tensor:
    """Blend each frame with black.

    Args:
        clip: Frames, shape (T, C, H, W), uint8.
        factor: At least 0; 0 gives black, 1 the clip, more a brighter clip.

    Source: FixMatch, Brightness; `PIL.ImageEnhance.Brightness`.
    """
    return _truncate(checked(clip).float().mul_(factor), factor)


def sharpness(clip: Tensor, factor: float) -> Tensor:
    """Blend each frame with a smoothed version; the outermost pixels stay as they are.

    Args:
        clip: Frames, shape (T, C, H, W), uint8.
        factor: At least 0; 0 gives the smoothed clip, 1 the clip, more sharper edges.

    Source: FixMatch, Sharpness; `PIL.ImageEnhance.Sharpness`.
    """
    sharp = checked(clip).clone()
    for frame in sharp:  # one at a time, so that the intermediate results stay in the cache
        inner, values = frame[:, 1:-1, 1:-1], frame.short()
        columns = values[:, :-2] + values[:, 1:-1] + values[:, 2:]
        total = columns[..., :-2] + columns[..., 1:-1] + columns[..., 2:]
        total.add_(inner, alpha=4)  # weights 1 1 1, 1 5 1, 1 1 1
        smooth = total.float().div_(13).add_(0.5).short().float()  # no sum of 13ths ends in a half
        inner.copy_(_blend(smooth, inner, factor))
    return sharp


def _planes(clip: Tensor) -> Tensor:
    """Return one row of pixels per frame and channel, shape (T·C, H·W)."""
    return checked(clip).reshape(-1, clip.shape[2] * clip.shape[3])


def _look_up(clip: Tensor, planes: Tensor, tables: Tensor) -> Tensor:
    """Map each plane of the clip through its own table, (T·C, 256)."""
    return tables.gather(1, planes.long()).view(clip.shape)


def _gray(clip: Tensor) -> Tensor:
    """Return the luma of each frame (ITU-R 601, rounded as Pillow does), shape (T, 1, H, W)."""
    if clip.shape[1] == 1:
        return clip
    if clip.shape[1] != 3:
        raise ValueError(f"expected 3 (RGB) channels or 1, got {clip.shape[1]}")
    red, green, blue = clip.int().split(1, dim=1)
    return (red * 19595).add_(green, alpha=38470).add_(blue, alpha=7471).add_(1 << 15) >> 16


def _blend(base: Tensor, clip: Tensor, factor: float) -> Tensor:
    """Return base + factor · (clip − base), every step in float32 as in Pillow."""
    return _truncate(clip.float().sub_(base).mul_(factor).add_(base), factor)


def _truncate(values: Tensor, factor: float) -> Tensor:
    """Return blended values as uint8, cut to [0, 255] where the factor can leave it."""
    if in_range("factor", factor, 0, math.inf) > 1:
        values.clamp_(0, 255)
    return values.short().byte()  # five times faster than .byte() alone
