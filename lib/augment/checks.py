"""What every operation asks of a clip and of its values."""

import torch
from torch import Tensor


def checked(clip: Tensor) -> Tensor:
    """Return the clip if it is uint8 (T, C, H, W)."""
    if not isinstance(clip, Tensor) or clip.dtype != torch.uint8:
        kind = getattr(clip, "dtype", type(clip).__name__)
        raise TypeError(f"expected a uint8 tensor, got {kind}; augment before normalising")
    if clip.dim() != 4 or clip.numel() == 0:
        raise ValueError(f"expected a clip of shape (T, C, H, W), got {tuple(clip.shape)}")
    return clip


def in_range(name: str, value: float, low: float, high: float) -> float:
    """Return the value if low <= value <= high; NaN is refused too."""
    if not low <= value <= high:
        raise ValueError(f"{name} must be in [{low}, {high}], not {value}")
    return value
