import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_teacher_scores

from lib.augment.scene import SCENE_AUGMENTATIONS
from lib.config import TrainSettings
from lib.data.clip_dataset import ClipBatch, ClipDataset
from lib.data.dataset import read_dataset, write_split
from lib.evaluate.run_results import read_log
from lib.prepare.steps import prepare_for
from lib.prepare.synthetic import ACTIONS
from lib.runs.distributed import DistContext
from lib.runs.progress import Meter
from lib.runs.run_dir import RunDir
from lib.train import run_model, trainer
from lib.train.fit import fit
from lib.train.objectives import (
    FixMatchObjective,
    ObjectiveOutput,
    SupervisedObjective,
    UDAObjective,
    make_objective,
)
from lib.train.run_data import Normalize, load_data, to_device
from lib.train.run_model import build_run_model
from lib.train.schedule import learning_rate, num_micro_batches, ramp_up

TIMES = ("seconds", "samples_per_s", "memory_mb")


def log_of(run: RunDir) -> list[dict]:
    """The log without what depends on the clock."""
    return [{k: v for k, v in entry.items() if k not in TIMES} for entry in run.log_entries()]


def weights_of(run: RunDir) -> dict[str, torch.Tensor]:
    return run.load()["model"]


def assert_same_weights(first: RunDir, second: RunDir) -> None:
    one, other = weights_of(first), weights_of(second)
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


def outcome(settings: TrainSettings) -> tuple[list[dict], bytes]:
    """All that a run comes to: its log and its last weights, with those that are tested."""
    run = fit(settings)
    tested = run_model.eval_state_dict(run.load())
    values = [v.numpy().tobytes() for v in (*weights_of(run).values(), *tested.values())]
    return log_of(run), b"".join(values)


# --- Learning -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("labeled_view", ["weak", "strong"])
def test_one_batch_can_be_overfitted(tiny_settings, prepared_dir, labeled_view):
    write_split(read_dataset(prepared_dir / "synthetic"), "six", [0, 1, 2, 3, 4, 5])
    settings = tiny_settings(
        objective="supervised",
        labeled_split="six",
        labeled_view=labeled_view,
        labeled_batch=6,
        crop_area_min=0.9,
        randaugment_ops=["identity"],
        temporal_ops=["none"],
        epochs=40,
        val_every_epochs=40,
        lr=0.1,
    )
    losses = read_log(fit(settings))["loss/total"]
    assert losses[0] > 1.2 and losses.tail(5).mean() < 0.5 * losses[0]


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"objective": "supervised"}, set()),
        ({"objective": "supervised", "labeled_view": "strong", "labeled_scene_p": 0.5}, set()),
        ({}, {"loss/unlabeled", "ssl/mask_rate", "ssl/pseudo_label_accuracy"}),
        (
            {"objective": "uda", "labeled_view": "strong", "labeled_scene_p": 0.5},
            {"loss/unlabeled", "ssl/mask_rate", "ssl/pseudo_label_accuracy"},
        ),
    ],
)
def test_every_mode_trains_and_logs(tiny_settings, changes, names):
    run = fit(tiny_settings(**changes))
    log = read_log(run)
    common = {"epoch", "step", "seconds", "lr", "loss/total", "loss/labeled", "train/top1_clip"}
    common |= {"grad_norm", "samples_per_s", "memory_mb"}
    common |= {f"eval/{name}_video" for name in ("top1", "top5", "mean_class_accuracy")}
    assert set(log.columns) == common | names
    assert log["epoch"].tolist() == [1, 2]
    assert np.isfinite(log[["loss/total", "loss/labeled", "grad_norm"]]).all(axis=None)
    assert run.checkpoint_path().is_file() and run.best_path.is_file()
    state = run.load()
    assert state["step"] == log["step"].iloc[-1]
    assert state["classes"] == list(
        read_dataset(Path(run.settings().prepared_dir) / "synthetic").classes
    )


def test_an_epoch_is_a_pass_over_the_unlabeled_list(tiny_settings):
    semi, supervised = (
        tiny_settings(unlabeled_batch=6, labeled_batch=2),
        tiny_settings(objective="supervised", labeled_batch=2, run_dir="outputs/x"),
    )
    world = DistContext(0, 1, torch.device("cpu"))
    assert trainer.Trainer(semi, world).steps_per_epoch == 18 // 6
    assert trainer.Trainer(supervised, world).steps_per_epoch == 18 // 2


# --- Schedules and parts --------------------------------------------------------------------------


def test_the_learning_rate_follows_a_cosine_in_steps_of_an_epoch():
    settings = TrainSettings(lr=0.2, epochs=10, warmup_epochs=0.0)
    rates = [learning_rate(step, 5, settings) for step in range(50)]
    expected = [0.1 * (1 + math.cos(math.pi * (step // 5) / 10)) for step in range(50)]
    assert rates == pytest.approx(expected)
    assert rates[0] == 0.2 and rates[25] == pytest.approx(0.1) and 0 < rates[-1] < 0.01


def test_at_a_restart_the_cosine_begins_anew():
    settings = TrainSettings(lr=0.2, epochs=10, warmup_epochs=0.0, lr_restart_epochs=[4, 6])
    rates = [learning_rate(step, 1, settings) for step in range(10)]
    halves = [1, 0.85355339, 0.5, 0.14644661, 1, 0.5, 1, 0.85355339, 0.5, 0.14644661]
    assert rates == pytest.approx([0.2 * share for share in halves])


def test_the_warm_up_is_linear_and_then_the_cosine_goes_on():
    settings = TrainSettings(lr=0.3, epochs=10, warmup_epochs=1.5)
    rates = [learning_rate(step, 4, settings) for step in range(40)]
    assert rates[:6] == pytest.approx([0.05, 0.1, 0.15, 0.2, 0.25, 0.3])
    without = TrainSettings(lr=0.3, epochs=10, warmup_epochs=0.0)
    assert rates[6:] == [learning_rate(step, 4, without) for step in range(6, 40)]
    within_a_step = TrainSettings(epochs=10, lr=0.1, warmup_epochs=0.1)
    assert learning_rate(0, 5, within_a_step) == 0.1  # of half a step; not twice the rate


def test_the_unlabeled_weight_ramps_up_linearly():
    weights = [ramp_up(2.0, step, 2 * 5) for step in range(13)]
    assert weights == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1, 1.2, 1.4, 1.6, 1.8, 2, 2, 2])
    assert ramp_up(2.0, 0, 0) == 2.0


def test_the_settings_name_the_objective():
    objective = make_objective(TrainSettings(objective="supervised", labeled_view="strong"))
    assert type(objective) is SupervisedObjective
    assert (objective.labeled_view, objective.labeled_scene_p) == ("strong", 0.0)
    values = {
        "labeled_view": "strong",
        "labeled_scene_p": 0.25,
        "unlabeled_scene_p": 0.75,
        "confidence_threshold": 0.6,
        "distillation_weight": 0.5,
        "soft_target_weight": 0.3,
        "temperature": 0.7,
    }
    settings = values | {"scene_augmentation": "mixup"}
    uda = make_objective(TrainSettings(objective="uda", **settings))
    assert type(uda) is UDAObjective and uda.scene is SCENE_AUGMENTATIONS["mixup"]
    assert {name: getattr(uda, name) for name in values} == values
    fixmatch = make_objective(TrainSettings(objective="fixmatch", **settings))
    assert type(fixmatch) is FixMatchObjective and fixmatch.unlabeled_scene_p == 0.75


def test_the_settings_name_the_network(tiny_settings):
    small = build_run_model(tiny_settings(dropout=0.3), 4)
    assert small.dropout.p == 0.3 and small.head.out_features == 4 and small.teacher_head is None
    with torch.device("meta"):
        large = build_run_model(tiny_settings(model="r3d_18", distillation_weight=1.0), 101)
    assert sum(p.numel() for p in large.parameters()) > 33e6
    assert large.teacher_head.out_features == 1000


@pytest.mark.parametrize(
    ("labeled", "unlabeled", "micro", "size", "expected"),
    [
        (40, 40, 0, 1, 1),  # no bound
        (40, 40, 0, 8, 1),
        (40, 40, 5, 1, 8),
        (40, 40, 5, 8, 1),
        (40, 40, 10, 2, 2),
        (40, 40, 7, 1, 8),  # 6 or 7 parts are not equal
        (8, 32, 8, 1, 4),  # the larger stream counts
        (8, 32, 5, 1, 8),
        (None, 128, 16, 8, 1),
    ],
)
def test_a_step_is_cut_into_the_fewest_equal_parts(labeled, unlabeled, micro, size, expected):
    if labeled is None:
        settings = TrainSettings(objective="supervised", labeled_batch=unlabeled, micro_batch=micro)
    else:
        settings = TrainSettings(
            labeled_batch=labeled, unlabeled_batch=unlabeled, micro_batch=micro
        )
    assert num_micro_batches(settings.batches, settings.micro_batch, size) == expected


@pytest.mark.parametrize(
    ("changes", "size", "message"),
    [
        ({"labeled_batch": 41}, 2, "labeled_batch: 41 clips cannot be divided equally among 2"),
        ({"unlabeled_batch": 41}, 2, "unlabeled_batch: 41 clips cannot be divided equally among 2"),
        (
            {"labeled_batch": 2, "unlabeled_batch": 40, "micro_batch": 5},
            1,
            "micro_batch: .* have no equal parts",
        ),
    ],
)
def test_a_step_that_cannot_be_shared_is_refused(changes, size, message):
    with pytest.raises(ValueError, match=message):
        settings = TrainSettings(**changes)
        num_micro_batches(settings.batches, settings.micro_batch, size)


def test_the_unlabeled_batch_does_not_matter_without_unlabeled_clips():
    settings = TrainSettings(objective="supervised", labeled_batch=40, unlabeled_batch=41)
    assert num_micro_batches(settings.batches, settings.micro_batch, 8) == 1


def test_clips_are_normalised_and_put_in_the_networks_order():
    clips = torch.randint(0, 256, (2, 4, 3, 5, 6), dtype=torch.uint8)
    mask = torch.randint(0, 2, (2, 4, 1, 5, 6), dtype=torch.uint8)
    batch = ClipBatch(
        weak=clips,
        strong=None,
        person_mask=mask,
        teacher=None,
        label=torch.tensor([2, -1]),
        row=torch.tensor([5, 6]),
    )
    tensors = to_device(batch, Normalize((10, 20, 30), (2, 4, 8)), 3)
    assert tensors.weak.shape == (2, 3, 4, 5, 6) and tensors.weak.dtype == torch.float32
    assert tensors.weak[1, 2, 3, 4, 5] == (clips[1, 3, 2, 4, 5].item() - 30) / 8
    assert tensors.strong is None and tensors.imagenet_targets is None
    assert torch.equal(tensors.person_mask, mask.transpose(1, 2).float())
    assert tensors.targets.tolist() == [[0, 0, 1], [0, 0, 0]]  # -1: not known


def test_means_over_steps_are_those_of_all_clips():
    meter, world = Meter(), DistContext(0, 1, torch.device("cpu"))
    assert meter.means(world) == {}
    for total, count in ((3, 4), (1, 1), (0, 0)):
        meter.update({"a": (torch.tensor(total), torch.tensor(count))})
    meter.update({"never": (torch.tensor(0.0), torch.tensor(0.0))})
    assert meter.means(world) == {"a": pytest.approx(4 / 5), "never": None}


# --- The same result, however the work is done ----------------------------------------------------

# Without batch norm, ActorCutMix and dropout, all of a step's clips count alike.
EQUAL = {
    "labeled_batch": 4,
    "unlabeled_batch": 4,
    "unlabeled_scene_p": 0.0,
    "labeled_view": "strong",
    "epochs": 2,
}


def test_the_log_has_the_means_of_each_epochs_own_steps(tiny_settings, monkeypatch):
    seen, real = [], trainer.Trainer.compute_loss

    def compute_loss(self, *arguments):
        output = real(self, *arguments)
        seen.append(float(output.loss.detach()))
        return output

    monkeypatch.setattr(trainer.Trainer, "compute_loss", compute_loss)
    log = read_log(fit(tiny_settings(epochs=3, val_every_epochs=2)))
    expected = np.reshape(seen, (3, 3)).mean(axis=1)  # 3 steps an epoch, of equal batches
    assert log["loss/total"].to_numpy() == pytest.approx(expected, rel=1e-5)
    assert len(set(expected)) == 3


def test_the_streams_of_one_list_have_orders_of_their_own(tiny_settings):
    settings = tiny_settings(labeled_batch=6, unlabeled_batch=6)
    data = load_data(settings)
    world = DistContext(0, 1, torch.device("cpu"))
    pairs = list(trainer.Trainer(settings, world).load_pairs(0, 3))
    orders = [[pair[stream].row.tolist() for pair in pairs] for stream in (0, 1)]
    assert sorted(sum(orders[0], [])) == sorted(sum(orders[1], [])) == sorted(data.labeled_rows)
    assert orders[0] != orders[1]


def assert_agree(run: RunDir, other: RunDir) -> None:
    """Two runs learned the same, up to the order of sums."""
    torch.manual_seed(run.settings().seed)
    start = run_model.build_run_model(run.settings(), 4).state_dict()
    for name, weight in weights_of(run).items():
        assert (weight - start[name]).abs().max() > 1e-3  # it did learn
        torch.testing.assert_close(weights_of(other)[name], weight, rtol=1e-4, atol=1e-6)
    for entry, other_entry in zip(log_of(run), log_of(other), strict=True):
        assert other_entry == pytest.approx(entry, rel=1e-4, abs=1e-5)
    assert read_log(run)["ssl/mask_rate"].max() > 0  # the unlabelled loss took part


@pytest.mark.slow
def test_one_process_two_processes_and_accumulation_agree(tiny_settings, tiny_network, tmp_path):
    one = fit(tiny_settings(**EQUAL, run_dir=tmp_path / "one"))
    assert_agree(one, fit(tiny_settings(**EQUAL, run_dir=tmp_path / "parts", micro_batch=1)))

    two = tiny_settings(**EQUAL, run_dir=tmp_path / "two", micro_batch=1, num_processes=2)
    assert_agree(one, fit(two))


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"frame_cache_mb": 0},
        {"num_workers": 1},
        {"device": "auto"},
    ],
    ids=str,
)
def test_what_must_not_matter_does_not(tiny_settings, tmp_path, changes):
    if changes == {"device": "auto"} and torch.cuda.is_available():
        pytest.skip("auto takes the GPU here")
    expected = outcome(tiny_settings(run_dir=tmp_path / "a"))
    assert outcome(tiny_settings(run_dir=tmp_path / "b", **changes)) == expected


def test_a_run_gives_the_same_every_time(tiny_settings, tmp_path):
    settings = {"dropout": 0.5, "labeled_view": "strong", "labeled_scene_p": 0.5}
    first = outcome(tiny_settings(run_dir=tmp_path / "a", **settings))
    torch.manual_seed(99)  # whatever went before in the notebook
    np.random.seed(99)  # noqa: NPY002
    assert outcome(tiny_settings(run_dir=tmp_path / "b", **settings)) == first


# --- Every setting matters ------------------------------------------------------------------------

BASE = {
    "labeled_view": "strong",
    "labeled_scene_p": 0.5,
    "labeled_fraction": 0.7,
    "dropout": 0.2,
    "epochs": 1,
}
SUPERVISED = {"objective": "supervised"}
BATCH_NORM = "timm/test_resnet"  # 0.4 M parameters
MATTERS = [
    {"clip_len": 6},
    {"frame_interval": 3},
    {"short_side": 24},
    {"crop_size": 20},
    {"crop_area_min": 0.5},
    {"randaugment_num_ops": 1},
    {"randaugment_magnitude": 20.0},
    {"randaugment_ops": ["geometric"]},
    {"temporal_ops": ["reverse"]},
    {"scene_augmentation": "mixup"},
    {"person_min_score": 1.0},
    {"seed": 1},
    {"labeled_split": "val_swapped"},
    {"labeled_fraction": 0.4},
    {"labeled_seed": 1},
    {"unlabeled_split": "val_swapped"},
    {"val_split": "val_swapped"},
    {"objective": "uda"},
    {"objective": "supervised"},
    {"labeled_view": "weak"},
    {"labeled_scene_p": 1.0},
    {"unlabeled_scene_p": 1.0},
    {"confidence_threshold": 0.9},
    {"temperature": 0.5, "objective": "uda"},
    {"unlabeled_weight": 2.0},
    {"unlabeled_rampup_epochs": 1.5, "epochs": 2},
    {"dropout": 0.5},
    {"epochs": 2},
    {"labeled_batch": 2},
    {"unlabeled_batch": 9},
    {"micro_batch": 3},  # partners are within a micro-batch
    {"lr": 0.1},
    {"warmup_epochs": 1.0},
    {"momentum": 0.5},
    {"weight_decay": 0.01},
    {"optimizer": "adamw"},
    {"grad_clip": 0.01},
    {"val_every_epochs": 2, "epochs": 2},
    {"objective": "freematch", "confidence_threshold": 0.4},
    {"threshold_momentum": 0.5, "objective": "freematch"},
    {"ema_decay": 0.9},
    {"ema_teacher": True, "ema_decay": 0.9, "epochs": 2},
    {"joint_forward": False, "model": BATCH_NORM},
    {"init_noise": 0.01},
    {"freeze_fraction": 0.5},
    {"freeze_batch_norm": True, "model": BATCH_NORM},
    {"head_init": "linear_probe"},
    {"probe_l2": 1.0, "head_init": "linear_probe"},
    {"self_training_rounds": 2, "head_init": "linear_probe"},
    {"temporal_std_pooling": True, "model": BATCH_NORM},
]
# Tested elsewhere: what a field does, that it must not matter, or that it is refused.
ELSEWHERE = {
    "dataset": "test_labels_of_one_data_set_and_clips_of_another",
    "videos_dir": "test_prepare.py",
    "prepared_dir": "every run here",
    "frame_cache_mb": "test_what_must_not_matter_does_not",
    "flip": "test_clip_dataset.py",
    "run_dir": "every run here",
    "unlabeled_dataset": "test_labels_of_one_data_set_and_clips_of_another",
    "unlabeled_videos_dir": "test_labels_of_one_data_set_and_clips_of_another",
    "distillation_weight": "test_the_teachers_scores_are_distilled",
    "model": "test_the_settings_name_the_network",
    "pretrained": "test_weights_that_cannot_be_had_are_refused",
    "weights": "test_weights_that_cannot_be_had_are_refused",
    "soft_targets": "test_thresholds.py",
    "soft_target_weight": "test_thresholds.py",
    "layer_decay": "test_hub_training.py",
    "drop_path": "test_hub_training.py",
    "gradient_checkpointing": "test_hub_training.py",
    "test_splits": "test_evaluation.py",
    "test_num_clips": "test_evaluation.py",
    "test_num_crops": "test_evaluation.py",
    "test_crop_size": "test_evaluation.py",
    "test_average": "test_evaluation.py",
    "test_checkpoint": "test_evaluation.py",
    "device": "test_what_must_not_matter_does_not",
    "precision": "test_precision",
    "tf32": "test_devices.py",
    "cudnn_benchmark": "test_devices.py",
    "channels_last": "test_devices.py",
    "tracker": "test_tracker.py",
    "checkpoint_every_minutes": "test_checkpoints.py",
    "lr_restart_epochs": "test_runs.py",
    "num_processes": "test_one_process_two_processes_and_accumulation_agree",
    "num_workers": "test_what_must_not_matter_does_not",
}


def test_no_setting_is_forgotten():
    changed = {next(iter(changes)) for changes in MATTERS}
    assert changed | set(ELSEWHERE) == set(TrainSettings.model_fields)


@pytest.fixture(scope="module")
def base_outcomes():
    return {}


@pytest.mark.slow
@pytest.mark.parametrize("changes", MATTERS, ids=str)
def test_a_setting_has_an_effect(tiny_settings, tmp_path, base_outcomes, decoded_once, changes):
    name, new = next(iter(changes.items()))
    base = BASE | {key: value for key, value in changes.items() if key != name}
    key = json.dumps(base)
    if key not in base_outcomes:
        base_outcomes[key] = outcome(tiny_settings(run_dir=tmp_path / "base", **base))
    settings = tiny_settings(run_dir=tmp_path / "changed", **base | {name: new})
    assert outcome(settings) != base_outcomes[key]


def test_validation_holds_no_more_clips_than_a_micro_batch(tiny_settings, monkeypatch):
    real, sizes = run_model.build_run_model, []

    def build(settings, num_classes):
        model = real(settings, num_classes)
        model.register_forward_hook(
            lambda module, args, output: None if module.training else sizes.append(len(args[0]))
        )
        return model

    monkeypatch.setattr(run_model, "build_run_model", build)
    changes = {"objective": "supervised", "epochs": 1, "micro_batch": 2}
    fit(tiny_settings(labeled_batch=8, **changes))
    assert sum(sizes) == 8 and max(sizes) == 2


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_precision(tiny_settings, tmp_path, precision):
    """Half precision needs a GPU: on a CPU, PyTorch's own bf16 convolutions can crash."""
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match=f"precision: '{precision}' needs a GPU"):
            fit(tiny_settings(precision=precision))
        return
    expected = outcome(tiny_settings(device="cuda", run_dir=tmp_path / "fp32"))
    settings = tiny_settings(device="cuda", run_dir=tmp_path / "half", precision=precision)
    assert outcome(settings) != expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": "gone.pth"}, "gone.pth does not exist"),
        ({"pretrained": True}, "no published weights"),
        ({"model": "r3d_smal"}, "did you mean 'r3d_small'"),
    ],
)
def test_weights_that_cannot_be_had_are_refused(tiny_settings, changes, message):
    with pytest.raises((ValueError, OSError), match=message):
        fit(tiny_settings(**changes))


# --- Data -----------------------------------------------------------------------------------------


def test_a_folder_that_cannot_be_written_is_refused(tiny_settings, tmp_path):
    (tmp_path / "file").write_text("in the way")
    settings = tiny_settings(run_dir=tmp_path / "file" / "run")
    with pytest.raises(ValueError, match="run_dir: nothing can be written to .*choose another"):
        fit(settings)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"val_split": "train"}, "splits 'train' and 'train'"),
        ({"unlabeled_split": "val"}, "splits 'val' and 'val'"),
        ({"labeled_split": "val", "unlabeled_split": "train"}, "splits 'val' and 'val'"),
    ],
)
def test_lists_that_overlap_with_validation_are_refused(tiny_settings, changes, names):
    with pytest.raises(ValueError, match=f"{names}.*share.*the first is .*choose disjoint"):
        fit(tiny_settings(**changes))


def test_a_labeled_fraction_is_drawn_from_every_class(tiny_settings):
    settings = tiny_settings(labeled_fraction=0.34)
    data = load_data(settings)
    labels = data.labeled.index["label"].to_numpy()[data.labeled_rows]
    assert np.bincount(labels).tolist() == [2, 2, 1, 1]
    assert len(data.unlabeled_rows) == 18 and len(data.epoch_rows) == 18
    assert load_data(tiny_settings(objective="supervised")).unlabeled is None


@pytest.mark.slow
def test_both_streams_are_reshuffled_in_every_pass(tiny_settings, tmp_path, monkeypatch):
    """PAPER.md, difference 2: the reference never reshuffles its labelled clips."""
    seen = {}
    real = ClipDataset.__getitem__

    def recorded(self, key):
        seen.setdefault(self.seed_key, {})[key[0]] = key[1]
        return real(self, key)

    monkeypatch.setattr(ClipDataset, "__getitem__", recorded)
    orders = []
    for seed in (0, 1):
        seen.clear()
        settings = tiny_settings(
            seed=seed, labeled_batch=6, labeled_fraction=0.34, run_dir=tmp_path / str(seed)
        )
        fit(settings)
        data = load_data(settings)
        labeled, unlabeled = (
            [rows[position] for position in sorted(rows)] for _, rows in sorted(seen.items())
        )
        for stream, rows, passes in (
            (labeled, data.labeled_rows, 6),
            (unlabeled, data.unlabeled_rows, 2),
        ):
            assert len(stream) == passes * len(rows)
            parts = [stream[i : i + len(rows)] for i in range(0, len(stream), len(rows))]
            assert all(sorted(part) == sorted(rows) for part in parts)
            assert len(set(map(tuple, parts))) > passes // 2  # of 720 orders, two may be alike
            orders.append(parts[0])
    assert orders[0] != orders[2] and orders[1] != orders[3]  # and of the seed's


def test_a_class_without_a_label_is_a_warning(tiny_settings, prepared_dir):
    write_split(read_dataset(prepared_dir / "synthetic"), "two", [0, 2])
    missing = [name for number, name in enumerate(ACTIONS) if number not in (0, 2)]
    expected = "split 'two'.*" + re.escape(f"no labeled video of {missing}")
    with pytest.warns(UserWarning, match=expected):
        load_data(tiny_settings(labeled_split="two"))


def test_the_teachers_scores_are_distilled(tiny_settings, prepared_dir, tmp_path):
    with pytest.raises(ValueError, match="no ImageNet scores.*set distillation_weight to 0"):
        fit(tiny_settings(distillation_weight=1.0))
    folder = shutil.copytree(prepared_dir / "synthetic", tmp_path / "data" / "synthetic")
    write_teacher_scores(read_dataset(folder))
    settings = {"prepared_dir": folder.parent, "lr": 0.2, "objective": "uda"}
    runs = {
        weight: fit(
            tiny_settings(**settings, distillation_weight=weight, run_dir=tmp_path / str(weight))
        )
        for weight in (0.5, 2.0)
    }
    losses = read_log(runs[2.0])["loss/distillation"]
    assert losses.iloc[0] == pytest.approx(math.log(1000), abs=1)  # of a fresh head
    assert losses.iloc[-1] < losses.iloc[0]
    total, *parts = (
        read_log(runs[2.0])[f"loss/{name}"]
        for name in ("total", "labeled", "unlabeled", "distillation")
    )
    np.testing.assert_allclose(total, parts[0] + parts[1] + 2 * parts[2], rtol=1e-4)
    names = ["loss/labeled", "loss/total"]
    first, second = (read_log(runs[weight])[names].iloc[-1].tolist() for weight in runs)
    assert first != second


@pytest.mark.slow
def test_labels_of_one_data_set_and_clips_of_another(tiny_settings, prepared_dir, tmp_path):
    """The other one has a class more, whose labels mean nothing to the network."""
    videos = prepared_dir / "synthetic" / "videos"
    for number, action in enumerate(sorted(path.name for path in videos.iterdir())):
        for video in sorted((videos / action).iterdir())[:2]:
            for name in (action, "zz") if number == 0 else (action,):
                target = tmp_path / "clips" / name / video.name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(video, target)
    settings = tiny_settings(
        unlabeled_dataset="folder",
        unlabeled_videos_dir=str(tmp_path / "clips"),
        unlabeled_batch=2,
        unlabeled_scene_p=0.0,  # nobody has looked for people in these clips
        labeled_view="strong",
        labeled_scene_p=0.5,
    )
    with pytest.raises(ValueError, match="python -m lib.prepare --dataset folder --videos_dir"):
        load_data(settings)
    prepare_for(settings)
    with pytest.raises(
        ValueError, match="self_training_rounds: unlabeled_dataset has other classes"
    ):
        load_data(
            settings.model_copy(update={"head_init": "linear_probe", "self_training_rounds": 1})
        )
    data = load_data(settings)
    assert data.unlabeled.classes == (*data.labeled.classes, "zz")
    assert len(data.unlabeled_rows) == 5  # one of the two videos of each class is in its `val`
    log = read_log(fit(settings))
    assert log["step"].tolist() == [2, 4]
    assert log["ssl/mask_rate"].max() > 0
    assert log["ssl/pseudo_label_accuracy"].isna().all()  # classes of another data set


def test_every_part_of_a_step_has_a_scene_augmentation_drawn_for_it(tiny_settings):
    device, seeds = torch.device("cpu"), []
    made = trainer.Trainer(tiny_settings(), DistContext(0, 1, device))

    def objective(network, labeled, unlabeled, generator, teacher, weight) -> ObjectiveOutput:
        seeds.append(generator.initial_seed())
        return ObjectiveOutput(torch.zeros((), requires_grad=True), {})

    pair = next(made.load_pairs(0, 1))
    made.num_micro, made.state.objective = 2, objective
    for made.state.step in (0, 1):
        for rank in (0, 1):
            made.world = DistContext(rank, 2, device)
            for number in (0, 1):
                made.compute_loss(pair, number, 1.0)
    assert len(set(seeds)) == 8
