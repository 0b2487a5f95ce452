"""What changes from step to step, and how a step is shared: functions of the settings."""

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from lib.config import TrainSettings

if TYPE_CHECKING:  # planning a batch counts steps, and loads no PyTorch
    from lib.train.objectives import Objective


def count_steps(num_videos: int, settings: TrainSettings) -> int:
    """Return the steps of an epoch: a pass over the unlabelled list, or the only one there is."""
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
        return settings.lr * (step + 1) / warmup_steps
    epoch = step // steps_per_epoch
    ends = [*settings.lr_restart_epochs, settings.epochs]
    start = max((end for end in ends if end <= epoch), default=0)
    end = min(end for end in ends if end > epoch)
    return settings.lr * 0.5 * (1 + math.cos(math.pi * (epoch - start) / (end - start)))


def ramp_up(weight: float, step: int, steps_per_epoch: int, settings: TrainSettings) -> float:
    """Return the weight of the unlabelled loss at a step: linear up to `weight`, then constant."""
    rampup_steps = settings.unlabeled_rampup_epochs * steps_per_epoch
    return weight if step >= rampup_steps else weight * step / rampup_steps


def at_step(
    objective: "Objective", step: int, steps_per_epoch: int, settings: TrainSettings
) -> "Objective":
    """Return the objective with the unlabelled weight of a step; the state is the same object."""
    from lib.train.objectives import FixMatchObjective

    if not isinstance(objective, FixMatchObjective):
        return objective
    weight = ramp_up(objective.unlabeled_weight, step, steps_per_epoch, settings)
    if weight == objective.unlabeled_weight:
        return objective
    return replace(objective, unlabeled_weight=weight)


def num_micro_batches(settings: TrainSettings, size: int) -> int:
    """Return into how many micro-batches each process cuts its share of a step.

    Raises:
        ValueError: If a global batch cannot be shared equally.
    """
    batches = {"labeled_batch": settings.labeled_batch}
    if settings.is_semi_supervised:
        batches["unlabeled_batch"] = settings.unlabeled_batch
    for name, batch in batches.items():
        if batch % size:
            raise ValueError(f"{name}: {batch} clips cannot be shared equally by {size} processes")
    largest = max(batches.values()) // size
    bound = settings.micro_batch or largest
    for count in range(1, largest + 1):
        if all(batch % (size * count) == 0 for batch in batches.values()):
            if max(batches.values()) // (size * count) <= bound:
                return count
    raise ValueError(
        f"micro_batch: no equal parts of {batches} over {size} processes have at most {bound} clips"
    )
