"""Image classifiers of torchvision and timm as video networks: features averaged over the frames.

A temporal shift exchanges a part of the channels between neighboring frames within the network; it
adds no parameters.

Source: Wang et al., "Temporal Segment Networks" (arXiv 1608.00859); Lin et al., "TSM" (arXiv
1811.08383).
"""

import torch
from torch import Tensor, nn

# Where the branch of a residual block begins, by the class of the block.
_BRANCHES = {
    "BasicBlock": ("conv1",),
    "Bottleneck": ("conv1",),
    "MBConv": ("block",),
    "FusedMBConv": ("block",),
    "InvertedResidual": ("block", "conv", "conv_pw"),
    "CNBlock": ("block",),
}


class TemporalShift(nn.Module):
    """Shift of a share of the channels, in (0, 1], by one frame, half in each direction.

    Frames beyond the ends are zeros. `num_frames` must be set before the shift is used.

    Source: Lin et al., "TSM", section 3; the first channels are those of the next frame.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share, self.num_frames = share, 1

    def forward(self, frames: Tensor) -> Tensor:
        """Shift maps (B · T, C, H, W) within each clip of T frames."""
        clips = frames.unflatten(0, (-1, self.num_frames))
        count = int(frames.shape[1] * self.share / 2)
        out = clips.clone()
        out[:, :-1, :count] = clips[:, 1:, :count]
        out[:, -1, :count] = 0
        out[:, 1:, count : 2 * count] = clips[:, :-1, count : 2 * count]
        out[:, 0, count : 2 * count] = 0
        return out.flatten(0, 1)


class ImageNetwork(nn.Module):
    """A network from images (N, 3, H, W) to features (N, D), averaged over the frames of a clip.

    It uses the channels-last memory format: a step on a CPU is up to three times faster.
    """

    def __init__(self, network: nn.Module, with_deviation: bool = False) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)
        self.with_deviation = with_deviation

    def forward(self, clips: Tensor) -> Tensor:
        """Return features (B, D) of clips (B, 3, T, H, W).

        With the deviation, the standard deviation over the frames follows the mean: (B, 2 · D).
        """
        num_frames = clips.shape[2]
        for module in self.network.modules():
            if isinstance(module, TemporalShift):
                module.num_frames = num_frames
        frames = clips.transpose(1, 2).flatten(0, 1).contiguous(memory_format=torch.channels_last)
        features = self.network(frames).unflatten(0, (-1, num_frames))
        mean = features.mean(dim=1)
        if not self.with_deviation:
            return mean
        return torch.cat([mean, features.std(dim=1, correction=0)], dim=1)


def insert_shifts(network: nn.Module, share: float, name: str) -> None:
    """Insert a shift of a share of the channels, unless 0, before the branch of residual blocks.

    ValueError if the network has no residual blocks of a class in `_BRANCHES`.
    """
    if share == 0:
        return
    branches = [
        (block, key)
        for block in network.modules()
        if getattr(block, "use_res_connect", getattr(block, "has_skip", True))
        for key in _BRANCHES.get(type(block).__name__, ())
        if hasattr(block, key)
    ]
    if not branches:
        raise ValueError(
            f"tsm_fraction: {name} has no residual blocks of a known kind; set it to 0 or choose a "
            "ResNet, an EfficientNet or a MobileNet"
        )
    for block, key in branches:
        setattr(block, key, nn.Sequential(TemporalShift(share), getattr(block, key)))
