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
from lib.evaluate.run_results import SplitResult, paired_results, read_results
from lib.evaluate.test import evaluate
from lib.evaluate.trained_model import TrainedModel
from lib.jupyter import browser as browser_module
from lib.jupyter.browser import (
    CELL,
    DIFFERENT,
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
    select_confused_classes,
)
from lib.runs.run_dir import RunDir
from lib.train.fit import fit


@pytest.fixture(scope="module")
def tested(prepared_dir, tmp_path_factory):
    """Two tested runs on the same lists, in one folder."""
    from conftest import make_tiny_settings

    folder = tmp_path_factory.mktemp("runs")
    runs = []
    for name, objective in (("semi", "fixmatch"), ("supervised", "supervised")):
        changes = {"objective": objective, "epochs": 1, "test_splits": ["val", "val_swapped"]}
        runs.append(fit(make_tiny_settings(prepared_dir, folder / name, **changes)))
        evaluate(EvaluateSettings(run_dir=str(runs[-1].folder)))
    return runs


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture
def browser(tested) -> EvaluationBrowser:
    return EvaluationBrowser(tested[0], read_results(tested[0]))


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
    fresh = evaluate(EvaluateSettings(run_dir=str(tested[0].folder)))
    for name, result in read_results(tested[0]).items():
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


def test_a_video_shows_its_parts_and_the_classes_of_both_runs(browser, tested):
    browser.kind.value = EVERYTHING
    browser.videos.value = browser.videos.options[-1][1]
    assert "actor only" in browser.detail.value and "background only" in browser.detail.value
    assert "supervised" not in browser.detail.value
    browser.second_run.value = "supervised"
    assert ">supervised</div>" in browser.detail.value and ">semi</div>" in browser.detail.value
    browser.kind.value = DIFFERENT
    ours, other = browser.result, read_results(tested[1])["val"]
    differ = np.flatnonzero(ours.scores.argmax(1) != other.scores.argmax(1))
    assert [position for _, position in browser.videos.options] == differ.tolist()


def test_a_mistake_is_opened_in_the_explorer(browser, tested):
    browser.split.value = "val_swapped"
    browser.videos.value = browser.videos.options[-1][1]
    row = int(browser.result.rows[browser.videos.value])
    assert not browser.below.children
    browser.open.click()
    shown, run = browser.explorer, tested[0].settings()
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
    results = {name: perfect(result) for name, result in read_results(tested[0]).items()}
    browser = EvaluationBrowser(tested[0], results)
    assert "<b>0</b> mistakes" in browser.note.value
    assert browser.gallery.value == "" and browser.detail.value == "" and browser.open.disabled
    assert "no such video" in mistakes_html(results["val"], tested[0].settings())


def test_a_run_deleted_while_it_is_shown(tested, tmp_path):
    copy = RunDir(shutil.copytree(tested[0].folder, tmp_path / "semi"))
    shutil.copytree(tested[1].folder, tmp_path / "other")
    browser = EvaluationBrowser(copy, read_results(copy))
    browser.kind.value = EVERYTHING
    shutil.rmtree(tmp_path / "other")
    browser.second_run.value = "other"
    assert "no run here" in browser.note.value and "<img" in browser.gallery.value
    shutil.rmtree(copy.folder)
    browser.split.value = "val_swapped"
    assert len(browser.videos.options) == 6 and "<img" in browser.gallery.value
    with pytest.raises(ValueError, match="no run here"):
        EvaluationBrowser(copy, browser.results)


def test_a_checkpoint_that_is_gone_is_named(tested, tmp_path):
    copy = RunDir(shutil.copytree(tested[0].folder, tmp_path / "semi"))
    shutil.rmtree(copy.checkpoint_dir)
    browser = EvaluationBrowser(copy, read_results(copy))
    browser.kind.value = EVERYTHING
    assert "no last checkpoint" in browser.detail.value and "<img" in browser.gallery.value


def test_videos_that_are_gone_are_named(tested, tmp_path):
    results = {}
    for name, result in read_results(tested[0]).items():
        moved = replace(result.dataset, root=tmp_path / "moved")
        results[name] = replace(result, dataset=moved)
    browser = EvaluationBrowser(tested[0], results)
    browser.kind.value = EVERYTHING
    assert "cannot be read" in browser.gallery.value and browser.detail.value
    browser.open.click()
    assert "no such video file" in browser.explorer.params.value


def test_data_without_boxes_say_so(tested, tmp_path):
    result = read_results(tested[0])["val"]
    folder = tmp_path / "bare"
    shutil.copytree(result.dataset.folder, folder)
    (folder / PERSON_BOXES_FILE).unlink()
    bare = replace(result, dataset=read_dataset(folder))
    browser = EvaluationBrowser(tested[0], {"val": bare})
    browser.kind.value = EVERYTHING
    assert "no person boxes" in browser.detail.value and "<img" in browser.gallery.value
    clip, mask = CenterClips(bare.dataset, tested[0].settings())(int(bare.rows[0]))
    regions = predict_regions(TrainedModel.load(tested[0]), clip, mask, boxes_note(mask))
    figure = regions_figure(regions, bare.dataset.classes, 0)
    assert "no person boxes" in figure.get_suptitle() and list(regions.clips) == ["whole clip"]


def test_one_video_only(tested):
    whole = read_results(tested[0])["val"]
    one = SplitResult(whole.dataset, whole.rows[:1], whole.scores[:1], whole.labels[:1], "logits")
    browser = EvaluationBrowser(tested[0], {"val": one})
    browser.kind.value = EVERYTHING
    assert len(browser.videos.options) == 1 and "<img" in browser.gallery.value
    rates = recall(confusion_matrix(one.scores, one.labels))
    assert np.isnan(rates).sum() == 3  # classes without videos, of four


def test_400_classes_with_long_names(tested):
    result = read_results(tested[0])["val"]
    classes = tuple(f"<a class> with a very long name, {'so ' * 30}{k}" for k in range(400))
    rng = np.random.default_rng(0)
    many = made_up(result, rng.normal(size=(len(result.rows), 400)), classes)
    browser = EvaluationBrowser(tested[0], {"val": many})
    assert len(cell_buttons(browser)) == 12**2
    assert len(browser.around.options) == 401
    browser.around.value = 399
    tooltips = [button.tooltip for button in cell_buttons(browser)]
    assert any(f"videos of {classes[399]} taken for" in text for text in tooltips)
    assert "<a class>" not in browser.note.value + browser.detail.value
    matrices = {"val": confusion_matrix(many.scores, many.labels)}
    shown, names, left_out = select_confused_classes(matrices, classes)
    figure = plot_confusions(shown, names, left_out)
    assert max(figure.get_size_inches()) < 12 and "20 of 400 classes" in left_out
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert max(map(len, labels)) <= 22 and names[-1] == "(others)"


def test_runs_on_other_videos_are_not_set_beside_each_other(tested):
    results = read_results(tested[0])
    beside = paired_results(tested[0], results, tested[1], "val")
    assert list(beside) == ["semi", "supervised"]
    fewer = {"val": replace(results["val"], rows=results["val"].rows[:-1])}
    with pytest.raises(ValueError, match="not tested on the 7 videos of split"):
        paired_results(tested[0], fewer, tested[1], "val")


def test_a_run_that_is_not_tested_says_so(tested, tmp_path):
    copy = RunDir(shutil.copytree(tested[0].folder, tmp_path / "semi"))
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


def test_what_is_left_out_of_a_matrix_is_counted_as_others():
    rng = np.random.default_rng(0)
    matrix = rng.integers(0, 5, (30, 30))
    shown, names, _ = select_confused_classes({"val": matrix}, [f"c{k}" for k in range(30)])
    kept = [int(name[1:]) for name in names[:-1]]
    assert names[-1] == "(others)" and len(kept) == 20
    assert np.array_equal(shown["val"][:-1].sum(axis=1), matrix[kept].sum(axis=1))
    assert np.array_equal(shown["val"][:-1, :-1], matrix[np.ix_(kept, kept)])


def test_mistakes_come_most_confident_first(tested):
    result = read_results(tested[0])["val"]
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
    whole = read_results(tested[0])["val"]
    wrong = (whole.labels[0] + 1) % whole.scores.shape[1]
    shares = np.full((1, whole.scores.shape[1]), 0.1 / (whole.scores.shape[1] - 1))
    shares[0, wrong] = 0.9
    scores = (shares if fusion == "probabilities" else np.log(shares)).astype(np.float32)
    one = SplitResult(whole.dataset, whole.rows[:1], scores, whole.labels[:1], fusion)
    tiles = []
    monkeypatch.setattr(browser_module, "tiles_html", lambda shown, _: tiles.extend(shown))
    mistakes_html(one, tested[0].settings())
    assert "90 %" in tiles[0].title
