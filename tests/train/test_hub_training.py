"""Small networks of the hub through probe, fine-tuning, resume, two processes, and export."""

import shutil

import numpy as np
import pytest
import torch
from hub import write_network
from safetensors.numpy import load_file
from test_training import assert_same_weights, log_of, outcome, weights_of

from lib import TrainedModel, open_video, predict_video
from lib.config import EvaluateSettings
from lib.evaluate.choose_videos import pool_of_run
from lib.evaluate.export import main as export
from lib.evaluate.test import evaluate
from lib.models.networks import build_model
from lib.runs.run_dir import RunDir
from lib.train import run_model, video_features
from lib.train.fit import fit
from lib.train.run_data import load_data

pytest.importorskip("transformers")
PROBE = {"objective": "linear_probe", "epochs": 1, "labeled_fraction": 0.4}


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """Names of a VideoMAE and a V-JEPA 2 on disk."""
    folder = tmp_path_factory.mktemp("hub")
    names = {"videomae": {}, "vjepa2": {"num_hidden_layers": 2}}
    return {name: write_network(folder / name, name, **names[name]) for name in names}


@pytest.fixture
def hub_settings(tiny_settings, hub):
    """Make settings of a run that fine-tunes one of them."""

    def make(name: str = "videomae", **changes):
        options = {"model": hub[name], "pretrained": True, "test_crop_size": 16}
        options |= {"optimizer": "adamw", "layer_decay": 0.7, "drop_path": 0.3, "lr": 0.003}
        return tiny_settings(**options | changes)

    return make


@pytest.mark.slow
@pytest.mark.parametrize("name", ["videomae", "vjepa2"])
def test_a_network_of_the_hub_goes_all_the_way(hub_settings, at_forward, tmp_path, capsys, name):
    settings = hub_settings(name, ema_decay=0.9, head_init="linear_probe", self_training_rounds=2)
    whole = fit(settings.model_copy(update={"run_dir": str(tmp_path / "whole")}))
    at_forward(4, RunDir(settings.run_dir).stop_path.touch)
    assert not fit(settings).is_finished()
    run = fit(settings)
    assert log_of(run) == log_of(whole) and len(log_of(run)) == 3
    assert_same_weights(run, whole)

    scores = evaluate(EvaluateSettings(run_dir=settings.run_dir, num_processes=1))["val"].scores
    shutil.rmtree(RunDir(settings.run_dir).folder / "error", ignore_errors=True)
    gone = build_model(settings.model, 4).state_dict()  # the run needs none of it any more
    moved = settings.model.removeprefix("hf/")
    shutil.move(moved, moved + "_gone")
    try:
        model = TrainedModel.load(run, device="cpu")
        assert model.network.state_dict().keys() == gone.keys()
        record = load_data(settings).labeled.record(0)
        prediction = predict_video(model, open_video(record.path))
        assert prediction.video.sum() == pytest.approx(1.0, abs=1e-5) and scores.shape == (8, 4)
        if name == "videomae":  # that of the other takes half a minute
            assert export([str(run.folder), str(tmp_path / "out")]) == 0, capsys.readouterr().err
            assert (tmp_path / "out" / "model.onnx").stat().st_size > 10_000
    finally:
        shutil.move(moved + "_gone", moved)


def copy_prepared(prepared_dir, tmp_path):
    """Copy the prepared data without features that other tests have kept."""
    ignore = shutil.ignore_patterns("features")
    shutil.copytree(prepared_dir / "synthetic", tmp_path / "data" / "synthetic", ignore=ignore)
    return tmp_path / "data"


@pytest.mark.slow
def test_features_are_computed_once_for_all_draws_of_labels(
    hub_settings, prepared_dir, tmp_path, monkeypatch
):
    prepared = copy_prepared(prepared_dir, tmp_path)
    settings = hub_settings(**PROBE, self_training_rounds=2, prepared_dir=prepared)
    first = outcome(settings)
    (path,) = (prepared / "synthetic" / "features").iterdir()
    stored = load_file(path)
    assert sorted(stored["rows"]) == list(range(26)) and stored["features"].shape == (26, 24)

    computed, real = [], video_features.score_videos
    monkeypatch.setattr(
        video_features, "score_videos", lambda *a, **k: computed.append(a) or real(*a, **k)
    )
    draw = settings.model_copy(update={"labeled_seed": 1, "run_dir": str(tmp_path / "draw")})
    from_file = outcome(draw)
    assert computed == [] and from_file != first
    assert pool_of_run(RunDir(draw.run_dir)).features.shape == (18, 24) and computed == []
    path.unlink()
    again = draw.model_copy(update={"run_dir": str(tmp_path / "again")})
    assert outcome(again) == from_file and len(computed) == 3
    other = draw.model_copy(update={"run_dir": str(tmp_path / "other"), "frame_interval": 1})
    assert outcome(other) != from_file  # other clips are another file
    assert len(list(path.parent.iterdir())) == 2

    path.write_bytes(b"damaged")
    damaged = draw.model_copy(update={"run_dir": str(tmp_path / "damaged")})
    with pytest.raises(ValueError, match="features.*damaged.*delete that file"):
        fit(damaged)


def test_features_of_random_weights_are_not_kept(hub_settings, prepared_dir, tmp_path):
    prepared = copy_prepared(prepared_dir, tmp_path)
    fit(hub_settings(**PROBE, pretrained=False, prepared_dir=prepared))
    assert not (prepared / "synthetic" / "features").exists()


def test_a_probe_is_validated_by_its_features(hub_settings):
    settings = hub_settings(**PROBE)
    run, data = fit(settings), load_data(settings)
    model = TrainedModel.load(run, device="cpu")
    views = video_features.VideoViews(
        data.labeled, data.val_rows, video_features.val_protocol(settings)
    )
    crops = [model.normalize(settings_views(views, n)) for n in range(len(views))]
    labels = data.labeled.index["label"].to_numpy()[data.val_rows]
    with torch.no_grad():
        predicted = model.network(torch.cat(crops)).argmax(1).numpy()
    (entry,) = run.log_entries()
    assert entry["eval/top1_video"] == pytest.approx(100 * np.mean(predicted == labels))


def settings_views(views, number: int) -> torch.Tensor:
    return views.protocol.crops.views(*views[number])


@pytest.mark.slow
def test_two_processes_and_accumulation_agree_with_one(hub_settings, tmp_path):
    same = {"optimizer": "sgd", "drop_path": 0.0, "lr": 0.05, "unlabeled_scene_p": 0.0}
    same |= {"labeled_batch": 4, "unlabeled_batch": 4, "epochs": 1}
    one = fit(hub_settings(**same, run_dir=tmp_path / "one"))
    for name, changes in (("parts", {"micro_batch": 1}), ("two", {"num_processes": 2})):
        other = fit(hub_settings(**same, **changes, run_dir=tmp_path / name))
        for key, weight in weights_of(one).items():
            torch.testing.assert_close(weights_of(other)[key], weight, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "changes", [{"optimizer": "sgd"}, {"layer_decay": 0.5}, {"drop_path": 0.0}], ids=str
)
def test_a_setting_of_the_optimizer_has_an_effect(hub_settings, tmp_path, changes):
    settings = {"objective": "supervised", "epochs": 1}
    base = weights_of(fit(hub_settings(**settings, run_dir=tmp_path / "base")))
    changed = weights_of(fit(hub_settings(**settings | changes, run_dir=tmp_path / "changed")))
    assert any(not torch.equal(base[name], changed[name]) for name in base)


def test_checkpointed_gradients_are_the_same(hub_settings, tmp_path):
    settings = {"objective": "supervised", "epochs": 1}
    plain = fit(hub_settings(**settings, run_dir=tmp_path / "plain"))
    again = fit(hub_settings(**settings, run_dir=tmp_path / "again", gradient_checkpointing=True))
    assert_same_weights(plain, again)


def test_learning_rates_fall_with_the_depth_and_norms_do_not_decay(hub_settings):
    settings = hub_settings(layer_decay=0.5, weight_decay=0.1)
    model = run_model.build_run_model(settings, 4)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = run_model.make_optimizer(settings, model).param_groups
    rates = {names[id(p)]: group["lr_scale"] for group in groups for p in group["params"]}
    decays = {names[id(p)]: group["weight_decay"] for group in groups for p in group["params"]}
    assert rates.keys() == set(names.values())
    blocks = "backbone.network.encoder.layer"
    assert rates["head.weight"] == rates["backbone.network.layernorm.weight"] == 1
    assert [rates[f"{blocks}.{n}.output.dense.weight"] for n in range(4)] == [
        1 / 16, 1 / 8, 1 / 4, 1 / 2
    ]  # fmt: skip
    embedding = "backbone.network.embeddings.patch_embeddings.projection"
    assert rates[f"{embedding}.weight"] == 1 / 32
    assert decays[f"{embedding}.weight"] == 0.1 and decays[f"{embedding}.bias"] == 0
    assert decays["backbone.network.layernorm.weight"] == 0


def test_blocks_are_skipped_with_the_probability_of_their_depth(hub_settings):
    model = run_model.build_run_model(hub_settings(drop_path=0.6), 4)
    seen = {}
    for number, block in enumerate(model.backbone.network.encoder.layer):
        block.register_forward_hook(
            lambda block, args, output, n=number: seen.update({n: (args[0], output)})
        )
    clips = torch.randn(400, 3, 4, 16, 16)
    with torch.no_grad():
        model.train()(clips)
    skipped = [(x == y).flatten(1).all(1).float().mean().item() for x, y in seen.values()]
    assert skipped == pytest.approx([0, 0.2, 0.4, 0.6], abs=0.08) and skipped[0] == 0
    with torch.no_grad():
        model.eval()(clips[:2])
    assert not any((x == y).flatten(1).all(1).any() for x, y in seen.values())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"drop_path": 0.1}, "drop_path: r3d_small has no transformer blocks; set it to 0"),
        ({"layer_decay": 0.9}, "layer_decay: r3d_small has no transformer blocks; set it to 1"),
        ({"gradient_checkpointing": True}, "gradient_checkpointing: r3d_small has no such switch"),
    ],
)
def test_networks_without_blocks_refuse(tiny_settings, changes, words):
    with pytest.raises(ValueError, match=words):
        fit(tiny_settings(**changes))
