"""What a network is trained to minimise: one object per training mode.

| mode | labelled view | scene on labelled | objective |
|---|---|---|---|
| supervised | weak | 0 | `SupervisedObjective` |
| strongly augmented supervised | strong | p | `SupervisedObjective` |
| semi-supervised | weak | 0 | `FixMatchObjective`, `UDAObjective` |
| cross-data-set semi-supervised | strong | p | the same, unlabelled clips of another data set |
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lib.augment.actor_cutmix import MixedClips, actor_cutmix, mix_targets
from lib.learn import losses


class ClipTensors(NamedTuple):
    """A batch of clips on the device, normalised.

    Attributes:
        weak: Weak views, shape (B, C, T, H, W); None where only strong ones are used.
        strong: Strong views, same shape, or None.
        human_mask: 1 on people in the weak views, shape (B, 1, T, H, W), or None.
        targets: One-hot labels, shape (B, K). Of unlabelled clips they are only compared with, and
            zero where the class is not known.
        teacher: ImageNet probabilities, shape (B, 1000), or None.
    """

    weak: Tensor | None
    strong: Tensor | None
    human_mask: Tensor | None
    targets: Tensor
    teacher: Tensor | None = None


class StepLoss(NamedTuple):
    """What an objective returns.

    Attributes:
        loss: What to minimise, a scalar.
        stats: For the log: name -> (sum, count); means over any number of batches are exact.
    """

    loss: Tensor
    stats: dict[str, tuple[Tensor, Tensor]]


SceneAugmentation = Callable[[Tensor, Tensor, Tensor, float, torch.Generator], MixedClips]


@dataclass(frozen=True)
class SupervisedObjective:
    """Cross-entropy with the labels.

    Args:
        view: View of the clips that is learned from, `weak` or `strong`.
        scene_p: Probability of the scene augmentation of a batch, in [0, 1].
        scene: The scene augmentation.

    Source: Zou et al., section 3.1 (labelled loss) and 4.2 (strongly augmented supervised).
    """

    view: str = "weak"
    scene_p: float = 0.0
    scene: SceneAugmentation = actor_cutmix

    def prepare(self, batch: ClipTensors, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the clips to learn from (B, C, T, H, W) and their targets (B, K)."""
        clips = getattr(batch, self.view)
        if not self.scene_p:
            return clips, batch.targets
        mixed = self.scene(batch.weak, clips, batch.human_mask, self.scene_p, generator)
        return mixed.clips, mix_targets(batch.targets, mixed.partner, mixed.label_weight)

    def __call__(
        self,
        model: nn.Module,
        labeled: ClipTensors,
        unlabeled: None,
        generator: torch.Generator,
    ) -> StepLoss:
        """Return the loss of one batch; `unlabeled` is not used."""
        clips, targets = self.prepare(labeled, generator)
        logits = model(clips)
        loss = losses.soft_cross_entropy(logits, targets).mean()
        stats = {"loss/total": _mean_of(loss)} | labeled_stats(loss, logits, labeled.targets)
        return StepLoss(loss, stats)


@dataclass(frozen=True)
class FixMatchObjective:
    """Labelled loss, and agreement of the strong view with confident hard pseudo-labels.

    Labelled, weak and strong clips go through the network in one pass, so that batch norm sees them
    together. Gradients do not flow into the pseudo-labels.

    Args:
        labeled: The labelled loss.
        confidence_threshold: Pseudo-labels below it do not count, in (0, 1].
        unlabeled_weight: Weight of the unlabelled loss, at least 0.
        scene_p: Probability of the scene augmentation of an unlabelled batch, in [0, 1].
        scene: The scene augmentation.
        distillation_weight: Weight of the ImageNet distillation on the weak views; 0 for none.

    Source: Zou et al., equations 1 to 3; Sohn et al., FixMatch.
    """

    labeled: SupervisedObjective = field(default_factory=SupervisedObjective)
    confidence_threshold: float = 0.95
    unlabeled_weight: float = 1.0
    scene_p: float = 0.5
    scene: SceneAugmentation = actor_cutmix
    distillation_weight: float = 0.0

    def pseudo_labels(self, logits: Tensor) -> Tensor:
        """Return the targets (B, K) that the weak views' logits (B, K) give."""
        return losses.hard_targets(logits)

    def consistency(self, logits: Tensor, targets: Tensor, keep: Tensor) -> Tensor:
        """Return the unlabelled loss of the strong views."""
        return losses.fixmatch_loss(logits, targets, keep)

    def __call__(
        self,
        model: nn.Module,
        labeled: ClipTensors,
        unlabeled: ClipTensors,
        generator: torch.Generator,
    ) -> StepLoss:
        """Return the loss of one labelled and one unlabelled batch."""
        clips, targets = self.labeled.prepare(labeled, generator)
        strong = unlabeled.strong
        mixed = None
        if self.scene_p:
            mixed = self.scene(
                unlabeled.weak, strong, unlabeled.human_mask, self.scene_p, generator
            )
            strong = mixed.clips
        everything = torch.cat([clips, unlabeled.weak, strong])
        parts = [len(clips), len(strong), len(strong)]
        if self.distillation_weight:
            logits, teacher_logits = model(everything, with_teacher=True)
        else:
            logits = model(everything)
        labeled_logits, weak_logits, strong_logits = logits.split(parts)

        labeled_loss = losses.soft_cross_entropy(labeled_logits, targets).mean()
        with torch.no_grad():
            keep = losses.confident(weak_logits, self.confidence_threshold)
            pseudo = self.pseudo_labels(weak_logits)
            if mixed is not None:
                pseudo = mix_targets(pseudo, mixed.partner, mixed.label_weight)
        unlabeled_loss = self.consistency(strong_logits, pseudo, keep)
        loss = labeled_loss + self.unlabeled_weight * unlabeled_loss
        stats = labeled_stats(labeled_loss, labeled_logits, labeled.targets)
        stats |= unlabeled_stats(unlabeled_loss, weak_logits, keep, unlabeled.targets)
        if self.distillation_weight:
            weak_teacher_logits = teacher_logits.split(parts)[1]
            distillation = losses.soft_cross_entropy(weak_teacher_logits, unlabeled.teacher).mean()
            loss = loss + self.distillation_weight * distillation
            stats["loss/distillation"] = _mean_of(distillation)
        return StepLoss(loss, {"loss/total": _mean_of(loss)} | stats)


@dataclass(frozen=True)
class UDAObjective(FixMatchObjective):
    """As FixMatch, with sharpened soft pseudo-labels and a mean over the confident clips.

    Args:
        temperature: Sharpening temperature of the pseudo-labels, above 0.

    Source: Zou et al., section 4.4; Xie et al., UDA. Targets are detached (README, differences).
    """

    confidence_threshold: float = 0.8
    temperature: float = 0.4

    def pseudo_labels(self, logits: Tensor) -> Tensor:
        """Return the targets (B, K) that the weak views' logits (B, K) give."""
        return losses.sharpened_targets(logits, self.temperature)

    def consistency(self, logits: Tensor, targets: Tensor, keep: Tensor) -> Tensor:
        """Return the unlabelled loss of the strong views."""
        return losses.uda_loss(logits, targets, keep)


def _mean_of(value: Tensor) -> tuple[Tensor, Tensor]:
    return value.detach(), torch.ones_like(value)


def labeled_stats(loss: Tensor, logits: Tensor, targets: Tensor) -> dict:
    """Return the log entries of the labelled clips; `targets` are the labels before mixing."""
    correct = (logits.argmax(dim=1) == targets.argmax(dim=1)).to(loss.dtype)
    count = torch.full_like(loss, len(logits)).detach()
    return {"loss/labeled": _mean_of(loss), "train/top1_clip": (correct.sum(), count)}


def unlabeled_stats(loss: Tensor, weak_logits: Tensor, keep: Tensor, targets: Tensor) -> dict:
    """Return the log entries of the unlabelled clips; zero targets mean an unknown class."""
    known = targets.sum(dim=1) * keep
    correct = (weak_logits.argmax(dim=1) == targets.argmax(dim=1)).to(keep.dtype)
    return {
        "loss/unlabeled": _mean_of(loss),
        "ssl/mask_rate": (keep.sum(), torch.full_like(loss, len(keep)).detach()),
        "ssl/pseudo_label_accuracy": ((correct * known).sum(), known.sum()),
    }
