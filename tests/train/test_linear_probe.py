"""The probe, the head that starts as one, and layers that are kept as they are."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.special import softmax
from threadpoolctl import threadpool_info, threadpool_limits
from torch import nn

from lib.config import EvaluateSettings
from lib.evaluate.pseudo_labels import unlabeled_rows
from lib.evaluate.test import evaluate
from lib.models.networks import build_model
from lib.prepare.requirements import data_requirements
from lib.runs.run_dir import RunDir
from lib.train import linear_probe, trainer, video_features
from lib.train.fit import fit
from lib.train.linear_probe import (
    cross_validate,
    linear_layer,
    logistic_regression,
    self_train,
)
from lib.train.run_data import load_data, load_soft_targets, make_streams
from lib.train.run_model import build_run_model, eval_state_dict


@pytest.mark.parametrize("num_classes", [2, 3])
def test_regression_is_the_minimum_of_its_formula(num_classes):
    rng = np.random.default_rng(0)
    labels = np.arange(30) % num_classes
    features = rng.normal(5, [1.0, 10.0, 0.1, 1.0], size=(30, 4))
    features[:, 3] = 2.0  # a feature that never changes
    features[:, 0] += labels
    weight, bias = linear_layer(logistic_regression(features, labels, l2=0.1), num_classes)
    mean, std = features.mean(axis=0), features.std(axis=0)
    std[3] = 1
    scaled = (features - mean) / std
    residual = (softmax(features @ weight.T + bias, axis=1) - np.eye(num_classes)[labels]) / 30
    # The gradient of mean CE + l2 / 2 · |W|² is zero at its only minimum.
    gradient = residual.T @ scaled + 0.1 * weight * std
    assert np.abs(gradient).max() < 1e-6
    assert np.abs(residual.sum(axis=0)).max() < 1e-6
    assert (weight[:, 3] == 0).all()


def test_regression_separates_what_can_be_separated():
    labels = np.arange(12) % 4
    features = np.eye(6)[labels] + np.arange(6)
    weight, bias = linear_layer(logistic_regression(features, labels, l2=1e-4), 4)
    assert ((features @ weight.T + bias).argmax(axis=1) == labels).all()


def test_regression_has_no_more_threads_than_the_process(monkeypatch):
    """BLAS has threads of its own, which torch's setting does not reach."""
    from sklearn.linear_model import LogisticRegression  # takes a second

    threads, real = set(), LogisticRegression.fit

    def fitted(self, *args, **kwargs):
        pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
        threads.update(pool["num_threads"] for pool in pools)
        return real(self, *args, **kwargs)

    monkeypatch.setattr(LogisticRegression, "fit", fitted)
    with threadpool_limits(2, "blas"):
        logistic_regression(np.eye(2), np.arange(2), l2=0.1)
    assert threads == {torch.get_num_threads()} == {1}


@pytest.mark.slow
def test_a_probe_is_a_run_like_others(tiny_settings):
    settings = tiny_settings(
        objective="linear_probe", epochs=1, model="efficientnet_lite0", crop_size=16
    )
    settings = settings.model_copy(update={"temporal_std_pooling": True})
    run = fit(settings)
    assert run.is_finished()
    (entry,) = run.log_entries()
    assert entry["epoch"] == 1 and "eval/top1_video" in entry and entry["seconds"] > 0
    state = run.load()["model"]
    assert state["head.weight"].shape == (4, 2 * 1280)
    start = build_run_model_of(run)
    for name, tensor in start.backbone.state_dict().items():
        assert torch.equal(state[f"backbone.{name}"], tensor), name
    results = evaluate(EvaluateSettings(run_dir=settings.run_dir, num_processes=1))
    assert results["val"].scores.shape == (8, 4)
    assert json.loads(run.metrics_path.read_text())["labels"] == 18
    fit(settings)  # finished: nothing is done again
    assert len(RunDir(settings.run_dir).log_entries()) == 1


def build_run_model_of(run: RunDir):
    settings = run.settings()
    torch.manual_seed(settings.seed)
    return build_run_model(settings, 4)


@pytest.mark.slow
def test_a_head_that_starts_as_a_probe_knows_the_labelled_videos(tiny_settings):
    """With a step size of almost nothing, the trained network is the probe."""
    network = {"model": "efficientnet_lite0", "freeze_fraction": 1.0, "epochs": 1}
    settings = tiny_settings(objective="supervised", head_init="linear_probe", lr=1e-9, **network)
    run = fit(settings)
    trained = run.load()["model"]
    again = settings.model_copy(
        update={"objective": "linear_probe", "run_dir": settings.run_dir + "_probe"}
    )
    probe = fit(again)
    expected = probe.load()["model"]
    torch.testing.assert_close(trained["head.weight"], expected["head.weight"], rtol=0, atol=1e-5)
    assert trained["head.weight"].abs().max() > 1e-3


@pytest.mark.slow
def test_start_from_a_probe_is_validated_and_may_be_the_best(tiny_settings, at_forward):
    settings = tiny_settings(head_init="linear_probe", lr=1e-9)
    whole = fit(settings)
    start, *_ = log = whole.log_entries()
    assert [entry["epoch"] for entry in log] == [0, 1, 2] and start["step"] == 0
    probe = fit(
        tiny_settings(objective="linear_probe", epochs=1, run_dir=settings.run_dir + "_probe")
    )
    assert start["eval/top1_video"] == probe.log_entries()[0]["eval/top1_video"]
    assert {entry["eval/top1_video"] for entry in log} == {start["eval/top1_video"]}
    assert whole.load("best")["step"] == 0  # the earliest of equal ones

    stopped = settings.model_copy(update={"run_dir": settings.run_dir + "_stopped"})
    at_forward(1, RunDir(stopped.run_dir).stop_path.touch)
    fit(stopped)
    run = fit(stopped)
    assert [entry["epoch"] for entry in run.log_entries()] == [0, 1, 2]
    for which in ("last", "best"):
        ours, theirs = run.load(which), whole.load(which)
        assert ours["step"] == theirs["step"]
        assert all(
            torch.equal(ours["model"][name], theirs["model"][name]) for name in ours["model"]
        )


@pytest.mark.parametrize(("top1", "best"), [(85.0, 0), (86.0, 3)])
def test_start_from_a_probe_stays_the_best_within_two_standard_errors(
    tiny_settings, monkeypatch, top1, best
):
    """Half of 8 videos are right at the start: a standard error is 17.7 points."""
    values = iter([50.0, top1])
    monkeypatch.setattr(trainer.Trainer, "validate", lambda self: {"eval/top1_video": next(values)})
    run = fit(tiny_settings(head_init="linear_probe", epochs=1))
    assert run.load("best")["step"] == best


def test_start_that_was_not_saved_is_logged_once(tiny_settings, monkeypatch):
    settings = tiny_settings(head_init="linear_probe", epochs=1)
    real = RunDir.save
    monkeypatch.setattr(RunDir, "save", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fit(settings)
    monkeypatch.setattr(RunDir, "save", real)
    assert [entry["epoch"] for entry in fit(settings).log_entries()] == [0, 1]


def test_frozen_layers_keep_their_weights_and_their_batch_norms():
    torch.manual_seed(0)
    model = build_model("resnet18", 3)
    model.freeze(0.5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    model.train()
    model(torch.randn(2, 3, 2, 32, 32)).square().sum().backward()
    optimizer.step()
    changed = {
        name for name, value in model.state_dict().items() if not torch.equal(value, before[name])
    }
    convolutions = [
        n for n, m in model.backbone.network.named_modules() if isinstance(m, nn.Conv2d)
    ]
    for position, name in enumerate(convolutions):
        assert (f"backbone.network.{name}.weight" in changed) == (position >= 10), name
    assert "backbone.network.bn1.running_mean" not in changed
    assert "backbone.network.layer4.1.bn2.running_mean" in changed
    assert {"head.weight", "head.bias"} <= changed


def test_frozen_norms_keep_their_statistics_and_use_them():
    torch.manual_seed(0)
    model = build_model("resnet18", 3)
    model.freeze(0.0, batch_norm=True)
    clips, before = torch.randn(2, 3, 2, 32, 32), dict(model.named_buffers())
    before = {name: value.clone() for name, value in before.items()}
    model.train()
    trained = model.backbone(clips)
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())
    assert torch.equal(model.eval().backbone(clips), trained)
    assert all(weight.requires_grad for weight in model.parameters())


def test_all_is_frozen_but_the_head():
    model = build_model("vit_b_32", 3)
    model.freeze(1.0)
    learned = [name for name, value in model.named_parameters() if value.requires_grad]
    assert learned == ["head.weight", "head.bias"]
    model = build_model("r3d_small", 3)
    model.freeze(0.0)
    assert all(value.requires_grad for value in model.parameters())


def test_settings_of_a_probe_that_cannot_be_used(tiny_settings):
    with pytest.raises(ValidationError, match="epochs: it must be 1 for a linear probe"):
        tiny_settings(objective="linear_probe", epochs=2)
    with pytest.raises(
        ValidationError, match="distillation_weight acts on .*objective is 'linear_probe'"
    ):
        tiny_settings(objective="linear_probe", epochs=1, distillation_weight=1.0)
    with pytest.raises(ValueError, match="temporal_std_pooling: 'r3d_small' is no image network"):
        fit(tiny_settings(temporal_std_pooling=True))
    with pytest.raises(ValueError, match="crop_size: vit_b_16 takes exactly 224"):
        fit(tiny_settings(model="vit_b_16"))


def rows_whose_features_are_asked_for(monkeypatch) -> list[list[int]]:
    seen, real = [], video_features.score_videos

    def scored(model, normalize, views, *args, **kwargs):
        seen.append(sorted(views.rows.tolist()))
        return real(model, normalize, views, *args, **kwargs)

    monkeypatch.setattr(video_features, "score_videos", scored)
    # Cross-validation asks for the validation videos too.
    monkeypatch.setattr("lib.train.linear_probe.MAX_CROSS_VALIDATED", 0)
    return seen


def test_features_are_of_the_labelled_videos_alone(tiny_settings, monkeypatch):
    seen = rows_whose_features_are_asked_for(monkeypatch)
    settings = tiny_settings(
        objective="linear_probe", epochs=1, labeled_fraction=0.4, self_training_rounds=0
    )
    fit(settings)
    data = load_data(settings)
    assert seen == [sorted(data.labeled_rows), sorted(data.val_rows)] and len(seen[0]) < 18


def test_rounds_need_the_other_videos_too(tiny_settings, monkeypatch):
    seen = rows_whose_features_are_asked_for(monkeypatch)
    settings = tiny_settings(
        objective="linear_probe", epochs=1, labeled_fraction=0.4, self_training_rounds=2
    )
    run = fit(settings)
    data = load_data(settings)
    others = sorted(set(data.unlabeled_rows) - set(data.labeled_rows))
    assert seen == [sorted(data.labeled_rows), others, sorted(data.val_rows)] and others
    (entry,) = run.log_entries()
    assert entry["train/top1_clip"] > 0.5 and "eval/top1_video" in entry
    again = settings.model_copy(
        update={"run_dir": settings.run_dir + "_0", "self_training_rounds": 0}
    )
    alone = fit(again)
    weights = [one.load()["model"]["head.weight"] for one in (run, alone)]
    assert (weights[0] - weights[1]).abs().max() > 1e-3


def test_rounds_have_nothing_to_add_where_every_video_is_labelled(tiny_settings):
    settings = tiny_settings(objective="linear_probe", epochs=1, self_training_rounds=2)
    assert len(load_data(settings).other_rows) == 0
    self_trained = fit(settings)
    again = settings.model_copy(
        update={"run_dir": settings.run_dir + "_0", "self_training_rounds": 0}
    )
    alone = fit(again)
    weights = [one.load()["model"]["head.weight"] for one in (self_trained, alone)]
    assert torch.equal(*weights)


def test_a_video_of_another_data_set_is_never_the_labelled_one(tiny_settings):
    data = load_data(tiny_settings(labeled_fraction=0.4))
    other = replace(data.labeled, folder=data.labeled.folder / "other")
    elsewhere = replace(data, unlabeled=other)
    assert np.array_equal(elsewhere.other_rows, data.unlabeled_rows)
    assert len(data.other_rows) == len(data.unlabeled_rows) - len(data.labeled_rows)
    assert len(replace(data, unlabeled=None, unlabeled_rows=None).other_rows) == 0


def test_one_round_learns_from_the_most_confident_of_each_class():
    """Two classes, one of them three times as frequent among the labels."""
    features = np.array([[0.0, 0.0], [0.2, 1.0], [0.1, 0.5], [4.0, 0.3]])
    labels = np.array([0, 0, 0, 1])
    along = np.array([-3.0, -2.0, -1.0, 0.0, 0.5, 6.0, 5.0, 4.5, 4.2, 4.1])
    unlabeled = np.stack([along, np.linspace(0, 1, 10)], axis=1)
    self_trained = self_train(features, labels, unlabeled, l2=0.1, rounds=1)
    # 0.8 of 10 videos, shared as 3 + 5 to 1 + 5: the 5 most confident of class 0 and 4 of class 1.
    probabilities = logistic_regression(features, labels, l2=0.1).predict_proba(unlabeled)
    assert probabilities.argmax(axis=1).tolist() == [0] * 5 + [1] * 5
    used = np.concatenate([np.arange(5), np.argsort(probabilities[:, 0])[:4]])
    together = np.concatenate([features, unlabeled[used]])
    expected = logistic_regression(together, np.r_[labels, [0] * 5, [1] * 4], l2=0.1)
    for value, expected_value in zip(
        linear_layer(self_trained, 2), linear_layer(expected, 2), strict=True
    ):
        np.testing.assert_allclose(value, expected_value, rtol=1e-6, atol=1e-7)


def test_rounds_follow_the_clusters_that_few_labels_only_touch():
    """Two long clusters side by side; the labels, one of each, lie apart along them."""
    rng = np.random.default_rng(0)
    truth = np.arange(200) % 2
    unlabeled = np.stack([10 * rng.random(200), truth + 0.1 * rng.normal(size=200)], axis=1)
    features, labels = np.array([[3.0, 0.0], [7.0, 1.0]]), np.array([0, 1])

    def accuracy(rounds: int) -> float:
        model = self_train(features, labels, unlabeled, l2=0.01, rounds=rounds)
        return model.score(unlabeled, truth)

    assert accuracy(0) < 0.8 and accuracy(8) > accuracy(0) + 0.1


@pytest.mark.slow
def test_two_processes_fit_the_probe_of_one(tiny_settings, tmp_path):
    settings = {
        "objective": "linear_probe",
        "epochs": 1,
        "labeled_fraction": 0.7,
        "self_training_rounds": 2,  # after a fit to the labels alone
    }
    one = fit(tiny_settings(**settings, run_dir=tmp_path / "one"))
    two = fit(tiny_settings(**settings, run_dir=tmp_path / "two", num_processes=2))
    for name, value in one.load()["model"].items():
        there = two.load()["model"][name]
        torch.testing.assert_close(there, value, rtol=1e-3, atol=1e-2)  # of weights up to 100


def test_a_probe_with_ema_is_tested_as_it_is(tiny_settings):
    """The EMA starts from the fitted head."""
    run = fit(tiny_settings(objective="linear_probe", epochs=1, ema_decay=0.9))
    state = run.load()
    assert torch.equal(eval_state_dict(state)["head.weight"], state["model"]["head.weight"])
    assert state["model"]["head.weight"].abs().max() > 0.1


def test_a_probe_that_was_killed_while_it_was_validated_is_not_fitted_again(
    tiny_settings, monkeypatch
):
    class PowerCut(BaseException):
        pass

    def cut(*args):
        raise PowerCut

    settings = tiny_settings(
        objective="linear_probe", epochs=1, labeled_fraction=0.4, self_training_rounds=1
    )
    whole = fit(settings.model_copy(update={"run_dir": settings.run_dir + "_whole"}))
    with monkeypatch.context() as patch, pytest.raises(PowerCut):
        patch.setattr(trainer, "MAX_UNSAVED_S", 0)
        patch.setattr(trainer.Trainer, "validate", cut)
        fit(settings)
    assert RunDir(settings.run_dir).saved_progress() == (
        RunDir(settings.run_dir).saved_progress()[0],
        0,
    )
    seen = rows_whose_features_are_asked_for(monkeypatch)
    run = fit(settings)
    assert seen == [sorted(load_data(settings).val_rows)]  # validated, not fitted again
    (entry,), (expected,) = run.log_entries(), whole.log_entries()
    names = set(entry) - {"seconds", "samples_per_s", "memory_mb"}
    assert {name: entry[name] for name in names} == {name: expected[name] for name in names}


def test_a_class_without_a_label_is_never_predicted():
    features, labels = np.array([[0.0], [1.0], [0.1]]), np.array([0, 2, 0])
    unlabeled = np.random.default_rng(0).random((30, 1))
    weight, bias = linear_layer(self_train(features, labels, unlabeled, l2=0.1, rounds=3), 3)
    assert set((unlabeled @ weight.T + bias).argmax(axis=1).tolist()) == {0, 2}


def test_a_class_without_a_label_takes_no_share_from_the_others(monkeypatch):
    seen, real = [], linear_probe.logistic_regression
    monkeypatch.setattr(
        linear_probe, "logistic_regression", lambda x, *rest: seen.append(len(x)) or real(x, *rest)
    )
    features, labels = np.array([[0.0], [1.0], [0.1]]), np.array([0, 2, 0])
    unlabeled = np.array([0.0] * 5 + [1.0] * 5)[:, None]
    self_train(features, labels, unlabeled, l2=0.1, rounds=1)
    assert seen == [3, 3 + 5 + 4]  # 0.8 · 10 · 7 / 13 and · 6 / 13, rounded up


@pytest.mark.slow
def test_two_processes_train_from_a_probe_with_ema(tiny_settings):
    settings = tiny_settings(
        objective="freematch",
        head_init="linear_probe",
        ema_decay=0.9,
        ema_teacher=True,
        num_processes=2,
    )
    run = fit(settings)
    assert run.is_finished()
    state = run.load()
    kept = [part["objective"] for part in state["ranks"]]
    assert len(kept) == 2 and all(kept) and state["ema"]["n_averaged"] > 0


def test_a_probe_that_learns_from_unlabelled_videos_needs_their_list_and_no_boxes(tiny_settings):
    changes = {"labeled_fraction": 0.4, "unlabeled_scene_p": 0.5}
    settings = tiny_settings(objective="linear_probe", epochs=1, self_training_rounds=2, **changes)
    assert settings.reads_unlabeled and not settings.is_semi_supervised
    (need,) = data_requirements([settings.model_copy(update={"unlabeled_split": "train_more"})])
    assert "train_more" in need.splits and not need.person_boxes
    (need,) = data_requirements(
        [settings.model_copy(update={"self_training_rounds": 0, "unlabeled_split": "x"})]
    )
    assert "x" not in need.splits
    data = load_data(settings)
    assert make_streams(settings, data)[1] is None
    assert len(data.epoch_rows) == len(data.labeled_rows) < len(data.unlabeled_rows)
    nowhere = settings.model_copy(update={"soft_targets": "nowhere.csv"})
    assert load_soft_targets(nowhere, data) is None
    start = settings.model_copy(update={"objective": "supervised", "head_init": "linear_probe"})
    assert start.reads_unlabeled


def test_pseudo_labels_of_a_self_trained_probe_may_be_asked_for(tiny_settings):
    run = fit(
        tiny_settings(
            objective="linear_probe", epochs=1, self_training_rounds=1, labeled_fraction=0.4
        )
    )
    data = load_data(run.settings())
    assert np.array_equal(unlabeled_rows(run, data), data.other_rows)


def test_cross_validation_keeps_sources_apart():
    generator = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 5)  # five equal videos of each source
    labels = np.repeat(generator.integers(0, 2, 40), 5)  # which nothing but the source tells
    features = np.repeat(generator.normal(size=(40, 60)), 5, axis=0)
    probe = partial(self_train, l2=0.01, rounds=0)
    none = np.zeros((0, 60)), groups[:0]
    apart = cross_validate(probe, features, labels, none[0], groups, none[1])
    mixed = cross_validate(probe, features, labels, none[0], np.arange(200), none[1])
    assert mixed.mean() == 1.0 and 0.25 < apart.mean() < 0.75
    told = 20.0 * labels[:, None] + features[:, :1]
    apart = cross_validate(probe, told, labels, told[:0], groups, none[1])
    assert apart.mean() == 1.0
    # A fold is left without unlabeled videos if all of them are of its source.
    self_trained = partial(self_train, l2=0.01, rounds=2)
    apart = cross_validate(self_trained, told, labels, told[:4], groups, groups[[0] * 4])
    assert apart.mean() == 1.0


def test_cross_validation_needs_two_sources_of_a_class():
    probe, features = partial(self_train, l2=0.01, rounds=0), np.eye(4)
    same = np.zeros(4, dtype=int)
    labels, none = np.array([0, 0, 1, 1]), features[:0]
    assert cross_validate(probe, features, labels, none, same, same[:0]) is None
