import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lib.augment.randaugment import RANDAUGMENT_OPS, RandAugment, expand_operations
from lib.augment.temporal import TemporalAugment
from lib.augment.views import (
    EvalTransform,
    StrongTransform,
    WeakParams,
    WeakTransform,
    eval_crops,
    resize,
    resized_size,
)
from lib.config import PROJECT_ROOT

GEOMETRY = json.loads((PROJECT_ROOT / "tests/golden" / "eval_geometry.json").read_text())
PHOTOMETRIC = {
    "identity",
    "autocontrast",
    "equalize",
    "solarize",
    "color",
    "contrast",
    "brightness",
    "sharpness",
    "posterize",
}
GEOMETRIC = {
    "identity",
    "rotate",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "cutout",
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise_frames(num_frames: int, height: int, width: int) -> np.ndarray:
    shape = (num_frames, height, width, 3)
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


# --- Resizing and the evaluation crops ------------------------------------------------------------


@pytest.mark.parametrize("size", GEOMETRY)
def test_evaluation_geometry_equals_the_reference(size):
    height, width = map(int, size.split("x"))
    golden = GEOMETRY[size]
    resized = resized_size(height, width, 256)
    assert list(resized) == golden["resized"]
    assert [list(box) for box in eval_crops(*resized, 224, 1)] == [golden["center"]]
    assert [list(box) for box in eval_crops(*resized, 256, 3)] == golden["three"]


@pytest.mark.parametrize(("num_crops", "crop_size"), [(1, 12), (3, 16), (3, 10)])
@pytest.mark.parametrize("size", [(24, 33), (33, 24), (16, 16)])
def test_evaluation_crops_are_cut_from_the_resized_frames(size, num_crops, crop_size):
    frames = noise_frames(3, *size)
    crops = EvalTransform(16, crop_size, num_crops)(frames)
    assert crops.shape == (num_crops, 3, 3, crop_size, crop_size) and crops.dtype == torch.uint8
    height, width = resized_size(*size, 16)
    whole = resize(torch.from_numpy(frames).permute(0, 3, 1, 2), height, width)
    boxes = eval_crops(height, width, crop_size, num_crops)
    for crop, (x1, y1, x2, y2) in zip(crops, boxes, strict=True):
        assert torch.equal(crop, whole[..., y1:y2, x1:x2])


def test_three_crops_reach_both_ends_and_the_middle():
    frames = np.zeros((1, 16, 32, 3), dtype=np.uint8)
    frames[..., 0] = np.arange(32)
    crops = EvalTransform(16, 16, 3)(frames)
    assert [crop[0, 0, 0, 0].item() for crop in crops] == [0, 16, 8]


@pytest.mark.parametrize("size", [(7, 9), (16, 12), (5, 40), (13, 17)])
def test_resize_is_bilinear_between_pixel_centres(size):
    clip = torch.from_numpy(noise_frames(2, 13, 17)).permute(0, 3, 1, 2)
    expected = clip.double()
    for axis, length in ((2, size[0]), (3, size[1])):
        old = clip.shape[axis]
        where = ((torch.arange(length) + 0.5) * old / length - 0.5).clamp(0, old - 1)
        low = where.floor().long()
        high = (low + 1).clamp(max=old - 1)
        part = (where - low).view([-1 if d == axis else 1 for d in range(4)]).double()
        expected = (1 - part) * expected.index_select(axis, low) + part * expected.index_select(
            axis, high
        )
    resized = resize(clip, *size)
    assert resized.dtype == torch.uint8
    assert (resized.double() - expected).abs().max() <= 1  # rounding


# --- The weak view --------------------------------------------------------------------------------


def test_the_whole_frame_at_its_own_size_stays_as_it_is():
    frames = noise_frames(2, 16, 16)
    whole = WeakParams(0, 0, 16, 16, is_flipped=False)
    clip = WeakTransform(16, 16).apply(frames, whole)
    np.testing.assert_array_equal(clip.permute(0, 2, 3, 1), frames)
    mirrored = WeakTransform(16, 16).apply(frames, whole._replace(is_flipped=True))
    np.testing.assert_array_equal(mirrored.permute(0, 2, 3, 1), frames[:, :, ::-1])
    assert clip.is_contiguous() and mirrored.is_contiguous()
    clip.zero_()
    assert frames.any()  # the view has pixels of its own


def test_the_crop_is_cut_before_it_is_resized():
    frames = noise_frames(2, 30, 40)
    params = WeakParams(5, 3, 25, 23, is_flipped=False)
    clip = WeakTransform(30, 20).apply(frames, params)
    np.testing.assert_array_equal(clip.permute(0, 2, 3, 1), frames[:, 3:23, 5:25])


def one_pixel_more(mask: torch.Tensor) -> torch.Tensor:
    """Grow a mask by a pixel; also from outside the view, which nobody knows."""
    return F.max_pool2d(F.pad(mask.float(), (1, 1, 1, 1), value=1), 3, stride=1)


@pytest.mark.parametrize("size", [(48, 64), (64, 48), (120, 50)])
@pytest.mark.parametrize("short_side", [24, 48, 200])
def test_a_mask_painted_on_the_frames_moves_as_the_mask_of_the_boxes(size, short_side):
    """Boxes painted white on black frames: the weak view shows the mask, up to blurred edges."""
    height, width = size
    transform = WeakTransform(short_side, 32, crop_area_min=0.2)
    rng = np.random.default_rng(0)
    covered = []
    for seed in range(25):
        boxes, frames = [], np.zeros((4, height, width, 3), dtype=np.uint8)
        for frame in frames:
            x1, y1 = rng.integers(0, width - 12), rng.integers(0, height - 12)
            x2, y2 = x1 + rng.integers(8, 30), y1 + rng.integers(8, 30)  # some leave the frame
            frame[y1:y2, x1:x2] = 255
            boxes.append(np.array([[x1, y1, x2, y2]], dtype=np.float64))
        params = transform.draw(height, width, generator(seed))
        mask = transform.mask(boxes, params)
        painted = transform.apply(frames, params)[:, :1]
        assert mask.shape == painted.shape == (4, 1, 32, 32) and mask.dtype == torch.uint8
        grown, shrunk = one_pixel_more(mask), 1 - one_pixel_more(1 - mask)
        shown = (painted > 127).float()
        assert (shrunk <= shown).all() and (shown <= grown).all()
        covered.append(mask.float().mean().item())
    assert 0.02 < np.mean(covered) < 0.6  # there was something to see


def test_a_clip_without_any_box_is_all_foreground():
    transform = WeakTransform(32, 16)
    params = WeakParams(0, 0, 32, 32, is_flipped=False)
    nobody, one = np.zeros((0, 4)), np.array([[0.0, 0.0, 8.0, 8.0]])
    assert (transform.mask([nobody, nobody], params) == 1).all()
    mask = transform.mask([nobody, one], params)  # one frame is enough to tell background
    assert mask[0].sum() == 0 and mask[1].sum() == 16


def test_a_box_outside_of_the_crop_leaves_an_empty_mask():
    transform = WeakTransform(32, 16)
    mask = transform.mask(
        [np.array([[0.0, 0.0, 8.0, 8.0]])], WeakParams(16, 16, 32, 32, is_flipped=False)
    )
    assert mask.shape == (1, 1, 16, 16) and mask.sum() == 0


def draw_many(transform: WeakTransform, height: int, width: int, count: int = 3000) -> np.ndarray:
    draw = generator()
    return np.array([transform.draw(height, width, draw) for _ in range(count)])


@pytest.mark.parametrize(("height", "width"), [(240, 320), (320, 240), (64, 64), (720, 1280)])
def test_crops_have_the_documented_areas_and_shapes(height, width):
    crops = draw_many(WeakTransform(256, 224, crop_area_min=0.08), height, width)
    x1, y1, x2, y2, is_flipped = crops.T
    assert x1.min() >= 0 and y1.min() >= 0 and x2.max() <= width and y2.max() <= height
    pixel = 2 / min(height, width)  # crops are whole pixels
    area = (x2 - x1) * (y2 - y1) / (height * width)
    largest = min(width, height * 4 / 3) * min(height, width * 4 / 3) / (height * width)
    assert 0.08 * (1 - 6 * pixel) <= area.min() < 0.1
    assert 0.9 * largest < area.max() <= largest * (1 + 6 * pixel)
    aspect = (x2 - x1) / (y2 - y1)
    slack = 1 + 6 * pixel
    assert 3 / 4 / slack <= aspect.min() < 0.78 and 1.28 < aspect.max() <= 4 / 3 * slack
    assert abs(is_flipped.mean() - 0.5) < 0.04
    center_x, center_y = (x1 + x2) / 2 / width, (y1 + y2) / 2 / height
    assert abs(center_x.mean() - 0.5) < 0.02 and abs(center_y.mean() - 0.5) < 0.02
    assert (x1 == 0).any() and (x2 == width).any() and (y1 == 0).any() and (y2 == height).any()


def test_the_area_is_uniform_and_the_aspect_log_uniform_where_every_crop_fits():
    crops = draw_many(WeakTransform(400, 32, crop_area_min=0.08), 400, 400)
    small = crops[(crops[:, 2] - crops[:, 0]) * (crops[:, 3] - crops[:, 1]) < 0.5 * 400 * 400]
    x1, y1, x2, y2, _ = small.T
    area = (x2 - x1) * (y2 - y1) / 400**2
    assert abs(np.mean(area < 0.29) - 0.5) < 0.04
    aspect = np.log((x2 - x1) / (y2 - y1)) / np.log(4 / 3)  # in [-1, 1]
    assert abs(aspect.mean()) < 0.04 and abs(np.mean(abs(aspect) < 0.5) - 0.5) < 0.04


def test_the_smallest_area_is_a_setting():
    crops = draw_many(WeakTransform(64, 32, crop_area_min=0.7), 64, 64, 500)
    area = (crops[:, 2] - crops[:, 0]) * (crops[:, 3] - crops[:, 1]) / 64**2
    assert 0.65 < area.min() < 0.78


def test_a_frame_that_no_crop_fits_gives_the_centre_square():
    params = WeakTransform(20, 16, crop_area_min=1).draw(20, 200, generator())
    assert params[:4] == (90, 0, 110, 20)


def test_crops_are_drawn_in_the_resized_frame_and_mapped_back():
    """One draw for frames of one shape: the crop is the same part of them at every size."""
    for seed in range(20):
        small, large = (
            np.array(WeakTransform(256, 224).draw(*size, generator(seed)))
            for size in ((120, 160), (480, 640))
        )
        assert small[4] == large[4]
        assert np.abs(4 * small[:4] - large[:4]).max() <= 4  # rounded to pixels


def test_flips_can_be_switched_off_and_on():
    for flip_p in (0.0, 1.0):
        assert (draw_many(WeakTransform(64, 32, 0.1, flip_p), 64, 64, 50)[:, 4] == flip_p).all()


def test_the_same_generator_gives_the_same_weak_view():
    draws = [WeakTransform().draw(240, 320, generator(seed)) for seed in (3, 3, 4)]
    assert draws[0] == draws[1] != draws[2]
    torch.manual_seed(7)  # the global generator has no say
    assert WeakTransform().draw(240, 320, generator(3)) == draws[0]


# --- RandAugment ----------------------------------------------------------------------------------


def test_groups_stand_for_their_operations():
    assert set(expand_operations(["photometric"])) == PHOTOMETRIC
    assert set(expand_operations(["geometric"])) == GEOMETRIC
    assert expand_operations(["geometric", "photometric"]) == list(RANDAUGMENT_OPS)
    assert len(RANDAUGMENT_OPS) == 15
    assert expand_operations(["cutout", "rotate", "cutout"]) == ["rotate", "cutout"]
    assert set(expand_operations(["photometric", "rotate"])) == PHOTOMETRIC | {"rotate"}
    assert expand_operations([]) == []


def test_an_unknown_operation_is_refused():
    with pytest.raises(KeyError, match="blur"):
        RandAugment(operations=["rotate", "blur"])


def test_all_operations_are_drawn_equally_often_and_with_replacement():
    augment, draw = RandAugment(), generator()
    drawn = [augment.draw(32, 32, draw) for _ in range(3000)]
    assert {len(operations) for operations in drawn} == {2}
    names = [operation.name for operations in drawn for operation in operations]
    counts = np.array([names.count(name) for name in RANDAUGMENT_OPS])
    assert len(set(names)) == 15 and abs(counts - 400).max() < 90
    twice = np.mean([first.name == second.name for first, second in drawn])
    assert abs(twice - 1 / 15) < 0.02


def test_no_operations_leave_the_clip_alone():
    clip = torch.from_numpy(noise_frames(4, 16, 16)).permute(0, 3, 1, 2)
    for augment in (RandAugment(0), RandAugment(2, 10, [])):
        drawn = augment.draw(16, 16, generator())
        assert drawn == [] and torch.equal(augment.apply(clip, drawn), clip)


def test_a_clip_has_one_sign_for_all_its_operations():
    augment, draw = RandAugment(6, 10, ["rotate", "shear_x", "translate_y"]), generator()
    signs = []
    for _ in range(400):
        values = {np.sign(operation.value) for operation in augment.draw(32, 32, draw)}
        assert len(values) == 1
        signs += values
    assert abs(np.mean(signs)) < 0.15  # both signs, equally often


@pytest.mark.parametrize(
    ("name", "magnitude", "value"),
    [
        ("rotate", 10, 10),  # m/30 · (max − min) + min
        ("rotate", 30, 30),
        ("solarize", 15, 128),
        ("posterize", 15, 6),
        ("brightness", 10, 0.35),
        ("shear_x", 15, 0.15),
        ("translate_x", 10, 0.1 * 48),  # of the width
        ("translate_y", 10, 0.1 * 32),  # of the height
        ("cutout", 10, 112 / 3 * 32 / 224),  # the same share of a smaller view
        ("cutout", 0, 0),
    ],
)
def test_values_follow_the_magnitude(name, magnitude, value):
    drawn = RandAugment(1, magnitude, [name]).draw(32, 48, generator())
    assert abs(drawn[0].value) == pytest.approx(value)


def test_the_cutout_covers_the_same_share_of_every_view():
    shares = {}
    for side in (56, 112, 224):
        augment = RandAugment(1, 10, ["cutout"])
        clip = torch.full((1, 3, side, side), 255, dtype=torch.uint8)
        (drawn,) = augment.draw(side, side, generator())
        assert 0 <= min(drawn.center_xy) and max(drawn.center_xy) < side
        middle = drawn._replace(center_xy=(side / 2, side / 2))
        shares[side] = (augment.apply(clip, [middle]) != 255).float().mean().item() ** 0.5
    assert all(abs(share - 1 / 6) < 0.03 for share in shares.values()), shares


def test_a_stronger_magnitude_changes_more():
    clip = torch.from_numpy(noise_frames(1, 32, 32)).permute(0, 3, 1, 2)
    changed = [
        (RandAugment(1, m, ["rotate"]).draw(32, 32, generator())[0].value) for m in (1, 10, 30)
    ]
    assert abs(changed[0]) < abs(changed[1]) < abs(changed[2])
    for name in ("cutout", "translate_x"):
        shares = []
        for magnitude in (5, 15, 30):
            augment = RandAugment(1, magnitude, [name])
            (drawn,) = augment.draw(32, 32, generator(1))
            drawn = drawn._replace(center_xy=(16, 16))
            fill = torch.tensor([124, 116, 104]).view(1, 3, 1, 1)
            shares.append((augment.apply(clip, [drawn]) == fill).all(dim=1).float().mean().item())
        assert shares[0] < shares[1] < shares[2]


def test_all_frames_get_the_same_operations():
    frame = torch.from_numpy(noise_frames(1, 24, 24)).permute(0, 3, 1, 2)
    clip = frame.repeat(5, 1, 1, 1)
    augment, draw = RandAugment(3, 20), generator()
    changed = 0
    for _ in range(100):
        drawn = augment.draw(24, 24, draw)
        strong = augment.apply(clip, drawn)
        assert strong.shape == clip.shape and strong.dtype == torch.uint8
        assert (strong == strong[:1]).all()
        assert torch.equal(augment.apply(frame, drawn), strong[:1])
        changed += not torch.equal(strong, clip)
    assert changed > 80


def test_operations_are_applied_in_their_order():
    clip = torch.from_numpy(noise_frames(1, 24, 24)).permute(0, 3, 1, 2)
    augment = RandAugment(1, 10, ["rotate", "solarize"])
    rotate, solarize = (
        RandAugment(1, 10, [name]).draw(24, 24, generator())[0] for name in augment.operations
    )
    by_hand = augment.apply(augment.apply(clip, [rotate]), [solarize])
    assert torch.equal(augment.apply(clip, [rotate, solarize]), by_hand)
    assert not torch.equal(augment.apply(clip, [solarize, rotate]), by_hand)  # fill is solarised


# --- The temporal operation and the strong view ---------------------------------------------------


def test_each_temporal_operation_is_as_likely_as_the_others():
    augment, draw = TemporalAugment(), generator()
    drawn = [augment.draw(8, draw) for _ in range(4000)]
    counts = {name: sum(d.name == name for d in drawn) for name in augment.operations}
    assert set(counts) == {"none", "half", "reverse", "drop"}
    assert all(abs(count - 1000) < 120 for count in counts.values())
    assert abs(np.mean([d.number < 0.5 for d in drawn]) - 0.5) < 0.04
    drops = torch.stack([d.frame_numbers < 0.5 for d in drawn])
    assert abs(drops.float().mean(dim=0) - 0.5).max() < 0.04


@pytest.mark.parametrize("name", ["none", "half", "reverse", "drop"])
def test_temporal_operations_move_whole_frames(name):
    frames = torch.arange(8)
    clip = frames.view(-1, 1, 1, 1).expand(-1, 3, 4, 4).byte()
    augment, draw = TemporalAugment([name]), generator()
    seen = set()
    for _ in range(40):
        drawn = augment.draw(8, draw)
        order = augment.apply(frames, drawn).tolist()
        assert augment.apply(clip, drawn)[:, 0, 0, 0].tolist() == order
        seen.add(tuple(order))
    if name == "none":
        assert seen == {(0, 1, 2, 3, 4, 5, 6, 7)}
    elif name == "half":
        assert seen == {(0, 1, 2, 3, 0, 1, 2, 3), (4, 5, 6, 7, 4, 5, 6, 7)}
    elif name == "reverse":
        assert seen == {(7, 6, 5, 4, 3, 2, 1, 0)}
    else:  # each frame but the first is itself or its predecessor's
        assert len(seen) > 20 and all(order[0] == 0 for order in seen)
        for order in seen:
            assert all(
                now in (number, before)
                for number, (before, now) in enumerate(zip(order, order[1:], strict=False), 1)
            )


def test_the_strong_view_is_randaugment_then_the_temporal_operation():
    strong = StrongTransform(RandAugment(2, 20), TemporalAugment())
    clip = torch.from_numpy(noise_frames(8, 20, 20)).permute(0, 3, 1, 2)
    before = clip.clone()
    different = 0
    for seed in range(30):
        drawn, again, other = (
            strong.draw(8, 20, 20, generator(number)) for number in (seed, seed, seed + 1)
        )
        changed = strong.randaugment.apply(clip, drawn.operations)
        result = strong.apply(clip, drawn)
        assert torch.equal(result, strong.temporal.apply(changed, drawn.temporal))
        assert torch.equal(result, strong.apply(clip, again))
        different += not torch.equal(result, strong.apply(clip, other))
    assert different > 25
    assert torch.equal(clip, before)
