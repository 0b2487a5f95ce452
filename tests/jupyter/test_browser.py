"""Notebooks 1 to 3 in JupyterLab, in a real browser: data, views, a training that is watched."""

import re
import subprocess
import sys
from contextlib import suppress

import pytest
import yaml

from lib.config import PROJECT_ROOT
from lib.prepare.synthetic import make_synthetic
from lib.runs.run_dir import RunDir

pytest_plugins = ("browser",)
pytestmark = pytest.mark.slow
playwright = pytest.importorskip("playwright.sync_api")
expect = playwright.expect

WIDTHS = (1920, 1280)  # of the window, in pixels


@pytest.fixture(scope="module")
def small_data(tmp_path_factory):
    """A data folder with a small synthetic data set."""
    folder = tmp_path_factory.mktemp("data")
    make_synthetic(folder / "synthetic", {"train": 24, "val": 12, "val_swapped": 12})
    return folder


def test_data_preparation_in_the_kernel_of_this_environment(open_notebook, small_data):
    notebook = open_notebook("1_prepare_data.ipynb", prepared_dir=str(small_data))
    notebook.run_all()
    assert notebook.errors() == []
    expect(notebook.cell("boxed_rows(data").locator("img")).to_have_count(1)
    notebook.screenshot("1_prepare_data")
    cell = notebook.page.locator(".jp-CodeCell").first
    cell.locator(".cm-content").click()
    notebook.page.keyboard.press("Control+a")
    notebook.page.keyboard.type("import sys, lib; print(sys.executable, lib.__file__)")
    notebook.page.keyboard.press("Control+Enter")
    printed = f"{sys.executable} {PROJECT_ROOT / 'lib/__init__.py'}"
    expect(cell.locator(".jp-OutputArea-output")).to_have_text(printed)


# --- Notebook 2 -----------------------------------------------------------------------------------

PICTURE = ".jupyter-widgets img[alt='strong view']"
PLAYS = """grid => {
    grid.frames ??= new Set();
    grid.frames.add(getComputedStyle(grid).getPropertyValue('--frame'));
    return grid.frames.size > 3;
}"""


@pytest.fixture(scope="module")
def views_notebook(open_notebook, small_data):
    notebook = open_notebook("2_look_at_augmentations.ipynb", prepared_dir=str(small_data))
    notebook.run_all()
    assert notebook.errors() == []
    return notebook


def test_videos_of_the_page_play_offline(views_notebook, chromium, lab):
    views_notebook.save()
    notebook = lab.folder / views_notebook.name
    convert = [sys.executable, "-m", "nbconvert", "--to", "html", "--embed-images"]
    subprocess.run([*convert, str(notebook)], check=True, timeout=280, capture_output=True)
    page = notebook.with_suffix(".html")
    assert page.stat().st_size < 15e6
    with chromium.new_context(offline=True, viewport={"width": 1280, "height": 800}) as context:
        reader = context.new_page()
        reader.goto(page.as_uri())
        grids = reader.locator(".clips")
        assert grids.count() == 8 and reader.locator(".clips img").count() >= 8 + 12
        for grid in grids.all():
            grid.scroll_into_view_if_needed()
            reader.wait_for_function(PLAYS, arg=grid.element_handle())
        reader.emulate_media(media="print")
        expect(reader.locator(".clips img").first).to_be_visible()
        expect(grids.first).to_have_css("--frame", "4")


@pytest.fixture
def explorer(views_notebook):
    """The cell of the explorer, which is run again."""
    cell = views_notebook.cell("AugmentationExplorer(")
    views_notebook.run_cell(cell)
    wait_chosen(cell, 0)
    expect(cell.locator("img[alt='strong view']")).to_be_visible()
    return cell


def wait_chosen(explorer, row: int) -> None:
    """Wait until a line of the list of videos is chosen."""
    line = explorer.locator(".widget-select select").first.locator("option").nth(row)
    expect(line).to_have_js_property("selected", True)


def wait_settings(explorer, text: str) -> None:
    """Wait until the settings of the shown views contain a line."""
    expect(explorer.locator("textarea")).to_have_value(re.compile(f"^{re.escape(text)}$", re.M))


def test_augmentation_explorer(views_notebook, explorer):
    notebook, page = views_notebook, views_notebook.page
    picture = explorer.locator("img").first
    for width in WIDTHS:
        notebook.set_width(width)
        notebook.screenshot(f"2_explorer_{width}", explorer)
        notebook.wait_within(picture)

    shown = page.locator(PICTURE).first.get_attribute("src")
    magnitude = explorer.locator(".widget-hslider", has_text="magnitude").locator(".noUi-handle")
    magnitude.focus()
    for _ in range(8):
        magnitude.press("ArrowRight")
    wait_settings(explorer, "randaugment_magnitude: 18.0")
    notebook.wait_changed(PICTURE, "src", shown)
    stronger = page.locator(PICTURE).first.get_attribute("src")
    explorer.get_by_role("button", name="reseed").click()
    notebook.wait_changed(PICTURE, "src", stronger)
    expect(explorer.get_by_label("seed")).to_have_value("1")


def test_explorer_by_keys_and_with_a_pin(views_notebook, explorer):
    notebook, page = views_notebook, views_notebook.page
    picture = explorer.locator(".clips-box")
    picture.get_by_label("frame", exact=True).fill("5")
    picture.get_by_label("frame", exact=True).press("ArrowRight")  # not taken by JupyterLab
    for key, row in (("n", 1), ("n", 2), ("p", 1)):
        shown = page.locator(PICTURE).first.get_attribute("src")
        page.keyboard.press(key)
        wait_chosen(explorer, row)
        notebook.wait_changed(PICTURE, "src", shown)
        expect(picture.locator("output")).to_have_text("frame 7 of 8")  # after each new picture
    explorer.get_by_placeholder("search").first.press("n")
    explorer.get_by_role("button", name="pin as A").click()
    explorer.get_by_text("A: strong view").wait_for()
    wait_chosen(explorer, 1)  # the key in the search chose no video
    explorer.get_by_role("button", name="reseed").click()
    explorer.get_by_text("B, now").wait_for()
    notebook.screenshot("2_explorer_pinned", explorer)
    picture.locator(".square").nth(4).click()
    expect(picture.locator(".large")).to_have_count(1)
    notebook.screenshot("2_explorer_enlarged", explorer)
    assert notebook.errors() == []


def test_settings_are_copied_as_yaml(views_notebook, explorer):
    notebook, page = views_notebook, views_notebook.page
    videos = explorer.locator(".widget-select select").first
    videos.focus()
    for row in (1, 2):
        videos.press("ArrowDown")  # not taken by JupyterLab
        wait_chosen(explorer, row)
    explorer.locator("select[multiple]").select_option(["rotate"])
    wait_settings(explorer, "randaugment_ops: [rotate]")
    copy = explorer.locator(".copy-yaml")
    copy.click()
    expect(copy).to_have_text("copied")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert yaml.safe_load(copied)["randaugment_ops"] == ["rotate"]
    assert notebook.errors() == []


# --- Notebook 3 -----------------------------------------------------------------------------------

START_S, END_S = 300, 600  # these bounds only end a broken test
LONG = {"num_processes": 1, "test_num_clips": 1, "unlabeled_rampup_epochs": 0.0, "epochs": 100_000}


def view_of(notebook):
    """Return the live view of the training: the output that has the stop button."""
    return notebook.cell("await train(").locator(".jp-OutputArea").first


def wait_says(notebook, pattern: str) -> None:
    """Wait until the output of the training cell says something."""
    notebook.page.wait_for_function(
        """pattern => [...document.querySelectorAll('.jp-CodeCell')]
            .filter(cell => cell.querySelector('.jp-InputArea').innerText.includes('await train('))
            .some(cell => new RegExp(pattern).test(
                cell.querySelector('.jp-Cell-outputArea')?.innerText ?? ''))""",
        arg=pattern,
        timeout=START_S * 1000,
    )


def wait_epoch(notebook, number: int) -> None:
    """Wait until the training cell says that it is in this epoch or in a later one."""
    notebook.page.wait_for_function(
        """number => [...document.querySelectorAll('.jp-CodeCell .jp-Cell-outputArea')].some(
            output => Number(output.innerText.match(/in epoch (\\d+)/)?.[1]) >= number)""",
        arg=number,
        timeout=START_S * 1000,
    )


def test_training_is_watched_reloaded_stopped_and_continued(open_notebook, small_data, tmp_path):
    run = RunDir(tmp_path / "run")
    places = {"prepared_dir": str(small_data), "run_dir": str(run.folder)}
    notebook = open_notebook("3_train.ipynb", **LONG, **places)
    notebook.start_all()
    wait_epoch(notebook, 5)
    view_of(notebook).scroll_into_view_if_needed()
    for width in WIDTHS:
        notebook.set_width(width)
        notebook.wait_within(view_of(notebook))
        notebook.screenshot(f"3_train_live_{width}")

    notebook.save()
    stop = view_of(notebook).get_by_role("button", name="Stop")
    for _ in range(5):  # ipywidgets gives a busy kernel only four seconds to send its widgets
        notebook.open()  # the page is loaded again; the kernel continues
        with suppress(playwright.TimeoutError):
            stop.wait_for()
            break
    before = run.log_entries()[-1]["epoch"]
    wait_epoch(notebook, before + 2)
    view_of(notebook).scroll_into_view_if_needed()
    notebook.screenshot("3_train_after_reload")
    stop.click()
    wait_says(notebook, r"stopped with \d+ of 100,?000 epochs saved")
    notebook.wait_idle(END_S)  # the cells below ran on what there is
    assert notebook.errors() == []
    assert run.saved_progress() and not run.is_finished()
    stopped_at = run.log_entries()[-1]["epoch"]
    notebook.screenshot("3_train_stopped")

    notebook.cell("await train(").locator(".cm-content").click()
    notebook.page.keyboard.press("Control+Enter")
    wait_epoch(notebook, stopped_at + 2)
    notebook.page.get_by_title("Interrupt the kernel").click()
    wait_says(notebook, "interrupted: saving a checkpoint")
    wait_says(notebook, "KeyboardInterrupt")
    assert run.log_entries()[-1]["epoch"] > stopped_at
