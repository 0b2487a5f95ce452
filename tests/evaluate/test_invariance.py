"""Invariance scores, with networks whose answer is known."""

import numpy as np
import pytest
import torch
from torch import nn

from lib.data.dataset import read_dataset
from lib.evaluate.invariance import CenterClips, count_swaps, measure_invariance
from lib.evaluate.trained_model import TrainedModel
from lib.train.run_model import run_normalize


class Constant(nn.Module):
    """Predicts class 1 whatever it sees."""

    def forward(self, clips):
        return torch.tensor([0.0, 2.0, 1.0, 0.0, 0.0, 0.0]).repeat(len(clips), 1)


class Brightness(nn.Module):
    """Class 0 for clips brighter than the mean color, else 1: blind to time and place."""

    def forward(self, clips):
        mean = clips.mean(dim=(1, 2, 3, 4))
        return torch.stack([mean, -mean, *[torch.full_like(mean, -9)] * 4], dim=1)


class FirstFrame(nn.Module):
    """Sees only where the first frame is bright, left or right: anything but blind to time."""

    def forward(self, clips):
        half = clips.shape[-1] // 2
        side = clips[:, :, 0, :, :half].mean((1, 2, 3)) - clips[:, :, 0, :, half:].mean((1, 2, 3))
        return 50 * torch.stack([side, -side, *[torch.full_like(side, -9)] * 4], dim=1)


def as_trained(network: nn.Module, settings) -> TrainedModel:
    return TrainedModel(settings, tuple("abcdef"), network, run_normalize(settings))


@pytest.fixture
def measured(prepared_dir, tiny_settings):
    dataset = read_dataset(prepared_dir / "synthetic")
    rows = dataset.read_split("train")

    def measure(model, **options):
        return measure_invariance(as_trained(model, tiny_settings()), dataset, rows, **options)

    return measure


def test_constant_network_is_invariant_to_everything(measured):
    scores = measured(Constant()).families.set_index("family")
    assert list(scores.index) == ["photometric", "geometric", "temporal", "scene"]
    assert (scores["agreement"] == 100).all()
    assert scores["kl"].to_numpy() == pytest.approx(0, abs=1e-6)


def test_brightness_is_invariant_to_time_only(measured):
    scores = measured(Brightness(), num_draws=4).families.set_index("family")
    assert scores.loc["temporal", "kl"] < scores.loc["photometric", "kl"] / 3
    assert scores.loc["photometric", "kl"] > 0


def test_first_frame_network_changes_with_time(measured):
    scores = measured(FirstFrame(), num_draws=4).families.set_index("family")
    assert scores.loc["temporal", "kl"] > 0
    assert scores.loc["temporal", "agreement"] < 100


def test_scores_are_seeded(measured):
    first, again, other = (measured(Brightness(), seed=seed).families for seed in (0, 0, 1))
    assert first.equals(again)
    assert not first.equals(other)


def test_parts_are_counted_where_there_is_actor_and_background(measured):
    table = measured(Constant()).accuracy.set_index("input")
    assert list(table.index) == ["whole clip", "actor only", "background only"]
    assert table.loc["actor only", "videos"] <= table.loc["whole clip", "videos"]


def test_without_boxes_the_scene_is_left_out(prepared_dir, tiny_settings, tmp_path):
    dataset = read_dataset(prepared_dir / "synthetic")
    from dataclasses import replace

    bare = replace(dataset, folder=tmp_path)
    model = as_trained(Constant(), tiny_settings())
    scores = measure_invariance(model, bare, dataset.read_split("val"))
    assert list(scores.families["family"]) == ["photometric", "geometric", "temporal"]
    assert list(scores.accuracy["input"]) == ["whole clip"]


def test_mask_follows_the_evaluation_crop(prepared_dir, tiny_settings):
    dataset = read_dataset(prepared_dir / "synthetic")
    settings = tiny_settings(short_side=64, crop_size=40)
    clip, mask = CenterClips(dataset, settings)(0)
    record = dataset.record(0)
    from lib.data.clip_dataset import uniform_clip_indices
    from lib.data.frame_tables import PersonBoxes

    indices = uniform_clip_indices(
        record.num_frames, settings.clip_len, settings.frame_interval, 1
    )[0]
    boxes = PersonBoxes(dataset).lookup(0, indices)
    margin = (64 - 40) // 2
    expected = np.zeros((len(indices), 64, 64), dtype=np.uint8)
    for frame, ((x1, y1, x2, y2),) in zip(expected, boxes, strict=True):
        frame[int(y1) : int(y2), int(x1) : int(x2)] = 1
    expected = expected[:, margin : 64 - margin, margin : 64 - margin]
    np.testing.assert_array_equal(mask[:, 0].numpy(), expected)
    assert clip.shape[0] == mask.shape[0]


def test_swaps_are_counted_by_pair_of_classes():
    predicted = np.array([[0, 0, 0, 1, 1, 2], [1, 0, 0, 0, 1, 2], [0, 0, 0, 1, 1, 0]])
    table = count_swaps(predicted, ["left", "right", "jump"])
    assert table.to_dict("records") == [
        {"view": "flip", "first": "left", "second": "right", "swapped": 2, "clips": 5,
         "percent": 40.0},
        {"view": "reverse", "first": "left", "second": "jump", "swapped": 1, "clips": 4,
         "percent": 25.0},
    ]  # fmt: skip


def test_a_network_that_sees_sides_swaps_under_flip_and_a_constant_one_never(measured):
    assert measured(Constant()).swaps.empty
    swaps = measured(FirstFrame()).swaps
    flips = swaps[swaps["view"] == "flip"]
    assert flips[["first", "second", "percent"]].to_numpy().tolist() == [["bounce", "circle", 100]]
