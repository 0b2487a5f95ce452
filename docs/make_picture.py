"""The moving picture of README: views of one clip of the embedded data, with its partner's scene.

python -m docs.make_picture [row of the clip, row of its partner, seed]
"""

import sys
from pathlib import Path

from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from lib import TEMPORAL_OPS, ClipDataset, make_generator, open_dataset
from lib.config import ExploreSettings
from lib.data.clip_dataset import ClipBatch, ViewSpec
from lib.plots.clips import preview_scene_augmentation
from lib.plots.style import SCENE, STRONG, TEMPORAL, WEAK

SIDE, GAP, HEAD, BAR = 192, 8, 26, 4  # pixels
FRAME_MS = 140
OUTPUT = Path(__file__).parent / "images" / "views.webp"


def views_of(row: int, partner: int, seed: int) -> dict[tuple[str, str], Tensor]:
    """Return (title, color) -> view of the clip, (T, 3, S, S), uint8."""
    settings = ExploreSettings(clip_len=12, frame_interval=2, temporal_ops=["none"])
    dataset = open_dataset("synthetic", None, "data")
    clips = ClipDataset(dataset, settings, ViewSpec(strong=True, person_mask=True), (seed,))
    batch = ClipBatch.collate([clips[(0, row)], clips[(1, partner)]])
    mixed, _ = preview_scene_augmentation(
        batch.weak, batch.strong, batch.person_mask, "actor_cutmix", make_generator(0)
    )
    weak = batch.weak[0]
    return {
        ("weak", WEAK): weak,
        ("strong: RandAugment", STRONG): batch.strong[0],
        ("temporal: T-Reverse", TEMPORAL): TEMPORAL_OPS["reverse"].apply(weak, 0.0, None),
        ("scene: ActorCutMix", SCENE): mixed[0],
    }


def draw(views: dict[tuple[str, str], Tensor], time: int) -> Image.Image:
    """Return the views at one time, side by side below their titles."""
    width = len(views) * (SIDE + GAP) - GAP
    picture = Image.new("RGB", (width, HEAD + BAR + SIDE), "white")
    canvas, font = ImageDraw.Draw(picture), ImageFont.truetype(findfont("DejaVu Sans"), 15)
    for column, ((title, color), clip) in enumerate(views.items()):
        left = column * (SIDE + GAP)
        canvas.text((left, 2), title, fill="black", font=font)
        canvas.rectangle((left, HEAD, left + SIDE - 1, HEAD + BAR - 1), fill=color)
        frame = Image.fromarray(clip[time].permute(1, 2, 0).numpy())
        picture.paste(frame.resize((SIDE, SIDE), Image.Resampling.NEAREST), (left, HEAD + BAR))
    return picture


if __name__ == "__main__":
    row, partner, seed = [int(text) for text in sys.argv[1:]] or (13, 6, 4)
    views = views_of(row, partner, seed)
    frames = [draw(views, time) for time in range(len(next(iter(views.values()))))]
    film = {"save_all": True, "append_images": frames[1:], "duration": FRAME_MS, "loop": 0}
    frames[0].save(OUTPUT, lossless=True, **film)
    print(f"{OUTPUT}: {OUTPUT.stat().st_size / 1e3:.0f} kB")
