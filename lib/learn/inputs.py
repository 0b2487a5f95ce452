"""What a network is fed."""

from dataclasses import dataclass


@dataclass(frozen=True)
class InputSpec:
    """The clips that a network was designed or published with, and the least that it takes.

    Attributes:
        mean: Mean of red, green, blue to subtract, in 0..255.
        std: Standard deviation of red, green, blue to divide by, in 0..255.
        short_side: Short side that frames are scaled to, pixels.
        crop_size: Side of the square crop, pixels.
        min_clip_len: Fewest frames the network takes.
        min_crop_size: Smallest crop it takes, pixels.
        fixed_clip_len: Whether it takes this number of frames alone.
        fixed_crop_size: Whether it takes this crop alone.
    """

    mean: tuple[float, ...] = (123.675, 116.28, 103.53)
    std: tuple[float, ...] = (58.395, 57.12, 57.375)
    short_side: int = 256
    crop_size: int = 224
    min_clip_len: int = 1
    min_crop_size: int = 1
    fixed_clip_len: bool = False
    fixed_crop_size: bool = False

    def check(self, name: str, clip_len: int, crop_size: int) -> None:
        """Raise ValueError if the network called `name` does not take clips of this size."""
        frames_fit = clip_len >= self.min_clip_len
        crop_fits = crop_size >= self.min_crop_size
        if self.fixed_clip_len:
            frames_fit = clip_len == self.min_clip_len
        if self.fixed_crop_size:
            crop_fits = crop_size == self.min_crop_size
        if not (frames_fit and crop_fits):
            raise ValueError(
                f"{name} takes clips of {_bound(self.fixed_clip_len)} {self.min_clip_len} frames "
                f"and crops of {_bound(self.fixed_crop_size)} {self.min_crop_size} pixels a side, "
                f"not clip_len = {clip_len} and crop_size = {crop_size}"
            )


def _bound(is_fixed: bool) -> str:
    return "exactly" if is_fixed else "at least"
