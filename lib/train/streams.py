"""The streams of a run: pairs of labelled and unlabelled micro-batches."""

from collections.abc import Iterator
from itertools import repeat

import numpy as np

from lib.config import TrainSettings
from lib.data.clip_dataset import ClipBatch, ClipDataset, StreamSampler, make_clip_loader
from lib.runs.distributed import DistContext
from lib.train.schedule import num_micro_batches
from lib.train.setup import LABELED, ORDER, UNLABELED, Data


def paired_batches(
    settings: TrainSettings,
    data: Data,
    clips: tuple[ClipDataset, ClipDataset | None],
    world: DistContext,
    start: int,
    stop: int,
) -> Iterator[tuple[ClipBatch, ClipBatch | None]]:
    """Yield the labelled and the unlabelled micro-batches of a process.

    Args:
        settings: The run.
        data: Its videos.
        clips: Sources of the labelled and of the unlabelled clips; None for no such clips.
        world: The processes, which share each step.
        start: First step.
        stop: One after the last step.
    """
    parts = num_micro_batches(settings, world.world_size)

    def stream(source: ClipDataset, rows: np.ndarray, batch: int, key: int) -> Iterator[ClipBatch]:
        seeds, size = (settings.seed, ORDER, key), world.world_size * parts
        sampler = StreamSampler(rows, batch, seeds, start, stop, world.rank, size, parts)
        is_pinned = world.device.type == "cuda"
        return make_clip_loader(source, sampler, settings.num_workers, is_pinned)

    labeled = stream(clips[0], data.labeled_rows, settings.labeled_batch, LABELED)
    if clips[1] is None:
        return zip(labeled, repeat(None), strict=False)
    unlabeled = stream(clips[1], data.unlabeled_rows, settings.unlabeled_batch, UNLABELED)
    return zip(labeled, unlabeled, strict=True)
