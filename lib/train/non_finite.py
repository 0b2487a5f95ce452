"""Whether a step gave numbers: what is no number any more would spoil the weights for good."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lib.data.dataset import VideoDataset
from lib.runs.distributed import DistContext

MAX_NAMES = 12


class MicroStep(NamedTuple):
    """What a micro-batch gave.

    Attributes:
        loss: Its loss.
        stats: Name -> (sum, count).
        rows: Index rows of its labelled and of its unlabelled videos.
    """

    loss: Tensor
    stats: dict[str, tuple[Tensor, Tensor]]
    rows: tuple[list[int], list[int]]


def are_finite(norm: Tensor, taken: Sequence[MicroStep]) -> tuple[bool, bool]:
    """Return whether the gradient's norm, the same everywhere, and the own losses are numbers."""
    losses = torch.stack([part.loss for part in taken])
    gradient, own = torch.stack([norm.isfinite(), losses.isfinite().all()]).tolist()
    return gradient, own


def describe(
    is_gradient_finite: bool,
    is_own_finite: bool,
    taken: Sequence[MicroStep],
    sources: tuple[VideoDataset, VideoDataset | None],
    world: DistContext,
) -> str:
    """Return what is no number and the videos of it, those of all processes if all can see it."""
    found = [(is_own_finite, _names(taken, sources))]
    if not is_gradient_finite:
        found = world.all_gather(found[0])
    suspects = [name for is_fine, names in found if not is_fine for name in names]
    what = "loss" if suspects else "gradient"
    suspects = suspects or [name for _, names in found for name in names]
    more = " …" if len(suspects) > MAX_NAMES else ""
    return f"the {what} is no number; videos of it: {', '.join(suspects[:MAX_NAMES])}{more}"


def _names(
    taken: Sequence[MicroStep], sources: tuple[VideoDataset, VideoDataset | None]
) -> list[str]:
    """Return the videos of the micro-batches whose loss is no number, or else of all."""
    bad = [part for part in taken if not part.loss.isfinite()] or taken
    names = []
    for part in bad:
        for source, rows in zip(sources, part.rows, strict=True):
            names += source.index["name"].iloc[rows].tolist() if rows else []
    return names
