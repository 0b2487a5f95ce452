"""Predictions on new videos: clips that slide through a video, and the regions that decide.

A new video has no person boxes. Its moving region is the difference from the frames around the
clip, so that no detector is downloaded.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lib.augment.views import EvalTransform
from lib.config import ClipSettings, TrainSettings
from lib.data.dataset import VideoRecord
from lib.data.video_reader import iterate_frames, read_frames
from lib.evaluate.clip_regions import (
    CLIP_REGIONS,
    ClipRegions,
    center_crop_mask,
    predict_regions,
)
from lib.evaluate.trained_model import TrainedModel
from lib.prepare.boxes.motion import moving_boxes
from lib.prepare.inspect_videos import VideoInfo, inspect_video, inspect_videos
from lib.prepare.own_folder import VIDEO_SUFFIXES

BATCH_CLIPS = 16
BATCH_BYTES = 256e6  # of decoded frames in a batch: large frames make smaller batches
MAX_SHOWN = 4  # classes whose deciding clip is shown
OPENING_S = 6 * 3600.0  # a decoder that needs longer for a video has frozen
FRAMES_AROUND = 24  # frames that define the still background, one clip before to one after
MAX_COVERED = 0.9  # share of the picture that moves; above it no background is left


class NewVideo(NamedTuple):
    """A video that can be read.

    Attributes:
        record: Path, size and frame index.
        fps: Frames per second; 0 if unknown.
        note: A remark on a damaged file, or None.
    """

    record: VideoRecord
    fps: float
    note: str | None = None


@dataclass(frozen=True)
class Prediction:
    """The class probabilities of a video over time.

    Attributes:
        record: The video.
        starts: First frame of each clip, shape (C,).
        span: Frames from the first frame of a clip to its end.
        fps: Frames per second; 0 if unknown.
        clips: Class probabilities of each clip, shape (C, K).
        video: Class probabilities of the whole video, shape (K,).
        deciding: Class -> the regions of the clip that is most confident of it.
    """

    record: VideoRecord
    starts: np.ndarray
    span: int
    fps: float
    clips: np.ndarray
    video: np.ndarray
    deciding: dict[int, ClipRegions] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The video's file."""
        return self.record.path

    @property
    def label(self) -> int:
        """Class of the whole video."""
        return int(self.video.argmax())

    @property
    def seconds(self) -> np.ndarray:
        """Middle of each clip, in seconds; in frames if the rate is unknown."""
        return (self.starts + self.span / 2) / (self.fps or 1)


# --- Videos ---------------------------------------------------------------------------------------


def find_new_videos(places: list[Path]) -> list[Path]:
    """Return the videos among files and below folders, sorted within a folder.

    Raises:
        ValueError: If a place is missing or holds no video.
    """
    videos: list[Path] = []
    for place in places:
        files = [place] if place.is_file() else sorted(place.rglob("*"))
        files = [p for p in files if p.is_file() and p.suffix.lower() in VIDEO_SUFFIXES]
        if not files:
            reason = "holds no video" if place.exists() else "is missing"
            suffixes = ", ".join(sorted(VIDEO_SUFFIXES))
            raise ValueError(f"{place}: {reason}; name a folder or file of {suffixes}")
        videos += files
    return list(dict.fromkeys(videos))


def open_video(path: Path) -> NewVideo:
    """Decode a video once from end to end; ValueError with the reason if it cannot be read."""
    return _open(path, inspect_video(path))


def open_videos(paths: Sequence[Path]) -> tuple[list[NewVideo], list[str]]:
    """Open videos in worker processes; return the readable ones and the problems of the others."""
    opened, problems = [], []
    table = inspect_videos(paths, timeout_s=OPENING_S).astype(object)
    table = table.where(table.notna(), None)
    for path, row in zip(paths, table.itertuples(index=False, name=None), strict=True):
        try:
            opened.append(_open(path, VideoInfo(*row)))
        except ValueError as error:
            problems.append(str(error))
    return opened, problems


def _open(path: Path, info: VideoInfo) -> NewVideo:
    if info.error is not None:
        raise ValueError(f"{path}: cannot be read: {info.error}")
    size = (info.frames, info.height, info.width)
    record = VideoRecord(0, path.name, path, 0, *size, info.fingerprint, info.seek)
    return NewVideo(record, info.fps, info.note)


def remarks(settings: ClipSettings, videos: Sequence[NewVideo]) -> list[str]:
    """Return remarks on videos that are damaged or shorter than a clip."""
    texts, span = [], settings.clip_len * settings.frame_interval
    for video in videos:
        name, frames = video.record.path.name, video.record.num_frames
        if video.note:
            texts.append(f"{name}: {video.note}")
        if frames < span:
            texts.append(f"{name}: {frames} frames, a clip spans {span}; they are repeated")
    return texts


# --- Predictions ----------------------------------------------------------------------------------


def predict_video(
    model: TrainedModel, video: NewVideo, overlap: float = 0.5, with_regions: bool = True
) -> Prediction:
    """Score clips that slide through a video of any length; they are fused as in the run's test.

    Args:
        model: The trained network.
        video: The video; one batch of clips is in memory at a time.
        overlap: Share of a clip that the next clip repeats, in [0, 1).
        with_regions: Predict the actor and the background of the deciding clips.

    Raises:
        ValueError: If the video cannot be read.
    """
    starts, span = clip_starts(model.settings, video.record.num_frames, overlap)
    clip_bytes = 3 * video.record.height * video.record.width * model.settings.clip_len
    batch = int(min(BATCH_CLIPS, max(1, BATCH_BYTES // clip_bytes)))
    batches = (starts[first : first + batch] for first in range(0, len(starts), batch))
    logits = [model.view_logits(_center_crops(model, video.record, part)) for part in batches]
    logits = torch.cat(logits)
    clips = model.probabilities(logits[:, None]).numpy()
    fused = model.probabilities(logits[None])[0].numpy()
    deciding = {
        label: _regions(model, video.record, int(starts[position]), with_regions)
        for label, position in deciding_clips(clips, int(fused.argmax())).items()
    }
    return Prediction(video.record, starts, span, video.fps, clips, fused, deciding)


def clip_starts(
    settings: TrainSettings, num_frames: int, overlap: float = 0.5
) -> tuple[np.ndarray, int]:
    """Return the first frames of the clips of a video, and the frames that a clip spans."""
    span = settings.clip_len * settings.frame_interval
    step = max(1, round(span * (1 - overlap)))
    last = max(0, num_frames - span)
    return np.unique(np.append(np.arange(0, last + 1, step), last)), span


def deciding_clips(clips: np.ndarray, label: int) -> dict[int, int]:
    """Return class -> its most confident clip: the video's class, then the most frequent ones.

    Args:
        clips: Class probabilities of the clips, shape (C, K).
        label: Class of the whole video.
    """
    classes, counts = np.unique(clips.argmax(axis=1), return_counts=True)
    frequent = classes[np.argsort(-counts, kind="stable")].tolist()
    shown = list(dict.fromkeys([label, *frequent]))[:MAX_SHOWN]
    return {k: int(clips[:, k].argmax()) for k in shown}


def _clip_indices(settings: ClipSettings, record: VideoRecord, starts: np.ndarray) -> np.ndarray:
    """Return the frames of the clips that begin at `starts`, (C, T); a short video is repeated."""
    frames = np.arange(settings.clip_len) * settings.frame_interval
    return (np.asarray(starts)[:, None] + frames) % record.num_frames


def _center_crops(model: TrainedModel, record: VideoRecord, starts: np.ndarray) -> Tensor:
    """Return the clips that begin at `starts`, (C, T, 3, crop, crop), uint8."""
    indices = _clip_indices(model.settings, record, starts)
    frames, positions = np.unique(indices, return_inverse=True)
    transform = EvalTransform(model.settings.short_side, model.settings.test_crop_size, 1)
    return transform.views(read_frames(record, frames), positions.reshape(indices.shape))


def _regions(
    model: TrainedModel, record: VideoRecord, start: int, with_regions: bool
) -> ClipRegions:
    (clip,) = _center_crops(model, record, np.array([start]))
    if not with_regions:
        return predict_regions(model, clip)
    mask = moving_mask(model.settings, record, start)
    covered = float(mask.amax(dim=0).float().mean())
    note = ""
    if covered == 0:
        note = "nothing moves in this clip"
    elif covered > MAX_COVERED:
        note = "nearly all of the picture moves (the camera?)"
    return predict_regions(model, clip, mask, note)


def moving_mask(settings: ClipSettings, record: VideoRecord, start: int) -> Tensor:
    """Return 1 inside the boxes of the moving region of a clip, (T, 1, crop, crop), uint8.

    Args:
        settings: Length, interval and size of a clip.
        record: The video.
        start: First frame of the clip.
    """
    span = settings.clip_len * settings.frame_interval
    (clip,) = _clip_indices(settings, record, [start])
    first, last = max(0, start - span), min(record.num_frames, start + 2 * span) - 1
    around = np.linspace(first, last, FRAMES_AROUND).round().astype(int)
    frames = np.union1d(around, clip)
    boxes = moving_boxes(iterate_frames(record, frames))
    boxes = [boxes[position][:, :4] for position in np.searchsorted(frames, clip)]
    transform = EvalTransform(settings.short_side, settings.test_crop_size, 1)
    return center_crop_mask(boxes, record.height, record.width, transform)


# --- Tables ---------------------------------------------------------------------------------------


def video_table(
    predictions: Sequence[Prediction], classes: tuple[str, ...], with_regions: bool = True
) -> pd.DataFrame:
    """Return a row per video: class, confidence, second class, regions, all probabilities.

    Class and confidence of a region are empty where there is a note.
    """
    rows = []
    for one in predictions:
        first, second = np.argsort(-one.video, kind="stable")[:2]
        row = {"video": str(one.path), "class": classes[first], "confidence": one.video[first]}
        row |= {"second": classes[second], "second_confidence": one.video[second]}
        if with_regions:
            regions = one.deciding[one.label]
            for region in CLIP_REGIONS[1:]:
                share, name = regions.probabilities.get(region), region.replace(" ", "_")
                row[name] = "" if share is None else classes[int(share.argmax())]
                row[f"{name}_confidence"] = np.nan if share is None else float(share.max())
            row["regions_note"] = regions.note
        rows.append(row | {f"p({name})": p for name, p in zip(classes, one.video, strict=True)})
    return pd.DataFrame(rows)


def clip_table(predictions: list[Prediction], classes: tuple[str, ...]) -> pd.DataFrame:
    """Return a row per clip: its start and end in seconds, its class, all probabilities."""
    tables = []
    for one in predictions:
        rate = one.fps or 1
        columns = {"video": str(one.path), "start": one.starts / rate}
        columns["end"] = (one.starts + one.span) / rate
        columns["class"] = np.array(classes)[one.clips.argmax(axis=1)]
        columns["confidence"] = one.clips.max(axis=1)
        columns |= {f"p({name})": p for name, p in zip(classes, one.clips.T, strict=True)}
        tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True)
