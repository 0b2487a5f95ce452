"""Person masks by hand."""

import numpy as np
import pytest
import torch

from lib.augment.views import boxes_to_mask


def test_boxes_to_mask_by_hand():
    boxes = [
        np.array([[1.0, 0.0, 3.0, 2.0]], dtype=np.float32),
        np.zeros((0, 4)),
        torch.tensor([[0.0, 0.0, 1.0, 1.0], [2.9, 1.9, 4.9, 2.9]]),  # fractions are dropped
        np.array([[-3.0, -2.0, 1.5, 9.0], [4.0, 0.0, 99.0, 1.0]]),  # cut to the frame
        np.array([[2.0, 1.0, 2.9, 2.0], [3.0, 2.0, 1.0, 1.0]]),  # empty after rounding; reversed
    ]
    expected = [
        ["01100", "01100", "00000"],
        ["00000", "00000", "00000"],
        ["10000", "00110", "00000"],
        ["10001", "10000", "10000"],
        ["00000", "00000", "00000"],
    ]
    mask = boxes_to_mask(boxes, height=3, width=5)
    assert mask.dtype == torch.uint8 and mask.shape == (5, 1, 3, 5)
    assert [["".join(map(str, row)) for row in m[0].tolist()] for m in mask] == expected


def test_boxes_to_mask_without_boxes_is_empty():
    assert not boxes_to_mask([np.zeros((0, 4)), np.zeros((0,))], 4, 6).any()


@pytest.mark.parametrize("boxes", [np.ones((4, 5)), np.array([[0.0, 0.0, float("nan"), 2.0]])])
def test_boxes_to_mask_refuses_scores_and_nan(boxes):
    with pytest.raises(ValueError):
        boxes_to_mask([np.zeros((0, 4)), boxes], 4, 6)
