"""docs/change_one_idea.md is carried out: in a copy of the library, and in a user's file."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lib.config import PROJECT_ROOT, EvaluateSettings, TrainSettings
from lib.evaluate.test import evaluate
from lib.params import make_settings
from lib.train.fit import fit

PAGE = (PROJECT_ROOT / "docs" / "change_one_idea.md").read_text(encoding="utf-8")
CHANGES = re.findall(
    r"^`(lib/[\w/]+\.py)`:\n\n```python\n(.*?)```\n\nRow: `(.*?)`$", PAGE, re.MULTILINE | re.DOTALL
)
IMPORTS = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1]

USE = """
import sys
from pathlib import Path

import torch

from conftest import make_tiny_settings
from lib.data.dataset import read_dataset
from lib.evaluate.invariance import temporal_family
from lib.train.objectives import OBJECTIVES
from lib.train.run_model import build_run_model
from lib.train.fit import fit
from lib.runs.run_dir import RunDir
from lib.jupyter.clip_views import load_clips
from lib.plots.clips import temporal_rows, view_rows
from lib.evaluate.run_results import read_log
from lib.config import ExploreSettings
from lib.jupyter.explorer import AugmentationExplorer

data, out = map(Path, sys.argv[1:])
changes = {
    "temporal_ops": ["boomerang"],
    "scene_augmentation": "background_fade",
    "objective": "mean_confidence",
    "threshold_momentum": 0.5,
    "unlabeled_scene_p": 1.0,
    "unlabeled_rampup_epochs": 1.0,
}
settings = make_tiny_settings(data, out / "whole", **changes)
assert settings.is_semi_supervised and settings.scene_needs_person_mask

# The invariance, the figures, the explorer.
assert "boomerang" in temporal_family(4) and "boomerang" in temporal_family(5)
dataset = read_dataset(data / "synthetic")
small = {"frame_interval": 2, "short_side": 40, "crop_size": 32, "temporal_ops": ["boomerang"]}
look = ExploreSettings(**small, scene_augmentation="background_fade")
batch = load_clips(dataset, look, [0, 1], seed=0)
assert torch.equal(batch.strong[0][-1], batch.strong[0][0])
assert "T-Boomerang\\n0 1 2 3 3 2 1 0" in temporal_rows(batch.weak[0])
rows = view_rows(batch, ["background_fade"])
assert any(label.startswith("background_fade\\n") for label in rows)
shown = AugmentationExplorer(dataset, look)
assert "T-Boomerang" in shown.params.value
assert shown.views.tiles["scene"].title.startswith("Background f")
assert dict(shown.knobs["temporal_ops"].options)["T-Boomerang"] == ("boomerang",)
assert "background_fade" in shown.knobs["scene_augmentation"].options

# It learns; stopped in between, it ends the same.
whole = fit(settings)
real, settings = OBJECTIVES["mean_confidence"].confidence_mask, settings.model_copy(
    update={"run_dir": str(out / "parts")}
)


def stop(self, logits, rows):
    RunDir(settings.run_dir).stop_path.touch()
    return real(self, logits, rows)


OBJECTIVES["mean_confidence"].confidence_mask = stop
parts = fit(settings)
assert parts.load()["step"] == 1
OBJECTIVES["mean_confidence"].confidence_mask = real
fit(settings)
one, other = (run.load() for run in (whole, parts))
assert all(torch.equal(one["model"][name], other["model"][name]) for name in one["model"])
means = [float(checkpoint["ranks"][0]["objective"]["mean"]) for checkpoint in (one, other)]
assert means[0] == means[1] and 0 < means[0] < 1
assert 0 < read_log(whole)["ssl/mask_rate"].mean() < 1

# The network.
network = build_run_model(make_tiny_settings(data, out, model="r2plus1d_10"), 6)
assert network(torch.zeros(1, 3, 4, 32, 32)).shape == (1, 6)
print("used")
"""


def test_four_changes_are_short_and_each_is_in_one_file():
    assert [file for file, _, _ in CHANGES] == [
        "lib/augment/temporal.py",
        "lib/augment/scene.py",
        "lib/train/objectives.py",
        "lib/models/networks.py",
    ]
    assert all(len(code.splitlines()) <= 25 for _, code, _ in CHANGES)


@pytest.fixture
def changed(tmp_path) -> Path:
    """A copy of the library with the four changes."""
    for folder in ("lib", "notebooks", "params"):
        ignored = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
        shutil.copytree(PROJECT_ROOT / folder, tmp_path / folder, ignore=ignored)
    for file, code, row in CHANGES:
        with open(tmp_path / file, "a", encoding="utf-8") as module:
            module.write(f"\n\n{code}\n{row}\n")
    return tmp_path


@pytest.mark.slow
def test_what_was_added_is_known_everywhere(changed, prepared_dir, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    paths = [changed, PROJECT_ROOT / "tests"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))}
    done = subprocess.run(
        [sys.executable, "-c", USE, str(prepared_dir), str(out)],
        cwd=changed, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.endswith("used\n"), done.stderr


def test_without_the_changes_the_names_are_refused(tmp_path):
    for name, value in (
        ("temporal_ops", ["boomerang"]),
        ("scene_augmentation", "background_fade"),
        ("objective", "mean_confidence"),
    ):
        with pytest.raises(ValueError, match=f"{name}: no such name"):
            make_settings(TrainSettings, {name: value}, "here")


@pytest.mark.slow
def test_what_is_in_a_file_is_used_by_all_processes_and_kept_by_the_run(tiny_settings, own_file):
    path = own_file("my_idea.py", "\n\n".join([IMPORTS, *(code for _, code, _ in CHANGES)]))
    settings = tiny_settings(
        temporal_ops=["none", "my_idea.py:boomerang"],
        scene_augmentation="my_idea.py:background_fade",
        objective="my_idea.py:MeanConfidence",
        model="my_idea.py:r2plus1d_10",
        num_processes=2,
        epochs=1,
    )
    assert settings.is_semi_supervised and settings.scene_needs_person_mask
    run = fit(settings)
    assert run.is_finished() and 0 < run.load()["ranks"][1]["objective"]["mean"] < 1
    assert (run.folder / "my_idea.py").read_text() == path.read_text()
    assert yaml.safe_load(run.params_path.read_text())["model"] == "my_idea.py:r2plus1d_10"
    fit(settings)  # finished
    path.write_text(path.read_text() + "# changed\n")
    with pytest.raises(ValueError, match="objective: 'my_idea.py:MeanConfidence .SHA-256 .* there"):
        fit(settings)
    path.unlink()
    assert "boomerang" in run.settings().temporal_ops[1]
    results = evaluate(EvaluateSettings(run_dir=str(run.folder), num_processes=2))
    assert results["val"].scores.shape == (8, 4)


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("gone.py:Idea", "", "there is no file .*gone.py"),
        ("my_idea.py:Idea", "1 / 0", r"my_idea.py cannot be imported \(ZeroDivisionError"),
        ("my_idea.py:Idea", "Idea = 3", "no SupervisedObjective of the name 'Idea'"),
        ("my_idea.py:Gone", "", "no SupervisedObjective of the name 'Gone'"),
    ],
)
def test_file_that_cannot_be_used_is_refused_with_the_setting(own_file, name, text, problem):
    own_file("my_idea.py", text)
    with pytest.raises(ValueError, match=f"objective: .*{problem}"):
        make_settings(TrainSettings, {"objective": name}, "here")


def test_file_that_has_changed_is_imported_again(own_file):
    text = "from lib.train.objectives import {0} as base\nclass Idea(base): pass"
    for base, expected in (("SupervisedObjective", False), ("FixMatchObjective", True)):
        own_file("my_idea.py", text.format(base))
        settings = make_settings(TrainSettings, {"objective": "my_idea.py:Idea"}, "here")
        assert settings.is_semi_supervised == expected
