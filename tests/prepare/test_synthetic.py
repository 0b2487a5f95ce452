import hashlib
import json

import numpy as np
import pytest

from lib.config import PrepareSettings
from lib.data.dataset import read_dataset
from lib.data.frame_tables import PERSON_BOXES_FILE, PersonBoxes
from lib.data.video_reader import read_frames
from lib.prepare import synthetic
from lib.prepare.steps import status_of
from lib.prepare.synthetic import (
    ACTIONS,
    EMBEDDED,
    FPS,
    NUM_FRAMES,
    SCENES,
    SIZE,
    draw_videos,
    make_synthetic,
    render_video,
)

SPLIT_SIZES = {"train": 6, "val": 2, "val_swapped": 2}
BIAS = EMBEDDED["synthetic"].scene_bias


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_synthetic(tmp_path_factory.mktemp("data") / "synthetic", SPLIT_SIZES)


# Mean value of every 60th video of the demo's data.
MEANS = [
    127.735, 102.477, 157.638, 141.888, 141.27, 100.393, 148.203, 102.478, 105.284, 135.641,
    116.597, 130.528, 112.079, 103.242, 86.108, 100.664,
]  # fmt: skip


# --- The data set on disk -------------------------------------------------------------------------


def test_synthetic_data_set_is_prepared(made):
    dataset = read_dataset(made.folder)
    assert dataset.classes == tuple(sorted(ACTIONS))
    assert {name: len(dataset.read_split(name)) for name in dataset.split_names()} == SPLIT_SIZES
    assert len(dataset.index) == sum(SPLIT_SIZES.values())


def test_videos_match_the_index(made):
    for row in range(len(made.index)):
        record = made.record(row)
        frames = read_frames(record.path, np.arange(record.num_frames))
        assert frames.shape == (NUM_FRAMES, record.height, record.width, 3)
        assert record.name.split("/")[0] == made.classes[record.label]
        with pytest.raises(ValueError, match="the video has"):
            read_frames(record.path, np.array([record.num_frames]))
    assert (made.index["fps"] == FPS).all()


def test_encoded_video_matches_rendered_frames(made):
    videos = draw_videos(SPLIT_SIZES, BIAS)
    for row in (0, 7):
        video = videos.iloc[row]
        rendered, _ = render_video(video.action, video.scene, np.random.default_rng(video.seed))
        frames = read_frames(made.record(row).path, np.arange(NUM_FRAMES)).astype(float)
        distance = np.abs(frames[:, None] - rendered[None]).mean(axis=(2, 3, 4))
        assert np.diag(distance).max() < 12  # noise, and colors at half the resolution
        assert (distance.argmin(axis=1) == np.arange(NUM_FRAMES)).mean() > 0.9


def test_stored_boxes_match_rendered_boxes(made):
    actors = PersonBoxes(made)
    video = draw_videos(SPLIT_SIZES, BIAS).iloc[3]
    _, boxes = render_video(video.action, video.scene, np.random.default_rng(video.seed))
    found = actors.lookup(3, np.arange(NUM_FRAMES), min_score=0.99)
    np.testing.assert_array_equal(np.concatenate(found), boxes)


def test_data_set_is_reproducible_bit_for_bit(made, tmp_path):
    again = make_synthetic(tmp_path, SPLIT_SIZES)
    files = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert len(files) == 10 + 3 + 3  # videos, lists, index + boxes + description
    for file in files:
        assert (again.folder / file).read_bytes() == (made.folder / file).read_bytes(), file


def test_status_of_a_complete_data_set(made):
    settings = PrepareSettings(prepared_dir=str(made.folder.parent))
    assert set(status_of(settings)["state"]) == {"there", "optional"}


@pytest.mark.slow
def test_the_number_of_processes_changes_no_byte(made, tmp_path):
    again = make_synthetic(tmp_path, SPLIT_SIZES, num_processes=2)
    for path in [*made.index["path"], PERSON_BOXES_FILE, "index.csv", "dataset.json"]:
        assert (again.folder / path).read_bytes() == (made.folder / path).read_bytes(), path


@pytest.mark.slow
def test_write_error_names_the_video(tmp_path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "circle").write_text("a file where the folder of a class should be")
    with pytest.raises(ValueError, match="circle/train_0001 cannot be written"):
        make_synthetic(tmp_path, SPLIT_SIZES, num_processes=2)


def test_existing_videos_are_kept(made, tmp_path):
    make_synthetic(tmp_path, SPLIT_SIZES)
    paths = [tmp_path / path for path in made.index["path"]]
    paths[0].write_bytes(b"mine")
    paths[1].unlink()
    make_synthetic(tmp_path, SPLIT_SIZES)
    assert paths[0].read_bytes() == b"mine"
    assert paths[1].read_bytes() == (made.folder / made.index["path"][1]).read_bytes()


def test_the_demo_keeps_its_videos():
    """The numbers in README belong to these videos."""
    videos = draw_videos(EMBEDDED["synthetic"].split_sizes, BIAS)
    digest, means = hashlib.sha256(videos.to_csv(index=False).encode()), []
    for video in videos.iloc[::60].itertuples():
        rng = np.random.default_rng(video.seed)
        frames, boxes = render_video(video.action, video.scene, rng)
        digest.update(boxes.astype("<i8").tobytes())
        means.append(frames.mean())
    assert digest.hexdigest().startswith("f09928b5d1d2953a2d773ea4f342f7aa")
    np.testing.assert_allclose(means, MEANS, atol=0.01)  # the sine of a processor may round


def test_description_holds_the_scenes(made):
    source = json.loads((made.folder / "dataset.json").read_text())["source"]
    videos = draw_videos(SPLIT_SIZES, BIAS)
    assert source["scenes"] == dict(zip(videos["name"], videos["scene"], strict=True))


# --- Actions and scenes ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def large_plan():
    return draw_videos({"train": 3000, "val": 3000, "val_swapped": 3000}, BIAS)


@pytest.mark.parametrize(("split", "share"), [("train", BIAS), ("val", BIAS), ("val_swapped", 0)])
def test_scenes_predict_the_action_as_documented(large_plan, split, share):
    videos = large_plan[large_plan["split"] == split]
    own_scene = dict(zip(ACTIONS, SCENES, strict=True))
    biased = videos["scene"] == videos["action"].map(own_scene)
    assert biased.mean() == share if share == 0 else abs(biased.mean() - share) < 0.02
    others = videos[~biased].groupby(["action", "scene"]).size()
    assert len(others) == len(ACTIONS) * (len(SCENES) - 1)  # every other scene occurs
    assert others.min() > 0.1 * others.mean()


def test_actions_are_balanced_and_names_unique(large_plan):
    counts = large_plan.groupby(["split", "action"]).size()
    assert (counts == 750).all()
    assert large_plan["name"].is_unique and large_plan["seed"].is_unique


def test_a_larger_split_begins_with_the_smaller_one():
    small, large = draw_videos({"train": 7}, BIAS), draw_videos({"train": 20}, BIAS)
    assert small.equals(large.head(7))


@pytest.mark.parametrize("action", ACTIONS)
def test_boxes_fit_the_actor_to_the_pixel(action, monkeypatch):
    side = SIZE + 2 * synthetic.MARGIN
    monkeypatch.setattr(synthetic, "render_scene", lambda *_: np.zeros((side, side, 3)))
    for seed in range(3):
        frames, boxes = render_video(action, "lawn", np.random.default_rng(seed))
        actor = frames.max(axis=-1) > 45  # the scene is black, except for noise of 4
        for inside, (x1, y1, x2, y2) in zip(actor, boxes, strict=True):
            rows, columns = np.nonzero(inside)
            assert (x1, y1) == (columns.min(), rows.min())
            assert (x2, y2) == (columns.max() + 1, rows.max() + 1)


@pytest.mark.parametrize("action", ACTIONS)
def test_actors_stay_in_sight(action):
    for seed in range(20):
        _, boxes = render_video(action, "pool", np.random.default_rng(seed))
        width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
        assert boxes.min() >= 0 and boxes.max() <= SIZE
        assert (np.minimum(width, height) >= 6).all()


# A motion is (x, y, scale) over the phase. A video of an action starts at any phase, runs in either
# direction and has any reach.
PHASE = np.linspace(0, 2 * np.pi, 48, endpoint=False)


def motion(action: str, phase: np.ndarray, reach: float = 0.8) -> np.ndarray:
    values = ACTIONS[action](phase, reach)
    return np.stack([np.broadcast_to(value, phase.shape) for value in values]).astype(float)


def is_motion_of(path: np.ndarray, action: str) -> bool:
    """Return True if a path could have been rendered as this action."""
    phase = PHASE[:, None] + np.array([[[1]], [[-1]]]) * PHASE  # (direction, start, time)
    distance = np.abs(path[:, None, None] - motion(action, phase)).max(axis=(0, -1))
    return distance.min() < 1e-9


@pytest.mark.parametrize("action", ACTIONS)
def test_actions_survive_flips_and_time_reversal(action):
    path = motion(action, PHASE)
    flipped = path * np.array([-1, 1, 1])[:, None]
    assert is_motion_of(path, action)
    assert is_motion_of(flipped, action), "a mirrored video shows another action"
    assert is_motion_of(path[:, ::-1], action), "a reversed video shows another action"
    assert is_motion_of(flipped[:, ::-1], action)


@pytest.mark.parametrize("nuisance, first, last", [("", 0.8, 1.19), ("time", 1.19, 0.8)])
def test_actors_approach_the_camera_and_withdraw_when_played_backwards(nuisance, first, last):
    # 1 ± 0.4 / 2 of its size in a video that runs from the first to the last frame
    widths = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        _, boxes = render_video("bounce", "lawn", rng, nuisance, approach=0.4)
        widths.append(boxes[[0, -1], 2] - boxes[[0, -1], 0])
    ratio = np.divide(*np.mean(widths, axis=0))
    assert ratio == pytest.approx(first / last, rel=0.12)


def test_actions_differ_in_their_motion():
    for action in ACTIONS:
        path = motion(action, PHASE)
        assert [other for other in ACTIONS if is_motion_of(path, other)] == [action]


@pytest.mark.parametrize("action", ACTIONS)
def test_boxes_contain_no_scene_pixels(action, monkeypatch):
    """What ActorCutMix pastes must not bring the scene along."""
    side = SIZE + 2 * synthetic.MARGIN
    monkeypatch.setattr(synthetic, "render_scene", lambda *_: np.zeros((side, side, 3)))
    frames, boxes = render_video(action, "pool", np.random.default_rng(1))
    for frame, (x1, y1, x2, y2) in zip(frames, boxes, strict=True):
        assert frame[y1:y2, x1:x2].max(axis=-1).min() > 45  # the scene is black, except for noise


def test_appearance_does_not_depend_on_the_action():
    """With one seed, all actions show one actor before one scene: only the motion differs."""
    first = [
        render_video(action, "lawn", np.random.default_rng(5))[0].reshape(-1, 3).astype(float)
        for action in ACTIONS
    ]
    means = np.array([frames.mean(axis=0) for frames in first])
    assert np.abs(means - means.mean(axis=0)).max() < 15
