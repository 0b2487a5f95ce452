"""Tables of notebook 2, on clips whose numbers are known."""

import pytest
import torch

from lib.augment.randaugment import RANDAUGMENT_OPS
from lib.config import ClipSettings
from lib.data.clip_dataset import ClipBatch
from lib.jupyter.augmentation_tables import count_draws, mask_table, operation_changes


def test_draws_are_counted_with_their_expectation():
    settings = ClipSettings(
        randaugment_num_ops=3, randaugment_ops=["rotate", "cutout"], temporal_ops=["none", "drop"]
    )
    draws = count_draws(settings, num_draws=400)
    assert draws["operation"].tolist() == ["rotate", "cutout", "none", "drop"]
    assert draws["drawn"].groupby(draws["kind"]).sum().to_dict() == {
        "RandAugment": 1200, "temporal": 400,
    }  # fmt: skip
    assert draws["expected"].tolist() == [600, 600, 200, 200]
    assert draws["deviation"].abs().max() < 4
    rotate = draws.iloc[0]
    assert rotate["deviation"] == pytest.approx((rotate["drawn"] - 600) / 300**0.5)


def test_a_single_choice_deviates_by_nothing():
    draws = count_draws(ClipSettings(randaugment_ops=[], temporal_ops=["reverse"]), num_draws=5)
    assert draws.to_numpy().tolist() == [["temporal", "reverse", 5, 5.0, 0.0]]


def test_changes_are_mean_gray_levels_in_ascending_order():
    clip = torch.full((2, 3, 16, 16), 100, dtype=torch.uint8)
    changes = operation_changes(clip, magnitude=0)
    assert sorted(changes["operation"]) == sorted(RANDAUGMENT_OPS)
    by_name = changes.set_index("operation")["change"]
    assert by_name["identity"] == 0 and by_name["solarize"] == 55  # 100 becomes 155
    assert by_name["brightness"] == 95  # factor 0.05
    assert changes["change"].is_monotonic_increasing


def test_masks_are_judged_by_area_and_motion():
    weak = torch.zeros(4, 3, 3, 8, 8, dtype=torch.uint8)
    weak[:, 1, :, :4, :4] = 200  # something moves in the upper left quarter
    mask = torch.zeros(4, 3, 1, 8, 8, dtype=torch.uint8)
    mask[0, ..., :4, :4] = 1
    mask[1, ..., 4:, 4:] = 1
    mask[3] = 1
    batch = ClipBatch(weak, None, mask, None, torch.zeros(4), torch.arange(4))
    table = mask_table(batch)
    assert table["problem"].tolist() == ["", "off the actor", "empty", "full"]
    assert table["area"].tolist() == [0.25, 0.25, 0, 1] and table["motion"].tolist() == [1, 0, 0, 1]
    assert table["label_weight"].tolist() == pytest.approx([1 - 0.75**4] * 2 + [0, 1])
