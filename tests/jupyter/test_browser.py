"""The notebooks in JupyterLab, in a real browser."""

import subprocess
import sys

import pytest
import yaml

from lib.config import PROJECT_ROOT, EvaluateSettings
from lib.evaluate.test import evaluate
from lib.train.fit import fit

pytest_plugins = ("browser",)


@pytest.fixture(scope="module")
def small_data(tmp_path_factory):
    """A data folder with a small synthetic data set."""
    from lib.prepare.synthetic import make_synthetic

    folder = tmp_path_factory.mktemp("data")
    make_synthetic(folder / "synthetic", {"train": 24, "val": 12, "val_swapped": 12})
    return folder


def test_kernel_is_this_environment(open_notebook, lab):
    notebook = open_notebook("1_prepare_data.ipynb")
    notebook.page.locator(".jp-CodeCell .cm-content").first.click()
    notebook.page.keyboard.press("Control+a")
    notebook.page.keyboard.type("import sys, lib; print(sys.executable, lib.__file__)")
    notebook.page.keyboard.press("Control+Enter")
    output = notebook.page.locator(".jp-OutputArea-output").first
    output.wait_for()
    assert output.inner_text().split() == [sys.executable, str(PROJECT_ROOT / "lib/__init__.py")]


def test_data_preparation(open_notebook, small_data):
    notebook = open_notebook("1_prepare_data.ipynb", prepared_dir=str(small_data))
    notebook.run_all()
    assert notebook.errors() == []
    assert notebook.cell("boxed_rows(data").locator("img").count() == 1
    notebook.screenshot("1_prepare_data")


PICTURE = ".jupyter-widgets img[alt='strong view']"


@pytest.mark.parametrize("width", [1280, 1920])
def test_augmentation_explorer(open_notebook, small_data, width):
    notebook = open_notebook(
        "2_look_at_augmentations.ipynb", width=width, prepared_dir=str(small_data)
    )
    notebook.run_all()
    assert notebook.errors() == []
    explorer = notebook.cell("AugmentationExplorer(")
    explorer.locator("img").first.wait_for()
    notebook.screenshot(f"2_explorer_{width}", explorer)
    is_within = explorer.locator("img").first.evaluate(
        "image => image.getBoundingClientRect().right <= window.innerWidth"
    )
    assert is_within
    seed = explorer.get_by_label("seed")

    shown = notebook.page.locator(PICTURE).first.get_attribute("src")
    magnitude = explorer.locator(".widget-hslider", has_text="magnitude").locator(".noUi-handle")
    magnitude.focus()
    for _ in range(8):
        magnitude.press("ArrowRight")
    notebook.wait_changed(PICTURE, "src", shown)
    notebook.wait_idle()
    stronger = notebook.page.locator(PICTURE).first.get_attribute("src")
    explorer.get_by_role("button", name="reseed").click()
    notebook.wait_changed(PICTURE, "src", stronger)
    notebook.wait_idle()
    notebook.page.wait_for_function("input => input.value === '1'", arg=seed.element_handle())


def test_explorer_by_keys_and_with_a_pin(open_notebook, small_data):
    notebook = open_notebook("2_look_at_augmentations.ipynb", prepared_dir=str(small_data))
    notebook.run_all()
    explorer = notebook.cell("AugmentationExplorer(")
    videos = explorer.locator(".widget-select select").first
    picture = explorer.locator(".clips-box")
    picture.get_by_label("frame", exact=True).fill("5")
    picture.get_by_label("frame", exact=True).press("ArrowRight")  # not taken by JupyterLab
    for key, row in (("n", 1), ("n", 2), ("p", 1)):
        notebook.page.keyboard.press(key)
        notebook.page.wait_for_function(
            "([list, row]) => list.selectedIndex === row", arg=[videos.element_handle(), row]
        )
        notebook.wait_idle()
    assert picture.locator("output").inner_text() == "frame 7 of 8"  # after each new picture
    explorer.get_by_placeholder("search").first.press("n")
    assert videos.evaluate("list => list.selectedIndex") == 1
    explorer.get_by_role("button", name="pin as A").click()
    explorer.get_by_text("A: strong view").wait_for()
    explorer.get_by_role("button", name="reseed").click()
    explorer.get_by_text("B, now").wait_for()
    notebook.screenshot("2_explorer_pinned", explorer)
    picture.locator(".square").nth(4).click()
    assert picture.locator(".large").count() == 1
    notebook.screenshot("2_explorer_enlarged", explorer)
    assert notebook.errors() == []


def test_settings_are_copied_and_the_loader_is_shown(open_notebook, small_data):
    notebook = open_notebook("2_look_at_augmentations.ipynb", prepared_dir=str(small_data))
    notebook.run_all()
    explorer = notebook.cell("AugmentationExplorer(")
    videos = explorer.locator(".widget-select select").first
    videos.focus()
    for row in (1, 2):
        videos.press("ArrowDown")  # not taken by JupyterLab
        assert videos.evaluate("list => list.selectedIndex") == row
    notebook.wait_idle()
    shown = notebook.page.locator(PICTURE).first.get_attribute("src")
    explorer.locator("select[multiple]").select_option(["rotate"])
    notebook.wait_changed(PICTURE, "src", shown)
    explorer.get_by_role("button", name="copy as YAML").click()
    copied = notebook.page.evaluate("navigator.clipboard.readText()")
    assert yaml.safe_load(copied)["randaugment_ops"] == ["rotate"]

    explorer.get_by_text("training batches").click()
    words = explorer.get_by_text("strong view of unlabeled clips")
    words.wait_for(timeout=30_000)  # the page shows the first step by itself
    notebook.screenshot("2_loader", explorer)
    first = explorer.locator("img").last.get_attribute("src")
    explorer.get_by_role("spinbutton", name="step").press("ArrowUp")
    notebook.page.wait_for_function(
        "([cell, first]) => [...cell.querySelectorAll('img')].at(-1).getAttribute('src') !== first",
        arg=[explorer.element_handle(), first],
        timeout=30_000,
    )


def test_videos_of_the_page_play_offline(small_data, chromium, lab):
    execute = [sys.executable, "-m", "nbconvert", "--execute", "--to", "html", "--embed-images"]
    notebook = lab.copy("2_look_at_augmentations.ipynb", prepared_dir=str(small_data))
    subprocess.run([*execute, str(notebook)], check=True, timeout=280, capture_output=True)
    page = notebook.with_suffix(".html")
    assert page.stat().st_size < 15e6
    with chromium.new_context(offline=True, viewport={"width": 1280, "height": 800}) as context:
        reader = context.new_page()
        reader.goto(page.as_uri())
        grids = reader.locator(".clips")
        assert grids.count() == 9 and reader.locator(".clips img").count() >= 8 + 12
        for grid in grids.all():
            grid.scroll_into_view_if_needed()
            frame = "e => getComputedStyle(e).getPropertyValue('--frame')"
            frames = {grid.evaluate(frame) for _ in range(20) if not reader.wait_for_timeout(50)}
            assert len(frames) > 3
        reader.emulate_media(media="print")
        assert reader.locator(".clips img").first.is_visible()
        assert grids.first.evaluate(frame) == "4"


def test_report(open_notebook, tiny_settings, tmp_path):
    run_dir = str(tmp_path / "study" / "semi_seed0")
    fit(tiny_settings(run_dir=run_dir))
    evaluate(EvaluateSettings(run_dir=run_dir))
    notebook = open_notebook("5_report.ipynb", study_dir=str(tmp_path / "study"))
    notebook.run_all()
    assert notebook.errors() == []
    notebook.screenshot("5_report")
