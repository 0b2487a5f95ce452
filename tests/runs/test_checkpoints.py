"""Nothing trained is lost: what is saved when, and what happens to a file that is damaged."""

import itertools
import os
import shutil

import pytest
import torch
from conftest import make_tiny_settings
from test_runs import RICH, PowerCut, uninterrupted  # noqa: F401 (a fixture)
from test_training import assert_same_weights, log_of

from lib.config import PROJECT_ROOT, EvaluateSettings
from lib.evaluate.test import evaluate
from lib.runs import checkpoint
from lib.runs.checkpoint import previous_path
from lib.runs.distributed import DistContext
from lib.runs.run_dir import LATER_SETTINGS, RunDir
from lib.train import setup, trainer
from lib.train.fit import fit
from lib.train.meter import Meter
from lib.train.non_finite import MicroStep, are_finite, describe
from lib.train.sgd import SGD

# ruff: noqa: F811 (a fixture that is imported)
GOLDEN = PROJECT_ROOT / "tests" / "golden"
HERE = torch.device("cpu")


def cut_power():
    raise PowerCut


def fail():
    raise OSError("a disk that fails")


def assert_as_if_nothing_had_been(run: RunDir, expected: RunDir) -> None:
    assert run.is_finished()
    assert_same_weights(run, expected)
    assert log_of(run) == log_of(expected)


# --- When -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [3, 5, 6, 14])  # within an epoch, at its end, after it
def test_what_is_saved_by_time_is_not_lost(tiny_settings, uninterrupted, at_forward, number):
    settings = tiny_settings(**RICH, checkpoint_every_minutes=1e-9)
    run = RunDir(settings.run_dir)
    at_forward(number, cut_power)
    with pytest.raises(PowerCut):
        fit(settings)
    assert run.load(run.last_path)["step"] == number
    fit(settings)
    assert_as_if_nothing_had_been(run, uninterrupted)


def test_a_stop_at_the_end_of_an_epoch_saves_once(tiny_settings, at_forward):
    """So that the checkpoint before it is one of before."""
    settings = tiny_settings(**RICH | {"val_every_epochs": 1})
    run = RunDir(settings.run_dir)
    at_forward(11, run.ask_to_stop)
    fit(settings)
    assert run.load(run.last_path)["step"] == 12
    assert run.load(previous_path(run.last_path))["step"] == 6


def test_the_time_before_a_stop_counts(tiny_settings, at_forward, monkeypatch):
    settings = tiny_settings(**RICH)
    run = RunDir(settings.run_dir)
    monkeypatch.setattr(trainer, "STOP_CHECK_STEPS", 1)
    at_forward(8, run.ask_to_stop)  # in the second epoch
    fit(settings)
    state = run.load(run.last_path)
    state["seconds"], state["ranks"][0]["meter"]["seconds"] = 1000.0, 500.0
    run.save(run.last_path, state)
    entries = fit(settings).log_entries()
    assert 1500 < entries[1]["seconds"] < entries[2]["seconds"] < 1600
    assert entries[1]["samples_per_s"] < 1 < entries[2]["samples_per_s"]


def test_nothing_is_saved_by_time_before_it_is_due(tiny_settings, at_forward):
    settings = tiny_settings(**RICH, checkpoint_every_minutes=60)
    at_forward(3, cut_power)
    with pytest.raises(PowerCut):
        fit(settings)
    assert not RunDir(settings.run_dir).last_path.exists()


@pytest.mark.parametrize("number", [1, 8, 17])
def test_after_an_error_the_run_goes_on_from_the_step_before(
    tiny_settings, uninterrupted, at_forward, number
):
    """The failed step had drawn, and batch norm had seen its clips."""
    settings = tiny_settings(**RICH)
    run = RunDir(settings.run_dir)
    at_forward(number, fail)
    with pytest.raises(OSError, match="a disk that fails"):
        fit(settings)
    assert run.load(run.last_path)["step"] == number
    assert "a disk that fails" in run.error_path.read_text()
    fit(settings)
    assert_as_if_nothing_had_been(run, uninterrupted)


@pytest.mark.parametrize("place", ["save_before_the_error", "own_state"])
def test_a_second_error_on_the_way_to_the_checkpoint_costs_nothing(
    tiny_settings, uninterrupted, at_forward, monkeypatch, place
):
    """A loader that died is reported by the system too, whatever is done just then."""
    settings = tiny_settings(**RICH)
    run, real, calls = RunDir(settings.run_dir), getattr(trainer.resume, place), itertools.count()

    def reported(*arguments):
        if next(calls) == 0:
            raise RuntimeError("a loader died")
        return real(*arguments)

    at_forward(8, fail)
    with monkeypatch.context() as patch:
        patch.setattr(trainer.resume, place, reported)
        with pytest.raises(OSError, match="a disk that fails"):
            fit(settings)
    assert next(calls) == 2 and run.load(run.last_path)["step"] == 8
    fit(settings)
    assert_as_if_nothing_had_been(run, uninterrupted)


def test_weights_that_a_failed_step_has_changed_are_not_saved(tiny_settings, monkeypatch):
    settings = tiny_settings(**RICH | {"val_every_epochs": 1})
    run, real, more = RunDir(settings.run_dir), SGD.step, itertools.count()

    def step(self, *arguments, **options):
        real(self, *arguments, **options)
        if run.last_path.exists() and next(more) == 1:
            fail()

    monkeypatch.setattr(SGD, "step", step)
    with pytest.raises(OSError):
        fit(settings)
    assert run.load(run.last_path)["step"] == 6


@pytest.mark.parametrize("epoch", [2, 3])
def test_after_an_error_in_validation_the_epoch_is_ended(
    tiny_settings, uninterrupted, monkeypatch, epoch
):
    settings = tiny_settings(**RICH)
    run, real = RunDir(settings.run_dir), trainer.Trainer.validate

    def validate(self):
        if self.epoch == epoch - 1:
            fail()
        return real(self)

    monkeypatch.setattr(trainer.Trainer, "validate", validate)
    with pytest.raises(OSError):
        fit(settings)
    assert run.saved() == (6 * epoch, epoch - 1) and not run.is_finished()
    monkeypatch.setattr(trainer.Trainer, "validate", real)
    fit(settings)
    assert_as_if_nothing_had_been(run, uninterrupted)


def test_sums_of_two_processes_are_counted_once_by_any_number_of_others():
    """A run of two processes that stopped within an epoch goes on with one, or with three."""
    states = []
    for value in (1.0, 5.0):
        meter = Meter()
        meter.update({"loss": (torch.tensor(value), torch.tensor(2.0))})
        meter.clips = 20
        states.append(meter.state_dict())
    alone = Meter()
    alone.load(states, HERE, is_counted=True)
    alone.update({"loss": (torch.tensor(3.0), torch.tensor(2.0))})
    assert alone.means(DistContext(0, 1, HERE)) == {"loss": 9 / 6} and alone.clips == 20
    other = Meter()
    other.load(states, HERE, is_counted=False)
    assert other.means(DistContext(0, 1, HERE)) == {"loss": None}


# --- Numbers that are no numbers ------------------------------------------------------------------


def test_the_first_loss_that_is_no_number_ends_the_run_and_is_named(
    tiny_settings, at_forward, monkeypatch
):
    settings = tiny_settings(**RICH)
    run, real = RunDir(settings.run_dir), setup.to_device

    def to_device(batch, *others):
        found = real(batch, *others)
        return found._replace(strong=found.strong * float("nan")) if is_bad else found

    is_bad = []
    monkeypatch.setattr(setup, "to_tensors", to_device)
    at_forward(13, lambda: is_bad.append(True))
    with pytest.raises(FloatingPointError) as error:
        fit(settings)
    said = str(error.value)
    assert said.startswith("step 15: the loss is no number; videos of it: ")
    assert said.count("_") >= 7 and f"stays: {run.last_path}, step 12; a lower lr" in said
    state = run.load(run.last_path)
    assert state["step"] == 12 and all(v.isfinite().all() for v in state["model"].values())
    assert [entry["epoch"] for entry in run.log_entries()] == [1, 2]


@pytest.mark.parametrize("is_gradient_finite", [True, False])
def test_the_videos_of_the_bad_part_of_a_step_are_named(coded, is_gradient_finite):
    parts = [
        MicroStep(torch.tensor(loss), {}, ([row], [row + 1]))
        for loss, row in ((1.0, 0), (float("nan"), 1), (2.0, 2))
    ]
    norm = torch.tensor(1.0 if is_gradient_finite else float("inf"))
    assert are_finite(norm, parts) == (is_gradient_finite, False)
    assert are_finite(torch.tensor(1.0), parts[:1]) == (True, True)
    world = DistContext(0, 1, HERE)
    said = describe(is_gradient_finite, False, parts, (coded, coded), world)
    assert said == "the loss is no number; videos of it: class1/v1, class0/v2"
    said = describe(False, True, parts[::2], (coded, coded), world)
    assert said.startswith("the gradient is no number; videos of it: class0/v0, class1/v1, class0/")


def test_a_learning_rate_that_is_too_high_ends_the_run(tiny_settings):
    settings = tiny_settings(lr=1e6, epochs=8)
    with pytest.raises(FloatingPointError, match="is no number"):
        fit(settings)
    run = RunDir(settings.run_dir)
    assert not run.is_finished() and "FloatingPointError" in run.error_path.read_text()
    for path in (run.last_path, run.best_path):
        if path.exists():
            assert all(v.isfinite().all() for v in run.load(path)["model"].values())


def test_the_scaler_of_fp16_leaves_steps_out_until_it_cannot_go_lower(tiny_settings, monkeypatch):
    """With a scaler on a CPU, where no run of ours has one: 4, 2, 1, and then below its least."""
    settings = tiny_settings(epochs=9)
    made = trainer.Trainer(settings, DistContext(0, 1, HERE))
    made.scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    batches = trainer.paired_batches(settings, made.data, made.clips, made.world, 0, 9, print)
    made._train_step(batches)
    norm = made.meter.means(made.world)["grad_norm"]
    weights = {name: value.clone() for name, value in made.model.state_dict().items()}
    real = setup.to_device

    def infinite(batch, *others):
        found = real(batch, *others)
        return found._replace(weak=found.weak * float("inf"))

    monkeypatch.setattr(setup, "to_tensors", infinite)
    for scale in (2.0, 1.0, 0.5):
        made._train_step(batches)
        assert made.scaler.get_scale() == scale
        kept = made.model.state_dict()  # with what batch norm remembers
        assert all(value.equal(kept[name]) for name, value in weights.items())
    with pytest.raises(FloatingPointError, match="step 5: the loss is no number"):
        made._train_step(batches)
    assert made.meter.means(made.world)["grad_norm"] == norm  # of the one step that was made


# --- Damaged files --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stopped(prepared_dir, tmp_path_factory) -> RunDir:
    """A run of 3 epochs that was stopped after the second checkpoint."""
    changes = RICH | {"val_every_epochs": 1}
    run = RunDir(tmp_path_factory.mktemp("stopped") / "run")
    settings = make_tiny_settings(prepared_dir, run.folder, **changes)
    real = RunDir.save

    def save(self, path, state):
        real(self, path, state)
        if state["step"] == 12 and path == run.last_path:
            raise PowerCut

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunDir, "save", save)
        with pytest.raises(PowerCut):
            fit(settings)
    assert run.saved() == (12, 2)
    assert run.load(previous_path(run.last_path))["step"] == 6
    return run


def flip(path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


DAMAGES = {
    "a bit": flip,
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-1000]),
    "empty": lambda path: path.write_bytes(b""),
    "gone": lambda path: path.unlink(),
}


@pytest.fixture
def damaged(stopped, tmp_path) -> RunDir:
    """A copy of it, to be damaged."""
    shutil.copytree(stopped.folder, tmp_path / "run")
    return RunDir(tmp_path / "run")


def settings_of(run: RunDir):
    return run.settings().model_copy(update={"run_dir": str(run.folder)})


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_checkpoint_before_takes_the_place_of_a_damaged_one(damaged, stopped, capsys, damage):
    DAMAGES[damage](damaged.last_path)
    fit(settings_of(damaged))
    assert "going on from the checkpoint before it, of step 6" in capsys.readouterr().out
    elsewhere = damaged.folder.parent / "whole"
    shutil.copytree(stopped.folder, elsewhere)
    assert_as_if_nothing_had_been(damaged, fit(settings_of(RunDir(elsewhere))))


@pytest.mark.parametrize("damage", ["a bit", "truncated", "empty"])
def test_a_damaged_checkpoint_alone_is_refused_with_a_way_on(damaged, damage):
    previous_path(damaged.last_path).unlink()
    DAMAGES[damage](damaged.last_path)
    with pytest.raises(ValueError, match=r"last\.pt: cannot be read .*delete the file to start"):
        fit(settings_of(damaged))
    with pytest.raises(ValueError, match=r"last\.pt: cannot be read as a checkpoint \(.+\)"):
        damaged.load(damaged.last_path)


def test_of_the_last_checkpoint_alone_the_one_before_is_kept(tmp_path):
    run = RunDir(tmp_path)
    for step in (1, 2, 3):
        for path in (run.last_path, run.best_path):
            run.save(path, {"model": {}, "step": step, "epoch": 0})
    assert {path.name for path in tmp_path.iterdir()} == {"last.pt", "last.previous.pt", "best.pt"}
    assert run.load(previous_path(run.last_path))["step"] == 2


def test_a_checkpoint_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    run, seen, real = RunDir(tmp_path), [], os.fsync

    def fsync(handle):
        seen.append((os.path.isdir(f"/dev/fd/{handle}"), run.last_path.exists()))
        real(handle)

    monkeypatch.setattr(checkpoint.os, "fsync", fsync)
    run.save(run.last_path, {"model": {}, "step": 1, "epoch": 0})
    assert seen == [(False, False), (True, True)]  # the file, and then the folder with its name


def test_what_killed_processes_left_is_removed_at_the_next_start(damaged):
    left = [damaged.folder / name for name in (".last.abc.pt", ".best.x_1.pt")]
    for path in left:
        path.write_bytes(b"half")
    damaged.open(settings_of(damaged))
    assert not any(path.exists() for path in left) and damaged.last_path.exists()


# --- Settings -------------------------------------------------------------------------------------


def test_without_its_settings_a_checkpoint_says_what_it_was_trained_with(damaged):
    settings = settings_of(damaged)
    damaged.params_path.unlink()
    other = settings.model_copy(update={"seed": 3, "lr": 0.5})
    with pytest.raises(ValueError, match=r"(?s)other settings.*seed: 0 there, 3 here.*lr: 0.05"):
        fit(other)
    assert not damaged.params_path.exists()
    damaged.open(settings)
    state = damaged.load(damaged.last_path)
    del state["settings"]  # as checkpoints were before
    damaged.save(damaged.last_path, state)
    damaged.open(settings)
    damaged.params_path.unlink()
    with pytest.raises(ValueError, match="checkpoint of unknown settings"):
        damaged.open(settings)


def test_settings_with_lines_missing_are_refused_by_name(damaged):
    lines = damaged.params_path.read_text().splitlines(keepends=True)
    kept = [line for line in lines if not line.startswith(("test_num_c", "lr:", "num_workers"))]
    damaged.params_path.write_text("".join(kept))
    message = "no line for lr, test_num_clips, test_num_crops; put back"
    with pytest.raises(ValueError, match=message):
        damaged.settings()
    with pytest.raises(ValueError, match=message):
        evaluate(EvaluateSettings(run_dir=str(damaged.folder)))
    later = ("tsm_fraction", "checkpoint_every_minutes", "num_workers")  # of runs before them
    damaged.params_path.write_text("".join(line for line in lines if not line.startswith(later)))
    assert damaged.settings().tsm_fraction == 0


def test_a_run_of_the_first_version_still_opens(tmp_path):
    """If this fails, `LATER_SETTINGS` lacks a new setting, or `RENAMED_SETTINGS` an old name."""
    shutil.copy(GOLDEN / "params_of_the_first_version.yaml", tmp_path / "params.yaml")
    settings = RunDir(tmp_path).settings()
    assert (settings.epochs, settings.person_min_score) == (22, 0.4)
    was = {
        "threshold_momentum": 0.999,
        "soft_target_weight": 0.5,
        "probe_l2": 0.01,
        "head_init": "random",
    }
    was |= {"soft_targets": None, "tf32": True, "lr_restart_epochs": [], "joint_forward": True}
    off = {"ema_decay", "ema_teacher", "tsm_fraction", "temporal_std_pooling", "freeze_fraction"}
    was |= dict.fromkeys(off | {"freeze_batch_norm", "self_training_rounds"}, 0)
    assert {name: getattr(settings, name) for name in LATER_SETTINGS} == was


def test_two_test_lists_of_one_name_are_refused(tiny_settings, tmp_path):
    (tmp_path / "val.txt").write_text("")
    with pytest.raises(ValueError, match="test_splits: .* have one name twice"):
        fit(tiny_settings(test_splits=["val", str(tmp_path / "val.txt")]))
