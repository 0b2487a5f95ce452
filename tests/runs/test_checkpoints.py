"""Nothing trained is lost: what is saved when, and what happens to a file that is damaged."""

import os
import shutil
from pathlib import Path

import pytest
import torch
from conftest import make_tiny_settings
from test_runs import RICH, PowerCut, cut_power, uninterrupted  # noqa: F401 (a fixture)
from test_training import assert_same_weights, log_of

from lib.config import TrainSettings
from lib.runs import checkpoint
from lib.runs.checkpoint import list_checkpoints, read_checkpoint, read_progress
from lib.runs.distributed import DistContext
from lib.runs.progress import Meter
from lib.runs.run_dir import RunDir, read_status
from lib.train import trainer
from lib.train.fit import fit

# ruff: noqa: F811 (a fixture that is imported)
HERE = torch.device("cpu")


def fail():
    raise OSError("a disk that fails")


def assert_as_if_nothing_had_been(run: RunDir, expected: RunDir) -> None:
    assert run.is_finished()
    assert_same_weights(run, expected)
    assert log_of(run) == log_of(expected)


# --- When -----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("number", [3, 6])  # within an epoch, after its end
def test_checkpoint_saved_by_time_is_continued(tiny_settings, uninterrupted, at_forward, number):
    settings = tiny_settings(**RICH, checkpoint_every_minutes=1e-9)
    run = RunDir(settings.run_dir)
    at_forward(number, cut_power)
    with pytest.raises(PowerCut):
        fit(settings)
    assert run.load()["step"] == number
    fit(settings)
    assert_as_if_nothing_had_been(run, uninterrupted)


def test_a_stop_at_the_end_of_an_epoch_saves_once(tiny_settings, at_forward):
    """So that the checkpoint before it is one of before."""
    settings = tiny_settings(**RICH | {"val_every_epochs": 1})
    run = RunDir(settings.run_dir)
    at_forward(11, run.ask_to_stop)
    fit(settings)
    assert [read_progress(path).step for path in checkpoints_of(run)] == [12, 6]


def test_the_time_before_a_stop_counts(tiny_settings, at_forward, monkeypatch):
    settings = tiny_settings(**RICH)
    run = RunDir(settings.run_dir)
    monkeypatch.setattr(trainer, "STOP_CHECK_STEPS", 1)
    at_forward(8, run.ask_to_stop)  # in the second epoch
    fit(settings)
    state = run.load()
    state["seconds"], state["ranks"][0]["meter"]["seconds"] = 1000.0, 500.0
    run.save(state)
    entries = fit(settings).log_entries()
    assert 1500 < entries[1]["seconds"] < entries[2]["seconds"] < 1600
    assert entries[1]["samples_per_s"] < 1 < entries[2]["samples_per_s"]


def test_nothing_is_saved_by_time_before_it_is_due(tiny_settings, at_forward):
    settings = tiny_settings(**RICH, checkpoint_every_minutes=60)
    at_forward(3, cut_power)
    with pytest.raises(PowerCut):
        fit(settings)
    assert RunDir(settings.run_dir).saved_progress() is None


@pytest.mark.slow
@pytest.mark.parametrize(("epoch", "saved"), [(2, None), (3, (12, 2))])
def test_run_continues_from_its_checkpoint_after_an_error_in_validation(
    tiny_settings, uninterrupted, monkeypatch, epoch, saved
):
    settings = tiny_settings(**RICH)
    run, real = RunDir(settings.run_dir), trainer.Trainer.validate

    def validate(self):
        if self.state.epoch == epoch - 1:
            fail()
        return real(self)

    monkeypatch.setattr(trainer.Trainer, "validate", validate)
    with pytest.raises(OSError):
        fit(settings)
    assert run.saved_progress() == saved and "OSError" in run.error_path.read_text()
    monkeypatch.setattr(trainer.Trainer, "validate", real)
    fit(settings)
    assert_as_if_nothing_had_been(run, uninterrupted)


def test_sums_of_two_processes_are_counted_once_by_any_number_of_others():
    """A run of two processes that stopped within an epoch continues with one or three."""
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


# --- NaN and infinity -----------------------------------------------------------------------------


def test_first_nan_loss_ends_the_run_and_is_named(tiny_settings, at_forward, monkeypatch):
    settings = tiny_settings(**RICH)
    run, real = RunDir(settings.run_dir), trainer.to_device

    def to_device(batch, *others):
        result = real(batch, *others)
        return result._replace(strong=result.strong * float("nan")) if is_bad else result

    is_bad = []
    monkeypatch.setattr(trainer, "to_device", to_device)
    at_forward(13, lambda: is_bad.append(True))
    with pytest.raises(FloatingPointError) as error:
        fit(settings)
    message = str(error.value)
    assert message.startswith("step 15: the loss is NaN or infinite; ")
    assert "checkpoint of step 12 is kept; try a lower lr" in message
    state = run.load()
    assert state["step"] == 12 and all(v.isfinite().all() for v in state["model"].values())
    assert [entry["epoch"] for entry in run.log_entries()] == [1, 2]


def test_non_finite_losses_and_gradients_are_told_apart(tiny_settings):
    made = trainer.Trainer(tiny_settings(), DistContext(0, 1, HERE))
    finite, infinite = torch.tensor(1.0), torch.tensor(float("inf"))
    assert made._check_finite(torch.ones(2), finite)
    for grad_norm in (finite, infinite):
        with pytest.raises(FloatingPointError, match="the loss is NaN or infinite"):
            made._check_finite(torch.tensor([1.0, float("nan")]), grad_norm)
    with pytest.raises(FloatingPointError, match="the gradient is NaN or infinite"):
        made._check_finite(torch.ones(2), infinite)


def test_a_learning_rate_that_is_too_high_ends_the_run(tiny_settings):
    settings = tiny_settings(lr=1e6, epochs=8)
    with pytest.raises(FloatingPointError, match="is NaN or infinite"):
        fit(settings)
    run = RunDir(settings.run_dir)
    assert not run.is_finished() and "FloatingPointError" in run.error_path.read_text()
    for path in run.checkpoint_dir.glob("*.pt"):
        assert all(v.isfinite().all() for v in read_checkpoint(path)["model"].values())


def test_fp16_scaler_skips_steps_until_its_scale_is_too_low(tiny_settings):
    """With a scaler on a CPU, where no run of ours has one: 4, 2, 1, and then too low."""
    settings = tiny_settings(epochs=9)
    made = trainer.Trainer(settings, DistContext(0, 1, HERE))
    state = made.state
    state.scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    pairs = made.load_pairs(0, 9)
    made.train_step(pairs)
    means = state.meter.means(made.world)
    weights = [value.clone() for value in state.model.parameters()]
    state.model.head.weight.register_hook(lambda gradient: gradient * float("inf"))
    for scale in (2.0, 1.0, 0.5):
        made.train_step(pairs)
        assert state.scaler.get_scale() == scale
        assert all(map(torch.equal, weights, state.model.parameters()))
    with pytest.raises(FloatingPointError, match="step 5: the gradient is NaN or infinite"):
        made.train_step(pairs)
    assert state.meter.means(made.world) == means  # of the one step that was made
    assert state.meter.clips == 4 * 10


# --- Files ----------------------------------------------------------------------------------------


def state_of(step: int, epoch: int = 0) -> dict:
    return {"model": {}, "step": step, "epoch": epoch}


def test_two_newest_checkpoints_are_kept_and_best(tmp_path):
    run = RunDir(tmp_path)
    assert run.saved_progress() is None
    for step, epoch in ((9, 0), (10, 0), (10, 1)):
        run.save(state_of(step, epoch))
        run.save(state_of(step, epoch), "best")
        assert run.saved_progress() == (step, epoch)
    names = {path.name for path in run.checkpoint_dir.iterdir()}
    assert names == {"epoch_0000_step_00000010.pt", "epoch_0001_step_00000010.pt", "best.pt"}
    assert run.load() == run.load("best") == state_of(10, 1)


def test_checkpoint_is_synced_before_it_has_its_name(tmp_path, monkeypatch):
    run, seen, real = RunDir(tmp_path), [], os.fsync

    def fsync(handle):
        seen.append((os.path.isdir(f"/dev/fd/{handle}"), run.saved_progress() is not None))
        real(handle)

    monkeypatch.setattr(checkpoint.os, "fsync", fsync)
    run.save(state_of(1))
    assert seen == [(False, False), (True, True)]  # the file, and then the folder with its name


def test_start_deletes_files_of_killed_processes(tiny_settings):
    run = RunDir(tiny_settings().run_dir)
    run.save(state_of(1))
    for name in (".epoch_0000_step_00000002.abc.pt", ".best.x_1.pt"):
        (run.checkpoint_dir / name).write_bytes(b"half")
    run.start(tiny_settings())
    assert [path.name for path in run.checkpoint_dir.iterdir()] == ["epoch_0000_step_00000001.pt"]


@pytest.fixture(scope="module")
def stopped(prepared_dir, tmp_path_factory) -> RunDir:
    """A run of 3 epochs that was stopped after the second checkpoint."""
    changes = RICH | {"val_every_epochs": 1}
    run = RunDir(tmp_path_factory.mktemp("stopped") / "run")
    settings = make_tiny_settings(prepared_dir, run.folder, **changes)
    real = RunDir.save

    def save(self, state, which="last"):
        real(self, state, which)
        if state["step"] == 12 and which == "last":
            raise PowerCut

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunDir, "save", save)
        with pytest.raises(PowerCut):
            fit(settings)
    assert [read_progress(path) for path in checkpoints_of(run)] == [(12, 2), (6, 1)]
    return run


def checkpoints_of(run: RunDir) -> list[Path]:
    return list_checkpoints(run.checkpoint_dir)


def flip(path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


DAMAGES = {
    "a bit": flip,
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-1000]),
    "empty": lambda path: path.write_bytes(b""),
}


@pytest.fixture
def damaged(stopped, tmp_path) -> RunDir:
    """A copy of it, to be damaged."""
    shutil.copytree(stopped.folder, tmp_path / "run")
    return RunDir(tmp_path / "run")


def settings_of(run: RunDir):
    return run.settings().model_copy(update={"run_dir": str(run.folder)})


@pytest.fixture(scope="module")
def continued(stopped, tmp_path_factory) -> RunDir:
    """A copy of the stopped run, trained to its end."""
    folder = tmp_path_factory.mktemp("continued") / "run"
    shutil.copytree(stopped.folder, folder)
    return fit(settings_of(RunDir(folder)))


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_checkpoint_is_named_and_without_it_the_previous_one_continues(
    damaged, continued, damage
):
    newest = checkpoints_of(damaged)[0]
    DAMAGES[damage](newest)
    message = r"00012\.pt: cannot be read as a checkpoint \(.+\); delete that file"
    with pytest.raises(ValueError, match=message):
        fit(settings_of(damaged))
    newest.unlink()
    fit(settings_of(damaged))
    assert_as_if_nothing_had_been(damaged, continued)


# --- Settings -------------------------------------------------------------------------------------


def test_checkpoint_without_params_file_still_refuses_other_settings(damaged):
    settings = settings_of(damaged)
    damaged.params_path.unlink()
    other = settings.model_copy(update={"seed": 3, "lr": 0.5})
    with pytest.raises(ValueError, match=r"(?s)other settings.*seed: 0 there, 3 here.*lr: 0.05"):
        fit(other)
    assert not damaged.params_path.exists()
    damaged.check_compatible(settings)


def test_setting_that_a_run_lacks_has_its_default(damaged, continued):
    """As a setting that was added after the run was trained."""
    settings, state = settings_of(damaged), damaged.load()
    added = ("lr_schedule", "freeze_fraction", "test_num_clips")
    lines = damaged.params_path.read_text().splitlines(keepends=True)
    damaged.params_path.write_text("".join(x for x in lines if not x.startswith(added)))
    earlier = {k: v for k, v in state["settings"].items() if not k.startswith(added)}
    damaged.save(state | {"settings": earlier})
    assert damaged.settings().freeze_fraction == TrainSettings().freeze_fraction
    with pytest.raises(ValueError, match="freeze_fraction: 0.0 there, 0.5 here"):
        damaged.check_compatible(settings.model_copy(update={"freeze_fraction": 0.5}))
    fit(settings)
    assert_as_if_nothing_had_been(damaged, continued)


def test_run_dir_that_is_a_file_is_refused(tiny_settings, tmp_path):
    path = tmp_path / "run"
    path.write_text("")
    with pytest.raises(ValueError, match="run_dir: .*run is a file; choose another folder"):
        fit(tiny_settings(run_dir=str(path)))
    assert "is a file" in read_status(path).error


def test_two_test_lists_of_one_name_are_refused(tiny_settings, tmp_path):
    (tmp_path / "val.txt").write_text("")
    with pytest.raises(ValueError, match="test_splits: .* have one name twice"):
        fit(tiny_settings(test_splits=["val", str(tmp_path / "val.txt")]))
