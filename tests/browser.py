"""JupyterLab in headless Chromium, used as a person would: `pytest_plugins = ("browser",)`.

A test module that says so gets the fixtures `lab`, `open_notebook` and `screenshots`. They skip,
with the reason, where Chromium or Playwright is missing.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pytest
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from lib.config import PROJECT_ROOT

NOTEBOOKS = PROJECT_ROOT / "notebooks"
SCREENSHOTS = PROJECT_ROOT / "outputs" / "screenshots"  # kept as output of CI
# Bounds that only end a broken test, on a slow and busy machine too.
START_S, RUN_S, ANSWER_S = 180, 600, 60
# All cells stay in the page, so that what a test asks for need not be scrolled to.
LAB_SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},
    "docmanager-extension/plugin": {"autosave": False},
}
# The status bar knows of a kernel that is still starting; the notebook's own indicator does not.
IS_IDLE = """() => {
    const status = document.querySelector('#jp-main-statusbar')?.innerText ?? '';
    const prompts = [...document.querySelectorAll('.jp-Notebook .jp-InputPrompt')];
    const indicator = document.querySelector('.jp-Notebook-ExecutionIndicator');
    return status.includes('| Idle') && indicator?.dataset.status === 'idle' &&
        !prompts.some(p => p.innerText.includes('*'));
}"""


class Lab:
    """A running JupyterLab with a folder of its own.

    Attributes:
        url: Its address.
        folder: The folder that it serves; notebooks are copied there.
    """

    def __init__(self, url: str, folder: Path):
        self.url, self.folder = url, folder

    def copy(self, name: str, **parameters: object) -> Path:
        """Copy a notebook of the project, with other parameters than its defaults."""
        notebook = load_notebook_node(str(NOTEBOOKS / name))
        if parameters:
            notebook = parameterize_notebook(notebook, parameters)
        target = self.folder / name
        nbformat.write(notebook, target)
        return target


class NotebookPage:
    """A notebook that is open in JupyterLab.

    Attributes:
        page: Playwright's page, for everything that this class has no name for.
    """

    def __init__(self, page: object, lab: Lab, name: str):
        self.page, self.lab, self.name = page, lab, name
        self.open()
        self.wait_idle(START_S)

    def open(self) -> None:
        """Open the notebook in a fresh workspace; a second call reloads it, its kernel goes on."""
        address = f"{self.lab.url}/lab/tree/{self.name}?reset"
        self.page.goto(address, timeout=START_S * 1000)
        self.page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=START_S * 1000)

    def run_all(self, timeout_s: float = RUN_S) -> None:
        """Run > Run All Cells, and wait until the kernel has nothing more to do."""
        self.start_all()
        self.wait_idle(timeout_s)

    def start_all(self) -> None:
        """Run > Run All Cells, without waiting for its end."""
        self.page.locator(".lm-MenuBar-item", has_text=re.compile("^Run$")).click()
        self.page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        self.page.wait_for_function(f"() => !({IS_IDLE})()")

    def wait_idle(self, timeout_s: float = RUN_S) -> None:
        """Wait until the kernel is idle and no cell waits for it.

        A kernel that has not yet received a click is idle too: wait for what the click changes.
        """
        self.page.wait_for_function(IS_IDLE, timeout=timeout_s * 1000)

    def run_cell(self, cell: object) -> None:
        """Run a code cell, and wait until the kernel has nothing more to do."""
        prompt = cell.locator(".jp-InputPrompt").first
        before = prompt.inner_text()
        cell.locator(".cm-content").first.click()
        self.page.keyboard.press("Control+Enter")
        self.page.wait_for_function(
            "([p, before]) => p.innerText !== before && !p.innerText.includes('*')",
            arg=[prompt.element_handle(), before],
            timeout=RUN_S * 1000,
        )
        self.wait_idle()

    def save(self) -> None:
        """Save the notebook with its outputs, and wait until its file is written."""
        path, end = self.lab.folder / self.name, time.monotonic() + ANSWER_S
        before = path.stat().st_mtime_ns
        self.page.keyboard.press("Control+s")
        while path.stat().st_mtime_ns == before:
            assert time.monotonic() < end, f"{path} is not saved"
            self.page.wait_for_timeout(100)

    def errors(self) -> list[str]:
        """Return the error outputs and what the page says about widgets that it cannot show."""
        shown = self.page.locator(
            ".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.error'], "
            ".jp-OutputArea-output:has-text('Traceback (most recent call last)'), "
            ".jp-OutputArea-output:has-text('Error displaying widget')"
        )
        return shown.all_inner_texts()

    def cell(self, text: str):
        """Return the code cell whose source contains `text`."""
        return self.page.locator(".jp-CodeCell").filter(
            has=self.page.locator(".jp-InputArea", has_text=text)
        )

    def wait_changed(self, selector: str, attribute: str, before: str | None) -> None:
        """Wait until an element's attribute is another than `before`."""
        self.page.wait_for_function(
            "([s, a, b]) => (document.querySelector(s)?.getAttribute(a) ?? b) !== b",
            arg=[selector, attribute, before],
        )

    def set_width(self, width: int) -> None:
        """Make the window so many pixels wide, and 5/8 of that high."""
        self.page.set_viewport_size({"width": width, "height": width * 5 // 8})
        self.page.wait_for_function("width => window.innerWidth === width", arg=width)

    def wait_within(self, target: object) -> None:
        """Wait until an element ends within the width of the window."""
        self.page.wait_for_function(
            "element => element.getBoundingClientRect().right <= window.innerWidth",
            arg=target.element_handle(),
        )

    def screenshot(self, name: str, target: object = None) -> Path:
        """Write `outputs/screenshots/<name>.png` of the window, or of an element of it."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        path = SCREENSHOTS / f"{name}.png"
        if target is None:
            self.page.screenshot(path=path)
            return path
        window = self.page.viewport_size
        height = int(target.bounding_box()["height"]) + 200  # so that all of it is in the window
        self.page.set_viewport_size(window | {"height": max(height, window["height"])})
        target.evaluate("element => element.scrollIntoView()")
        target.screenshot(path=path)
        self.page.set_viewport_size(window)
        return path


@contextmanager
def start_lab(folder: Path, settings: dict[str, dict] | None = None) -> Iterator[Lab]:
    """Run JupyterLab without token on this machine, with settings and kernels of its own.

    Args:
        folder: Where its files go; its `work` is what it serves.
        settings: Settings of JupyterLab, by plugin, beside `LAB_SETTINGS`.
    """
    work = folder / "work"
    work.mkdir(parents=True)
    for plugin, values in (LAB_SETTINGS | (settings or {})).items():
        path = folder / "settings" / "@jupyterlab" / f"{plugin}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    config = folder / "config" / "labconfig" / "page_config.json"
    config.parent.mkdir(parents=True)
    news = "@jupyterlab/apputils-extension:announcements"  # would ask, and go to the network
    config.write_text(json.dumps({"disabledExtensions": {news: True}}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += [
        f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0",
        "--ServerApp.ip=127.0.0.1",
    ]
    command += ["--IdentityProvider.token=", "--ServerApp.disable_check_xsrf=True"]
    command += [f"--ServerApp.root_dir={work}"]
    environment = os.environ | {
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
    }
    with open(folder / "lab.log", "wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=work)
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_answers(url, server, folder / "lab.log")
        yield Lab(url, work)
    finally:
        server.terminate()  # ends its kernels too
        server.wait(timeout=ANSWER_S)


def _wait_answers(url: str, server: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end and server.poll() is None:
        try:
            urllib.request.urlopen(f"{url}/api", timeout=5).close()
            return
        except (urllib.error.URLError, TimeoutError):
            time.sleep(0.2)
    raise RuntimeError(f"JupyterLab did not start:\n{log.read_text()[-3000:]}")


def find_chromium() -> str:
    """Return the path of Chromium, or skip the test."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")


@contextmanager
def start_chromium() -> Iterator[object]:
    """Run Debian's Chromium without a window; skips the test where it cannot be driven."""
    reason = "Playwright is not installed (pip install -e '.[test]')"
    playwright = pytest.importorskip("playwright.sync_api", reason=reason)
    path = find_chromium()
    try:
        driver = playwright.sync_playwright().start()
    except OSError as error:
        pytest.skip(f"Playwright's driver does not start ({error})")
    try:
        chromium = driver.chromium.launch(executable_path=path, args=["--disable-gpu"])
        playwright.expect.set_options(timeout=ANSWER_S * 1000)
        yield chromium
        chromium.close()
    finally:
        driver.stop()


# Not for the session: Playwright's event loop must not run while other tests use their own.
@pytest.fixture(scope="module")
def chromium() -> Iterator[object]:
    """Chromium, for the tests of a module."""
    with start_chromium() as browser:
        yield browser


@pytest.fixture(scope="session")
def lab(tmp_path_factory) -> Iterator[Lab]:
    """JupyterLab, for all tests that a worker runs."""
    find_chromium()
    with start_lab(tmp_path_factory.mktemp("lab")) as running:
        yield running


@pytest.fixture(scope="module")
def open_notebook(chromium, lab) -> Iterator[Callable[..., NotebookPage]]:
    """Open copies of notebooks: `open_notebook(name, **parameters)`.

    At most one is open: the kernel of the one before is shut down.
    """
    contexts = []

    def close() -> None:
        while contexts:
            contexts.pop().close()
            _end_sessions(lab)

    def open_copy(name: str, **parameters: object) -> NotebookPage:
        close()
        lab.copy(name, **parameters)
        context = chromium.new_context(
            viewport={"width": 1280, "height": 800},
            permissions=["clipboard-read", "clipboard-write"],
            reduced_motion="reduce",  # looping clips keep a core busy
        )
        context.set_default_timeout(ANSWER_S * 1000)
        contexts.append(context)
        return NotebookPage(context.new_page(), lab, name)

    yield open_copy
    close()


def _end_sessions(lab: Lab) -> None:
    """Shut the kernels down that the notebooks of a test left behind."""
    with urllib.request.urlopen(f"{lab.url}/api/sessions", timeout=ANSWER_S) as answer:
        sessions = json.load(answer)
    for session in sessions:
        request = urllib.request.Request(f"{lab.url}/api/sessions/{session['id']}", method="DELETE")
        urllib.request.urlopen(request, timeout=ANSWER_S).close()
