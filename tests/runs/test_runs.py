"""A run on disk: continuing it, refusing it, reading it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version

import pytest
import torch
from conftest import make_tiny_settings
from test_training import assert_same_weights, log_of

from lib.config import PROJECT_ROOT, project_path
from lib.evaluate.run_results import read_log
from lib.fileio import write_text
from lib.report.tables import machine_of
from lib.runs.checkpoint import read_checkpoint
from lib.runs.distributed import DistContext
from lib.runs.run_dir import RunDir, read_result
from lib.train import trainer
from lib.train.fit import fit
from lib.train.fit import main as train_main
from lib.train.objectives import OBJECTIVES, FixMatchObjective
from lib.train.run_data import load_data

# Everything random and everything with a memory: dropout, batch norm, momentum, ActorCutMix.
RICH = {
    "model": "timm/test_resnet",  # a small one with batch norm
    "labeled_view": "strong",
    "labeled_scene_p": 0.5,
    "dropout": 0.3,
    "unlabeled_batch": 3,  # 6 steps an epoch
    "unlabeled_rampup_epochs": 1.0,
    "warmup_epochs": 0.5,
    "epochs": 3,
    "val_every_epochs": 2,
}


class PowerCut(BaseException):
    """Ends a run at once: only errors, which are `Exception`, leave time for a checkpoint."""


def cut_power(*_, **__):
    raise PowerCut


@pytest.fixture(scope="module")
def uninterrupted(prepared_dir, tmp_path_factory) -> RunDir:
    return fit(make_tiny_settings(prepared_dir, tmp_path_factory.mktemp("uninterrupted"), **RICH))


# --- Continuing -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("number", [3, 13])  # in the first epoch, and in the last
def test_a_run_stopped_within_an_epoch_continues_exactly(
    tiny_settings, uninterrupted, at_forward, monkeypatch, number
):
    settings = tiny_settings(**RICH)
    run = RunDir(settings.run_dir)
    monkeypatch.setattr(trainer, "STOP_CHECK_STEPS", 1)
    at_forward(number, run.stop_path.touch)
    fit(settings)
    assert run.load()["step"] == number + 1 and not run.is_finished()
    fit(settings)
    assert run.is_finished()
    assert_same_weights(run, uninterrupted)
    for entry, expected in zip(log_of(run), log_of(uninterrupted), strict=True):
        assert entry == expected


def test_a_killed_run_continues_from_its_last_checkpoint(
    tiny_settings, uninterrupted, at_forward, capsys
):
    """It was killed in the last epoch, after a log entry that the checkpoint does not have."""
    settings = tiny_settings(**RICH)
    run = RunDir(settings.run_dir)

    at_forward(14, cut_power)
    with pytest.raises(PowerCut):
        fit(settings)
    assert run.load()["step"] == 12  # the validation after the second epoch
    with open(run.log_path, "a") as log:
        log.write(json.dumps({"epoch": 3, "step": 18}) + "\n" + '{"epoch": 4, "st')
    fit(settings)
    assert "continuing" in capsys.readouterr().out
    assert_same_weights(run, uninterrupted)
    assert log_of(run) == log_of(uninterrupted)


@pytest.mark.slow
def test_a_run_killed_before_its_first_checkpoint_starts_again(
    tiny_settings, uninterrupted, at_forward
):
    settings = tiny_settings(**RICH)

    at_forward(8, cut_power)
    with pytest.raises(PowerCut):
        fit(settings)
    run = RunDir(settings.run_dir)
    assert len(run.log_entries()) == 1 and run.saved_progress() is None
    fit(settings)
    assert log_of(run) == log_of(uninterrupted)
    assert_same_weights(run, uninterrupted)


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["best", "last"])
def test_a_run_killed_while_it_saves_its_end_is_not_finished(
    tiny_settings, uninterrupted, monkeypatch, lost
):
    settings = tiny_settings(**RICH)
    run, real = RunDir(settings.run_dir), RunDir.save

    def save(self, state, which="last"):
        if state["step"] == 18 and which == lost:
            raise OSError("disk full")
        real(self, state, which)

    monkeypatch.setattr(RunDir, "save", save)
    try:
        fit(settings)
    except OSError:
        assert not run.is_finished()
    monkeypatch.setattr(RunDir, "save", real)
    fit(settings)
    assert run.is_finished()
    assert_same_weights(run, uninterrupted)
    assert log_of(run) == log_of(uninterrupted)


# At the end of an epoch, and at the very end
@pytest.mark.parametrize("number", [5, pytest.param(17, marks=pytest.mark.slow)])
def test_an_interrupt_saves_and_continues_exactly(tiny_settings, uninterrupted, at_forward, number):
    settings = tiny_settings(**RICH)
    handler = signal.getsignal(signal.SIGINT)
    at_forward(number, lambda: signal.raise_signal(signal.SIGINT))  # Ctrl-C, "interrupt kernel"
    with pytest.raises(KeyboardInterrupt):
        fit(settings)
    assert signal.getsignal(signal.SIGINT) is handler
    run = RunDir(settings.run_dir)
    assert run.load()["step"] == number + 1  # the step was made to its end
    fit(settings)
    assert run.is_finished()
    assert_same_weights(run, uninterrupted)
    assert [entry["epoch"] for entry in run.log_entries()] == [1, 2, 3]


@pytest.mark.slow
def test_a_run_that_is_killed_while_it_validates_has_saved_its_steps(
    tiny_settings, uninterrupted, monkeypatch
):
    settings = tiny_settings(**RICH, checkpoint_every_minutes=60)
    run = RunDir(settings.run_dir)
    with monkeypatch.context() as patch, pytest.raises(PowerCut):
        patch.setattr(trainer, "MAX_UNSAVED_S", 0)
        patch.setattr(trainer, "score_videos", cut_power)
        fit(settings)
    assert run.saved_progress() == (12, 1)  # two epochs are made, the second is not yet in the log
    fit(settings)
    assert_same_weights(run, uninterrupted)
    without_time = [{k: e[k] for k in ("epoch", "step", "loss/total")} for e in run.log_entries()]
    expected = [{k: e[k] for k in ("epoch", "step", "loss/total")} for e in log_of(uninterrupted)]
    assert without_time == expected


def test_processes_that_find_different_checkpoints_are_refused(tiny_settings, monkeypatch):
    made = trainer.Trainer(tiny_settings(), DistContext(0, 1, torch.device("cpu")))
    monkeypatch.setattr(DistContext, "all_gather", lambda self, value: [value, 7])
    with pytest.raises(ValueError, match=r"steps \[0, 7\]; put run_dir on a disk"):
        made.fit()


@pytest.mark.parametrize("number", [8, pytest.param(17, marks=pytest.mark.slow)])
def test_sigterm_saves_and_continues_exactly(
    tiny_settings, uninterrupted, at_forward, capsys, number
):
    settings = tiny_settings(**RICH)
    run = RunDir(settings.run_dir)
    at_forward(number, lambda: signal.raise_signal(signal.SIGTERM))
    if number < 17:
        with pytest.raises(KeyboardInterrupt):
            fit(settings)
        assert run.load()["step"] == number + 1
        assert "asked to end (SIGTERM)" in capsys.readouterr().out
    fit(settings)  # in its last step a run has nothing left to continue
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL and run.is_finished()
    assert_same_weights(run, uninterrupted)


class RememberingObjective(FixMatchObjective):
    """Its threshold is the mean confidence of all steps so far: it matters what went before."""

    def begin(self, rows, num_classes):
        self.register_buffer("steps", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(()))

    def confidence_mask(self, logits, rows):
        confidence = logits.softmax(1).amax(1)
        self.steps += 1
        self.mean += (confidence.mean() - self.mean) / self.steps
        return (confidence >= self.mean).to(logits.dtype)


@pytest.mark.slow
@pytest.mark.parametrize("number", [4, 11])  # during the ramp-up and after it
def test_resume_restores_objective_state(tiny_settings, tmp_path, at_forward, monkeypatch, number):
    monkeypatch.setitem(OBJECTIVES, "fixmatch", RememberingObjective)
    expected = fit(tiny_settings(**RICH, run_dir=tmp_path / "expected"))
    settings = tiny_settings(**RICH, run_dir=tmp_path / "stopped")
    run = RunDir(settings.run_dir)
    monkeypatch.setattr(trainer, "STOP_CHECK_STEPS", 1)
    at_forward(number, run.stop_path.touch)
    fit(settings)
    state = run.load()["ranks"][0]["objective"]  # of its one process
    assert state["steps"] == number + 1 and 0 < state["mean"] < 1
    fit(settings)
    assert_same_weights(run, expected)
    ends = [r.load()["ranks"][0]["objective"] for r in (run, expected)]
    assert ends[0] == ends[1]
    masks = [read_log(run)["ssl/mask_rate"].iloc[-1] for run in (run, expected)]
    assert masks[0] == masks[1] and 0 < masks[0] < 1


def test_each_process_restores_its_own_state(tiny_settings, tmp_path, monkeypatch):
    monkeypatch.setitem(OBJECTIVES, "fixmatch", RememberingObjective)

    def make_trainer() -> trainer.Trainer:
        world = DistContext(0, 1, torch.device("cpu"))  # set up alone, without a process group
        settings = tiny_settings(model=RICH["model"], run_dir=tmp_path / "run", ema_decay=0.5)
        return trainer.Trainer(settings, world)

    def mean_of_norm(network: torch.nn.Module) -> float:
        return float(next(b for n, b in network.named_buffers() if "running_mean" in n).mean())

    first = make_trainer()
    buffers = dict(first.state.model.named_buffers())
    states = [
        {
            "objective": {"steps": torch.tensor(1.0), "mean": torch.tensor(float(rank))},
            "meter": {"sums": {"loss": torch.tensor([3.0 + rank, 1])}, "clips": 4, "seconds": 1.0},
            "buffers": {name: torch.full_like(b, 5 + rank) for name, b in buffers.items()},
        }
        for rank in range(2)
    ]
    saved = first.state.state_dict() | {"ranks": states}
    assert first.state.rank_state_dict().keys() == states[0].keys()
    for rank, size, expected, loss in ((0, 2, 0, 3), (1, 2, 1, 4), (0, 1, 0, 3.5), (3, 4, 1, None)):
        state = make_trainer().state
        state.load_state_dict(saved, DistContext(rank, size, torch.device("cpu")))
        assert state.objective.state_dict() == states[expected]["objective"]
        assert state.meter.means(DistContext(0, 1, torch.device("cpu"))) == {"loss": loss}
        means = [mean_of_norm(network) for network in (state.model, state.eval_model)]
        assert means == ([5 + rank] * 2 if size == 2 else [0, 0])


EIGHT_EPOCHS = RICH | {"unlabeled_batch": 6, "epochs": 8, "val_every_epochs": 8}
PRINTING = {
    "cwd": PROJECT_ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def two_processes(prepared_dir, tmp_path_factory) -> RunDir:
    """An undisturbed run of two spawned processes."""
    folder = tmp_path_factory.mktemp("two_processes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        return fit(make_tiny_settings(prepared_dir, folder, num_processes=2, **EIGHT_EPOCHS))


@pytest.mark.slow
@pytest.mark.parametrize("num_processes, num_workers", [(1, 1), (2, 0)])
def test_sigterm_to_all_processes_of_a_run_saves_and_continues_exactly(
    tiny_settings, two_processes, tmp_path, monkeypatch, num_processes, num_workers
):
    """As a cluster sends it: to the spawned processes and the loaders' too."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    changes = {"num_processes": num_processes, "num_workers": num_workers}
    settings = tiny_settings(**EIGHT_EPOCHS | changes)
    path = tmp_path / "run.yaml"
    path.write_text(settings.as_yaml())
    run = RunDir(settings.run_dir)
    command = [sys.executable, "-m", "lib.train.fit", str(path)]
    process = subprocess.Popen(command, start_new_session=True, **PRINTING)
    while len(run.log_entries()) < 1:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGTERM)
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 130 and "asked to end (SIGTERM)" in output, output
    assert "Traceback" not in output and run.saved_progress() and not run.is_finished()
    fit(settings)
    if num_processes == 1:
        whole = fit(tiny_settings(**EIGHT_EPOCHS, run_dir=tmp_path / "whole"))
    else:
        whole = two_processes
    assert_same_weights(run, whole)


# --- torchrun -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_torchrun_on_two_nodes_gives_the_spawned_run(two_processes, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # other numbers of threads add in other orders
    (tmp_path / "recipe.yaml").write_text(two_processes.settings().as_yaml())
    (tmp_path / "run.yaml").write_text(f"run_dir: {tmp_path / 'run'}\n")
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"]
    command += ["--rdzv-backend=c10d", "--rdzv-id=test"]
    command += [f"--rdzv-endpoint=localhost:{20_000 + os.getpid() % 20_000}"]
    command += ["-m", "lib.train.fit", str(tmp_path / "recipe.yaml"), str(tmp_path / "run.yaml")]
    nodes = [subprocess.Popen(command, **PRINTING) for _ in range(2)]
    said = [node.communicate(timeout=600)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], "\n".join(said)
    assert any("epoch 8/8" in text for text in said)
    assert log_of(RunDir(tmp_path / "run")) == log_of(two_processes)
    assert_same_weights(RunDir(tmp_path / "run"), two_processes)


def test_torchrun_does_not_prepare_data_in_every_process(tmp_path, monkeypatch, capsys):
    settings = make_tiny_settings(tmp_path / "empty", tmp_path / "run")
    (tmp_path / "run.yaml").write_text(settings.as_yaml())
    for name, value in {"TORCHELASTIC_RUN_ID": "test", "RANK": "0", "WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    assert train_main([str(tmp_path / "run.yaml")]) == 2
    said = capsys.readouterr().err
    assert "not prepared" in said and "python -m lib.prepare --dataset synthetic" in said
    assert not (tmp_path / "empty").exists()


@pytest.fixture
def signal_twice(tiny_settings, at_forward) -> Callable[[int], RunDir]:
    """Return a function that trains a run which gets a signal twice in its second step."""

    def train(number: int) -> RunDir:
        def twice():
            signal.raise_signal(number)
            signal.raise_signal(number)

        settings = tiny_settings(epochs=1)
        at_forward(1, twice)
        with pytest.raises(KeyboardInterrupt):
            fit(settings)
        return RunDir(settings.run_dir)

    return train


def test_sigterm_may_come_again_and_again(signal_twice):
    """A batch repeats it, since a run that only starts takes no notice."""
    assert signal_twice(signal.SIGTERM).load()["step"] == 2


def test_a_second_interrupt_is_not_held_back(signal_twice):
    assert not signal_twice(signal.SIGINT).saved_progress()  # nothing half-done was saved


def test_finished_run_is_not_changed(tiny_settings, capsys):
    settings = tiny_settings(epochs=1)
    run = fit(settings)
    before = {path.name: path.read_bytes() for path in run.folder.rglob("*.*") if path.is_file()}
    again = fit(settings)
    assert "is finished (1 epochs): nothing is trained" in capsys.readouterr().out
    after = {path.name: path.read_bytes() for path in run.folder.rglob("*.*") if path.is_file()}
    assert again.folder == run.folder and before == after


@pytest.mark.slow
@pytest.mark.parametrize("number", [None, 8, 20])  # finished, stopped before its end, and after it
def test_extended_run_equals_a_run_planned_longer(
    tiny_settings, tmp_path, at_forward, monkeypatch, number
):
    longer = RICH | {"epochs": 4, "lr_restart_epochs": [2]}
    whole = fit(tiny_settings(**longer, run_dir=str(tmp_path / "whole")))
    settings = tiny_settings(**RICH | {"epochs": 2})
    run = RunDir(settings.run_dir)
    monkeypatch.setattr(trainer, "STOP_CHECK_STEPS", 1)
    if number is not None:
        at_forward(number, run.stop_path.touch)
    fit(settings)
    run.metrics_path.write_text("{}")
    fit(tiny_settings(**longer))
    fit(tiny_settings(**longer))  # where it was stopped after its first end
    assert run.is_finished()
    assert_same_weights(run, whole)
    assert log_of(run) == log_of(whole)
    rates = [entry["lr"] for entry in run.log_entries()]
    assert rates[2:] == pytest.approx([rates[0], rates[0] / 2]) and rates[0] > rates[1]
    assert not run.metrics_path.exists() and (run.folder / "metrics_2_epochs.json").exists()


def test_run_is_extended_only_with_a_restart_at_its_end(tiny_settings):
    run = RunDir(tiny_settings(epochs=2).run_dir)
    run.check_compatible(tiny_settings(epochs=2))
    run.start(tiny_settings(epochs=2))
    with pytest.raises(
        ValueError, match=r"to train it longer, set lr_restart_epochs to \[2\] as well"
    ):
        run.check_compatible(tiny_settings(epochs=4))
    with pytest.raises(ValueError, match=r"lr_restart_epochs: \[\] there, \[1\] here"):
        run.check_compatible(tiny_settings(epochs=4, lr_restart_epochs=[1]))
    run.check_compatible(tiny_settings(epochs=4, lr_restart_epochs=[2]))
    run.start(tiny_settings(epochs=4, lr_restart_epochs=[2]))
    with pytest.raises(ValueError, match=r"set lr_restart_epochs to \[2, 4\] as well"):
        run.check_compatible(tiny_settings(epochs=9, lr_restart_epochs=[2]))
    run.check_compatible(tiny_settings(epochs=9, lr_restart_epochs=[2, 4, 6]))
    run.start(tiny_settings(epochs=9, lr_restart_epochs=[2, 4, 6]))
    with pytest.raises(ValueError, match="epochs: 9 there, 4 here"):
        run.check_compatible(tiny_settings(epochs=4, lr_restart_epochs=[2]))


def test_best_is_the_checkpoint_of_the_best_validation(tiny_settings):
    run = fit(tiny_settings(epochs=4, lr=0.2))
    top1 = read_log(run)["eval/top1_video"]
    best = run.load("best")
    assert best["best_top1"] == top1.max()
    assert best["step"] == read_log(run)["step"][top1.argmax()]


def test_a_continued_run_remembers_its_best_validation(tiny_settings, at_forward):
    settings = tiny_settings(epochs=2)
    at_forward(4, cut_power)  # in the second of two epochs of 3 steps
    with pytest.raises(PowerCut):
        fit(settings)
    run = RunDir(settings.run_dir)
    state = run.load()
    run.save(state | {"best_top1": 101.0})  # a result that cannot be beaten
    best = run.best_path.read_bytes()
    fit(settings)
    assert run.is_finished() and run.best_path.read_bytes() == best
    assert run.load()["best_top1"] == 101


# --- Other settings -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"), [("lr", 0.5), ("seed", 3), ("val_every_epochs", 3), ("dropout", 0.3)]
)
def test_other_settings_in_the_same_folder_are_refused_by_name(tiny_settings, name, value):
    settings = tiny_settings(epochs=1)
    run = RunDir(settings.run_dir)
    run.check_compatible(settings)
    run.start(settings)
    other = tiny_settings(**{"epochs": 1, name: value})
    with pytest.raises(ValueError) as error:
        run.check_compatible(other)
    lines = str(error.value).splitlines()
    assert str(run.folder) in lines[0] and "delete that folder" in lines[-1]
    assert [line.strip() for line in lines[1:-1]] == [
        f"{name}: {getattr(settings, name)!r} there, {value!r} here"
    ]
    assert run.settings() == settings  # still the first ones


def test_data_may_move_where_they_are_the_same(tiny_settings, tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir(), new.mkdir()
    settings = tiny_settings(epochs=1, videos_dir=str(old))
    run = fit(settings)
    moved = tiny_settings(epochs=1, videos_dir=str(new))
    with pytest.raises(ValueError, match=f"videos_dir: '{old}' there, '{new}' here"):
        fit(moved)  # the earlier place is still there: it may be a mistake
    old.rmdir()
    assert fit(moved).settings().videos_dir == str(new)
    run.metrics_path.write_text("{}")
    longer = moved.model_copy(update={"epochs": 2, "lr_restart_epochs": [1]})
    with pytest.raises(ValueError, match="videos_dir has other videos, splits or labels"):
        run.check_compatible(longer, "another")
    assert run.metrics_path.exists()  # what is refused changes nothing
    run.check_compatible(moved, load_data(moved).digest)


@pytest.mark.parametrize(
    "changes", [{"labeled_seed": 1, "labeled_fraction": 0.5}, {"objective": "supervised"}], ids=str
)
def test_data_digest_depends_on_videos_and_labels(tiny_settings, changes):
    same = load_data(tiny_settings(lr=0.3, seed=5)).digest
    assert load_data(tiny_settings()).digest == same != load_data(tiny_settings(**changes)).digest


def test_settings_that_change_no_result_may_change(tiny_settings, tmp_path, prepared_dir):
    run = RunDir(tiny_settings().run_dir)
    run.check_compatible(tiny_settings())
    run.start(tiny_settings())
    run.check_compatible(tiny_settings(num_workers=3, frame_cache_mb=100))
    run.start(tiny_settings(num_workers=3, frame_cache_mb=100))
    assert run.settings().num_workers == 3
    moved = run.folder.rename(tmp_path / "moved")
    RunDir(moved).check_compatible(tiny_settings(run_dir=str(moved)))


def test_wrong_settings_leave_no_folder_behind(tiny_settings):
    settings = tiny_settings(val_split="gone")
    with pytest.raises(ValueError, match="no such split"):
        fit(settings)
    assert not RunDir(settings.run_dir).folder.exists()


# --- The folder -----------------------------------------------------------------------------------


def test_files_of_a_run_folder(tiny_settings):
    run = fit(tiny_settings(epochs=1))
    assert run.settings() == tiny_settings(epochs=1)
    environment = json.loads((run.folder / "environment.json").read_text())
    installed = {name: version(name) for name in ("torch", "numpy", "jupyterlab", "pytest")}
    assert installed.items() <= environment["packages"].items()
    assert {"python", "system", "cpu_count", "gpus", "commit"} <= set(environment)
    assert run.name == run.folder.name
    names = {path.name for path in run.folder.glob("[!.]*")}
    assert names == {"params.yaml", "environment.json", "log.jsonl", "checkpoints"}


def test_environment_that_affects_numbers_is_saved(tiny_settings):
    run = fit(tiny_settings(epochs=1))
    environment = run.environment()
    assert (
        environment["threads_per_process"] == torch.get_num_threads() == 1
        and environment["num_processes"] == 1
    )
    assert environment["cpu_capability"] == torch.backends.cpu.get_cpu_capability()
    assert environment["torch_config"] == torch.__config__.show()
    assert environment["cpu_model"] not in ("", "x86_64")
    assert environment["packages"]["torch"] == version("torch")


def test_finished_run_keeps_its_environment(tiny_settings):
    run = fit(tiny_settings(epochs=1))
    run.environment_path.write_text('{"cpu_model": "Another CPU"}')
    fit(tiny_settings(epochs=1))
    assert run.environment() == {"cpu_model": "Another CPU"}


def test_damaged_files_of_a_run_are_named(tmp_path):
    run = RunDir(tmp_path / "semi")
    assert run.environment() == {} and machine_of(run) == "unknown"
    run.folder.mkdir()
    run.log_path.write_text('{"epoch": 1, "step": 1}\n{"epoch" 2}\n{"epoch": 3}\n')
    with pytest.raises(ValueError, match=r"log\.jsonl, line 2: damaged .*delete that line"):
        run.log_entries()
    run.environment_path.write_text("[]")
    with pytest.raises(ValueError, match=r"environment\.json: damaged .a JSON object.*delete"):
        machine_of(run)
    with pytest.raises(ValueError, match=r"metrics\.json: cannot be read .*4_evaluate"):
        read_result(run)
    for damaged in (b"", b"\xff\xfe", b"{", b"[" * 100_000):
        run.metrics_path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"metrics\.json: damaged .*test the run"):
            read_result(run)


def test_a_line_that_is_half_written_is_not_read(tmp_path):
    run = RunDir(tmp_path)
    assert run.log_entries() == [] and read_log(run).empty
    run.append_log({"epoch": 1, "step": 5, "loss": 0.5})
    run.append_log({"epoch": 2, "step": 10, "loss": None})
    with open(run.log_path, "a") as log:
        log.write('{"epoch": 3, "ste')
    assert [entry["epoch"] for entry in run.log_entries()] == [1, 2]
    run.truncate_log(1)
    assert run.log_path.read_text() == '{"epoch": 1, "step": 5, "loss": 0.5}\n'


def test_folder_without_a_run_is_refused_with_a_remedy(tmp_path):
    with pytest.raises(ValueError, match="no run here.*3_train.ipynb"):
        RunDir(tmp_path).settings()
    with pytest.raises(ValueError, match="no last checkpoint; train the run first"):
        RunDir(tmp_path).load()


def test_file_that_is_not_a_checkpoint_is_refused_by_name(tmp_path):
    path = write_text(tmp_path / "epoch_0001_step_00000001.pt", "not a checkpoint")
    with pytest.raises(ValueError, match="1.pt: cannot be read as a checkpoint"):
        read_checkpoint(path)


def test_a_checkpoint_cannot_run_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "evil"), "w"))

    torch.save({"model": Evil()}, tmp_path / "best.pt")
    with pytest.raises(ValueError, match="cannot be read as a checkpoint"):
        read_checkpoint(tmp_path / "best.pt")
    assert not (tmp_path / "evil").exists()


def test_relative_run_dir_starts_at_the_project(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert RunDir("outputs/x").folder == project_path("outputs/x")


def test_memory_is_logged(tiny_settings):
    assert all(entry["memory_mb"] > 50 for entry in fit(tiny_settings(epochs=1)).log_entries())
