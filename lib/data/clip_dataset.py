"""From videos to batches: a record becomes a sample, samples become batches, streams are paired.

A stream is an endless sequence of positions: pass after pass over a split, each in a new order.
Step s takes the positions s·B … s·B + B − 1 of a stream with global batch B, whatever number of
processes, micro-batches and loader workers share the work; and everything random in a sample comes
from a generator seeded by (seed, stream, position). So a sample depends on nothing else, and a run
can be continued at any step.
"""

import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from multiprocessing.sharedctypes import RawValue
from multiprocessing.util import Finalize
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lib.augment.randaugment import RandAugment
from lib.augment.temporal import TemporalAugment
from lib.augment.views import StrongParams, StrongTransform, WeakParams, WeakTransform
from lib.config import ClipSettings
from lib.data.dataset import VideoDataset, VideoRecord
from lib.data.frame_tables import PersonBoxes, TeacherScores
from lib.data.video_reader import FrameReader


def make_generator(*key: int) -> torch.Generator:
    """Return a CPU generator seeded by a tuple of non-negative integers."""
    seed = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(seed >> np.uint64(1)))


# --- Frames of a clip -----------------------------------------------------------------------------
# A video has `num_frames` >= 1 frames, a clip `clip_len`, `frame_interval` frames of the video
# apart. Indices are 0-based, int64.


def random_clip_indices(
    num_frames: int, clip_len: int, frame_interval: int, generator: torch.Generator
) -> np.ndarray:
    """Draw the frames of one training clip, shape (clip_len,).

    The start is uniform over the range in which the clip fits; a clip that is longer than the
    video starts at frame 0 and wraps around (modulo the number of frames).

    Source: Zou et al., section 4.1 (8 frames, every 8th frame).
    """
    num_starts = max(1, num_frames - clip_len * frame_interval + 1)
    start = int(torch.randint(num_starts, (), generator=generator))
    return (start + np.arange(clip_len) * frame_interval) % num_frames


def uniform_clip_indices(
    num_frames: int, clip_len: int, frame_interval: int, num_clips: int
) -> np.ndarray:
    """Return the frames of evenly spaced test clips, shape (num_clips, clip_len).

    The range of valid starts is cut into `num_clips` equal parts and each clip starts in the
    middle of its part; in a video shorter than a clip all start at frame 0 and wrap around.

    Source: Zou et al., section 4.1 (10 clips in testing, 1 in validation).
    """
    num_starts = num_frames - clip_len * frame_interval + 1
    starts = np.zeros(num_clips, dtype=np.int64)
    if num_starts > 0:
        part = num_starts / num_clips
        starts = (np.arange(num_clips) * part + part / 2).astype(np.int64)
    return (starts[:, None] + np.arange(clip_len) * frame_interval) % num_frames


# --- Samples --------------------------------------------------------------------------------------


class ClipParams(NamedTuple):
    """Everything random in a sample."""

    frame_indices: np.ndarray  # frames of the video, (T,)
    weak: WeakParams
    strong: StrongParams
    teacher_frame: int  # one of `frame_indices`, whose ImageNet probabilities are used


class ClipPipeline:
    """The transforms of a sample, and the draw of their parameters.

    Training, the explorer and the figures all make their samples with it.
    """

    def __init__(self, settings: ClipSettings):
        self.clip_len, self.frame_interval = settings.clip_len, settings.frame_interval
        self.crop_size = settings.crop_size
        flip_p = 0.5 if settings.flip else 0.0
        self.weak = WeakTransform(
            settings.short_side, settings.crop_size, settings.crop_area_min, flip_p
        )
        randaugment = RandAugment(
            settings.randaugment_num_ops, settings.randaugment_magnitude, settings.randaugment_ops
        )
        self.strong = StrongTransform(randaugment, TemporalAugment(settings.temporal_ops))

    def draw(self, record: VideoRecord, generator: torch.Generator) -> ClipParams:
        """Draw the parameters of a sample of a video, without reading the video."""
        indices = random_clip_indices(
            record.num_frames, self.clip_len, self.frame_interval, generator
        )
        weak = self.weak.draw(record.height, record.width, generator)
        strong = self.strong.draw(self.clip_len, self.crop_size, self.crop_size, generator)
        teacher = indices[int(torch.randint(self.clip_len, (), generator=generator))]
        return ClipParams(indices, weak, strong, int(teacher))


class ClipBatch(NamedTuple):
    """Clips and their views, uint8; None for a view that was not requested.

    A sample is a batch without the dimension B; its label and its row are whole numbers.
    """

    weak: Tensor | None  # (B, T, 3, H, W)
    strong: Tensor | None  # (B, T, 3, H, W)
    person_mask: Tensor | None  # 1 on people in the weak view, (B, T, 1, H, W)
    teacher: Tensor | None  # ImageNet probabilities of a random frame, (B, 1000), float32
    label: Tensor | int  # class index, −1 if unknown, (B,), int64
    row: Tensor | int  # index row of the video, (B,), int64

    @classmethod
    def collate(cls, samples: list["ClipBatch"]) -> "ClipBatch":
        """Stack samples."""
        *views, labels, rows = zip(*samples, strict=True)
        stacked = [None if view[0] is None else torch.stack(view) for view in views]
        return cls(*stacked, torch.tensor(labels), torch.tensor(rows))

    def to(self, device: torch.device | str) -> "ClipBatch":
        """Return the batch on a device."""
        return ClipBatch(*(None if x is None else x.to(device, non_blocking=True) for x in self))


@dataclass(frozen=True)
class ViewSpec:
    """Views that a stream needs."""

    weak: bool = True
    strong: bool = False
    person_mask: bool = False
    teacher: bool = False


class ClipDataset(Dataset):
    """Training samples, by position in a stream, which `seed_key` identifies (seed, stream).

    Without `has_labels`, samples have no labels: the classes are not those of the network.
    """

    def __init__(
        self,
        dataset: VideoDataset,
        settings: ClipSettings,
        views: ViewSpec,
        seed_key: tuple[int, ...],
        has_labels: bool = True,
    ):
        self.dataset, self.has_labels = dataset, has_labels
        self.views, self.seed_key = views, seed_key
        self.pipeline = ClipPipeline(settings)
        self.min_score = settings.person_min_score
        self.reader = FrameReader(dataset, settings.frame_cache_mb)
        self.boxes = PersonBoxes(dataset) if views.person_mask else None
        self.teacher = TeacherScores(dataset) if views.teacher else None

    def __getitem__(self, key: tuple[int, int]) -> ClipBatch:
        """Return the sample at (position, index row)."""
        position, row = key
        record = self.dataset.record(row)
        params = self.pipeline.draw(record, make_generator(*self.seed_key, position))
        frames = self.reader.read(record, params.frame_indices)
        weak = self.pipeline.weak.apply(frames, params.weak)
        strong = mask = teacher = None
        if self.views.strong:
            strong = self.pipeline.strong.apply(weak, params.strong)
        if self.boxes is not None:
            boxes = self.boxes.lookup(row, params.frame_indices, self.min_score)
            mask = self.pipeline.weak.mask(boxes, params.weak)
        if self.teacher is not None:
            teacher = torch.from_numpy(self.teacher.lookup(row, params.teacher_frame))
        label = record.label if self.has_labels else -1
        return ClipBatch(weak if self.views.weak else None, strong, mask, teacher, label, row)


@dataclass(frozen=True)
class Stream:
    """An endless stream of clips."""

    clips: Dataset  # maker of the samples
    rows: np.ndarray  # index rows of the videos, (N,)
    batch: int  # clips in a step, over all processes
    order_key: tuple[int, ...]  # seed key of the orders of the passes, non-negative integers

    def micro_batches(
        self, start: int, stop: int, rank: int = 0, world_size: int = 1, num_micro: int = 1
    ) -> Iterator[list[tuple[int, int]]]:
        """Yield the (position, index row) of the clips of a process in steps start to stop − 1.

        Each step is divided among `world_size` processes, and there into `num_micro` equal parts.
        """
        size = self.batch // (world_size * num_micro)
        for step in range(start, stop):
            for part in range(rank * num_micro, (rank + 1) * num_micro):
                first = step * self.batch + part * size
                yield [(p, self._row(p)) for p in range(first, first + size)]

    def _row(self, position: int) -> int:
        number, offset = divmod(position, len(self.rows))
        order = _pass_order((*self.order_key, number), len(self.rows))
        return int(self.rows[order[offset]])

    def load(self, *part: int, num_workers: int, pin_memory: bool = False) -> Iterator[ClipBatch]:
        """Load the clips of `micro_batches(*part)`, in pinned memory for a GPU."""
        return make_loader(
            self.clips,
            num_workers,
            batch_sampler=self.micro_batches(*part),
            collate_fn=ClipBatch.collate,
            pin_memory=pin_memory,
            prefetch_factor=4 if num_workers else None,
        )


@lru_cache(maxsize=4)  # a step may need two passes of each of two streams
def _pass_order(key: tuple[int, ...], num_videos: int) -> np.ndarray:
    return np.random.default_rng(key).permutation(num_videos)


TIMEOUT_S = 600.0  # for one batch; a loader process that takes longer hangs


def make_loader(dataset: Dataset, num_workers: int, **options: Any) -> Iterator:
    """Start loading and return the iterator over the batches.

    No worker loads in this process. `options` are further arguments of PyTorch's `DataLoader`.
    """
    is_ending = RawValue("b", 0)
    if num_workers:
        options = {
            "num_workers": num_workers,
            "worker_init_fn": partial(_begin, is_ending, os.getpid()),
            "timeout": TIMEOUT_S,
            # A fork starts at once; it is not the default on Linux from Python 3.14 on.
            "multiprocessing_context": "fork" if sys.platform == "linux" else None,
            **options,
        }
    generator = torch.Generator()  # leaves the global one alone
    batches = iter(DataLoader(dataset, generator=generator, **options))
    # When this process exits, Python first calls this, then terminates the loaders by SIGTERM.
    Finalize(batches, setattr, (is_ending, "value", 1), exitpriority=0)
    return batches


def _begin(is_ending: Any, parent: int, worker_id: int) -> None:
    """Ignore the signals in a loader process, except for SIGTERM when its parent exits."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0) if is_ending.value else None)
    if os.getppid() != parent:  # PyTorch notices only a later death
        os._exit(1)
