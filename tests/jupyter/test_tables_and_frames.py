"""Tables and frames of a prepared data set in a notebook."""

import matplotlib
import numpy as np
import pandas as pd
import pytest

from lib.data.frame_tables import PERSON_BOXES_FILE
from lib.data.video_reader import read_frames
from lib.jupyter.clip_views import boxed_rows
from lib.jupyter.html import left_aligned
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
