"""Operations on the frames of a clip; they index dimension 0 of whatever has frames there.

Source: Zou et al., Learning Representational Invariances for Data-Efficient Action Recognition;
`temporal_augment.py` in the reference's `mmaction/datasets/pipelines`.
"""

import torch
from torch import Tensor


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
