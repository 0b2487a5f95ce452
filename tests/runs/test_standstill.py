"""A run that makes no step says whom it waits for, and ends when it is asked to."""

import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import psutil
import pytest
from test_distributed import wait_until

from lib.config import PROJECT_ROOT
from lib.runs import hang_detector as standstill
from lib.runs.hang_detector import Pulse, Standstill, pulse_path
from lib.runs.run_dir import RunDir
from lib.train.fit import fit

HOST = socket.gethostname()


@pytest.fixture
def soon(monkeypatch):
    """Do not wait for a minute."""
    monkeypatch.setattr(standstill, "STILL_S", 3.0)


def write_places(folder, *places: str) -> None:
    for rank, place in enumerate(places):
        pulse_path(folder, rank).write_text(place)


@pytest.mark.parametrize(
    ("places", "waited_for"),
    [
        (("7 far 5 9 computes", "8 far 5 8 reads clips"), "process 1 of 2, 8 on far, which reads"),
        (("7 far 4 9 validates", "8 far 5 8 reads clips"), "process 0 of 2, 7 on far, which valid"),
        (("7 far 5 9 computes",), "process 1 of 2, which has not begun"),
        (("7 far 5 9 computes", "8 far 5"), "process 1 of 2, which has not begun"),  # half a line
        (("7 far 5 9 computes", "8 far 5 9 computes"), "process 0 of 2.* and process 1 of 2"),
    ],
)
def test_the_process_that_is_behind_is_waited_for(tmp_path, monkeypatch, places, waited_for):
    monkeypatch.setattr(standstill, "STILL_S", 0.0)
    write_places(tmp_path, *places)
    problem = Standstill(tmp_path, 2).problem()
    assert problem.startswith("no step for 0 s: waiting for process ")
    assert re.search(waited_for, problem), problem


def test_it_moves_as_long_as_one_line_changes(tmp_path, monkeypatch):
    format_duration = iter(range(0, 1000, 40))
    monkeypatch.setattr(standstill.time, "monotonic", lambda: next(format_duration))
    pulse, watch = Pulse(tmp_path, 0), Standstill(tmp_path, 1)
    for _ in range(5):
        pulse.at(3, "validates")  # the same place, but another batch
        assert watch.problem() is None
    assert "no step for 80 s" in watch.problem()


def stop_a_process(run: RunDir, is_loader: bool, others: set[int]) -> psutil.Process:
    """Stop a spawned process of a run that trains, or a loader's process, as a debugger would.

    `others` are child processes of before, which have nothing to do with the run.
    """
    place = standstill.read_place
    path = pulse_path(run.folder, 0 if is_loader else 1)
    wait_until(lambda: (found := place(path)) and found.step > 5, "some steps")
    process = psutil.Process(place(path).pid)
    if is_loader:
        own = [child for child in process.children() if child.pid not in others]
        process = next(child for child in own if "resource_tracker" not in str(child.cmdline()))
    process.send_signal(signal.SIGSTOP)
    seen = [None, place(path)]
    while seen[-1] != seen[-2]:
        time.sleep(1)
        seen.append(place(path))
    return process


@pytest.mark.parametrize("num_processes", [1, 2])
def test_a_stop_is_honoured_although_a_process_is_stopped(
    tiny_settings, tiny_network, soon, capsys, num_processes
):
    """With one process it is one of its loader's, with two it is one of them."""
    settings = tiny_settings(
        epochs=3000,
        val_every_epochs=3000,
        num_processes=num_processes,
        num_workers=2 - num_processes,
    )
    run, stopped = RunDir(settings.run_dir), []
    others = {child.pid for child in psutil.Process().children()}

    def stop_and_ask():
        stopped.append(stop_a_process(run, num_processes == 1, others))
        run.ask_to_stop()

    thread = threading.Thread(target=stop_and_ask)
    thread.start()
    fit(settings)
    thread.join()
    assert (run.saved_progress() is not None) == (
        num_processes == 1
    )  # two were in the middle of a step
    said = capsys.readouterr().out
    assert f"no step for 3 s: waiting for process {num_processes - 1} of {num_processes}" in said
    assert f"{stopped[0].pid} is stopped (kill -CONT)" in said
    assert "ended at once, the same call goes on from the last checkpoint" in said
    assert not run.error_path.exists()
    wait_until(lambda: not is_there(stopped[0]), "its end")


def test_what_a_killed_process_said_is_taken_away(tiny_settings, tiny_network):
    """Its neighbour has a part of what only both together could continue, and saves nothing."""
    run = RunDir((settings := tiny_settings(epochs=3000, num_processes=2)).run_dir)
    saved = []

    def kill_one():
        place, path = standstill.read_place, pulse_path(run.folder, 1)
        wait_until(
            lambda: run.saved_progress() and (found := place(path)) and found.step > 5, "some steps"
        )
        saved.append(len(run.load()["ranks"]))
        os.kill(place(path).pid, signal.SIGKILL)

    thread = threading.Thread(target=kill_one)
    thread.start()
    with pytest.raises(ChildProcessError, match="process 1 of 2 was ended by SIGKILL"):
        fit(settings)
    thread.join()
    assert saved == [2] and len(run.load()["ranks"]) == 2
    assert not list(run.folder.glob(".pulse.*")) and not run.progress_path.exists()


def start_torchrun(tiny_settings, tmp_path) -> tuple[RunDir, subprocess.Popen]:
    """Start a run of two processes under torchrun, which look for a standstill after 3 s."""
    (tmp_path / "run.yaml").write_text(tiny_settings(epochs=3000, val_every_epochs=3000).as_yaml())
    script = tmp_path / "main.py"
    script.write_text(
        f"""
from lib.train import fit
from lib.runs import hang_detector as standstill
import tiny
standstill.STILL_S, training.train_worker = 3.0, tiny.tiny_worker
training.exit_now(training.main([{str(tmp_path / "run.yaml")!r}]))
"""
    )
    path = os.pathsep.join([str(PROJECT_ROOT), str(PROJECT_ROOT / "tests")])
    # torchrun waits for 30 s before it kills what is stopped, if it cannot be told otherwise
    ours = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "2"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen([*torchrun, str(script)], env=os.environ | ours, **streams)
    return RunDir(tmp_path / "run"), process


def test_under_torchrun_a_stop_is_honoured_although_a_process_is_stopped(tiny_settings, tmp_path):
    run, process = start_torchrun(tiny_settings, tmp_path)
    try:
        stopped = stop_a_process(run, is_loader=False, others=set())
        run.ask_to_stop()
        said = process.communicate(timeout=120)[0]
    finally:
        process.kill()
    assert process.returncode
    assert "no step for 3 s: waiting for process 1 of 2" in said
    assert f"{stopped.pid} is stopped (kill -CONT)" in said
    assert "ended, the same call goes on from the last checkpoint" in said
    wait_until(lambda: not stopped.is_running(), "its end")


def is_there(process: psutil.Process) -> bool:
    multiprocessing.active_children()  # takes note of those that have ended
    return process.is_running()


def test_a_full_disk_does_not_end_what_says_where_it_is(tmp_path):
    pulse = Pulse(tmp_path, 0)
    pulse.file = open("/dev/full", "wb", buffering=0)
    pulse.at(1, "computes")
    assert Pulse(tmp_path / "gone", 0).at(1, "computes") is None
    assert os.listdir(tmp_path) == []
