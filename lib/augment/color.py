"""Operations that change a clip's colors and leave everything where it is.

The first four map each value on its own, the next four are blends
trunc(base + factor · (clip − base)). `operations.py` says what all operations have in common.
Time goes into passes over the pixels: those on bytes and shorts are the cheap ones, and torch
compares bytes and turns floats into bytes ten times slower than it does other things to them.
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
    is_flat = low == high
    # A Python number / tensor would round twice.
    scale = torch.where(is_flat, 1, torch.full_like(low, 255) / (high - low))
    shift = torch.where(is_flat, 0, low * scale)
    stretched = planes.double().mul_(scale).sub_(shift)
    return stretched.clamp_(0, 255).short().byte().view(clip.shape)


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
    levels = torch.arange(256, device=clip.device)
    tables = torch.where(step > 0, flattened, levels).byte()
    return tables.gather(1, planes.long()).view(clip.shape)


def solarize(clip: Tensor, threshold: float) -> Tensor:
    """Invert the values at or above a threshold.

    Args:
        clip: Frames, shape (T, C, H, W), uint8.
        threshold: In [0, 256]; 0 inverts everything, 256 nothing.

    Source: FixMatch, Solarize; `PIL.ImageOps.solarize`.
    """
    darkest = math.ceil(in_range("threshold", threshold, 0, 256))  # of the values to invert
    if darkest == 0:
        return 255 - checked(clip)
    inverted = checked(clip).clamp(min=darkest - 1).sub_(darkest - 1).clamp_(max=1)
    return inverted.neg_().bitwise_xor_(clip)  # −1 is 255 in a byte, and v ^ 255 is 255 − v


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
    values = checked(clip).float()
    return _blend(_gray(values), values, factor)


def contrast(clip: Tensor, factor: float) -> Tensor:
    """Blend each frame with its mean gray level.

    Args:
        clip: Frames, shape (T, C, H, W), uint8, C = 3 (RGB) or 1.
        factor: At least 0; 0 gives one flat gray per frame, 1 the clip, more a stronger contrast.

    Source: FixMatch, Contrast; `PIL.ImageEnhance.Contrast`.
    """
    values = checked(clip).float()
    gray = _gray(values)
    total = gray.sum((1, 2, 3), dtype=torch.float64, keepdim=True)
    mean = total.div_(gray[0].numel()).add_(0.5).floor_()
    return _blend(mean.float(), values, factor)


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
    sharp = checked(clip).clone(memory_format=torch.contiguous_format)
    width = clip.shape[-1]
    inner = slice(width + 1, -width - 1)  # without the first and the last row, one after another
    at_once = max(1, 100_000 // clip[0].numel())  # frames, as much as stays in a cache
    for source, result in zip(*(x.flatten(1).split(at_once) for x in (clip, sharp)), strict=True):
        values = source.short()
        columns = (values[:, :-2] + values[:, 1:-1]).add_(values[:, 2:])
        total = (columns[:, : -2 * width] + columns[:, width:-width]).add_(columns[:, 2 * width :])
        total.add_(values[:, inner], alpha=4)  # weights 1 1 1, 1 5 1, 1 1 1
        smooth = total.float().mul_(1 / 13).add_(0.5).floor_()  # no sum of 13ths ends in a half
        result[:, inner] = _blend(smooth, source[:, inner].float(), factor)
    for edge in (0, -1):  # there a row met the next one, or a channel the next one
        sharp[..., edge], sharp[..., edge, :] = clip[..., edge], clip[..., edge, :]
    return sharp


def _planes(clip: Tensor) -> Tensor:
    """Return one row of pixels per frame and channel, shape (T·C, H·W)."""
    return checked(clip).reshape(-1, clip.shape[2] * clip.shape[3])


def _gray(values: Tensor) -> Tensor:
    """Return the luma of float32 frames (ITU-R 601, rounded as Pillow does), (T, 1, H, W)."""
    if values.shape[1] == 1:
        return values.clone()
    if values.shape[1] != 3:
        raise ValueError(f"expected 3 (RGB) channels or 1, got {values.shape[1]}")
    red, green, blue = values.split(1, dim=1)
    # Whole numbers below 2²⁴: exact in float32.
    luma = (red * 19595).add_(green, alpha=38470).add_(blue, alpha=7471).add_(1 << 15)
    return luma.mul_(1 / 65536).floor_()


def _blend(base: Tensor, values: Tensor, factor: float) -> Tensor:
    """Return base + factor · (values − base), each step in float32 as in Pillow; changes values."""
    return _truncate(values.sub_(base).mul_(factor).add_(base), factor)


def _truncate(values: Tensor, factor: float) -> Tensor:
    """Return blended values as uint8, cut to [0, 255] where the factor can leave it."""
    if in_range("factor", factor, 0, math.inf) > 1:
        values.clamp_(0, 255)
    return values.short().byte()
