"""The batch: its plan, its locks, and a batch that is stopped and killed and continues."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest
import torch
import yaml
from test_training import assert_same_weights, log_of

from lib.batch import __main__ as command_line
from lib.batch import execute as execute_module
from lib.batch.execute import execute
from lib.batch.jobs import EVALUATE, TRAIN, RunJob
from lib.batch.local import KEEP_MEMORY, make_slots
from lib.batch.plan import (
    COMPLETE,
    REFUSED,
    TO_CONTINUE,
    TO_DO,
    TO_EVALUATE,
    estimate_clips,
    find_run_files,
    perturbed,
    plan_text,
    read_plan,
    state_of,
)
from lib.config import PROJECT_ROOT, EvaluateSettings, TrainSettings
from lib.evaluate.test import evaluate
from lib.fileio import LockedError, file_lock
from lib.prepare.requirements import missing_data
from lib.report.tables import seed_of
from lib.runs.run_dir import RunDir, group_of
from lib.train.fit import fit

TINY = {
    "clip_len": 4,
    "frame_interval": 2,
    "short_side": 20,
    "crop_size": 16,
    "test_crop_size": 20,
    "test_num_clips": 1,
    "labeled_fraction": 1.0,
    "labeled_batch": 4,
    "unlabeled_batch": 6,
    "dropout": 0.3,
    "device": "cpu",
    "num_processes": 1,
}


def write_study(folder: Path, recipe: dict | str, **runs: dict | str) -> Path:
    """Write a study whose runs go into `runs/` beside it; a text is written as it is."""
    folder.mkdir()
    for name, values in {"recipe": recipe, **runs}.items():
        if isinstance(values, dict) and name != "recipe":
            values = {"run_dir": str(folder.parent / "runs" / name)} | values
        text = values if isinstance(values, str) else yaml.safe_dump(values)
        (folder / f"{name}.yaml").write_text(text)
    return folder


def execute_here(
    job: RunJob, notebook: str, parameters: Mapping[str, Any], environment: Mapping[str, str]
) -> None:
    """Stand in for `RunJob.execute`: do what a notebook does without the notebook."""
    if notebook == TRAIN:
        fit(TrainSettings(**parameters))
    else:
        evaluate(EvaluateSettings(**parameters))


@pytest.fixture
def study(tmp_path, prepared_dir) -> Path:
    recipe = TINY | {"prepared_dir": str(prepared_dir)}
    return write_study(tmp_path / "tiny", recipe, a={"objective": "supervised"}, b={"seed": 1})


# --- What the arguments mean ----------------------------------------------------------------------


def test_run_files_of_a_file_a_folder_and_a_pattern(study):
    both = [study / "a.yaml", study / "b.yaml"]
    assert find_run_files(study) == find_run_files(study.parent) == both
    assert find_run_files(study / "b.yaml") == both[1:]
    assert find_run_files(str(study / "*.yaml")) == both
    assert find_run_files(str(study.parent / "ti*")) == both
    assert [run.name for run in read_plan([study / "b.yaml", study])] == ["b", "a"]
    inner = write_study(study / "inner", {}, c={})
    assert find_run_files(study) == both  # those below it only if it has none itself
    assert find_run_files(study.parent) == [*both, inner / "c.yaml"]
    assert read_plan([inner])[0].settings.clip_len == TINY["clip_len"]  # of the outer recipe


def test_run_overrides_recipe_and_recipe_overrides_defaults(study):
    run = read_plan([study])[1]
    assert (run.settings.seed, run.settings.clip_len) == (1, 4)
    assert run.settings.model == "r3d_small"  # the default
    assert "model" not in run.parameters


def test_several_values_make_a_grid(study):
    runs = read_plan([study / "a.yaml"], {"seed": [0, 1], "lr": [0.1, 0.2], "epochs": [7]})
    assert [run.name for run in runs] == [
        "a_lr0.1_seed0", "a_lr0.2_seed0", "a_lr0.1_seed1", "a_lr0.2_seed1",
    ]  # fmt: skip
    assert [run.run_dir.name for run in runs] == [run.name for run in runs]
    assert (runs[3].settings.seed, runs[3].settings.lr, runs[3].settings.epochs) == (1, 0.2, 7)
    runs = read_plan([study / "a.yaml"], {"seed": [0, 1], "run_dir": ["outputs/other/b"]})
    assert [run.settings.run_dir for run in runs] == [
        "outputs/other/b_seed0", "outputs/other/b_seed1",
    ]  # fmt: skip


def test_seeds_make_runs_and_are_replaced_by_those_of_the_grid(tmp_path):
    study = write_study(tmp_path / "seeds", TINY, a={"seeds": [0, 1]})

    def planned(**grid) -> list[tuple]:
        runs = read_plan([study], grid)
        return [(r.name, r.settings.seed, r.settings.labeled_seed) for r in runs]

    assert planned() == [("a_seed0", 0, 0), ("a_seed1", 1, 1)]
    assert planned(seeds=[3]) == [("a_seed3", 3, 3)]
    assert planned(seed=[3, 4]) == [("a_seed3", 3, 0), ("a_seed4", 4, 0)]
    assert [name for name, *_ in planned(lr=[1.0, 2.0], seeds=[5])] == [
        "a_lr1.0_seed5", "a_lr2.0_seed5",
    ]  # fmt: skip


def test_set_takes_names_values_and_seeds():
    assert command_line.parse_set("seeds=0,1,2") == ("seeds", [0, 1, 2])
    assert command_line.parse_set("videos_dir=/a, b=c #1") == ("videos_dir", ["/a, b=c #1"])


@pytest.mark.parametrize("text", ["seed", "=3", "seed=", "seed=[1"])
def test_set_without_name_or_value_is_refused(text):
    with pytest.raises(ValueError, match="--set"):
        command_line.parse_set(text)


@pytest.mark.parametrize("name", ["a, b", "c #1", "d: e", "[f]", "2024"])
def test_set_takes_a_path_as_text(tmp_path, prepared_dir, name, capsys):
    study = write_study(tmp_path / "own", TINY | {"dataset": "folder"}, a={})
    videos = tmp_path / name
    videos.mkdir()
    grid = dict([command_line.parse_set(f"videos_dir={videos}")])
    assert read_plan([study], grid)[0].settings.videos_dir == str(videos)
    assert command_line.main([str(study), "--dry-run", "--set", f"videos_dir={videos}"]) == 2
    assert f"{videos}: no videos" in capsys.readouterr().err


def test_the_plan_names_classes_that_a_view_may_turn_into_each_other(tmp_path):
    videos = tmp_path / "videos"
    for name in ("turn left", "turn right", "walk"):
        (videos / name).mkdir(parents=True)
        (videos / name / "1.mp4").touch()
    own = TINY | {"dataset": "folder", "videos_dir": str(videos), "prepared_dir": str(tmp_path)}
    study = write_study(tmp_path / "own", own, a={}, b={"flip": False, "temporal_ops": ["none"]})
    assert plan_text(read_plan([study])).count("(turn left / turn right): set flip: false (a)") == 1
    without_videos = own | {"videos_dir": str(tmp_path / "nowhere")}
    assert read_plan([write_study(tmp_path / "none", without_videos, a={})])[0].notes == ()


# --- Bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "run, message",
    [
        ("a:\t1\n\tb: 2\n", "not valid YAML.*line 1.*use spaces, not tabs"),
        ("seed: 1\nseed: 2\n", "'seed' is set a second time"),
        ({"epohcs": 3}, "did you mean 'epochs'"),
        ({"epochs": "3"}, "epochs: .*got '3' .*without quotes"),
        ({"lr": "1e-4"}, "write 1.0e-4"),
        ({"epochs": "many"}, "got 'many'$"),
        ({"labeled_fraction": 10}, r"got 10 \(10 % is 0.1\)"),
        ({"model": "r2plus1d34"}, "model: .*did you mean 'r2plus1d_34'.$"),
        ("- a list\n", "must be flat lines"),
    ],
)
def test_a_bad_run_file_is_named(tmp_path, run, message):
    study = write_study(tmp_path / "bad", TINY, good={}, wrong=run)
    with pytest.raises(ValueError, match=rf"(?s)wrong\.yaml.*{message}"):
        read_plan([study])


def test_all_bad_files_are_named_at_once(tmp_path):
    study = write_study(tmp_path / "bad", TINY, one={"epohcs": 1}, two={"lr": 0.0})
    with pytest.raises(ValueError, match=r"(?s)one\.yaml.*two\.yaml"):
        read_plan([study])


def test_an_error_that_files_share_is_printed_once(tmp_path):
    study = write_study(tmp_path / "bad", TINY, one={"lr": 0.0}, two={"lr": 0.0}, good={})
    with pytest.raises(ValueError, match=r"one\.yaml and 1 more: settings.*\n  lr: [^\n]*$"):
        read_plan([study])


def test_a_path_that_does_not_exist_gets_a_near_miss(study):
    for path, name in ((study / "aa.yaml", "a.yaml"), (study.with_name("tinny"), "tiny")):
        with pytest.raises(ValueError, match=f"no such file or folder; did you mean '{name}'"):
            read_plan([path])
    for path in ("other/b.yaml", "other*"):
        with pytest.raises(ValueError, match="no such file or folder; .* has tiny"):
            read_plan([study.parent / path])


def test_a_path_without_run_files_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.yaml").write_text("seed: 1\n")
    write_study(tmp_path / "alone", TINY)
    for path in ("empty", "empty/a.yaml", "alone"):
        with pytest.raises(ValueError, match=r"no run file; .*recipe\.yaml"):
            read_plan([tmp_path / path])


def test_runs_that_share_a_folder_are_refused(tmp_path):
    place = {"run_dir": str(tmp_path / "same")}
    study = write_study(tmp_path / "twins", TINY, a=place, b=place)
    with pytest.raises(ValueError, match=r"a\.yaml and .*b\.yaml: two runs share run_dir"):
        read_plan([study])


def test_outputs_that_cannot_be_written_are_refused(study, capsys):
    (study.parent / "runs").write_text("a file in the way")
    assert command_line.main([str(study)]) == 2
    assert "nothing can be written to" in capsys.readouterr().err


def test_errors_of_the_command_line_have_their_own_status(study, capsys):
    assert command_line.main([str(study / "nothing.yaml")]) == 2
    assert "nothing.yaml" in capsys.readouterr().err
    assert command_line.main([str(study), "--set", "epohcs=1"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "--set epohcs: no such parameter; did you mean 'epochs'?"
    ]


# --- What is to be done ---------------------------------------------------------------------------


def test_the_state_of_a_run(study):
    run = read_plan([study / "a.yaml"], {"epochs": [2]})[0]
    record = RunDir(run.run_dir)
    assert state_of(run) == (TO_DO, "")
    record.start(run.settings)
    assert state_of(run) == (TO_DO, "")
    record.append_log({"epoch": 1, "step": 3})
    record.save({"model": {}, "step": 3, "epoch": 1})
    assert state_of(run) == (TO_CONTINUE, "epoch 1")
    record.append_log({"epoch": 2, "step": 6})
    assert state_of(run) == (TO_CONTINUE, "epoch 1")  # killed before the checkpoint of its end
    record.save({"model": {}, "step": 6, "epoch": 2})
    assert state_of(run) == (TO_EVALUATE, "")
    record.metrics_path.touch()
    assert state_of(run) == (COMPLETE, "")
    other = read_plan([study / "a.yaml"], {"epochs": [3], "num_workers": [2]})[0]
    state, why = state_of(other)
    assert state == REFUSED and "epochs: 2 there, 3 here" in why and "num_workers" not in why
    assert "set lr_restart_epochs to [2] as well" in why
    longer = read_plan([study / "a.yaml"], {"epochs": [3], "lr_restart_epochs": [[2]]})[0]
    assert state_of(longer) == (TO_CONTINUE, "epoch 2")


def test_what_is_trained_or_complete_is_not_done_again(study, monkeypatch):
    executed = []

    def execute_and_note(job, notebook, *arguments):
        executed.append(notebook)
        execute_here(job, notebook, *arguments)

    monkeypatch.setattr(RunJob, "execute", execute_and_note)
    run = read_plan([study / "a.yaml"], {"epochs": [1]})[0]
    (fit(run.settings).folder / TRAIN).touch()
    assert "top-1" in RunJob(run, "[1/1] a").do({})
    assert "top-1" in RunJob(run, "[1/1] a").do({})
    assert executed == [EVALUATE]


def test_a_perturbed_run_is_one_more_seed_of_its_group(study):
    run = perturbed(read_plan([study / "a.yaml"], {"seeds": [3]})[0], 1e-6)
    assert run.run_dir.parent == study.parent / "runs" and run.name == "a_seed3_perturbed"
    assert run.settings.init_noise == run.parameters["init_noise"] == 1e-6
    assert run.settings.seed == 3 and run.parameters["run_dir"] == run.settings.run_dir
    assert (group_of(run.name), seed_of(RunDir(run.run_dir))) == ("a", "3_perturbed")


def test_a_noise_that_cannot_be_is_refused(study, capsys):
    assert command_line.main([str(study), "--perturb", "-1", "--dry-run"]) == 2
    assert "--perturb" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command_line.main(["--from", str(study), "--perturb", "1e-6"])


def test_a_run_of_other_settings_is_refused_and_left_alone(study, capsys):
    run = read_plan([study / "a.yaml"])[0]
    RunDir(run.run_dir).start(run.settings)
    before = RunDir(run.run_dir).params_path.read_text()
    assert command_line.main([str(study / "a.yaml"), "--set", "lr=0.7"]) == 1
    assert f"lr: {run.settings.lr} there, 0.7 here" in capsys.readouterr().err
    assert RunDir(run.run_dir).params_path.read_text() == before
    assert not (run.run_dir / "3_train.ipynb").exists()


def test_the_plan_is_printed_and_nothing_is_done(study, capsys):
    assert command_line.main([str(study), "--dry-run", "--set", "epochs=5"]) == 0
    text = capsys.readouterr().out
    assert "runs: 2 runs" in text and "synthetic" in text and "prepared" in text
    assert "5 epochs" in text and "[to do]" in text
    assert not (study.parent / "runs").exists()


def test_clips_are_counted(study):
    supervised, semi = read_plan([study], {"epochs": [5]})
    assert estimate_clips(supervised.settings) == 5 * 4 * 4  # 18 videos: 4 steps of 4
    assert estimate_clips(semi.settings) == 5 * 3 * (4 + 6)


@pytest.mark.parametrize(
    "changes, problem, command",
    [
        ({"dataset": "ucf101"}, "not prepared", "--dataset ucf101 .*--person_boxes yolox"),
        ({"dataset": "kinetics100"}, "not prepared", "--videos_dir /path/to/videos"),
        ({"dataset": "folder"}, "videos_dir is not set", "--set videos_dir"),
        ({"unlabeled_dataset": "hmdb51"}, "not prepared", "--dataset hmdb51"),
        ({"val_split": "other"}, "no split 'other'", "--split_files"),
        ({"labeled_split": "trian"}, "no split 'trian'; did you mean 'train'", ""),
        ({"distillation_weight": 1.0}, "classifier: .*not there", "--teacher_scores compute"),
    ],
)
def test_missing_data_stops_the_batch_and_names_the_command(
    tmp_path, prepared_dir, capsys, changes, problem, command
):
    recipe = TINY | {"prepared_dir": str(prepared_dir)}
    study = write_study(tmp_path / "far", recipe, a={}, b=changes)
    assert command_line.main([str(study)]) == 2
    said = capsys.readouterr().err
    assert re.search(rf"(?s)nothing was started.*{problem}.*{command}", said)
    assert not (tmp_path / "runs").exists()
    assert re.search(problem, plan_text(read_plan([study])))


def test_data_that_is_made_on_demand_is_no_problem(tmp_path, study):
    runs = read_plan([study], {"prepared_dir": [str(tmp_path / "nowhere")]})
    assert missing_data(run.settings for run in runs) == []


def test_the_cores_are_shared(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert make_slots(1) == [KEEP_MEMORY]
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert make_slots(2) == [KEEP_MEMORY | {"OMP_NUM_THREADS": "3"}] * 2


def test_the_gpus_are_shared(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert make_slots(1) == [{}]
    assert make_slots(2) == [{"CUDA_VISIBLE_DEVICES": "0,2"}, {"CUDA_VISIBLE_DEVICES": "1"}]
    with pytest.raises(ValueError, match="--jobs: 4 at the same time, but there are 3 GPUs"):
        make_slots(4)


# --- Locks ----------------------------------------------------------------------------------------

HOLD = """
import sys, time
from pathlib import Path
from lib.fileio import file_lock
with file_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_lock_is_held_by_one_process_and_ends_with_it(tmp_path):
    path = tmp_path / "run" / ".lock"
    lock_owner = subprocess.Popen(
        [sys.executable, "-c", HOLD, path], cwd=PROJECT_ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert lock_owner.stdout.readline() == "held\n"
        with pytest.raises(LockedError, match=f"in use by process {lock_owner.pid} on "):
            with file_lock(path):
                pass
    finally:
        lock_owner.kill()  # as a machine that runs out of memory
        lock_owner.communicate()
    with file_lock(path, wait_s=5):
        with pytest.raises(LockedError, match=f"process {os.getpid()}"):
            with file_lock(path):
                pass


# --- Stopped and killed ---------------------------------------------------------------------------

LONG = TINY | {"epochs": 24, "val_every_epochs": 2}


def start_batch(study: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "lib.batch", study],
        cwd=PROJECT_ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for_epoch(run: RunDir, epoch: int, process: subprocess.Popen) -> None:
    give_up = time.monotonic() + 300
    while len(run.log_entries()) < epoch:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < give_up, f"no epoch {epoch} in {run.folder}"
        time.sleep(0.05)


@pytest.mark.slow
def test_a_stopped_and_killed_batch_gives_the_results_of_an_undisturbed_one(tmp_path, prepared_dir):
    recipe = LONG | {"prepared_dir": str(prepared_dir), "epochs": 40}
    study = write_study(tmp_path / "tiny", recipe, a={"seed": 1}, b={"objective": "supervised"})
    run = RunDir(tmp_path / "runs" / "a")

    process = start_batch(study)
    wait_for_epoch(run, 3, process)
    process.kill()
    process.communicate()
    with file_lock(run.lock_path, wait_s=60):  # its kernel has ended
        assert run.saved_progress() and not run.is_finished()

    process = start_batch(study)
    wait_for_epoch(run, len(run.log_entries()) + 2, process)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=600)[0]
    assert process.returncode == 130 and "the same command continues" in said
    assert run.saved_progress() and not run.is_finished() and not run.stop_path.exists()
    assert not (tmp_path / "runs" / "b").exists()  # nothing more is begun

    planned = read_plan([study / "a.yaml"])[0]
    assert planned.settings.seed == 1 and state_of(planned)[0] == TO_CONTINUE
    fit(planned.settings)  # as the next batch would
    undisturbed = fit(planned.settings.model_copy(update={"run_dir": str(tmp_path / run.name)}))
    assert_same_weights(run, undisturbed)
    ends = [[e for e in log_of(r) if "eval/top1_video" in e][-1] for r in (run, undisturbed)]
    assert ends[0] == ends[1]
    assert [e["epoch"] for e in run.log_entries()] == list(range(1, recipe["epochs"] + 1))


# --- Kernels --------------------------------------------------------------------------------------


def write_notebook(folder: Path, monkeypatch, code: str) -> None:
    monkeypatch.setattr(execute_module, "NOTEBOOKS", folder)
    nbformat.write(
        nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(code)],
            metadata={"kernelspec": {"name": "python3", "display_name": "", "language": "python"}},
        ),
        folder / "some.ipynb",
    )


def test_a_kernel_uses_no_tcp_port_and_ends(tmp_path, monkeypatch):
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    write_notebook(
        tmp_path,
        monkeypatch,
        "import json; from ipykernel import get_connection_info\n"
        "print(json.loads(get_connection_info())['transport'])",
    )
    execute("some.ipynb", tmp_path / "out.ipynb", {})
    outputs = nbformat.read(tmp_path / "out.ipynb", 4).cells[-1].outputs
    assert [output.text for output in outputs] == ["ipc\n"]
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= before


@pytest.mark.slow
def test_a_kernel_that_cannot_start_is_reported(tmp_path, monkeypatch):
    write_notebook(tmp_path, monkeypatch, "pass")
    monkeypatch.setenv("PYTHONHOME", str(tmp_path / "nowhere"))  # its interpreter ends at once
    with pytest.raises(RuntimeError, match="Kernel died before replying"):
        execute("some.ipynb", tmp_path / "out.ipynb", {})
