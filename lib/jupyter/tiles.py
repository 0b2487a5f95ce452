"""Clips that move: tiles side by side in one picture, so that they loop in step.

The same composed frames become a strip of JPEG pictures for a widget (it is encoded fastest, and
the browser steps through it), or an H.264 video for a page that is read offline.
"""

import base64
import functools
import io
import textwrap
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import av
import matplotlib
import numpy as np
import torch.nn.functional as F
from matplotlib.colors import to_rgb
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from lib.jupyter.html import escape
from lib.plots.style import shorten

HEADER, BAR, GAP = 20, 4, 6  # pixels: the title above a tile, its colour, the space between tiles
EMPTY = 232  # grey of a tile without a clip
MIN_SIDE = 180  # pixels; smaller clips are enlarged by a whole number
FRAMES_PER_S = 6
JPEG_QUALITY = 88


class Tile(NamedTuple):
    """One clip in a composed picture.

    Attributes:
        title: What it is.
        color: Of the bar below the title, any colour of matplotlib.
        clip: (T, 3, H, W) or a mask (T, 1, H, W) of 0 and 1, uint8; or a text that says what is
            missing.
        numbers: What stands above each frame at the right, length T; empty for nothing.
    """

    title: str
    color: str
    clip: Tensor | str
    numbers: Sequence[int] = ()


def compose(tiles: Sequence[Tile], columns: int) -> np.ndarray:
    """Set tiles side by side, each as large as the first square clip, enlarged by a whole number.

    Clips of another shape are scaled into that.

    Args:
        tiles: At least one with a clip; all clips have the same number of frames.
        columns: Tiles in a row.

    Returns:
        Frames (T, H, W, 3), uint8, with even sides.
    """
    clips = [tile.clip for tile in tiles if isinstance(tile.clip, Tensor)]
    count, side = len(clips[0]), tile_side(clips)
    width, height = side + GAP, side + HEADER + BAR + GAP
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    size = (rows * height - GAP, columns * width - GAP)
    canvas = np.full((count, size[0] + size[0] % 2, size[1] + size[1] % 2, 3), 255, np.uint8)
    for position, tile in enumerate(tiles):
        top, left = position // columns * height, position % columns * width
        place = canvas[:, top : top + height - GAP, left : left + side]
        numbers = tile.numbers or [None] * count
        for frame, number in zip(place, numbers, strict=True):
            frame[: HEADER + BAR] = _header(tile.title, tile.color, side, number)
        below = place[:, HEADER + BAR :]
        below[:] = _note(tile.clip, side) if isinstance(tile.clip, str) else _fit(tile.clip, side)
    return canvas


def tile_side(clips: Sequence[Tensor]) -> int:
    """Return the side of the tiles for some clips: the first square clip's, enlarged."""
    square = [clip.shape[-1] for clip in clips if clip.shape[-1] == clip.shape[-2]]
    own = square[0] if square else MIN_SIDE
    return own * max(1, -(-MIN_SIDE // own))


def _fit(clip: Tensor, side: int) -> np.ndarray:
    """Return a clip as frames (T, side, side, 3): small pixels stay square, large frames shrink."""
    if clip.shape[1] == 1:
        clip = clip * 255
    height, width = clip.shape[-2:]
    if side % height == 0 and height == width:
        scale = side // height
        frames = clip.permute(0, 2, 3, 1).numpy()
        return frames.repeat(scale, axis=1).repeat(scale, axis=2)
    small = _scale(clip, side)
    size = small.shape[-2:]
    frames = np.full((len(clip), side, side, clip.shape[1]), EMPTY, np.uint8)
    top, left = (side - size[0]) // 2, (side - size[1]) // 2
    frames[:, top : top + size[0], left : left + size[1]] = small.permute(0, 2, 3, 1).numpy()
    return frames


def shrink(clip: Tensor, side: int) -> Tensor:
    """Scale a clip (T, C, H, W) down so that its longer side is at most `side` pixels."""
    return clip if max(clip.shape[-2:]) <= side else _scale(clip, side)


def _scale(clip: Tensor, side: int) -> Tensor:
    """Scale a clip so that its longer side is `side` pixels."""
    scale = side / max(clip.shape[-2:])
    size = [max(1, round(length * scale)) for length in clip.shape[-2:]]
    return F.interpolate(clip, size, mode="bilinear", align_corners=False, antialias=scale < 1)


@functools.lru_cache(maxsize=1024)
def _header(title: str, color: str, width: int, number: int | None) -> np.ndarray:
    picture = Image.new("RGB", (width, HEADER + BAR), "white")
    draw, font = ImageDraw.Draw(picture), _font(13)
    room = width - (24 if number is not None else 0)
    while title and draw.textlength(title, font) > room:
        title = shorten(title, len(title) - 1) if len(title) > 2 else ""
    draw.text((1, 2), title, "black", font)
    if number is not None:
        draw.text((width - 1, 3), str(number), "#555555", _font(12), anchor="ra")
    rgb = tuple(round(255 * part) for part in to_rgb(color))
    draw.rectangle((0, HEADER, width, HEADER + BAR), rgb)
    return np.asarray(picture)


@functools.lru_cache(maxsize=64)
def _note(text: str, side: int) -> np.ndarray:
    picture = Image.new("RGB", (side, side), (EMPTY,) * 3)
    draw, font = ImageDraw.Draw(picture), _font(13)
    words = textwrap.fill(text, (side - 16) // 8)
    place = (side / 2, side / 2)
    draw.multiline_text(place, words, "black", font, anchor="mm", align="center")
    return np.asarray(picture)


@functools.lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    path = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    return ImageFont.truetype(str(path), size)


def encode_strip(frames: np.ndarray) -> bytes:
    """Return frames (T, H, W, 3), uint8, below each other as one JPEG picture."""
    buffer = io.BytesIO()
    Image.fromarray(frames.reshape(-1, *frames.shape[2:])).save(
        buffer, format="jpeg", quality=JPEG_QUALITY
    )
    return buffer.getvalue()


def strip_html(frames: np.ndarray) -> str:
    """Return HTML that plays frames (T, H, W, 3) in a loop without any script.

    A box named `pause` below it stops it.
    """
    count, height, width = frames.shape[:3]
    data = base64.b64encode(encode_strip(frames)).decode()
    name = f"strip{uuid.uuid4().hex[:8]}"
    # `end` is one frame beyond the last: the last step of the animation never shows it.
    return (
        f"<style>@keyframes {name} {{to {{transform: translateY(-100%)}}}}"
        f" .{name}:has(input:checked) img {{animation-play-state: paused !important}}</style>"
        f'<div class="{name}" style="max-width:{width}px">'
        f'<div style="overflow:hidden;aspect-ratio:{width}/{height};background:#fff">'
        f'<img alt="the views of the clip, looping" src="data:image/jpeg;base64,{data}" '
        f'style="display:block;width:100%;max-width:none;'
        f'animation:{name} {count / FRAMES_PER_S:.3f}s steps({count}) infinite"></div>'
        f'<label><input type="checkbox"> pause</label></div>'
    )


def encode_mp4(frames: np.ndarray) -> bytes:
    """Return frames (T, H, W, 3), uint8, with even sides, as an H.264 video in an MP4 file."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FRAMES_PER_S)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"  # what browsers play
        stream.options = {"crf": "26", "preset": "veryfast"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


def movie_html(frames: np.ndarray, description: str) -> str:
    """Return a video element that holds its H.264 video and plays it offline, in a loop.

    On paper its middle frame is shown.

    Args:
        frames: Shape (T, H, W, 3), uint8, with even sides.
        description: What is seen, for those who cannot see it.
    """
    height, width = frames.shape[1:3]
    movie = base64.b64encode(encode_mp4(frames)).decode()
    still = base64.b64encode(encode_strip(frames[len(frames) // 2][None])).decode()
    description = escape(description)
    return (
        "<style>@media print {.movie video {display: none} .movie img {display: block !important}}"
        f'</style><div class="movie"><video src="data:video/mp4;base64,{movie}" width="{width}" '
        f'height="{height}" style="max-width:100%;height:auto" aria-label="{description}" '
        'autoplay loop muted playsinline title="click to pause" '
        'onclick="this.paused ? this.play() : this.pause()"></video>'
        f'<img src="data:image/jpeg;base64,{still}" alt="{description}" '
        f'style="display:none;max-width:100%"></div>'
    )


def tiles_html(tiles: Sequence[Tile], description: str, columns: int = 4) -> str:
    """Return HTML that plays clips side by side in one video; says so if there are none."""
    clips = [tile.clip for tile in tiles if isinstance(tile.clip, Tensor)]
    if not clips:
        missing = tiles[0].clip if tiles else "there is no such video"
        return f"<p>{escape(missing)}</p>"
    return movie_html(compose(tiles, columns), description)
