"""docs/change_one_idea.md is carried out, in a copy of the library."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lib.config import PROJECT_ROOT

PAGE = (PROJECT_ROOT / "docs" / "change_one_idea.md").read_text(encoding="utf-8")
CHANGES = re.findall(r"^`(lib/[\w/]+\.py)`:\n\n```python\n(.*?)```", PAGE, re.MULTILINE | re.DOTALL)

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
assert "T-Boomerang" in shown.params.value and shown.views.tiles[5].title.startswith("Background f")
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
    assert [file for file, _ in CHANGES] == [
        "lib/augment/temporal.py",
        "lib/augment/scene.py",
        "lib/train/objectives.py",
        "lib/models/networks.py",
    ]
    assert all(len(code.splitlines()) <= 25 for _, code in CHANGES)


@pytest.fixture
def changed(tmp_path) -> Path:
    """A copy of the library with the four changes."""
    for folder in ("lib", "notebooks", "params"):
        ignored = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
        shutil.copytree(PROJECT_ROOT / folder, tmp_path / folder, ignore=ignored)
    for file, code in CHANGES:
        with open(tmp_path / file, "a", encoding="utf-8") as module:
            module.write("\n\n" + code)
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
    from lib.config import TrainSettings
    from lib.params import make_settings

    for name, value in (
        ("temporal_ops", ["boomerang"]),
        ("scene_augmentation", "background_fade"),
        ("objective", "mean_confidence"),
    ):
        with pytest.raises(ValueError, match=f"{name}: no such name"):
            make_settings(TrainSettings, {name: value}, "here")
