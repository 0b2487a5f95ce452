"""Disks that are full or removed, shared memory that is too small, videos that are damaged."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lib.config import PROJECT_ROOT
from lib.fileio import write_atomic
from lib.prepare.synthetic import make_synthetic
from lib.runs.progress import LogPrinter, Meter, ProgressFile
from lib.runs.run_dir import RunDir
from lib.train.fit import fit
from lib.train.run_data import load_data


def test_full_disk_names_the_file_and_the_remedy(tmp_path):
    path = tmp_path / "best.pt"
    path.write_text("before")
    with pytest.raises(OSError, match=r"No space left on device.; free space .*best\.pt"):
        write_atomic(path, lambda _: Path("/dev/full").write_text("a table"))
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_folder_that_cannot_be_created_names_the_file_and_the_remedy(tmp_path):
    (tmp_path / "run").write_text("a file in the place of a folder")
    with pytest.raises(OSError, match=r"cannot be written .*then run again.*best\.pt"):
        write_atomic(tmp_path / "run" / "best.pt", lambda path: path.touch())


def test_progress_that_cannot_be_written_or_printed_does_not_end_training(tmp_path):
    run = RunDir(tmp_path)
    run.progress_path.mkdir()
    printer = LogPrinter(run, epochs=2)
    ProgressFile(run, 0, 10).update(1, 0.1, Meter())
    run.log_path.write_text("{damaged\n")
    printer.update()


def test_run_folder_deleted_during_training_ends_the_run(tiny_settings, at_forward):
    settings = tiny_settings(epochs=3)
    folder = RunDir(settings.run_dir).folder
    at_forward(2, lambda: shutil.rmtree(folder))
    with pytest.raises(FileNotFoundError, match="deleted during training"):
        fit(settings)


SMALL_MEMORY = """
import sys, yaml
from lib.config import TrainSettings
from lib.data import clip_dataset
from lib.train.fit import fit
clip_dataset.TIMEOUT_S = 2
fit(TrainSettings(**yaml.safe_load(open(sys.argv[1]))))
"""


@pytest.mark.slow
@pytest.mark.parametrize("size", ["4k", "128k"])  # too small for the queues; for the clips
def test_too_small_shared_memory_ends_the_run(tiny_settings, tmp_path, fault, size):
    (tmp_path / "run.yaml").write_text(tiny_settings(num_workers=1).as_yaml())
    mount = f"mount -t tmpfs -o size={size} tmpfs /dev/shm"
    if subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    python = [sys.executable, "-c", SMALL_MEMORY, str(tmp_path / "run.yaml")]
    command = ["unshare", "-m", "sh", "-c", f'{mount} && exec "$@"', "sh", *python]
    environment = os.environ | {"PYTHONPATH": str(PROJECT_ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, timeout=300)
    assert done.returncode
    fault(f"/dev/shm of {size}", 1, 0)


def test_damaged_video_ends_the_run_and_is_named(tiny_settings, tiny_network, tmp_path, fault):
    folder = tmp_path / "data" / "synthetic"
    make_synthetic(folder, split_sizes={"train": 6, "val": 4, "val_swapped": 4})
    settings = tiny_settings(prepared_dir=str(folder.parent), epochs=2, frame_cache_mb=0)
    data = load_data(settings)
    path = data.labeled.record(int(data.labeled_rows[0])).path
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match="cannot be read as a video.*prepare the data") as error:
        fit(settings)
    assert str(path) in str(error.value)
    fault("damaged video stops the run", 1, 0)
