import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import CODED_FRAMES, write_teacher_scores
from torch.utils.data._utils.pin_memory import pin_memory

from lib.config import PROJECT_ROOT, ClipSettings
from lib.data.clip_dataset import (
    ClipBatch,
    ClipDataset,
    Stream,
    ViewSpec,
    make_generator,
    random_clip_indices,
)
from lib.data.dataset import read_dataset, write_dataset

ALL_VIEWS = ViewSpec(weak=True, strong=True, person_mask=True)
ROWS = np.array([0, 1, 2])
SETTINGS = ClipSettings(
    clip_len=4,
    frame_interval=3,
    short_side=24,
    crop_size=16,
    crop_area_min=0.3,
    frame_cache_mb=0,
)


def make_clip_datasets(
    dataset, views: ViewSpec = ALL_VIEWS, seed_key=(0, 0), **changes
) -> ClipDataset:
    return ClipDataset(dataset, SETTINGS.model_copy(update=changes), views, seed_key)


def micro_batches(batch: int, *part: int) -> list[list[tuple[int, int]]]:
    return list(Stream(None, ROWS, batch, (0, 2, 0)).micro_batches(*part))


def load(clips, batch: int, *part: int, num_workers: int = 0) -> list[ClipBatch]:
    return list(Stream(clips, ROWS, batch, (0, 2, 0)).load(*part, num_workers=num_workers))


def join(batches: list[ClipBatch]) -> list[torch.Tensor]:
    return [torch.cat(parts) for parts in zip(*batches, strict=True) if parts[0] is not None]


def assert_equal(first: list[ClipBatch], second: list[ClipBatch]) -> None:
    for one, other in zip(join(first), join(second), strict=True):
        assert torch.equal(one, other)


def frame_numbers(sample) -> list[int]:
    """Which frames of its video a sample of coded videos shows (conftest.py)."""
    red = sample.weak[:, 0].int()
    assert (red == red[:, :1, :1]).all()
    return ((red[:, 0, 0] - sample.row) // 4).tolist()


# --- One sample -----------------------------------------------------------------------------------


def test_a_sample_is_uint8_and_has_the_asked_views(coded):
    sample = make_clip_datasets(coded)[0, 1]
    assert sample.weak.shape == sample.strong.shape == (4, 3, 16, 16)
    assert sample.person_mask.shape == (4, 1, 16, 16)
    assert {view.dtype for view in sample[:3]} == {torch.uint8}
    assert (sample.label, sample.row) == (1, 1)
    only_strong = make_clip_datasets(coded, ViewSpec(weak=False, strong=True))[0, 1]
    assert only_strong.weak is None and only_strong.person_mask is None
    assert torch.equal(only_strong.strong, sample.strong)  # views do not disturb each other
    only_weak = make_clip_datasets(coded, ViewSpec())[0, 1]
    assert only_weak.strong is None and torch.equal(only_weak.weak, sample.weak)


def test_a_batch_is_whole_after_its_memory_was_pinned(coded, monkeypatch):
    clips = make_clip_datasets(coded, ViewSpec(strong=True, person_mask=True))
    batch = ClipBatch.collate([clips[position, position % 3] for position in range(6)])
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self, device=None: self.clone())
    pinned = pin_memory(batch)
    assert type(pinned) is ClipBatch and pinned.weak is not batch.weak
    for tensor, expected in zip(pinned.to("cpu"), batch, strict=True):
        assert tensor is expected if expected is None else torch.equal(tensor, expected)


def test_a_sample_shows_the_frames_that_were_drawn(coded):
    starts = set()
    for position in range(60):
        frames = frame_numbers(make_clip_datasets(coded)[position, 2])
        assert np.diff(frames).tolist() == [3, 3, 3]
        assert 0 <= frames[0] and frames[-1] < CODED_FRAMES
        starts.add(frames[0])
    assert len(starts) > 15
    draw = make_generator(0, 0, 5)
    assert (
        frame_numbers(make_clip_datasets(coded)[5, 2])
        == random_clip_indices(40, 4, 3, draw).tolist()
    )


def test_a_clip_longer_than_the_video_wraps_around(coded):
    sample = make_clip_datasets(coded, clip_len=8, frame_interval=8)[0, 0]
    assert frame_numbers(sample) == [0, 8, 16, 24, 32, 0, 8, 16]


@pytest.mark.parametrize("row", [0, 2])
def test_the_mask_lies_on_the_people_of_the_weak_view(coded, row):
    """Green and blue of a coded pixel are its row and column in the video, where the boxes are."""
    clips = make_clip_datasets(coded)
    both_ways = set()
    for position in range(30):
        sample = clips[position, row]
        y, x = sample.weak[:, 1].int(), sample.weak[:, 2].int()
        both_ways.add(bool(x[0, 0, 0] > x[0, 0, -1]))
        t = torch.tensor(frame_numbers(sample)).view(-1, 1, 1)
        edges = [(x, t), (x, t + 12), (y, 10 + row), (y, 30 + row)]
        inside = (x >= t) & (x < t + 12) & (y >= 10 + row) & (y < 30 + row)
        is_clear = torch.stack([(value - edge).abs() > 3 for value, edge in edges]).all(dim=0)
        mask = sample.person_mask[:, 0].bool()
        assert torch.equal(mask[is_clear], inside[is_clear])
    assert both_ways == {True, False}  # mirrored and not


def test_boxes_below_the_score_do_not_count(coded):
    for min_score, is_full in ((0.89, False), (0.9, True)):  # the boxes score 0.9
        masks = [
            make_clip_datasets(coded, person_min_score=min_score)[p, 0].person_mask
            for p in range(8)
        ]
        assert all(mask.bool().all() for mask in masks) == is_full


def test_the_strong_view_is_made_of_the_weak_one(coded):
    clips = make_clip_datasets(coded, randaugment_ops=[], temporal_ops=["reverse"])
    for position in range(5):
        sample = clips[position, 0]
        assert torch.equal(sample.strong, sample.weak.flip(0))


def test_without_flip_only_the_flip_changes(coded):
    flipped, unflipped = (make_clip_datasets(coded, flip=flip) for flip in (True, False))
    record, num_flipped = coded.record(0), 0
    for position in range(12):
        with_flip = flipped.pipeline.draw(record, make_generator(0, 0, position))
        without = unflipped.pipeline.draw(record, make_generator(0, 0, position))
        assert without.weak == with_flip.weak._replace(is_flipped=False)
        assert without.strong.operations == with_flip.strong.operations
        num_flipped += with_flip.weak.is_flipped
        blue = unflipped[position, 0].weak[0, 2]  # tells the column
        assert (blue.diff(dim=-1) >= 0).all()
    assert 0 < num_flipped < 12


def test_the_teacher_is_asked_about_one_random_frame_of_the_clip(coded, tmp_path):
    folder = shutil.copytree(coded.folder, tmp_path / "coded")
    dataset = read_dataset(folder)
    write_teacher_scores(dataset)
    clips = make_clip_datasets(
        dataset, ViewSpec(weak=True, strong=True, person_mask=True, teacher=True)
    )
    places = set()
    for position in range(60):
        sample = clips[position, 2]
        assert sample.teacher.shape == (1000,) and sample.teacher.dtype == torch.float32
        assert sample.teacher.max() == 0.75
        scored = int(sample.teacher.argmax()) - 40 * 2
        frames = frame_numbers(sample)
        near = [place for place, frame in enumerate(frames) if 0 <= frame - scored <= 1]
        assert len(near) == 1  # every second frame is scored: the frame itself or the one before
        places.add(near[0])
        without = make_clip_datasets(coded)[position, 2]
        assert torch.equal(sample.weak, without.weak) and torch.equal(sample.strong, without.strong)
    assert places == {0, 1, 2, 3}
    (batch,) = load(clips, 3, 0, 1)
    assert batch.teacher.shape == (3, 1000)


def test_labels_that_mean_nothing_to_the_network_are_left_out(coded):
    clips = ClipDataset(coded, SETTINGS, ViewSpec(), (0, 0), has_labels=False)
    assert clips[0, 1].label == -1
    assert torch.equal(clips[0, 1].weak, make_clip_datasets(coded)[0, 1].weak)


def test_a_sample_depends_on_its_position_its_video_and_the_seed_alone(coded):
    clips = make_clip_datasets(coded)
    sample = clips[7, 0]
    for other, is_same in (
        (clips[7, 0], True),
        (make_clip_datasets(coded)[7, 0], True),
        (make_clip_datasets(coded, frame_cache_mb=10)[7, 0], True),
        (clips[8, 0], False),
        (clips[7, 1], False),
        (make_clip_datasets(coded, seed_key=(1, 0))[7, 0], False),
        (make_clip_datasets(coded, seed_key=(0, 1))[7, 0], False),
    ):
        for view, other_view in zip(sample[:3], other[:3], strict=True):
            assert torch.equal(view, other_view) or not is_same
        assert torch.equal(sample.weak, other.weak) == is_same


def test_keys_give_generators_of_their_own():
    seeds = {make_generator(*key).initial_seed() for key in np.ndindex(6, 5, 40)}
    assert len(seeds) == 6 * 5 * 40
    assert make_generator(1, 2, 3).initial_seed() == make_generator(1, 2, 3).initial_seed()


def test_an_unreadable_video_is_an_error_that_names_it(coded, tmp_path):
    (tmp_path / "videos/class0").mkdir(parents=True)
    (tmp_path / "videos/class0/v0.mkv").write_bytes(b"broken")
    broken = write_dataset(tmp_path, "b", coded.classes, tmp_path, coded.index, {})
    for num_workers in (0, 1):
        with pytest.raises(ValueError, match=r"v\d\.mkv"):
            load(make_clip_datasets(broken, ViewSpec()), 3, 0, 1, num_workers=num_workers)


@pytest.mark.slow
def test_a_program_that_ends_by_an_error_takes_its_loaders_along(tmp_path):
    """They take no notice of SIGTERM, but of this one: or the program would wait without end."""
    script = tmp_path / "script.py"
    script.write_text(
        "from lib.data.clip_dataset import make_loader\n\n"
        "if __name__ == '__main__':\n"
        "    clips = make_loader(range(9), 1)\n"
        "    next(clips)\n"
        "    raise RuntimeError('a bad day')\n"
    )
    environment = os.environ | {"PYTHONPATH": str(PROJECT_ROOT)}
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1 and done.stderr.rstrip().endswith("RuntimeError: a bad day")


# --- The stream -----------------------------------------------------------------------------------


def pairs(parts) -> list[tuple[int, int]]:
    """Return the positions and index rows of all micro-batches."""
    return [pair for part in parts for pair in part]


@pytest.mark.parametrize("batch", [1, 2, 3, 5, 7])
def test_each_pass_covers_the_list_exactly_once(batch):
    rows = np.array([4, 8, 15, 16, 23, 42])
    stream = pairs(Stream(None, rows, batch, (0, 2)).micro_batches(0, 30))
    assert [position for position, _ in stream] == list(range(30 * batch))
    passes = [
        [row for _, row in stream[first : first + 6]] for first in range(0, len(stream) - 5, 6)
    ]
    assert all(sorted(rows_of_pass) == rows.tolist() for rows_of_pass in passes)
    assert len({tuple(rows_of_pass) for rows_of_pass in passes}) > 1  # each in a new order


def test_the_order_depends_on_the_key():
    orders = {
        key: [row for _, row in pairs(Stream(None, np.arange(50), 50, key).micro_batches(0, 1))]
        for key in ((0, 2, 0), (1, 2, 0), (0, 2, 1))
    }
    assert len(set(map(tuple, orders.values()))) == 3


@pytest.mark.parametrize("start", [1, 4, 7])
def test_a_stream_continues_at_any_step(start):
    whole = pairs(micro_batches(4, 0, 9))
    later = micro_batches(4, start, 9)
    assert pairs(later) == whole[4 * start :]
    assert len(later) == 9 - start


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("micro", [1, 2])
def test_processes_and_micro_batches_share_a_step(size, micro):
    whole = micro_batches(12, 2, 5)
    parts = [micro_batches(12, 2, 5, rank, size, micro) for rank in range(size)]
    for step, expected in enumerate(whole):
        together = [
            pair
            for rank in range(size)
            for part in parts[rank][micro * step : micro * (step + 1)]
            for pair in part
        ]
        assert together == expected
    assert {len(part) for rank in parts for part in rank} == {12 // (size * micro)}


# --- Batches from loaders -------------------------------------------------------------------------


def test_a_batch_stacks_samples(coded):
    clips = make_clip_datasets(coded)
    (batch,) = load(clips, 3, 0, 1)
    samples = [clips[key] for key in pairs(micro_batches(3, 0, 1))]
    assert batch.weak.shape == (3, 4, 3, 16, 16)
    for number, sample in enumerate(samples):
        assert torch.equal(batch.weak[number], sample.weak)
        assert torch.equal(batch.strong[number], sample.strong)
        assert torch.equal(batch.person_mask[number], sample.person_mask)
    assert batch.label.tolist() == [sample.label for sample in samples]
    assert batch.row.tolist() == [sample.row for sample in samples]
    assert batch.label.dtype == batch.row.dtype == torch.int64


def test_a_batch_has_no_views_that_were_not_asked_for(coded):
    (batch,) = load(make_clip_datasets(coded, ViewSpec(weak=False, strong=True)), 3, 0, 1)
    assert batch.weak is None and batch.person_mask is None and batch.strong is not None


@pytest.mark.parametrize("num_workers", [1, 2])
def test_samples_do_not_depend_on_the_number_of_loader_workers(coded, num_workers):
    clips = make_clip_datasets(coded)
    expected = load(clips, 4, 0, 5)
    assert_equal(load(clips, 4, 0, 5, num_workers=num_workers), expected)


@pytest.mark.parametrize(("size", "micro"), [(2, 1), (1, 4), (2, 2)])
def test_samples_do_not_depend_on_how_a_step_is_shared(coded, size, micro):
    clips = make_clip_datasets(coded)
    expected = load(clips, 4, 1, 3)
    ranks = [load(clips, 4, 1, 3, rank, size, micro) for rank in range(size)]
    together = [
        part
        for step in range(2)
        for rank in ranks
        for part in rank[micro * step : micro * (step + 1)]
    ]
    assert_equal(together, expected)


def test_a_video_is_shown_anew_in_each_pass(coded):
    batches = load(make_clip_datasets(coded), 3, 0, 4)
    of_video_0 = [batch.weak[batch.row == 0] for batch in batches]
    assert all(len(clips) == 1 for clips in of_video_0)
    assert len({clip.numpy().tobytes() for clip in of_video_0}) == 4


def test_loading_leaves_the_global_generators_alone(coded):
    torch.manual_seed(3)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    load(make_clip_datasets(coded), 4, 0, 2)
    load(make_clip_datasets(coded), 4, 0, 2, num_workers=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002
