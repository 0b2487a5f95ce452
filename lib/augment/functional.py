"""Pure operations on a uint8 clip (T, C, H, W) and on the mask (T, 1, H, W) that goes with it.

Each takes a clip on the CPU, in any memory layout, and returns a new one of the same shape
(`identity` its input); all frames get the same operation with the same value. Nothing is random:
the caller draws the values. Pixels equal Pillow's. A mask follows its clip through the geometric
operations and `cutout` by the same call with `fill=0`; the others change colours, not places, and
leave it alone (`RANDAUGMENT_OPS[name].is_geometric`). The temporal operations index dimension 0.

Every clip operation raises TypeError if the clip is not a uint8 tensor, and ValueError if it is
not (T, C, H, W), a value is out of its range or `fill` does not fit the channels.

Source: Zou et al., Learning Representational Invariances for Data-Efficient Action Recognition,
with the operations and ranges of FixMatch (Sohn et al., 2020, Table 12). Reference implementation:
`rand_augment.py`, `temporal_augment.py` and `box.py` in `mmaction/datasets/pipelines`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

Fill = int | Sequence[int]  # one value for all channels, or one per channel
FILL_RGB = (124, 116, 104)  # the mean colour, which the paper's recipe fills with
MAX_MAGNITUDE = 30


# Colours: the first four map each value on its own, the next four are blends
# trunc(base + factor · (clip − base)).


def identity(clip: Tensor) -> Tensor:
    """Return the clip itself. Source: FixMatch, Identity."""
    return _checked(clip)


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
    values = _checked(clip).short()
    # The sign bit of the difference, 0 or -1: torch is slow at comparing small integers.
    inverted = (math.ceil(_in_range("threshold", threshold, 0, 256)) - 1 - values) >> 15
    return (values ^ inverted).byte()  # the low byte of v ^ -1 is 255 - v


def posterize(clip: Tensor, bits: float) -> Tensor:
    """Keep the highest bits of every value.

    Args:
        clip: Frames, shape (T, C, H, W), uint8.
        bits: Bits to keep, in [1, 8]; a fraction is dropped (5.33 keeps 5).

    Source: FixMatch, Posterize; `PIL.ImageOps.posterize`.
    """
    dropped = 8 - int(_in_range("bits", bits, 1, 8))
    return _checked(clip) & (255 >> dropped << dropped)


def color(clip: Tensor, factor: float) -> Tensor:
    """Blend each frame with its grey version.

    Args:
        clip: Frames, shape (T, C, H, W), uint8, C = 3 (RGB) or 1.
        factor: At least 0; 0 gives grey, 1 the clip, more stronger colours.

    Source: FixMatch, Color; `PIL.ImageEnhance.Color`.
    """
    clip = _checked(clip).contiguous()  # three times faster if the channels came last
    return _blend(_gray(clip).float(), clip, factor)


def contrast(clip: Tensor, factor: float) -> Tensor:
    """Blend each frame with its mean grey level.

    Args:
        clip: Frames, shape (T, C, H, W), uint8, C = 3 (RGB) or 1.
        factor: At least 0; 0 gives one flat grey per frame, 1 the clip, more a stronger contrast.

    Source: FixMatch, Contrast; `PIL.ImageEnhance.Contrast`.
    """
    gray = _gray(_checked(clip))
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
    return _truncate(_checked(clip).float().mul_(factor), factor)


def sharpness(clip: Tensor, factor: float) -> Tensor:
    """Blend each frame with a smoothed version; the outermost pixels stay as they are.

    Args:
        clip: Frames, shape (T, C, H, W), uint8.
        factor: At least 0; 0 gives the smoothed clip, 1 the clip, more sharper edges.

    Source: FixMatch, Sharpness; `PIL.ImageEnhance.Sharpness`.
    """
    sharp = _checked(clip).clone()
    for frame in sharp:  # one at a time, so that the intermediate results stay in the cache
        inner, values = frame[:, 1:-1, 1:-1], frame.short()
        columns = values[:, :-2] + values[:, 1:-1] + values[:, 2:]
        total = columns[..., :-2] + columns[..., 1:-1] + columns[..., 2:]
        total.add_(inner, alpha=4)  # weights 1 1 1, 1 5 1, 1 1 1
        smooth = total.float().div_(13).add_(0.5).short().float()  # no sum of 13ths ends in a half
        inner.copy_(_blend(smooth, inner, factor))
    return sharp


# Geometry: nearest neighbour, `fill` where the source lies outside the frame.


def rotate(clip: Tensor, degrees: float, fill: Fill) -> Tensor:
    """Rotate each frame about its centre.

    Args:
        clip: Frames, shape (T, C, H, W), uint8.
        degrees: Angle; positive turns the picture counter-clockwise.
        fill: Value outside the picture in [0, 255], one or one per channel.

    Source: FixMatch, Rotate; `PIL.Image.Image.rotate`.
    """
    height, width = _checked(clip).shape[-2:]
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
    return _affine(clip, (1, _in_range("shear", shear, -1, 1), 0, 0, 1, 0), fill)


def shear_y(clip: Tensor, shear: float, fill: Fill) -> Tensor:
    """Shift each column upwards in proportion to its distance from the left.

    Args:
        clip: Frames, shape (T, C, H, W), uint8.
        shear: Pixels per column, in [-1, 1]; negative shifts downwards.
        fill: Value outside the picture in [0, 255], one or one per channel.

    Source: FixMatch, ShearY; Pillow's affine `transform`.
    """
    return _affine(clip, (1, 0, 0, _in_range("shear", shear, -1, 1), 1, 0), fill)


def translate_x(clip: Tensor, pixels: float, fill: Fill) -> Tensor:
    """Shift each frame to the left.

    Args:
        clip: Frames, shape (T, C, H, W), uint8.
        pixels: Distance, rounded to whole pixels; negative shifts to the right.
        fill: Value outside the picture in [0, 255], one or one per channel.

    Source: FixMatch, TranslateX; Pillow's affine `transform`.
    """
    return _shift(clip, _fixed_point(pixels + 0.5) >> 16, 0, fill)


def translate_y(clip: Tensor, pixels: float, fill: Fill) -> Tensor:
    """Shift each frame upwards.

    Args:
        clip: Frames, shape (T, C, H, W), uint8.
        pixels: Distance, rounded to whole pixels; negative shifts downwards.
        fill: Value outside the picture in [0, 255], one or one per channel.

    Source: FixMatch, TranslateY; Pillow's affine `transform`.
    """
    return _shift(clip, 0, _fixed_point(pixels + 0.5) >> 16, fill)


def cutout(clip: Tensor, size_px: float, center_xy: tuple[float, float], fill: Fill) -> Tensor:
    """Paint the same square on each frame.

    Args:
        clip: Frames, shape (T, C, H, W), uint8.
        size_px: Side of the square, at least 0. Both its edges are painted, so it covers about
            `size_px` + 1 pixels, and 0 still paints one.
        center_xy: Centre (x, y) in pixels. A square that would begin left of or above the frame
            begins at the border; one that would end outside is cut off there.
        fill: Value of the square in [0, 255], one or one per channel.

    Source: FixMatch, Cutout; the reference's `CutoutAbs`, drawn as by `PIL.ImageDraw`.
    """
    painted = _checked(clip).clone()
    height, width = clip.shape[-2:]
    _in_range("size_px", size_px, 0, math.inf)
    left, top = (int(max(0, center - size_px / 2)) for center in center_xy)
    right, bottom = int(min(width, left + size_px)), int(min(height, top + size_px))
    painted[..., top : bottom + 1, left : right + 1] = _fill_values(fill, clip)
    return painted


@dataclass(frozen=True)
class Operation:
    """One RandAugment operation: its function, the range of its value, what it takes.

    Attributes:
        function: Called as `function(clip, *takes)`.
        min: Value at magnitude 0.
        max: Value at magnitude 30.
        takes: Names of the function's arguments after the clip.
        is_signed: Whether the value may be negated.
        side: The value is a fraction of this side: -1 the width, -2 the height, None of neither.
    """

    function: Callable[..., Tensor]
    min: float = 0
    max: float = 1
    takes: tuple[str, ...] = ()
    is_signed: bool = False
    side: int | None = None

    @property
    def is_geometric(self) -> bool:
        """Whether a mask must follow the clip through it, with fill 0."""
        return "fill" in self.takes

    def value(self, magnitude: float, size_hw: Sequence[int], flip_sign: bool = False) -> float:
        """Return magnitude / 30 · (max − min) + min, for translations in pixels.

        Args:
            magnitude: In [0, 30]; the paper uses 10.
            size_hw: Height and width of the frames in pixels.
            flip_sign: Negate the value of a signed operation; the others ignore it.

        Raises:
            ValueError: If the magnitude is outside [0, 30].
        """
        fraction = _in_range("magnitude", magnitude, 0, MAX_MAGNITUDE) / MAX_MAGNITUDE
        value = fraction * (self.max - self.min) + self.min
        if self.is_signed and flip_sign:
            value = -value
        return value if self.side is None else value * size_hw[self.side]

    def apply(
        self, clip: Tensor, value: float, center_xy: tuple[float, float], fill: Fill
    ) -> Tensor:
        """Call the function on a clip or mask with those of the arguments that it takes."""
        arguments = {"value": value, "center_xy": center_xy, "fill": fill}
        return self.function(clip, *(arguments[name] for name in self.takes))


_VALUE, _MOVE = ("value",), ("value", "fill")
RANDAUGMENT_OPS = {
    "identity": Operation(identity),
    "autocontrast": Operation(autocontrast),
    "equalize": Operation(equalize),
    "rotate": Operation(rotate, 0, 30, _MOVE, is_signed=True),
    "solarize": Operation(solarize, 0, 256, _VALUE),
    "color": Operation(color, 0.05, 0.95, _VALUE),
    "contrast": Operation(contrast, 0.05, 0.95, _VALUE),
    "brightness": Operation(brightness, 0.05, 0.95, _VALUE),
    "sharpness": Operation(sharpness, 0.05, 0.95, _VALUE),
    "shear_x": Operation(shear_x, 0, 0.3, _MOVE, is_signed=True),
    "translate_x": Operation(translate_x, 0, 0.3, _MOVE, is_signed=True, side=-1),
    "translate_y": Operation(translate_y, 0, 0.3, _MOVE, is_signed=True, side=-2),
    "posterize": Operation(posterize, 4, 8, _VALUE),
    "shear_y": Operation(shear_y, 0, 0.3, _MOVE, is_signed=True),
    "cutout": Operation(cutout, 0, 112, ("value", "center_xy", "fill")),
}


def temporal_half(clip: Tensor, first: bool) -> Tensor:
    """Show one half of the clip twice, in its own order.

    Args:
        clip: Anything with frames in dimension 0: clip, mask or frame indices, T even.
        first: True keeps the first half (0 1 2 3 becomes 0 1 0 1), False the second (2 3 2 3).

    Raises:
        ValueError: If the number of frames is odd.

    Source: Zou et al., T-Half; the reference's `TemporalHalf`.
    """
    half, rest = divmod(len(clip), 2)
    if rest:
        raise ValueError(f"T-Half needs an even number of frames, not {len(clip)}")
    return torch.cat([clip[:half] if first else clip[half:]] * 2)


def temporal_reverse(clip: Tensor) -> Tensor:
    """Play the clip backwards.

    Args:
        clip: Anything with frames in dimension 0: clip, mask or frame indices.

    Source: Zou et al., T-Reverse; the reference's `TemporalReverse`.
    """
    return clip.flip(0)


def temporal_drop(clip: Tensor, drop: Tensor) -> Tensor:
    """Replace each dropped frame by the nearest kept one before it.

    Args:
        clip: Anything with frames in dimension 0: clip, mask or frame indices.
        drop: True where a frame is dropped, shape (T,), bool; the first frame always stays.

    Raises:
        ValueError: If `drop` is not a bool tensor of shape (T,).

    Source: Zou et al., T-Drop; the reference's `TemporalCutOut`.
    """
    if drop.dtype != torch.bool or drop.shape != clip.shape[:1]:
        raise ValueError(f"drop must be {len(clip)} bools, not {drop.dtype} {tuple(drop.shape)}")
    return clip.index_select(0, torch.arange(len(clip)).masked_fill(drop, 0).cummax(0).values)


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
        if corners.size == 0:
            continue
        if corners.ndim != 2 or corners.shape[1] != 4 or np.isnan(corners).any():
            raise ValueError(
                f"boxes of frame {frame} must be (N, 4) numbers, x1 y1 x2 y2 without a score, "
                f"not of shape {corners.shape} or NaN"
            )
        corners = corners.clip(0, (width, height, width, height)).astype(np.int64)
        for x1, y1, x2, y2 in corners.tolist():
            mask[frame, 0, y1:y2, x1:x2] = 1
    return torch.from_numpy(mask)


def _checked(clip: Tensor) -> Tensor:
    """Return the clip if it is uint8 (T, C, H, W)."""
    if not isinstance(clip, Tensor) or clip.dtype != torch.uint8:
        kind = getattr(clip, "dtype", type(clip).__name__)
        raise TypeError(f"expected a uint8 tensor, got {kind}; augment before normalising")
    if clip.dim() != 4 or clip.numel() == 0:
        raise ValueError(f"expected a clip of shape (T, C, H, W), got {tuple(clip.shape)}")
    return clip


def _in_range(name: str, value: float, low: float, high: float) -> float:
    if not low <= value <= high:
        raise ValueError(f"{name} must be in [{low}, {high}], not {value}")
    return value


def _fill_values(fill: Fill, clip: Tensor) -> Tensor:
    """Return the fill as uint8, shape (C or 1, 1, 1)."""
    values, channels = np.array(fill).reshape(-1), clip.shape[1]
    fits = len(values) in (1, channels) and values.dtype.kind in "iu"
    if not fits or values.min() < 0 or values.max() > 255:
        raise ValueError(f"fill must be 1 or {channels} whole numbers in [0, 255], not {fill!r}")
    return torch.from_numpy(values.astype(np.uint8)).view(-1, 1, 1)


def _planes(clip: Tensor) -> Tensor:
    """Return one row of pixels per frame and channel, shape (T·C, H·W)."""
    return _checked(clip).reshape(-1, clip.shape[2] * clip.shape[3])


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
    if _in_range("factor", factor, 0, math.inf) > 1:
        values.clamp_(0, 255)
    return values.short().byte()  # five times faster than .byte() alone


def _fixed_point(value: float) -> int:
    """Return a coordinate in 1/65536 pixel, the unit of Pillow's affine sampling."""
    return math.floor(value * 65536 + 0.5)


def _affine(clip: Tensor, matrix: Sequence[float], fill: Fill) -> Tensor:
    """Let each pixel centre (x, y) show (a x + b y + c, d x + e y + f)."""
    planes, (height, width) = _planes(clip), clip.shape[-2:]
    a, b, c, d, e, f = matrix
    c, f = c + a * 0.5 + b * 0.5, f + d * 0.5 + e * 0.5
    a, b, c, d, e, f = map(_fixed_point, (a, b, c, d, e, f))
    column = torch.arange(width, dtype=torch.int32)  # holds coordinates up to 32767 pixels
    row = torch.arange(height, dtype=torch.int32).view(-1, 1)
    x, y = (column * a + (row * b + c)) >> 16, (column * d + (row * e + f)) >> 16
    x_inside, y_inside = x.clamp(0, width - 1), y.clamp(0, height - 1)
    is_inside = ((x == x_inside) & (y == y_inside)).byte()
    source = y_inside.mul_(width).add_(x_inside).view(1, -1).long()
    warped = planes.gather(1, source.expand(len(planes), -1)).view(clip.shape)
    return warped.mul_(is_inside).add_((1 - is_inside) * _fill_values(fill, clip))


def _shift(clip: Tensor, x: int, y: int, fill: Fill) -> Tensor:
    """Let pixel (i, j) show pixel (i + x, j + y)."""
    height, width = _checked(clip).shape[-2:]
    x, y = max(-width, min(x, width)), max(-height, min(y, height))
    shifted = _fill_values(fill, clip).expand(clip.shape).contiguous()
    target = shifted[..., max(0, -y) : height - max(0, y), max(0, -x) : width - max(0, x)]
    target.copy_(clip[..., max(0, y) : height + min(0, y), max(0, x) : width + min(0, x)])
    return shifted
