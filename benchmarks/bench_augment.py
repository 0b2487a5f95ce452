"""Cost of augmentation compared with Pillow and torchvision v2, each in its own layout.

    python -m benchmarks.bench_augment

Prints tables: milliseconds of CPU time in one thread of one process, the shortest of all rounds, in
which the libraries take turns.
"""

import argparse
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageEnhance, ImageOps
from torch import Tensor
from torchvision.transforms import v2

from benchmarks.timing import describe_machine, interleave, print_table
from lib.augment.randaugment import RANDAUGMENT_OPS, RandAugment
from lib.augment.temporal import TemporalAugment
from lib.augment.views import StrongTransform, WeakTransform

FILL = (124, 116, 104)
SIDE, FRAMES, MAGNITUDE = 224, 8, 10
CENTER = (100.0, 90.0)


def make_frames(height: int, width: int) -> np.ndarray:
    """Return smooth frames with a little noise, shape (T, H, W, 3), uint8."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(FRAMES, 3, 12, 12, generator=generator) * 255
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    noisy = smooth + 6 * torch.randn(smooth.shape, generator=generator)
    return noisy.clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous().numpy()


def affine(*matrix: float) -> Callable[[Image.Image], Image.Image]:
    """Return Pillow's affine warp."""
    size = (SIDE, SIDE)
    return lambda image: image.transform(size, Image.Transform.AFFINE, matrix, fillcolor=FILL)


def paint(image: Image.Image, size: float) -> Image.Image:
    """Paint a square with Pillow."""
    image, half = image.copy(), size / 2
    corners = (CENTER[0] - half, CENTER[1] - half, CENTER[0] + half, CENTER[1] + half)
    ImageDraw.Draw(image).rectangle(corners, FILL)
    return image


def paint_clip(clip: Tensor, size: float) -> Tensor:
    """Paint a square with torchvision."""
    top, left = (int(center - size / 2) for center in reversed(CENTER))
    fill = torch.tensor(FILL, dtype=torch.uint8).view(3, 1, 1)
    return v2.functional.erase(clip, top, left, int(size), int(size), fill)


def pillow_calls(value: dict[str, float]) -> dict[str, Callable[[Image.Image], Image.Image]]:
    """Return each operation as Pillow does it to one frame."""
    enhancers = {name: getattr(ImageEnhance, name.capitalize()) for name in
                 ("color", "contrast", "brightness", "sharpness")}  # fmt: skip
    return {
        "identity": lambda image: image,
        "autocontrast": ImageOps.autocontrast,
        "equalize": ImageOps.equalize,
        "rotate": lambda image: image.rotate(value["rotate"], fillcolor=FILL),
        "solarize": lambda image: ImageOps.solarize(image, value["solarize"]),
        **{
            name: lambda image, name=name, enhancer=enhancer: enhancer(image).enhance(value[name])
            for name, enhancer in enhancers.items()
        },
        "shear_x": affine(1, value["shear_x"], 0, 0, 1, 0),
        "shear_y": affine(1, 0, 0, value["shear_y"], 1, 0),
        "translate_x": affine(1, 0, value["translate_x"], 0, 1, 0),
        "translate_y": affine(1, 0, 0, 0, 1, value["translate_y"]),
        "posterize": lambda image: ImageOps.posterize(image, int(value["posterize"])),
        "cutout": lambda image: paint(image, value["cutout"]),
    }


def torchvision_calls(value: dict[str, float]) -> dict[str, Callable[[Tensor], Tensor]]:
    """Return each operation as torchvision v2 does it to a clip (T, C, H, W)."""
    F = v2.functional

    def move(clip: Tensor, translate=(0.0, 0.0), shear=(0.0, 0.0)) -> Tensor:
        return F.affine(clip, 0.0, list(translate), 1.0, list(shear), fill=list(FILL))

    return {
        "identity": lambda clip: clip,
        "autocontrast": F.autocontrast,
        "equalize": F.equalize,
        "rotate": lambda clip: F.rotate(clip, value["rotate"], fill=list(FILL)),
        "solarize": lambda clip: F.solarize(clip, value["solarize"]),
        "color": lambda clip: F.adjust_saturation(clip, value["color"]),
        "contrast": lambda clip: F.adjust_contrast(clip, value["contrast"]),
        "brightness": lambda clip: F.adjust_brightness(clip, value["brightness"]),
        "sharpness": lambda clip: F.adjust_sharpness(clip, value["sharpness"]),
        "shear_x": lambda clip: move(clip, shear=(np.degrees(np.arctan(value["shear_x"])), 0.0)),
        "shear_y": lambda clip: move(clip, shear=(0.0, np.degrees(np.arctan(value["shear_y"])))),
        "translate_x": lambda clip: move(clip, translate=(-value["translate_x"], 0.0)),
        "translate_y": lambda clip: move(clip, translate=(0.0, -value["translate_y"])),
        "posterize": lambda clip: F.posterize(clip, int(value["posterize"])),
        "cutout": lambda clip: paint_clip(clip, value["cutout"]),
    }


def bench_operations(rounds: int) -> None:
    """Compare each operation on a clip of 8 × 3 × 224²."""
    frames = make_frames(SIDE, SIDE)
    clip = torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous()
    images = [Image.fromarray(frame) for frame in frames]
    value = {name: op.value(MAGNITUDE, (SIDE, SIDE)) for name, op in RANDAUGMENT_OPS.items()}
    pillow, torchvision = pillow_calls(value), torchvision_calls(value)
    rows = []
    for name, operation in RANDAUGMENT_OPS.items():
        times = interleave(
            {
                "ours": lambda op=operation, v=value[name]: op.apply(clip, v, CENTER, FILL),
                "pillow": lambda call=pillow[name]: [call(image) for image in images],
                "torchvision": lambda call=torchvision[name]: call(clip),
            },
            rounds,
        )
        rows.append([name, *times.values()])
    rows.append(
        ["**mean**", *(sum(column) / len(rows) for column in list(zip(*rows, strict=True))[1:])]
    )
    for row in rows:
        row += [
            row[2] / row[1] if row[1] > 0.01 else "-",
            row[3] / row[1] if row[1] > 0.01 else "-",
        ]
    header = ("operation", "ours, ms", "Pillow, ms", "torchvision v2, ms", "Pillow ÷ ours",
              "torchvision ÷ ours")  # fmt: skip
    print_table(f"RandAugment, {FRAMES} × 3 × {SIDE}², magnitude {MAGNITUDE}", header, rows)


def bench_sample(rounds: int, num_draws: int = 60) -> None:
    """Measure the parts of an unlabeled sample beyond decoding, as a mean over fixed draws."""
    frames = make_frames(240, 320)
    boxes = [np.array([[100.0, 60.0, 180.0, 220.0]])] * FRAMES
    weak, strong = WeakTransform(), StrongTransform(RandAugment(), TemporalAugment())
    generator = torch.Generator().manual_seed(0)
    params = [weak.draw(240, 320, generator) for _ in range(num_draws)]
    view = weak.apply(frames, params[0])

    def make_strong_views() -> None:
        generator.manual_seed(1)
        for _ in range(num_draws):
            strong.apply(view, strong.draw(len(view), *view.shape[-2:], generator))

    times = interleave(
        {
            "weak view": lambda: [weak.apply(frames, drawn) for drawn in params],
            "strong view": make_strong_views,
            "person mask": lambda: [weak.mask(boxes, drawn) for drawn in params],
        },
        rounds,
    )
    rows = [[part, total / num_draws] for part, total in times.items()]
    rows.append(["**all**", sum(milliseconds for _, milliseconds in rows)])
    print_table("An unlabeled sample beyond decoding, 240 × 320", ("part", "ms"), rows)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    print(describe_machine())
    bench_operations(rounds)
    bench_sample(rounds // 4)


if __name__ == "__main__":
    main()
