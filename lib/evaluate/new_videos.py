"""Predictions on new videos: clips that slide through a video, and the regions that decide.

A new video has no person boxes. Its moving region is the difference from the frames around the
clip, so that no detector is downloaded.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lib.data.dataset import VideoRecord
from lib.data.video_reader import iterate_frames, read_frames
from lib.evaluate.invariance import CLIP_REGIONS, ClipRegions, center_crop_mask, predict_regions
from lib.evaluate.trained_model import TrainedModel
from lib.prepare.find_videos import SEGMENT_COLUMNS, foreign_files, walk_files
from lib.prepare.inspect_videos import VideoInfo, inspect_video, inspect_videos
from lib.prepare.person_boxes import moving_boxes
from lib.train.scoring import EvalProtocol

BATCH_CLIPS = 16
BATCH_BYTES = 256e6  # of decoded frames in a batch: large frames make smaller batches
MAX_SHOWN = 4  # classes whose deciding clip is shown
OPENING_S = 6 * 3600.0  # a decoder that needs longer for a video has frozen
FRAMES_AROUND = 24  # frames that define the still background, one clip before to one after
MAX_COVERED = 0.9  # share of the picture that moves; above it no background is left


class NewVideo(NamedTuple):
    """A video that can be read; `fps` is 0 if unknown, `note` a remark on a damaged file."""

    record: VideoRecord
    fps: float
    note: str | None = None


@dataclass(frozen=True)
class Prediction:
    """The class probabilities of a video over time."""

    record: VideoRecord
    starts: np.ndarray  # first frame of each clip, (C,)
    span: int  # frames from the first frame of a clip to its end
    fps: float  # 0 if unknown
    clips: np.ndarray  # class probabilities of each clip, (C, K)
    video: np.ndarray  # class probabilities of the whole video, (K,)
    deciding: dict[int, ClipRegions]  # class -> the clip that is most confident of it

    @property
    def label(self) -> int:
        """Class of the whole video."""
        return int(self.video.argmax())


def find_new_videos(places: list[Path]) -> list[Path]:
    """Return the files among places and the videos below folders; print what is left out.

    ValueError if a place has no video.
    """
    videos: list[Path] = []
    for place in places:
        files = list(walk_files(place)) if place.is_dir() else []
        found = [place] if place.is_file() else [place / path for path, is_it in files if is_it]
        if not found:
            reason = "holds no video" if place.exists() else "is missing"
            raise ValueError(f"{place}: {reason}; name a video file or a folder of videos")
        print("".join(f"{place}: left out: {text}\n" for text in foreign_files(files)), end="")
        videos += found
    return list(dict.fromkeys(videos))


def open_video(path: Path) -> NewVideo:
    """Decode a video once from end to end; ValueError with the reason if it cannot be read."""
    return _open(path, inspect_video(path))


def open_videos(paths: Sequence[Path]) -> tuple[list[NewVideo], list[str]]:
    """Open videos in worker processes; return the readable ones and the problems of the others."""
    opened, problems = [], []
    for path, info in zip(paths, inspect_videos(paths, timeout_s=OPENING_S), strict=True):
        try:
            opened.append(_open(path, info))
        except ValueError as error:
            problems.append(str(error))
    return opened, problems


def _open(path: Path, info: VideoInfo) -> NewVideo:
    if info.error is not None:
        raise ValueError(f"{path}: cannot be read: {info.error}")
    size = (info.frames, info.height, info.width)
    record = VideoRecord(0, path.name, path, 0, *size, info.fingerprint, info.seek)
    return NewVideo(record, info.fps, info.note)


def remarks(span: int, videos: Sequence[NewVideo]) -> list[str]:
    """Return remarks on videos that are damaged or shorter than a clip, which spans some frames."""
    texts = []
    for video in videos:
        name, frames = video.record.path.name, video.record.num_frames
        if video.note:
            texts.append(f"{name}: {video.note}")
        if frames < span:
            texts.append(f"{name}: {frames} frames, a clip spans {span}; they are repeated")
    return texts


def predict_video(model: TrainedModel, video: NewVideo, overlap: float = 0.5) -> Prediction:
    """Score clips that slide through a video of any length; they are fused as in the run's test.

    `overlap`, in [0, 1), is the share of a clip that the next clip repeats. The actor and the
    background of the deciding clips are also predicted alone. One batch of clips is in memory at a
    time.
    """
    record, span = video.record, model.protocol.span
    last = max(0, record.num_frames - span)
    step = max(1, round(span * (1 - overlap)))
    starts = np.unique(np.append(np.arange(0, last + 1, step), last))
    clip_bytes = 3 * record.height * record.width * model.protocol.clip_len
    batch = int(min(BATCH_CLIPS, max(1, BATCH_BYTES // clip_bytes)))
    batches = (starts[first : first + batch] for first in range(0, len(starts), batch))
    logits = torch.cat([model.view_logits(_center_crops(model, record, part)) for part in batches])
    clips = model.probabilities(logits[:, None]).numpy()
    fused = model.probabilities(logits[None])[0].numpy()
    deciding = {
        label: _regions(model, record, int(starts[position]))
        for label, position in deciding_clips(clips, int(fused.argmax())).items()
    }
    return Prediction(record, starts, span, video.fps, clips, fused, deciding)


def deciding_clips(clips: np.ndarray, label: int) -> dict[int, int]:
    """Return class -> its most confident clip: the video's class `label`, then frequent ones.

    `clips` has the class probabilities of the clips, shape (C, K).
    """
    classes, counts = np.unique(clips.argmax(axis=1), return_counts=True)
    frequent = classes[np.argsort(-counts, kind="stable")].tolist()
    shown = list(dict.fromkeys([label, *frequent]))[:MAX_SHOWN]
    return {k: int(clips[:, k].argmax()) for k in shown}


def _clip_indices(protocol: EvalProtocol, record: VideoRecord, starts: Sequence[int]) -> np.ndarray:
    """Return the frames of the clips that begin at `starts`, (C, T); a short video is repeated."""
    frames = np.arange(protocol.clip_len) * protocol.frame_interval
    return (np.asarray(starts)[:, None] + frames) % record.num_frames


def _center_crops(model: TrainedModel, record: VideoRecord, starts: Sequence[int]) -> Tensor:
    """Return the clips that begin at `starts`, (C, T, 3, crop, crop), uint8."""
    indices = _clip_indices(model.protocol, record, starts)
    frames, positions = np.unique(indices, return_inverse=True)
    center_crop = replace(model.protocol.crops, num_crops=1)
    resized = center_crop.resize(read_frames(record, frames))
    return center_crop.views(resized, positions.reshape(indices.shape))


def _regions(model: TrainedModel, record: VideoRecord, start: int) -> ClipRegions:
    (clip,) = _center_crops(model, record, [start])
    mask = _moving_mask(model.protocol, record, start)
    covered = float(mask.amax(dim=0).float().mean())
    note = "nearly all of the picture moves (the camera?)" if covered > MAX_COVERED else ""
    return predict_regions(model, clip, mask, note if covered else "nothing moves in this clip")


def _moving_mask(protocol: EvalProtocol, record: VideoRecord, start: int) -> Tensor:
    """Return 1 inside the boxes of the moving region of a clip, (T, 1, crop, crop), uint8."""
    (clip,) = _clip_indices(protocol, record, [start])
    end = start + 2 * protocol.span
    first, last = max(0, start - protocol.span), min(record.num_frames, end) - 1
    around = np.linspace(first, last, FRAMES_AROUND).round().astype(int)
    frames = np.union1d(around, clip)
    boxes = moving_boxes(iterate_frames(record, frames))
    boxes = [boxes[position][:, :4] for position in np.searchsorted(frames, clip)]
    return center_crop_mask(boxes, record.height, record.width, protocol.crops)


def video_table(predictions: Sequence[Prediction], classes: tuple[str, ...]) -> pd.DataFrame:
    """Return a row per video: class, confidence, second class, regions, all probabilities.

    Class and confidence of a region are empty where there is a note.
    """
    rows = []
    for prediction in predictions:
        video = prediction.video
        first, second = np.argsort(-video, kind="stable")[:2]
        row = {"video": str(prediction.record.path), "class": classes[first]}
        row |= {"confidence": video[first], "second": classes[second]}
        row["second_confidence"] = video[second]
        regions = prediction.deciding[prediction.label]
        for region in CLIP_REGIONS[1:]:
            share, name = regions.probabilities.get(region), region.replace(" ", "_")
            row[name] = "" if share is None else classes[int(share.argmax())]
            row[f"{name}_confidence"] = np.nan if share is None else float(share.max())
        row["regions_note"] = regions.note
        rows.append(row | {f"p({name})": p for name, p in zip(classes, video, strict=True)})
    return pd.DataFrame(rows)


def segment_table(predictions: Sequence[Prediction], classes: tuple[str, ...]) -> pd.DataFrame:
    """Return a row per stretch of clips of one class, in the form of `segments.csv`.

    Columns video (relative to the folder of all videos), start_s, end_s, class and confidence (the
    mean of its clips). Neighboring stretches meet halfway between the centers of their clips.
    """
    folder = os.path.commonpath([prediction.record.path.parent for prediction in predictions])
    rows = []
    for prediction in predictions:
        rate = prediction.fps or 1
        labels, centers = prediction.clips.argmax(axis=1), prediction.starts + prediction.span / 2
        changes = np.flatnonzero(np.diff(labels)) + 1
        bounds = [0, *((centers[k - 1] + centers[k]) / 2 for k in changes)]
        bounds.append(prediction.record.num_frames)
        name = Path(os.path.relpath(prediction.record.path, folder)).as_posix()
        for number, clips in enumerate(np.split(np.arange(len(labels)), changes)):
            label, (start, end) = labels[clips[0]], bounds[number : number + 2]
            confidence = prediction.clips[clips, label].mean()
            rows.append((name, start / rate, end / rate, classes[label], confidence))
    return pd.DataFrame(rows, columns=[*SEGMENT_COLUMNS, "confidence"])


def clip_table(predictions: list[Prediction], classes: tuple[str, ...]) -> pd.DataFrame:
    """Return a row per clip: its start and end in seconds, its class, all probabilities."""
    tables = []
    for prediction in predictions:
        starts, rate = prediction.starts, prediction.fps or 1
        columns = {"video": str(prediction.record.path), "start": starts / rate}
        columns["end"] = (starts + prediction.span) / rate
        columns["class"] = np.array(classes)[prediction.clips.argmax(axis=1)]
        columns["confidence"] = prediction.clips.max(axis=1)
        columns |= {f"p({name})": p for name, p in zip(classes, prediction.clips.T, strict=True)}
        tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True)
