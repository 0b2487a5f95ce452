"""Scene augmentations to set beside ActorCutMix; all are called alike.

Each takes (weak, strong, human_mask, p, generator) and returns `MixedClips`; like ActorCutMix they
are drawn once for a batch, work on the weak views, and replace the strong ones where drawn.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from lib.augment.actor_cutmix import MixedClips, actor_cutmix


def scene_cutout(
    weak: Tensor, strong: Tensor, human_mask: Tensor, p: float, generator: torch.Generator
) -> MixedClips:
    """Replace the background by the mean colour: weak · M, label unchanged.

    Clips whose mask is empty or full keep their strong view. Arguments as `actor_cutmix`.

    Source: Zou et al., section 4.4 (scene augmentations compared).
    """
    own = torch.arange(len(weak), device=weak.device)
    clips = strong
    if torch.rand((), generator=generator) < p:
        mask = human_mask.to(weak.dtype)
        ratio = mask.mean(dim=(1, 2, 3, 4), keepdim=True)
        clips = torch.where((ratio == 0) | (ratio == 1), strong, weak * mask)
    return MixedClips(clips, own, weak.new_ones(len(weak)))


def cutmix(
    weak: Tensor, strong: Tensor, human_mask: Tensor, p: float, generator: torch.Generator
) -> MixedClips:
    """Paste one box of the partner, the same in all frames; labels mix by area.

    The box has area 1 − λ with λ ~ U(0, 1) and a centre uniform over the frame; what leaves the
    frame is cut off, and the label weight is the area that is left. Arguments as `actor_cutmix`
    (`human_mask` is not used).

    Source: Yun et al., CutMix, 2019, equations 1 and 2, applied to clips.
    """
    own = torch.arange(len(weak), device=weak.device)
    if torch.rand((), generator=generator) >= p:
        return MixedClips(strong, own, weak.new_ones(len(weak)))
    side, y, x = torch.rand(3, generator=generator).tolist()
    height, width = weak.shape[-2:]
    half = (1 - side) ** 0.5 / 2
    top, bottom = (int(min(max(y + d, 0), 1) * height) for d in (-half, half))
    left, right = (int(min(max(x + d, 0), 1) * width) for d in (-half, half))
    clips = weak.clone()
    clips[..., top:bottom, left:right] = weak.flip(0)[..., top:bottom, left:right]
    kept = 1 - (bottom - top) * (right - left) / (height * width)
    return MixedClips(clips, own.flip(0), torch.full((len(weak),), kept).to(weak))


def mixup(
    weak: Tensor, strong: Tensor, human_mask: Tensor, p: float, generator: torch.Generator
) -> MixedClips:
    """Blend each clip with its partner: λ · own + (1 − λ) · partner, λ ~ U(0, 1).

    Arguments as `actor_cutmix` (`human_mask` is not used).

    Source: Zhang et al., mixup, 2018, applied to clips.
    """
    own = torch.arange(len(weak), device=weak.device)
    if torch.rand((), generator=generator) >= p:
        return MixedClips(strong, own, weak.new_ones(len(weak)))
    kept = float(torch.rand((), generator=generator))
    clips = kept * weak + (1 - kept) * weak.flip(0)
    return MixedClips(clips, own.flip(0), torch.full((len(weak),), kept).to(weak))


SCENE_AUGMENTATIONS: dict[str, Callable[..., MixedClips]] = {
    "actor_cutmix": actor_cutmix,
    "scene_cutout": scene_cutout,
    "cutmix": cutmix,
    "mixup": mixup,
}
NEEDS_ACTORS = ("actor_cutmix", "scene_cutout")
