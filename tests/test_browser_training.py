"""Notebooks 3 and 4 in JupyterLab, in a real browser: training, stopping, reloading, browsing."""

import pytest

from lib.learn.runs import Run

pytest_plugins = ("browser",)
START_S, END_S = 90, 240
SMALL = {"num_processes": 1, "test_num_clips": 1, "unlabeled_rampup_epochs": 0.0}


@pytest.fixture(scope="module")
def small_data(tmp_path_factory):
    """A data folder with a small synthetic data set."""
    from lib.data.synthetic import make_synthetic

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


def test_training_is_watched_stopped_and_continued(open_notebook, small_data, tmp_path):
    run = Run(tmp_path / "run")
    notebook = open_notebook(
        "3_train.ipynb",
        **SMALL | {"data_dir": str(small_data), "run_dir": str(run.folder), "epochs": 400},
    )
    notebook.start_all()
    wait_says(notebook, r"in epoch ([5-9]|\d\d)")
    view_of(notebook).scroll_into_view_if_needed()
    notebook.screenshot("3_train_live_1280")
    notebook.page.set_viewport_size({"width": 1920, "height": 1200})
    notebook.page.wait_for_timeout(2500)
    notebook.screenshot("3_train_live_1920")
    notebook.page.set_viewport_size({"width": 1280, "height": 800})
    view_of(notebook).get_by_role("button", name="Stop").click()
    wait_says(notebook, r"stopped after epoch \d+ of 400")
    notebook.wait_idle(END_S)  # the cells below ran on what there is
    assert notebook.errors() == []
    assert run.last_path.exists() and not run.is_finished()
    stopped_at = run.log_entries()[-1]["epoch"]
    notebook.screenshot("3_train_stopped")

    notebook.cell("await train(").locator(".cm-content").click()
    notebook.page.keyboard.press("Control+Enter")
    wait_says(notebook, rf"in epoch {stopped_at + 2}|in epoch {stopped_at + 3}")
    notebook.page.get_by_title("Interrupt the kernel").click()
    wait_says(notebook, "interrupted: saving a checkpoint")
    wait_says(notebook, "KeyboardInterrupt")
    assert run.log_entries()[-1]["epoch"] > stopped_at
