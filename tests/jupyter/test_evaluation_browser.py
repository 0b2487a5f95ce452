"""The figures and the browser of notebook 4, without a browser, on data of every kind."""

import shutil
from dataclasses import replace

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
import pytest

from lib.config import EvaluateSettings
from lib.data.dataset import read_dataset
from lib.data.frame_tables import PERSON_BOXES_FILE
from lib.evaluate.invariance import CenterClips, boxes_note, predict_regions
from lib.evaluate.run_results import SplitResult, read_results
from lib.evaluate.test import evaluate
from lib.evaluate.trained_model import TrainedModel
from lib.jupyter import browser as browser_module
from lib.jupyter.browser import (
    CELL,
    EVERYTHING,
    EvaluationBrowser,
    confident_mistakes,
    mistakes_html,
)
from lib.plots.evaluation import (
    confused_classes,
    confusion_matrix,
    plot_confusions,
    recall,
    regions_figure,
)
from lib.runs.run_dir import RunDir
from lib.train.fit import fit


@pytest.fixture(scope="module")
def tested(prepared_dir, tmp_path_factory):
    """A tested run."""
    from conftest import make_tiny_settings

    changes = {"objective": "fixmatch", "epochs": 1, "test_splits": ["val", "val_swapped"]}
    folder = tmp_path_factory.mktemp("runs") / "semi"
    run = fit(make_tiny_settings(prepared_dir, folder, **changes))
    evaluate(EvaluateSettings(run_dir=str(run.folder)))
    return run


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture
def browser(tested) -> EvaluationBrowser:
    return EvaluationBrowser(tested, read_results(tested))


def made_up(result: SplitResult, scores: np.ndarray, classes: tuple[str, ...] | None = None):
    """Return a result with other scores, and with other classes of the same videos."""
    dataset = result.dataset if classes is None else replace(result.dataset, classes=classes)
    scores = scores.astype(np.float32)
    return SplitResult(dataset, result.rows, scores, result.labels, result.fusion)


def perfect(result: SplitResult) -> SplitResult:
    return made_up(result, 5.0 * np.eye(len(result.dataset.classes))[result.labels])


def cell_buttons(browser: EvaluationBrowser) -> list:
    return [cell for cell in browser.matrix.children if isinstance(cell, widgets.Button)]


# --- The browser ----------------------------------------------------------------------------------


def test_results_are_read_as_they_were_written(tested):
    fresh = evaluate(EvaluateSettings(run_dir=str(tested.folder)))
    for name, result in read_results(tested).items():
        assert np.array_equal(result.scores, fresh[name].scores)
        assert np.array_equal(result.rows, fresh[name].rows)
        assert result.metrics == fresh[name].metrics


def test_every_cell_of_the_matrix_opens_into_its_videos(browser):
    result = browser.result
    matrix = confusion_matrix(result.scores, result.labels)
    buttons = cell_buttons(browser)
    assert [button.description or "0" for button in buttons] == [str(n) for n in matrix.ravel()]
    for button, (label, predicted) in zip(buttons, np.ndindex(matrix.shape), strict=True):
        button.click()
        assert browser.kind.value == CELL
        assert len(browser.videos.options) == matrix[label, predicted]
        found = [position for _, position in browser.videos.options]
        assert (result.labels[found] == label).all()
        assert (result.scores[found].argmax(axis=1) == predicted).all()
        assert ("<img" in browser.gallery.value) == bool(found)


def test_a_class_replaces_the_cell_that_is_shown(browser):
    browser.open_cell(0, 1)
    browser.around.value = 2
    assert browser.kind.value == EVERYTHING
    assert len(browser.videos.options) == (browser.result.labels == 2).sum()
    assert f"videos of {browser.classes[2]}" in browser.note.value


def test_lists_and_classes_are_chosen(browser):
    browser.kind.value = EVERYTHING
    assert len(browser.videos.options) == 8
    browser.split.value = "val_swapped"
    assert len(browser.videos.options) == 6
    browser.around.value = 2
    labels = browser.result.labels
    assert len(browser.videos.options) == (labels == 2).sum()
    assert f"videos of {browser.classes[2]}" in browser.note.value


def test_a_video_shows_its_parts_and_the_classes(browser):
    browser.kind.value = EVERYTHING
    browser.videos.value = browser.videos.options[-1][1]
    assert "actor only" in browser.detail.value and "background only" in browser.detail.value
    assert ">semi</div>" in browser.detail.value


def test_a_mistake_is_opened_in_the_explorer(browser, tested):
    browser.split.value = "val_swapped"
    browser.videos.value = browser.videos.options[-1][1]
    row = int(browser.result.rows[browser.videos.value])
    assert not browser.below.children
    browser.open.click()
    shown, run = browser.explorer, tested.settings()
    assert shown.widget in browser.below.children and shown.video.row == row
    assert shown.views.params["video"] == browser.result.dataset.record(row).name
    assert (shown.settings.crop_size, shown.settings.clip_len) == (run.crop_size, run.clip_len)
    assert shown.settings.split_name == "val_swapped"
    browser.videos.value = browser.videos.options[0][1]
    browser.open.click()
    assert browser.explorer.video.row == browser.result.rows[browser.videos.options[0][1]]


def test_paging_decodes_a_clip_once(browser):
    browser.kind.value = EVERYTHING
    for _ in range(2):
        for _, position in browser.videos.options:
            browser.videos.value = position
    info = browser.clips.cache_info()
    assert info.misses <= len(browser.videos.options) and info.hits > info.misses


# --- Bad input ------------------------------------------------------------------------------------


def test_without_mistakes(tested):
    results = {name: perfect(result) for name, result in read_results(tested).items()}
    browser = EvaluationBrowser(tested, results)
    assert "<b>0</b> mistakes" in browser.note.value
    assert browser.gallery.value == "" and browser.detail.value == "" and browser.open.disabled
    assert "no such video" in mistakes_html(results["val"], tested.settings())


def test_a_run_deleted_while_it_is_shown(tested, tmp_path):
    copy = RunDir(shutil.copytree(tested.folder, tmp_path / "semi"))
    browser = EvaluationBrowser(copy, read_results(copy))
    browser.kind.value = EVERYTHING
    shutil.rmtree(copy.folder)
    browser.split.value = "val_swapped"
    assert len(browser.videos.options) == 6 and "<img" in browser.gallery.value
    with pytest.raises(ValueError, match="no run here"):
        EvaluationBrowser(copy, browser.results)


def test_a_checkpoint_that_is_gone_is_named(tested, tmp_path):
    copy = RunDir(shutil.copytree(tested.folder, tmp_path / "semi"))
    shutil.rmtree(copy.checkpoint_dir)
    browser = EvaluationBrowser(copy, read_results(copy))
    browser.kind.value = EVERYTHING
    assert "no last checkpoint" in browser.detail.value and "<img" in browser.gallery.value


def test_videos_that_are_gone_are_named(tested, tmp_path):
    results = {}
    for name, result in read_results(tested).items():
        moved = replace(result.dataset, root=tmp_path / "moved")
        results[name] = replace(result, dataset=moved)
    browser = EvaluationBrowser(tested, results)
    browser.kind.value = EVERYTHING
    assert "cannot be read" in browser.gallery.value and browser.detail.value
    browser.open.click()
    assert "no such video file" in browser.explorer.params.value


def test_data_without_boxes_say_so(tested, tmp_path):
    result = read_results(tested)["val"]
    folder = tmp_path / "bare"
    shutil.copytree(result.dataset.folder, folder)
    (folder / PERSON_BOXES_FILE).unlink()
    bare = replace(result, dataset=read_dataset(folder))
    browser = EvaluationBrowser(tested, {"val": bare})
    browser.kind.value = EVERYTHING
    assert "no person boxes" in browser.detail.value and "<img" in browser.gallery.value
    clip, mask = CenterClips(bare.dataset, tested.settings())(int(bare.rows[0]))
    regions = predict_regions(TrainedModel.load(tested), clip, mask, boxes_note(mask))
    figure = regions_figure(regions, bare.dataset.classes, 0)
    assert "no person boxes" in figure.get_suptitle() and list(regions.clips) == ["whole clip"]


def test_one_video_only(tested):
    whole = read_results(tested)["val"]
    one = SplitResult(whole.dataset, whole.rows[:1], whole.scores[:1], whole.labels[:1], "logits")
    browser = EvaluationBrowser(tested, {"val": one})
    browser.kind.value = EVERYTHING
    assert len(browser.videos.options) == 1 and "<img" in browser.gallery.value
    rates = recall(confusion_matrix(one.scores, one.labels))
    assert np.isnan(rates).sum() == 3  # classes without videos, of four


def test_400_classes_with_long_names(tested):
    result = read_results(tested)["val"]
    classes = tuple(f"<a class> with a very long name, {'so ' * 30}{k}" for k in range(400))
    rng = np.random.default_rng(0)
    many = made_up(result, rng.normal(size=(len(result.rows), 400)), classes)
    browser = EvaluationBrowser(tested, {"val": many})
    assert len(cell_buttons(browser)) == 12**2
    assert len(browser.around.options) == 401
    browser.around.value = 399
    tooltips = [button.tooltip for button in cell_buttons(browser)]
    assert any(f"videos of {classes[399]} taken for" in text for text in tooltips)
    assert "<a class>" not in browser.note.value + browser.detail.value
    figure = plot_confusions({"val": confusion_matrix(many.scores, many.labels)}, classes, "")
    assert max(figure.get_size_inches()) < 12
    assert "number, of 400" in figure.axes[0].get_xlabel()


def test_a_run_that_is_not_tested_says_so(tested, tmp_path):
    copy = RunDir(shutil.copytree(tested.folder, tmp_path / "semi"))
    (copy.folder / "scores_val.npz").unlink()
    with pytest.raises(ValueError, match="scores_val.npz: missing; test the run first"):
        read_results(copy)


# --- What the figures are made from ---------------------------------------------------------------


def test_confused_classes_keep_their_order_and_their_partners():
    matrix = np.diag([9, 9, 9, 9, 9])
    matrix[1, 3], matrix[4, 0] = 5, 2
    assert confused_classes(matrix, 2).tolist() == [1, 3]
    assert confused_classes(matrix, 2, around=0).tolist() == [0, 4]
    assert confused_classes(matrix, 3, around=0).tolist()[0] == 0
    assert confused_classes(matrix, 5).tolist() == [0, 1, 2, 3, 4]


def test_mistakes_come_most_confident_first(tested):
    result = read_results(tested)["val"]
    share = result.probabilities
    found = confident_mistakes(result)
    assert (result.scores[found].argmax(1) != result.labels[found]).all()
    assert (np.diff(share[found].max(axis=1)) <= 0).all()
    assert len(found) == (result.scores.argmax(1) != result.labels).sum()
    fused = replace(result, scores=share, fusion="probabilities", temperature=1.0)
    np.testing.assert_allclose(fused.probabilities, share, rtol=1e-5)


@pytest.mark.parametrize("fusion", ["logits", "probabilities"])
def test_tiles_of_averaged_probabilities_show_them(tested, monkeypatch, fusion):
    """Averaged probabilities are no logits: 0.90 is 90 %, not 69 %."""
    whole = read_results(tested)["val"]
    wrong = (whole.labels[0] + 1) % whole.scores.shape[1]
    shares = np.full((1, whole.scores.shape[1]), 0.1 / (whole.scores.shape[1] - 1))
    shares[0, wrong] = 0.9
    scores = (shares if fusion == "probabilities" else np.log(shares)).astype(np.float32)
    one = SplitResult(whole.dataset, whole.rows[:1], scores, whole.labels[:1], fusion)
    tiles = []
    monkeypatch.setattr(browser_module, "tiles_html", lambda shown, _: tiles.extend(shown))
    mistakes_html(one, tested.settings())
    assert "90 %" in tiles[0].title
