"""RandAugment's operations on a uint8 clip (T, C, H, W): the ONE table.

Each takes a clip on any device, in any memory layout, and returns a new one of the same shape
(`identity` its input); all frames get the same operation with the same value. Nothing is random:
the caller draws the values. Pixels equal Pillow's. A mask (T, 1, H, W) follows its clip through the
geometric operations and `cutout` by the same call with `fill=0`; the others change colors, not
places, and leave it alone (`RANDAUGMENT_OPS[name].is_geometric`).

Every operation raises TypeError if the clip is not a uint8 tensor, and ValueError if it is not
(T, C, H, W), a value is out of its range or `fill` does not fit the channels.

Source: Zou et al., Learning Representational Invariances for Data-Efficient Action Recognition,
with the operations and ranges of FixMatch (Sohn et al., 2020, Table 12). Reference implementation:
`rand_augment.py` in `mmaction/datasets/pipelines`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from lib.augment.checks import in_range
from lib.augment.color import (
    autocontrast,
    brightness,
    color,
    contrast,
    equalize,
    identity,
    posterize,
    sharpness,
    solarize,
)
from lib.augment.geometry import Fill, cutout, rotate, shear_x, shear_y, translate_x, translate_y

MAX_MAGNITUDE = 30


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
        fraction = in_range("magnitude", magnitude, 0, MAX_MAGNITUDE) / MAX_MAGNITUDE
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
