"""Steps of preparing a data set: `prepare` runs them, and the status prints them."""

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from lib.config import PrepareSettings, TrainSettings, project_path
from lib.data.dataset import (
    VideoDataset,
    check_room,
    draw_labeled_rows,
    draw_rows,
    existing,
    free_bytes,
    gigabytes,
    is_prepared,
    read_dataset,
    read_description,
    write_split,
)
from lib.data.frame_tables import (
    NUM_CLASSES,
    PERSON_BOXES_FILE,
    TEACHER_FILE,
    is_made_with,
    read_made_with,
)
from lib.fileio import check_writable
from lib.prepare.boxes.detect import (
    detect_motion,
    detect_persons,
    motion_made_with,
    yolox_made_with,
)
from lib.prepare.boxes.yolox import YOLOX_NANO_SHA256, YOLOX_NANO_URL
from lib.prepare.catalog import CATALOG, dataset_folder
from lib.prepare.download import UnavailableError, download, sha256_of
from lib.prepare.import_reference import import_detections, import_made_with, import_scores
from lib.prepare.jpeg_frames import jpeg_bytes, store_frames, stores_frames
from lib.prepare.match_names import import_split
from lib.prepare.own_folder import BROKEN_FILE, find_videos, index_folder
from lib.prepare.parallel import num_cores
from lib.prepare.public_datasets import REQUIRED, public_steps
from lib.prepare.split_formats import read_split_file
from lib.prepare.status import MISSING, THERE, TO_DO, Step, status_table
from lib.prepare.synthetic import SPLIT_SIZES, make_synthetic
from lib.prepare.teacher import load_teacher, published_weights, score_frames
from lib.runs.run_dir import format_duration

# Seconds of one core for a frame of a small video (320 × 240); large ones take longer.
SECONDS_PER_DETECTION = 0.03
SECONDS_PER_SCORE = 0.05
UNOPENED = (180, 320, 240)  # assumed frames, width and height of a video that was not opened yet
SYNTHETIC_BYTES = 21e6
BYTES_OF_BOXES = 24.0  # per frame


def prepare(settings: PrepareSettings) -> VideoDataset:
    """Prepare a data set; parts that are there already are kept.

    Raises:
        ValueError: Before any work, if videos or files are missing, the videos are not laid out as
            expected, or the folder cannot be written or is too small; later, if a file is damaged.
    """
    folder = _folder(settings)
    steps = list(list_steps(settings))
    _check(steps, folder)
    for step in steps:
        if step.run is not None:
            step.run(read_dataset(folder) if is_prepared(folder) else None)
    return read_dataset(folder)


def _check(steps: Sequence[Step], folder: Path) -> None:
    """Raise ValueError if steps cannot start, the folder cannot be written, or the disk is full."""
    if errors := [f"{step.part}: {step.details}" for step in steps if step.blocks]:
        raise ValueError("\n".join(errors))
    todo = [step for step in steps if step.state == TO_DO and step.part != "folder"]
    if todo:
        check_writable(folder, "prepared_dir", "set prepared_dir to a folder that you may write to")
    # `store_frames` checks the room for the frames that are not written yet.
    check_room(folder, sum(step.size for step in todo if step.part != "frames"), "prepared_dir")


def status_of(settings: PrepareSettings) -> pd.DataFrame:
    """Return the status of a data set as `status_table`; nothing is opened or written.

    Raises:
        ValueError: If the settings name no data set, or its videos are not laid out as expected.
    """
    return status_table(list(list_steps(settings)), free_bytes(_folder(settings)))


def open_dataset(name: str, videos_dir: str | None, prepared_dir: str) -> VideoDataset:
    """Open a data set; prepare it first, without any download, if it is not prepared.

    Raises:
        ValueError: If it cannot be prepared.
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


# --- The steps ------------------------------------------------------------------------------------


def list_steps(settings: PrepareSettings) -> Iterator[Step]:
    """Yield the steps of a data set in their order; nothing is opened, downloaded or written.

    Raises:
        ValueError: If the settings name no data set, or its videos are not laid out as expected.
    """
    folder, entry = _folder(settings), CATALOG[settings.dataset]
    if entry.num_classes is not None:
        number = "" if entry.num_videos is None else f", {entry.num_videos:,} videos"
        details = f"{entry.title}: {entry.num_classes} classes{number}; license: {entry.license}"
        yield Step("data set", THERE, details)
    is_effective = os.access in os.supports_effective_ids
    if os.access(existing(folder), os.W_OK, effective_ids=is_effective):
        yield Step("folder", THERE if folder.is_dir() else TO_DO, str(folder))
    else:
        yield Step("folder", MISSING, f"{folder}: cannot be written; see prepared_dir")
    if settings.person_boxes == "yolox":  # weights come first: downloads may fail
        make_step = partial(_weights_step, settings, "detector", detector_file)
        yield _or_missing("detector", make_step)
    if settings.teacher_scores == "compute":
        make_step = partial(_weights_step, settings, "classifier", teacher_file)
        yield _or_missing("classifier", make_step)
    dataset = read_dataset(folder) if is_prepared(folder) else None
    if dataset is not None:
        yield from _prepared_videos(settings, dataset)
        sizes = dataset.index[["frames", "width", "height"]].to_numpy()
    else:
        video_steps, count = _VIDEOS.get(settings.dataset, public_steps)(settings, folder)
        yield from video_steps
        sizes = np.tile(UNOPENED, (count, 1))
    if settings.storage == "frames":
        yield _jpeg_step(settings, dataset, sizes)
    yield from _split_steps(settings, folder)
    frames = sizes[:, 0]
    yield _or_missing("person boxes", partial(_boxes_step, settings, folder, frames))
    yield _or_missing("ImageNet scores", partial(_scores_step, settings, folder, frames))


def _folder(settings: PrepareSettings) -> Path:
    return dataset_folder(settings.dataset, settings.videos_dir, settings.prepared_dir)


def _or_missing(part: str, make_step: Callable[[], Step]) -> Step:
    """Return a step; if it raises ValueError, one that is missing and blocks."""
    try:
        return make_step()
    except ValueError as error:
        return Step(part, MISSING, str(error), blocks=True)


def _required_file(settings: PrepareSettings, name: str) -> Path:
    """Return the file that a setting names; ValueError if it is not there."""
    path = project_path(getattr(settings, name))
    if not path.is_file():
        raise ValueError(f"{name}: {path}: no such file")
    return path


# --- Videos ---------------------------------------------------------------------------------------


def _synthetic(settings: PrepareSettings, folder: Path) -> tuple[list[Step], int]:
    def run(_: None) -> None:
        make_synthetic(folder, num_processes=settings.num_processes)

    count = sum(SPLIT_SIZES.values())
    return [Step("videos", TO_DO, f"{count} to render", run, SYNTHETIC_BYTES)], count


def _own_folder(settings: PrepareSettings, folder: Path) -> tuple[list[Step], int]:
    root = project_path(settings.videos_dir)
    videos = find_videos(root)

    def make_step() -> Step:
        groups = settings.groups_file and _required_file(settings, "groups_file")
        drawn = (settings.val_fraction, settings.seed)
        index = partial(index_folder, root, folder, *drawn, settings.num_processes, groups)
        details = f"{len(videos):,} in {videos['class'].nunique()} classes to open"
        return Step("videos", TO_DO, details, lambda _: index())

    return [_or_missing("videos", make_step)], len(videos)


_VIDEOS = {"synthetic": _synthetic, "folder": _own_folder}  # public data sets: `public_steps`


def _prepared_videos(settings: PrepareSettings, dataset: VideoDataset) -> Iterator[Step]:
    """Yield the steps for the videos of a prepared data set."""
    marker = dataset.folder / "dataset.json"
    source = read_description(dataset.folder)["source"]
    root = settings.videos_dir and str(project_path(settings.videos_dir).resolve())
    if root and root != str(Path(source.get("root", root)).resolve()):
        details = f"videos_dir: {dataset.folder} was made from {source['root']}, not from {root}; "
        details += f"omit videos_dir, or delete {marker} to prepare it again"
        yield Step("videos", MISSING, details, blocks=True)
        return
    yield Step("videos", THERE, f"{len(dataset.index):,}, root {dataset.root}")
    is_file = dataset.index["fingerprint"] != ""
    if slow := int((is_file & (dataset.index["seek"] == "")).sum()):
        details = f"{slow:,} of {is_file.sum():,} videos are decoded from their start, which is "
        yield Step("seeking", THERE, f"{details}slower; the frames are the same")
    report = dataset.folder / BROKEN_FILE
    num_broken = int((~pd.read_csv(report)["is_kept"]).sum()) if report.is_file() else 0
    if num_broken:
        yield Step("unreadable videos", MISSING, f"{num_broken}, reasons in {report}")
    expected = CATALOG[settings.dataset].num_videos or 0
    if (num_absent := expected - len(dataset.index) - num_broken) > 0:
        details = f"{num_absent:,} of {expected:,}, named in {dataset.folder / 'splits'}/"
        yield Step(
            "absent videos", MISSING, f"{details}*.problems.csv; to add them, delete {marker}"
        )
    if settings.dataset == "folder":
        yield from _changes(settings, dataset, source, len(dataset.index) + num_broken)


def _changes(
    settings: PrepareSettings, dataset: VideoDataset, source: dict, num_videos: int
) -> Iterator[Step]:
    """Yield the differences between a prepared folder of own videos and the settings."""
    groups = settings.groups_file and str(project_path(settings.groups_file))
    values = {"val_fraction": settings.val_fraction, "seed": settings.seed, "groups_file": groups}
    for name, value in values.items():
        if name in source and source[name] != value:
            details = f"val was drawn with {name} {source[name]}, not {value}; delete "
            yield Step("changes", MISSING, f"{details}{dataset.folder} to draw it again")
    root = project_path(settings.videos_dir)
    if root.is_dir() and (num_found := len(find_videos(root))) != num_videos:
        details = (
            f"{root} has {num_found} videos, it had {num_videos} when it was prepared; delete "
        )
        yield Step(
            "changes", MISSING, f"{details}{dataset.folder / 'dataset.json'} to open it again"
        )


def _jpeg_step(settings: PrepareSettings, dataset: VideoDataset | None, sizes: np.ndarray) -> Step:
    if dataset is not None and stores_frames(dataset):
        return Step("frames", THERE, str(dataset.root))
    side = settings.frames_short_side
    size = jpeg_bytes(sizes, side)
    details = f"{int(sizes[:, 0].sum()):,} to write, about {gigabytes(size)}"
    run = partial(store_frames, short_side=side, num_processes=settings.num_processes)
    return Step("frames", TO_DO, details, run, size)


# --- Splits ---------------------------------------------------------------------------------------


def labeled_splits(settings: PrepareSettings) -> dict[str, Callable[..., np.ndarray]]:
    """Return the functions that draw the labeled splits, by name, from labels and index rows.

    Both kinds of draws with one seed are nested: a smaller split is a subset of a larger one.
    """
    seed = settings.seed
    fractions = {
        f"train_{100 * fraction:g}percent_seed{seed}": partial(
            draw_labeled_rows, fraction=fraction, seed=seed
        )
        for fraction in settings.labeled_fractions
    }
    return fractions | {
        f"train_{count}perclass_seed{seed}": partial(
            draw_rows, count_for=lambda size, count=count: min(count, size), seed=seed
        )
        for count in settings.labeled_counts
    }


def draw_splits(dataset: VideoDataset, settings: PrepareSettings) -> list[str]:
    """Draw the labeled splits that are not there yet; return the names of all of them."""
    labels = dataset.index["label"].to_numpy()
    splits = labeled_splits(settings)
    for name, draw in splits.items():
        if not dataset.split_path(name).is_file():
            write_split(dataset, name, draw(labels, dataset.read_split("train")))
    return list(splits)


def _split_steps(settings: PrepareSettings, folder: Path) -> Iterator[Step]:
    def state_of(name: str) -> str:
        return THERE if (folder / "splits" / f"{name}.txt").is_file() else TO_DO

    def own_split(path: Path) -> Step:
        entries = read_split_file(path)

        def run(dataset: VideoDataset) -> None:
            print(import_split(dataset, path.stem, entries, str(path)).summary())

        return Step("your split", state_of(path.stem), str(path), run)

    for path in map(project_path, settings.split_files):
        yield _or_missing("your split", partial(own_split, path))
    names = [*REQUIRED, *labeled_splits(settings)]
    for state, run in ((THERE, None), (TO_DO, partial(draw_splits, settings=settings))):
        if selected := [name for name in names if state_of(name) == state]:
            yield Step("splits", state, ", ".join(selected), run)


# --- Person boxes and ImageNet scores -------------------------------------------------------------


def detector_file(settings: PrepareSettings, allowed: bool) -> Path:
    """Return the weights of the detector; download YOLOX-Nano if allowed and needed.

    Raises:
        ValueError: If they are not there.
    """
    if settings.detector_weights is not None:
        return _required_file(settings, "detector_weights")
    path = project_path(settings.prepared_dir) / "weights" / Path(YOLOX_NANO_URL).name
    return download(YOLOX_NANO_URL, path, YOLOX_NANO_SHA256, allowed)


def teacher_file(settings: PrepareSettings, allowed: bool) -> Path:
    """Return the weights of the classifier; download published ones if allowed and needed.

    Raises:
        ValueError: If they are not there.
    """
    if settings.teacher_weights is not None:
        return _required_file(settings, "teacher_weights")
    folder = project_path(settings.prepared_dir) / "weights"
    return published_weights(settings.teacher_model, folder, allowed)


def _weights_step(settings: PrepareSettings, part: str, get: Callable[..., Path]) -> Step:
    try:
        return Step(part, THERE, str(get(settings, allowed=False)))
    except UnavailableError:
        if not settings.download:
            raise
        return Step(part, TO_DO, "to download", lambda _: get(settings, allowed=True))


def _if_there(settings: PrepareSettings, get: Callable[..., Path]) -> Path | None:
    try:
        return get(settings, allowed=False)
    except ValueError:
        return None


def _boxes_step(settings: PrepareSettings, folder: Path, frames: np.ndarray) -> Step:
    part, made_with = "person boxes", read_made_with(folder / PERSON_BOXES_FILE)
    now, stride, processes = _describe(made_with), settings.detector_stride, settings.num_processes
    if settings.person_boxes == "keep":
        if made_with is not None:
            return Step(part, THERE, now)
        if settings.dataset == "synthetic":
            return Step(part, TO_DO, "exact, written with the videos")
        return Step(part, MISSING, "none yet; ActorCutMix needs them: set person_boxes")
    if settings.person_boxes == "yolox":
        expected, details, run = _detection(settings, frames)
    elif settings.person_boxes == "motion":
        expected, details = motion_made_with(stride), "motion"
        run = partial(detect_motion, stride=stride, num_processes=processes)
    else:
        path = _required_file(settings, "detections_file")
        expected, details = import_made_with(path), f"import {path}"
        run = partial(import_detections, path=path)
    if expected is not None and is_made_with(folder, expected):
        return Step(part, THERE, now)
    return Step(part, TO_DO, f"{details}; {now}", run, BYTES_OF_BOXES * frames.sum())


def _detection(
    settings: PrepareSettings, frames: np.ndarray
) -> tuple[dict | None, str, Callable[[VideoDataset], object]]:
    """Return what decides the boxes of a detector (None if not known), details, and the work."""
    stride, min_score = settings.detector_stride, settings.detector_min_score
    weights = _if_there(settings, detector_file)
    expected = None if weights is None else yolox_made_with(weights, stride, min_score)
    count, cores = int((-(-frames // stride)).sum()), settings.num_processes or num_cores()
    duration = format_duration(count * SECONDS_PER_DETECTION / cores)
    details = f"yolox: {count:,} frames, about {duration} with YOLOX-Nano on {cores} cores"

    def run(dataset: VideoDataset) -> None:
        file = detector_file(settings, allowed=False)
        batch, processes = settings.detector_batch, settings.num_processes
        detect_persons(dataset, file, stride, min_score, batch, processes)

    return expected, details, run


def _scores_step(settings: PrepareSettings, folder: Path, frames: np.ndarray) -> Step:
    part, made_with = "ImageNet scores", read_made_with(folder / TEACHER_FILE)
    now, stride = _describe(made_with), settings.teacher_stride
    if settings.teacher_scores == "keep":
        hint = "; only distillation needs them" if made_with is None else ""
        return Step(part, THERE, now + hint)
    if settings.teacher_scores == "import":
        path = _required_file(settings, "teacher_file")
        if made_with == import_made_with(path):
            return Step(part, THERE, now)
        return Step(part, TO_DO, f"import {path}; {now}", partial(import_scores, path=path))
    weights = _if_there(settings, teacher_file)
    if made_with is not None and weights is not None:
        expected = {"model": settings.teacher_model, "weights_sha256": sha256_of(weights)}
        if made_with == expected | {"stride": stride}:
            return Step(part, THERE, now)
    count = int((-(-frames // stride)).sum())
    size = count * 2 * NUM_CLASSES
    duration = format_duration(count * SECONDS_PER_SCORE / num_cores())
    details = f"compute; {now}; {count:,} frames, about {gigabytes(size)}, about {duration} with "
    details += "ResNet-18 without a GPU"
    return Step(part, TO_DO, details, partial(compute_scores, settings), size)


def compute_scores(settings: PrepareSettings, dataset: VideoDataset) -> None:
    """Compute the ImageNet scores of a data set; those of the same settings are kept."""
    teacher = load_teacher(settings.teacher_model, teacher_file(settings, allowed=False))
    has_gpu = settings.device == "auto" and torch.cuda.is_available()
    device = "cuda" if has_gpu else settings.device.replace("auto", "cpu")
    stride, batch = settings.teacher_stride, settings.teacher_batch
    score_frames(dataset, teacher, stride, batch, device, settings.num_processes)


def _describe(made_with: dict | None) -> str:
    """Return the settings that made a part; checksums by their first digits."""
    if made_with is None:
        return "none yet"
    parts = [f"{key} {str(value)[:12]}" for key, value in made_with.items()]
    return "made with " + (", ".join(parts) or "the data set")
