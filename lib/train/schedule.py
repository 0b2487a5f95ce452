"""Schedules (learning rate, weight of the unlabeled loss) and the split of a step."""

import math
from collections.abc import Mapping

from lib.config import TrainSettings


def count_steps(num_videos: int, settings: TrainSettings) -> int:
    """Return the steps of an epoch: a pass over the unlabeled split, or the labeled one alone."""
    batch = settings.unlabeled_batch if settings.is_semi_supervised else settings.labeled_batch
    return max(1, num_videos // batch)


def learning_rate(step: int, steps_per_epoch: int, settings: TrainSettings) -> float:
    """Return the learning rate of a step: linear warm-up, then cosine to 0, stepped per epoch.

    At each of `lr_restart_epochs` the cosine restarts. A step does not depend on later
    restarts and epochs, so that a run can be trained longer.

    Source: Zou et al., section 4.1 (no warm-up there); restarts: Loshchilov and Hutter, SGDR, 2017.
    """
    warmup_steps = settings.warmup_epochs * steps_per_epoch
    if step < warmup_steps:
        return min(settings.lr, settings.lr * (step + 1) / warmup_steps)  # may end within a step
    epoch = step // steps_per_epoch
    ends = [*settings.lr_restart_epochs, settings.epochs]
    start = max((end for end in ends if end <= epoch), default=0)
    end = min(end for end in ends if end > epoch)
    return settings.lr * 0.5 * (1 + math.cos(math.pi * (epoch - start) / (end - start)))


def ramp_up(weight: float, step: int, rampup_steps: float) -> float:
    """Return the weight of the unlabeled loss at a step: linear up to `weight`, then constant."""
    return weight if step >= rampup_steps else weight * step / rampup_steps


def num_micro_batches(batches: Mapping[str, int], micro_batch: int, world_size: int) -> int:
    """Return the number of micro-batches into which each process divides its share of a step.

    `batches` are the clips in a step, by the names of their settings; `micro_batch` is the largest
    number of clips of one in a pass, 0 for no bound. ValueError if a batch cannot be divided
    equally.
    """
    for name, batch in batches.items():
        if batch % world_size:
            raise ValueError(
                f"{name}: {batch} clips cannot be divided equally among {world_size} processes; "
                "choose a multiple"
            )
    largest = max(batches.values()) // world_size
    bound = micro_batch or largest
    for count in range(1, largest + 1):
        if all(batch % (world_size * count) == 0 for batch in batches.values()):
            if max(batches.values()) // (world_size * count) <= bound:
                return count
    raise ValueError(
        f"micro_batch: {batches} over {world_size} processes have no equal parts of at most "
        f"{bound} clips; choose batches with common divisors"
    )
