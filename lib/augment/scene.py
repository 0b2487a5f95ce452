"""Scene augmentations: ActorCutMix and what it is compared with, in one table.

Each is drawn once for a batch, then works on its weak views and replaces the strong ones. What is
drawn are numbers; what they do is a pure function, the same on every device. `SCENE_AUGMENTATIONS`
is the one place that names them: settings, objectives, figures and widgets know one from its row.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class MixedClips(NamedTuple):
    """A batch after a scene augmentation.

    Attributes:
        clips: The mixed clips, shape (B, C, T, H, W).
        partner: Whose target is mixed in, shape (B,), int64.
        label_weight: Weight of the own target, shape (B,), in [0, 1].
    """

    clips: Tensor
    partner: Tensor
    label_weight: Tensor


def actor_cutmix(weak: Tensor, strong: Tensor, person_mask: Tensor) -> MixedClips:
    """Paste the people of each clip on the background of its partner.

    The partner of clip i is clip B−1−i, and

        mixed = weak · M + partner_weak · (1 − M_partner) · (1 − M)

    so that the holes which the partner's own people leave stay 0, the mean colour. Clips whose mask
    is empty or full, and the middle clip of an odd batch, keep their strong view and their label;
    as partners they count as all foreground and give no background.

    Args:
        weak: Normalised weak views, shape (B, C, T, H, W), mean 0.
        strong: Normalised strong views, same shape.
        person_mask: 1 on people in the weak views, shape (B, 1, T, H, W), values in {0, 1}.

    Source: Zou et al., section 3.3; the mask is the weak view's own (docs/reference.md).
    """
    own = torch.arange(len(weak), device=weak.device)
    partner = own.flip(0)
    mask = person_mask.to(weak.dtype)
    ratio = mask.flatten(1).mean(dim=1)
    kept = (ratio == 0) | (ratio == 1) | (partner == own)
    mask = torch.where(_per_clip(kept), 1, mask)
    background = (weak * (1 - mask)).flip(0)
    mixed = weak * mask + background * (1 - mask)
    clips = torch.where(_per_clip(kept), strong, mixed)
    return MixedClips(clips, partner, foreground_weight(mask.flatten(1).mean(dim=1)))


def foreground_weight(foreground_ratio: Tensor) -> Tensor:
    """Return w = 1 − (1 − r)⁴, the weight of the actor's label.

    Args:
        foreground_ratio: r, mask area over clip area, in [0, 1].

    Source: Zou et al., section 3.3.
    """
    return 1 - (1 - foreground_ratio) ** 4


def mix_targets(targets: Tensor, partner: Tensor, label_weight: Tensor) -> Tensor:
    """Return w · own + (1 − w) · the partner's target.

    Args:
        targets: Class probabilities, shape (B, K).
        partner: Index of each clip's partner, shape (B,).
        label_weight: w, shape (B,), in [0, 1].
    """
    weight = label_weight.unsqueeze(1)
    return weight * targets + (1 - weight) * targets[partner]


def _per_clip(flags: Tensor) -> Tensor:
    return flags.view(-1, 1, 1, 1, 1)


def scene_cutout(weak: Tensor, strong: Tensor, person_mask: Tensor) -> MixedClips:
    """Replace the background by the mean colour: weak · M, label unchanged.

    Clips whose mask is empty or full keep their strong view. Arguments as `actor_cutmix`.

    Source: Zou et al., section 4.4 (scene augmentations compared).
    """
    mask = person_mask.to(weak.dtype)
    ratio = mask.mean(dim=(1, 2, 3, 4), keepdim=True)
    return identity_mix(torch.where((ratio == 0) | (ratio == 1), strong, weak * mask))


def cutmix(
    weak: Tensor, strong: Tensor, person_mask: Tensor | None, kept: float, y: float, x: float
) -> MixedClips:
    """Paste one box of the partner, the same in all frames; labels mix by area.

    The box has area 1 − λ and its centre anywhere in the frame; what leaves the frame is cut off,
    and the label weight is the area that is left. Clips as `actor_cutmix`, of which only the weak
    views are used.

    Args:
        weak: Normalised weak views, shape (B, C, T, H, W).
        strong: Not used.
        person_mask: Not used.
        kept: λ in [0, 1).
        y: Centre of the box, share of the height.
        x: Centre of the box, share of the width.

    Source: Yun et al., CutMix, 2019, equations 1 and 2, applied to clips.
    """
    height, width = weak.shape[-2:]
    half = (1 - kept) ** 0.5 / 2
    top, bottom = (int(min(max(y + d, 0), 1) * height) for d in (-half, half))
    left, right = (int(min(max(x + d, 0), 1) * width) for d in (-half, half))
    clips = weak.clone()
    clips[..., top:bottom, left:right] = weak.flip(0)[..., top:bottom, left:right]
    return _with_partner(clips, 1 - (bottom - top) * (right - left) / (height * width))


def mixup(weak: Tensor, strong: Tensor, person_mask: Tensor | None, kept: float) -> MixedClips:
    """Blend each clip with its partner: λ · own + (1 − λ) · partner.

    Args:
        weak: Normalised weak views, shape (B, C, T, H, W).
        strong: Not used.
        person_mask: Not used.
        kept: λ in [0, 1).

    Source: Zhang et al., mixup, 2018, applied to clips.
    """
    return _with_partner(kept * weak + (1 - kept) * weak.flip(0), kept)


def identity_mix(clips: Tensor) -> MixedClips:
    """Return clips whose labels stay their own."""
    own = torch.arange(len(clips), device=clips.device)
    return MixedClips(clips, own, clips.new_ones(len(clips)))


def _with_partner(clips: Tensor, kept: float) -> MixedClips:
    """Return clips that are mixed with clip B−1−i, all with the same weight of the own label."""
    partner = torch.arange(len(clips), device=clips.device).flip(0)
    return MixedClips(clips, partner, torch.full((len(clips),), kept).to(clips))


@dataclass(frozen=True)
class SceneAugmentation:
    """One scene augmentation: what it draws for a batch and what that does to it.

    Attributes:
        title: Its name in figures.
        function: (weak, strong, person_mask, *numbers) -> `MixedClips`; shapes as in
            `actor_cutmix`, `person_mask` may be None where no people are needed.
        num_numbers: Numbers that it draws, uniform in [0, 1).
        needs_person_mask: Whether it needs person masks.
    """

    title: str
    function: Callable[..., MixedClips]
    num_numbers: int = 0
    needs_person_mask: bool = False

    def draw(self, p: float, generator: torch.Generator) -> list[float] | None:
        """Draw the numbers for a batch, with probability `p`; None where it is left as it is."""
        if not p or torch.rand((), generator=generator) >= p:
            return None
        return torch.rand(self.num_numbers, generator=generator).tolist()

    def apply(
        self,
        weak: Tensor | None,
        strong: Tensor,
        person_mask: Tensor | None,
        drawn: list[float] | None,
    ) -> MixedClips:
        """Return the batch after what was drawn; the strong views where that is None."""
        return (
            identity_mix(strong)
            if drawn is None
            else self.function(weak, strong, person_mask, *drawn)
        )


SCENE_AUGMENTATIONS = {
    "actor_cutmix": SceneAugmentation("ActorCutMix", actor_cutmix, needs_person_mask=True),
    "scene_cutout": SceneAugmentation("Scene cutout", scene_cutout, needs_person_mask=True),
    "cutmix": SceneAugmentation("CutMix", cutmix, num_numbers=3),
    "mixup": SceneAugmentation("MixUp", mixup, num_numbers=1),
}
