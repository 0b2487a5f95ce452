"""Disks that are full or vanish, and processes that are killed: it is said which."""

import shutil
from pathlib import Path

import pytest
from processes import killed_worker

from lib.files import write_atomic
from lib.learn.training import fit
from lib.run.folder import Run
from lib.run.processes import launch
from lib.run.progress import LogFollower, ProgressFile


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
    run = Run(tmp_path)
    run.progress_path.mkdir()
    follower = LogFollower(run, epochs=2)
    ProgressFile(run, 0, 10, 5).write(1, 0.1, 3.0, {})
    run.log_path.write_text("{damaged\n")
    follower.show()


def test_a_run_folder_that_is_deleted_is_noticed(tiny_settings, at_forward):
    settings = tiny_settings(epochs=3)
    folder = Run(settings.run_dir).folder
    at_forward(2, lambda: shutil.rmtree(folder))
    with pytest.raises(FileNotFoundError, match="was deleted while it was trained"):
        fit(settings)


def test_the_process_that_was_killed_is_named_and_not_its_neighbour(tmp_path):
    with pytest.raises(ChildProcessError, match="process 1 of 2 was ended by SIGKILL, as the"):
        launch(killed_worker, (tmp_path,), 2, "cpu", tmp_path / "rendezvous")
