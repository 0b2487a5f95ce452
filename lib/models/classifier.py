"""The structure of every network: a backbone, which computes a vector per clip, and heads."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

_LAYERS = nn.Conv2d | nn.Conv3d | nn.Linear
# They may have children (timm's activations), but hold weights themselves.
_NORMS = _BatchNorm | nn.GroupNorm | nn.LayerNorm


@dataclass(frozen=True)
class InputSpec:
    """The clips that a network was designed or published with, and the smallest that it takes.

    Mean and deviation are of red, green, blue in 0..255; sides in pixels. A fixed size is the only
    one that the network takes; other sizes are multiples, of the patches of a transformer.
    """

    mean: tuple[float, ...] = (123.675, 116.28, 103.53)
    std: tuple[float, ...] = (58.395, 57.12, 57.375)
    short_side: int = 256
    crop_size: int = 224
    min_clip_len: int = 1
    min_crop_size: int = 1
    fixed_clip_len: bool = False
    fixed_crop_size: bool = False
    clip_len_multiple: int = 1
    crop_size_multiple: int = 1

    def check(self, name: str, clip_len: int, crop_size: int) -> None:
        """Raise ValueError if the network called `name` does not take clips of this size."""
        for setting, value in (("clip_len", clip_len), ("crop_size", crop_size)):
            least, multiple = getattr(self, f"min_{setting}"), getattr(self, f"{setting}_multiple")
            is_fixed = getattr(self, f"fixed_{setting}")
            if value < least or value % multiple or (is_fixed and value > least):
                bound = "exactly" if is_fixed else "at least"
                multiples = f" and multiples of {multiple}" if multiple > 1 and not is_fixed else ""
                raise ValueError(
                    f"{setting}: {name} takes {bound} {least}{multiples}, not {value}; change the "
                    "setting or choose another model"
                )


class VideoClassifier(nn.Module):
    """A backbone, dropout and a linear head; a second head if a teacher is distilled.

    Args:
        backbone: Turns clips (B, 3, T, H, W) into features (B, feature_dim).
        feature_dim: Number of features.
        num_classes: Number of action classes.
        dropout: Probability of dropping a feature before each head, in [0, 1).
        teacher_classes: Number of classes of the distilled teacher; 0 for none.
    """

    def __init__(
        self,
        backbone: nn.Module,
        feature_dim: int,
        num_classes: int,
        dropout: float,
        teacher_classes: int = 0,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.dropout = nn.Dropout(dropout)
        self.head = _linear(feature_dim, num_classes)
        self.teacher_head = _linear(feature_dim, teacher_classes) if teacher_classes else None
        self.freeze_fraction, self.freeze_batch_norm = 0.0, False

    def freeze(self, fraction: float, batch_norm: bool = False) -> None:
        """Freeze the first layers of the backbone, with the norms that follow them.

        They are a fraction, in [0, 1], of its convolutions and linear layers, in their order.
        `batch_norm` freezes the statistics of all its batch norms, also between trained layers.
        """
        self.freeze_fraction, self.freeze_batch_norm = fraction, batch_norm
        for module in self._frozen_modules() if fraction < 1 else [self.backbone]:
            module.requires_grad_(False)
        self.train(self.training)

    def _frozen_modules(self) -> list[nn.Module]:
        modules = [
            module
            for module in self.backbone.modules()
            if isinstance(module, _NORMS) or not list(module.children())
        ]
        layers = [i for i, module in enumerate(modules) if isinstance(module, _LAYERS)]
        count = round(self.freeze_fraction * len(layers))
        return modules[: (*layers, len(modules))[count]] if count else []

    def train(self, mode: bool = True) -> "VideoClassifier":
        """Set the training mode; frozen modules stay in evaluation mode."""
        super().train(mode)
        norms = [module for module in self.backbone.modules() if isinstance(module, _BatchNorm)]
        for module in [*self._frozen_modules(), *norms * self.freeze_batch_norm]:
            module.eval()
        return self

    def forward(self, clips: Tensor, with_teacher: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Compute logits (B, num_classes) of normalized clips (B, 3, T, H, W).

        `with_teacher` adds the teacher's logits (B, teacher_classes). Each head draws its own
        dropout, as in the reference (mmaction/models/recognizers/base_semi.py:45-50).
        """
        features = self.backbone(clips)
        logits = self.head(self.dropout(features))
        if not with_teacher:
            return logits
        if self.teacher_head is None:
            raise ValueError("with_teacher: no teacher head; build it with teacher_classes > 0")
        return logits, self.teacher_head(self.dropout(features))


def _linear(in_features: int, out_features: int) -> nn.Linear:
    layer = nn.Linear(in_features, out_features)
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)
    return layer


# --- Transformer blocks ---------------------------------------------------------------------------


def find_blocks(network: nn.Module) -> dict[str, nn.Module]:
    """Return the transformer blocks of a network by name, in its order.

    They are the members of sequences that contain a layer norm, of the most frequent class.
    """
    members = dict(_members(network, ""))
    counts = Counter(map(type, members.values()))
    most = counts.most_common(1)
    return {k: block for k, block in members.items() if most[0] == (type(block), most[0][1])}


def _members(parent: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    is_sequence = isinstance(parent, nn.Sequential | nn.ModuleList)
    for name, child in parent.named_children():
        has_norm = any(isinstance(module, nn.LayerNorm) for module in child.modules())
        if is_sequence and has_norm and not isinstance(child, nn.Sequential | nn.LayerNorm):
            yield prefix + name, child
        else:
            yield from _members(child, f"{prefix}{name}.")


def insert_drop_path(network: nn.Module, rate: float, name: str) -> None:
    """Insert drop path: samples skip transformer blocks in training.

    The probability grows linearly over the blocks, from 0 to `rate`. A block whose parameters are
    frozen, or that changes the shape of its input, is never skipped. ValueError if `network`, of
    that name, has no transformer blocks.

    Source: Huang et al., "Deep Networks with Stochastic Depth" (arXiv 1603.09382), section 3.
    """
    if rate == 0:
        return
    blocks = list(find_blocks(network).values())
    if not blocks:
        raise ValueError(f"drop_path: {name} has no transformer blocks; set it to 0")
    for block, p in zip(blocks, torch.linspace(0, rate, len(blocks)).tolist(), strict=True):
        if any(parameter.requires_grad for parameter in block.parameters()):
            block.register_forward_hook(partial(_skip, p))


def _skip(p: float, block: nn.Module, inputs: tuple, output: Tensor | tuple) -> Tensor | tuple:
    x, (y, *others) = inputs[0], output if isinstance(output, tuple) else (output,)
    if not block.training or x.shape != y.shape:
        return output
    is_kept = torch.rand(len(x), *[1] * (x.ndim - 1), device=x.device) >= p
    y = torch.where(is_kept, x + (y - x) / (1 - p), x)
    return (y, *others) if isinstance(output, tuple) else y


def layer_depths(network: nn.Module) -> tuple[dict[str, int], int]:
    """Return the depth of each parameter, and the number of transformer blocks N.

    Depth 0 is before the first block, n within the n-th one, N + 1 after the last one.
    """
    prefixes = [f"{name}." for name in find_blocks(network)]
    depths, depth = {}, 0
    for name, _ in network.named_parameters():
        own = next((n for n, prefix in enumerate(prefixes, 1) if name.startswith(prefix)), None)
        if own is None and depth == len(prefixes):
            own = depth + 1
        depth = depth if own is None else own
        depths[name] = depth
    return depths, len(prefixes)
