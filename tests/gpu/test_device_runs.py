"""Whole runs on a device: stopped and continued, ended by a signal, without needless waiting."""

import os
import signal
import subprocess
import sys
import time
import warnings

import pytest
import torch

from lib.config import PROJECT_ROOT
from lib.runs import progress
from lib.runs.distributed import DistContext
from lib.runs.run_dir import RunDir
from lib.train import fit, trainer


@pytest.fixture
def in_this_process(monkeypatch):
    """Train on a GPU in this process too, where a test can interfere."""

    def call(worker, args, num_processes, device, on_poll):
        worker(DistContext(0, 1, torch.device(device)), *args)

    monkeypatch.setattr(fit, "launch", call)


@pytest.mark.slow
def test_stopped_run_continues_as_if_it_had_not_stopped(
    device, in_this_process, tiny_settings, at_forward, monkeypatch, tmp_path
):
    """Bit for bit on a CPU; on CUDA the order of some sums is not fixed."""
    monkeypatch.setattr(trainer, "STOP_CHECK_STEPS", 1)
    changes = {"device": device.type, "epochs": 4, "num_processes": 1, "lr": 0.01}
    whole = fit.fit(tiny_settings(run_dir=str(tmp_path / "whole"), **changes))
    settings = tiny_settings(**changes)
    run = RunDir(settings.run_dir)
    at_forward(7, run.ask_to_stop)
    fit.fit(settings)
    progress_then = run.saved_progress()
    fit.fit(settings)
    assert progress_then == (8, 2) and run.is_finished()
    losses = [[entry["loss/total"] for entry in part.log_entries()] for part in (whole, run)]
    assert losses[1] == pytest.approx(losses[0], rel=0 if device.type == "cpu" else 1e-3)


@pytest.mark.gpu
def test_step_waits_for_the_gpu_only_to_check_for_nan(
    in_this_process, tiny_settings, at_forward, monkeypatch
):
    monkeypatch.setattr(progress, "WRITE_INTERVAL_S", 1e9)
    at_forward(3, lambda: torch.cuda.set_sync_debug_mode("warn"))
    at_forward(4, lambda: torch.cuda.set_sync_debug_mode("default"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit.fit(tiny_settings(device="cuda", num_processes=1, epochs=3, val_every_epochs=3))
    library = str(PROJECT_ROOT / "lib")
    places = {f"{w.filename}:{w.lineno}" for w in caught if "synchroniz" in str(w.message)}
    assert len([place for place in places if place.startswith(library)]) <= 1, places


@pytest.mark.gpu
def test_sigterm_to_all_processes_on_the_gpus_saves_and_ends(tiny_settings, tmp_path):
    settings = tiny_settings(device="cuda", num_processes=0, num_workers=1, epochs=500)
    (tmp_path / "run.yaml").write_text(settings.as_yaml())
    run = RunDir(settings.run_dir)
    command = [sys.executable, "-m", "lib.train.fit", str(tmp_path / "run.yaml")]
    process = subprocess.Popen(command, cwd=PROJECT_ROOT, start_new_session=True)
    while not run.log_entries():
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(timeout=60) == 130
    assert run.saved_progress().epoch >= 1 and not run.is_finished()
