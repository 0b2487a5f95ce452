"""Tables of notebook 2: draws of the sampler, strength of the operations, quality of the masks."""

from collections import Counter

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lib.augment.randaugment import RANDAUGMENT_OPS, RandAugment
from lib.augment.scene import foreground_weight
from lib.config import ClipSettings
from lib.data.clip_dataset import ClipBatch, ClipPipeline, make_generator


def count_draws(settings: ClipSettings, num_draws: int, seed: int = 0) -> pd.DataFrame:
    """Draw strong views and count their operations.

    Returns:
        Columns kind (`RandAugment`, `temporal`), operation, drawn, expected, and deviation: of the
        two, in standard deviations of a binomial distribution.
    """
    transform, size = ClipPipeline(settings).strong, settings.crop_size
    draws = [
        transform.draw(settings.clip_len, size, size, make_generator(seed, number))
        for number in range(num_draws)
    ]
    operations = [operation.name for draw in draws for operation in draw.operations]
    kinds = {
        "RandAugment": (operations, transform.randaugment.operations),
        "temporal": ([draw.temporal.name for draw in draws], transform.temporal.operations),
    }
    rows = []
    for kind, (names, choices) in kinds.items():
        drawn = Counter(names)
        for name, count in Counter(choices).items():
            p = count / len(choices)
            expected, deviation = len(names) * p, (len(names) * p * (1 - p)) ** 0.5
            z = (drawn[name] - expected) / deviation if deviation else 0.0
            rows.append((kind, name, drawn[name], expected, z))
    return pd.DataFrame(rows, columns=["kind", "operation", "drawn", "expected", "deviation"])


def operation_changes(weak: Tensor, magnitude: float) -> pd.DataFrame:
    """Measure how much each operation of RandAugment changes a clip (T, 3, H, W), uint8.

    Returns:
        Columns operation and change: mean of |strong − weak| in gray levels, of 255. The smallest
        change first.
    """
    changes = {}
    for name in RANDAUGMENT_OPS:
        single = RandAugment(1, magnitude, [name])
        strong = single.apply(weak, single.draw(*weak.shape[-2:], make_generator(0)))
        changes[name] = float((strong.int() - weak.int()).abs().float().mean())
    table = pd.DataFrame({"operation": changes.keys(), "change": changes.values()})
    return table.sort_values("change", ignore_index=True)


def mask_table(batch: ClipBatch) -> pd.DataFrame:
    """Measure the person masks of a batch: their area, and the motion that they cover.

    Motion is the absolute difference of neighboring frames; a mask that covers a smaller share of
    it than of the area is off the actor, or the camera moves.

    Returns:
        Columns row (of the index), area (r, in [0, 1]), label_weight (w of ActorCutMix), motion
        (share inside the mask, in [0, 1]), problem (`empty`, `full`, `off the actor`, or empty).
    """
    mask = batch.person_mask[:, :, 0].float()  # (B, T, H, W)
    both = torch.maximum(mask[:, 1:], mask[:, :-1])  # a motion is seen in two frames
    motion = batch.weak.float().diff(dim=1).abs().sum(dim=2)
    inside = (motion * both).sum((1, 2, 3)) / motion.sum((1, 2, 3)).clamp(min=1)
    area = mask.mean((1, 2, 3))
    columns = {"row": batch.row, "area": area, "label_weight": foreground_weight(area)}
    columns["motion"] = inside
    table = pd.DataFrame({name: values.numpy() for name, values in columns.items()})
    table["problem"] = np.where(inside < both.mean((1, 2, 3)), "off the actor", "")
    table.loc[table["area"] == 0, "problem"] = "empty"
    table.loc[table["area"] == 1, "problem"] = "full"
    return table
