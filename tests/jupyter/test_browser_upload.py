"""A video of one's own in notebook 6, in a real browser."""

import pytest

from lib.config import EvaluateSettings
from lib.evaluate.test import evaluate
from lib.prepare.synthetic import make_synthetic
from lib.runs.run_dir import RunDir
from lib.train.fit import fit

pytest_plugins = ("browser",)

HOSTILE = "<img src=x onerror=window.taken=1>.mp4"


@pytest.fixture
def run(tmp_path) -> RunDir:
    """A short run on clips that can be recognised in a picture."""
    from conftest import make_tiny_settings

    make_synthetic(tmp_path / "synthetic", {"train": 24, "val": 12})
    sizes = {"short_side": 64, "crop_size": 56, "test_crop_size": 56, "clip_len": 8}
    run = fit(make_tiny_settings(tmp_path, tmp_path / "semi_seed0", epochs=4, **sizes))
    evaluate(EvaluateSettings(run_dir=str(run.folder)))
    return run


def upload(notebook, view, name: str, content: bytes) -> None:
    """Choose a file in the dialog that the button opens."""
    with notebook.page.expect_file_chooser() as dialog:
        view.get_by_role("button", name="upload a video").click()
    dialog.value.set_files({"name": name, "mimeType": "video/mp4", "buffer": content})


def test_a_video_is_uploaded_and_its_answer_is_shown(open_notebook, run):
    video = sorted((run.folder.parent / "synthetic").rglob("*.mp4"))[1]
    notebook = open_notebook("6_predict.ipynb", run_dir=str(run.folder))
    notebook.run_all()
    view = notebook.cell("show_upload(run)")
    upload(notebook, view, HOSTILE, video.read_bytes())
    view.get_by_text("alone").first.wait_for(timeout=60_000)
    view.locator("img[alt='deciding clips of the video']").wait_for(timeout=30_000)
    assert len(list((run.folder / "predictions" / "uploads").glob("img_src_x_*.mp4"))) == 1
    for width in (1280, 1920):
        notebook.page.set_viewport_size({"width": width, "height": width * 5 // 8})
        is_within = view.locator("img[alt='timeline of the video']").evaluate(
            "image => image.getBoundingClientRect().right <= window.innerWidth"
        )
        assert is_within
        notebook.screenshot(f"6_upload_{width}", view.locator(".jp-OutputArea").first)
    upload(notebook, view, HOSTILE, b"no video at all" * 99)
    view.get_by_text("cannot be read").wait_for(timeout=30_000)
    upload(notebook, view, "<b>program.exe", b"MZ")
    view.get_by_text("<b>program.exe: not a video").wait_for(timeout=30_000)
    notebook.screenshot("6_upload_refused", view.locator(".jp-OutputArea").first)
    assert notebook.page.evaluate("window.taken") is None and notebook.errors() == []
