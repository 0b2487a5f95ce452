"""Correcting pseudo-labels in notebook 6, in a real browser."""

import pandas as pd
import pytest

from lib.config import EvaluateSettings
from lib.data.dataset import parse_split
from lib.evaluate.pseudo_labels import TABLE, write_pseudo_labels
from lib.evaluate.test import evaluate
from lib.prepare.synthetic import make_synthetic
from lib.runs.run_dir import RunDir
from lib.train.fit import fit
from lib.train.run_data import load_data

pytest_plugins = ("browser",)


@pytest.fixture
def run(tmp_path) -> RunDir:
    """A short run on clips that can be recognised in a picture, with its table."""
    from conftest import make_tiny_settings

    make_synthetic(tmp_path / "synthetic", {"train": 24, "val": 12})
    changes = {"labeled_fraction": 0.3, "epochs": 4, "test_num_clips": 3}
    sizes = {"short_side": 64, "crop_size": 56, "test_crop_size": 56}
    run = fit(make_tiny_settings(tmp_path, tmp_path / "semi_seed0", **changes, **sizes))
    evaluate(EvaluateSettings(run_dir=str(run.folder)))
    write_pseudo_labels(run)
    return run


def test_three_labels_are_corrected_and_the_split_is_written(open_notebook, run):
    table, classes = pd.read_csv(run.folder / "pseudo_labels.csv"), load_data(run.settings())
    classes = classes.labeled.classes
    notebook = open_notebook("6_predict.ipynb", run_dir=str(run.folder))
    notebook.run_all()
    assert notebook.errors() == []
    view = notebook.cell("show_pseudo_labels(run)")
    view.locator("img").first.wait_for(timeout=30_000)
    given = []
    for number in range(3):
        label = next(c for c in classes if c not in tuple(table.loc[number, ["label", "second"]]))
        given.append(label)
        view.locator(".widget-dropdown select").select_option(label=label)
        view.get_by_role("button", name="take this class").click()
        view.get_by_text(f"{number + 1} corrected").wait_for(timeout=30_000)
    view.get_by_role("button", name="accept").first.click()
    view.get_by_text("1 accepted, 3 corrected").wait_for(timeout=30_000)
    decisions = pd.read_csv(run.folder / TABLE)["decision"][:4].tolist()
    assert decisions == [*given, table["label"][3]]
    view.get_by_role("button", name="write the split").click()
    view.get_by_text("to train with it").wait_for(timeout=30_000)
    assert "labeled_split=checked" in view.inner_text()
    names, labels, _ = parse_split(load_data(run.settings()).labeled.split_path("checked"))
    assert names[-4:] == table["name"][:4].tolist()
    assert [classes[k] for k in labels[-4:]] == decisions
    for width in (1280, 1920):
        notebook.page.set_viewport_size({"width": width, "height": width * 5 // 8})
        view.locator(".jp-OutputArea").first.scroll_into_view_if_needed()
        notebook.page.wait_for_timeout(1000)
        notebook.screenshot(f"6_pseudo_labels_{width}")
