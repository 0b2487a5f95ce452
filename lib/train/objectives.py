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
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from lib.augment.scene import SCENE_AUGMENTATIONS, MixedClips, SceneAugmentation, mix_targets
from lib.train import adaptive, losses
from lib.train.step import ClipTensors, StepLoss, labeled_stats, mean_of, unlabeled_stats

ACTOR_CUTMIX = SCENE_AUGMENTATIONS["actor_cutmix"]


@dataclass(frozen=True)
class Objective:
    """What all objectives share: tensors that they keep from step to step.

    Attributes:
        state: Name -> tensor. It is part of a run's checkpoint, for each process its own, and
            continues with the run; after that its tensors are on the CPU.
        uses_unlabeled: Whether it needs unlabelled clips.
    """

    uses_unlabeled: ClassVar[bool] = True
    state: dict[str, Tensor] = field(default_factory=dict, kw_only=True, compare=False)

    def begin(self, rows: np.ndarray) -> None:
        """Prepare the state for a run on videos (index rows, shape (N,)) of which clips come."""

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
        average: nn.Module | None = None,
    ) -> StepLoss:
        """Return the loss of one batch; `unlabeled` and `average` are not used."""
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
        soft_target_weight: Weight of another model's class probabilities in the pseudo-labels, in
            [0, 1], where the clips have them.
        joint_forward: Whether weak clips are in that pass; if not, they follow it, without any.

    Source: Zou et al., equations 1 to 3; Sohn et al., FixMatch.
    """

    labeled: SupervisedObjective = field(default_factory=SupervisedObjective)
    confidence_threshold: float = 0.95
    unlabeled_weight: float = 1.0
    scene_p: float = 0.5
    scene: SceneAugmentation = ACTOR_CUTMIX
    distillation_weight: float = 0.0
    soft_target_weight: float = 0.5
    joint_forward: bool = True

    def mix(
        self, labeled: ClipTensors, unlabeled: ClipTensors, generator: torch.Generator
    ) -> tuple[MixedClips, MixedClips]:
        """Return the labelled and the strong unlabelled clips as the network is fed them."""
        own, _ = self.labeled.mix(labeled, None, generator)
        return own, _mix(unlabeled, "strong", self.scene, self.scene_p, generator)

    def confident(self, logits: Tensor, rows: Tensor | None) -> Tensor:
        """Return the weights (B,), 0 to 1, of pseudo-labels from the weak views' logits (B, K)."""
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
        average: nn.Module | None = None,
    ) -> StepLoss:
        """Return the loss of one labelled and one unlabelled batch.

        Args:
            model: The network.
            labeled: Labelled clips.
            unlabeled: Unlabelled clips.
            generator: For the scene augmentation.
            average: The network that gives the pseudo-labels; None for `model` itself.
        """
        own, strong = self.mix(labeled, unlabeled, generator)
        together = [own.clips, *[unlabeled.weak] * self.joint_forward, strong.clips]
        everything, parts = torch.cat(together), list(map(len, together))
        if self.distillation_weight:
            logits, teacher_logits = model(everything, with_teacher=True)
        else:
            logits = model(everything)
        labeled_logits, *weak_logits, strong_logits = logits.split(parts)

        targets = mix_targets(labeled.targets, own.partner, own.label_weight)
        labeled_loss = losses.soft_cross_entropy(labeled_logits, targets).mean()
        with torch.no_grad():
            if average is not None or not weak_logits:
                weak_logits = [(model if average is None else average)(unlabeled.weak)]
            keep = self.confident(weak_logits[0], unlabeled.row)
            pseudo = self.pseudo_labels(weak_logits[0])
            if unlabeled.soft is not None:
                pseudo = pseudo.lerp(unlabeled.soft.to(pseudo), self.soft_target_weight)
            pseudo = mix_targets(pseudo, strong.partner, strong.label_weight)
        unlabeled_loss = self.consistency(strong_logits, pseudo, keep)
        loss = labeled_loss + self.unlabeled_weight * unlabeled_loss
        stats = labeled_stats(labeled_loss, labeled_logits, labeled.targets)
        stats |= unlabeled_stats(unlabeled_loss, weak_logits[0], keep, unlabeled.targets)
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

    Source: Zou et al., section 4.4; Xie et al., UDA. Targets are detached (docs/reference.md).
    """

    confidence_threshold: float = 0.8
    temperature: float = 0.4

    def pseudo_labels(self, logits: Tensor) -> Tensor:
        """Return the targets (B, K) that the weak views' logits (B, K) give."""
        return losses.sharpened_targets(logits, self.temperature)

    def consistency(self, logits: Tensor, targets: Tensor, keep: Tensor) -> Tensor:
        """Return the unlabelled loss of the strong views."""
        return losses.uda_loss(logits, targets, keep)


@dataclass(frozen=True)
class FlexMatchObjective(FixMatchObjective):
    """As FixMatch, with a lower threshold for classes that are learned slowly."""

    def begin(self, rows: np.ndarray) -> None:
        """Count every video of the run as not confident yet."""
        selected = torch.full((int(rows.max()) + 1,), adaptive.NOT_LISTED)
        selected[torch.from_numpy(np.asarray(rows))] = adaptive.UNSEEN
        self.state["selected"] = selected

    def confident(self, logits: Tensor, rows: Tensor | None) -> Tensor:
        """Return the weights (B,) of the pseudo-labels."""
        return adaptive.flexmatch_weights(logits, rows, self.state, self.confidence_threshold)


@dataclass(frozen=True)
class FreeMatchObjective(FixMatchObjective):
    """As FixMatch, with thresholds that follow the confidence, and a fairness loss.

    Args:
        threshold_momentum: Of the moving averages, in [0, 1).
        fairness_weight: Weight of the fairness loss within the unlabelled loss.
    """

    threshold_momentum: float = 0.999
    fairness_weight: float = 0.01

    def confident(self, logits: Tensor, rows: Tensor | None) -> Tensor:
        """Return the weights (B,) of the pseudo-labels."""
        return adaptive.freematch_weights(logits, self.state, self.threshold_momentum)

    def consistency(self, logits: Tensor, targets: Tensor, keep: Tensor) -> Tensor:
        """Return the unlabelled loss of the strong views."""
        fairness = adaptive.freematch_fairness(logits, keep, self.state)
        return super().consistency(logits, targets, keep) + self.fairness_weight * fairness


@dataclass(frozen=True)
class SoftMatchObjective(FixMatchObjective):
    """As FixMatch, with a weight for every pseudo-label instead of a threshold.

    Args:
        threshold_momentum: Of the moving averages, in [0, 1).
    """

    threshold_momentum: float = 0.999

    def confident(self, logits: Tensor, rows: Tensor | None) -> Tensor:
        """Return the weights (B,) of the pseudo-labels."""
        return adaptive.softmatch_weights(logits, self.state, self.threshold_momentum)


OBJECTIVES: dict[str, type[Objective]] = {
    "linear_probe": SupervisedObjective,  # of the head alone, at its minimum: `probe.py`
    "supervised": SupervisedObjective,
    "fixmatch": FixMatchObjective,
    "uda": UDAObjective,
    "flexmatch": FlexMatchObjective,
    "freematch": FreeMatchObjective,
    "softmatch": SoftMatchObjective,
}


def _mix(
    batch: ClipTensors, view: str, scene: SceneAugmentation, p: float, generator: torch.Generator
) -> MixedClips:
    drawn = scene.draw(p, generator)
    return scene.apply(batch.weak, getattr(batch, view), batch.person_mask, drawn)
