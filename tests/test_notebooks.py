"""The notebooks: their form, and that they run top to bottom by papermill."""

import ast
import json
import os
import re
import subprocess
import venv
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import nbformat
import papermill
import pytest
import torch
import yaml
from papermill.exceptions import PapermillExecutionError
from test_batch import TINY, write_study

from lib.batch.__main__ import main as batch_main
from lib.batch.plan import read_plan
from lib.config import (
    PROJECT_ROOT,
    EvaluateSettings,
    ExploreSettings,
    PredictSettings,
    PrepareSettings,
    ReportSettings,
    TrainSettings,
)
from lib.prepare.synthetic import make_synthetic
from lib.runs.run_dir import RunDir
from lib.train.fit import fit
from lib.train.run_data import load_data

SETTINGS = {
    "1_prepare_data.ipynb": PrepareSettings,
    "2_look_at_augmentations.ipynb": ExploreSettings,
    "3_train.ipynb": TrainSettings,
    "4_evaluate.ipynb": EvaluateSettings,
    "5_report.ipynb": ReportSettings,
    "6_predict.ipynb": PredictSettings,
}
NOTEBOOKS = PROJECT_ROOT / "notebooks"


def cells(name: str, cell_type: str) -> list[dict]:
    everything = json.loads((NOTEBOOKS / name).read_text())["cells"]
    return [cell for cell in everything if cell["cell_type"] == cell_type]


def test_every_notebook_is_known():
    assert sorted(path.name for path in NOTEBOOKS.glob("*.ipynb")) == sorted(SETTINGS)


def test_notebooks_begin_with_the_same_setup_cell():
    found = {"".join(cells(name, "code")[0]["source"]) for name in SETTINGS}
    assert len(found) == 1 and 'find_spec("lib")' in found.pop()
    assert all(cells(name, "code")[0]["metadata"]["tags"] == ["setup"] for name in SETTINGS)


def test_setup_cell_without_an_address_names_the_remedy(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.delenv("PROJECT_ADDRESS", raising=False)
    with pytest.raises(RuntimeError, match="PROJECT_ADDRESS: not set.* insert a cell above"):
        exec("".join(cells("3_train.ipynb", "code")[0]["source"]), {})


@pytest.mark.parametrize("name", SETTINGS)
def test_no_outputs_are_stored(name):
    for cell in cells(name, "code"):
        assert cell["outputs"] == [] and cell["execution_count"] is None


@pytest.mark.parametrize("name", SETTINGS)
def test_cells_are_short_and_define_nothing(name):
    for cell in cells(name, "code"):
        if "parameters" in cell["metadata"].get("tags", []):
            continue
        source = "".join(cell["source"])
        if source.startswith("%%writefile"):
            continue
        assert len(source.splitlines()) <= 25
        assert not re.search(r"^\s*(class|def) ", source, re.M)
    assert len(cells(name, "markdown")) + 3 >= len(cells(name, "code"))  # setup, imports, reading
    assert "".join(cells(name, "markdown")[0]["source"]).startswith("# ")


def parameters_cell(name: str) -> list[ast.stmt]:
    sources = [
        "".join(cell["source"])
        for cell in cells(name, "code")
        if "parameters" in cell["metadata"].get("tags", [])
    ]
    assert len(sources) == 1
    return ast.parse(sources[0]).body


@pytest.mark.parametrize("name", SETTINGS)
def test_parameters_cell_declares_the_settings_with_their_defaults(name):
    statements = parameters_cell(name)
    assert all(isinstance(statement, ast.AnnAssign) for statement in statements)
    values = {s.target.id: ast.literal_eval(s.value) for s in statements}
    assert values == SETTINGS[name]().model_dump()
    types = {key: type(value) for key, value in values.items()}
    assert types == {key: type(value) for key, value in SETTINGS[name]().model_dump().items()}


@pytest.mark.parametrize("name", SETTINGS)
def test_papermill_knows_every_parameter(name):
    """It warns of names that it does not find; its pattern knows no annotation with a bar."""
    found = papermill.inspect_notebook(NOTEBOOKS / name)
    assert sorted(found) == sorted(SETTINGS[name].model_fields)


def test_every_study_is_accepted():
    for planned in read_plan(["params"]):
        study = planned.source.parent.relative_to(PROJECT_ROOT / "params")
        assert planned.run_dir == PROJECT_ROOT / "outputs" / study / planned.name
        assert planned.name.startswith(planned.source.stem)


@pytest.fixture(scope="module")
def small_data(tmp_path_factory) -> Path:
    """A data folder with a small synthetic data set."""
    folder = tmp_path_factory.mktemp("data")
    make_synthetic(folder / "synthetic", {"train": 24, "val": 12, "val_swapped": 12})
    return folder


class Study(NamedTuple):
    """A study of which everything was done that could be done, and what the batch printed."""

    folder: Path
    runs: Path
    status: int
    output: str
    errors: str


@pytest.fixture(scope="module")
def study(small_data, tmp_path_factory) -> Study:
    """Two runs: `a` cannot be trained, nothing is done of `b`."""
    place = tmp_path_factory.mktemp("study")
    recipe = TINY | {"epochs": 2, "val_every_epochs": 1, "prepared_dir": str(small_data)}
    changes = {
        "a_seed0": {"weights": "no_such_weights.pth"},
        "b_seed0": {"objective": "fixmatch"},
    }
    folder, output, errors = write_study(place / "tiny", recipe, **changes), StringIO(), StringIO()
    with redirect_stdout(output), redirect_stderr(errors):
        status = batch_main([str(folder)])
    return Study(folder, place / "runs", status, output.getvalue(), errors.getvalue())


def outputs_text(notebook: Path) -> str:
    found = []
    for cell in json.loads(notebook.read_text())["cells"]:
        for output in cell.get("outputs", []):
            found.append("".join(output.get("text", [])))
            found.append("".join(output.get("data", {}).get("text/html", [])))
    return "\n".join(found)


@pytest.mark.slow
def test_batch_trains_tests_and_reports_a_study(study):
    run = study.runs / "b_seed0"
    for file in ("params.yaml", "environment.json", "log.jsonl", "checkpoints", "metrics.json"):
        assert (run / file).exists(), file
    assert "epoch 2/2" in outputs_text(run / "3_train.ipynb")
    log = (run / "batch.log").read_text()
    assert "unknown parameter" not in log and "WARNING" not in log
    summary = (study.runs / "summary.csv").read_text().splitlines()
    assert summary[0].startswith("run,group,split,top1,top5,mean_class_accuracy")
    assert len(summary) == 1 + 2
    page = (study.runs / "report.html").read_text()
    assert "data:image/png;base64" in page
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=[\"']https?://", page)


@pytest.mark.slow
def test_batch_continues_after_a_failure(study):
    assert study.status == 1
    assert "FAILED [1/2] a_seed0" in study.errors
    assert "no_such_weights" in study.errors
    assert "no_such_weights" in (study.runs / "a_seed0" / "3_train.ipynb").read_text()


@pytest.mark.slow
def test_new_videos_are_predicted(study, execute_warm, tmp_path):
    run_dir, output = study.runs / "b_seed0", tmp_path / "6.ipynb"
    execute_warm("6_predict.ipynb", output, {"run_dir": str(run_dir), "max_figures": 1})
    for name in ("videos.csv", "clips.csv", "segments.csv"):
        assert (run_dir / "predictions" / name).is_file()
    text = outputs_text(output)
    assert "of 3 videos are predicted with a confidence" in text
    assert "no table: the run uses no unlabeled videos" in text  # all of its videos are labeled


@pytest.mark.slow
def test_papermill_alone_gives_the_same_run(study, execute_warm, tmp_path):
    parameters = yaml.safe_load((study.folder / "recipe.yaml").read_text())
    parameters |= yaml.safe_load((study.folder / "b_seed0.yaml").read_text())
    parameters["run_dir"] = str(tmp_path / "again")
    execute_warm("3_train.ipynb", tmp_path / "3.ipynb", parameters)
    first, second = (
        [json.loads(line) for line in (path / "log.jsonl").read_text().splitlines()]
        for path in (study.runs / "b_seed0", tmp_path / "again")
    )
    for a, b in zip(first, second, strict=True):
        for key in ("loss/total", "eval/top1_video", "ssl/mask_rate"):
            assert a.get(key) == b.get(key), key


@pytest.mark.slow
def test_a_list_may_be_shorter_than_its_figure(tiny_settings, execute_warm, tmp_path):
    labels = tmp_path / "three.txt"
    train = load_data(tiny_settings()).labeled.split_path("train").read_text()
    labels.write_text("".join(train.splitlines(keepends=True)[:3]))
    changes = {"objective": "supervised", "epochs": 1, "labeled_batch": 2}
    settings = tiny_settings(labeled_split=str(labels), labeled_fraction=1.0, **changes)
    execute_warm("3_train.ipynb", tmp_path / "3.ipynb", settings.model_dump())
    assert RunDir(settings.run_dir).is_finished()


def test_objective_written_by_notebook_3_trains_as_fixmatch(tiny_settings, own_file, tmp_path):
    (source,) = [
        "".join(cell["source"])
        for cell in cells("3_train.ipynb", "code")
        if cell["source"][0].startswith("%%writefile my_objective.py")
    ]
    lines = source.splitlines()[1:]
    step = lines[lines.index("class MyObjective(lib.FixMatchObjective):") + 1 :]
    assert len(step) <= 20
    own_file("my_objective.py", "\n".join(lines))
    runs = [
        fit(tiny_settings(objective=name, unlabeled_scene_p=0.5, run_dir=run_dir))
        for name, run_dir in (
            ("my_objective.py:MyObjective", tmp_path / "a"),
            ("fixmatch", tmp_path / "b"),
        )
    ]
    first, second = (run.load()["model"] for run in runs)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.slow
def test_unknown_parameter_stops_before_any_work(execute_warm, tmp_path):
    parameters = {"epohcs": 3, "run_dir": str(tmp_path / "run")}
    with pytest.raises(PapermillExecutionError, match="did you mean 'epochs'"):
        execute_warm("3_train.ipynb", tmp_path / "3.ipynb", parameters)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["1_prepare_data.ipynb", "2_look_at_augmentations.ipynb"])
def test_notebook_runs(name, small_data, execute_warm, tmp_path):
    execute_warm(name, tmp_path / name, {"prepared_dir": str(small_data)})
    assert '"image/png"' in (tmp_path / name).read_text()


@pytest.mark.slow
def test_evaluating_what_was_not_trained_says_so(execute_warm, tmp_path):
    with pytest.raises(PapermillExecutionError, match="no run here"):
        execute_warm("4_evaluate.ipynb", tmp_path / "4.ipynb", {"run_dir": str(tmp_path / "none")})


@pytest.mark.slow
def test_a_notebook_alone_in_a_folder_fetches_and_installs_the_project(small_data, tmp_path):
    """The other packages are installed, `lib` is not; nothing is downloaded."""
    if not (PROJECT_ROOT / ".git").exists():
        pytest.skip("the project is not a clone")
    installed, packages = Path(torch.__file__).parent.parent, tmp_path / "packages"
    packages.mkdir()
    for entry in installed.iterdir():
        if not re.search("video_invariances|distutils-precedence", entry.name):
            (packages / entry.name).symlink_to(entry)
    venv.create(tmp_path / "venv")
    name, alone = "2_look_at_augmentations.ipynb", tmp_path / "alone"
    alone.mkdir()
    notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
    notebook.cells = notebook.cells[:12]  # as far as its first clips
    nbformat.write(notebook, alone / name)
    environment = os.environ | {
        "PROJECT_ADDRESS": str(PROJECT_ROOT), "PYTHONPATH": str(packages),
        "PIP_NO_BUILD_ISOLATION": "0", "PIP_NO_INDEX": "1",
    }  # fmt: skip
    python, parameters = tmp_path / "venv" / "bin" / "python", ["-p", "num_videos", "2"]
    parameters += ["-p", "prepared_dir", str(small_data)]
    command = [python, "-m", "papermill", name, "out.ipynb", "-k", "python3", *parameters]
    done = subprocess.run(
        command, cwd=alone, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    clone = alone / "video-invariances"
    assert (clone / "lib" / "config.py").is_file() and (clone / "notebooks" / name).is_file()
    assert "data:image/png;base64" in outputs_text(alone / "out.ipynb")
