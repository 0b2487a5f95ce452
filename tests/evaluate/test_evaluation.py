"""Views, fusion and metrics, and testing a trained run."""

import json
import multiprocessing
import shutil
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import coded_frames, make_tiny_settings
from tiny import make_scoring_model, score_worker

from lib.augment.views import EvalTransform
from lib.config import EvaluateSettings
from lib.data.clip_dataset import uniform_clip_indices
from lib.data.dataset import write_split
from lib.data.video_reader import FrameReader
from lib.evaluate.test import evaluate
from lib.evaluate.trained_model import TrainedModel
from lib.plots.evaluation import confusion_matrix
from lib.runs.distributed import DistContext, launch
from lib.runs.run_dir import RunDir
from lib.train.fit import fit
from lib.train.run_data import Normalize, load_data
from lib.train.run_model import build_run_model, run_normalize
from lib.train.scoring import (
    EvalProtocol,
    VideoViews,
    fuse,
    metrics,
    score_videos,
    test_protocol,
    val_protocol,
)

test_protocol.__test__ = False  # a function of the library, not a test
HERE = DistContext(0, 1, torch.device("cpu"))
PROTOCOL = EvalProtocol(num_clips=3, clip_len=4, frame_interval=3, crops=EvalTransform(24, 24, 3))


def normalize() -> Normalize:
    return Normalize((127.0,) * 3, (127.0,) * 3)


def scores_of(coded, rows, protocol=PROTOCOL, reader=None, **options) -> np.ndarray:
    views = VideoViews(coded, np.array(rows), protocol)
    views.reader = reader or views.reader
    return score_videos(make_scoring_model(), normalize(), views, HERE, **options)


# --- Fusion and metrics by hand -------------------------------------------------------------------


def test_scores_and_probabilities_are_averaged_over_the_views():
    logits = torch.tensor([[[0.0, 2.0], [4.0, 0.0]]])  # one video, two views
    assert fuse(logits, "logits").tolist() == [[2.0, 1.0]]
    e = np.exp
    first, second = e(2) / (1 + e(2)), 1 / (1 + e(4))
    expected = [(1 - first + 1 - second) / 2, (first + second) / 2]
    np.testing.assert_allclose(fuse(logits, "probabilities")[0], expected, rtol=1e-6)


def test_metrics_by_hand():
    scores = np.array(
        [
            [9, 1, 2, 3, 4, 5, 0.0],  # class 0 first
            [9, 8, 7, 6, 5, 4, 0.0],  # class 0 first, 4 fifth, 5 sixth
            [9, 8, 7, 6, 5, 4, 0.0],
            [0, 1, 2, 3, 4, 5, 6.0],
        ]
    )
    found = metrics(scores, np.array([0, 4, 5, 6]))
    assert found == {"top1": 50, "top5": 75, "mean_class_accuracy": 50}


def test_classes_count_alike_in_the_mean_and_absent_ones_do_not():
    scores = np.eye(4)[[0, 0, 0, 1]]  # predicted
    found = metrics(scores, np.array([0, 0, 0, 2]))  # class 0: 3 of 3; class 2: 0 of 1
    assert found["top1"] == 75 and found["mean_class_accuracy"] == 50


def test_ties_never_help():
    assert metrics(np.zeros((4, 6)), np.arange(4))["top1"] == 0
    assert metrics(np.zeros((4, 6)), np.arange(4))["top5"] == 0
    assert metrics(np.array([[1, 1, 0.0]]), np.array([0]))["top1"] == 0


def test_a_network_that_diverged_is_never_right():
    scores = np.full((4, 6), np.nan)
    assert metrics(scores, np.arange(4)) == {"top1": 0, "top5": 0, "mean_class_accuracy": 0}
    one_class_diverged = np.array([[2, 1, np.nan]])
    assert metrics(one_class_diverged, np.array([0]))["top1"] == 0


def test_top5_of_fewer_than_five_classes_is_everything():
    assert metrics(np.array([[3, 2, 1.0]]), np.array([2])) == {
        "top1": 0,
        "top5": 100,
        "mean_class_accuracy": 0,
    }


def test_metrics_count_the_largest_scores():
    scores = np.random.default_rng(0).normal(size=(200, 9))
    labels = np.random.default_rng(1).integers(0, 9, 200)
    found, order = metrics(scores, labels), np.argsort(-scores, axis=1)
    assert found["top1"] == pytest.approx(100 * np.mean(order[:, 0] == labels))
    assert found["top5"] == pytest.approx(100 * (order[:, :5] == labels[:, None]).any(1).mean())
    of_classes = [np.mean(order[labels == label, 0] == label) for label in range(9)]
    assert found["mean_class_accuracy"] == pytest.approx(100 * np.mean(of_classes))


def test_the_confusion_matrix_has_a_row_per_true_class():
    scores = np.eye(3)[[0, 1, 1, 2, 0]]
    labels = np.array([0, 0, 0, 2, 2])
    assert confusion_matrix(scores, labels).tolist() == [[1, 2, 0], [0, 0, 0], [1, 0, 1]]


# --- Views ----------------------------------------------------------------------------------------


class CountingReader(FrameReader):
    """Remembers what was read."""

    def __init__(self):
        super().__init__()
        self.reads = []

    def read(self, record, frame_indices):
        self.reads.append((record.name, frame_indices.tolist()))
        return super().read(record, frame_indices)


@pytest.mark.parametrize("num_clips", [1, 3])
@pytest.mark.parametrize("num_crops", [1, 3])
def test_the_views_of_a_video_are_its_clips_and_in_each_its_crops(coded, num_clips, num_crops):
    transform = EvalTransform(24, 20, num_crops)
    protocol = EvalProtocol(num_clips, 4, 3, transform)
    views = VideoViews(coded, np.array([2, 0]), protocol)
    assert len(views) == 2
    for position, row in enumerate((2, 0)):
        found = transform.views(*views[position])
        assert found.shape == (num_clips * num_crops, 4, 3, 20, 20) and found.dtype == torch.uint8
        clips = uniform_clip_indices(40, 4, 3, num_clips)
        for clip, indices in enumerate(clips):
            crops = transform(coded_frames(row)[indices])
            for crop in range(num_crops):
                assert torch.equal(found[clip * num_crops + crop], crops[crop])


def test_all_views_of_a_video_are_decoded_once(coded):
    reader = CountingReader()
    scores_of(coded, [0, 3, 1], reader=reader, batch_clips=18)
    assert [name for name, _ in reader.reads] == [coded.record(row).name for row in (0, 3, 1)]
    wanted = np.unique(uniform_clip_indices(40, 4, 3, 3)).tolist()
    assert all(indices == wanted for _, indices in reader.reads)


# --- Scoring --------------------------------------------------------------------------------------


def test_scores_are_those_of_each_view_averaged(coded):
    model = make_scoring_model().eval()
    for fusion in ("logits", "probabilities"):
        protocol = EvalProtocol(3, 4, 3, EvalTransform(24, 24, 3), fusion)
        views = protocol.crops.views(*VideoViews(coded, np.array([1]), protocol)[0])
        with torch.no_grad():
            logits = torch.cat([model(normalize()(view[None])) for view in views])
        expected = fuse(logits[None], fusion)
        np.testing.assert_allclose(scores_of(coded, [1], protocol), expected, rtol=1e-5)


@pytest.mark.parametrize(
    "options", [{"batch_clips": n} for n in (1, 4, 9, 20, 27)] + [{"num_workers": 1}], ids=str
)
def test_scores_do_not_depend_on_batches_or_loader_workers(coded, options):
    rows = [3, 0, 2, 1]
    expected = scores_of(coded, rows)
    assert expected.shape == (4, 2) and expected.dtype == np.float32
    assert len(np.unique(expected[:, 0])) == 4  # four videos, four scores
    np.testing.assert_allclose(scores_of(coded, rows, **options), expected, rtol=1e-5)
    np.testing.assert_allclose(scores_of(coded, rows[::-1])[::-1], expected, rtol=1e-5)


@pytest.mark.parametrize("batch_clips", [1, 4, 9, 20])
def test_no_forward_pass_has_more_views_than_asked_for(coded, batch_clips):
    model, sizes = make_scoring_model(), []
    model.register_forward_hook(lambda module, args, output: sizes.append(len(args[0])))
    options = {"batch_clips": batch_clips}
    views = VideoViews(coded, np.array([0, 1, 2]), PROTOCOL)
    score_videos(model, normalize(), views, HERE, **options)
    assert sum(sizes) == 3 * 9 and max(sizes) <= batch_clips


def test_loader_workers_outlive_a_sigterm(coded):
    """A cluster sends it to all processes of a job; what it means is for the training process."""
    model, told = make_scoring_model(), []

    def tell(*_) -> None:
        told.extend(multiprocessing.active_children())
        for child in multiprocessing.active_children():  # from another process than their parent
            order = f"import os; os.kill({child.pid}, {signal.SIGTERM:d})"
            subprocess.run([sys.executable, "-c", order], check=True)

    model.register_forward_hook(tell)
    options = {"batch_clips": 9, "num_workers": 1}  # a video at a time
    rows = np.array([3, 0, 2, 1])
    views = VideoViews(coded, rows, PROTOCOL)
    scores = score_videos(model, normalize(), views, HERE, **options)
    assert told
    np.testing.assert_allclose(scores, scores_of(coded, rows), rtol=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_videos_are_scored_in_a_precision(coded, precision):
    """By a network of one matrix: on a CPU, bf16 convolutions can crash."""
    layer = torch.nn.Linear(3, 2)
    model, seen = torch.nn.Sequential(torch.nn.AdaptiveAvgPool3d(1), torch.nn.Flatten(), layer), []
    layer.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    options = {"precision": precision}
    views = VideoViews(coded, np.array([0]), PROTOCOL)
    scores = score_videos(model, normalize(), views, HERE, **options)
    assert set(seen) == {torch.bfloat16 if precision == "bf16" else torch.float32}
    assert scores.dtype == np.float32


def test_normalized_clips_are_as_by_hand():
    clips = torch.randint(256, (2, 4, 3, 5, 6), dtype=torch.uint8)
    mean, std = (110.0, 120.5, 130.25), (50.0, 60.5, 70.25)
    found = Normalize(mean, std)(clips)
    assert found.shape == (2, 3, 4, 5, 6) and found.dtype == torch.float32
    for channel in range(3):
        expected = (clips[:, :, channel].double() - mean[channel]) / std[channel]
        torch.testing.assert_close(found[:, channel].double(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
def test_two_processes_give_the_scores_of_one(coded, tmp_path):
    """Three videos for two processes: nothing is scored twice or lost."""
    rows = np.array([3, 0, 1])
    arguments = (coded.folder, rows, PROTOCOL, tmp_path)
    launch(score_worker, arguments, 2, "cpu")
    expected = scores_of(coded, rows)
    for rank in (0, 1):
        scores = np.load(tmp_path / f"scores_{rank}.npy")
        np.testing.assert_allclose(scores, expected, rtol=1e-5)


class MeanRed(torch.nn.Module):
    """Says how red a clip is, from which the video can be told: `coded_frames`."""

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        red = clips[:, 0].mean(dim=(1, 2, 3))
        return torch.stack([red, -red], dim=1)


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("rows", [[2, 0, 3, 1], [3, 2, 1, 0], [1, 0, 2]])
def test_every_score_is_that_of_its_own_video(coded, monkeypatch, rows, size):
    """Whatever process scored it: red is 4 · frame + video, and the frames are the same."""

    def score(rank: int, gather) -> np.ndarray:
        monkeypatch.setattr(DistContext, "all_gather", gather)
        world = DistContext(rank, size, torch.device("cpu"))
        return score_videos(MeanRed(), to_float, VideoViews(coded, np.array(rows), protocol), world)

    def to_float(clips: torch.Tensor) -> torch.Tensor:
        return clips.float().transpose(1, 2)

    protocol, said = EvalProtocol(2, 4, 2, EvalTransform(20, 16, 1)), {}
    for rank in range(size):
        score(rank, lambda self, part: said.setdefault(self.rank, [part]))
    parts = [said[rank][0] for rank in range(size)]
    for rank in range(size):
        red = score(rank, lambda self, part: parts)[:, 0]
        assert red - red.min() + min(rows) == pytest.approx(rows, abs=0.3)


def test_a_process_may_be_left_without_a_video(coded, monkeypatch):
    """Rank 1 of 2, and a single video: it scores none and is given the scores of rank 0."""
    theirs = np.array([[1.5, 2.5]], dtype=np.float32)
    monkeypatch.setattr(DistContext, "all_gather", lambda self, value: [theirs, value])
    world = DistContext(1, 2, torch.device("cpu"))
    views = VideoViews(coded, np.array([0]), PROTOCOL)
    scores = score_videos(make_scoring_model(), normalize(), views, world)
    assert scores.tolist() == theirs.tolist()


@pytest.mark.parametrize("was_training", [True, False])
def test_the_network_is_tested_in_evaluation_mode_and_put_back(coded, was_training):
    model = make_scoring_model().train(was_training)  # with dropout
    modes = set()
    model.register_forward_hook(lambda module, *_: modes.add(module.training))
    for _ in range(2):
        score_videos(model, normalize(), VideoViews(coded, np.array([0]), PROTOCOL), HERE)
    assert modes == {False} and model.training == was_training


def test_progress_counts_the_videos(coded):
    counts = []
    scores_of(coded, [0, 1, 2], batch_clips=20, on_batch=counts.append)
    assert sum(counts) == 3


# --- A trained run --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(prepared_dir, tmp_path_factory):
    """A finished run, made once."""
    settings = make_tiny_settings(
        prepared_dir,
        tmp_path_factory.mktemp("trained"),
        test_splits=["val", "val_swapped"],
        val_every_epochs=2,
        lr=0.1,
        labeled_batch=6,
    )
    return fit(settings)


def test_validation_in_the_log_equals_scoring_the_checkpoint(trained):
    settings = trained.settings()
    data = load_data(settings)
    model = build_run_model(settings, 4)
    model.load_state_dict(trained.load()["model"])
    views = VideoViews(data.labeled, data.val_rows, val_protocol(settings))
    scores = score_videos(model, run_normalize(settings), views, HERE)
    labels = data.labeled.index["label"].to_numpy()[data.val_rows]
    logged = trained.log_entries()[-1]
    assert {f"eval/{k}_video": v for k, v in metrics(scores, labels).items()} == {
        key: value for key, value in logged.items() if key.startswith("eval/")
    }
    assert scores.std() > 1e-3  # the network does tell videos apart


def test_the_protocols_are_those_of_the_settings(tiny_settings):
    settings = tiny_settings(
        test_num_clips=7, test_num_crops=1, test_crop_size=18, test_average="probabilities"
    )
    crops, val_crops = EvalTransform(20, 18, 1), EvalTransform(20, 16, 1)
    assert test_protocol(settings) == EvalProtocol(7, 4, 2, crops, "probabilities")
    assert val_protocol(settings) == EvalProtocol(1, 4, 2, val_crops, "logits")


def test_a_run_is_tested_by_its_own_protocol(trained):
    settings = trained.settings()
    results = evaluate(EvaluateSettings(run_dir=str(trained.folder)))
    data = load_data(settings)
    model = build_run_model(settings, 4)
    model.load_state_dict(trained.load()["model"])
    written = json.loads(trained.metrics_path.read_text())
    assert list(results) == ["val", "val_swapped"] == list(written["splits"])
    for name, result in results.items():
        rows = data.labeled.read_split(name)
        views = VideoViews(data.labeled, rows, test_protocol(settings))
        expected = score_videos(model, run_normalize(settings), views, HERE)
        np.testing.assert_allclose(result.scores, expected, rtol=1e-5, atol=1e-6)
        labels = data.labeled.index["label"].to_numpy()[rows]
        assert result.rows.tolist() == rows.tolist() and (result.labels == labels).all()
        assert result.metrics == metrics(result.scores, labels)
        assert written["splits"][name] == {**result.metrics, "videos": len(rows)}
        table = pd.read_csv(trained.folder / f"predictions_{name}.csv")
        names = data.labeled.index["name"].to_numpy()[rows].tolist()
        assert table["name"].tolist() == names
        assert table["is_correct"].mean() * 100 == pytest.approx(result.metrics["top1"])
    assert written["protocol"]["test_checkpoint"] == "last"
    assert written["protocol"]["test_num_clips"] == settings.test_num_clips


def test_the_best_checkpoint_can_be_tested_and_is_read_once(trained, tmp_path, monkeypatch):
    run = RunDir(shutil.copytree(trained.folder, tmp_path / "copy"))
    state = run.load("best")
    state["model"]["head.bias"] = torch.tensor([0, 0, 99.0, 0])  # always class 2
    run.save(state, "best")
    settings = run.settings().model_copy(update={"test_checkpoint": "best"})
    run.check_compatible(settings)
    run.start(settings)
    read, load = [], RunDir.load
    monkeypatch.setattr(RunDir, "load", lambda run, which: read.append(which) or load(run, which))
    results = evaluate(EvaluateSettings(run_dir=str(run.folder)))
    assert read == ["best"]
    assert (results["val"].scores.argmax(axis=1) == 2).all()


def test_a_checkpoint_of_other_classes_is_refused(trained, tmp_path):
    run = RunDir(tmp_path / "other")
    run.start(trained.settings())
    state = trained.load()
    run.save(state | {"classes": ["x", "y"]})
    with pytest.raises(ValueError, match=r"06\.pt: trained on classes 2 \(x, y.* has 4"):
        evaluate(EvaluateSettings(run_dir=str(run.folder)))


@pytest.mark.parametrize("first_weights", [{"weights": "/gone.pth"}, {"pretrained": True}])
def test_a_run_is_tested_without_its_first_weights(trained, tmp_path, monkeypatch, first_weights):
    run = RunDir(shutil.copytree(trained.folder, tmp_path / "copy"))
    run.params_path.write_text(run.settings().model_copy(update=first_weights).as_yaml())
    normalize = run_normalize(trained.settings())  # the tiny network has no published weights
    monkeypatch.setattr("lib.evaluate.trained_model.run_normalize", lambda settings: normalize)
    state = run.load()
    model = TrainedModel.load(run)
    assert not model.network.training and model.classes == tuple(state["classes"])
    for name, value in model.network.state_dict().items():
        torch.testing.assert_close(value, state["model"][name], rtol=0, atol=0)


def test_a_run_that_was_not_trained_is_refused(tmp_path, tiny_settings):
    with pytest.raises(ValueError, match="no run here"):
        evaluate(EvaluateSettings(run_dir=str(tmp_path / "gone")))
    run = RunDir(tmp_path / "begun")
    run.start(tiny_settings(run_dir=str(run.folder)))
    with pytest.raises(ValueError, match="no last checkpoint; train the run first"):
        evaluate(EvaluateSettings(run_dir=str(run.folder)))


def test_lists_whose_names_have_a_point_do_not_overwrite_each_other(prepared_dir, tiny_settings):
    dataset = load_data(tiny_settings()).labeled
    val = dataset.read_split("val")
    write_split(dataset, "val_0.25percent", val[:2])
    write_split(dataset, "val_0.5percent", val[:4])
    run = fit(tiny_settings(test_splits=["val_0.25percent", "val_0.5percent"], epochs=1))
    results = evaluate(EvaluateSettings(run_dir=str(run.folder)))
    assert [len(result.scores) for result in results.values()] == [2, 4]
