"""README and the pages in docs/: their links, commands and examples."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from lib.augment.temporal import TEMPORAL_OPS
from lib.config import PROJECT_ROOT, TrainSettings

README = (PROJECT_ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "params/*.md", "benchmarks/*.md")
    for path in PROJECT_ROOT.glob(pattern)
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(PROJECT_ROOT).as_posix())
def test_links_lead_to_files(page):
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r'(?:\]\(|src=")([^)"#:]+)(?:#[\w-]+)?[)"]', text)
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(PROJECT_ROOT).as_posix())
def test_commands_exist(page):
    text = page.read_text(encoding="utf-8")
    modules = set(re.findall(r"python -m ((?:lib|benchmarks|docs)[\w.]*\w)", text))
    assert {module for module in modules if find_spec(module) is None} == set()
    makefile = (PROJECT_ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"(?:^|`)make ([a-z][\w-]*)", text, re.MULTILINE))
    assert {t for t in targets if not re.search(rf"^{t}:", makefile, re.MULTILINE)} == set()
    studies = set(re.findall(r"lib\.batch (params/[\w/.]+)", text))
    assert {study for study in studies if not (PROJECT_ROOT / study).exists()} == set()


def test_readme_is_short():
    assert len(README.split()) <= 900


def test_readme_augmentation_is_one_that_settings_accept(own_file):
    augmentation, _ = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(augmentation.splitlines()) <= 12
    file = own_file("my_idea.py", augmentation)
    settings = TrainSettings(temporal_ops=["none", f"{file}:boomerang"])
    operation = TEMPORAL_OPS[settings.temporal_ops[1]]
    assert operation.apply(torch.arange(8), 0.0, None).tolist() == [0, 1, 2, 3, 3, 2, 1, 0]


@pytest.mark.slow
def test_readme_use_as_a_library(tmp_path, capsys, prepared_dir):
    _, example = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len([line for line in example.splitlines() if line]) <= 6
    small = f'run_dir="{tmp_path}/run", prepared_dir="{prepared_dir}", epochs=1'
    example = example.replace('run_dir="outputs/mine"', small)
    exec(example.replace('None, "data"', f'None, "{prepared_dir}"'), {})
    label, confidence = capsys.readouterr().out.split()[-2:]
    assert label and 0 < float(confidence) <= 1
    assert (Path(tmp_path) / "run" / "checkpoints").is_dir()
