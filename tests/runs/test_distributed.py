"""Launching processes; the workers are in processes.py, where spawned ones find them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import processes
import psutil
import pytest
import torch

from lib.config import PROJECT_ROOT
from lib.runs import distributed
from lib.runs.device import resolve_device
from lib.runs.distributed import DistContext, launch, num_threads, resolve_num_processes
from lib.train.run_model import average_batch_norm

EXCHANGED = {  # what `talk_worker` saves, by rank
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
    launch(processes.{worker}, (folder,), 2, "cpu", (folder / "polled").touch)
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


def wait_for_children(process: subprocess.Popen) -> list[psutil.Process]:
    """Return the children of a launch as soon as all are there: two, and the resource tracker."""
    while len(children := psutil.Process(process.pid).children()) < 3:
        time.sleep(0.01)
    return children


def test_one_process_on_a_cpu_runs_in_this_process():
    seen = []
    launch(
        lambda world, *args: seen.append((world, args, os.getpid())),  # no pickling needed
        ("a", 1),
        1,
        "cpu",
        on_poll=lambda: seen.append("poll"),
    )
    assert seen[0] == (DistContext(0, 1, torch.device("cpu")), ("a", 1), os.getpid())
    assert seen[-1] == "poll"  # also after the end


@pytest.mark.parametrize(("asked", "threads"), [(None, 1), ("3", 3)])
def test_process_computes_with_one_thread_or_omp_num_threads(monkeypatch, asked, threads):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if asked:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    before, seen = torch.get_num_threads(), []
    launch(lambda world: seen.append(torch.get_num_threads()), (), 1, "cpu")
    assert seen == [threads] == [num_threads(1)] and torch.get_num_threads() == before
    assert num_threads(2) == 1  # processes share what was asked for


@pytest.mark.parametrize("chosen", [None, "ACTIVE"])
def test_idle_threads_sleep_unless_omp_wait_policy_is_set(monkeypatch, chosen):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if chosen:
        monkeypatch.setenv("OMP_WAIT_POLICY", chosen)
    code = "import lib, os, sys; print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=PROJECT_ROOT, capture_output=True)
    assert run.stdout.decode().split() == [chosen or "PASSIVE", "False"]


def test_on_poll_is_called_while_the_worker_runs():
    calls = []

    def worker(world):
        wait_until(lambda: len(calls) > 1, "on_poll")

    launch(worker, (), 1, "cpu", on_poll=lambda: calls.append(1))


def test_error_in_this_process_is_raised_unchanged():
    def worker(world):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        launch(worker, (), 1, "cpu")


def test_collectives_of_one_process_return_its_value():
    world = DistContext(0, 1, torch.device("cpu"))
    assert world.all_reduce(torch.tensor([2.0])).tolist() == [2]
    assert world.all_gather("x") == ["x"] and world.broadcast(True) and not world.broadcast(False)


@pytest.mark.slow
def test_failed_process_ends_the_others_and_its_traceback_is_raised(tmp_path):
    """Also if a loader process of it ignores SIGTERM."""
    with pytest.raises(torch.multiprocessing.ProcessRaisedException) as error:
        launch(processes.failing_loader_worker, (tmp_path,), 2, "cpu")
    assert "rank 1 has a bad day" in str(error.value) and error.value.error_index == 1
    assert "failing_loader_worker" in str(error.value)  # where it happened
    wait_until(lambda: not processes.is_alive(tmp_path, 0), "the end of rank 0")


@pytest.mark.slow
def test_failed_process_does_not_destroy_its_group(tmp_path):
    """With nccl that would wait for the others, and the error would not be shown."""
    with pytest.raises(torch.multiprocessing.ProcessRaisedException, match="bad day") as error:
        launch(processes.absent_worker, (tmp_path,), 2, "cpu")
    assert error.value.error_index == 1 and "destroy_process_group" not in str(error.value)
    assert not (tmp_path / "destroyed").exists()


@pytest.mark.slow
def test_killed_process_is_named_and_not_the_one_that_lost_its_connection(tmp_path, monkeypatch):
    """Also if both have ended when the parent looks at them: it was busy meanwhile."""
    real = distributed.mp.spawn

    def spawn(*arguments, **options):
        context = real(*arguments, **options)
        wait_until(lambda: all(p.exitcode for p in context.processes), "the end of both")
        return context

    monkeypatch.setattr(distributed.mp, "spawn", spawn)
    with pytest.raises(ChildProcessError, match="process 1 of 2: ended by SIGKILL, as the system"):
        launch(processes.killed_worker, (tmp_path,), 2, "cpu")


@pytest.mark.slow
def test_two_processes_exchange_values_in_spite_of_signals_during_their_start(
    tmp_path, monkeypatch
):
    """As a cluster sends them: to all processes, while the spawned ones import PyTorch."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    process = start_launch(tmp_path, "talk_worker", start_new_session=True)
    for child in wait_for_children(process):
        child.terminate()
    assert process.wait() == 0
    for rank, lines in EXCHANGED.items():
        assert (tmp_path / f"{rank}.txt").read_text().splitlines() == lines
    assert (tmp_path / "polled").exists() and not list(temporary.iterdir())


@pytest.mark.slow
def test_torchrun_gets_the_error_of_a_failed_process(tmp_path):
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    process = start_launch(tmp_path, "failing_worker", *torchrun, stderr=subprocess.PIPE, text=True)
    output = process.communicate(timeout=120)[1]
    assert process.returncode and "rank 1 has a bad day" in output
    wait_until(lambda: not processes.is_alive(tmp_path, 0), "the end of rank 0")


@pytest.mark.slow
def test_processes_that_still_import_end_when_their_parent_is_killed(tmp_path):
    parent = start_launch(tmp_path, "sleep_worker")
    children = wait_for_children(parent)
    parent.kill()
    parent.wait()
    assert psutil.wait_procs(children, timeout=60)[1] == []
    assert not (tmp_path / "0.started").exists()


@pytest.mark.slow
def test_processes_end_when_their_parent_is_killed(tmp_path):
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


@pytest.mark.slow
def test_launch_joins_torchrun(tmp_path):
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    assert start_launch(tmp_path, "talk_worker", *torchrun).wait() == 0
    for rank, lines in EXCHANGED.items():
        assert (tmp_path / f"{rank}.txt").read_text().splitlines() == lines


def test_number_of_processes():
    has_cuda = torch.cuda.is_available()
    assert resolve_device("cpu") == "cpu"
    assert resolve_device("auto") == ("cuda" if has_cuda else "cpu")
    assert resolve_num_processes(0, "cpu") == 1 and resolve_num_processes(3, "cpu") == 3
    if has_cuda:
        assert resolve_num_processes(0, "cuda") == torch.cuda.device_count()
        with pytest.raises(ValueError, match="num_processes: 99 is more than"):
            resolve_num_processes(99, "cuda")
    else:
        with pytest.raises(ValueError, match="device: 'cuda': "):
            resolve_device("cuda")


def test_batch_norm_buffers_are_averaged_over_processes(monkeypatch):
    other = torch.tensor([3.0, 5.0])
    norm = torch.nn.BatchNorm1d(2)
    norm.running_mean.copy_(torch.tensor([1.0, 2.0]))
    norm.running_var.copy_(other)  # the same in both
    monkeypatch.setattr(DistContext, "all_reduce", lambda self, tensor: tensor.add_(other))
    average_batch_norm(norm, DistContext(0, 2, torch.device("cpu")))
    assert norm.running_mean.tolist() == [2.0, 3.5] and norm.running_var.tolist() == [3.0, 5.0]
