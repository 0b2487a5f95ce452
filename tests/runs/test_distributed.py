"""Launching processes; the workers are in processes.py, where spawned ones find them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import processes
import pytest
import torch

from lib.config import PROJECT_ROOT
from lib.runs.device import resolve_device
from lib.runs.distributed import DistContext, launch, num_threads, resolve_num_processes
from lib.train.batch_norm import average_buffers

SAID = {  # what two processes tell each other, by rank
    rank: ["2", "[3.0, 20.0]", "['rank 0', 'rank 1']", "[True, False]", "cpu"] for rank in (0, 1)
}


def start_launch(folder: Path, worker: str, *python: str, **streams) -> subprocess.Popen:
    """Start a script that launches a worker in two processes."""
    script = folder / "main.py"
    script.write_text(
        f"""
from pathlib import Path
import processes
from lib.runs.distributed import launch
if __name__ == "__main__":
    folder = Path({str(folder)!r})
    launch(processes.{worker}, (folder,), 2, "cpu")
"""
    )
    path = os.pathsep.join([str(PROJECT_ROOT), str(PROJECT_ROOT / "tests")])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, *python, str(script)], env=environment, **streams)


def wait_until(is_reached, what: str, patience_s: float = 120) -> None:
    """Wait for something that comes soon on any machine; the bound only ends a broken test."""
    end = time.monotonic() + patience_s
    while not is_reached():
        assert time.monotonic() < end, f"still waiting: {what}"
        time.sleep(0.1)


def test_one_process_on_a_cpu_runs_right_here(tmp_path):
    seen = []
    launch(
        lambda world, *args: seen.append((world, args, os.getpid())),  # no pickling needed
        ("a", 1),
        1,
        "cpu",
        follow=lambda: seen.append("follow"),
    )
    assert seen[0] == (DistContext(0, 1, torch.device("cpu")), ("a", 1), os.getpid())
    assert seen[-1] == "follow"  # also after the end


@pytest.mark.parametrize(("asked", "threads"), [(None, 1), ("3", 3)])
def test_a_process_computes_with_one_thread_unless_asked(tmp_path, monkeypatch, asked, threads):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if asked:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    before, seen = torch.get_num_threads(), []
    launch(lambda world: seen.append(torch.get_num_threads()), (), 1, "cpu")
    assert seen == [threads] == [num_threads(1)] and torch.get_num_threads() == before
    assert num_threads(2) == 1  # processes share what was asked for


@pytest.mark.parametrize("chosen", [None, "ACTIVE"])
def test_threads_sleep_while_they_wait_unless_told_otherwise(monkeypatch, chosen):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if chosen:
        monkeypatch.setenv("OMP_WAIT_POLICY", chosen)
    code = "import lib, os, sys; print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=PROJECT_ROOT, capture_output=True)
    assert run.stdout.decode().split() == [chosen or "PASSIVE", "False"]


def test_progress_is_followed_while_the_worker_runs(tmp_path):
    followed = []

    def worker(world):
        wait_until(lambda: len(followed) > 1, "follow")

    launch(worker, (), 1, "cpu", follow=lambda: followed.append(1))


def test_an_error_in_this_process_is_raised_as_it_is(tmp_path):
    def worker(world):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        launch(worker, (), 1, "cpu")


def test_a_world_of_one_tells_itself():
    world = DistContext(0, 1, torch.device("cpu"))
    assert world.all_reduce(torch.tensor([2.0])).tolist() == [2]
    assert world.all_gather("x") == ["x"] and world.broadcast(True) and not world.broadcast(False)


def test_two_processes_talk(tmp_path, monkeypatch):
    meeting, followed = tmp_path / "temporary", []
    meeting.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(meeting))
    launch(processes.talk_worker, (tmp_path,), 2, "cpu", lambda: followed.append(1))
    for rank, lines in SAID.items():
        assert (tmp_path / f"{rank}.txt").read_text().splitlines() == lines
    assert followed and not list(meeting.iterdir())


@pytest.mark.parametrize("worker", ["failing_worker", "failing_loader_worker"])
def test_a_failed_process_ends_the_others_and_its_traceback_is_raised(tmp_path, worker):
    with pytest.raises(torch.multiprocessing.ProcessRaisedException) as error:
        launch(getattr(processes, worker), (tmp_path,), 2, "cpu")
    assert "rank 1 has a bad day" in str(error.value) and error.value.error_index == 1
    assert worker in str(error.value)  # where it happened
    wait_until(lambda: not processes.is_alive(tmp_path, 0), "the end of rank 0")


def test_a_process_that_fails_leaves_without_the_others(tmp_path):
    """Its group is not taken down, which with nccl would wait for them; the first error is told."""
    with pytest.raises(torch.multiprocessing.ProcessRaisedException, match="bad day") as error:
        launch(processes.absent_worker, (tmp_path,), 2, "cpu")
    assert error.value.error_index == 1 and "destroy_process_group" not in str(error.value)
    assert not (tmp_path / "torn down").exists()


def test_torchrun_hears_of_a_process_that_fails(tmp_path):
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    process = start_launch(tmp_path, "failing_worker", *torchrun, stderr=subprocess.PIPE, text=True)
    said = process.communicate(timeout=120)[1]
    assert process.returncode and "rank 1 has a bad day" in said
    wait_until(lambda: not processes.is_alive(tmp_path, 0), "the end of rank 0")


def test_a_dead_parent_leaves_no_orphan(tmp_path):
    parent = start_launch(tmp_path, "sleep_worker")
    try:
        for rank in (0, 1):
            wait_until((tmp_path / f"{rank}.started").exists, f"the start of rank {rank}")
        assert processes.is_alive(tmp_path, 0) and processes.is_alive(tmp_path, 1)
    finally:
        parent.send_signal(signal.SIGKILL)  # as a kernel that is out of memory
        parent.wait()
    for rank in (0, 1):
        wait_until(lambda rank=rank: not processes.is_alive(tmp_path, rank), f"end of rank {rank}")


def test_a_torchrun_world_is_joined(tmp_path):
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    assert start_launch(tmp_path, "talk_worker", *torchrun).wait() == 0
    for rank, lines in SAID.items():
        assert (tmp_path / f"{rank}.txt").read_text().splitlines() == lines


def test_devices_and_numbers_of_processes():
    has_cuda = torch.cuda.is_available()
    assert resolve_device("cpu") == "cpu"
    assert resolve_device("auto") == ("cuda" if has_cuda else "cpu")
    assert resolve_num_processes(0, "cpu") == 1 and resolve_num_processes(3, "cpu") == 3
    if has_cuda:
        assert resolve_num_processes(0, "cuda") == torch.cuda.device_count()
        with pytest.raises(ValueError, match="num_processes: 99 were asked for"):
            resolve_num_processes(99, "cuda")
    else:
        with pytest.raises(ValueError, match="device: 'cuda': PyTorch .* sees no GPU"):
            resolve_device("cuda")


def test_batch_norm_is_tested_with_the_mean_of_what_the_processes_saw(monkeypatch):
    other = torch.tensor([3.0, 5.0])
    norm = torch.nn.BatchNorm1d(2)
    norm.running_mean.copy_(torch.tensor([1.0, 2.0]))
    norm.running_var.copy_(other)  # the same in both
    monkeypatch.setattr(DistContext, "sum_", lambda self, tensor: tensor.add_(other))
    average_buffers(norm, DistContext(0, 2, torch.device("cpu")))
    assert norm.running_mean.tolist() == [2.0, 3.5] and norm.running_var.tolist() == [3.0, 5.0]
