"""The browser of the videos to label next, and their map."""

from dataclasses import replace

import numpy as np
import pytest

from lib.data.dataset import read_dataset
from lib.evaluate.choose_videos import VideoPool
from lib.jupyter.label_browser import LabelBrowser, map_html, show_labels
from lib.prepare.find_videos import find_videos, write_class
from lib.runs.run_dir import RunDir

HOSTILE = '"><img src=x onerror=alert(1)>'


@pytest.fixture
def pool(prepared_dir, tiny_settings, tmp_path) -> VideoPool:
    """Six videos as of a folder, the first one labeled."""
    dataset = read_dataset(prepared_dir / "synthetic")
    names = [f"unlabeled/{number}" for number in range(len(dataset.index))]
    for name in names[:6]:
        (tmp_path / name).with_suffix(".mp4").parent.mkdir(exist_ok=True)
        (tmp_path / name).with_suffix(".mp4").touch()
    write_class(tmp_path, names[0], HOSTILE)
    index = dataset.index.assign(name=names)
    dataset = replace(dataset, name="folder", classes=(), index=index)
    settings = tiny_settings(dataset="folder", videos_dir=str(tmp_path))
    features = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
    return VideoPool(dataset, settings, np.arange(6), features, [HOSTILE, *[""] * 5], [HOSTILE])


def classes_in(folder) -> list[str]:
    return find_videos(folder).videos["class"].tolist()


def test_a_key_and_a_new_class_write_the_table(pool, tmp_path):
    browser = LabelBrowser(pool, [3, 4])
    first, second, *others = browser.keys
    assert "<img" in browser.clip.value and others[0].layout.display == "none"
    assert second.layout.display == "none" and first.description.startswith('1 ">')
    first.click()
    assert classes_in(tmp_path) == [HOSTILE, "", "", HOSTILE, "", ""]
    browser.other.value = " run "
    assert classes_in(tmp_path) == [HOSTILE, "", "", HOSTILE, "run", ""]
    assert browser.other.value == "" and second.description == "2 run"
    second.click()  # the last video stays; its class can be changed
    assert pool.labels[4] == "run" and "labeled: <b>run</b>" in browser.head.value
    assert "3 of 6 videos are labeled" in browser.head.value


def test_skip_and_back_change_no_class(pool, tmp_path):
    browser = LabelBrowser(pool, [3, 4])
    *_, skip, back = browser.widget.children[3].children
    skip.click()
    assert "2 of 2" in browser.head.value
    back.click()
    back.click()
    assert "1 of 2" in browser.head.value and classes_in(tmp_path) == [HOSTILE, *[""] * 5]


def test_a_table_that_cannot_be_used_is_named(pool, tmp_path):
    (tmp_path / "labels.csv").write_text("name,class\nx.mp4,a\n")
    browser = LabelBrowser(pool, [3])
    browser.keys[0].click()
    assert "labels.csv, line 2: no video" in browser.message.value and pool.labels[3] == ""


def test_many_classes_have_the_likely_ones_on_the_keys(pool):
    known = tuple(f"class {k}" for k in range(12))
    pool.dataset = replace(pool.dataset, classes=known)
    pool.classes, pool.probabilities = list(known), np.tile(np.arange(12.0) / 66, (6, 1))
    browser = LabelBrowser(pool, [3])
    assert [key.tooltip for key in browser.keys] == [f"class {k}" for k in range(11, 2, -1)]
    assert set(browser.other.options) == set(known)


def test_the_map_shows_every_video_once_and_escapes_names(pool):
    page = map_html(pool, [3, 4])
    assert page.count('tabindex="0"') == 6 and page.count("data:image/webp") == 6
    assert page.count('class="video labeled') == 1 and page.count('class="video next') == 2
    assert "principal component 1" in page and "<img src=x" not in page
    assert "&#34;&gt;&lt;img src=x" in page


def test_a_run_that_is_not_finished_says_so(tiny_settings, tmp_path, capsys):
    run = RunDir(tmp_path / "run")
    run.folder.mkdir()
    run.params_path.write_text(tiny_settings().as_yaml())
    show_labels(run)
    assert "not finished, 0 of 2 epochs" in capsys.readouterr().out
