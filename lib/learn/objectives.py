"""What a network is trained to minimise: one object per training mode.

| mode | labelled view | scene on labelled | objective |
|---|---|---|---|
| supervised | weak | 0 | `SupervisedObjective` |
| strongly augmented supervised | strong | p | `SupervisedObjective` |
| semi-supervised | weak | 0 | `FixMatchObjective`, `UDAObjective` |
| cross-data-set semi-supervised | strong | p | the same, unlabelled clips of another data set |

`OBJECTIVES` is the one place that names them.
"""

from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from lib.augment.actor_cutmix import MixedClips, mix_targets
from lib.augment.scene import SCENE_AUGMENTATIONS, SceneAugmentation
from lib.learn import losses

ACTOR_CUTMIX = SCENE_AUGMENTATIONS["actor_cutmix"]


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


@dataclass(frozen=True)
class Objective:
    """What all objectives share: tensors that they keep from step to step.

    Attributes:
        state: Name -> tensor. It is part of a run's checkpoint, for each process its own, and
            continues with the run; after that its tensors are on the CPU.
        uses_unlabeled: Whether it needs unlabelled clips.
        takes: Settings that the fields of the same names take their values from.
    """

    uses_unlabeled: ClassVar[bool] = True
    takes: ClassVar[tuple[str, ...]] = ()
    state: dict[str, Tensor] = field(default_factory=dict, kw_only=True, compare=False)

    def state_dict(self) -> dict[str, Tensor]:
        """Return a copy of the state, on the CPU."""
        return {name: value.detach().cpu().clone() for name, value in self.state.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue with a state."""
        self.state.update({name: value.clone() for name, value in state.items()})


@dataclass(frozen=True)
class SupervisedObjective(Objective):
    """Cross-entropy with the labels.

    Args:
        view: View of the clips that is learned from, `weak` or `strong`.
        scene_p: Probability of the scene augmentation of a batch, in [0, 1].
        scene: The scene augmentation.

    Source: Zou et al., section 3.1 (labelled loss) and 4.2 (strongly augmented supervised).
    """

    uses_unlabeled = False
    view: str = "weak"
    scene_p: float = 0.0
    scene: SceneAugmentation = ACTOR_CUTMIX

    def mix(
        self, labeled: ClipTensors, unlabeled: None, generator: torch.Generator
    ) -> tuple[MixedClips, None]:
        """Return the labelled clips as the network is fed them; `unlabeled` is not used."""
        return _mix(labeled, self.view, self.scene, self.scene_p, generator), None

    def __call__(
        self,
        model: nn.Module,
        labeled: ClipTensors,
        unlabeled: None,
        generator: torch.Generator,
    ) -> StepLoss:
        """Return the loss of one batch; `unlabeled` is not used."""
        mixed, _ = self.mix(labeled, None, generator)
        targets = mix_targets(labeled.targets, mixed.partner, mixed.label_weight)
        logits = model(mixed.clips)
        loss = losses.soft_cross_entropy(logits, targets).mean()
        stats = {"loss/total": mean_of(loss)} | labeled_stats(loss, logits, labeled.targets)
        return StepLoss(loss, stats)


@dataclass(frozen=True)
class FixMatchObjective(Objective):
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

    takes = ("confidence_threshold", "unlabeled_weight", "distillation_weight")
    labeled: SupervisedObjective = field(default_factory=SupervisedObjective)
    confidence_threshold: float = 0.95
    unlabeled_weight: float = 1.0
    scene_p: float = 0.5
    scene: SceneAugmentation = ACTOR_CUTMIX
    distillation_weight: float = 0.0

    def mix(
        self, labeled: ClipTensors, unlabeled: ClipTensors, generator: torch.Generator
    ) -> tuple[MixedClips, MixedClips]:
        """Return the labelled and the strong unlabelled clips as the network is fed them."""
        own, _ = self.labeled.mix(labeled, None, generator)
        return own, _mix(unlabeled, "strong", self.scene, self.scene_p, generator)

    def confident(self, logits: Tensor) -> Tensor:
        """Return 1 where the weak views' logits (B, K) are confident enough, else 0, shape (B,)."""
        return losses.confident(logits, self.confidence_threshold)

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
        own, strong = self.mix(labeled, unlabeled, generator)
        everything = torch.cat([own.clips, unlabeled.weak, strong.clips])
        parts = [len(own.clips), len(strong.clips), len(strong.clips)]
        if self.distillation_weight:
            logits, teacher_logits = model(everything, with_teacher=True)
        else:
            logits = model(everything)
        labeled_logits, weak_logits, strong_logits = logits.split(parts)

        targets = mix_targets(labeled.targets, own.partner, own.label_weight)
        labeled_loss = losses.soft_cross_entropy(labeled_logits, targets).mean()
        with torch.no_grad():
            keep = self.confident(weak_logits)
            pseudo = self.pseudo_labels(weak_logits)
            pseudo = mix_targets(pseudo, strong.partner, strong.label_weight)
        unlabeled_loss = self.consistency(strong_logits, pseudo, keep)
        loss = labeled_loss + self.unlabeled_weight * unlabeled_loss
        stats = labeled_stats(labeled_loss, labeled_logits, labeled.targets)
        stats |= unlabeled_stats(unlabeled_loss, weak_logits, keep, unlabeled.targets)
        if self.distillation_weight:
            weak_teacher_logits = teacher_logits.split(parts)[1]
            distillation = losses.soft_cross_entropy(weak_teacher_logits, unlabeled.teacher).mean()
            loss = loss + self.distillation_weight * distillation
            stats["loss/distillation"] = mean_of(distillation)
        return StepLoss(loss, {"loss/total": mean_of(loss)} | stats)


@dataclass(frozen=True)
class UDAObjective(FixMatchObjective):
    """As FixMatch, with sharpened soft pseudo-labels and a mean over the confident clips.

    Args:
        temperature: Sharpening temperature of the pseudo-labels, above 0.

    Source: Zou et al., section 4.4; Xie et al., UDA. Targets are detached (README, differences).
    """

    takes = (*FixMatchObjective.takes, "temperature")
    confidence_threshold: float = 0.8
    temperature: float = 0.4

    def pseudo_labels(self, logits: Tensor) -> Tensor:
        """Return the targets (B, K) that the weak views' logits (B, K) give."""
        return losses.sharpened_targets(logits, self.temperature)

    def consistency(self, logits: Tensor, targets: Tensor, keep: Tensor) -> Tensor:
        """Return the unlabelled loss of the strong views."""
        return losses.uda_loss(logits, targets, keep)


OBJECTIVES: dict[str, type[Objective]] = {
    "probe": SupervisedObjective,  # of the head alone, at its minimum: `probe.py`
    "supervised": SupervisedObjective,
    "fixmatch": FixMatchObjective,
    "uda": UDAObjective,
}


def _mix(
    batch: ClipTensors, view: str, scene: SceneAugmentation, p: float, generator: torch.Generator
) -> MixedClips:
    drawn = scene.draw(p, generator)
    return scene.apply(batch.weak, getattr(batch, view), batch.human_mask, drawn)


def mean_of(value: Tensor) -> tuple[Tensor, Tensor]:
    """Return a mean as (sum, count) of one batch."""
    return value.detach(), torch.ones_like(value)


def labeled_stats(loss: Tensor, logits: Tensor, targets: Tensor) -> dict:
    """Return the log entries of the labelled clips; `targets` are the labels before mixing."""
    correct = (logits.argmax(dim=1) == targets.argmax(dim=1)).to(loss.dtype)
    count = torch.full_like(loss, len(logits)).detach()
    return {"loss/labeled": mean_of(loss), "train/top1_clip": (correct.sum(), count)}


def unlabeled_stats(loss: Tensor, weak_logits: Tensor, keep: Tensor, targets: Tensor) -> dict:
    """Return the log entries of the unlabelled clips; zero targets mean an unknown class."""
    known = targets.sum(dim=1) * keep
    correct = (weak_logits.argmax(dim=1) == targets.argmax(dim=1)).to(keep.dtype)
    return {
        "loss/unlabeled": mean_of(loss),
        "ssl/mask_rate": (keep.sum(), torch.full_like(loss, len(keep)).detach()),
        "ssl/pseudo_label_accuracy": ((correct * known).sum(), known.sum()),
    }
