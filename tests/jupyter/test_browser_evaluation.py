"""Notebooks 4 to 6 on a trained run in JupyterLab, in a real browser."""

import re

import pandas as pd
import pytest
from conftest import make_tiny_settings

from lib.config import EvaluateSettings
from lib.data.dataset import parse_split
from lib.evaluate.pseudo_labels import TABLE, write_pseudo_labels
from lib.evaluate.test import evaluate
from lib.prepare.synthetic import make_synthetic
from lib.runs.run_dir import RunDir
from lib.train.fit import fit
from lib.train.run_data import load_data

pytest_plugins = ("browser",)
pytestmark = pytest.mark.slow
expect = pytest.importorskip("playwright.sync_api").expect

WIDTHS = (1280, 1920)  # of the window, in pixels


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[RunDir]:
    """Two short runs of a study, on clips that can be recognized; the first has a table."""
    folder = tmp_path_factory.mktemp("runs")
    make_synthetic(folder / "synthetic", {"train": 24, "val": 12})
    changes = {"short_side": 64, "crop_size": 56, "test_crop_size": 56, "clip_len": 8}
    changes |= {"labeled_fraction": 0.3, "epochs": 4, "test_num_clips": 3}
    made = []
    for name, objective in (("semi_seed0", "fixmatch"), ("supervised_seed0", "supervised")):
        run_dir = folder / "study" / name
        made.append(fit(make_tiny_settings(folder, run_dir, objective=objective, **changes)))
        evaluate(EvaluateSettings(run_dir=str(run_dir)))
    write_pseudo_labels(made[0])
    return made


@pytest.fixture(scope="module")
def notebook(open_notebook, runs):
    opened = open_notebook("4_evaluate.ipynb", run_dir=str(runs[0].folder))
    opened.run_all()
    assert opened.errors() == []
    return opened


def wait_for_videos(notebook, browser, count: int) -> None:
    """Wait until the list of videos, which follows the other widgets, has so many."""
    notebook.page.wait_for_function(
        "([cell, n]) => cell.querySelectorAll('.widget-select option').length === n",
        arg=[browser.element_handle(), count],
    )


def test_a_cell_of_the_confusion_matrix_opens_into_its_clips(notebook, runs):
    browser = notebook.cell("EvaluationBrowser(")
    cell = browser.locator("button.jupyter-button", has_text=re.compile(r"^\d+$")).first
    cell.scroll_into_view_if_needed()
    count, words = cell.get_attribute("title").split(" ", 1)  # "3 videos of … taken for …"
    cell.click()
    browser.get_by_text(words).first.wait_for()
    wait_for_videos(notebook, browser, int(count))
    notebook.page.wait_for_function(
        "cell => cell.querySelector('.clips img')?.naturalWidth > 0", arg=browser.element_handle()
    )
    for width in WIDTHS:
        notebook.set_width(width)
        output = browser.locator(".jp-OutputArea").first
        output.scroll_into_view_if_needed()
        notebook.wait_within(output)
        notebook.screenshot(f"4_evaluate_browser_{width}")


def test_one_click_opens_a_mistake_in_the_explorer(notebook, runs):
    browser = notebook.cell("EvaluationBrowser(")
    browser.get_by_label("show").select_option(label="all videos")
    data = load_data(runs[0].settings()).labeled
    wait_for_videos(notebook, browser, len(data.read_labels("val")[0]))
    line = browser.locator(".widget-select option").nth(2)
    name = line.text_content().split(maxsplit=1)[1].split(":")[0]
    browser.locator(".widget-select select").select_option(index=2)
    browser.get_by_text(name, exact=True).wait_for()  # above its predictions
    browser.get_by_role("button", name="open in the explorer").click()
    browser.get_by_text(f"{name} in the explorer").wait_for()
    page = browser.locator(".explorer-page")
    page.locator("img[alt='strong view']").wait_for()
    chosen = page.locator(".widget-select select").first.locator("option:checked")
    expect(chosen).to_have_text(name)
    for width in WIDTHS:
        notebook.set_width(width)
        notebook.wait_within(page.locator(".clips"))
        notebook.screenshot(f"4_explorer_{width}", page)
    assert notebook.errors() == []


def test_report(open_notebook, runs):
    opened = open_notebook("5_report.ipynb", study_dir=str(runs[0].folder.parent))
    opened.run_all()
    assert opened.errors() == []
    opened.screenshot("5_report")


# --- Notebook 6 -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prediction(open_notebook, runs):
    opened = open_notebook("6_predict.ipynb", run_dir=str(runs[0].folder))
    opened.run_all()
    assert opened.errors() == []
    return opened


def test_three_labels_are_corrected_and_the_split_is_written(prediction, runs):
    run, notebook = runs[0], prediction
    table, data = pd.read_csv(run.folder / TABLE), load_data(run.settings()).labeled
    view = notebook.cell("show_pseudo_labels(run)")
    view.locator("img").first.wait_for()
    given = []
    for number in range(3):
        label = next(
            c for c in data.classes if c not in tuple(table.loc[number, ["label", "second"]])
        )
        given.append(label)
        view.locator(".widget-dropdown select").select_option(label=label)
        view.get_by_role("button", name="take this class").click()
        view.get_by_text(f"{number + 1} corrected").wait_for()
    view.get_by_role("button", name="accept").first.click()
    view.get_by_text("1 accepted, 3 corrected").wait_for()
    decisions = pd.read_csv(run.folder / TABLE)["decision"][:4].tolist()
    assert decisions == [*given, table["label"][3]]
    view.get_by_role("button", name="write the split").click()
    view.get_by_text("to train with it").wait_for()
    assert "labeled_split=checked" in view.inner_text()
    names, labels, _ = parse_split(data.split_path("checked"))
    assert names[-4:] == table["name"][:4].tolist()
    assert [data.classes[k] for k in labels[-4:]] == decisions
    for width in WIDTHS:
        notebook.set_width(width)
        output = view.locator(".jp-OutputArea").first
        output.scroll_into_view_if_needed()
        notebook.wait_within(output)
        notebook.screenshot(f"6_pseudo_labels_{width}")


def test_the_map_shows_clips_and_keys_choose_among_the_videos_to_label(prediction):
    view = prediction.cell("show_labels(run")
    point = view.locator(".map .next").first
    for width in WIDTHS:
        prediction.set_width(width)
        point.hover()
        clip = point.locator("img")
        clip.wait_for(timeout=30_000)
        assert clip.evaluate("image => image.decode().then(() => image.naturalWidth > 0)")
        prediction.screenshot(f"6_map_{width}", view.locator(".jp-OutputArea").first)
    head = view.get_by_text("1 of ")
    head.click()
    for key, text in (
        ("0", "2 of "),
        ("b", "1 of "),
        ("1", "classes can be written for a folder of your own videos"),
    ):
        prediction.page.keyboard.press(key)
        view.get_by_text(text).first.wait_for(timeout=30_000)
    assert prediction.errors() == []
