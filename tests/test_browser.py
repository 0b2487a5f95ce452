"""The notebooks in JupyterLab, in a real browser."""

import sys

import pytest

from lib.config import PROJECT_ROOT

pytest_plugins = ("browser",)


@pytest.fixture(scope="module")
def small_data(tmp_path_factory):
    """A data folder with a small synthetic data set."""
    from lib.data.synthetic import make_synthetic

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
    notebook = open_notebook("1_prepare_data.ipynb", data_dir=str(small_data))
    notebook.run_all()
    assert notebook.errors() == []
    assert notebook.cell("plot_contact_sheet(data").locator("img").count() == 1
    notebook.screenshot("1_prepare_data")


def test_augmentation_explorer(open_notebook, small_data):
    notebook = open_notebook("2_look_at_augmentations.ipynb", data_dir=str(small_data))
    notebook.run_all()
    assert notebook.errors() == []
    notebook.cell("augmentation_explorer(").scroll_into_view_if_needed()
    notebook.screenshot("2_look_at_augmentations")
