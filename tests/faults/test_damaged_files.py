"""Every reader names a damaged file: no error of a library comes through without the file's name.

`FAULTS=full` damages each file some four hundred times instead of twenty.
"""

import json
import os
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from mutations import foreign_errors, mutations
from PIL import Image

from lib.config import TrainSettings
from lib.data.dataset import read_dataset, write_dataset
from lib.data.frame_tables import (
    FrameRows,
    PersonBoxes,
    TeacherScores,
)
from lib.data.video_reader import read_frames
from lib.evaluate.run_results import read_log, read_scores
from lib.fileio import file_lock
from lib.models.weights import read_tensors
from lib.params import make_settings, read_yaml
from lib.prepare.download import extract
from lib.prepare.parallel import map_in_workers
from lib.prepare.person_boxes import import_boxes
from lib.report.tables import machine_of
from lib.runs.run_dir import RunDir, read_result, read_status

COUNT = 400 if os.environ.get("FAULTS") == "full" else 20
TIMEOUT_S = 20.0
NAMES = ("a/one", "a/two")


class Case(NamedTuple):
    """A file, what reads it, and what the error must name."""

    path: Path
    read: Callable[[], object]
    name: str


def _dataset(folder: Path):
    import pandas as pd

    index = pd.DataFrame(
        {
            "name": NAMES, "path": ["one.avi", "two.avi"], "class": ["a", "a"], "label": [0, 0],
            "frames": [4, 5], "fps": [25.0, 25.0], "width": [64, 64], "height": [48, 48],
        }
    )  # fmt: skip
    return write_dataset(folder, "folder", ["a"], folder / "videos", index, {"made_by": "a test"})


def _read_boxes(folder: Path) -> None:
    boxes = PersonBoxes(read_dataset(folder))
    for row, frames in enumerate((4, 5)):
        boxes.lookup(row, np.arange(frames))


def _read_scores(folder: Path) -> None:
    scores = TeacherScores(read_dataset(folder))
    for row in range(2):
        scores.lookup(row, 3)


def _read_all(folder: Path) -> None:
    dataset = read_dataset(folder)
    for row in range(len(dataset.index)):
        dataset.record(row)


def _read_params(path: Path) -> None:
    make_settings(TrainSettings, read_yaml(path), str(path))


def _read_progress(run: RunDir) -> None:
    with file_lock(run.lock_path):  # of a run that nobody trains, it does not count
        assert read_status(run.folder).share <= 1 or read_status(run.folder).progress


def _make_run(folder: Path) -> RunDir:
    run = RunDir(folder)
    run.folder.mkdir()
    run.params_path.write_text(TrainSettings(dataset="synthetic", run_dir=str(folder)).as_yaml())
    for epoch in (1, 2, 3):
        run.append_log({"epoch": epoch, "step": 9 * epoch, "loss/total": 1.5, "seconds": 2.0})
    numbers = {"top1": 50.0, "top5": 100.0, "mean_class_accuracy": 50.0, "videos": 6}
    run.metrics_path.write_text(json.dumps({"labels": 9, "splits": {"val": numbers}}))
    known = {"gpus": ["a GPU"], "packages": {"torch": "2.9"}, "cpu_count": 2}
    run.environment_path.write_text(json.dumps(known))
    run.progress_path.write_text(json.dumps({"step": 5, "last_step": 27, "lr": 0.1}))
    scores = {"scores": np.ones((6, 2), np.float32), "labels": np.zeros(6, np.int64)}
    np.savez(run.folder / "scores_val.npz", **scores)
    return run


def _data_case(kind: str, folder: Path) -> Case:
    dataset = _dataset(folder)
    if kind in ("dataset.json", "index.csv"):
        return Case(folder / kind, lambda: _read_all(folder), kind)
    if kind == "person_boxes":
        rows = [FrameRows.stack([np.array([[1, 2, 30, 40, 0.9]])] * n) for n in (4, 5)]
        path = PersonBoxes.write(folder, NAMES, [4, 5], rows, {"method": "a test"})
        return Case(path, lambda: _read_boxes(folder), path.name)
    if kind == "teacher":
        rows = [FrameRows(np.full((n, 1000), 1e-3), np.arange(n)) for n in (4, 5)]
        path = TeacherScores.write(folder, NAMES, [4, 5], rows, {"method": "a test"})
        return Case(path, lambda: _read_scores(folder), path.name)
    path = folder / "boxes.csv"
    path.write_text("name,frame,x1,y1,x2,y2,score\na/one,0,1,2,30,40,0.9\na/two,3,5,5,9,9,0.2\n")
    return Case(path, lambda: import_boxes(dataset, path), path.name)


def _foreign_case(kind: str, folder: Path) -> Case:
    if kind == "weights":
        path = folder / "a.pth"
        torch.save({"meta": {"epoch": 1}, "state_dict": {"w": torch.ones(40)}}, path)
        return Case(path, lambda: read_tensors(path), path.name)
    if kind == "archive":
        path = folder / "a.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a/one.avi", b"some bytes" * 50)
            archive.writestr("two.avi", bytes(range(200)))
        return Case(path, lambda: extract(path, folder / "out"), path.name)
    if kind == "JPEG":
        path = folder / "img_00001.jpg"
        Image.effect_noise((40, 30), 50).convert("RGB").save(path)
        return Case(path, lambda: read_frames(folder, np.array([0])), path.name)
    path = folder / "recipe.yaml"
    path.write_text("epochs: 3\nlr: 1.0e-2\ntest_splits: [val, other]\nobjective: fixmatch\n")
    return Case(path, lambda: _read_params(path), path.name)


def _run_case(kind: str, folder: Path) -> Case:
    run = _make_run(folder / "run")
    reads = {
        "params.yaml": run.settings,
        "log.jsonl": lambda: [run.truncate_log(9), read_log(run)],
        "metrics.json": lambda: read_result(run),
        "environment.json": lambda: [run.environment(), machine_of(run)],
        "progress.json": lambda: _read_progress(run),
        "scores_val.npz": lambda: read_scores(run, "val"),
    }
    return Case(run.folder / kind, reads[kind], kind)


DATA_KINDS = ["dataset.json", "index.csv", "person_boxes", "teacher", "boxes"]
FOREIGN_KINDS = ["weights", "archive", "JPEG", "recipe"]
RUN_KINDS = [
    "params.yaml", "log.jsonl", "metrics.json", "environment.json", "progress.json",
    "scores_val.npz",
]  # fmt: skip
KINDS = [*DATA_KINDS, *FOREIGN_KINDS, *RUN_KINDS]


def make_case(kind: str, folder: Path) -> Case:
    """Make a valid file of a kind in a folder, and what it needs."""
    if kind in DATA_KINDS:
        return _data_case(kind, folder)
    return (_foreign_case if kind in FOREIGN_KINDS else _run_case)(kind, folder)


def read_damaged(task: tuple[str, Path, bytes]) -> str | None:
    """Read one damaged file; what a worker process does."""
    kind, folder, content = task
    warnings.simplefilter("ignore")
    folder.mkdir(parents=True)
    case = make_case(kind, folder)
    case.path.write_bytes(content)
    return foreign_errors(case.read, case.name)


@pytest.fixture(scope="module")
def contents(tmp_path_factory) -> dict[str, bytes]:
    made = {}
    for kind in KINDS:
        case = make_case(kind, tmp_path_factory.mktemp("valid"))
        assert foreign_errors(case.read, case.name) is None
        case.read()
        made[kind] = case.path.read_bytes()
    return made


@pytest.mark.slow
def test_damaged_files_are_named(contents, tmp_path, fault):
    tasks = []
    for seed, (kind, content) in enumerate(contents.items()):
        others = [other for name, other in contents.items() if name != kind]
        for number, damaged in enumerate(mutations(content, others, COUNT, seed)):
            tasks.append((kind, tmp_path / f"{kind}-{number}", damaged))
    wrong: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for outcome in map_in_workers(read_damaged, tasks, 2, TIMEOUT_S):
        kind, folder, _ = tasks[outcome.position]
        if found := outcome.error or outcome.value:
            wrong[kind].append(f"{folder.name}: {found}")
    for kind in KINDS:
        fault(f"damaged {kind}", sum(task[0] == kind for task in tasks), len(wrong[kind]))
    assert not any(wrong.values()), "\n".join(text for texts in wrong.values() for text in texts)
