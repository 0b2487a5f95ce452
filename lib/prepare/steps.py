"""Making a data set ready: videos, index, lists, person boxes, ImageNet scores.

From a shell, with the fields of `PrepareSettings` as options:

    python -m lib.prepare --dataset ucf101 --status
    python -m lib.prepare --dataset ucf101 --download true --person_boxes yolox
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
import yaml

from lib.config import PrepareSettings, TrainSettings, project_path
from lib.data.dataset import (
    VideoDataset,
    is_prepared,
    read_dataset,
    read_description,
    write_split,
)
from lib.params import make_settings
from lib.prepare.boxes.detect import detect_motion, detect_persons
from lib.prepare.boxes.yolox import YOLOX_NANO_SHA256, YOLOX_NANO_URL, detector_path
from lib.prepare.catalog import dataset_folder
from lib.prepare.download import download
from lib.prepare.import_reference import import_detections, import_scores
from lib.prepare.jpeg_frames import store_frames
from lib.prepare.match_names import import_split, labeled_splits
from lib.prepare.own_folder import index_folder
from lib.prepare.public_datasets import index_known, published_files
from lib.prepare.split_formats import read_split_file
from lib.prepare.status import check_folder, status_text
from lib.prepare.synthetic import make_synthetic
from lib.prepare.teacher import load_teacher, published_weights, score_frames


def open_dataset(name: str, videos_dir: str | None, prepared_dir: str) -> VideoDataset:
    """Open a data set; one that has not been prepared is prepared first, without any download.

    Raises:
        ValueError: If it cannot be prepared; says why.
    """
    folder = dataset_folder(name, videos_dir, prepared_dir)
    if is_prepared(folder):
        return read_dataset(folder)
    return prepare(PrepareSettings(dataset=name, videos_dir=videos_dir, prepared_dir=prepared_dir))


def prepare_for(settings: TrainSettings) -> None:
    """Prepare the data sets of a run that are not prepared yet, as `open_dataset` does."""
    open_dataset(settings.dataset, settings.videos_dir, settings.prepared_dir)
    if settings.reads_unlabeled and settings.unlabeled_dataset is not None:
        open_dataset(
            settings.unlabeled_dataset, settings.unlabeled_videos_dir, settings.prepared_dir
        )


def prepare(settings: PrepareSettings) -> VideoDataset:
    """Make a data set ready and draw its labelled lists; what is there already is kept.

    Args:
        settings: Which data set, and what to make of it.

    Returns:
        The prepared data set.

    Raises:
        ValueError: If the videos are missing or not laid out as expected, a file that the settings
            name is not there, or the folder cannot be written or is too small; before any work.
    """
    folder = dataset_folder(settings.dataset, settings.videos_dir, settings.prepared_dir)
    check_files(settings)
    check_folder(settings)
    if is_prepared(folder):
        dataset = read_dataset(folder)
        check_root(dataset, settings)
    else:
        dataset = _make(settings, folder)
    if settings.storage == "frames":
        dataset = store_frames(dataset, settings.frames_short_side, settings.num_processes)
    for path in map(project_path, settings.split_files):
        print(import_split(dataset, path.stem, read_split_file(path), str(path)).summary())
    draw_splits(dataset, settings)
    make_person_boxes(settings, dataset)
    make_teacher_scores(settings, dataset)
    return dataset


def check_files(settings: PrepareSettings) -> None:
    """Make sure that the files that will be needed last are there before anything is made.

    Raises:
        ValueError: If one is missing; names the setting and the file.
    """
    for name in (
        "groups_file",
        "detector_weights",
        "detections_file",
        "teacher_weights",
        "teacher_file",
    ):
        given = getattr(settings, name)
        if given is not None and not project_path(given).is_file():
            raise ValueError(f"{name}: {project_path(given)}: no such file")
    for path in map(project_path, settings.split_files):
        read_split_file(path)
    if settings.person_boxes == "yolox":
        detector_file(settings)
    if settings.teacher_scores == "compute":
        teacher_file(settings)


def check_root(dataset: VideoDataset, settings: PrepareSettings) -> None:
    """Make sure that a prepared data set is of the videos that the settings name.

    Raises:
        ValueError: If it was made from another folder; says what to do.
    """
    source = read_description(dataset.folder)["source"]
    if settings.videos_dir is None or "root" not in source:
        return
    wanted = project_path(settings.videos_dir).resolve()
    if Path(source["root"]).resolve() != wanted:
        raise ValueError(
            f"videos_dir: {dataset.folder} was made from {source['root']}, not from {wanted}; "
            f"leave videos_dir out, or delete {dataset.folder / 'dataset.json'} to make it anew"
        )


def _make(settings: PrepareSettings, folder: Path) -> VideoDataset:
    if settings.dataset == "synthetic":
        return make_synthetic(folder, num_processes=settings.num_processes)
    root = None if settings.videos_dir is None else project_path(settings.videos_dir)
    if settings.dataset == "folder":
        groups = None if settings.groups_file is None else project_path(settings.groups_file)
        how = (settings.val_fraction, settings.seed, settings.num_processes, groups)
        return index_folder(root, folder, *how)
    files = published_files(settings)
    return index_known(settings.dataset, root, files, settings.num_processes)


def make_person_boxes(settings: PrepareSettings, dataset: VideoDataset) -> None:
    """Make the person boxes that the settings ask for; those of the same settings are kept.

    Raises:
        ValueError: If the detector or the file to import cannot be used, or a video not be read.
    """
    if settings.person_boxes == "yolox":
        detect_persons(
            dataset,
            detector_file(settings),
            settings.detector_stride,
            settings.detector_min_score,
            settings.detector_batch,
            settings.num_processes,
        )
    elif settings.person_boxes == "motion":
        detect_motion(dataset, settings.detector_stride, settings.num_processes)
    elif settings.person_boxes == "import":
        import_detections(dataset, project_path(settings.detections_file))


def make_teacher_scores(settings: PrepareSettings, dataset: VideoDataset) -> None:
    """Make the ImageNet scores that the settings ask for; those of the same settings are kept.

    Raises:
        ValueError: If the classifier or the file to import cannot be used, or a video not be read.
    """
    if settings.teacher_scores == "compute":
        teacher = load_teacher(settings.teacher_model, teacher_file(settings))
        has_gpu = settings.device == "auto" and torch.cuda.is_available()
        device = "cuda" if has_gpu else settings.device.replace("auto", "cpu")
        score_frames(
            dataset,
            teacher,
            settings.teacher_stride,
            settings.teacher_batch,
            device,
            settings.num_processes,
        )
    elif settings.teacher_scores == "import":
        import_scores(dataset, project_path(settings.teacher_file))


def teacher_file(settings: PrepareSettings) -> Path:
    """Return the classifier's weights: those given, or torchvision's, downloaded if allowed.

    Raises:
        ValueError: If they are not there.
    """
    if settings.teacher_weights is not None:
        return project_path(settings.teacher_weights)
    folder = project_path(settings.prepared_dir) / "weights"
    return published_weights(settings.teacher_model, folder, settings.download)


def detector_file(settings: PrepareSettings) -> Path:
    """Return the detector's weights: those given, or YOLOX-Nano, downloaded if that is allowed.

    Raises:
        ValueError: If they are not there.
    """
    path = detector_path(settings.detector_weights, project_path(settings.prepared_dir))
    if settings.detector_weights is not None:
        return path
    return download(YOLOX_NANO_URL, path, YOLOX_NANO_SHA256, settings.download)


def draw_splits(dataset: VideoDataset, settings: PrepareSettings) -> list[str]:
    """Write the labelled lists that the settings ask for; return their names. Those there stay."""
    labels = dataset.index["label"].to_numpy()
    lists = labeled_splits(settings)
    for name, (draw, amount) in lists.items():
        if not dataset.split_path(name).is_file():
            rows = draw(labels, dataset.read_split("train"), amount, settings.seed)
            write_split(dataset, name, rows)
    return list(lists)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prepare a data set, or with `--status` only say what that would do; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m lib.prepare", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--status", action="store_true", help="say what would be done, and stop")
    for name, field in PrepareSettings.model_fields.items():
        parser.add_argument(f"--{name}", metavar="VALUE", help=f"default: {field.default!r}")
    given = vars(parser.parse_args(arguments))
    only_status = given.pop("status")
    try:
        values = {k: yaml.safe_load(v) for k, v in given.items() if v is not None}
        settings = make_settings(PrepareSettings, values, "command line")
        print(status_text(settings))
        if not only_status:
            prepare(settings)
            print(status_text(settings))
    except (ValueError, yaml.YAMLError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:  # a disk that filled up, a share that went away
        print(f"error: {error}. What is done is kept: the same call continues", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped. What is done is kept: the same call continues", file=sys.stderr)
        return 130
    return 0
