"""Notebooks 3 and 4 in JupyterLab, in a real browser: training, stopping, reloading, browsing."""

import re

import pytest

from lib.runs.run_dir import RunDir

pytest_plugins = ("browser",)
START_S, END_S = 90, 240
SMALL = {"num_processes": 1, "test_num_clips": 1, "unlabeled_rampup_epochs": 0.0}


@pytest.fixture(scope="module")
def small_data(tmp_path_factory):
    """A data folder with a small synthetic data set."""
    from lib.prepare.synthetic import make_synthetic

    folder = tmp_path_factory.mktemp("data")
    make_synthetic(folder / "synthetic", {"train": 60, "val": 18, "val_swapped": 18})
    return folder


def view_of(notebook):
    """Return the live view of the training: the output that has the stop button."""
    return notebook.cell("await train(").locator(".jp-OutputArea").first


def wait_says(notebook, pattern: str, timeout_s: float = START_S) -> None:
    """Wait until the output of the training cell says something."""
    notebook.page.wait_for_function(
        """pattern => [...document.querySelectorAll('.jp-CodeCell')]
            .filter(cell => cell.querySelector('.jp-InputArea').innerText.includes('await train('))
            .some(cell => new RegExp(pattern).test(
                cell.querySelector('.jp-Cell-outputArea')?.innerText ?? ''))""",
        arg=pattern,
        timeout=timeout_s * 1000,
    )


@pytest.fixture
def long_training(open_notebook, small_data, tmp_path):
    """Start notebook 3 on a run of 400 epochs; return the run and the page."""
    run = RunDir(tmp_path / "run")
    notebook = open_notebook(
        "3_train.ipynb",
        **SMALL | {"prepared_dir": str(small_data), "run_dir": str(run.folder), "epochs": 400},
    )
    notebook.start_all()
    return run, notebook


def test_training_is_watched_stopped_and_continued(long_training):
    run, notebook = long_training
    wait_says(notebook, r"in epoch ([5-9]|\d\d)")
    view_of(notebook).scroll_into_view_if_needed()
    notebook.screenshot("3_train_live_1280")
    notebook.page.set_viewport_size({"width": 1920, "height": 1200})
    notebook.page.wait_for_timeout(2500)
    notebook.screenshot("3_train_live_1920")
    notebook.page.set_viewport_size({"width": 1280, "height": 800})
    view_of(notebook).get_by_role("button", name="Stop").click()
    wait_says(notebook, r"stopped with \d+ of 400 epochs saved")
    notebook.wait_idle(END_S)  # the cells below ran on what there is
    assert notebook.errors() == []
    assert run.saved_progress() and not run.is_finished()
    stopped_at = run.log_entries()[-1]["epoch"]
    notebook.screenshot("3_train_stopped")

    notebook.cell("await train(").locator(".cm-content").click()
    notebook.page.keyboard.press("Control+Enter")
    wait_says(notebook, rf"in epoch {stopped_at + 2}|in epoch {stopped_at + 3}")
    notebook.page.get_by_title("Interrupt the kernel").click()
    wait_says(notebook, "interrupted: saving a checkpoint")
    wait_says(notebook, "KeyboardInterrupt")
    assert run.log_entries()[-1]["epoch"] > stopped_at


def test_the_view_comes_back_after_a_reload(long_training):
    run, notebook = long_training
    wait_says(notebook, r"in epoch [2-9]")
    notebook.page.keyboard.press("Control+s")
    notebook.page.wait_for_timeout(1000)
    notebook.open()  # the page is loaded again; the kernel continues
    view_of(notebook).get_by_role("button", name="Stop").wait_for(timeout=START_S * 1000)
    before = run.log_entries()[-1]["epoch"]
    wait_says(notebook, rf"in epoch ({before + 2}|{before + 3}|{before + 4})")
    view_of(notebook).scroll_into_view_if_needed()
    notebook.screenshot("3_train_after_reload")
    view_of(notebook).get_by_role("button", name="Stop").click()
    wait_says(notebook, r"stopped with \d+ of 400 epochs saved")
    assert run.saved_progress() and not run.is_finished()


@pytest.fixture(scope="module")
def two_runs(small_data, tmp_path_factory):
    """Two short runs of notebook 3's defaults, one of them tested already."""
    from lib.config import EvaluateSettings, TrainSettings
    from lib.evaluate.test import evaluate
    from lib.train.fit import fit

    folder = tmp_path_factory.mktemp("runs")
    defaults = TrainSettings().model_dump() | SMALL
    runs = []
    for name, objective in (("semi", "fixmatch"), ("supervised", "supervised")):
        changes = {"prepared_dir": str(small_data), "run_dir": str(folder / name), "epochs": 8}
        runs.append(fit(TrainSettings(**defaults | changes | {"objective": objective})))
    evaluate(EvaluateSettings(run_dir=str(runs[1].folder)))
    return runs


def test_a_cell_of_the_confusion_matrix_opens_into_its_clips(open_notebook, two_runs):
    notebook = open_notebook("4_evaluate.ipynb", run_dir=str(two_runs[0].folder))
    notebook.run_all()
    assert notebook.errors() == []
    browser = notebook.cell("EvaluationBrowser(")
    cell = browser.locator("button.jupyter-button", has_text=re.compile(r"^\d+$")).first
    cell.scroll_into_view_if_needed()
    count, words = cell.get_attribute("title").split(" ", 1)  # "3 videos of … taken for …"
    cell.click()
    browser.get_by_text(words).first.wait_for(timeout=30_000)
    notebook.page.wait_for_function(  # the list follows the words
        "n => document.querySelectorAll('.widget-select select option').length === n",
        arg=int(count),
        timeout=30_000,
    )
    clip = browser.locator(".clips img").first
    clip.wait_for(timeout=30_000)
    assert clip.evaluate("image => image.decode().then(() => image.naturalWidth > 0)")
    browser.get_by_label("compare").select_option(label=two_runs[1].name)
    browser.get_by_text(two_runs[1].name, exact=True).last.wait_for(timeout=30_000)
    for width in (1280, 1920):
        notebook.page.set_viewport_size({"width": width, "height": width * 5 // 8})
        browser.locator(".jp-OutputArea").first.scroll_into_view_if_needed()
        notebook.page.wait_for_timeout(1000)
        notebook.screenshot(f"4_evaluate_browser_{width}")
