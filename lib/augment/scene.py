"""Scene augmentations: ActorCutMix, what the paper compares it with, and their label rule.

Each is drawn once for a batch, then works on its weak views and replaces the strong ones. The draw
gives numbers; applying them is a pure function, the same on every device. `SCENE_AUGMENTATIONS` is
the only place that names them: settings, objectives, figures and widgets read it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lib.registry import Table


class MixedClips(NamedTuple):
    """A batch after a scene augmentation."""

    clips: Tensor  # the mixed clips, (B, C, T, H, W)
    partner: Tensor  # index of the clip whose target is mixed in, (B,), int64
    label_weight: Tensor  # weight of the own target, (B,), in [0, 1]


def actor_cutmix(weak: Tensor, strong: Tensor, person_mask: Tensor) -> MixedClips:
    """Paste the people of each clip on the background of its partner.

    The partner of clip i is clip B−1−i, and

        mixed = weak · M + partner_weak · (1 − M_partner) · (1 − M)

    so that the holes which the partner's own people leave stay 0, the mean color. Clips whose mask
    is empty or full, and the middle clip of an odd batch, keep their strong view and their label;
    as partners they count as all foreground and give no background.

    Args:
        weak: Normalized weak views, shape (B, C, T, H, W), mean 0.
        strong: Normalized strong views, same shape.
        person_mask: 1 on people in the weak views, shape (B, 1, T, H, W), values in {0, 1}.

    Source: Zou et al., section 3.3; the mask is the weak view's own (docs/reference.md).
    """
    index = torch.arange(len(weak), device=weak.device)
    partner = index.flip(0)
    mask = person_mask.to(weak.dtype)
    ratio = mask.flatten(1).mean(dim=1)
    is_unmixed = ((ratio == 0) | (ratio == 1) | (partner == index)).view(-1, 1, 1, 1, 1)
    mask = torch.where(is_unmixed, 1, mask)
    background = (weak * (1 - mask)).flip(0)
    mixed = weak * mask + background * (1 - mask)
    clips = torch.where(is_unmixed, strong, mixed)
    return MixedClips(clips, partner, foreground_weight(mask.flatten(1).mean(dim=1)))


def actor_cutmix_own_label(weak: Tensor, strong: Tensor, person_mask: Tensor) -> MixedClips:
    """Return the clips of `actor_cutmix`, each with the label of its actor alone.

    A box of a person is mostly scene, which is pasted along: with the paper's rule a network that
    recognizes scenes is right about the share of the background (docs/evidence.md).
    """
    return identity_mix(actor_cutmix(weak, strong, person_mask).clips)


def foreground_weight(foreground_ratio: Tensor) -> Tensor:
    """Return w = 1 − (1 − r)⁴, the actor's label weight for r, mask over clip area, in [0, 1].

    Source: Zou et al., section 3.3.
    """
    return 1 - (1 - foreground_ratio) ** 4


def mix_targets(targets: Tensor, partner: Tensor, label_weight: Tensor) -> Tensor:
    """Return w · own + (1 − w) · the partner's target, class probabilities of shape (B, K).

    The index of the partner and w, in [0, 1], have shape (B,).
    """
    weight = label_weight.unsqueeze(1)
    return weight * targets + (1 - weight) * targets[partner]


def scene_cutout(weak: Tensor, strong: Tensor, person_mask: Tensor) -> MixedClips:
    """Replace the background by the mean color: weak · M, label unchanged.

    Clips whose mask is empty or full keep their strong view. Arguments as `actor_cutmix`.

    Source: Zou et al., section 4.4 (scene augmentations compared).
    """
    mask = person_mask.to(weak.dtype)
    ratio = mask.mean(dim=(1, 2, 3, 4), keepdim=True)
    return identity_mix(torch.where((ratio == 0) | (ratio == 1), strong, weak * mask))


def cutmix(
    weak: Tensor, strong: Tensor, person_mask: Tensor | None, lam: float, y: float, x: float
) -> MixedClips:
    """Paste one box of the partner, the same in all frames; labels mix by area.

    The box has area 1 − `lam`, in [0, 1), and its center (x, y), shares of width and height,
    anywhere in the frame; the part outside the frame is cut off, and the label weight is the area
    that is left. Of the views only `weak` (B, C, T, H, W), normalized, is used.

    Source: Yun et al., CutMix, 2019, equations 1 and 2, applied to clips.
    """
    height, width = weak.shape[-2:]
    half = (1 - lam) ** 0.5 / 2
    top, bottom = (int(min(max(y + d, 0), 1) * height) for d in (-half, half))
    left, right = (int(min(max(x + d, 0), 1) * width) for d in (-half, half))
    clips = weak.clone()
    clips[..., top:bottom, left:right] = weak.flip(0)[..., top:bottom, left:right]
    return _with_partner(clips, 1 - (bottom - top) * (right - left) / (height * width))


def mixup(weak: Tensor, strong: Tensor, person_mask: Tensor | None, lam: float) -> MixedClips:
    """Blend each clip with its partner: λ · own + (1 − λ) · partner; arguments as `cutmix`.

    Source: Zhang et al., mixup, 2018, applied to clips.
    """
    return _with_partner(lam * weak + (1 - lam) * weak.flip(0), lam)


def identity_mix(clips: Tensor) -> MixedClips:
    """Return clips with their own labels."""
    index = torch.arange(len(clips), device=clips.device)
    return MixedClips(clips, index, clips.new_ones(len(clips)))


def _with_partner(clips: Tensor, label_weight: float) -> MixedClips:
    """Return clips that are mixed with clip B−1−i, all with the same weight of the own label."""
    partner = torch.arange(len(clips), device=clips.device).flip(0)
    return MixedClips(clips, partner, torch.full((len(clips),), label_weight).to(clips))


@dataclass(frozen=True)
class SceneAugmentation:
    """One scene augmentation: its function and the numbers that it draws for a batch.

    Attributes:
        title: Its name in figures.
        function: (weak, strong, person_mask, *numbers) -> `MixedClips`; shapes as in
            `actor_cutmix`, `person_mask` may be None if it is not needed.
        num_numbers: Numbers that it draws, uniform in [0, 1).
        needs_person_mask: Whether it needs person masks.
    """

    title: str
    function: Callable[..., MixedClips]
    num_numbers: int = 0
    needs_person_mask: bool = False

    def draw(self, p: float, generator: torch.Generator) -> list[float] | None:
        """Draw the numbers for a batch with probability `p`, otherwise None: no augmentation."""
        if not p or torch.rand((), generator=generator) >= p:
            return None
        return torch.rand(self.num_numbers, generator=generator).tolist()

    def apply(
        self,
        weak: Tensor | None,
        strong: Tensor,
        person_mask: Tensor | None,
        numbers: list[float] | None,
    ) -> MixedClips:
        """Return the augmented batch; the strong views if `numbers` is None."""
        if numbers is None:
            return identity_mix(strong)
        return self.function(weak, strong, person_mask, *numbers)


SCENE_AUGMENTATIONS = Table(
    SceneAugmentation,
    {
        "actor_cutmix": SceneAugmentation("ActorCutMix", actor_cutmix, needs_person_mask=True),
        "actor_cutmix_own_label": SceneAugmentation(
            "ActorCutMix, label of the actor", actor_cutmix_own_label, needs_person_mask=True
        ),
        "scene_cutout": SceneAugmentation("Scene cutout", scene_cutout, needs_person_mask=True),
        "cutmix": SceneAugmentation("CutMix", cutmix, num_numbers=3),
        "mixup": SceneAugmentation("MixUp", mixup, num_numbers=1),
    },
)
