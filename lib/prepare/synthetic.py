"""The embedded data sets "moving actors": small videos of textured rectangles that move.

The action is the motion of the actor, not its look. In the split `train` the scene predicts the
action, as in real data sets: `SCENE_BIAS` of the videos show the scene family of their action. The
split `val` has the same bias; in `val_swapped` no video shows the scene family of its action, so
that a network that recognizes scenes fails there. Actors are upright rectangles: like the exact
mask of a person, their boxes contain nothing of the scene.
"""

from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from lib.data.dataset import VideoDataset, write_dataset, write_split
from lib.data.frame_tables import FrameRows, PersonBoxes
from lib.fileio import write_atomic
from lib.prepare.parallel import TaskResult, map_in_workers, num_cores

SIZE = 64  # side of a frame, pixels
NUM_FRAMES = 32
FPS = 16
SEED = 20230401
VIDEOS_PER_PROCESS = 100  # at least; a process takes about two seconds to start
MARGIN = 16  # pixels of scene beyond each side of the frame, for the motion of the camera


class EmbeddedSet(NamedTuple):
    """An embedded data set.

    Attributes:
        scene_bias: Share of videos with the scene of their action, except in `val_swapped`.
        split_sizes: Numbers of videos.
        approach: Growth of the actor from the first to the last frame, as a share of its size. Two
            actions approach the camera, two withdraw (`APPROACHES`); a video played backwards
            shows the other. 0: none does.
    """

    scene_bias: float
    split_sizes: dict[str, int]
    approach: float = 0.0


_SIZES = {"train": 600, "val": 180, "val_swapped": 180}
_NUISANCES = {"val_light": 180, "val_view": 180, "val_time": 180}
EMBEDDED = {
    "synthetic": EmbeddedSet(0.85, _SIZES),
    "synthetic_nuisances": EmbeddedSet(0.75, _SIZES | _NUISANCES, approach=0.4),
}


# --- Actions: position (x, y) and scale of the actor over time ------------------------------------
# `phase` (T,) is the angle of the cycle in radians, `reach` the size of the motion in (0.5, 1).


def _bounce(phase: np.ndarray, reach: float) -> tuple:
    return 0, 11 * reach * np.sin(phase), 1


def _circle(phase: np.ndarray, reach: float) -> tuple:
    return 11 * reach * np.cos(phase), 11 * reach * np.sin(phase), 1


def _pulse(phase: np.ndarray, reach: float) -> tuple:
    return 0, 0, 1 + 0.35 * reach * np.sin(phase)


def _sway(phase: np.ndarray, reach: float) -> tuple:
    return 11 * reach * np.sin(phase), 0, 1


ACTIONS = {"bounce": _bounce, "circle": _circle, "pulse": _pulse, "sway": _sway}
APPROACHES = {"bounce": 1, "circle": -1, "pulse": -1, "sway": 1}


# --- Textures: a value in [0, 1] at every point (x, y), in pixels ---------------------------------


def _stripes(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    angle, wave = rng.uniform(0, np.pi), rng.uniform(7, 14)
    along = (x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / wave
    return 0.5 + 0.5 * np.clip(3 * np.sin(along), -1, 1)


def _checks(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    side = rng.uniform(5, 10)
    return ((np.floor(x / side) + np.floor(y / side)) % 2).astype(np.float32)


def _dots(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    step = rng.uniform(7, 13)
    dx, dy = x % step - step / 2, y % step - step / 2
    return (dx**2 + dy**2 < (0.32 * step) ** 2).astype(np.float32)


def _bricks(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    height = rng.uniform(6, 11)
    row = np.floor(y / height)
    across = (x + (row % 2) * height) % (2 * height)
    return ((y % height > 1.5) & (across > 1.5)).astype(np.float32)


def _clouds(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    value = np.zeros_like(x)
    for _ in range(6):
        angle, wave, shift = rng.uniform(0, 2 * np.pi), rng.uniform(14, 45), rng.uniform(0, 7)
        value += np.sin((x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / wave + shift)
    return np.clip(0.5 + value / 6, 0, 1)


def _skyline(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    width = rng.uniform(6, 12)
    tops = rng.uniform(0.25, 0.8, size=64) * (y.max() - y.min()) + y.min()
    return (y > tops[(np.floor((x - x.min()) / width)).astype(int)]).astype(np.float32)


TEXTURES: tuple[Callable, ...] = (_stripes, _checks, _dots, _bricks, _clouds, _skyline)


# Texture and color (red, green, blue) of each family of scenes; that at position k belongs to the
# action at position k. A network learns a color long before it learns a motion.
SCENES: dict[str, tuple[Callable, tuple[float, float, float]]] = {
    "court": (_checks, (150, 85, 45)),
    "lawn": (_stripes, (60, 125, 50)),
    "pool": (_clouds, (40, 100, 160)),
    "wall": (_bricks, (120, 60, 110)),
}
COLOR_SPREAD = 14  # of a scene's color in one video
SHADE = 30  # between the two shades of a scene
CLUTTER = 0.1  # probability of each of six small rectangles in a scene


def _two_colors(rng: np.random.Generator) -> np.ndarray:
    """Draw two bright and clearly different colors, shape (2, 3)."""
    colors = np.zeros((2, 3))
    while np.abs(colors[0] - colors[1]).sum() <= 62.5:
        colors = rng.uniform(130, 255, size=(2, 3))
    return colors


def _paint(value: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """Mix two colors (2, 3) by values (...) in [0, 1]; return (..., 3)."""
    return colors[0] + value[..., None] * (colors[1] - colors[0])


def render_scene(scene: str, rng: np.random.Generator) -> np.ndarray:
    """Render a still scene, shape (SIZE + 2·MARGIN, SIZE + 2·MARGIN, 3), float, 0..255."""
    side = SIZE + 2 * MARGIN
    y, x = np.mgrid[0:side, 0:side].astype(np.float32)
    shift = rng.uniform(0, 50, size=2)
    texture, color = SCENES[scene]
    value = texture(x + shift[0], y + shift[1], rng)
    shade = color + rng.uniform(-COLOR_SPREAD, COLOR_SPREAD, size=3)
    image = _paint(value, np.stack([shade, shade + rng.choice([-1, 1]) * SHADE]))
    for _ in range(rng.binomial(6, CLUTTER)):
        center, half = rng.uniform(0, side, size=2), rng.uniform(2, 7, size=2)
        inside = (abs(x - center[0]) < half[0]) & (abs(y - center[1]) < half[1])
        image[inside] = rng.uniform(100, 255, size=3)
    return image


# --- Nuisances: changes of light, view and time that leave the action as it is --------------------

# Ranges from which each video draws, chosen with seeds that are not reported (docs/evidence.md).
EXPOSURE = (0.4, 1.2)  # factor of all pixels
TINT = (0.4, 1.2)  # factor of each color
VEIL = (0.0, 0.5)  # share of a uniform haze
SHADOW = (0.25, 0.7)  # factor on one side of a line
BACKLIGHT = (0.3, 1.0)  # factor of the actor
ROLL = (25, 40)  # degrees to either side
SHEAR = (0.2, 0.45)  # to either side
ZOOM = (0.75, 1.25)  # factor, log-uniform
SHIFT = 12  # pixels in each direction, at most
SPEEDS = (0.5, 0.75, 1.3, 1.6)  # range of slow and of fast, factor
MAX_HOLD = 9  # frames for which one frame may be held


def _light(frames: np.ndarray, inside: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Change exposure, color and contrast of the light; cast a shadow; backlight the actor."""
    light = rng.uniform(*EXPOSURE) * rng.uniform(*TINT, size=3)
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[0:SIZE, 0:SIZE] - SIZE / 2
    edge = np.cos(angle) * x + np.sin(angle) * y + rng.uniform(-16, 16)
    shade = 1 - (1 - rng.uniform(*SHADOW)) / (1 + np.exp(-edge / 2))
    frames = frames * light * shade[..., None]
    frames = np.where(inside[..., None], frames * rng.uniform(*BACKLIGHT), frames)
    veil = rng.uniform(*VEIL)
    return (1 - veil) * frames + veil * 200 * light / light.max()


def _signed_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return rng.uniform(low, high) * rng.choice([-1, 1])


def _draw_view(
    x: np.ndarray, y: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Map pixels of the frame to those of the scene, seen by a camera that was moved."""
    roll = np.radians(_signed_uniform(rng, *ROLL))
    shear = _signed_uniform(rng, *SHEAR)
    zoom = np.exp(rng.uniform(*np.log(ZOOM)))
    dx, dy = rng.uniform(-SHIFT, SHIFT, size=2)
    x, y = (x - SIZE / 2 + dx) / zoom, (y - SIZE / 2 + dy) / zoom
    x, y = np.cos(roll) * x - np.sin(roll) * y, np.sin(roll) * x + np.cos(roll) * y
    return SIZE / 2 + x + shear * y, SIZE / 2 + y


def _draw_time(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the time of each frame, backwards at another speed, and the frame that is shown."""
    slow, fast = rng.uniform(*SPEEDS[:2]), rng.uniform(*SPEEDS[2:])
    speed = -rng.choice([slow, fast])
    steps = rng.integers(1, MAX_HOLD + 1, size=NUM_FRAMES)
    is_new = np.isin(np.arange(NUM_FRAMES), steps.cumsum())
    shown = np.maximum.accumulate(np.where(is_new, np.arange(NUM_FRAMES), 0))
    middle = NUM_FRAMES / 2
    return middle + speed * (np.arange(NUM_FRAMES) - middle), shown


def render_video(
    action: str,
    scene: str,
    rng: np.random.Generator,
    nuisance: str = "",
    approach: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Render frames (NUM_FRAMES, SIZE, SIZE, 3), RGB, uint8, and the actor's boxes.

    The boxes (NUM_FRAMES, 4), x1 y1 x2 y2 in pixels, are exact to the pixel. A nuisance, `light`,
    `view` or `time`, changes nothing else that is drawn.
    """
    nuisances = rng.spawn(1)[0]
    time, shown = np.arange(NUM_FRAMES), np.arange(NUM_FRAMES)
    if nuisance == "time":
        time, shown = _draw_time(nuisances)
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float64)
    if nuisance == "view":
        x, y = _draw_view(x, y, nuisances)

    background = render_scene(scene, rng)
    drift = rng.uniform(-0.35, 0.35, size=2) * time[:, None]
    corner = np.rint(MARGIN + drift).astype(int)
    pixels = (np.rint(x) + np.rint(y) * len(background)).astype(int)
    pixels = pixels + (corner @ [1, len(background)])[:, None, None]
    frames = background.reshape(-1, 3).take(pixels, axis=0, mode="wrap")

    cycles, direction = rng.uniform(1.8, 2.2), rng.choice([-1, 1])
    phase = rng.uniform(0, 2 * np.pi) + direction * 2 * np.pi * cycles * time / NUM_FRAMES
    dx, dy, scale = (
        np.broadcast_to(value, NUM_FRAMES)[:, None, None]
        for value in ACTIONS[action](phase, rng.uniform(0.8, 1))
    )
    growth = APPROACHES[action] * approach * (time / NUM_FRAMES - 0.5)
    scale = scale * (1 + growth)[:, None, None]
    half = rng.uniform(15, 20, size=2)  # of the actor's width and height
    center = SIZE / 2 + rng.uniform(-5, 5, size=2)
    u = (x - center[0] - dx) / (half[0] * scale)
    v = (y - center[1] - dy) / (half[1] * scale)
    inside = (abs(u) < 1) & (abs(v) < 1)
    texture = TEXTURES[rng.integers(len(TEXTURES))](40 + 17 * u, 40 + 17 * v, rng)
    frames[inside] = _paint(texture[inside], _two_colors(rng))

    frames *= rng.uniform(0.75, 1.15)
    if nuisance == "light":
        frames = _light(frames, inside, nuisances)
    frames += rng.normal(0, 4, size=frames.shape)
    np.clip(frames, 0, 255, out=frames)
    return frames.astype(np.uint8)[shown], _boxes_of(inside)[shown]


def _boxes_of(inside: np.ndarray) -> np.ndarray:
    """Return the smallest boxes (T, 4) around the true pixels of square masks (T, S, S)."""
    sides = np.stack([inside.any(axis=1), inside.any(axis=2)], axis=1)  # columns, rows
    first, last = sides.argmax(axis=2), sides.shape[2] - sides[:, :, ::-1].argmax(axis=2)
    return np.concatenate([first, last], axis=1)


def write_video(path: Path, frames: np.ndarray, fps: int) -> Path:
    """Encode RGB frames (T, H, W, 3), uint8, with even sides, as a video file."""

    def encode(temporary: Path) -> None:
        # bitexact: no version of FFmpeg in the file, which with decord may be another one.
        with av.open(str(temporary), "w", options={"fflags": "+bitexact"}) as container:
            stream = container.add_stream("libx264", rate=Fraction(fps))
            stream.height, stream.width = frames.shape[1:3]
            stream.pix_fmt = "yuv420p"
            stream.thread_count = 1  # deterministic, as without x264's look-ahead (zerolatency)
            stream.options = {"crf": "20", "preset": "veryfast", "tune": "zerolatency"}
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())

    return write_atomic(path, encode)


def draw_videos(split_sizes: dict[str, int], scene_bias: float) -> pd.DataFrame:
    """Draw columns split, name, action, scene, seed of each video; its action alternates."""
    actions, scenes = list(ACTIONS), list(SCENES)
    rows = []
    for split_number, (split, count) in enumerate(split_sizes.items()):
        for number in range(count):
            label = number % len(actions)
            rng = np.random.default_rng([SEED, split_number, number])
            is_biased = split != "val_swapped" and rng.random() < scene_bias
            other = (label + rng.integers(1, len(scenes))) % len(scenes)
            scene = scenes[label if is_biased else other]
            seed = int(rng.integers(2**62))
            action = actions[label]
            rows.append((split, f"{action}/{split}_{number:04d}", action, scene, seed))
    return pd.DataFrame(rows, columns=["split", "name", "action", "scene", "seed"])


def make_video(
    video: tuple[str, str, str, str, int], folder: Path, approach: float = 0.0
) -> np.ndarray:
    """Write a video (split, name, action, scene, seed) unless it exists; return boxes (T, 4)."""
    split, name, action, scene, seed = video
    nuisance = split.removeprefix("val_")
    frames, boxes = render_video(action, scene, np.random.default_rng(seed), nuisance, approach)
    path = folder / f"{name}.mp4"
    if not path.exists():
        write_video(path, frames, FPS)
    return boxes


def make_synthetic(
    folder: Path,
    split_sizes: dict[str, int] | None = None,
    num_processes: int = 0,
    name: str = "synthetic",
) -> VideoDataset:
    """Render and encode a data set into its prepared folder; existing videos are kept.

    Args:
        folder: The prepared folder.
        split_sizes: Number of videos in each split; None for those of `EMBEDDED`.
        num_processes: Worker processes; 0 for one per core, or fewer for few videos.
        name: Name in `EMBEDDED`.
    """
    scene_bias, sizes, approach = EMBEDDED[name]
    videos = draw_videos(split_sizes or sizes, scene_bias)
    items = list(videos.itertuples(index=False, name=None))
    make = partial(make_video, folder=folder / "videos", approach=approach)
    num_processes = num_processes or min(num_cores(), max(1, len(items) // VIDEOS_PER_PROCESS))
    if num_processes > 1:
        results = map_in_workers(make, items, num_processes)
    else:  # starts no process
        results = (TaskResult(position, make(item)) for position, item in enumerate(items))
    boxes = np.ones((len(videos), NUM_FRAMES, 1, 5))
    for result in tqdm(results, "synthetic videos", len(videos), unit="video"):
        if result.error is not None:
            video = items[result.position][1]
            raise ValueError(f"{folder}: {video} cannot be written ({result.error})")
        boxes[result.position, :, 0, :4] = result.value
    num_frames = [NUM_FRAMES] * len(videos)
    PersonBoxes.write(folder, videos["name"].tolist(), num_frames, map(FrameRows.stack, boxes))
    actions = list(ACTIONS)
    index = pd.DataFrame(
        {
            "name": videos["name"],
            "path": "videos/" + videos["name"] + ".mp4",
            "class": videos["action"],
            "label": videos["action"].map(actions.index),
            "frames": NUM_FRAMES,
            "fps": FPS,
            "width": SIZE,
            "height": SIZE,
        }
    )
    source = {"made_by": "lib.prepare.synthetic", "seed": SEED, "scene_bias": scene_bias}
    source["scenes"] = dict(zip(videos["name"], videos["scene"], strict=True))
    dataset = write_dataset(folder, name, actions, folder, index, source)
    for split, rows in videos.groupby("split", sort=False).groups.items():
        write_split(dataset, split, rows)
    return dataset
