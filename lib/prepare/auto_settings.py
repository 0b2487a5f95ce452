"""Resolve `auto` settings of a run from the videos and the hardware."""

import math
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import pandas as pd
import torch

from lib.config import PrepareSettings, project_path
from lib.data.frame_index import frame_rate, open_stream, packet_time
from lib.data.video_reader import find_frame_files
from lib.models.hub import has_lite0_weights
from lib.params import AUTO
from lib.prepare.find_videos import find_videos, has_own_split, split_counts
from lib.prepare.parallel import num_cores

NUM_HEADERS = 40  # videos that are opened
NUM_PACKETS = 1000  # that are read of each; counts them and tells their rate
FEW_VIDEOS = 10  # of a class in validation
CLIP_SECONDS = 2.56  # of the paper: 8 frames, every 8th of 25 per second
NETWORK = "efficientnet_lite0"
IMAGE_SIDE = 160  # pixels without a GPU; 224 costs twice as much (docs/pretrained.md)
# (starts from weights, supervised): steps that such a run needs, and fewest epochs
STEPS = {(True, True): (300, 20), (True, False): (100, 2)}
STEPS |= {(False, True): (4000, 500), (False, False): (3000, 140)}


class VideoStats(NamedTuple):
    """Medians over some of the videos, and the numbers of videos to train on."""

    frames: int = 180
    fps: float = 25.0
    short_side: int = 240
    num_train: int = 800  # labeled or not
    num_labeled: int = 800


class Hardware(NamedTuple):
    """Hardware to train with, and whether pretrained weights are installed."""

    has_gpu: bool = False
    has_weights: bool = False
    cores: int = 1

    def __str__(self) -> str:
        """Return a text for reasons."""
        return "a GPU" if self.has_gpu else f"no GPU, {self.cores} cores"


Group = tuple[dict[str, Any], str]  # values by name, and one reason


def fill_auto(
    parameters: Mapping[str, Any], videos: VideoStats, hardware: Hardware
) -> tuple[dict[str, Any], list[str]]:
    """Replace the values `auto` of a run; the new ones follow from the others.

    Returns the parameters, and one line per group of new values, with the reason.
    """
    values, reasons = dict(parameters), []
    for group in (_network, _start, _clip, _resolution, _batches, _schedule):
        defaults, reason = group(values, videos, hardware)
        new = {name: value for name, value in defaults.items() if values.get(name) == AUTO}
        values |= new
        if new:
            text = ", ".join(f"{name} {value}" for name, value in new.items())
            reasons.append(f"{text}: {reason}")
    return values, reasons


def _value(values: Mapping[str, Any], name: str, default: Any) -> Any:
    return default if values.get(name, AUTO) == AUTO else values[name]


def _network(values: Mapping[str, Any], _: VideoStats, hardware: Hardware) -> Group:
    if hardware.has_weights:
        return {"model": NETWORK}, "its ImageNet weights are installed"
    model = "r2plus1d_34" if hardware.has_gpu else "r3d_small"
    return {"model": model}, f"no pretrained weights (extra `pretrained`), {hardware}"


def _start(values: Mapping[str, Any], _: VideoStats, hardware: Hardware) -> Group:
    is_ready = hardware.has_weights and _value(values, "model", NETWORK) == NETWORK
    reason = f"the run starts from {'ImageNet' if is_ready else 'random'} weights, {hardware}"
    if is_ready:
        reason += "; the probe's head does not fit batch-norm statistics of a few clips"
    return {
        "pretrained": is_ready,
        "temporal_std_pooling": is_ready,
        "head_init": "linear_probe" if is_ready else "random",
        "freeze_fraction": 0.7 if is_ready and not hardware.has_gpu else 0.0,
        "freeze_batch_norm": is_ready,
    }, reason


def _clip(values: Mapping[str, Any], videos: VideoStats, hardware: Hardware) -> Group:
    clip_len, fps = _value(values, "clip_len", 8), videos.fps or 25
    span = min(CLIP_SECONDS * fps, 0.75 * videos.frames)
    interval = _value(values, "frame_interval", max(1, round(span / clip_len)))
    reason = f"a clip spans {clip_len * interval / fps:.1f} s; a video has {videos.frames} frames"
    return {"clip_len": clip_len, "frame_interval": interval}, reason


def _resolution(values: Mapping[str, Any], videos: VideoStats, hardware: Hardware) -> Group:
    if values.get("pretrained"):  # also if the videos are smaller
        side = 256 if hardware.has_gpu else IMAGE_SIDE
        reason = f"near the size that the weights were trained with, {hardware}"
    else:
        side = max(32, min(256 if hardware.has_gpu else 96, videos.short_side))
        reason = f"the videos have {videos.short_side} pixels, {hardware}"
    if values.get("short_side", AUTO) != AUTO:
        side, reason = values["short_side"], "short_side was set"
    crop = _value(values, "crop_size", side * 7 // 8 // 4 * 4)
    sizes = {"short_side": side, "crop_size": crop, "test_crop_size": crop}
    return sizes, f"{reason}; the crop is seven eighths"


def _batches(values: Mapping[str, Any], _: VideoStats, hardware: Hardware) -> Group:
    return {
        "num_processes": 0 if hardware.has_gpu else min(2, hardware.cores),
        "labeled_batch": 32 if hardware.has_gpu else 8 if values.get("pretrained") else 10,
        "unlabeled_batch": 32 if hardware.has_gpu else 16,
    }, str(hardware)


def _schedule(values: Mapping[str, Any], videos: VideoStats, hardware: Hardware) -> Group:
    is_ready, objective = bool(values.get("pretrained")), values.get("objective")
    batches, _ = _batches(values, videos, hardware)
    name, num_videos = "unlabeled_batch", videos.num_train
    if objective in ("supervised", "linear_probe"):
        name = "labeled_batch"
        num_videos = max(1, round(values.get("labeled_fraction", 1.0) * videos.num_labeled))
    steps_per_epoch = num_videos // _value(values, name, batches[name])
    steps, fewest = STEPS[is_ready, objective == "supervised"]
    epochs = max(fewest, math.ceil(steps / max(1, steps_per_epoch)))
    epochs = _value(values, "epochs", 1 if objective == "linear_probe" else epochs)
    return {
        "epochs": epochs,
        "warmup_epochs": round(0.02 * epochs, 1) if epochs > 1 else 0.0,
        "unlabeled_rampup_epochs": 0.0 if is_ready else round(epochs / 7, 1),
        "val_every_epochs": max(1, epochs // 10),
        "lr": 0.001 if is_ready else 0.07,  # 0.005 diverges with freeze_batch_norm
    }, f"{'ImageNet' if is_ready else 'random'} weights, {num_videos} videos per epoch"


def video_stats(videos: pd.DataFrame, root: Path) -> VideoStats:
    """Open some of the videos of `find_videos`; nothing is decoded."""
    positions = np.linspace(0, len(videos) - 1, min(NUM_HEADERS, len(videos))).astype(int)
    shown = videos.iloc[positions]
    headers = [
        _header(root / path, seconds)
        for path, seconds in zip(shown["path"], shown["end_s"] - shown["start_s"], strict=True)
    ]
    headers = [header for header in headers if header is not None]
    labeled, unlabeled = split_counts(videos, PrepareSettings().val_fraction)["train"]
    if not headers:
        return VideoStats(num_train=labeled + unlabeled, num_labeled=labeled)
    frames, fps, side = np.median(headers, axis=0).tolist()
    return VideoStats(int(frames), round(fps, 2), int(side), labeled + unlabeled, labeled)


def _header(path: Path, segment_s: float = math.nan) -> tuple[int, float, int] | None:
    """Return frames, rate and short side of a video by its first packets; None if unreadable.

    The frames are those of a segment of `segment_s` seconds, unless that is NaN.
    """
    try:
        if path.is_dir():
            names = find_frame_files(path)
            with open_stream(path / names[0]) as (_, stream):
                return len(names), 25.0, min(stream.width, stream.height)
        with open_stream(path) as (container, stream):
            packets = islice(container.demux(stream), NUM_PACKETS)
            times = [packet_time(container, packet) for packet in packets if packet.size]
            fps = frame_rate(times, stream) or 25.0
            frames = len(times)
            if frames >= NUM_PACKETS:
                frames = stream.frames or round((container.duration or 0) / av.time_base * fps)
            frames = frames if math.isnan(segment_s) else round(segment_s * fps)
            return max(1, frames), fps, min(stream.width, stream.height)
    except (av.FFmpegError, ValueError, OSError):
        return None  # preparing reports the reason


def data_warnings(videos: pd.DataFrame, values: Mapping[str, Any], stats: VideoStats) -> list[str]:
    """Return warnings about a run on the videos of `find_videos`, before any of them is opened."""
    labeled = videos[videos["class"] != ""]
    classes = labeled["class"].unique()
    if len(classes) == 1:
        raise ValueError(
            f"videos_dir: all are of one class, {classes[0]!r}; add a folder of another"
        )
    is_split = has_own_split(videos)
    share = 1.0 if is_split else PrepareSettings().val_fraction
    counts = labeled[labeled["part"] == "val"] if is_split else labeled
    counts = (counts["class"].value_counts() * share).round().clip(lower=1).astype(int)
    warnings = []
    if counts.min() < FEW_VIDEOS:
        total = int(counts.sum())
        warnings.append(
            f"only {counts.min()} validation videos of {counts.idxmin()!r} and {total} in total: "
            f"one video is {100 / total:.1f} points of accuracy"
        )
    side = values.get("short_side")
    if isinstance(side, int) and 2 * side < stats.short_side:
        warnings.append(
            f"frames of {stats.short_side} pixels are scaled to {side}: if small details matter, "
            "set short_side and crop_size higher"
        )
    return warnings


def resolve_auto(parameters: Mapping[str, Any]) -> tuple[dict[str, Any] | None, list[str]]:
    """Resolve the values `auto` of a run's parameters from its videos and this machine.

    Without `videos_dir` the values are for usual videos, without a GPU and weights. Returns the
    parameters, None for a probe without weights to probe; reasons and warnings.
    """
    if parameters.get("videos_dir") is None:
        return fill_auto(parameters, VideoStats(), Hardware())
    root = project_path(parameters["videos_dir"])
    videos, ignored = find_videos(root)
    stats = video_stats(videos, root)
    hardware = Hardware(torch.cuda.is_available(), has_lite0_weights(), num_cores())
    values, reasons = fill_auto(parameters, stats, hardware)
    is_probe = values.get("objective") == "linear_probe"
    if is_probe and not (values.get("pretrained") or values.get("weights")):
        return None, ["a probe needs pretrained weights, which are not installed: left out"]
    left_out = [f"left out: {text}" for text in ignored]
    return values, [*reasons, *data_warnings(videos, values, stats), *left_out]
