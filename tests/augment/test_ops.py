"""The operations against the reference's pixels, against Pillow and against arrays by hand."""

import json
import platform
import re

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageEnhance, ImageOps
from torch._subclasses.fake_tensor import FakeTensorMode

from lib.augment import randaugment as ops
from lib.augment.randaugment import RANDAUGMENT_OPS
from lib.config import PROJECT_ROOT

GOLDEN = PROJECT_ROOT / "tests/golden"
SPEC = json.loads((GOLDEN / "randaugment_ops.json").read_text())
FILL = tuple(SPEC["fill_rgb"])
CENTER = tuple(SPEC["cutout_center_xy"])
GEOMETRIC = {"rotate", "shear_x", "shear_y", "translate_x", "translate_y", "cutout"}
HEIGHT, WIDTH = 37, 53
# Where Pillow's own C code may be compiled with fused multiply-add, blends may differ by one.
BLEND_TOLERANCE = 0 if platform.machine() in {"x86_64", "AMD64"} else 1


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "randaugment_ops.npz") as arrays:
        return dict(zip(arrays["image_names"], arrays["images"], strict=True)) | dict(
            zip(arrays["mask_names"], arrays["masks"], strict=True)
        )


@pytest.fixture
def clip() -> torch.Tensor:
    """Five frames that differ in brightness and contrast, one of them flat."""
    rng = np.random.default_rng(0)
    ramp = np.arange(WIDTH) * 2 + np.arange(HEIGHT)[:, None] * 3
    frames = [
        ramp[..., None] * gain + offset + rng.normal(0, 9, (HEIGHT, WIDTH, 3))
        for gain, offset in ((0.3, 20), (0.8, 5), (0.5, 90), (1.2, 0))
    ]
    frames.append(np.full((HEIGHT, WIDTH, 3), 77))
    frames = np.clip(frames, 0, 255).astype(np.uint8)
    return torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous()


def our_name(reference_name: str) -> str:
    """AutoContrast -> autocontrast, ShearX -> shear_x, CutoutAbs -> cutout."""
    return re.sub(r"([XY])$", r"_\1", reference_name.removesuffix("Abs")).lower()


def as_clip(frame: np.ndarray) -> torch.Tensor:
    """(H, W, C) or (H, W) -> (1, C, H, W)."""
    return torch.from_numpy(np.atleast_3d(frame)).permute(2, 0, 1)[None]


# RandAugment: the reference ---------------------------------------------------------------------


@pytest.mark.parametrize("entry", SPEC["ops"])
def test_pixels_equal_the_reference(entry, golden):
    spec = SPEC["ops"][entry]
    operation = RANDAUGMENT_OPS[our_name(spec["op"])]
    height, width = golden["image"].shape[:2]
    value = operation.value(spec["m"], (height, width), bool(spec["flip_sign"]))

    side = {"TranslateX": width, "TranslateY": height}.get(spec["op"], 1)
    assert value == (-1 if spec["flip_sign"] else 1) * spec["value"] * side

    out = operation.apply(as_clip(golden["image"]), value, CENTER, FILL)
    torch.testing.assert_close(out, as_clip(golden[entry]), rtol=0, atol=0)

    assert operation.is_geometric == (f"{entry}_mask" in golden)
    if operation.is_geometric:
        out = operation.apply(as_clip(golden["mask"]), value, CENTER, 0)
        torch.testing.assert_close(out, as_clip(golden[f"{entry}_mask"]), rtol=0, atol=0)


def test_golden_file_covers_the_table():
    assert {our_name(spec["op"]) for spec in SPEC["ops"].values()} == set(RANDAUGMENT_OPS)
    assert len(RANDAUGMENT_OPS) == 15
    assert {name for name, op in RANDAUGMENT_OPS.items() if op.is_geometric} == GEOMETRIC
    signed = {name for name, op in RANDAUGMENT_OPS.items() if op.is_signed}
    assert signed == GEOMETRIC - {"cutout"}


def test_values_at_the_ends_of_the_range_and_in_the_recipe():
    def value(name, magnitude, flip_sign=False):
        return RANDAUGMENT_OPS[name].value(magnitude, (240, 320), flip_sign)

    assert (
        value("rotate", 0) == 0 and value("rotate", 30) == 30 and value("rotate", 10, True) == -10
    )
    assert value("color", 0) == 0.05 and value("color", 30) == pytest.approx(0.95)
    assert value("translate_x", 10) == pytest.approx(32)
    assert value("translate_y", 10, True) == pytest.approx(-24)
    assert value("cutout", 10, True) == pytest.approx(112 / 3)


# RandAugment: Pillow ----------------------------------------------------------------------------


def _transform(*matrix):
    return lambda image: image.transform(
        image.size, Image.Transform.AFFINE, matrix, fillcolor=FILL[: len(image.getbands())]
    )


def _square(*corners):
    def draw(image):
        image = image.copy()
        ImageDraw.Draw(image).rectangle(corners, FILL)
        return image

    return draw


EXACT_CASES = {
    "autocontrast": (ops.autocontrast, (), ImageOps.autocontrast),
    "equalize": (ops.equalize, (), ImageOps.equalize),
    **{
        f"solarize {threshold}": (
            ops.solarize,
            (threshold,),
            lambda image, threshold=threshold: ImageOps.solarize(image, threshold),
        )
        for threshold in (0, 1, 85.3, 128, 255, 255.5, 256)
    },
    **{
        f"posterize {bits}": (
            ops.posterize,
            (bits,),
            lambda image, bits=bits: ImageOps.posterize(image, bits),
        )
        for bits in range(1, 9)
    },
    **{
        f"rotate {degrees}": (
            ops.rotate,
            (degrees, FILL),
            lambda image, degrees=degrees: image.rotate(degrees, fillcolor=FILL),
        )
        for degrees in (0, 10, -10, 29.7, 90, 180, -90)
    },
    "shear_x": (ops.shear_x, (0.27, FILL), _transform(1, 0.27, 0, 0, 1, 0)),
    "shear_x negative": (ops.shear_x, (-0.1, FILL), _transform(1, -0.1, 0, 0, 1, 0)),
    "shear_y": (ops.shear_y, (0.27, FILL), _transform(1, 0, 0, 0.27, 1, 0)),
    "shear_y negative": (ops.shear_y, (-0.1, FILL), _transform(1, 0, 0, -0.1, 1, 0)),
    "translate_x": (ops.translate_x, (5.3, FILL), _transform(1, 0, 5.3, 0, 1, 0)),
    "translate_x negative": (ops.translate_x, (-15.9, FILL), _transform(1, 0, -15.9, 0, 1, 0)),
    "translate_x away": (ops.translate_x, (60.0, FILL), _transform(1, 0, 60.0, 0, 1, 0)),
    "translate_y": (ops.translate_y, (3.7, FILL), _transform(1, 0, 0, 0, 1, 3.7)),
    "translate_y negative": (ops.translate_y, (-11.1, FILL), _transform(1, 0, 0, 0, 1, -11.1)),
    "translate_y away": (ops.translate_y, (-60.0, FILL), _transform(1, 0, 0, 0, 1, -60.0)),
    "cutout": (ops.cutout, (10.0, (30.7, 20.2), FILL), _square(25, 15, 35, 25)),
    "cutout at a corner": (ops.cutout, (12.5, (2.0, 36.9), FILL), _square(0, 30, 12, HEIGHT)),
    "cutout of size 0": (ops.cutout, (0, (8.9, 3.9), FILL), _square(8, 3, 8, 3)),
}


def by_pillow(clip, function):
    frames = [np.array(function(Image.fromarray(f.permute(1, 2, 0).numpy()))) for f in clip]
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)


@pytest.mark.parametrize("case", EXACT_CASES)
def test_pixels_equal_pillow(case, clip):
    function, arguments, reference = EXACT_CASES[case]
    assert torch.equal(function(clip, *arguments), by_pillow(clip, reference))


@pytest.mark.parametrize("factor", [0.0, 0.05, 0.35, 0.65, 0.95, 1.0, 1.9])
@pytest.mark.parametrize("name", ["Color", "Contrast", "Brightness", "Sharpness"])
def test_blends_equal_pillow(name, factor, clip):
    expected = by_pillow(clip, lambda image: getattr(ImageEnhance, name)(image).enhance(factor))
    out = getattr(ops, name.lower())(clip, factor)
    torch.testing.assert_close(out, expected, rtol=0, atol=BLEND_TOLERANCE)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 2), (3, 3), (3, 4), (9, 2)])
def test_sharpness_of_the_smallest_frames_equals_pillow(size):
    """Frames with no or a single pixel that has neighbors on all sides."""
    clip = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, 3, *size), np.uint8))
    expected = by_pillow(clip, lambda image: ImageEnhance.Sharpness(image).enhance(0.35))
    out = ops.sharpness(clip, 0.35)
    torch.testing.assert_close(out, expected, rtol=0, atol=BLEND_TOLERANCE)
    for channel in range(3):
        assert torch.equal(ops.sharpness(clip[:, [channel]], 0.35), out[:, [channel]])


@pytest.mark.parametrize("magnitude", range(31))
def test_translation_equals_pillow_at_every_magnitude_of_the_recipe(magnitude):
    """At 224 pixels no shift is near half a pixel, where Pillow mixes two roundings."""
    row = (torch.arange(224) % 200 + 1).byte().view(1, 1, 1, 224)
    for flip_sign in (False, True):
        pixels = RANDAUGMENT_OPS["translate_x"].value(magnitude, (224, 224), flip_sign)
        expected = _transform(1, 0, pixels, 0, 1, 0)(Image.fromarray(row[0].numpy()[0]))
        expected = torch.from_numpy(np.array(expected)).view(1, 1, 1, 224)
        assert torch.equal(ops.translate_x(row, pixels, FILL[0]), expected)


# RandAugment: properties ------------------------------------------------------------------------


def apply_all(clip, flip_sign, fill=FILL):
    for name, operation in RANDAUGMENT_OPS.items():
        value = operation.value(13, clip.shape[-2:], flip_sign)
        yield name, operation.apply(clip, value, (20.0, 11.0), fill)


@pytest.mark.parametrize("flip_sign", [False, True])
def test_memory_layout_does_not_matter_and_the_input_stays(flip_sign, clip):
    channels_last = clip.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    strided = torch.stack([clip, clip], -1).flatten(3)[..., ::2]
    assert not channels_last.is_contiguous() and not strided.is_contiguous()
    before = clip.clone()
    for results in zip(
        *(apply_all(x, flip_sign) for x in (clip, channels_last, strided)), strict=True
    ):
        (name, expected), (_, from_channels_last), (_, from_strided) = results
        assert expected.dtype == torch.uint8 and expected.shape == clip.shape, name
        assert torch.equal(expected, from_channels_last), name
        assert torch.equal(expected, from_strided), name
    for x in (clip, channels_last, strided):
        assert torch.equal(x, before)


def test_frames_do_not_influence_each_other(clip):
    together = dict(apply_all(clip, False))
    alone = [dict(apply_all(frame[None], False)) for frame in clip]
    for name, out in together.items():
        assert torch.equal(out, torch.cat([frame[name] for frame in alone])), name


def test_directions():
    frame = torch.zeros(1, 1, 3, 4, dtype=torch.uint8)
    frame[0, 0, 1, 2] = 9

    def where(out):
        return (out == 9).nonzero()[:, 2:].tolist()

    assert where(ops.translate_x(frame, 1, 0)) == [[1, 1]]  # left
    assert where(ops.translate_y(frame, 1, 0)) == [[0, 2]]  # up
    assert where(ops.shear_x(frame, 1, 0)) == [[1, 0]]  # left, 1.5 rows at row 1's center
    assert where(ops.rotate(frame[..., :3], 90, 0)) == [[0, 1]]  # right -> up


def test_fill_is_one_value_or_one_per_channel(clip):
    assert ops.translate_x(clip, 3, FILL)[0, :, 0, -1].tolist() == list(FILL)
    assert ops.rotate(clip, 30, FILL)[0, :, 0, 0].tolist() == list(FILL)
    assert ops.cutout(clip, 3, (0, 0), 7)[0, :, 0, 0].tolist() == [7, 7, 7]


@pytest.mark.parametrize("name", RANDAUGMENT_OPS)
def test_clips_stay_on_their_device(name, monkeypatch):
    """With tensors that only know shape and device: mixing two devices is an error, also here."""
    operation = RANDAUGMENT_OPS[name]
    histogram = lambda plane, minlength: plane.new_zeros(minlength, dtype=torch.int64)  # noqa: E731
    monkeypatch.setattr(torch.Tensor, "bincount", histogram)  # its size depends on values
    with FakeTensorMode():
        clip = torch.zeros(5, 3, HEIGHT, WIDTH, dtype=torch.uint8, device="meta")
        out = operation.apply(clip, operation.value(10, (HEIGHT, WIDTH)), (20.0, 11.0), FILL)
        assert out.device == clip.device and out.shape == clip.shape and out.dtype == torch.uint8
        with pytest.raises(RuntimeError):
            out + torch.zeros(out.shape)  # what this test relies on


@pytest.mark.parametrize("name", RANDAUGMENT_OPS)
def test_wrong_clips_are_refused(name, clip):
    operation = RANDAUGMENT_OPS[name]

    def apply(clip):
        return operation.apply(clip, operation.value(10, (HEIGHT, WIDTH)), (4.0, 4.0), 0)

    for wrong in (clip.float(), clip.numpy(), clip > 3):
        with pytest.raises(TypeError, match="expected a uint8 tensor"):
            apply(wrong)
    for wrong in (clip[0], clip[:0], clip[None]):
        with pytest.raises(ValueError, match=r"shape \(T, C, H, W\)"):
            apply(wrong)
