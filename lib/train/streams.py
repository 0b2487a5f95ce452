"""The streams of a run: pairs of labelled and unlabelled micro-batches."""

from collections.abc import Callable, Iterable, Iterator
from itertools import repeat

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lib.config import TrainSettings
from lib.data.clip_dataset import (
    ClipBatch,
    ClipDataset,
    ClipSample,
    StreamSampler,
    make_clip_loader,
)
from lib.data.dataset import VideoDataset
from lib.data.video_reader import UnreadableVideoError
from lib.runs.distributed import DistContext
from lib.train.schedule import num_micro_batches
from lib.train.setup import LABELED, ORDER, UNLABELED, Data

MAX_IN_A_ROW = 10  # videos that cannot be read; more are a disk's fault


class ReadableClips(Dataset):
    """The clips of a list, whatever becomes of its videos.

    Args:
        clips: The source of clips.
        rows: Index rows of the list.
        skips: Whether a video that cannot be read is replaced, by the next of the list that can.
    """

    def __init__(self, clips: ClipDataset, rows: np.ndarray, skips: bool):
        self.clips, self.rows, self.skips = clips, rows, skips

    def __getitem__(self, key: tuple[int, int]) -> ClipSample:
        """Return the sample at (position, index row)."""
        position, row = key
        for other in self._from(row):
            try:
                return self.clips[position, other]
            except UnreadableVideoError as error:
                problem = str(error)
                if not self.skips:
                    remedy = "prepare the data set again"
                    raise UnreadableVideoError(f"{problem}; {remedy}") from error
        raise ValueError(f"{problem}; neither can those after it: is the disk there?")

    def _from(self, row: int) -> Iterator[int]:
        yield row  # nearly always the only one
        rows = np.roll(self.rows, -np.flatnonzero(self.rows == row)[0])
        yield from rows[1:MAX_IN_A_ROW].tolist()


def _noted(
    sampler: StreamSampler,
    batches: Iterable[ClipBatch],
    dataset: VideoDataset,
    note: Callable[[dict[str, tuple[Tensor, Tensor]]], None],
) -> Iterator[ClipBatch]:
    """Yield the batches; note the share of clips of other videos than were asked for."""
    said = set()
    for asked, batch in zip(sampler, batches, strict=True):
        pairs = zip((row for _, row in asked), batch.row.tolist(), strict=True)
        replaced = [row for row, got in pairs if row != got]
        for row in set(replaced) - said:
            said.add(row)
            print(f"{dataset.record(row).path}: cannot be read; others are taken instead")
        note({"data/replaced": (torch.tensor(len(replaced)), torch.tensor(len(asked)))})
        yield batch


def paired_batches(
    settings: TrainSettings,
    data: Data,
    clips: tuple[ClipDataset, ClipDataset | None],
    world: DistContext,
    start: int,
    stop: int,
    note: Callable[[dict[str, tuple[Tensor, Tensor]]], None],
) -> Iterator[tuple[ClipBatch, ClipBatch | None]]:
    """Yield the labelled and the unlabelled micro-batches of a process.

    Args:
        settings: The run.
        data: Its videos.
        clips: Sources of the labelled and of the unlabelled clips; None for no such clips.
        world: The processes, which share each step.
        start: First step.
        stop: One after the last step.
        note: Given the share of clips that were replaced, if videos may be skipped.
    """
    parts = num_micro_batches(settings, world.world_size)

    def stream(source: ClipDataset, rows: np.ndarray, batch: int, key: int) -> Iterator[ClipBatch]:
        seeds, size = (settings.seed, ORDER, key), world.world_size * parts
        sampler = StreamSampler(rows, batch, seeds, start, stop, world.rank, size, parts)
        readable, is_pinned = ReadableClips(source, rows, skips=False), world.device.type == "cuda"
        return make_clip_loader(readable, sampler, settings.num_workers, is_pinned)

    labeled = stream(clips[0], data.labeled_rows, settings.labeled_batch, LABELED)
    if clips[1] is None:
        return zip(labeled, repeat(None), strict=False)
    unlabeled = stream(clips[1], data.unlabeled_rows, settings.unlabeled_batch, UNLABELED)
    return zip(labeled, unlabeled, strict=True)
