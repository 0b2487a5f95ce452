"""Batches in Slurm, which the tests start on this machine."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from test_batch import LONG, TINY, write_study
from test_training import assert_same_weights

from lib.batch import __main__ as command_line
from lib.batch import slurm as slurm_module
from lib.batch.plan import read_plan
from lib.config import PROJECT_ROOT, EvaluateSettings
from lib.evaluate.test import evaluate
from lib.runs.run_dir import RunDir
from lib.train.fit import fit

SLURM = PROJECT_ROOT / "tests" / "slurm_one_machine.sh"


def assert_as_if_undisturbed(run: RunDir, epochs: int) -> None:
    """Compare a run with the same one made in one go."""
    assert [entry["epoch"] for entry in run.log_entries()] == list(range(1, epochs + 1))
    elsewhere = run.folder.parent.parent / f"undisturbed_{run.name}"
    settings = run.settings().model_copy(update={"run_dir": str(elsewhere)})
    assert_same_weights(run, fit(settings))
    assert run.metrics_path.is_file() and (run.folder / "3_train.ipynb").is_file()


# --- Bad input ------------------------------------------------------------------------------------


@pytest.fixture
def study(tmp_path, prepared_dir) -> Path:
    return write_study(tmp_path / "tiny", TINY | {"prepared_dir": str(prepared_dir)}, a={})


def test_a_machine_without_slurm_or_submitit_says_so(study, monkeypatch, capsys):
    monkeypatch.setenv("PATH", "/nowhere")
    assert command_line.main([str(study), "--executor", "slurm"]) == 2
    assert "no Slurm on this machine" in capsys.readouterr().err
    monkeypatch.setattr(slurm_module, "find_spec", lambda name: None)
    assert command_line.main([str(study), "--executor", "slurm"]) == 2
    assert "pip install -e '.[cluster]'" in capsys.readouterr().err
    assert not (study.parent / "runs").exists()


@pytest.mark.parametrize(
    "options, message",
    [
        (["--gpus", "2"], "--gpus goes with --executor slurm"),
        (["--memory-gb", "2"], "--memory-gb goes with --executor slurm"),
        (["--sbatch", "qos=long"], "--sbatch goes with --executor slurm"),
    ],
)
def test_options_of_the_cluster_are_checked(study, capsys, options, message):
    assert command_line.main([str(study), *options]) == 2
    assert message in capsys.readouterr().err


def test_another_executor_is_refused(study):
    with pytest.raises(SystemExit):
        command_line.main([str(study), "--executor", "pbs"])


@pytest.mark.parametrize("options", [["--cpus", "0"], ["--hours", "0"], ["--sbatch", "qos"]])
def test_impossible_resources_are_refused(study, capsys, options):
    assert command_line.main([str(study), "--executor", "slurm", *options]) == 2
    assert f"{options[0][2:]}: " in capsys.readouterr().err


# --- In Slurm -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def slurm() -> Iterator[dict[str, str]]:
    """Start a Slurm of this machine, with two nodes, and return its environment; or skip."""
    command = [str(SLURM), "bash", "-c", "echo conf=$SLURM_CONF; cat"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    said = []
    for line in process.stdout:
        said.append(line)
        if line.startswith("conf="):
            break
    else:
        if process.wait() == 77:
            pytest.skip(f"the test needs a Slurm of its own: {said[-1].strip()}")
        pytest.fail("".join(said))
    yield {"SLURM_CONF": said[-1].removeprefix("conf=").strip()}
    process.stdin.close()  # ends `cat`, and with it Slurm
    process.wait(timeout=60)


def ask(slurm: dict[str, str], *command: str) -> str:
    done = subprocess.run(
        command, env=os.environ | slurm, capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout


def wait_until(is_reached: Callable[[], bool], slurm: dict[str, str], folder: Path) -> None:
    """Wait for something; on failure show the queue and what the jobs printed."""
    give_up = time.monotonic() + 800
    while not is_reached():
        if time.monotonic() > give_up:
            logs = "".join(path.read_text() for path in folder.glob("cluster/*log*"))
            pytest.fail(ask(slurm, "squeue", "--noheader") + logs)
        time.sleep(0.3)


@pytest.mark.slow
def test_slurm_does_a_batch_and_continues_what_it_preempts(
    tmp_path, prepared_dir, slurm, monkeypatch, capsys
):
    """One run at a time; the second run is done elsewhere while the first one is disturbed."""
    recipe = LONG | {"prepared_dir": str(prepared_dir), "objective": "supervised"}
    study = write_study(tmp_path / "tiny", recipe, a={"epochs": 40}, b={"epochs": 1})
    run, other = (RunDir(planned.run_dir) for planned in read_plan([study]))
    fit(read_plan([study / "b.yaml"])[0].settings)
    monkeypatch.setenv("SLURM_CONF", slurm["SLURM_CONF"])
    options = ["--executor", "slurm", "--jobs", "1", "--gpus", "0", "--cpus", "1", "--hours", "0.5"]
    assert command_line.main([str(study), *options]) == 0
    array, _ = capsys.readouterr().out.split("submitted as jobs ")[1].split(";")[0].split(", ")
    scripts = [path.read_text() for path in (tmp_path / "runs/cluster").glob("*.sh")]
    assert scripts and all("--cpus-per-task=" in text.split("\nsrun")[1] for text in scripts)
    evaluate(EvaluateSettings(run_dir=str(other.folder)))

    def wait(is_reached: Callable[[], bool]) -> None:
        wait_until(is_reached, slurm, tmp_path / "runs")

    def has_restarted(times: int) -> bool:
        return f"Restarts={times} " in ask(slurm, "scontrol", "show", "job", f"{array}_0")

    disturb = [
        ["scancel", "--signal=TERM", f"{array}_0"],  # as Slurm warns of the time limit
        ["scontrol", "requeue", f"{array}_0"],  # as Slurm preempts
    ]
    for times, command in enumerate(disturb):
        wait(partial(has_restarted, times))
        epoch = len(run.log_entries()) + 3
        wait(lambda epoch=epoch: len(run.log_entries()) >= epoch)
        ask(slurm, *command)
    wait(partial(has_restarted, 2))
    wait(lambda: not ask(slurm, "squeue", "--noheader"))

    log = (tmp_path / f"runs/cluster/{array}_0_0_log.out").read_text()
    assert "saves a checkpoint" in log
    assert "continuing" in (run.folder / "3_train.ipynb").read_text()
    assert_as_if_undisturbed(run, 40)
    assert other.metrics_path.is_file() and not list(other.folder.glob("*.ipynb"))
    assert (tmp_path / "runs" / "report.html").is_file()


@pytest.mark.parametrize(
    "options, message",
    [(["--partition", "nowhere", "--gpus", "0"], "invalid partition"), ([], "use --gpus 0")],
)
def test_what_slurm_refuses_is_reported(study, slurm, monkeypatch, capsys, options, message):
    monkeypatch.setenv("SLURM_CONF", slurm["SLURM_CONF"])
    assert command_line.main([str(study), "--executor", "slurm", *options]) == 2
    assert message in capsys.readouterr().err
    assert ask(slurm, "squeue", "--noheader") == ""
