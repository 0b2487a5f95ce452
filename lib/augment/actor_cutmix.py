"""ActorCutMix: the people of one clip on the background of another."""

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
