"""Residual networks over clips: 3D, or (2+1)D with factorized convolutions.

Kernels and strides are (time, height, width).
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

Triple = tuple[int, int, int]
ConvBuilder = Callable[[int, int, Triple, Triple], nn.Module]
NormBuilder = Callable[[int], nn.Module]


def conv3d(
    in_channels: int,
    out_channels: int,
    kernel: Triple,
    stride: Triple,
    build: type[nn.Conv3d] = nn.Conv3d,
) -> nn.Conv3d:
    """Build a space-time convolution without bias that keeps the size up to its stride."""
    padding = tuple(size // 2 for size in kernel)
    return build(in_channels, out_channels, kernel, stride, padding, bias=False)


class ChannelsLastConv3d(nn.Conv3d):
    """A convolution that moves its channels last if they are few, twice as fast on a CPU."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (B, C, T, H, W); the output is contiguous, which suits group norm."""
        if self.in_channels < 16 and self.kernel_size != (1, 1, 1):
            x = x.contiguous(memory_format=torch.channels_last_3d)
        return super().forward(x).contiguous()


class Conv2Plus1d(nn.Module):
    """A convolution in space, batch norm and ReLU, then a convolution in time.

    The channels between give the pair as many weights as a 3 x k x k convolution has. They are the
    paper's M_i for a temporal extent of 3, also for a shortcut's 1 x 1 x 1 kernel, as in the
    reference (mmaction/models/common/conv2plus1d.py).

    Source: Tran et al., "A Closer Look at Spatiotemporal Convolutions for Action Recognition"
    (arXiv 1711.11248), section 3.5.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: Triple, stride: Triple) -> None:
        super().__init__()
        (k_t, k_h, k_w), (s_t, s_h, s_w) = kernel, stride
        area = k_h * k_w
        mid = 3 * area * in_channels * out_channels // (area * in_channels + 3 * out_channels)
        self.spatial = conv3d(in_channels, mid, (1, k_h, k_w), (1, s_h, s_w))
        self.norm = nn.BatchNorm3d(mid)
        self.temporal = conv3d(mid, out_channels, (k_t, 1, 1), (s_t, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (B, C, T, H, W) in space, then in time."""
        return self.temporal(torch.relu_(self.norm(self.spatial(x))))


class FrameDifferences(nn.Module):
    """Difference to the previous frame as further channels; 0 in the first frame."""

    def forward(self, clips: Tensor) -> Tensor:
        """Turn clips (B, C, T, H, W) into (B, 2·C, T, H, W)."""
        return torch.cat([clips, clips.diff(dim=2, prepend=clips[:, :, :1])], dim=1)


def _conv_norm(conv: nn.Module, channels: int, norm: NormBuilder) -> nn.Sequential:
    return nn.Sequential(OrderedDict(conv=conv, norm=norm(channels)))


class ResidualBlock(nn.Module):
    """Two 3 x 3 x 3 convolutions and a shortcut: relu(conv2(relu(conv1(x))) + shortcut(x)).

    A norm follows each. The weights of the second norm start at 1, not at 0: with 0, the small
    network learned scenes instead of motion.
    """

    def __init__(
        self, conv: ConvBuilder, in_channels: int, channels: int, stride: Triple, norm: NormBuilder
    ) -> None:
        super().__init__()
        kernel = (3, 3, 3)
        self.conv1 = _conv_norm(conv(in_channels, channels, kernel, stride), channels, norm)
        self.conv2 = _conv_norm(conv(channels, channels, kernel, (1, 1, 1)), channels, norm)
        self.shortcut: nn.Module = nn.Identity()
        if in_channels != channels or stride != (1, 1, 1):
            projection = conv(in_channels, channels, (1, 1, 1), stride)
            self.shortcut = _conv_norm(projection, channels, norm)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block to (B, C, T, H, W)."""
        y = self.conv2(torch.relu_(self.conv1(x)))
        return torch.relu_(y + self.shortcut(x))


class VideoResNet(nn.Module):
    """A residual network over clips; 3D and (2+1)D networks differ only in `conv`.

    Args:
        conv: Builds a convolution from (in_channels, out_channels, kernel, stride).
        layers: Number of residual blocks of each stage.
        widths: Channels of each stage.
        stem_width: Channels after the stem, whose spatial stride is 2.
        spatial_strides: Spatial stride of the first block of each stage; as `temporal_strides`.
        norm: Builds a norm from its number of channels; not used inside a (2+1)D pair.

    Source: the reference's mmaction/models/backbones/resnet3d.py, in structure and initialization.
    """

    def __init__(
        self,
        conv: ConvBuilder,
        layers: Sequence[int],
        widths: Sequence[int],
        *,
        stem_width: int,
        stem_kernel: Triple,
        spatial_strides: Sequence[int],
        temporal_strides: Sequence[int],
        stem_pool: nn.Module | None = None,
        stage1_pool: nn.Module | None = None,
        norm: NormBuilder = nn.BatchNorm3d,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        stem = conv(in_channels, stem_width, stem_kernel, (1, 2, 2))
        self.stem = _conv_norm(stem, stem_width, norm)
        self.stem_pool = stem_pool or nn.Identity()
        self.stage1_pool = stage1_pool or nn.Identity()
        self.stages = nn.Sequential()
        channels = stem_width
        for depth, width, s_s, s_t in zip(
            layers, widths, spatial_strides, temporal_strides, strict=True
        ):
            stage = nn.Sequential()
            for i in range(depth):
                stride = (s_t, s_s, s_s) if i == 0 else (1, 1, 1)
                stage.append(ResidualBlock(conv, channels, width, stride, norm))
                channels = width
            self.stages.append(stage)
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, clips: Tensor) -> Tensor:
        """Turn clips (B, C, T, H, W) into features (B, D), averaged over time and space."""
        x = self.stem_pool(torch.relu_(self.stem(clips)))
        x = self.stage1_pool(self.stages[0](x))
        x = self.stages[1:](x)
        return x.mean(dim=(2, 3, 4))
