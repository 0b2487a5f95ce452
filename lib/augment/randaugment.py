"""RandAugment: the draw of operations and their values, the same for all frames of a clip."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lib.augment.ops import RANDAUGMENT_OPS

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
