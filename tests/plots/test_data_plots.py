"""Figures of a prepared data set: what they show, and that their axes are named."""

import matplotlib
import numpy as np
import pandas as pd
import pytest

from lib.data.frame_tables import PERSON_BOXES_FILE
from lib.data.video_reader import read_frames
from lib.jupyter.clip_views import boxed_rows
from lib.plots.data import (
    left_aligned,
    plot_box_statistics,
    plot_class_counts,
    plot_clip_lengths,
)
from lib.prepare.person_boxes import box_statistics
from lib.prepare.published_splits import class_counts
from lib.prepare.synthetic import make_synthetic

matplotlib.use("Agg")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_synthetic(tmp_path_factory.mktemp("plots"), {"train": 8, "val": 4})


@pytest.fixture(autouse=True)
def close_figures():
    yield
    matplotlib.pyplot.close("all")


def test_a_table_of_texts_is_shown_without_its_index():
    page = left_aligned(pd.DataFrame({"part": ["videos"], "details": ["a < b"]})).to_html()
    assert "text-align: left" in page and "a &lt; b" in page and ">0<" not in page


def test_bars_are_the_counts(dataset):
    counts = pd.DataFrame({name: class_counts(dataset, name) for name in ("train", "val")})
    (axes,) = plot_class_counts(counts).axes
    assert [bar.get_height() for bar in axes.patches] == [2] * 4 + [1] * 4
    assert axes.get_xlabel() == "class" and axes.get_ylabel() == "videos"
    assert axes.get_title() == "Every class has 2 videos in train"


def test_lengths_say_how_many_are_short(dataset):
    (axes,) = plot_clip_lengths(dataset.index["frames"], {"ours": (8, 8)}).axes
    assert axes.get_title() == "12 of 12 videos are shorter than a clip of ours"
    assert "(frames)" in axes.get_xlabel()
    assert sum(bar.get_height() for bar in axes.patches) == 12
    (axes,) = plot_clip_lengths(dataset.index["frames"], {"ours": (8, 3), "the paper": (8, 8)}).axes
    assert axes.get_title().startswith("0 of 12")
    assert [line.get_xdata()[0] for line in axes.get_lines()] == [24, 64]


def test_frames_are_evenly_spaced_with_their_boxes(dataset):
    clips = boxed_rows(dataset, [0, 3], num_frames=3)
    assert list(clips) == [dataset.record(row).name.replace("/", "\n") for row in (0, 3)]
    frames = read_frames(dataset.record(0), np.array([0, 16, 31]))
    clip = next(iter(clips.values())).permute(0, 2, 3, 1).numpy()
    changed = (clip != frames).any(axis=-1)
    assert (clip[changed] == (230, 159, 0)).all() and (changed.sum(axis=(1, 2)) > 20).all()
    (dataset.folder / PERSON_BOXES_FILE).rename(dataset.folder / "away")
    try:
        (clip,) = boxed_rows(dataset, [0], num_frames=3).values()
        assert np.array_equal(clip.permute(0, 2, 3, 1).numpy(), frames)
    finally:
        (dataset.folder / "away").rename(dataset.folder / PERSON_BOXES_FILE)


def test_statistics_have_three_named_panels(dataset):
    figure = plot_box_statistics(box_statistics(dataset))
    assert [axes.get_ylabel() for axes in figure.axes] == ["videos"] * 3
    assert all(axes.get_xlabel() for axes in figure.axes)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[:2] == ["in every frame of 12 videos, in none of 0", "more than one in 0 videos"]
    assert figure.get_suptitle() == "Boxes of 12 videos; in 0 a box vanishes for some frames"
