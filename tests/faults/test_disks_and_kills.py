"""Disks that are full or vanish, and processes that are killed: it is said which."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from processes import killed_worker, late_worker
from test_distributed import wait_until
from torch.multiprocessing import ProcessRaisedException

from lib.config import PROJECT_ROOT
from lib.fileio import write_atomic
from lib.runs.distributed import launch
from lib.runs.progress import LogFollower, ProgressFile
from lib.runs.run_dir import RunDir
from lib.train.fit import fit


def test_a_full_disk_names_the_file_and_the_remedy(tmp_path):
    path = tmp_path / "last.pt"
    path.write_text("before")
    with pytest.raises(OSError, match=r"No space left on device; make room there.*last\.pt"):
        write_atomic(path, lambda _: Path("/dev/full").write_text("a checkpoint"))
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_names_the_file_and_the_remedy(tmp_path):
    (tmp_path / "run").write_text("a file in the place of a folder")
    with pytest.raises(OSError, match=r"cannot be written: .*call the same again.*last\.pt"):
        write_atomic(tmp_path / "run" / "last.pt", lambda path: path.touch())


def test_progress_that_cannot_be_written_or_shown_ends_nothing(tmp_path):
    run = RunDir(tmp_path)
    run.progress_path.mkdir()
    follower = LogFollower(run, epochs=2)
    ProgressFile(run, 0, 10, 5).write(1, 0.1, 3.0, {})
    run.log_path.write_text("{damaged\n")
    follower.show()


def test_a_run_folder_that_is_deleted_is_noticed(tiny_settings, at_forward):
    settings = tiny_settings(epochs=3)
    folder = RunDir(settings.run_dir).folder
    at_forward(2, lambda: shutil.rmtree(folder))
    with pytest.raises(FileNotFoundError, match="was deleted while it was trained"):
        fit(settings)


def test_the_process_that_was_killed_is_named_and_not_its_neighbour(tmp_path):
    with pytest.raises(ChildProcessError, match="process 1 of 2 was ended by SIGKILL, as the"):
        launch(killed_worker, (tmp_path,), 2, "cpu")


def test_the_killed_process_is_named_when_its_neighbour_was_seen_first(tmp_path, monkeypatch):
    """Both are dead when the parent looks again: it was busy, or the machine was."""
    with pytest.raises(ChildProcessError, match="process 1 of 2 was ended by SIGKILL"):
        launch(killed_worker, (tmp_path,), 2, "cpu", lambda: time.sleep(5))


def test_of_two_processes_that_fail_the_first_is_shown(tmp_path):
    with pytest.raises(ProcessRaisedException, match="(?s)process 1 of 2 failed.*the first"):
        launch(late_worker, (tmp_path,), 2, "cpu", lambda: time.sleep(3))


def test_a_process_that_only_imports_notices_that_its_parent_is_dead(tmp_path):
    script = tmp_path / "main.py"
    script.write_text(
        """
import sys, types
from lib.runs.distributed import launch
if __name__ == "__main__":
    worker = lambda world: None
    worker.__module__, worker.__qualname__ = "slow_import", "worker"
    sys.modules["slow_import"] = types.SimpleNamespace(worker=worker)
    launch(worker, (), 2, "cpu")
"""
    )
    (tmp_path / "at").mkdir()
    path = os.pathsep.join([str(PROJECT_ROOT), str(PROJECT_ROOT / "tests")])
    environment = os.environ | {"PYTHONPATH": path, "IMPORTING": str(tmp_path / "at")}
    parent = subprocess.Popen([sys.executable, str(script)], env=environment)
    wait_until(lambda: len(list((tmp_path / "at").iterdir())) == 2, "both processes to import")
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    pids = [int(file.name) for file in (tmp_path / "at").iterdir()]
    wait_until(lambda: not any(map(psutil.pid_exists, pids)), "their end", patience_s=30)


SHORT_OF_MEMORY = """
import sys, yaml
from lib.config import TrainSettings
from lib.train.fit import fit
fit(TrainSettings(**yaml.safe_load(open(sys.argv[1]))))
"""


@pytest.mark.parametrize("size", ["4k", "100k", "128k"])
def test_shared_memory_that_is_too_small_ends_a_run(tiny_settings, tmp_path, fault, size):
    """Of the first the queues have none, of the others the clips; nothing waits for them."""
    (tmp_path / "run.yaml").write_text(tiny_settings(num_workers=1).as_yaml())
    mount = f"mount -t tmpfs -o size={size} tmpfs /dev/shm"
    may = subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True)
    if may.returncode:
        pytest.skip("no file system can be mounted here")
    python = [sys.executable, "-c", SHORT_OF_MEMORY, str(tmp_path / "run.yaml")]
    command = ["unshare", "-m", "sh", "-c", f'{mount} && exec "$@"', "sh", *python]
    environment = os.environ | {"PYTHONPATH": str(PROJECT_ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, timeout=90)
    assert done.returncode
    fault(f"/dev/shm of {size}", 1, 0)
