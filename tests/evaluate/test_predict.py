"""New videos: clips slide over all of them, and confidence is calibrated."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

from lib.config import TrainSettings
from lib.evaluate import pseudo_labels
from lib.evaluate.invariance import CLIP_REGIONS, boxes_note, predict_regions
from lib.evaluate.new_videos import (
    clip_table,
    deciding_clips,
    find_new_videos,
    open_video,
    open_videos,
    predict_video,
    remarks,
    segment_table,
    video_table,
)
from lib.evaluate.pseudo_labels import pseudo_label
from lib.evaluate.run_results import (
    Calibration,
    SplitResult,
    calibrate,
    fit_temperature,
    fused_probabilities,
    recommended_run,
    reliability,
)
from lib.evaluate.trained_model import TrainedModel
from lib.plots.evaluation import deciding_figure, timeline
from lib.predict import main, report_video
from lib.prepare.find_videos import find_videos
from lib.prepare.synthetic import write_video
from lib.runs.run_dir import RunDir
from lib.train.scoring import fuse


class Brightness(nn.Module):
    """Scores `dark` and `bright` by the mean of a clip with values 0 to 255."""

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        mean = clips.mean(dim=(1, 2, 3, 4)) / 255
        return 10 * torch.stack([1 - mean, mean], dim=1)


class AsTheyAre(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(3, 1, 1))

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        return clips.transpose(1, 2).float()


@pytest.fixture
def classifier() -> TrainedModel:
    settings = TrainSettings(
        clip_len=4,
        frame_interval=2,
        short_side=32,
        crop_size=32,
        test_crop_size=32,
        test_num_crops=3,
    )
    return TrainedModel(settings, ("dark", "bright"), Brightness().eval(), AsTheyAre())


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    values = np.repeat([20, 230], 40).astype(np.uint8)  # dark for 4 s, then bright
    frames = np.ascontiguousarray(np.broadcast_to(values[:, None, None, None], (80, 48, 64, 3)))
    return write_video(tmp_path_factory.mktemp("new") / "day.mp4", frames, fps=10)


def test_clips_slide_over_the_whole_video_and_follow_what_changes(classifier, video):
    found = predict_video(classifier, open_video(video))
    assert found.starts.tolist() == list(range(0, 73, 4)) and found.span == 8
    times = timeline(found, classifier.classes).axes[0].get_lines()[0].get_xdata()
    assert times[0] == pytest.approx(0.4)  # the middle of the first clip, seconds
    best = found.clips.argmax(axis=1)
    assert best.tolist() == [0] * 9 + [int(found.clips[9, 1] > 0.5)] + [1] * 9
    np.testing.assert_allclose(found.clips.sum(axis=1), 1, rtol=1e-5)


def test_a_video_is_fused_as_in_the_test(classifier, video):
    found = predict_video(classifier, open_video(video))
    logits = np.log(found.clips)  # up to a constant a clip, which no difference of classes sees
    gap = (logits[:, 0] - logits[:, 1]).mean()
    assert np.log(found.video[0] / found.video[1]) == pytest.approx(gap, abs=1e-3)


def test_a_temperature_softens_and_changes_no_class(classifier, video):
    calibration = Calibration(4.0, np.empty((0, 3)), np.empty((0, 3)), 0)
    soft, opened = replace(classifier, calibration=calibration), open_video(video)
    sharp, mild = predict_video(classifier, opened), predict_video(soft, opened)
    assert (mild.clips.max(axis=1) <= sharp.clips.max(axis=1)).all()
    np.testing.assert_array_equal(mild.clips.argmax(axis=1), sharp.clips.argmax(axis=1))


def test_a_video_shorter_than_a_clip_has_one(classifier, tmp_path):
    frames = np.full((3, 48, 64, 3), 200, dtype=np.uint8)
    short = open_video(write_video(tmp_path / "short.mp4", frames, fps=10))
    found = predict_video(classifier, short)
    assert found.starts.tolist() == [0] and found.label == 1
    assert "3 frames, a clip spans 8" in remarks(classifier.protocol.span, [short])[0]


def test_large_frames_make_smaller_batches(classifier, video, monkeypatch):
    whole = predict_video(classifier, open_video(video))
    monkeypatch.setattr("lib.evaluate.new_videos.BATCH_BYTES", 2 * 4 * 3 * 48 * 64)
    np.testing.assert_allclose(predict_video(classifier, open_video(video)).clips, whole.clips)


def test_tables_and_figures(classifier, video):
    found = predict_video(classifier, open_video(video))
    row = video_table([found], classifier.classes).iloc[0]
    assert row["confidence"] == pytest.approx(max(row["p(dark)"], row["p(bright)"]))
    table = clip_table([found], classifier.classes)
    assert table["start"].tolist() == pytest.approx([s / 10 for s in found.starts])
    assert table["class"].iloc[[0, -1]].tolist() == ["dark", "bright"]
    decided = deciding_clips(found.clips, found.label)
    assert set(decided) == {0, 1} and found.starts[decided[1]] >= 40
    lines = timeline(found, classifier.classes).axes[0].get_lines()
    assert [len(line.get_xdata()) for line in lines] == [len(found.starts)] * 2
    (axes,) = deciding_figure(found, classifier.classes).axes
    assert len(axes.images) == 2 * 4


def test_segments_of_a_prediction_are_training_data(classifier, video, tmp_path):
    found = predict_video(classifier, open_video(video))
    table = segment_table([found], classifier.classes)
    assert table["class"].tolist() == ["dark", "bright"] and set(table["video"]) == {video.name}
    first, second = table[["start_s", "end_s"]].to_numpy()
    assert first[0] == 0 and first[1] == second[0] and second[1] == found.record.num_frames / 10
    assert abs(first[1] - 4.0) < 0.5  # the video turns bright at frame 40, 10 a second
    shutil.copy(video, tmp_path)
    table.to_csv(tmp_path / "segments.csv", index=False)
    assert find_videos(tmp_path).videos["class"].tolist() == ["dark", "bright"]


@pytest.fixture(scope="module")
def moving(tmp_path_factory) -> Path:
    """A bright square that walks over a dark picture."""
    frames = np.full((40, 48, 64, 3), 20, dtype=np.uint8)
    for number, frame in enumerate(frames):
        frame[16:32, number : number + 16] = 255
    return write_video(tmp_path_factory.mktemp("new") / "walk.mp4", frames, fps=10)


def test_what_moves_and_the_rest_are_asked_about(classifier, moving):
    found = predict_video(classifier, open_video(moving))
    regions = found.deciding[found.label]
    whole, actor, background = (regions.clips[region] for region in CLIP_REGIONS)
    assert next(iter(found.deciding)) == found.label and regions.note == ""
    place = (whole.amin(dim=1, keepdim=True) > 200).expand_as(whole)
    assert place.any() and (actor[place] > 200).all() and (background[place] == 0).all()
    table = video_table([found], classifier.classes).iloc[0]
    assert table["background_only"] == "dark" and table["background_only_confidence"] > 0.9
    assert table["actor_only"] == "dark" and table["regions_note"] == ""
    (axes,) = deciding_figure(found, classifier.classes).axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert sum("actor only" in label for label in labels) == len(found.deciding)


@pytest.mark.parametrize(
    "name, words", [("still", "nothing moves"), ("noise", "nearly all of the picture moves")]
)
def test_a_video_without_parts_says_why(classifier, tmp_path, name, words):
    frames = np.random.default_rng(0).integers(0, 255, (20, 48, 64, 3)).astype(np.uint8)
    blocks = frames[:, ::8, ::8].repeat(8, axis=1).repeat(8, axis=2)
    if name == "still":
        blocks[:] = blocks[:1]
    path = write_video(tmp_path / f"{name}.mp4", blocks, fps=10)
    found = predict_video(classifier, open_video(path))
    row = video_table([found], classifier.classes).iloc[0]
    assert row["actor_only"] == "" and words in row["regions_note"]
    assert np.isnan(row["background_only_confidence"])
    assert list(found.deciding[found.label].clips) == ["whole clip"]


@pytest.mark.slow
def test_unreadable_videos_are_named(video, tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "noise.avi").write_bytes(bytes(range(256)) * 9)
    sound = tmp_path / "sound.mp4"
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        silence = np.zeros((1, 8000), dtype=np.float32)
        frame = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux([*stream.encode(frame), *stream.encode()])
    opened, problems = open_videos([*sorted(tmp_path.iterdir()), video])
    assert [one.record.path for one in opened] == [video]
    for problem, words in zip(
        problems, ("is empty", "not a video", "no video stream"), strict=True
    ):
        assert words in problem


class OneView(nn.Module):
    """Logits [2, 0] for dark clips, [0, 1] for bright ones."""

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        is_dark = clips.mean(dim=(1, 2, 3, 4), keepdim=False)[:, None] < 128
        return torch.where(is_dark, torch.tensor([2.0, 0.0]), torch.tensor([0.0, 1.0]))


@pytest.mark.parametrize(
    "fusion, expected", [("probabilities", 0.537647), ("logits", 0.562177)], ids=str
)
def test_all_consumers_give_the_same_calibrated_probabilities(
    classifier, tmp_path, fusion, expected
):
    """By hand: views [2, 0] and [0, 1], temperature 2; p = (0.880797 + 0.268941) / 2."""
    frames = np.repeat([20, 230], 8).astype(np.uint8)  # two clips of 8 frames
    frames = np.ascontiguousarray(np.broadcast_to(frames[:, None, None, None], (16, 48, 64, 3)))
    video = open_video(write_video(tmp_path / "two.mp4", frames, fps=10))
    model = replace(
        classifier,
        settings=classifier.settings.model_copy(update={"test_average": fusion}),
        network=OneView(),
        calibration=Calibration(2.0, np.empty((0, 3)), np.empty((0, 3)), 0),
    )
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    assert model.probabilities(logits[None])[0, 0].item() == pytest.approx(expected, abs=2e-6)
    prediction = predict_video(model, video, overlap=0.0)
    assert prediction.video[0] == pytest.approx(expected, abs=2e-6)
    label, confidence, *_ = pseudo_label(model, logits)
    assert (label, confidence) == (0, pytest.approx(expected, abs=2e-6))
    fused = fuse(logits[None], fusion).numpy()
    result = SplitResult(None, np.array([0]), fused, np.array([0]), fusion, 2.0)
    assert result.probabilities[0, 0] == pytest.approx(expected, abs=2e-6)
    one_view = np.exp([1.0, 0.0]) / (np.e + 1)  # softmax([2, 0] / 2), whatever the fusion
    np.testing.assert_allclose(prediction.clips[0], one_view, rtol=1e-6)
    dark = torch.zeros(4, 3, 32, 32, dtype=torch.uint8)
    regions = predict_regions(model, dark)
    np.testing.assert_allclose(regions.probabilities["whole clip"], one_view, rtol=1e-6)


@pytest.mark.parametrize("fusion", ["logits", "probabilities"])
def test_the_temperature_is_fitted_for_the_rule_that_applies_it(fusion):
    generator = np.random.default_rng(0)
    views = torch.from_numpy(generator.normal(size=(500, 3, 4))) * 3
    fused = fuse(views, fusion).numpy()
    labels = np.array([generator.choice(4, p=p) for p in views.mean(1).softmax(1).numpy()])
    found = calibrate(fused, labels, fusion).temperature

    def cross_entropy(temperature: float) -> float:
        shares = fused_probabilities(torch.from_numpy(fused), fusion, temperature)
        return float(-shares[torch.arange(500), torch.from_numpy(labels)].log().mean())

    assert cross_entropy(found) <= min(cross_entropy(0.98 * found), cross_entropy(1.02 * found))


def test_a_temperature_is_found_for_separable_and_for_diverged_scores():
    assert fit_temperature(5.0 * np.eye(4), np.arange(4)) == pytest.approx(0.05, rel=1e-4)
    assert fit_temperature(-5.0 * np.eye(4), np.arange(4)) == pytest.approx(20, rel=1e-4)
    assert 0.05 <= fit_temperature(np.full((4, 4), np.nan), np.arange(4)) <= 20


def test_the_temperature_undoes_what_made_scores_too_sure():
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(4000, 5)) * 2
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = np.array([generator.choice(5, p=p) for p in shares])
    assert fit_temperature(logits, labels) == pytest.approx(1.0, rel=0.06)
    assert fit_temperature(3 * logits, labels) == pytest.approx(3.0, rel=0.06)
    curve = reliability(shares, labels)
    assert curve[:, 2].sum() == 4000
    np.testing.assert_allclose(curve[:, 0], curve[:, 1], atol=0.06)


def test_videos_are_found_in_files_and_folders(video, tmp_path):
    assert find_new_videos([video, video.parent]) == [video]
    with pytest.raises(ValueError, match="holds no video"):
        find_new_videos([tmp_path])
    with pytest.raises(ValueError, match="is missing"):
        find_new_videos([tmp_path / "nothing"])


@pytest.mark.parametrize("command", [main, pseudo_labels.main])
def test_a_file_in_place_of_a_run_is_an_error_in_one_line(video, capsys, command):
    words = [str(video)] * (2 if command is main else 1)
    assert command(words) == 2
    assert capsys.readouterr().err == f"error: run_dir: {video} is a file; choose another folder\n"


def test_a_misspelled_study_and_an_empty_name_are_errors(tmp_path, capsys):
    (tmp_path / "sports").mkdir()
    assert main([str(tmp_path / "sprots"), "new.mp4"]) == 2
    assert "sprots: neither a run nor" in (text := capsys.readouterr().err)
    assert text.endswith("did you mean 'sports'?\n")
    with pytest.raises(SystemExit):
        main([str(tmp_path), ""])
    assert "the name of a video is empty" in capsys.readouterr().err


def test_a_run_that_is_not_finished_says_how_far_it_is(video, tmp_path, capsys):
    settings = TrainSettings(run_dir=str(tmp_path), epochs=9)
    (tmp_path / "params.yaml").write_text(settings.as_yaml())
    assert main([str(tmp_path), str(video)]) == 2
    assert "not finished, 0 of 9 epochs" in capsys.readouterr().err


@pytest.fixture
def folder_of_videos(classifier, video, tmp_path, monkeypatch) -> list[str]:
    """Command line for a folder of three videos, one with a name of 244 bytes."""
    videos = tmp_path / "videos"
    videos.mkdir()
    for name in ("day", "night", "\u8e74" * 80):
        shutil.copy(video, videos / f"{name}.mp4")
    monkeypatch.setattr("lib.predict.check_finished", lambda run: None)
    monkeypatch.setattr("lib.predict.TrainedModel.load", lambda run: classifier)
    monkeypatch.setattr("lib.predict.open_videos", lambda paths: ([*map(open_video, paths)], []))
    for figure in ("timeline", "deciding_figure", "reliability_figure"):  # which take seconds
        monkeypatch.setattr(f"lib.predict.{figure}", lambda *_: Figure((1, 1)))
    (tmp_path / "params.yaml").touch()
    return [str(tmp_path), str(videos), "--out", str(tmp_path / "out")]


def test_a_long_name_is_predicted_and_its_figures_get_a_shorter_one(folder_of_videos, tmp_path):
    assert main(folder_of_videos) == 0
    tables = [pd.read_csv(tmp_path / "out" / f"{kind}.csv") for kind in ("videos", "clips")]
    assert [table["video"].nunique() for table in tables] == [3, 3]
    names = [path.name for path in (tmp_path / "out").glob("003_*.png")]
    assert len(names) == 2 and all(name.startswith("003_\u8e74\u8e74") for name in names)


def test_an_interrupted_prediction_leaves_the_tables_of_the_finished_videos(
    folder_of_videos, tmp_path, monkeypatch, capsys
):
    def report(model, video, stem, *options):
        if stem.name.startswith("003"):
            raise KeyboardInterrupt
        return report_video(model, video, stem, *options)

    monkeypatch.setattr("lib.predict.report_video", report)
    assert main(folder_of_videos) == 130
    names = [Path(name).stem for name in pd.read_csv(tmp_path / "out" / "videos.csv")["video"]]
    assert names == ["day", "night"]
    output = capsys.readouterr()
    assert str(tmp_path / "out") in output.out
    assert output.err.splitlines()[-1].startswith("interrupted; the tables have the videos")


class NoPrediction(nn.Module):
    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(clips), 2)


def test_regions_of_a_clip_cover_every_place_of_the_actor(classifier):
    clip = torch.full((2, 3, 4, 4), 200, dtype=torch.uint8)
    mask = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    mask[0, :, :2, :2] = 1
    mask[1, :, 2:, 2:] = 1
    normalize = AsTheyAre()
    normalize.mean = torch.tensor([10.0, 20.0, 30.0]).view(3, 1, 1)
    model = replace(classifier, network=NoPrediction(), normalize=normalize)
    regions = predict_regions(model, clip, mask, boxes_note(mask))
    actor, background = (regions.clips[region] for region in CLIP_REGIONS[1:])
    assert (actor[0, :, :2, :2] == 200).all()
    assert actor[0, :, 3, 3].tolist() == [10, 20, 30]
    assert background[0, :, 3, 3].tolist() == [10, 20, 30]  # covered wherever the actor ever is
    assert (background[:, :, 0, 3] == 200).all()
    assert "no person was found" in boxes_note(mask * 0)
    assert "cover the whole clip" in boxes_note(mask * 0 + 1)
    assert "no person boxes" in boxes_note(None) and boxes_note(mask) == ""


def test_best_run_in_validation_is_recommended_and_a_probe_of_equal_ones(tmp_path, tiny_settings):
    with pytest.raises(ValueError, match="neither a run nor a folder of runs"):
        recommended_run(tmp_path)
    probe = {"objective": "linear_probe", "epochs": 1}
    for name, top1, changes in (
        ("a_semi", 80.0, {}),
        ("b_probe", 80.0, probe),
        ("c_self_trained", 80.0, probe | {"self_training_rounds": 8}),
        ("d_supervised", 70.0, {"objective": "supervised"}),
    ):
        run = RunDir(tmp_path / name)
        run.start(tiny_settings(**changes))
        values = {"top1": top1, "top5": 90.0, "mean_class_accuracy": top1, "videos": 8}
        run.metrics_path.write_text(json.dumps({"labels": 4, "splits": {"val": values}}))
    assert recommended_run(tmp_path).name == "c_self_trained"
    for name, top1 in (("b_probe", 75.0), ("c_self_trained", 70.0)):  # with more videos
        cross = {"eval/top1_cross_validated": top1, "eval/videos_cross_validated": 40.0}
        RunDir(tmp_path / name).append_log({"epoch": 1, "step": 1} | cross)
    assert recommended_run(tmp_path).name == "b_probe"
