"""The shape of every network here: a backbone that gives one vector a clip, and linear heads."""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


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


_LAYERS = nn.Conv2d | nn.Conv3d | nn.Linear


class VideoClassifier(nn.Module):
    """A backbone, dropout and a linear head; a second head where a teacher is distilled."""

    def __init__(
        self,
        backbone: nn.Module,
        feature_dim: int,
        num_classes: int,
        dropout: float,
        teacher_classes: int = 0,
    ) -> None:
        """Put heads on a backbone.

        Args:
            backbone: Turns clips (B, 3, T, H, W) into features (B, D).
            feature_dim: D.
            num_classes: Number of action classes, at least 1.
            dropout: Probability of dropping a feature before each head, in [0, 1).
            teacher_classes: Number of classes of the distilled teacher; 0 for none.

        Raises:
            ValueError: If a number is out of its range.
        """
        super().__init__()
        if num_classes < 1 or teacher_classes < 0:
            raise ValueError(
                f"num_classes must be at least 1 and teacher_classes at least 0, "
                f"got {num_classes} and {teacher_classes}"
            )
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {dropout}")
        self.backbone = backbone
        self.dropout = nn.Dropout(dropout)
        self.head = _linear(feature_dim, num_classes)
        self.teacher_head = _linear(feature_dim, teacher_classes) if teacher_classes else None
        self.freeze_fraction, self.freeze_batch_norm = 0.0, False

    def freeze(self, share: float, norm: bool = False) -> None:
        """Keep the first layers of the backbone as they are, their batch norms too.

        Args:
            share: Share of its convolutions and linear layers, in their order, in [0, 1].
            norm: Keep the statistics of all its batch norms, also between layers that are trained.
        """
        self.freeze_fraction, self.freeze_batch_norm = share, norm
        for part in self._frozen() if share < 1 else [self.backbone]:
            part.requires_grad_(False)
        self.train(self.training)

    def _frozen(self) -> list[nn.Module]:
        leaves = [part for part in self.backbone.modules() if not list(part.children())]
        layers = [i for i, part in enumerate(leaves) if isinstance(part, _LAYERS)]
        count = round(self.freeze_fraction * len(layers))
        return leaves[: (*layers, len(leaves))[count]] if count else []

    def train(self, mode: bool = True) -> "VideoClassifier":
        """As of every network; what is frozen stays in evaluation mode."""
        super().train(mode)
        norms = [part for part in self.backbone.modules() if isinstance(part, _BatchNorm)]
        for part in [*self._frozen(), *norms * self.freeze_batch_norm]:
            part.eval()
        return self

    def features(self, clips: Tensor) -> Tensor:
        """Compute features (B, D) of clips (B, 3, T, H, W), before dropout."""
        return self.backbone(clips)

    def forward(self, clips: Tensor, with_teacher: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Classify clips.

        Args:
            clips: Normalised clips, shape (B, 3, T, H, W), floating point.
            with_teacher: Also predict the teacher's classes.

        Returns:
            Logits (B, num_classes); with the teacher, also logits (B, teacher_classes).

        Raises:
            ValueError: If the teacher's classes are asked of a network built without them.

        Source: as in the reference, each head has a dropout draw of its own
        (mmaction/models/recognizers/base_semi.py:45-50, heads/i3d_head.py).
        """
        features = self.features(clips)
        logits = self.head(self.dropout(features))
        if not with_teacher:
            return logits
        if self.teacher_head is None:
            raise ValueError("this network has no teacher head: build it with teacher_classes > 0")
        return logits, self.teacher_head(self.dropout(features))


def _linear(in_features: int, out_features: int) -> nn.Linear:
    layer = nn.Linear(in_features, out_features)
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)
    return layer
