"""The classes of new videos over time: clips that slide through each, with a trained network."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import nn

from lib.augment.views import EvalTransform
from lib.config import TrainSettings
from lib.data.dataset import VideoRecord
from lib.data.video_reader import read_frames
from lib.evaluate.calibration import Calibration, calibrate
from lib.prepare.inspect_videos import VideoInfo, inspect_video, inspect_videos
from lib.prepare.own_folder import VIDEO_SUFFIXES
from lib.runs.run_dir import RunDir
from lib.train.ema import tested_weights
from lib.train.scoring import fuse
from lib.train.setup import Normalize, build_run_model, run_normalize

BATCH_CLIPS = 16
BATCH_BYTES = 256e6  # of decoded frames, at most, so that large frames make smaller batches
MAX_SHOWN = 4  # classes whose deciding clip is shown
MANY_CLIPS = 500  # so many are worth a sentence on how long they take
OPENING_S = 6 * 3600.0  # a decoder that has not come to the end of a video by then has frozen


@dataclass(frozen=True)
class Classifier:
    """A trained network and all that it needs for new videos.

    Attributes:
        settings: Of its run.
        classes: Class names in the order of the scores.
        model: In evaluation mode.
        normalize: What makes its input of uint8 clips.
        calibration: What its confidence means; None where its validation list was not tested.
    """

    settings: TrainSettings
    classes: tuple[str, ...]
    model: nn.Module
    normalize: Normalize
    calibration: Calibration | None = None

    @property
    def temperature(self) -> float:
        """What scores are divided by before they become probabilities."""
        return 1.0 if self.calibration is None else self.calibration.temperature


class NewVideo(NamedTuple):
    """A video that can be read.

    Attributes:
        record: Where its frames are.
        fps: Frames a second; 0 where it is not known.
        note: What to know about it, or None.
    """

    record: VideoRecord
    fps: float
    note: str | None = None


@dataclass(frozen=True)
class Prediction:
    """What is said of one video.

    Attributes:
        record: The video.
        starts: First frame of each clip, shape (C,).
        span: Frames from the first to the end of a clip.
        fps: Frames a second; 0 where it is not known.
        clips: Probabilities of each clip, shape (C, K).
        video: Probabilities of the whole video, shape (K,).
    """

    record: VideoRecord
    starts: np.ndarray
    span: int
    fps: float
    clips: np.ndarray
    video: np.ndarray

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
        """Middle of each clip in seconds, in frames where the rate is not known."""
        return (self.starts + self.span / 2) / (self.fps or 1)


def load_classifier(run: RunDir) -> Classifier:
    """Return the network of a finished run; no data set and no published weights are needed.

    Raises:
        ValueError: If the run is not finished (says how far it is), or a file of it is damaged.
    """
    check_finished(run)
    settings = run.settings().model_copy(update={"pretrained": False, "weights": None})
    state = run.load()
    model = build_run_model(settings, len(state["classes"]))
    model.load_state_dict(tested_weights(state))
    normalize = run_normalize(settings)
    return Classifier(settings, tuple(state["classes"]), model.eval(), normalize, calibrate(run))


def check_finished(run: RunDir) -> None:
    """Raise ValueError if a run is not finished; says how far it is."""
    if not run.is_finished():
        epoch, epochs = (run.saved_progress() or (0, 0))[1], run.settings().epochs
        raise ValueError(
            f"{run.folder}: not finished, {epoch} of {epochs} epochs are trained; the command that "
            "trains it goes on"
        )


def find_new_videos(places: list[Path]) -> list[Path]:
    """Return the videos that files and folders mean, folders with all below them, sorted.

    Raises:
        ValueError: If a place is not there or holds no video.
    """
    found: list[Path] = []
    for place in places:
        inside = [place] if place.is_file() else sorted(place.rglob("*"))
        videos = [p for p in inside if p.is_file() and p.suffix.lower() in VIDEO_SUFFIXES]
        if not videos:
            reason = "holds no video" if place.exists() else "is not there"
            raise ValueError(f"{place}: {reason}; files end in {', '.join(sorted(VIDEO_SUFFIXES))}")
        found += videos
    return list(dict.fromkeys(found))


def open_video(path: Path) -> NewVideo:
    """Decode a video once, from end to end.

    Raises:
        ValueError: If it cannot be read; says why.
    """
    return _opened(path, inspect_video(path))


def open_videos(paths: Sequence[Path]) -> tuple[list[NewVideo], list[str]]:
    """Open videos in worker processes; return those that can be read, and why the others cannot."""
    opened, problems = [], []
    table = inspect_videos(paths, timeout_s=OPENING_S).astype(object)
    table = table.where(table.notna(), None)
    for path, row in zip(paths, table.itertuples(index=False, name=None), strict=True):
        try:
            opened.append(_opened(path, VideoInfo(*row)))
        except ValueError as error:
            problems.append(str(error))
    return opened, problems


def _opened(path: Path, found: VideoInfo) -> NewVideo:
    if found.error is not None:
        raise ValueError(f"{path}: cannot be read: {found.error}")
    size = (found.frames, found.height, found.width)
    record = VideoRecord(0, path.name, path, 0, *size, found.fingerprint, found.seek)
    return NewVideo(record, found.fps, found.note)


def remarks(classifier: Classifier, videos: Sequence[NewVideo], overlap: float = 0.5) -> list[str]:
    """Return what to know before videos are predicted: damage, too few frames, a long wait."""
    said, count = [], 0
    for video in videos:
        starts, span = clip_starts(classifier.settings, video.record.num_frames, overlap)
        count += len(starts)
        name, frames = video.record.path.name, video.record.num_frames
        if video.note:
            said.append(f"{name}: {video.note}")
        if frames < span:
            said.append(f"{name}: frames: {frames}, a clip spans {span}; repeated to fill it")
    if count >= MANY_CLIPS:
        minutes = _seconds_a_clip(classifier, videos[0]) * count / 60
        said.append(f"{count:,} clips: about {max(1, round(minutes))} min on this machine")
    return said


def _seconds_a_clip(classifier: Classifier, video: NewVideo) -> float:
    starts = clip_starts(classifier.settings, video.record.num_frames)[0]
    for _ in range(2):  # the first call of a network takes longer
        begun = time.monotonic()
        scored = next(_score(classifier, video.record, starts))
    return (time.monotonic() - begun) / len(scored)


def clip_starts(
    settings: TrainSettings, num_frames: int, overlap: float = 0.5
) -> tuple[np.ndarray, int]:
    """Return the first frames of the clips of a video, and the frames that a clip spans."""
    span = settings.clip_len * settings.frame_interval
    step = max(1, round(span * (1 - overlap)))
    last = max(0, num_frames - span)
    return np.unique(np.append(np.arange(0, last + 1, step), last)), span


def predict_video(classifier: Classifier, video: NewVideo, overlap: float = 0.5) -> Prediction:
    """Score clips that slide through a video; its own answer is fused as in the run's test.

    Args:
        classifier: The trained network.
        video: Of any length; a few clips are in memory at a time.
        overlap: Share of a clip that the next one sees again, in [0, 1).

    Raises:
        ValueError: If the video cannot be read; says why.
    """
    record, fusion = video.record, classifier.settings.test_average
    starts, span = clip_starts(classifier.settings, record.num_frames, overlap)
    logits = torch.cat(list(_score(classifier, record, starts))) / classifier.temperature
    fused = fuse(logits[None], fusion)[0]
    if fusion == "logits":
        fused = fused.softmax(dim=0)
    clips = logits.softmax(dim=1).numpy()
    return Prediction(record, starts, span, video.fps, clips, fused.numpy())


def clip_of(classifier: Classifier, record: VideoRecord, starts: np.ndarray) -> torch.Tensor:
    """Return the centre crops of clips that begin at `starts`, (C, T, 3, crop, crop), uint8."""
    settings = classifier.settings
    frames = np.arange(settings.clip_len) * settings.frame_interval
    indices = (starts[:, None] + frames) % record.num_frames
    wanted, positions = np.unique(indices, return_inverse=True)
    transform = EvalTransform(settings.short_side, settings.test_crop_size, 1)
    return transform.views(read_frames(record, wanted), positions.reshape(indices.shape))


@torch.inference_mode()
def _score(
    classifier: Classifier, record: VideoRecord, starts: np.ndarray
) -> Iterator[torch.Tensor]:
    device = classifier.normalize.mean.device
    clip_bytes = 3 * record.height * record.width * classifier.settings.clip_len
    batch = int(min(BATCH_CLIPS, max(1, BATCH_BYTES // clip_bytes)))
    for first in range(0, len(starts), batch):
        clips = clip_of(classifier, record, starts[first : first + batch])
        yield classifier.model(classifier.normalize(clips.to(device))).float().cpu()


def deciding_clips(prediction: Prediction) -> dict[int, int]:
    """Return class -> the clip that speaks most for it: the video's class, then the most seen."""
    best = prediction.clips.argmax(axis=1)
    classes, counts = np.unique(best, return_counts=True)
    frequent = classes[np.argsort(-counts, kind="stable")].tolist()
    shown = list(dict.fromkeys([prediction.label, *frequent]))[:MAX_SHOWN]
    return {k: int(prediction.clips[:, k].argmax()) for k in shown}


def video_table(
    predictions: Sequence[Prediction],
    classes: tuple[str, ...],
    parts: Sequence[Mapping[str, object]] | None = None,
) -> pd.DataFrame:
    """Return one row a video: its class, confidence, the second class, and all probabilities.

    Args:
        predictions: Of the videos.
        classes: Class names.
        parts: More columns of each video, from `parts.part_columns`.
    """
    rows = []
    for one, more in zip(predictions, parts or [{}] * len(predictions), strict=True):
        first, second = np.argsort(-one.video, kind="stable")[:2]
        row = {"video": str(one.path), "class": classes[first], "confidence": one.video[first]}
        row |= {"second": classes[second], "second_confidence": one.video[second], **more}
        rows.append(row | {f"p({name})": p for name, p in zip(classes, one.video, strict=True)})
    return pd.DataFrame(rows)


def clip_table(predictions: list[Prediction], classes: tuple[str, ...]) -> pd.DataFrame:
    """Return one row a clip: when it is, its class, and all probabilities."""
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
