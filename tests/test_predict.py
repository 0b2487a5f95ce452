"""New videos: clips slide over all of them, and confidence is calibrated."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lib.config import TrainSettings
from lib.predict.__main__ import main
from lib.predict.calibration import fit_temperature, reliability
from lib.predict.figures import deciding_figure, timeline
from lib.predict.predict import (
    Classifier,
    clip_table,
    deciding_clips,
    find_new_videos,
    predict_video,
    video_table,
)
from lib.prepare.synthetic import write_video


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
def classifier() -> Classifier:
    settings = TrainSettings(
        clip_len=4, frame_interval=2, short_side=32, crop_size=32, test_crop_size=32
    )
    return Classifier(settings, ("dark", "bright"), Brightness().eval(), AsTheyAre())


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    values = np.repeat([20, 230], 40).astype(np.uint8)  # dark for 4 s, then bright
    frames = np.ascontiguousarray(np.broadcast_to(values[:, None, None, None], (80, 48, 64, 3)))
    return write_video(tmp_path_factory.mktemp("new") / "day.mp4", frames, fps=10)


def test_clips_slide_over_the_whole_video_and_follow_what_changes(classifier, video):
    found = predict_video(classifier, video)
    assert found.starts.tolist() == list(range(0, 73, 4)) and found.span == 8
    assert found.seconds[0] == pytest.approx(0.4)
    best = found.clips.argmax(axis=1)
    assert best.tolist() == [0] * 9 + [int(found.clips[9, 1] > 0.5)] + [1] * 9
    np.testing.assert_allclose(found.clips.sum(axis=1), 1, rtol=1e-5)


def test_a_video_is_fused_as_in_the_test(classifier, video):
    found = predict_video(classifier, video)
    logits = np.log(found.clips)  # up to a constant a clip, which no difference of classes sees
    gap = (logits[:, 0] - logits[:, 1]).mean()
    assert np.log(found.video[0] / found.video[1]) == pytest.approx(gap, abs=1e-3)


def test_a_temperature_softens_and_changes_no_class(classifier, video):
    soft = Classifier(**{**vars(classifier), "temperature": 4.0})
    sharp, mild = predict_video(classifier, video), predict_video(soft, video)
    assert (mild.clips.max(axis=1) <= sharp.clips.max(axis=1)).all()
    np.testing.assert_array_equal(mild.clips.argmax(axis=1), sharp.clips.argmax(axis=1))


def test_a_video_shorter_than_a_clip_has_one(classifier, tmp_path):
    frames = np.full((3, 48, 64, 3), 200, dtype=np.uint8)
    found = predict_video(classifier, write_video(tmp_path / "short.mp4", frames, fps=10))
    assert found.starts.tolist() == [0] and found.video.argmax() == 1


def test_tables_and_figures(classifier, video):
    found = predict_video(classifier, video)
    row = video_table([found], classifier.classes).iloc[0]
    assert row["confidence"] == pytest.approx(max(row["p(dark)"], row["p(bright)"]))
    table = clip_table([found], classifier.classes)
    assert table["start"].tolist() == pytest.approx([s / 10 for s in found.starts])
    assert table["class"].iloc[[0, -1]].tolist() == ["dark", "bright"]
    decided = deciding_clips(found)
    assert set(decided) == {0, 1} and found.starts[decided[1]] >= 40
    lines = timeline(found, classifier.classes).axes[0].get_lines()
    assert [len(line.get_xdata()) for line in lines] == [len(found.starts)] * 2
    assert len(deciding_figure(classifier, found).axes) == 2 * 4


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
    with pytest.raises(ValueError, match="is not there"):
        find_new_videos([tmp_path / "nothing"])


def test_a_run_that_is_not_finished_says_how_far_it_is(video, tmp_path, capsys):
    settings = TrainSettings(run_dir=str(tmp_path), epochs=9)
    (tmp_path / "params.yaml").write_text(settings.as_yaml())
    assert main([str(tmp_path), str(video)]) == 2
    assert "not finished, 0 of 9 epochs" in capsys.readouterr().err
