"""Objectives: the loss of a training step, one class per training mode.

| mode | labeled view | scene augmentation of labeled clips | objective |
|---|---|---|---|
| supervised | weak | 0 | `SupervisedObjective` |
| strongly augmented supervised | strong | p | `SupervisedObjective` |
| semi-supervised | weak | 0 | `FixMatchObjective`, `UDAObjective` |
| cross-data-set semi-supervised | strong | p | the same, unlabeled clips of another data set |
"""

from dataclasses import dataclass, fields
from typing import ClassVar, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.augment.scene import SCENE_AUGMENTATIONS, MixedClips, SceneAugmentation, mix_targets
from lib.config import TrainSettings
from lib.registry import Table

Stats = dict[str, tuple[Tensor, Tensor]]  # log entries, name -> (sum, count)
ACTOR_CUTMIX = SCENE_AUGMENTATIONS["actor_cutmix"]


class ClipTensors(NamedTuple):
    """A batch of normalized clips on the device."""

    weak: Tensor | None  # (B, C, T, H, W); None where only strong ones are used
    strong: Tensor | None  # the same
    person_mask: Tensor | None  # 1 on people in the weak views, (B, 1, T, H, W)
    # One-hot labels, (B, K); zeros where the class is unknown. Unlabeled clips have them for the
    # log only.
    targets: Tensor
    imagenet_targets: Tensor | None = None  # ImageNet probabilities to distill, (B, 1000)
    soft_targets: Tensor | None = None  # class probabilities of another model, (B, K)
    row: Tensor | None = None  # index row of each video, (B,)


class ObjectiveOutput(NamedTuple):
    """The loss to minimize, a scalar, and the log entries of a batch."""

    loss: Tensor
    stats: Stats


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the cross-entropy (B,) of logits (B, K) with class probabilities (B, K)."""
    return -(targets * F.log_softmax(logits, dim=1)).sum(dim=1)


# --- Objectives -----------------------------------------------------------------------------------


@dataclass(eq=False)
class SupervisedObjective(nn.Module):
    """Cross-entropy with the labels.

    An objective is a module: its buffers are its state, which is part of a run's checkpoint, for
    each process its own. Fields with the name of a setting are filled from it.

    Args:
        labeled_view: View of the labeled clips, `weak` or `strong`.
        labeled_scene_p: Probability of the scene augmentation of a labeled batch, in [0, 1].
        scene: The scene augmentation.

    Source: Zou et al., section 3.1 (labeled loss) and 4.2 (strongly augmented supervised).
    """

    uses_unlabeled: ClassVar[bool] = False
    labeled_view: str = "weak"
    labeled_scene_p: float = 0.0
    scene: SceneAugmentation = ACTOR_CUTMIX

    def __post_init__(self) -> None:
        """Initialize the module."""
        super().__init__()

    def begin(self, rows: np.ndarray, num_classes: int) -> None:
        """Register the buffers at the start of a run; a pass over the videos `rows` is an epoch."""

    def mix_labeled(self, labeled: ClipTensors, generator: torch.Generator) -> MixedClips:
        """Apply the scene augmentation, if drawn, to the labeled clips."""
        view = labeled.strong if self.labeled_view == "strong" else labeled.weak
        drawn = self.scene.draw(self.labeled_scene_p, generator)
        return self.scene.apply(labeled.weak, view, labeled.person_mask, drawn)

    def forward(
        self,
        model: nn.Module,
        labeled: ClipTensors,
        unlabeled: ClipTensors | None,
        generator: torch.Generator,
        teacher: nn.Module | None = None,
        unlabeled_weight: float = 1.0,
    ) -> ObjectiveOutput:
        """Return the loss of one labeled and one unlabeled batch.

        `generator` is of the scene augmentation; `teacher` (EMA) gives the pseudo-labels, if None
        `model` itself. `unlabeled_weight` is λ at this step, at least 0.
        """
        x_l = self.mix_labeled(labeled, generator)
        logits = model(x_l.clips)
        loss = _labeled_loss(logits, labeled.targets, x_l)
        return ObjectiveOutput(loss, labeled_stats(loss, logits, labeled.targets))


@dataclass(eq=False)
class FixMatchObjective(SupervisedObjective):
    """Labeled loss, and agreement of the strong view with confident hard pseudo-labels.

    Labeled, weak and strong clips go through the network in one pass, so that batch norm sees them
    together. Gradients do not flow into the pseudo-labels.

    Args:
        confidence_threshold: Pseudo-labels below it are masked out, in (0, 1].
        unlabeled_scene_p: Probability of the scene augmentation of an unlabeled batch, in [0, 1].
        distillation_weight: Weight of the ImageNet distillation on the weak views; 0 for none.
        soft_target_weight: Weight of another model's class probabilities in the pseudo-labels, in
            [0, 1], where the clips have them.
        joint_forward: True if weak clips are in that pass, False if they follow it in another.

    Source: Zou et al., equations 1 to 3; Sohn et al., FixMatch.
    """

    uses_unlabeled: ClassVar[bool] = True
    confidence_threshold: float = 0.95
    unlabeled_scene_p: float = 0.5
    distillation_weight: float = 0.0
    soft_target_weight: float = 0.5
    joint_forward: bool = True

    def mix_unlabeled(self, unlabeled: ClipTensors, generator: torch.Generator) -> MixedClips:
        """Apply the scene augmentation, if drawn, to the strong views of the unlabeled clips."""
        drawn = self.scene.draw(self.unlabeled_scene_p, generator)
        return self.scene.apply(unlabeled.weak, unlabeled.strong, unlabeled.person_mask, drawn)

    def confidence_mask(self, logits: Tensor, rows: Tensor | None) -> Tensor:
        """Return the weight (B,) of each pseudo-label: 1 if its probability reaches the threshold.

        The logits (B, K) are of the weak views; `rows` (B,) are the index rows of their videos.

        Source: Zou et al., section 3.1; Sohn et al., FixMatch, equation 4.
        """
        confidence = logits.softmax(dim=1).max(dim=1).values
        return (confidence >= self.confidence_threshold).to(logits.dtype)

    def pseudo_labels(self, logits: Tensor) -> Tensor:
        """Return the predicted class as one-hot probabilities (B, K) for logits (B, K).

        Source: Sohn et al., FixMatch, equation 4.
        """
        return F.one_hot(logits.argmax(dim=1), logits.shape[1]).to(logits.dtype)

    def unlabeled_loss(self, logits: Tensor, pseudo_labels: Tensor, mask: Tensor) -> Tensor:
        """Return mean(mask · CE) over all unlabeled clips, confident or not.

        The logits (B, K) are of the strong views, pseudo-labels are (B, K), their weights (B,).

        Source: Sohn et al., FixMatch, equation 4.
        """
        return (mask * soft_cross_entropy(logits, pseudo_labels)).mean()

    def forward(
        self,
        model: nn.Module,
        labeled: ClipTensors,
        unlabeled: ClipTensors,
        generator: torch.Generator,
        teacher: nn.Module | None = None,
        unlabeled_weight: float = 1.0,
    ) -> ObjectiveOutput:
        """Return the loss of one labeled and one unlabeled batch; arguments as above."""
        x_l = self.mix_labeled(labeled, generator)
        u_w, u_s = unlabeled.weak, self.mix_unlabeled(unlabeled, generator)
        inputs = [x_l.clips, u_w, u_s.clips] if self.joint_forward else [x_l.clips, u_s.clips]
        sizes = [len(clips) for clips in inputs]
        if self.distillation_weight:
            logits, imagenet_logits = model(torch.cat(inputs), with_teacher=True)
        else:
            logits = model(torch.cat(inputs))
        logits_l, *logits_w, logits_s = logits.split(sizes)

        with torch.no_grad():
            if self.joint_forward and teacher is None:
                logits_w = logits_w[0]
            else:
                logits_w = (model if teacher is None else teacher)(u_w)
            mask = self.confidence_mask(logits_w, unlabeled.row)
            q_hat = self.pseudo_labels(logits_w)
            if unlabeled.soft_targets is not None:
                q_hat = q_hat.lerp(unlabeled.soft_targets.to(q_hat), self.soft_target_weight)
            q_hat = mix_targets(q_hat, u_s.partner, u_s.label_weight)

        labeled_loss = _labeled_loss(logits_l, labeled.targets, x_l)
        unlabeled_loss = self.unlabeled_loss(logits_s, q_hat, mask)
        loss = labeled_loss + unlabeled_weight * unlabeled_loss
        stats = labeled_stats(labeled_loss, logits_l, labeled.targets)
        stats |= unlabeled_stats(unlabeled_loss, logits_w, mask, unlabeled.targets)
        if self.distillation_weight:
            imagenet_logits_w = imagenet_logits.split(sizes)[1]
            distillation = soft_cross_entropy(imagenet_logits_w, unlabeled.imagenet_targets).mean()
            loss = loss + self.distillation_weight * distillation
            stats["loss/distillation"] = mean_of(distillation)
        return ObjectiveOutput(loss, stats)


@dataclass(eq=False)
class UDAObjective(FixMatchObjective):
    """FixMatch with sharpened soft pseudo-labels and a mean over the confident clips.

    Args:
        temperature: Sharpening temperature of the pseudo-labels, above 0.

    Source: Zou et al., section 4.4; Xie et al., UDA. Targets are detached (docs/reference.md).
    """

    confidence_threshold: float = 0.8
    temperature: float = 0.4

    def pseudo_labels(self, logits: Tensor) -> Tensor:
        """Return softmax(logits / temperature), shape (B, K).

        Source: Xie et al., UDA, section 3.2 (training signal with a sharpening temperature).
        """
        return (logits / self.temperature).softmax(dim=1)

    def unlabeled_loss(self, logits: Tensor, pseudo_labels: Tensor, mask: Tensor) -> Tensor:
        """Return the mean of CE over the confident clips, 0 if there is none.

        Source: Xie et al., UDA, section 3.2.
        """
        losses = mask * soft_cross_entropy(logits, pseudo_labels)
        return losses.sum() / torch.clamp(mask.sum(), min=1)


@dataclass(eq=False)
class FreeMatchObjective(FixMatchObjective):
    """FixMatch with thresholds that follow the confidence, and a fairness loss; not of the paper.

    τ(c) = τ · p̃(c) / max p̃, with moving averages τ of the largest probability and p̃ of the
    probabilities.

    Buffers: these averages, `mean_confidence` () and `mean_probabilities` (K,), and that of the
    predicted classes, `mean_histogram` (K,); they start at 1 / K.

    Args:
        threshold_momentum: Momentum of the moving averages, in [0, 1).
        fairness_weight: Weight of the fairness loss within the unlabeled loss.

    Source: Wang et al., "FreeMatch" (arXiv 2205.07246), equations 5 to 8 and 10.
    """

    threshold_momentum: float = 0.999
    fairness_weight: float = 0.01

    def begin(self, rows: np.ndarray, num_classes: int) -> None:
        """Start the averages from a uniform distribution."""
        self.register_buffer("mean_confidence", torch.tensor(1 / num_classes))
        self.register_buffer("mean_probabilities", torch.full((num_classes,), 1 / num_classes))
        self.register_buffer("mean_histogram", torch.full((num_classes,), 1 / num_classes))

    def confidence_mask(self, logits: Tensor, rows: Tensor | None) -> Tensor:
        """Return 1 where the probability exceeds the threshold of its class, else 0."""
        probabilities = logits.float().softmax(dim=1)
        confidence, predicted = probabilities.max(dim=1)
        histogram = F.one_hot(predicted, logits.shape[1]).float().mean(dim=0)
        momentum = self.threshold_momentum
        self.mean_confidence = _average(self.mean_confidence, confidence.mean(), momentum)
        self.mean_probabilities = _average(
            self.mean_probabilities, probabilities.mean(dim=0), momentum
        )
        self.mean_histogram = _average(self.mean_histogram, histogram, momentum)
        threshold = self.mean_confidence * self.mean_probabilities / self.mean_probabilities.max()
        return (confidence > threshold[predicted]).to(logits.dtype)

    def unlabeled_loss(self, logits: Tensor, pseudo_labels: Tensor, mask: Tensor) -> Tensor:
        """Return the loss of the strong views with the fairness loss."""
        loss = super().unlabeled_loss(logits, pseudo_labels, mask)
        return loss + self.fairness_weight * self.fairness_loss(logits, mask)

    def fairness_loss(self, logits: Tensor, mask: Tensor) -> Tensor:
        """Return the self-adaptive fairness loss of the strong views, −H(p̃ / h̃, p̄ / h̄).

        Source: Wang et al., "FreeMatch", equations 10 to 12.
        """
        confident = logits.float().softmax(dim=1)[mask > 0]
        if not len(confident):
            return logits.sum() * 0
        histogram = F.one_hot(confident.argmax(dim=1), logits.shape[1]).float().mean(dim=0)
        expected = _normalized_ratio(self.mean_probabilities, self.mean_histogram)
        actual = _normalized_ratio(confident.mean(dim=0), histogram)
        return (expected * torch.log(actual + 1e-12)).sum()


def _average(mean: Tensor, value: Tensor, momentum: float) -> Tensor:
    return momentum * mean + (1 - momentum) * value


def _normalized_ratio(probabilities: Tensor, histogram: Tensor) -> Tensor:
    """Return probabilities / histogram with sum 1; a class that was never predicted counts 0."""
    ratio = torch.where(histogram > 0, probabilities / histogram.clamp(min=1e-12), 0.0)
    return ratio / ratio.sum()


OBJECTIVES = Table(
    SupervisedObjective,
    {
        "linear_probe": SupervisedObjective,  # minimized over the head alone
        "supervised": SupervisedObjective,
        "fixmatch": FixMatchObjective,
        "uda": UDAObjective,
        "freematch": FreeMatchObjective,
    },
)


def make_objective(settings: TrainSettings) -> SupervisedObjective:
    """Return the objective of a run; its fields with the name of a setting are filled from it."""
    kind = OBJECTIVES[settings.objective]
    names = {field.name for field in fields(kind)} & TrainSettings.model_fields.keys()
    values = {name: getattr(settings, name) for name in names}
    return kind(scene=SCENE_AUGMENTATIONS[settings.scene_augmentation], **values)


# --- Log entries ----------------------------------------------------------------------------------


def mean_of(value: Tensor) -> tuple[Tensor, Tensor]:
    """Return a mean as (sum, count) of one batch."""
    return value.detach(), torch.ones_like(value)


def _labeled_loss(logits: Tensor, targets: Tensor, mixed: MixedClips) -> Tensor:
    targets = mix_targets(targets, mixed.partner, mixed.label_weight)
    return soft_cross_entropy(logits, targets).mean()


def labeled_stats(loss: Tensor, logits: Tensor, targets: Tensor) -> Stats:
    """Return loss and accuracy; `targets` are the labels before mixing."""
    correct = (logits.argmax(dim=1) == targets.argmax(dim=1)).to(loss.dtype)
    count = torch.full_like(loss, len(logits)).detach()
    return {"loss/labeled": mean_of(loss), "train/top1_clip": (correct.sum(), count)}


def unlabeled_stats(loss: Tensor, logits_w: Tensor, mask: Tensor, targets: Tensor) -> Stats:
    """Return loss, mask rate and accuracy, the latter over the clips of a known class."""
    known = targets.sum(dim=1) * mask
    correct = (logits_w.argmax(dim=1) == targets.argmax(dim=1)).to(mask.dtype)
    return {
        "loss/unlabeled": mean_of(loss),
        "ssl/mask_rate": (mask.sum(), torch.full_like(loss, len(mask)).detach()),
        "ssl/pseudo_label_accuracy": ((correct * known).sum(), known.sum()),
    }
