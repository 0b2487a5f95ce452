"""Status of a run: the same for the batch, the monitor and the report."""

import json

import pytest

from lib.batch.local import share_of
from lib.batch.plan import TO_CONTINUE, PlannedRun, state_of
from lib.fileio import file_lock
from lib.jupyter.monitor import TrainingMonitor
from lib.runs.run_dir import RunDir, read_status
from lib.train.fit import fit


@pytest.fixture
def killed(tiny_settings) -> RunDir:
    """A run of 2 epochs that was killed between its last log line and its last checkpoint."""
    run = RunDir(tiny_settings(epochs=2).run_dir)
    run.start(tiny_settings(epochs=2))
    run.append_log({"epoch": 1, "step": 3, "loss/total": 1.0})
    run.save({"model": {}, "step": 3, "epoch": 1})
    run.append_log({"epoch": 2, "step": 6, "loss/total": 1.0})
    return run


def test_status_counts_saved_epochs_not_logged_ones(killed):
    state = read_status(killed.folder)
    assert (state.phase, state.epoch, state.step, state.share) == ("stopped", 1, 3, 0.5)
    assert not killed.is_finished()
    planned = PlannedRun(killed.params_path, {}, killed.settings())
    assert state_of(planned) == (TO_CONTINUE, "epoch 1")
    assert share_of([planned]) == 0.5
    monitor = TrainingMonitor(killed.folder)
    assert "stopped with 1 of 2 epochs saved" in monitor.headline.value
    assert monitor.bar.value == 0.5 and not state.is_tested


def test_share_of_a_running_run_counts_unsaved_steps(killed):
    with file_lock(killed.lock_path):
        state = read_status(killed.folder)
        assert (state.phase, state.epoch, state.share) == ("starting", 1, 1.0)
        killed.progress_path.write_text(json.dumps({"step": 4, "last_step": 6}))
        state = read_status(killed.folder)
        assert (state.phase, state.epoch, state.share) == ("training", 1, 4 / 6)


def test_run_is_finished_when_its_end_is_saved(killed):
    killed.save({"model": {}, "step": 6, "epoch": 2})
    state = read_status(killed.folder)
    assert (state.phase, state.epoch, state.share) == ("finished", 2, 1.0)
    killed.log_path.unlink()
    assert read_status(killed.folder).phase == "finished" and killed.is_finished()


def test_damaged_log_is_named_and_refuses_only_its_run(killed):
    lines = killed.log_path.read_text().splitlines()
    killed.log_path.write_text("\n".join([lines[0].replace(":", "", 1), lines[1], ""]))
    state = read_status(killed.folder)
    assert state.phase == "missing" and "log.jsonl, line 1: damaged" in state.error
    planned = PlannedRun(killed.params_path, {}, killed.settings())
    assert state_of(planned) == ("refused", state.error)


def test_status_of_a_trained_run(tiny_settings):
    run = fit(tiny_settings(epochs=1))
    state = read_status(run.folder)
    assert (state.phase, state.epoch, state.step, state.lock_owner) == ("finished", 1, 3, "")
