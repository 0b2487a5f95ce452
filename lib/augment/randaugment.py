"""RandAugment: operations on a uint8 clip, their table, and the draw of operations and values.

Each operation takes a clip (T, C, H, W), uint8, on any device and in any memory layout, and returns
a new one of the same shape (`identity` its input). All frames get the same operation with the same
value. Nothing is random in an operation: `RandAugment` draws the values. Pixels equal those of the
function of Pillow that each docstring names. `fill` is the value outside the picture, in [0, 255],
one or one per channel.

Source: Zou et al., Learning Representational Invariances for Data-Efficient Action Recognition,
with the operations and ranges of FixMatch (Sohn et al., 2020, Table 12). Reference implementation:
`rand_augment.py` in `mmaction/datasets/pipelines`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

Fill = int | Sequence[int]

# --- Color ----------------------------------------------------------------------------------------


def identity(clip: Tensor) -> Tensor:
    """Return the clip itself."""
    return clip


def autocontrast(clip: Tensor) -> Tensor:
    """Stretch each channel of each frame to 0 … 255; flat ones stay (ImageOps.autocontrast)."""
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
    """Flatten the histogram of each channel of each frame (ImageOps.equalize)."""
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
    """Invert the values at or above a threshold in [0, 256] (ImageOps.solarize)."""
    darkest = math.ceil(threshold)  # of the values to invert
    if darkest == 0:
        return 255 - clip
    inverted = clip.clamp(min=darkest - 1).sub_(darkest - 1).clamp_(max=1)
    return inverted.neg_().bitwise_xor_(clip)  # −1 is 255 in a byte, and v ^ 255 is 255 − v


def posterize(clip: Tensor, bits: float) -> Tensor:
    """Keep the highest int(bits) bits of every value, bits in [1, 8] (ImageOps.posterize)."""
    dropped = 8 - int(bits)
    return clip & (255 >> dropped << dropped)


def color(clip: Tensor, factor: float) -> Tensor:
    """Blend each frame with its gray version: 0 gives gray, 1 the clip (ImageEnhance.Color)."""
    values = clip.float()
    return _blend(_gray(values), values, factor)


def contrast(clip: Tensor, factor: float) -> Tensor:
    """Blend each frame with its mean gray: 0 gives gray, 1 the clip (ImageEnhance.Contrast)."""
    values = clip.float()
    gray = _gray(values)
    total = gray.sum((1, 2, 3), dtype=torch.float64, keepdim=True)
    mean = total.div_(gray[0].numel()).add_(0.5).floor_()
    return _blend(mean.float(), values, factor)


def brightness(clip: Tensor, factor: float) -> Tensor:
    """Blend each frame with black: 0 gives black, 1 the clip (ImageEnhance.Brightness)."""
    return _truncate(clip.float().mul_(factor), factor)


def sharpness(clip: Tensor, factor: float) -> Tensor:
    """Blend each frame with a smoothed version: 0 gives it, 1 the clip (ImageEnhance.Sharpness).

    The outermost pixels stay as they are. The clip is smoothed as rows of pixels one after another,
    several frames at a time, as many as stay in a cache; the edges are restored afterwards. A
    factor above 1 makes sharper edges.
    """
    sharp = clip.clone(memory_format=torch.contiguous_format)
    width = clip.shape[-1]
    inner = slice(width + 1, -width - 1)  # without the first and the last row
    num_frames = max(1, 100_000 // clip[0].numel())
    parts = (frames.flatten(1).split(num_frames) for frames in (clip, sharp))
    for source, result in zip(*parts, strict=True):
        values = source.short()
        columns = (values[:, :-2] + values[:, 1:-1]).add_(values[:, 2:])
        total = (columns[:, : -2 * width] + columns[:, width:-width]).add_(columns[:, 2 * width :])
        total.add_(values[:, inner], alpha=4)  # weights 1 1 1, 1 5 1, 1 1 1
        smooth = total.float().mul_(1 / 13).add_(0.5).floor_()  # no sum of 13ths ends in a half
        result[:, inner] = _blend(smooth, source[:, inner].float(), factor)
    for edge in (0, -1):  # there the filter mixed the ends of two rows or of two channels
        sharp[..., edge], sharp[..., edge, :] = clip[..., edge], clip[..., edge, :]
    return sharp


def _planes(clip: Tensor) -> Tensor:
    """Return one row of pixels per frame and channel, shape (T·C, H·W)."""
    return clip.reshape(-1, clip.shape[2] * clip.shape[3])


def _gray(values: Tensor) -> Tensor:
    """Return the luma of RGB frames, float32 (ITU-R 601, rounded as by Pillow), (T, 1, H, W)."""
    red, green, blue = values.split(1, dim=1)
    # Whole numbers below 2²⁴: exact in float32.
    luma = (red * 19595).add_(green, alpha=38470).add_(blue, alpha=7471).add_(1 << 15)
    return luma.mul_(1 / 65536).floor_()


def _blend(base: Tensor, values: Tensor, factor: float) -> Tensor:
    """Return base + factor · (values − base), each step in float32 as in Pillow; changes values."""
    return _truncate(values.sub_(base).mul_(factor).add_(base), factor)


def _truncate(values: Tensor, factor: float) -> Tensor:
    """Return blended values as uint8, cut to [0, 255] where the factor can leave it."""
    if factor > 1:
        values.clamp_(0, 255)
    return values.short().byte()


# --- Geometry -------------------------------------------------------------------------------------


def rotate(clip: Tensor, degrees: float, fill: Fill) -> Tensor:
    """Rotate each frame about its center, counter-clockwise if positive (Image.rotate)."""
    height, width = clip.shape[-2:]
    angle = -math.radians(degrees % 360.0)
    cos, sin = round(math.cos(angle), 15), round(math.sin(angle), 15)
    x0 = width / 2 + (-cos * width / 2 - sin * height / 2)
    y0 = height / 2 + (sin * width / 2 - cos * height / 2)
    return _affine(clip, (cos, sin, x0, -sin, cos, y0), fill)


def shear_x(clip: Tensor, shear: float, fill: Fill) -> Tensor:
    """Shift each row to the left by `shear` pixels per row, in [-1, 1] (Image.transform)."""
    step, first = _fixed_point(shear), _fixed_point(0.5 + shear * 0.5)
    sheared, height = _filled(clip, fill), clip.shape[-2]
    shifts = [(row * step + first) >> 16 for row in range(height)]
    for shift, group in groupby(range(height), shifts.__getitem__):
        rows = list(group)  # they all move by the same distance
        block = (..., slice(rows[0], rows[-1] + 1), slice(None))
        _copy_shifted(sheared[block], clip[block], shift, 0)
    return sheared


def shear_y(clip: Tensor, shear: float, fill: Fill) -> Tensor:
    """Shift each column upwards by `shear` pixels per column, in [-1, 1] (Image.transform)."""
    return _affine(clip, (1, 0, 0, shear, 1, 0), fill)


def translate_x(clip: Tensor, pixels: float, fill: Fill) -> Tensor:
    """Shift each frame to the left by a rounded number of pixels (Image.transform)."""
    return _copy_shifted(_filled(clip, fill), clip, _fixed_point(pixels + 0.5) >> 16, 0)


def translate_y(clip: Tensor, pixels: float, fill: Fill) -> Tensor:
    """Shift each frame upwards by a rounded number of pixels (Image.transform)."""
    return _copy_shifted(_filled(clip, fill), clip, 0, _fixed_point(pixels + 0.5) >> 16)


def cutout(clip: Tensor, size_px: float, center_xy: tuple[float, float], fill: Fill) -> Tensor:
    """Paint the same square on each frame (ImageDraw.rectangle).

    Args:
        clip: Frames, shape (T, C, H, W), uint8.
        size_px: Side of the square, at least 0. Both its edges are painted, so it covers about
            `size_px` + 1 pixels, and 0 still paints one.
        center_xy: Center (x, y) in pixels. A square that would begin left of or above the frame
            begins at the border; one that would end outside is cut off there.
        fill: Value of the square in [0, 255], one or one per channel.

    Source: The reference's `CutoutAbs`.
    """
    painted = clip.clone()
    height, width = clip.shape[-2:]
    left, top = (int(max(0, center - size_px / 2)) for center in center_xy)
    right, bottom = int(min(width, left + size_px)), int(min(height, top + size_px))
    painted[..., top : bottom + 1, left : right + 1] = _fill_values(fill, clip)
    return painted


def _fill_values(fill: Fill, clip: Tensor) -> Tensor:
    """Return the fill as uint8 on the clip's device, shape (C or 1, 1, 1)."""
    return torch.tensor(fill, dtype=torch.uint8).view(-1, 1, 1).to(clip.device)


def _filled(clip: Tensor, fill: Fill) -> Tensor:
    """Return a clip of the same shape with the fill in every pixel."""
    return _fill_values(fill, clip).expand(clip.shape).contiguous()


def _fixed_point(value: float) -> int:
    """Return a coordinate in 1/65536 pixel, the unit of Pillow's affine sampling."""
    return math.floor(value * 65536 + 0.5)


def _affine(clip: Tensor, matrix: Sequence[float], fill: Fill) -> Tensor:
    """Sample each pixel center (x, y) from (a x + b y + c, d x + e y + f); up to 32767 pixels."""
    height, width = clip.shape[-2:]
    planes = _planes(clip)
    a, b, c, d, e, f = matrix
    c, f = c + a * 0.5 + b * 0.5, f + d * 0.5 + e * 0.5
    a, b, c, d, e, f = map(_fixed_point, (a, b, c, d, e, f))
    column = torch.arange(width, dtype=torch.int32, device=clip.device)
    row = torch.arange(height, dtype=torch.int32, device=clip.device).view(-1, 1)
    x, y = (column * a + (row * b + c)) >> 16, (column * d + (row * e + f)) >> 16
    x_inside, y_inside = x.clamp(0, width - 1), y.clamp(0, height - 1)
    is_inside = ((x == x_inside) & (y == y_inside)).byte()
    source = y_inside.mul_(width).add_(x_inside).view(1, -1).long()
    warped = planes.gather(1, source.expand(len(planes), -1)).view(clip.shape)
    return warped.mul_(is_inside).add_((1 - is_inside) * _fill_values(fill, clip))


def _copy_shifted(target: Tensor, source: Tensor, x: int, y: int) -> Tensor:
    """Copy pixel (i + x, j + y) of the source, where it exists, to pixel (i, j) of the target."""
    height, width = source.shape[-2:]
    x, y = max(-width, min(x, width)), max(-height, min(y, height))
    shown = target[..., max(0, -y) : height - max(0, y), max(0, -x) : width - max(0, x)]
    shown.copy_(source[..., max(0, y) : height + min(0, y), max(0, x) : width + min(0, x)])
    return target


# --- The table ------------------------------------------------------------------------------------

MAX_MAGNITUDE = 30


@dataclass(frozen=True)
class Operation:
    """One operation of RandAugment: its function, the range of its value, its arguments."""

    function: Callable[..., Tensor]  # called as function(clip, *takes)
    min: float = 0  # value at magnitude 0
    max: float = 1  # value at magnitude 30
    takes: tuple[str, ...] = ()  # its arguments after the clip: value, center_xy, fill
    is_signed: bool = False  # the value may be negated
    side: int | None = None  # the value is a fraction of the width (-1) or the height (-2)

    @property
    def is_geometric(self) -> bool:
        """Return True if pixels move or are covered; other operations only change colors."""
        return "fill" in self.takes

    def value(self, magnitude: float, size_hw: Sequence[int], flip_sign: bool = False) -> float:
        """Return magnitude / 30 · (max − min) + min, for translations in pixels.

        The magnitude is in [0, 30]; the paper uses 10. `size_hw` is the size of the frames in
        pixels. `flip_sign` negates the value of a signed operation.
        """
        value = magnitude / MAX_MAGNITUDE * (self.max - self.min) + self.min
        if self.is_signed and flip_sign:
            value = -value
        return value if self.side is None else value * size_hw[self.side]

    def apply(
        self, clip: Tensor, value: float, center_xy: tuple[float, float], fill: Fill
    ) -> Tensor:
        """Call the function on a clip with those of the arguments that it takes.

        TypeError if the clip is not a uint8 tensor; ValueError if its shape is not (T, C, H, W).
        """
        if not isinstance(clip, Tensor) or clip.dtype != torch.uint8:
            kind = getattr(clip, "dtype", type(clip).__name__)
            raise TypeError(f"expected a uint8 tensor, got {kind}; augment before normalization")
        if clip.dim() != 4 or clip.numel() == 0:
            raise ValueError(f"expected a clip of shape (T, C, H, W), got {tuple(clip.shape)}")
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

# --- The draw -------------------------------------------------------------------------------------

FILL = (124, 116, 104)  # the mean color, RGB
CUTOUT_SIDE = 224  # side of the frames for which the cutout's range is 0 to 112 pixels

OPERATION_GROUPS = {  # `identity` belongs to both
    "photometric": [name for name, op in RANDAUGMENT_OPS.items() if not op.is_geometric],
    "geometric": ["identity", *(name for name, op in RANDAUGMENT_OPS.items() if op.is_geometric)],
}


def expand_operations(names: Sequence[str]) -> list[str]:
    """Replace the groups `photometric` and `geometric` by their operations, in table order."""
    members = OPERATION_GROUPS | {name: [name] for name in RANDAUGMENT_OPS}
    selected = {operation for name in names for operation in members[name]}
    return [name for name in RANDAUGMENT_OPS if name in selected]


class OperationParams(NamedTuple):
    """A drawn operation: its name, its value in its own unit, the center of a cutout in pixels."""

    name: str
    value: float
    center_xy: tuple[float, float]


class RandAugment:
    """The same `num_ops` operations, with one sign, on all frames of a clip.

    Args:
        num_ops: Number of operations drawn, with replacement (n).
        magnitude: m in [0, 30]; the value is m/30·(max − min) + min.
        operations: Names or groups of the operations to draw from; empty for none.

    Source: Zou et al., section 3.2; Cubuk et al., RandAugment, with FixMatch's ranges. The cutout's
    0 to 112 pixels are scaled with the view's side, so that they mean the same share of it.
    """

    def __init__(
        self,
        num_ops: int = 2,
        magnitude: float = 10,
        operations: Sequence[str] = ("photometric", "geometric"),
    ):
        self.num_ops, self.magnitude = num_ops, magnitude
        self.operations = expand_operations(operations)

    def draw(self, height: int, width: int, generator: torch.Generator) -> list[OperationParams]:
        """Draw the operations for frames of this size."""
        if not self.operations:
            return []
        choices = torch.randint(len(self.operations), (self.num_ops,), generator=generator)
        flip_sign, *centers = torch.rand(1 + 2 * self.num_ops, generator=generator).tolist()
        params = []
        for position, choice in enumerate(choices.tolist()):
            name = self.operations[choice]
            value = RANDAUGMENT_OPS[name].value(self.magnitude, (height, width), flip_sign < 0.5)
            if name == "cutout":
                value *= min(height, width) / CUTOUT_SIDE
            x, y = centers[2 * position : 2 * position + 2]
            params.append(OperationParams(name, value, (x * width, y * height)))
        return params

    @staticmethod
    def apply(clip: Tensor, params: Sequence[OperationParams]) -> Tensor:
        """Apply drawn operations in their order to a clip (T, 3, H, W), uint8."""
        for name, value, center_xy in params:
            clip = RANDAUGMENT_OPS[name].apply(clip, value, center_xy, FILL)
        return clip
