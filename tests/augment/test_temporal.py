"""The temporal operations by hand."""

import pytest
import torch

from lib.augment.temporal import temporal_drop, temporal_half, temporal_reverse


def test_temporal_half():
    frames = torch.arange(8)
    assert temporal_half(frames, first=True).tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    assert temporal_half(frames, first=False).tolist() == [4, 5, 6, 7, 4, 5, 6, 7]
    with pytest.raises(ValueError, match="even number of frames, not 5"):
        temporal_half(frames[:5], first=True)


def test_temporal_reverse():
    assert temporal_reverse(torch.arange(4)).tolist() == [3, 2, 1, 0]


@pytest.mark.parametrize(
    ("drop", "expected"),
    [
        ([0, 0, 0, 0, 0], [0, 1, 2, 3, 4]),
        ([0, 1, 0, 0, 1], [0, 0, 2, 3, 3]),
        ([0, 0, 1, 1, 0], [0, 1, 1, 1, 4]),  # cascades
        ([1, 0, 0, 1, 0], [0, 1, 2, 2, 4]),  # the first frame has no predecessor
        ([1, 1, 1, 1, 1], [0, 0, 0, 0, 0]),
    ],
)
def test_temporal_drop(drop, expected):
    assert temporal_drop(torch.arange(5), torch.tensor(drop).bool()).tolist() == expected


@pytest.mark.parametrize(
    "operation",
    [
        lambda x: temporal_half(x, first=False),
        temporal_reverse,
        lambda x: temporal_drop(x, torch.tensor([0, 1, 0, 1]).bool()),
    ],
)
def test_temporal_operations_take_clips_masks_and_indices(operation):
    clip = torch.arange(4 * 3 * 5 * 6).byte().view(4, 3, 5, 6)
    indices = operation(torch.arange(4))
    for frames in (clip, clip[:, :1]):
        before = frames.clone()
        assert torch.equal(operation(frames), frames[indices])
        assert torch.equal(frames, before)
