"""Temporal operations; they index dimension 0 of anything with frames there (clip, mask, indices).

`TEMPORAL_OPS` is the only place that names them: settings, strong views, the measure of invariance,
figures and widgets read it.

Source: Zou et al., Learning Representational Invariances for Data-Efficient Action Recognition;
`temporal_augment.py` in the reference's `mmaction/datasets/pipelines`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lib.registry import Table


def temporal_half(clip: Tensor, first: bool) -> Tensor:
    """Show one half of the clip twice: 0 1 2 3 becomes 0 1 0 1 if `first`, otherwise 2 3 2 3.

    ValueError if the number of frames is odd.

    Source: Zou et al., T-Half; the reference's `TemporalHalf`.
    """
    half, rest = divmod(len(clip), 2)
    if rest:
        raise ValueError(f"T-Half needs an even number of frames, not {len(clip)}")
    return torch.cat([clip[:half] if first else clip[half:]] * 2)


def temporal_reverse(clip: Tensor) -> Tensor:
    """Play the clip backwards. Source: Zou et al., T-Reverse; the reference's `TemporalReverse`."""
    return clip.flip(0)


def temporal_drop(clip: Tensor, drop: Tensor) -> Tensor:
    """Replace each dropped frame by the nearest kept one before it.

    `drop` is True for a dropped frame, shape (T,), bool; the first frame always stays.

    Source: Zou et al., T-Drop; the reference's `TemporalCutOut`.
    """
    order = torch.arange(len(clip)).masked_fill(drop.cpu(), 0).cummax(0).values
    return clip.index_select(0, order.to(clip.device))


class TemporalParams(NamedTuple):
    """A drawn temporal operation."""

    name: str  # its row in `TEMPORAL_OPS`
    number: float  # for the clip, uniform in [0, 1)
    frame_numbers: Tensor  # for each frame, uniform in [0, 1), shape (T,)


@dataclass(frozen=True)
class TemporalOperation:
    """One temporal operation: its function and its appearance in figures.

    Attributes:
        title: Its name in figures.
        apply: (clip, number, frame_numbers) -> clip of the same shape; the numbers are those of
            `TemporalParams`.
        variants: Names of the variants that the number of the clip chooses from.
        needs_even: Whether the clip must have an even number of frames.
    """

    title: str
    apply: Callable[[Tensor, float, Tensor], Tensor]
    variants: tuple[str, ...] = ()
    needs_even: bool = False


TEMPORAL_OPS = Table(
    TemporalOperation,
    {
        "none": TemporalOperation("none", lambda clip, *_: clip),
        "half": TemporalOperation(
            "T-Half",
            lambda clip, number, frames: temporal_half(clip, number < 0.5),
            variants=("first", "second"),
            needs_even=True,
        ),
        "reverse": TemporalOperation("T-Reverse", lambda clip, *_: temporal_reverse(clip)),
        "drop": TemporalOperation(
            "T-Drop", lambda clip, number, frames: temporal_drop(clip, frames < 0.5)
        ),
    },
)


@dataclass(frozen=True)
class TemporalAugment:
    """One of the named temporal operations, each equally likely.

    Source: Zou et al., section 3.2 (none, T-Half, T-Reverse, T-Drop).
    """

    operations: Sequence[str] = ("none", "half", "reverse", "drop")

    def draw(self, clip_len: int, generator: torch.Generator) -> TemporalParams:
        """Draw the operation for a clip of `clip_len` frames."""
        name = self.operations[int(torch.randint(len(self.operations), (), generator=generator))]
        numbers = torch.rand(1 + clip_len, generator=generator)
        return TemporalParams(name, float(numbers[0]), numbers[1:])

    @staticmethod
    def apply(clip: Tensor, params: TemporalParams) -> Tensor:
        """Apply a drawn operation to anything with frames in dimension 0."""
        return TEMPORAL_OPS[params.name].apply(clip, params.number, params.frame_numbers)
