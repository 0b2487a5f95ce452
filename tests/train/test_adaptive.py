"""Adaptive thresholds by the formulas of their papers; the EMA; soft targets."""

import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from lib.config import EvaluateSettings
from lib.data.frame_tables import read_soft_targets
from lib.evaluate.test import evaluate
from lib.evaluate.trained_model import TrainedModel
from lib.runs.run_dir import RunDir
from lib.train.fit import fit
from lib.train.objectives import ClipTensors, FixMatchObjective, FreeMatchObjective
from lib.train.run_data import load_data
from lib.train.run_model import make_ema


def logits_of(*probabilities) -> torch.Tensor:
    return torch.tensor(probabilities, dtype=torch.float64).log()


# --- FreeMatch ------------------------------------------------------------------------------------


def test_freematch_by_hand():
    objective = FreeMatchObjective(threshold_momentum=0.9)
    objective.begin(np.arange(4), 3)
    first = logits_of([0.6, 0.3, 0.1], [0.2, 0.5, 0.3])
    mask = objective.confidence_mask(first, None)
    level = 0.9 / 3 + 0.1 * (0.6 + 0.5) / 2
    classes = [0.9 / 3 + 0.1 * p for p in (0.4, 0.4, 0.2)]
    histogram = [0.9 / 3 + 0.1 * p for p in (0.5, 0.5, 0)]
    assert objective.mean_confidence.item() == pytest.approx(level)
    assert objective.mean_probabilities.tolist() == pytest.approx(classes)
    assert objective.mean_histogram.tolist() == pytest.approx(histogram)
    assert mask.tolist() == [1, 1]
    second = logits_of([0.34, 0.33, 0.33], [0.3, 0.3, 0.4])
    mask = objective.confidence_mask(second, None)
    level = 0.9 * level + 0.1 * (0.34 + 0.4) / 2
    classes = [
        0.9 * old + 0.1 * new for old, new in zip(classes, (0.32, 0.315, 0.365), strict=True)
    ]
    limits = [level * p / max(classes) for p in classes]
    assert mask.tolist() == [float(0.34 > limits[0]), float(0.4 > limits[2])] == [0, 1]


def test_freematch_fairness_by_hand():
    objective = FreeMatchObjective(fairness_weight=0.5)
    objective.begin(np.arange(4), 3)
    objective.mean_probabilities = torch.tensor([0.5, 0.3, 0.2])
    objective.mean_histogram = torch.tensor([0.5, 0.25, 0.25])
    strong = logits_of([0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6], [0.6, 0.3, 0.1])
    mask = torch.tensor([1.0, 1, 0, 1])
    expected = np.array([0.5 / 0.5, 0.3 / 0.25, 0.2 / 0.25])
    mean, histogram = np.array([1.4, 1.3, 0.3]) / 3, np.array([2, 1, 0]) / 3
    actual = np.array([mean[0] / histogram[0], mean[1] / histogram[1], 0])
    expected, actual = expected / expected.sum(), actual / actual.sum()
    value = (expected * np.log(actual + 1e-12)).sum()
    assert objective.fairness_loss(strong, mask).item() == pytest.approx(value, rel=1e-5)
    assert objective.fairness_loss(strong, 0 * mask).item() == 0
    targets = torch.eye(3, dtype=torch.float64)[[0, 1, 2, 0]]
    plain = FixMatchObjective().unlabeled_loss(strong, targets, mask)
    loss = objective.unlabeled_loss(strong, targets, mask)
    assert loss.item() == pytest.approx(plain.item() + 0.5 * value, rel=1e-5)


@pytest.mark.slow
def test_resume_restores_thresholds_and_ema(tiny_settings, tmp_path, at_forward):
    settings = {"objective": "freematch", "threshold_momentum": 0.8, "ema_decay": 0.7}
    settings |= {"ema_teacher": True, "head_init": "linear_probe"}
    expected = fit(tiny_settings(**settings, run_dir=tmp_path / "expected"))
    stopped = tiny_settings(**settings, run_dir=tmp_path / "stopped")
    run = RunDir(stopped.run_dir)
    at_forward(4, run.stop_path.touch)
    fit(stopped)
    assert not run.is_finished()
    fit(stopped)
    states = [one.load() for one in (run, expected)]
    for part in ("model", "ema"):
        for name, value in states[0][part].items():
            assert torch.equal(value, states[1][part][name]), name
    ours, theirs = (state["ranks"][0]["objective"] for state in states)
    assert ours.keys() == theirs.keys() and len(ours)
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


# --- The moving average of the network -----------------------------------------------------------


def test_ema_by_hand():
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1))
    ema = make_ema(model, decay=0.75)
    values = []
    for value in (1.0, 2.0, 4.0):
        nn.init.constant_(model[0].weight, value)
        model[1].running_mean.fill_(10 * value)
        ema.update_parameters(model)
        values.append(ema.module[0].weight.item())
        assert ema.module[1].running_mean.item() == 10 * value
    assert values == [1, 1.25, 0.75 * 1.25 + 1]
    assert not ema.module.training


def test_ema_is_tested(tiny_settings):
    settings = tiny_settings(ema_decay=0.9)
    run = fit(settings)
    state = run.load()
    classes = load_data(settings).labeled.classes
    tested = TrainedModel.load(run, classes=classes).network.state_dict()
    moved = [name for name in tested if not torch.equal(tested[name], state["model"][name])]
    assert "head.weight" in moved
    for name, value in tested.items():
        assert torch.equal(value, state["ema"][f"module.{name}"])
    results = evaluate(EvaluateSettings(run_dir=settings.run_dir, num_processes=1))
    assert "top1" in results["val"].metrics


def test_ema_cannot_continue_a_run_without(tiny_settings):
    fit(tiny_settings(epochs=1))
    with pytest.raises(ValueError, match=r"(?s)other settings.*ema_decay: 0.0 there, 0.9 here"):
        fit(tiny_settings(epochs=2, ema_decay=0.9))
    with pytest.raises(ValidationError, match="ema_teacher needs an EMA; set ema"):
        tiny_settings(ema_teacher=True)


class Fixed(nn.Module):
    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, clips):
        return self.logits[: len(clips)]


def test_labels_by_the_average_and_soft_targets_in_them():
    clips = torch.zeros(2, 3, 1, 2, 2)
    labels = torch.eye(2)[[0, 1]]
    soft = torch.tensor([[0.5, 0.5], [0.0, 1.0]])
    labeled = ClipTensors(clips, None, None, labels)
    unlabeled = ClipTensors(clips, clips, None, labels, soft_targets=soft)
    objective = FixMatchObjective(
        unlabeled_scene_p=0.0, confidence_threshold=0.9, soft_target_weight=0.25
    )
    own = torch.zeros(6, 2)  # the network itself is never sure
    teacher = Fixed(torch.tensor([[0.0, 9.0], [9.0, 0.0]]))
    step = objective(Fixed(own), labeled, unlabeled, torch.Generator(), teacher)
    assert step.stats["ssl/mask_rate"][0].item() == 2
    own[4:] = torch.tensor([[1.0, 0.0], [0.0, 2.0]])  # the strong views
    step = objective(Fixed(own), labeled, unlabeled, torch.Generator(), teacher)
    targets = torch.tensor([[0.125, 0.875], [0.75, 0.25]])
    expected = -(targets * own[4:].log_softmax(1)).sum(1).mean()
    assert step.stats["loss/unlabeled"][0].item() == pytest.approx(expected.item())


# --- Soft targets ---------------------------------------------------------------------------------


def write_table(path, dataset, rows, **changes):
    names = dataset.index["name"].to_numpy()[rows]
    share = 1 / len(dataset.classes)
    table = pd.DataFrame({"name": names} | {name: share for name in dataset.classes[::-1]})
    table.assign(**changes).to_csv(path, index=False)


def test_soft_targets_are_read_by_name(tiny_settings, tmp_path):
    data = load_data(tiny_settings())
    dataset, rows = data.unlabeled, data.unlabeled_rows
    write_table(tmp_path / "soft.csv", dataset, rows)
    table = pd.read_csv(tmp_path / "soft.csv")
    table.loc[3, list(dataset.classes)] = [0, 0, 1, 0]
    table.sample(frac=1, random_state=0).to_csv(tmp_path / "soft.csv", index=False)
    soft = read_soft_targets(tmp_path / "soft.csv", dataset, rows)
    assert soft.shape == (len(dataset.index), 4)
    assert soft[rows[3]].tolist() == [0, 0, 1, 0]
    assert soft[rows[2]] == pytest.approx(1 / 4)
    others = np.setdiff1d(np.arange(len(dataset.index)), rows)
    assert not soft[others].any()


@pytest.mark.slow
def test_soft_targets_change_what_is_learned(tiny_settings, tmp_path):
    data = load_data(tiny_settings())
    write_table(tmp_path / "soft.csv", data.unlabeled, data.unlabeled_rows)
    losses = []
    for number, changes in enumerate(
        ({}, {"soft_targets": str(tmp_path / "soft.csv")}, {"soft_target_weight": 1.0})
    ):
        changes = changes if number < 2 else changes | {"soft_targets": str(tmp_path / "soft.csv")}
        run = fit(tiny_settings(run_dir=tmp_path / str(number), **changes))
        losses.append(run.log_entries()[-1]["loss/unlabeled"])
    assert len(set(losses)) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.iloc[1:], "has no row for 1 of 18 videos, the first: "),
        (
            lambda t: t.rename(columns={t.columns[1]: "juggling"}),
            "unexpected: juggling",
        ),
        (lambda t: t.drop(columns="name"), "missing: name; unexpected: –"),
        (lambda t: t.replace(t.iloc[0, 1], 0.9), "is not a distribution"),
    ],
)
def test_soft_targets_of_others_are_refused(tiny_settings, tmp_path, change, message):
    data = load_data(tiny_settings())
    path = tmp_path / "soft.csv"
    write_table(path, data.unlabeled, data.unlabeled_rows)
    change(pd.read_csv(path)).to_csv(path, index=False)
    with pytest.raises(ValueError, match=f"soft_targets: .*{message}"):
        fit(tiny_settings(soft_targets=str(path)))
    with pytest.raises(ValueError, match="soft_targets: .*gone.csv cannot be read"):
        fit(tiny_settings(soft_targets=str(tmp_path / "gone.csv")))
