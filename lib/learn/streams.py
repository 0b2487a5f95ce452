"""The streams of a run: pairs of labelled and unlabelled micro-batches."""

from collections.abc import Iterator
from itertools import repeat

import numpy as np

from lib.clips import ClipBatch, ClipDataset, StreamSampler, make_loader
from lib.config import TrainSettings
from lib.learn.schedule import num_micro_batches
from lib.learn.setup import LABELED, ORDER, UNLABELED, Data
from lib.run.processes import World


def paired_batches(
    settings: TrainSettings,
    data: Data,
    clips: tuple[ClipDataset, ClipDataset | None],
    world: World,
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
    parts = num_micro_batches(settings, world.size)

    def stream(source: ClipDataset, rows: np.ndarray, batch: int, key: int) -> Iterator[ClipBatch]:
        seeds, size = (settings.seed, ORDER, key), world.size * parts
        sampler = StreamSampler(rows, batch, seeds, start, stop, world.rank, size, parts)
        return iter(make_loader(source, sampler, settings.num_workers))

    labeled = stream(clips[0], data.labeled_rows, settings.labeled_batch, LABELED)
    if clips[1] is None:
        return zip(labeled, repeat(None), strict=False)
    unlabeled = stream(clips[1], data.unlabeled_rows, settings.unlabeled_batch, UNLABELED)
    return zip(labeled, unlabeled, strict=True)
