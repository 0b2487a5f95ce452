"""The augmentation explorer: views of the loader, decoded once, for data of every kind."""

import shutil

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import write_lossless

from lib.augment.scene import SCENE_AUGMENTATIONS
from lib.batch.plan import read_plan
from lib.config import ExploreSettings, TrainSettings
from lib.data.clip_dataset import ClipDataset, ViewSpec
from lib.data.dataset import VideoDataset, read_dataset, write_dataset, write_split
from lib.data.frame_tables import open_person_boxes
from lib.jupyter import clip_views as views_module
from lib.jupyter import explorer as explorer_module
from lib.jupyter.clip_views import clip_views, load_clips, pick_rows
from lib.jupyter.explorer import (
    MAX_LISTED,
    AugmentationExplorer,
    clip_yaml,
    training_settings,
    views_html,
)
from lib.params import make_settings, read_settings
from lib.plots.clips import operation_rows, temporal_rows, view_rows

SMALL = {"frame_interval": 2, "short_side": 40, "crop_size": 32, "crop_area_min": 0.4}


def small_settings(**changes) -> ExploreSettings:
    return ExploreSettings(**SMALL | changes)


@pytest.fixture
def dataset(prepared_dir) -> VideoDataset:
    return read_dataset(prepared_dir / "synthetic")


def make_dataset(folder, classes, frames) -> VideoDataset:
    """A data set without boxes: one video a class, of the given numbers of frames."""
    names = [f"{name}/clip" for name in classes]
    rng = np.random.default_rng(0)
    paths = {}
    for count in set(frames):
        paths[count] = f"videos/{count}.mkv"
        pixels = rng.integers(0, 255, (count, 48, 64, 3), dtype=np.uint8)
        write_lossless(folder / paths[count], pixels)
    index = pd.DataFrame(
        {
            "name": names,
            "path": [paths[count] for count in frames],
            "class": classes,
            "label": range(len(classes)),
            "frames": frames,
            "fps": 8,
            "width": 64,
            "height": 48,
        }
    )
    dataset = write_dataset(folder, "made", classes, folder, index, {})
    write_split(dataset, "train", range(len(classes)))
    return dataset


def views_of(dataset: VideoDataset, settings: ExploreSettings, row: int = 0, partner: int = 1):
    return clip_views(dataset, open_person_boxes(dataset), settings, row, partner)


def test_views_are_those_of_the_loader(dataset):
    settings = small_settings(seed=5)
    shown = views_of(dataset, settings, 0, 3)
    clips = ClipDataset(dataset, settings, ViewSpec(True, True, True), (5,))
    own, partner = clips[(0, 0)], clips[(1, 3)]
    _, weak, strong, temporal, mask, mixed, partner_weak, _ = (
        tile.clip for tile in shown.tiles.values()
    )
    assert torch.equal(weak, own.weak) and torch.equal(strong, own.strong)
    assert torch.equal(mask, own.person_mask) and torch.equal(partner_weak, partner.weak)
    people = mask.bool().expand_as(weak)
    assert torch.equal(mixed[people], weak[people])
    assert not torch.equal(mixed[~people], weak[~people])
    assert all(any(torch.equal(frame, other) for other in weak) for frame in temporal)
    assert shown.warnings == []
    assert "own " in shown.tiles["scene"].title


def test_a_video_is_decoded_once(dataset, monkeypatch):
    calls, real = [], views_module.read_frames

    def count(record, indices):
        calls.append((record.name, *indices.tolist()))
        return real(record, indices)

    monkeypatch.setattr(views_module, "read_frames", count)
    views_module._decode.cache_clear()
    for magnitude in (5.0, 20.0, 10.0):
        for scene in ("mixup", "actor_cutmix"):
            changes = {"randaugment_magnitude": magnitude, "scene_augmentation": scene}
            views_of(dataset, small_settings(seed=len(scene), **changes))
    assert len(calls) == len(set(calls)) == 2


def test_without_boxes_it_says_so_and_shows_the_rest(tmp_path):
    dataset = make_dataset(tmp_path, ["a", "b"], [20, 20])
    shown = views_of(dataset, small_settings())
    assert any("person boxes" in warning for warning in shown.warnings)
    assert [isinstance(tile.clip, str) for tile in shown.tiles.values()] == [0, 0, 0, 0, 1, 1, 0, 0]
    assert views_html(shown).count("<img") == 6
    shown = views_of(dataset, small_settings(scene_augmentation="mixup"))
    assert shown.warnings == []
    assert "own " in shown.tiles["scene"].title


def test_one_video_with_one_frame(tmp_path):
    dataset = make_dataset(tmp_path, ["only"], [1])
    shown = AugmentationExplorer(dataset, small_settings(scene_augmentation="cutmix"))
    text = shown.params.value
    assert "one frame" in text and "its own partner" in text
    assert "<img" in shown.picture.value
    shown.video.random.click()
    assert shown.video.row == 0


def test_many_classes_with_long_names(tmp_path):
    classes = [f"{'a very long name of an action ' * 5}{number:03d}" for number in range(400)]
    shown = AugmentationExplorer(make_dataset(tmp_path, classes, [4] * 400), small_settings())
    assert len(shown.video.choice.options) == MAX_LISTED
    shown.video.search.value = "action 399"
    assert [row for _, row in shown.video.choice.options] == [399]
    shown.video.choice.value = 399
    assert shown.video.row == 399 and "…" in shown.params.value
    assert "wraps around" in shown.params.value
    shown.video.search.value = "no such video"
    assert len(shown.video.choice.options) == 0 and shown.video.row == 399


def test_knobs_change_the_picture_and_the_yaml(dataset):
    shown = AugmentationExplorer(dataset, small_settings())
    pictures = {shown.picture.value}
    shown.knobs["randaugment_ops"].value = ("rotate",)
    pictures.add(shown.picture.value)
    shown.knobs["randaugment_magnitude"].value = 25.0
    pictures.add(shown.picture.value)
    shown.reseed.click()
    pictures.add(shown.picture.value)
    shown.knobs["temporal_ops"].value = ("reverse",)
    pictures.add(shown.picture.value)
    assert len(pictures) == 5
    assert "rotate " in shown.params.value and "T-Reverse" in shown.params.value
    values = yaml.safe_load(clip_yaml(shown.settings))
    assert values["randaugment_ops"] == ["rotate"] and values["randaugment_magnitude"] == 25
    make_settings(TrainSettings, values | {"test_crop_size": 40}, "copied")


def test_a_pinned_view_is_compared_with_the_present_one(dataset):
    shown = AugmentationExplorer(dataset, small_settings())
    shown.pin.value = True
    strong = shown.views.tiles["strong"].clip
    shown.knobs["randaugment_magnitude"].value = 25.0
    settings, views = shown.pinned
    assert (settings.randaugment_magnitude, shown.settings.randaugment_magnitude) == (10, 25)
    assert views.tiles["strong"].clip is strong and shown.views.tiles["strong"].clip is not strong
    picture = shown.picture.value
    assert (
        picture.count("<img") == 12 and "A: strong view" in picture and "B: strong view" in picture
    )
    assert "randaugment_magnitude" in shown.differences.value
    assert "crop_area_min" not in shown.differences.value
    shown.video.next.click()
    assert ">video<" in shown.differences.value
    shown.pin.value = False
    assert shown.pinned is None and shown.picture.value.count("<img") == 8
    assert "<table" not in shown.differences.value


def test_next_and_previous_video_go_round_the_list(dataset):
    shown = AugmentationExplorer(dataset, small_settings())
    rows = [row for _, row in shown.video.choice.options]
    shown.video.next.click()
    assert shown.video.row == rows[1] and shown.views.params["video"] in shown.params.value
    for row in (rows[0], rows[-1]):
        shown.video.previous.click()
        assert shown.video.row == row
    shown.video.next.click()
    assert shown.video.row == rows[0]
    shown.video.search.value = "no such video"
    shown.video.next.click()
    assert shown.video.row == rows[0]


def test_the_knobs_are_written_as_a_run_file_that_a_batch_accepts(dataset, tmp_path):
    shown = AugmentationExplorer(dataset, small_settings(prepared_dir=str(dataset.folder.parent)))
    shown.knobs["flip"].value = False
    shown.knobs["temporal_ops"].value = ("half",)
    path = shown.write_run_file(tmp_path / "study" / "mine.yaml")
    (run,) = read_plan([path])
    assert not run.settings.flip and run.settings.temporal_ops == ["half"]
    assert run.settings.prepared_dir == shown.settings.prepared_dir
    assert run.settings.run_dir == "outputs/study/mine"
    with pytest.raises(ValueError, match="exists already"):
        shown.write_run_file(path)
    for name in ("mine.txt", "recipe.yaml"):
        with pytest.raises(ValueError, match=r"no name of a run file"):
            shown.write_run_file(tmp_path / "other" / name)


def test_a_name_of_a_run_file_that_exists_is_refused_in_the_widget(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(explorer_module, "RUNS_FOLDER", str(tmp_path))
    shown = AugmentationExplorer(dataset, small_settings())
    shown.write.click()
    assert f"python -m lib.batch {tmp_path / 'explored.yaml'}" in shown.message.value
    shown.write.click()
    assert "exists already" in shown.message.value


def test_impossible_knobs_are_explained_and_the_picture_stays(dataset):
    shown = AugmentationExplorer(
        dataset, small_settings(clip_len=5, temporal_ops=["none", "reverse"])
    )
    before = shown.picture.value
    shown.knobs["temporal_ops"].value = ("half",)
    assert "odd" in shown.params.value and shown.picture.value == before
    shown.knobs["temporal_ops"].value = ("reverse",)
    assert "odd" not in shown.params.value


def test_a_video_that_disappeared_is_named(dataset, tmp_path):
    copy = tmp_path / "synthetic"
    shutil.copytree(dataset.folder, copy)
    shown = AugmentationExplorer(read_dataset(copy), small_settings())
    gone = shown.video.choice.options[7][1]
    path = read_dataset(copy).record(gone).path
    path.unlink()
    shown.video.choose(gone)
    assert path.name in shown.params.value and "no such video file" in shown.params.value


def test_a_run_file_never_trains_on_the_split_that_is_only_shown(dataset):
    shown = AugmentationExplorer(dataset, small_settings(split_name="val"), row=3)
    assert shown.video.row == 3 and shown.views.params["video"] == dataset.record(3).name
    run = training_settings(shown.settings, shown.dataset)
    assert run.labeled_split == run.unlabeled_split == "train" and run.val_split == "val"


@pytest.mark.filterwarnings("ignore:.*no labeled video of")
def test_run_without_boxes_and_with_a_run_file(tmp_path, prepared_dir):
    dataset = make_dataset(tmp_path / "data" / "synthetic", ["a", "b", "c"], [20] * 3)
    write_split(dataset, "train", [0, 1])
    write_split(dataset, "val", [2])
    run = training_settings(small_settings(prepared_dir=str(tmp_path / "data")), dataset)
    assert run.unlabeled_scene_p == 0
    study = tmp_path / "study"
    study.mkdir()
    (study / "recipe.yaml").write_text(f"prepared_dir: {prepared_dir}\nepochs: 3\n")
    (study / "run.yaml").write_text("run_dir: outputs/x\nobjective: supervised\n")
    (study / "params.yaml").write_text("seed: 4\n")
    assert read_settings([study / "run.yaml"]).objective == "supervised"
    assert read_settings([study / "run.yaml"]).epochs == 3
    assert read_settings([study / "params.yaml"]).seed == 4
    with pytest.raises(ValueError, match="nothing.yaml"):
        read_settings([tmp_path / "nothing.yaml"])


def test_contact_sheets_have_every_operation(dataset):
    settings = small_settings(clip_len=5, temporal_ops=["none"])
    clips = ClipDataset(dataset, settings, ViewSpec(True, False, True), (0,))
    weak = clips[(0, 0)].weak
    sheet = operation_rows(weak[0])
    assert len(sheet) == 15 and "rotate\n0 to ±30°" in sheet and "posterize\n4 to 8 bits" in sheet
    assert torch.equal(sheet["rotate\n0 to ±30°"][0], weak[0])
    assert list(temporal_rows(weak)) == [
        "none\n0 1 2 3 4", "T-Reverse\n4 3 2 1 0", "T-Drop\n0 0 0 3 3"
    ]  # fmt: skip
    batch = load_clips(dataset, settings, [0, 3], seed=0)
    assert torch.equal(batch.weak[0], weak) and len(view_rows(batch, SCENE_AUGMENTATIONS)) == 9
    assert len(view_rows(batch._replace(person_mask=None), SCENE_AUGMENTATIONS)) == 5
    assert list(view_rows(batch._replace(person_mask=None), ["actor_cutmix"])) == [
        "weak view", "strong view"
    ]  # fmt: skip


def test_picked_videos_are_of_different_classes(dataset):
    rows = pick_rows(dataset, "train", 4, seed=0)
    assert len(np.unique(dataset.index["label"].to_numpy()[rows])) == 4
    assert set(rows) <= set(dataset.read_split("train"))
    assert (pick_rows(dataset, "train", 4, seed=0) == rows).all()
