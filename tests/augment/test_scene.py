import numpy as np
import pytest
import torch

from lib.augment.scene import (
    SCENE_AUGMENTATIONS,
    SceneAugmentation,
    actor_cutmix,
    actor_cutmix_own_label,
    foreground_weight,
    mix_targets,
    scene_cutout,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mix(scene: SceneAugmentation, weak, strong, mask, p=1.0, draw=None):
    """Draw and apply."""
    return scene.apply(weak, strong, mask, scene.draw(p, draw or generator()))


def row_of(*clips: list[float]) -> torch.Tensor:
    """A batch of clips with one channel, one frame and one row of pixels: (B, 1, 1, 1, W)."""
    return torch.tensor(clips, dtype=torch.float64)[:, None, None, None]


def pixels(clips: torch.Tensor) -> list[list[float]]:
    return clips.flatten(1).tolist()


# --- ActorCutMix ----------------------------------------------------------------------------------


def test_people_are_pasted_on_the_background_of_the_partner():
    weak = row_of([1, 2, 3, 4], [10, 20, 30, 40])
    mask = row_of([1, 0, 0, 0], [0, 0, 1, 0])
    mixed = actor_cutmix(weak, -weak, mask)
    # Own people; the partner's background; 0, the mean colour, where the partner's people were.
    assert pixels(mixed.clips) == [[1, 20, 0, 40], [0, 2, 30, 4]]
    assert mixed.partner.tolist() == [1, 0]
    assert mixed.label_weight.tolist() == [1 - (3 / 4) ** 4] * 2


def test_the_partner_of_clip_i_is_clip_b_minus_1_minus_i():
    weak = torch.arange(1.0, 7).view(6, 1, 1, 1, 1).expand(6, 1, 1, 1, 2)
    mask = row_of(*[[1, 0]] * 6).float()
    mixed = actor_cutmix(weak, weak, mask)
    assert mixed.partner.tolist() == [5, 4, 3, 2, 1, 0]
    assert pixels(mixed.clips) == [[1, 6], [2, 5], [3, 4], [4, 3], [5, 2], [6, 1]]


@pytest.mark.parametrize("own", [[0, 0, 0, 0], [1, 1, 1, 1]])
def test_clips_whose_mask_is_empty_or_full_keep_their_strong_view_and_label(own):
    weak = row_of([1, 2, 3, 4], [10, 20, 30, 40])
    mixed = actor_cutmix(weak, -weak, row_of(own, [0, 1, 1, 0]))
    # As a partner it is all foreground and gives no background, yet its label is mixed in.
    assert pixels(mixed.clips) == [[-1, -2, -3, -4], [0, 20, 30, 0]]
    assert mixed.label_weight.tolist() == [1, 1 - (1 / 2) ** 4]
    targets = mix_targets(torch.eye(2).double(), mixed.partner, mixed.label_weight)
    assert targets.tolist() == [[1, 0], [1 / 16, 15 / 16]]


def test_the_middle_clip_of_an_odd_batch_keeps_its_strong_view_and_label():
    weak = row_of([1, 2], [3, 4], [5, 6])
    mixed = actor_cutmix(weak, -weak, row_of(*[[1, 0]] * 3))
    assert pixels(mixed.clips) == [[1, 6], [-3, -4], [5, 2]]
    assert mixed.label_weight.tolist() == [15 / 16, 1, 15 / 16]


def test_the_mask_holds_for_all_channels_and_its_own_frame():
    weak = torch.ones(2, 3, 2, 1, 2)
    weak[1] = 5
    mask = torch.zeros(2, 1, 2, 1, 2)
    mask[0, 0, 0, 0, 0] = 1  # clip 0: one pixel of its first frame
    mask[1, 0, 1, 0, 1] = 1
    clips = actor_cutmix(weak, weak, mask).clips
    for channel in range(3):
        assert clips[0, channel].flatten().tolist() == [1, 5, 5, 0]
        assert clips[1, channel].flatten().tolist() == [0, 1, 1, 5]


def test_a_batch_that_is_not_drawn_keeps_its_strong_views():
    weak = row_of([1, 2], [3, 4], [5, 6])
    scene = SCENE_AUGMENTATIONS["actor_cutmix"]
    mixed = mix(scene, weak, -weak, row_of(*[[1, 0]] * 3), 0.0)
    assert torch.equal(mixed.clips, -weak)
    assert mixed.partner.tolist() == [0, 1, 2] and mixed.label_weight.tolist() == [1, 1, 1]
    targets = torch.eye(3).double()
    assert torch.equal(mix_targets(targets, mixed.partner, mixed.label_weight), targets)


@pytest.mark.parametrize("scene", SCENE_AUGMENTATIONS.values(), ids=SCENE_AUGMENTATIONS)
def test_it_is_drawn_once_for_the_batch_from_the_generator(scene):
    weak = torch.rand(6, 3, 2, 4, 4, generator=generator()) + 1
    mask = torch.zeros(6, 1, 2, 4, 4)
    mask[..., 1:3] = 1
    draw, drawn = generator(), []
    for _ in range(600):
        clips = mix(scene, weak, -weak, mask, 0.3, draw).clips
        changed = (clips != -weak).flatten(1).any(dim=1)
        assert changed.all() or not changed.any()
        drawn.append(bool(changed.any()))
    assert abs(np.mean(drawn) - 0.3) < 0.06
    state = torch.get_rng_state()
    first, again = (mix(scene, weak, -weak, mask, 0.5, generator(9)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert torch.equal(torch.get_rng_state(), state)  # the global generator is left alone


@pytest.mark.parametrize("scene", SCENE_AUGMENTATIONS.values(), ids=SCENE_AUGMENTATIONS)
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_inputs_are_left_as_they_are_and_results_fit_them(scene, batch):
    weak = torch.rand(batch, 3, 2, 4, 4)
    mask = (torch.rand(batch, 1, 2, 4, 4) > 0.5).float()
    strong = -weak
    copies = [part.clone() for part in (weak, strong, mask)]
    for p in (0.0, 1.0):
        mixed = mix(scene, weak, strong, mask, p)
        assert mixed.clips.shape == weak.shape and mixed.clips.dtype == weak.dtype
        assert mixed.partner.shape == mixed.label_weight.shape == (batch,)
        assert mixed.partner.dtype == torch.int64
        assert ((mixed.label_weight >= 0) & (mixed.label_weight <= 1)).all()
    assert all(torch.equal(*pair) for pair in zip((weak, strong, mask), copies, strict=True))


# --- Labels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ratio", "weight"), [(0, 0), (0.5, 0.9375), (1, 1)])
def test_the_weight_of_the_actor_by_its_area(ratio, weight):
    assert foreground_weight(torch.tensor(float(ratio))).item() == weight


def test_targets_are_mixed_with_those_of_the_partner():
    targets = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0.5, 0.5]])
    mixed = mix_targets(targets, torch.tensor([2, 1, 0]), torch.tensor([0.75, 0.3, 1.0]))
    expected = [[0.75, 0.125, 0.125], [0, 1, 0], [0, 0.5, 0.5]]
    torch.testing.assert_close(mixed, torch.tensor(expected))
    torch.testing.assert_close(mixed.sum(dim=1), torch.ones(3))


# --- The other scene augmentations ----------------------------------------------------------------


def test_scene_cutout_leaves_the_people_alone_on_the_mean_colour():
    weak = row_of([1, 2, 3], [4, 5, 6], [7, 8, 9])
    mask = row_of([0, 1, 0], [0, 0, 0], [1, 1, 1])
    mixed = scene_cutout(weak, -weak, mask)
    assert pixels(mixed.clips) == [[0, 2, 0], [-4, -5, -6], [-7, -8, -9]]
    assert mixed.partner.tolist() == [0, 1, 2] and mixed.label_weight.tolist() == [1, 1, 1]


def test_own_label_pastes_the_same_and_keeps_the_label_of_the_actor():
    weak = row_of([1, 2, 3], [4, 5, 6])
    mask = row_of([0, 1, 0], [0, 0, 1])
    mixed = actor_cutmix_own_label(weak, -weak, mask)
    assert pixels(mixed.clips) == [[4, 2, 0], [1, 0, 6]]
    assert pixels(mixed.clips) == pixels(actor_cutmix(weak, -weak, mask).clips)
    assert mixed.partner.tolist() == [0, 1] and mixed.label_weight.tolist() == [1, 1]


def test_cutmix_pastes_one_box_of_the_partner_in_all_frames():
    weak = torch.arange(1.0, 5).view(4, 1, 1, 1, 1).expand(4, 3, 2, 12, 16).contiguous()
    pasted = []
    for seed in range(300):
        mixed = mix(SCENE_AUGMENTATIONS["cutmix"], weak, -weak, None, draw=generator(seed))
        assert mixed.partner.tolist() == [3, 2, 1, 0]
        box = mixed.clips[0, 0, 0] == 4
        assert torch.equal(mixed.clips[0, 0, 0], torch.where(box, 4.0, 1.0))
        rows, columns = box.any(dim=1).nonzero(), box.any(dim=0).nonzero()
        if box.any():
            inside = box[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            assert inside.all()  # a box, without holes
        for clip, other in enumerate((4.0, 3.0, 2.0, 1.0)):  # the same in all clips and frames
            assert torch.equal(
                mixed.clips[clip], torch.where(box, other, float(clip + 1)).expand(3, 2, 12, 16)
            )
        area = box.float().mean().item()
        assert mixed.label_weight.tolist() == pytest.approx([1 - area] * 4)
        pasted.append(area)
    # λ ~ U(0, 1): boxes of all sizes; what leaves the frame is cut off: less than half on average
    assert 0.2 < np.mean(pasted) < 0.5 and max(pasted) > 0.8 and min(pasted) < 0.02


def test_mixup_blends_each_clip_with_its_partner():
    weak = row_of([1, 2], [3, 4], [10, 20])
    weights = []
    for seed in range(300):
        mixed = mix(SCENE_AUGMENTATIONS["mixup"], weak, -weak, None, draw=generator(seed))
        weight = mixed.label_weight[0].item()
        assert mixed.partner.tolist() == [2, 1, 0] and mixed.label_weight.tolist() == [weight] * 3
        expected = weight * weak + (1 - weight) * weak[[2, 1, 0]]
        torch.testing.assert_close(mixed.clips, expected)
        weights.append(weight)
    assert abs(np.mean(weights) - 0.5) < 0.05 and max(weights) > 0.95 and min(weights) < 0.05
