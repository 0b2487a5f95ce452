"""Image classifiers of torchvision and timm as video networks: features averaged over the frames.

Source: Wang et al., "Temporal Segment Networks" (arXiv 1608.00859).
"""

import torch
from torch import Tensor, nn


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
        frames = clips.transpose(1, 2).flatten(0, 1).contiguous(memory_format=torch.channels_last)
        features = self.network(frames).unflatten(0, (-1, num_frames))
        mean = features.mean(dim=1)
        if not self.with_deviation:
            return mean
        return torch.cat([mean, features.std(dim=1, correction=0)], dim=1)
