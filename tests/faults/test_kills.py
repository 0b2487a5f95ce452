"""Whatever ends a run at whatever moment, it goes on as if nothing had been, bit for bit.

`FAULTS=full` hits it some sixty times instead of four.
"""

import os
import shutil
import subprocess
from functools import partial

import psutil
import pytest
from conftest import make_tiny_settings
from killed import ask_to_end, fill_disk, go_on_after, kill, kill_child, let_it_die
from test_batch import TINY, start_batch, wait_for_epoch, write_study
from test_runs import RICH
from test_training import assert_same_weights, log_of

from lib.runs.run_dir import RunDir, read_result
from lib.train.fit import fit

FULL = os.environ.get("FAULTS") == "full"
full_only = pytest.mark.skipif(not FULL, reason="takes minutes; `make faults` runs it")
OFTEN = RICH | {"checkpoint_every_minutes": 1e-9}  # a checkpoint after each step


TWO = {"num_processes": 2, "unlabeled_batch": 6}  # which each process has a half of


@pytest.fixture(scope="module")
def whole(prepared_dir, tmp_path_factory) -> dict[int, RunDir]:
    """Runs that nothing happened to, by their number of processes."""
    made = {}
    for size in (1, 2) if FULL else (1,):
        folder = tmp_path_factory.mktemp("whole")
        changes = OFTEN | (TWO if size == 2 else {})
        made[size] = fit(make_tiny_settings(prepared_dir, folder, **changes))
    return made


def num_lost(run: RunDir, expected: RunDir) -> int:
    """Return 1 if the run did not come to what another came to."""
    try:
        assert_same_weights(run, expected)
        assert log_of(run) == log_of(expected)
    except Exception as error:
        print(f"{run.folder}: {error}")
        return 1
    return 0


CASES = [  # fault, blow, runs, times a run, further settings
    ("training process killed", kill, 10, 3, {}),
    ("training process killed while it saves", let_it_die, 5, 2, {}),
    ("loader's process killed", kill_child, 4, 2, {"num_workers": 1}),
    ("one of two training processes killed", kill_child, 2, 2, TWO),
    ("SIGTERM", ask_to_end, 5, 2, {}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "blow", "runs", "times", "changes"), CASES)
def test_nothing_is_lost(prepared_dir, tmp_path, whole, fault, name, blow, runs, times, changes):
    if not FULL and changes:
        pytest.skip("takes minutes; `make faults` runs it")
    hits, lost = 0, 0
    expected = whole[changes.get("num_processes", 1)]
    for number in range(runs if FULL else 1):
        settings = make_tiny_settings(prepared_dir, tmp_path / str(number), **OFTEN | changes)
        run, hit = go_on_after(settings, blow, times, seed=number)
        hits += hit
        lost += num_lost(run, expected)
    fault(name, hits, lost)
    assert hits and not lost


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 16 MB in memory; a shell takes it away, also if these tests are killed."""
    place = tmp_path / "disk"
    place.mkdir()
    script = 'mount -t tmpfs -o size=16m tmpfs "$0" && echo there && read end; umount -l "$0"'
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = ["sh", "-c", script, str(place)]
    shell = subprocess.Popen(command, text=True, start_new_session=True, **pipes)
    try:
        if not shell.stdout.readline():
            pytest.skip(f"no file system can be mounted here: {shell.communicate()[1].strip()}")
        yield place
    finally:
        if shell.poll() is None:
            shell.communicate("end\n")
    assert not os.path.ismount(place)


@full_only
def test_a_full_disk_loses_nothing(prepared_dir, small_disk, whole, fault, at_forward):
    """Of 16 MB, 0 to 2 are left when the run begins to need them."""
    left, lost = (0, 1_000, 50_000, 200_000, 500_000, 1_000_000, 2_000_000), 0
    for number, keep in enumerate(left):
        settings = make_tiny_settings(prepared_dir, small_disk / str(number), **OFTEN)
        at_forward(4, partial(fill_disk, small_disk, keep))
        try:
            fit(settings)
        except OSError as error:
            assert "free space" in str(error)
        finally:
            (small_disk / "ballast").unlink(missing_ok=True)
        at_forward(10**9, lambda: None)
        run = fit(settings)
        lost += num_lost(run, whole[1])
        shutil.rmtree(run.folder)
    fault("full disk", len(left), lost)
    assert not lost


@full_only
@pytest.mark.parametrize("victim", ["batch", "job", "kernel"])
def test_a_batch_goes_on_whoever_is_killed(tmp_path, prepared_dir, fault, victim):
    run_settings = TINY | {"objective": "supervised", "epochs": 60, "val_every_epochs": 60}
    changes = {"prepared_dir": str(prepared_dir), "checkpoint_every_minutes": 1e-9}
    study = write_study(tmp_path / "tiny", run_settings | changes, a={})
    run, said = RunDir(tmp_path / "runs" / "a"), ""
    for _ in range(2):
        process = start_batch(study)
        wait_for_epoch(run, len(run.log_entries()) + 1, process)
        family = psutil.Process(process.pid).children(recursive=True)
        job, kernel = (next(p for p in family if is_it(p, name)) for name in ("job", "kernel"))
        {"batch": process, "job": job, "kernel": kernel}[victim].kill()
        said += process.communicate()[0]
        psutil.wait_procs(family, timeout=60)
        assert not any(p.is_running() for p in family)
    if victim != "batch":
        assert "ended by SIGKILL, as the system does when memory is short" in said
    last = start_batch(study)
    last.communicate()
    alone = run.settings().model_copy(update={"run_dir": str(tmp_path / "alone")})
    lost = num_lost(run, fit(alone))
    fault(f"{victim} killed", 2, lost)
    assert not lost and read_result(run)


def is_it(process: psutil.Process, name: str) -> bool:
    words = {"job": "lib.batch.execute", "kernel": "ipykernel_launcher"}
    return words[name] in " ".join(process.cmdline())
