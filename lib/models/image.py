"""Image classifiers as video networks: frame by frame, then averaged over time.

EfficientNet-Lite0 (whose ImageNet weights a package carries), every classifier of torchvision, and
every one of timm. With a temporal shift, part of the channels of neighbouring frames change places
in the middle of the network, which costs no parameters.

Source: Wang et al., "Temporal Segment Networks" (arXiv 1608.00859); Lin et al., "TSM" (arXiv
1811.08383).
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from lib.models.image_classifiers import build_classifier, load_classifier, remove_classifier

# Where the branch of a residual block begins, by the class of the block.
_BRANCHES = {
    "BasicBlock": ("conv1",),
    "Bottleneck": ("conv1",),
    "Block": ("expand",),
    "MBConv": ("block",),
    "FusedMBConv": ("block",),
    "InvertedResidual": ("block", "conv", "conv_pw"),
    "CNBlock": ("block",),
}


class TemporalShift(nn.Module):
    """Moves a share of the channels by one frame, half of them each way; zeros come in.

    Source: Lin et al., "TSM", section 3; the first channels are those of the next frame.
    """

    def __init__(self, share: float) -> None:
        """Build the shift; `num_frames` must be set before it is used.

        Args:
            share: Share of the channels moved, in (0, 1].
        """
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
    """An image network without its head, averaged over the frames of a clip.

    Channels lie last in memory, which makes a step on a CPU up to three times faster.
    """

    def __init__(self, network: nn.Module, with_deviation: bool = False) -> None:
        """Wrap a network.

        Args:
            network: Turns images (N, 3, H, W) into features (N, D).
            with_deviation: Give the standard deviation over the frames beside the mean.
        """
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)
        self.with_deviation = with_deviation

    def forward(self, clips: Tensor) -> Tensor:
        """Return features (B, D) of clips (B, 3, T, H, W); (B, 2 · D) with the deviation."""
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


def build_image_network(
    name: str,
    *,
    pretrained: bool = False,
    weights: Path | None = None,
    tsm_fraction: float = 0.0,
    with_deviation: bool = False,
) -> tuple[ImageNetwork, int, float]:
    """Build an image network as the backbone of a video network.

    Args:
        name: Of an image network.
        pretrained: Take the published ImageNet weights.
        weights: Take the weights of this file, of this network; its head is left out.
        tsm_fraction: Share of the channels that move by one frame, in [0, 1]; 0 for none.
        with_deviation: Give the standard deviation over the frames beside the mean.

    Returns:
        The network, the number of its features, and the dropout before its own head.

    Raises:
        ValueError: If there is no such network, its weights cannot be had or do not fit, or it has
            no blocks that are known to take a shift.
    """
    network = build_classifier(name, pretrained)
    if weights is not None:
        load_classifier(network, weights, name, with_head=False)
    feature_dim, dropout = remove_classifier(network, name)
    if tsm_fraction:
        _insert_shifts(network, tsm_fraction, name)
    return ImageNetwork(network, with_deviation), feature_dim * (1 + with_deviation), dropout


def _insert_shifts(network: nn.Module, share: float, name: str) -> None:
    branches = [
        (block, key)
        for block in network.modules()
        if getattr(block, "use_res_connect", getattr(block, "has_skip", True))
        for key in _BRANCHES.get(type(block).__name__, ())
        if hasattr(block, key)
    ]
    for block, key in branches:
        setattr(block, key, nn.Sequential(TemporalShift(share), getattr(block, key)))
    if not branches:
        raise ValueError(
            f"tsm_fraction: {name} has no residual blocks that are known here; set it to 0 or "
            "take a ResNet, an EfficientNet or a MobileNet"
        )
