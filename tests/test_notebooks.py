"""The notebooks: their form, and that they run top to bottom by papermill."""

import ast
import json
import re
import shutil
from pathlib import Path

import papermill
import pytest
import torch
import yaml
from papermill.exceptions import PapermillExecutionError

from lib.batch.__main__ import run_batch
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
TINY_RUN = {"epochs": 2, "val_every_epochs": 1, "test_num_clips": 1, "num_processes": 1}


def cells(name: str, cell_type: str) -> list[dict]:
    everything = json.loads((NOTEBOOKS / name).read_text())["cells"]
    return [cell for cell in everything if cell["cell_type"] == cell_type]


def test_every_notebook_is_known():
    assert sorted(path.name for path in NOTEBOOKS.glob("*.ipynb")) == sorted(SETTINGS)


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
        is_of_imports = source.startswith(("import ", "from "))
        assert len(source.splitlines()) <= (40 if is_of_imports else 25)
        assert not re.search(r"^\s*(class|def) ", source, re.M)
    assert len(cells(name, "markdown")) + 2 >= len(cells(name, "code"))
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


@pytest.fixture(scope="session")
def small_data(tmp_path_factory) -> Path:
    """A data folder with a small synthetic data set."""
    from lib.prepare.synthetic import make_synthetic

    folder = tmp_path_factory.mktemp("data")
    make_synthetic(folder / "synthetic", {"train": 60, "val": 12, "val_swapped": 12})
    return folder


@pytest.fixture(scope="session")
def study(small_data, tmp_path_factory) -> tuple[Path, Path]:
    """Parameters of two tiny runs, and the folder that they are put into."""
    folder = tmp_path_factory.mktemp("studies") / "tiny"
    out = tmp_path_factory.mktemp("runs")
    folder.mkdir()
    recipe = TINY_RUN | {"prepared_dir": str(small_data)}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    for name, objective in (("a_seed0", "supervised"), ("b_seed0", "fixmatch")):
        run = {"run_dir": str(out / name), "objective": objective}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(run))
    return folder, out


def outputs_text(notebook: Path) -> str:
    found = []
    for cell in json.loads(notebook.read_text())["cells"]:
        for output in cell.get("outputs", []):
            found.append("".join(output.get("text", [])))
            found.append("".join(output.get("data", {}).get("text/html", [])))
    return "\n".join(found)


@pytest.mark.slow
def test_batch_runs_a_study_and_reports_it(study, capsys):
    folder, out = study
    assert run_batch(folder) == 0
    for name in ("a_seed0", "b_seed0"):
        for file in ("params.yaml", "environment.json", "log.jsonl", "checkpoints", "metrics.json"):
            assert (out / name / file).exists(), file
        assert "epoch 2/2" in outputs_text(out / name / "3_train.ipynb")
        log = (out / name / "batch.log").read_text()
        assert "unknown parameter" not in log and "WARNING" not in log
    summary = (out / "summary.csv").read_text().splitlines()
    assert summary[0].startswith("run,group,split,top1,top5,mean_class_accuracy")
    assert len(summary) == 1 + 2 * 2
    page = (out / "report.html").read_text()
    assert "data:image/png;base64" in page
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=[\"']https?://", page)
    capsys.readouterr()

    before = RunDir(out / "a_seed0").checkpoint_path().stat().st_mtime_ns
    assert run_batch(folder) == 0
    assert capsys.readouterr().out.count("complete") == 2
    assert RunDir(out / "a_seed0").checkpoint_path().stat().st_mtime_ns == before


@pytest.mark.slow
def test_batch_continues_after_a_failure(study, tmp_path, capsys):
    folder, out = study
    if not (out / "b_seed0" / "metrics.json").exists():
        pytest.skip("needs the runs of test_batch_runs_a_study_and_reports_it")
    broken = tmp_path / "tiny"
    shutil.copytree(folder, broken)
    shutil.copytree(out / "b_seed0", tmp_path / "runs" / "b_seed0")
    (tmp_path / "runs" / "b_seed0" / "metrics.json").unlink()  # trained, not evaluated
    for name in ("a_seed0", "b_seed0"):
        values = yaml.safe_load((broken / f"{name}.yaml").read_text())
        values["run_dir"] = str(tmp_path / "runs" / name)
        if name == "a_seed0":
            values["weights"] = "no_such_weights.pth"
        (broken / f"{name}.yaml").write_text(yaml.safe_dump(values))
    (tmp_path / "runs" / "b_seed0" / "params.yaml").write_text(
        (out / "b_seed0" / "params.yaml").read_text()
    )
    assert run_batch(broken, retry=1) == 1
    said = capsys.readouterr()
    assert "is tried again" in said.out and "FAILED [1/2] a_seed0" in said.err
    assert "no_such_weights" in said.err
    assert "no_such_weights" in (tmp_path / "runs" / "a_seed0" / "3_train.ipynb").read_text()
    assert (tmp_path / "runs" / "b_seed0" / "metrics.json").is_file()
    assert (tmp_path / "runs" / "report.html").is_file()


@pytest.mark.slow
def test_papermill_alone_gives_the_same_run(study, tmp_path):
    folder, out = study
    if not (out / "b_seed0" / "log.jsonl").exists():
        pytest.skip("needs the runs of test_batch_runs_a_study_and_reports_it")
    parameters = yaml.safe_load((folder / "recipe.yaml").read_text())
    parameters |= yaml.safe_load((folder / "b_seed0.yaml").read_text())
    parameters["run_dir"] = str(tmp_path / "again")
    papermill.execute_notebook(
        NOTEBOOKS / "3_train.ipynb", tmp_path / "3.ipynb", parameters, progress_bar=False
    )
    first, second = (
        [json.loads(line) for line in (path / "log.jsonl").read_text().splitlines()]
        for path in (out / "b_seed0", tmp_path / "again")
    )
    for a, b in zip(first, second, strict=True):
        for key in ("loss/total", "eval/top1_video", "ssl/mask_rate"):
            assert a.get(key) == b.get(key), key


@pytest.mark.slow
def test_a_list_may_be_shorter_than_its_figure(tiny_settings, tmp_path):
    labels = tmp_path / "three.txt"
    train = load_data(tiny_settings()).labeled.split_path("train").read_text()
    labels.write_text("".join(train.splitlines(keepends=True)[:3]))
    changes = {"objective": "supervised", "epochs": 1, "labeled_batch": 2}
    settings = tiny_settings(labeled_split=str(labels), labeled_fraction=1.0, **changes)
    output = tmp_path / "3.ipynb"
    parameters = settings.model_dump()
    papermill.execute_notebook(NOTEBOOKS / "3_train.ipynb", output, parameters, progress_bar=False)
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
def test_unknown_parameter_stops_before_any_work(tmp_path):
    with pytest.raises(PapermillExecutionError, match="did you mean 'epochs'"):
        papermill.execute_notebook(
            NOTEBOOKS / "3_train.ipynb",
            tmp_path / "3.ipynb",
            {"epohcs": 3, "run_dir": str(tmp_path / "run")},
            progress_bar=False,
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["1_prepare_data.ipynb", "2_look_at_augmentations.ipynb"])
def test_notebook_runs(name, small_data, tmp_path):
    papermill.execute_notebook(
        NOTEBOOKS / name,
        tmp_path / name,
        {"prepared_dir": str(small_data)},
        progress_bar=False,
    )
    assert '"image/png"' in (tmp_path / name).read_text()


@pytest.mark.slow
def test_evaluating_what_was_not_trained_says_so(tmp_path):
    with pytest.raises(PapermillExecutionError, match="no run here"):
        papermill.execute_notebook(
            NOTEBOOKS / "4_evaluate.ipynb",
            tmp_path / "4.ipynb",
            {"run_dir": str(tmp_path / "none")},
            progress_bar=False,
        )
