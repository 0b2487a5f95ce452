"""The training monitor, without a browser: what it says of every state of a run's folder."""

import asyncio
import html
import json
import shutil

import pandas as pd
import pytest

from lib.fileio import file_lock, lock_owner
from lib.jupyter import monitor as monitor_module
from lib.jupyter.monitor import TrainingMonitor, train
from lib.plots.training import plot_learning_curves
from lib.runs import progress
from lib.runs.run_dir import RunDir, read_status
from lib.train import trainer
from lib.train.fit import fit


@pytest.fixture
def fast(tiny_network, decoded_once, monkeypatch):
    """A tiny network, and a progress file that is written at every step."""
    monkeypatch.setattr(progress, "WRITE_INTERVAL_S", -1.0)


@pytest.fixture
def watched(fast, monkeypatch):
    """Pretend that a person sits at the notebook; what is displayed is collected."""
    shown = []

    class Handle:
        def update(self, page):
            shown.append(page)

    def display(*things, display_id=False):
        shown.extend(things)
        return Handle() if display_id else None

    monkeypatch.setattr(monitor_module, "is_interactive", lambda: True)
    monkeypatch.setattr(monitor_module, "display", display)
    monkeypatch.setattr(monitor_module, "POLL_S", 0.01)
    return shown


def states_while(settings, monkeypatch, look=lambda: None) -> list:
    """Train a run and return what its folder said after every step; `look` is called then."""
    states = []
    real = progress.ProgressFile.update

    def update(self, *arguments):
        real(self, *arguments)
        states.append(read_status(settings.run_dir))
        look()

    monkeypatch.setattr(progress.ProgressFile, "update", update)
    fit(settings)
    return states


def test_a_run_is_followed_step_by_step(fast, tiny_settings, monkeypatch):
    settings = tiny_settings(epochs=2)  # 18 videos in batches of 6: 3 steps an epoch
    states = states_while(settings, monkeypatch)
    assert [state.progress["step"] for state in states] == [1, 2, 3, 4, 5, 6]
    assert {state.phase for state in states} == {"training"}
    assert [len(state.log) for state in states] == [0, 0, 0, 1, 1, 1]
    first = states[0]
    assert first.progress["last_step"] == 6
    assert {"loss/total", "ssl/mask_rate", "lr", "samples_per_s"} <= first.latest.keys()
    assert "eval/top1_video" not in first.latest and "eval/top1_video" in states[-1].latest
    assert f"process {first.lock_owner.split()[1]}" in first.lock_owner
    after = read_status(settings.run_dir)
    assert after.phase == "finished" and after.is_ended and not after.lock_owner
    assert not RunDir(settings.run_dir).progress_path.exists()


def test_progress_is_written_every_two_seconds_at_most(tiny_settings, tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    run, meter = RunDir(tmp_path), progress.Meter()
    file = progress.ProgressFile(run, 10, 30)
    steps = []
    for seconds, step in ((4.0, 12), (1.9, 13), (0.2, 14)):
        now[0] += seconds
        file.update(step, 0.1, meter)
        steps.append(json.loads(run.progress_path.read_text()))
    assert [state["step"] for state in steps] == [12, 12, 14]
    assert steps[0]["seconds_left"] == 36.0  # 18 steps of 2 s


def test_the_stop_button_asks_a_run_that_is_trained_and_no_other(tmp_path, tiny_settings):
    settings = tiny_settings()
    run = RunDir(settings.run_dir)
    run.start(settings)
    monitor = TrainingMonitor(run.folder)
    assert monitor.status.phase == "waiting" and monitor.stop.disabled
    monitor.stop.click()
    assert not run.stop_path.exists()
    with file_lock(run.lock_path):
        assert monitor.update().phase == "starting" and not monitor.stop.disabled
        monitor.stop.click()
        assert run.stop_path.exists()
        assert monitor.status.phase == "stopping" and monitor.stop.disabled
    assert monitor.update().phase == "waiting"


async def start_training(watched, settings) -> asyncio.Future:
    """Start a training cell and wait until its view shows an epoch."""
    cell = asyncio.ensure_future(train(settings))
    while not watched or "in epoch" not in page_text(watched[0]):
        await asyncio.sleep(0.01)
    return cell


@pytest.mark.slow
def test_stopped_by_the_button_and_continued_in_the_same_cell(watched, tiny_settings):
    settings = tiny_settings(epochs=30)

    async def press_stop():
        cell = await start_training(watched, settings)
        button_of(watched[0]).click()
        return await cell

    run = asyncio.run(press_stop())
    done = run.load()["step"]
    assert 0 < done < 90 and not run.is_finished()
    assert "run the training cell again to continue" in watched[-1].data

    watched.clear()
    continued = asyncio.run(train(settings))
    assert continued.is_finished() and "finished: 30 epochs" in watched[-1].data


def test_a_stop_within_the_first_epoch_leaves_no_numbers(fast, tiny_settings, monkeypatch):
    settings = tiny_settings(epochs=2)
    run = RunDir(settings.run_dir)
    monitor = TrainingMonitor(run.folder)
    assert not monitor.numbers.value  # no row of dashes before anything was measured
    states_while(settings, monkeypatch, lambda: (monitor.update(), run.ask_to_stop()))
    state = monitor.update()
    assert state.phase == "stopped" and not state.log
    assert not monitor.numbers.value and monitor.bar.value == 0


def button_of(view):
    return view.children[0].children[0]


def page_text(view) -> str:
    return view.children[0].children[1].value


def test_an_interrupted_cell_saves_and_ends(watched, tiny_settings):
    settings = tiny_settings(epochs=40)

    async def interrupt():
        cell = await start_training(watched, settings)
        cell.cancel()  # what the kernel does on "interrupt"
        await cell

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(interrupt())
    run = RunDir(settings.run_dir)
    assert run.saved_progress() and not run.is_finished() and lock_owner(run.lock_path) is None


def test_a_failed_worker_shows_its_traceback(watched, tiny_settings, monkeypatch):
    def fail(self):
        raise RuntimeError("no <space> left")

    monkeypatch.setattr(trainer.Trainer, "validate", fail)
    settings = tiny_settings(epochs=2)
    with pytest.raises(RuntimeError, match="no <space> left"):
        asyncio.run(train(settings))
    monitor = TrainingMonitor(settings.run_dir)
    assert monitor.status.phase == "failed"
    assert html.escape("RuntimeError: no <space> left") in monitor.error.value
    assert "process 0 of 1" in monitor.error.value and "Traceback" in monitor.error.value


def test_the_traceback_goes_when_the_run_is_continued(fast, tiny_settings):
    settings = tiny_settings(epochs=1)
    run = RunDir(settings.run_dir)
    run.folder.mkdir(parents=True)
    run.error_path.write_text("old")
    fit(settings)
    assert not run.error_path.exists() and read_status(run.folder).phase == "finished"


def test_a_run_of_another_process_is_followed_and_not_trained(watched, tiny_settings, capsys):
    settings = tiny_settings(epochs=1)
    run = RunDir(settings.run_dir)
    run.start(settings)

    async def follow():
        with file_lock(run.lock_path):
            cell = asyncio.ensure_future(train(settings))
            while not watched:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            assert not cell.done()
            run.append_log({"epoch": 1, "step": 3, "loss/total": 1.0})
            run.save({"model": {}, "step": 3, "epoch": 1})
        return await cell

    assert asyncio.run(follow()).folder == run.folder
    assert "following it" in capsys.readouterr().out
    with file_lock(run.lock_path), pytest.raises(ValueError, match="lr: 0.05 there, 0.1 here"):
        asyncio.run(train(tiny_settings(epochs=1, lr=0.1)))


def test_without_a_reader_the_lines_are_printed_and_nothing_is_displayed(
    fast, tiny_settings, capsys
):
    run = asyncio.run(train(tiny_settings(epochs=1)))
    assert run.is_finished() and "epoch 1/1 | loss" in capsys.readouterr().out


# --- Folders that are not as they should be -------------------------------------------------------


def test_a_folder_deleted_while_it_is_shown(fast, tiny_settings):
    settings = tiny_settings(epochs=1)
    monitor = TrainingMonitor(fit(settings).folder)
    assert monitor.curves.value and "finished" in monitor.headline.value
    shutil.rmtree(settings.run_dir)
    assert monitor.update().phase == "missing"
    assert "there is no run" in monitor.headline.value and not monitor.curves.value
    monitor.stop.click()
    assert not RunDir(settings.run_dir).folder.exists()


def test_a_run_without_validation_is_shown_as_far_as_it_is(tmp_path, tiny_settings):
    settings = tiny_settings()
    run = RunDir(settings.run_dir)
    run.start(settings)
    log = pd.DataFrame(run.log_entries())
    figure = plot_learning_curves(log)
    assert figure.texts[0].get_text() == "no epoch of this run has ended yet"
    run.append_log({"epoch": 1, "step": 3, "lr": 0.1, "loss/total": 1.0, "loss/labeled": 1.0})
    log = pd.DataFrame(run.log_entries())
    assert len(plot_learning_curves(log).axes) == 3
    monitor = TrainingMonitor(run.folder)
    assert "<b>–</b>" in monitor.numbers.value and monitor.curves.value


def test_a_half_written_settings_file_is_a_missing_run(tmp_path):
    (tmp_path / "params.yaml").write_text("epochs: [")
    assert read_status(tmp_path).phase == "missing"
