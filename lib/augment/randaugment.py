"""RandAugment: which operations of the table are drawn, and with which values."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lib.augment.ops import RANDAUGMENT_OPS

FILL = (124, 116, 104)  # the mean colour, RGB
CUTOUT_SIDE = 224  # the side that the cutout's range of 0 to 112 pixels was made for

OPERATION_GROUPS = {  # `identity` belongs to both
    "photometric": [name for name, op in RANDAUGMENT_OPS.items() if not op.is_geometric],
    "geometric": ["identity", *(name for name, op in RANDAUGMENT_OPS.items() if op.is_geometric)],
}


def expand_operations(names: Sequence[str]) -> list[str]:
    """Replace the groups `photometric` and `geometric` by their operations; keeps table order.

    Raises:
        ValueError: If a name is neither a group nor an operation; lists both.
    """
    known = [*OPERATION_GROUPS, *RANDAUGMENT_OPS]
    if unknown := [name for name in names if name not in known]:
        raise ValueError(
            f"randaugment_ops: {unknown} are no operations; choose from {list(OPERATION_GROUPS)} "
            f"and {list(RANDAUGMENT_OPS)}"
        )
    chosen = {operation for name in names for operation in OPERATION_GROUPS.get(name, [name])}
    return [name for name in RANDAUGMENT_OPS if name in chosen]


class OperationParams(NamedTuple):
    """One operation of RandAugment as drawn: the value in its own unit, the cutout's centre."""

    name: str
    value: float
    center_xy: tuple[float, float]


class RandAugment:
    """The same `num_ops` operations, with one sign, on all frames of a clip.

    Args:
        num_ops: Operations drawn, with replacement (n).
        magnitude: m of 30; the value is m/30·(max − min) + min.
        operations: What they are drawn from: names or groups; empty for none.

    Source: Zou et al., section 3.2; Cubuk et al., RandAugment, with FixMatch's ranges. The cutout's
    0 to 112 pixels are scaled with the view's side, so that they mean the same share of it.
    """

    def __init__(
        self,
        num_ops: int = 2,
        magnitude: float = 10,
        operations: Sequence[str] = ("photometric", "geometric"),
    ):
        self.num_ops = num_ops
        self.magnitude = magnitude
        self.operations = expand_operations(operations)

    def draw(self, height: int, width: int, generator: torch.Generator) -> list[OperationParams]:
        """Draw the operations for frames of this size."""
        if not self.operations:
            return []
        choices = torch.randint(len(self.operations), (self.num_ops,), generator=generator)
        flip_sign, *centers = torch.rand(1 + 2 * self.num_ops, generator=generator).tolist()
        drawn = []
        for position, choice in enumerate(choices.tolist()):
            name = self.operations[choice]
            value = RANDAUGMENT_OPS[name].value(self.magnitude, (height, width), flip_sign < 0.5)
            if name == "cutout":
                value *= min(height, width) / CUTOUT_SIDE
            x, y = centers[2 * position : 2 * position + 2]
            drawn.append(OperationParams(name, value, (x * width, y * height)))
        return drawn

    @staticmethod
    def apply(clip: Tensor, drawn: Sequence[OperationParams]) -> Tensor:
        """Apply drawn operations in their order to a clip (T, 3, H, W), uint8."""
        for operation in drawn:
            clip = RANDAUGMENT_OPS[operation.name].apply(
                clip, operation.value, operation.center_xy, FILL
            )
        return clip
