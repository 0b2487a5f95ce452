import math

import numpy as np
import pytest
import torch

from lib.train.objectives import FixMatchObjective, UDAObjective, soft_cross_entropy

fixmatch_loss = FixMatchObjective().unlabeled_loss
uda_loss = UDAObjective().unlabeled_loss

LOG2, LOG3 = math.log(2), math.log(3)
# Probabilities (1/2, 1/4, 1/4) and (1/3, 1/3, 1/3).
LOGITS = torch.tensor([[LOG2, 0, 0], [5, 5, 5]], dtype=torch.float64)


def test_cross_entropy_with_hard_and_soft_targets():
    hard = soft_cross_entropy(LOGITS, torch.tensor([[1.0, 0, 0], [0, 0, 1]]).double())
    assert hard.tolist() == pytest.approx([LOG2, LOG3])
    soft = soft_cross_entropy(LOGITS, torch.tensor([[0.5, 0.5, 0], [0.2, 0.3, 0.5]]).double())
    assert soft.tolist() == pytest.approx([1.5 * LOG2, LOG3])


def test_cross_entropy_equals_pytorchs():
    logits = torch.randn(9, 7, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(9) % 7
    targets = torch.nn.functional.one_hot(labels, 7).float()
    expected = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(soft_cross_entropy(logits, targets), expected)


def test_cross_entropy_is_finite_for_extreme_logits():
    logits = torch.tensor([[1e4, -1e4]])
    loss = soft_cross_entropy(logits, torch.tensor([[0.0, 1.0]]))
    assert loss.item() == pytest.approx(2e4)


def test_confidence_includes_the_threshold():
    assert FixMatchObjective(confidence_threshold=0.4).confidence_mask(LOGITS, None).tolist() == [
        1,
        0,
    ]
    assert FixMatchObjective(confidence_threshold=0.5).confidence_mask(LOGITS, None).tolist() == [
        1,
        0,
    ]  # "reaches"
    assert FixMatchObjective(confidence_threshold=0.51).confidence_mask(LOGITS, None).tolist() == [
        0,
        0,
    ]
    assert FixMatchObjective(confidence_threshold=0.3).confidence_mask(LOGITS, None).tolist() == [
        1,
        1,
    ]


def test_hard_targets_are_the_predicted_class():
    assert FixMatchObjective().pseudo_labels(
        torch.tensor([[0.1, 0.7, 0.2], [3, -1, 2]])
    ).tolist() == [
        [0, 1, 0],
        [1, 0, 0],
    ]


def test_sharpening():
    targets = UDAObjective(temperature=0.5).pseudo_labels(LOGITS)  # p² up to a factor
    np.testing.assert_allclose(targets, [[4 / 6, 1 / 6, 1 / 6], [1 / 3] * 3])
    np.testing.assert_allclose(
        UDAObjective(temperature=1.0).pseudo_labels(LOGITS), LOGITS.softmax(dim=1)
    )


TARGETS = torch.eye(3).double()[:2]  # losses of LOGITS: log 2 and log 3


@pytest.mark.parametrize(
    ("mask", "fixmatch", "uda"),
    [
        ([1, 1], (LOG2 + LOG3) / 2, (LOG2 + LOG3) / 2),
        ([0, 1], LOG3 / 2, LOG3),  # divided by all clips, and by the threshold_mask ones
        ([1, 0], LOG2 / 2, LOG2),
        ([0, 0], 0, 0),
    ],
)
def test_unlabeled_losses(mask, fixmatch, uda):
    mask = torch.tensor(mask).double()
    assert fixmatch_loss(LOGITS, TARGETS, mask).item() == pytest.approx(fixmatch)
    assert uda_loss(LOGITS, TARGETS, mask).item() == pytest.approx(uda)


@pytest.mark.parametrize("loss", [fixmatch_loss, uda_loss])
def test_an_empty_selection_has_a_gradient_of_zero(loss):
    logits = LOGITS.clone().requires_grad_()
    loss(logits, TARGETS, torch.zeros(2).double()).backward()
    assert logits.grad.tolist() == [[0] * 3] * 2


def test_the_gradient_is_that_of_the_formula():
    logits = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    targets = torch.randn(4, 5, dtype=torch.float64).softmax(dim=1)
    mask = torch.tensor([1, 0, 1, 1]).double()
    assert torch.autograd.gradcheck(lambda x: fixmatch_loss(x, targets, mask), logits)
    assert torch.autograd.gradcheck(lambda x: uda_loss(x, targets, mask), logits)
