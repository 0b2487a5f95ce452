"""Residual networks over clips, 3D or (2+1)D by the convolution they are built from."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

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
    """Build a space-time convolution that keeps the size up to its stride; no bias."""
    padding = tuple(size // 2 for size in kernel)
    return build(in_channels, out_channels, kernel, stride, padding, bias=False)


class CpuConv3d(nn.Conv3d):
    """A convolution that lays few channels last for its own work: CPUs are twice as fast so."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (B, C, T, H, W), whose channels come first again: group norm is faster so."""
        if self.in_channels < 16 and self.kernel_size != (1, 1, 1):
            x = x.contiguous(memory_format=torch.channels_last_3d)
        return super().forward(x).contiguous()


class Conv2Plus1d(nn.Module):
    """A convolution in space, batch norm and ReLU, then a convolution in time.

    Source: Tran et al., "A Closer Look at Spatiotemporal Convolutions for Action Recognition"
    (arXiv 1711.11248), section 3.5.
    """

    def __init__(
        self, in_channels: int, mid_channels: int, out_channels: int, kernel: Triple, stride: Triple
    ) -> None:
        """Build the pair.

        Args:
            in_channels: Channels of the input.
            mid_channels: Channels between the two convolutions.
            out_channels: Channels of the output.
            kernel: Odd kernel sizes (time, height, width).
            stride: Strides (time, height, width).
        """
        super().__init__()
        (k_t, k_h, k_w), (s_t, s_h, s_w) = kernel, stride
        self.spatial = conv3d(in_channels, mid_channels, (1, k_h, k_w), (1, s_h, s_w))
        self.norm = nn.BatchNorm3d(mid_channels)
        self.temporal = conv3d(mid_channels, out_channels, (k_t, 1, 1), (s_t, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (B, C, T, H, W) in space, then in time."""
        return self.temporal(torch.relu_(self.norm(self.spatial(x))))


def conv2plus1d(in_channels: int, out_channels: int, kernel: Triple, stride: Triple) -> Conv2Plus1d:
    """Build a (2+1)D pair with as many weights as a 3 x k x k convolution has.

    The channels between the two are the paper's M_i for a temporal extent of 3, which the reference
    takes for a shortcut's 1 x 1 x 1 kernel too (mmaction/models/common/conv2plus1d.py).
    """
    area = kernel[1] * kernel[2]
    mid_channels = 3 * area * in_channels * out_channels // (area * in_channels + 3 * out_channels)
    return Conv2Plus1d(in_channels, mid_channels, out_channels, kernel, stride)


def thin_conv2plus1d(
    in_channels: int, out_channels: int, kernel: Triple, stride: Triple
) -> nn.Module:
    """Build a (2+1)D pair as wide as its ends (a multiple of 8), or a plain 1 x 1 x 1 shortcut.

    It has less than half the weights of `conv2plus1d`.
    """
    if kernel == (1, 1, 1):
        return conv3d(in_channels, out_channels, kernel, stride)
    mid_channels = max(8, (in_channels + out_channels) // 16 * 8)
    return Conv2Plus1d(in_channels, mid_channels, out_channels, kernel, stride)


def group_norm(channels: int) -> nn.GroupNorm:
    """Build a norm over 8 groups of channels of each clip alone.

    Other than batch norm, it lets labelled, weak and strong clips share no statistics, and is the
    same for any number of processes.
    """
    return nn.GroupNorm(8, channels)


class FrameDifferences(nn.Module):
    """Appends to each frame what changed since the one before: (B, C, ...) to (B, 2·C, ...)."""

    def forward(self, clips: Tensor) -> Tensor:
        """Turn clips (B, C, T, H, W) into (B, 2·C, T, H, W); nothing changed in the first frame."""
        return torch.cat([clips, clips.diff(dim=2, prepend=clips[:, :, :1])], dim=1)


def _conv_norm(conv: nn.Module, channels: int, norm: NormBuilder) -> nn.Sequential:
    return nn.Sequential(OrderedDict(conv=conv, norm=norm(channels)))


class ResidualBlock(nn.Module):
    """Two 3 x 3 x 3 convolutions and a shortcut: relu(conv2(relu(conv1(x))) + shortcut(x)).

    Each is followed by a norm. Those of the second start at 1 and not at 0: at 0, the small
    network learned scenes instead of motion.
    """

    def __init__(
        self, conv: ConvBuilder, in_channels: int, channels: int, stride: Triple, norm: NormBuilder
    ) -> None:
        """Build the block; its first convolution and its shortcut have the stride."""
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


def checkpoint_blocks(model: nn.Module) -> None:
    """Let residual blocks keep their input alone, and compute again going backward."""
    blocks = [module for module in model.modules() if isinstance(module, ResidualBlock)]
    if not blocks:
        raise ValueError("checkpoint_blocks: this network has no such blocks; set it to false")
    for block in blocks:
        ways = {"use_reentrant": False, "context_fn": partial(_first_and_again, block)}
        block.forward = partial(checkpoint, block.forward, **ways)


def _first_and_again(block: nn.Module) -> tuple:
    return nullcontext(), _untracked(block)


@contextmanager
def _untracked(block: nn.Module) -> Iterator[None]:
    """Leave the running statistics of batch norms alone: the first time has updated them."""
    norms = (module for module in block.modules() if hasattr(module, "momentum"))
    kept = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm, *_ in kept:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield  # PyTorch ends it by an exception, as soon as all is there
    finally:
        for norm, momentum, count in kept:
            norm.momentum, norm.num_batches_tracked = momentum, count


class VideoResNet(nn.Module):
    """A residual network over clips; 3D and (2+1)D networks differ in `conv` alone.

    Source: the reference's mmaction/models/backbones/resnet3d.py, in structure and initialisation.
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
        """Build the network.

        Args:
            conv: Makes a convolution from (in_channels, out_channels, kernel, stride).
            layers: Number of residual blocks of each stage.
            widths: Channels of each stage.
            stem_width: Channels after the stem, whose spatial stride is 2.
            stem_kernel: Kernel of the stem (time, height, width).
            spatial_strides: Spatial stride of the first block of each stage.
            temporal_strides: Temporal stride of the first block of each stage.
            stem_pool: Pooling after the stem, if any.
            stage1_pool: Pooling after the first stage, if any.
            norm: Makes every norm but those inside a (2+1)D pair, from its number of channels.
            in_channels: Channels of the input.
        """
        super().__init__()
        self.feature_dim = widths[-1]
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
