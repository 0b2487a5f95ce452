"""What is there, what is missing and what will be made, told before any work starts."""

import os
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from lib.config import PrepareSettings, project_path
from lib.data.dataset import (
    VideoDataset,
    check_room,
    existing,
    free_bytes,
    gigabytes,
    is_prepared,
    read_dataset,
    read_description,
)
from lib.data.frame_tables import (
    NUM_CLASSES,
    PERSON_BOXES_FILE,
    TEACHER_FILE,
    is_made_with,
    read_made_with,
)
from lib.fileio import check_writable
from lib.prepare.boxes.detect import motion_made_with, yolox_made_with
from lib.prepare.boxes.yolox import YOLOX_NANO_URL, detector_path
from lib.prepare.catalog import CATALOG, CatalogEntry, RemoteFile, dataset_folder
from lib.prepare.download import sha256_of
from lib.prepare.import_reference import import_made_with
from lib.prepare.jpeg_frames import jpeg_bytes, stores_frames
from lib.prepare.match_names import labeled_splits
from lib.prepare.own_folder import BROKEN_FILE, find_videos, walk_videos
from lib.prepare.parallel import num_cores
from lib.prepare.public_datasets import REQUIRED, PublishedFiles, published_files
from lib.prepare.synthetic import PARTS

# Seconds of one core, measured on small videos (320 × 240); large ones take longer.
SECONDS_PER_VIDEO = 0.04
SECONDS_PER_RENDERED_VIDEO = 0.045
SECONDS_PER_DETECTION = 0.03
SECONDS_PER_JPEG = 0.003
SECONDS_PER_SCORE = 0.05
UNOPENED = (180, 320, 240)  # frames, width and height of a video, where nothing has been opened yet

THERE, TO_DO, MISSING = "there", "to do", "missing"


class Line(NamedTuple):
    """One line of the status.

    Attributes:
        part: What it is about.
        state: "there", "to do" or "missing".
        details: For the reader.
        seconds: Time that it will take on the cores there are, estimated.
        size: Disk that it will take, bytes, estimated.
    """

    part: str
    state: str
    details: str
    seconds: float = 0.0
    size: float = 0.0


def status_of(settings: PrepareSettings) -> pd.DataFrame:
    """Say what preparing would do; nothing is opened, downloaded or written.

    Returns:
        Columns part, state ("there", "to do" or "missing") and details; the last line sums up.

    Raises:
        ValueError: If the settings name no data set, or its videos are not laid out as expected.
    """
    lines = _lines(settings)
    lines.append(_in_all(lines, _folder(settings)))
    return pd.DataFrame([line[:3] for line in lines], columns=["part", "state", "details"])


def status_text(settings: PrepareSettings) -> str:
    """Return the status as text for a terminal; arguments and errors as in `status_of`."""
    lines = []
    for part, state, details in status_of(settings).itertuples(index=False):
        lines += textwrap.wrap(
            f"{part:<24} {state:<8} {details}",
            100,
            subsequent_indent=" " * 6,
            break_long_words=False,
            break_on_hyphens=False,
        )
    return "\n".join(lines)


def check_folder(settings: PrepareSettings) -> None:
    """Make sure that what is to be made can be written and fits; a complete set is not touched.

    Raises:
        ValueError: If not; says what is wrong and what to change.
    """
    folder = _folder(settings)
    todo = [line for line in _lines(settings) if line.state == TO_DO and line.part != "folder"]
    if todo:
        check_writable(folder, "prepared_dir", "set prepared_dir to a folder that you may write to")
    # Frames are left out: `store_frames` checks those not written yet, when all is counted.
    check_room(folder, sum(line.size for line in todo if line.part != "frames"), "prepared_dir")


def _folder(settings: PrepareSettings) -> Path:
    return dataset_folder(settings.dataset, settings.videos_dir, settings.prepared_dir)


def _lines(settings: PrepareSettings) -> list[Line]:
    folder, entry = _folder(settings), CATALOG[settings.dataset]
    lines = [*_entry(entry), _folder_line(folder)]
    dataset = read_dataset(folder) if is_prepared(folder) else None
    if dataset is not None:
        lines += _made(settings, dataset)
        counted = dataset.index[["frames", "width", "height"]].to_numpy()
    else:
        found, count = _videos(settings, entry, folder)
        lines += found
        counted = np.tile(UNOPENED, (count, 1))
    lines += [*_frames(settings, dataset, counted), *_lists(settings, folder)]
    frames = counted[:, 0]
    return [*lines, _boxes(settings, folder, frames), _teacher(settings, folder, frames)]


def _in_all(lines: list[Line], folder: Path) -> Line:
    """Sum up: what is missing comes first, then the time and the disk of what is to be done."""
    missing = [line.part for line in lines if line.state == MISSING]
    todo = [line for line in lines if line.state == TO_DO]
    size, free = sum(line.size for line in todo), free_bytes(folder)
    state, details = THERE, "nothing to do"
    if todo:
        state, duration = TO_DO, _duration(sum(line.seconds for line in todo))
        details = f"about {duration}, downloads not counted, and {gigabytes(size)} on disk; "
        details += f"{gigabytes(free)} are free"
    if missing:
        state = MISSING
        details = f"missing: {', '.join(dict.fromkeys(missing))}. The rest: {details}"
    if size > free:
        state, details = MISSING, f"too little room on the disk. {details}"
    return Line("in all", state, details)


def _entry(entry: CatalogEntry) -> Iterator[Line]:
    if entry.num_classes is None:
        return
    number = "" if entry.num_videos is None else f", {entry.num_videos:,} videos"
    yield Line("data set", THERE, f"{entry.title}: {entry.num_classes} classes{number}")
    yield Line("licence", THERE, entry.licence)
    if entry.warning:
        yield Line("note", THERE, entry.warning)


def _folder_line(folder: Path) -> Line:
    is_effective = os.access in os.supports_effective_ids
    if not os.access(existing(folder), os.W_OK, effective_ids=is_effective):
        return Line("folder", MISSING, f"{folder}: cannot be written; see prepared_dir")
    return Line("folder", THERE if folder.is_dir() else TO_DO, str(folder))


def _cores(settings: PrepareSettings) -> int:
    return settings.num_processes or num_cores()


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _to_open(settings: PrepareSettings, count: int, where: str) -> Line:
    seconds = max(2.0, SECONDS_PER_VIDEO * count / _cores(settings))
    details = f"{count:,}{where} to open, about {_duration(seconds)}"
    return Line("videos", TO_DO, details, seconds)


def _videos(settings: PrepareSettings, entry: CatalogEntry, folder: Path) -> tuple[list[Line], int]:
    """Say it for a data set that has not been opened; return the lines and the number of videos."""
    if settings.dataset == "synthetic":
        count = sum(PARTS.values())
        seconds = SECONDS_PER_RENDERED_VIDEO * count / _cores(settings)
        details = f"{count} to render, about {_duration(seconds)}"
        return [Line("videos", TO_DO, details, seconds, 21e6)], count
    if settings.dataset == "folder":
        videos = find_videos(project_path(settings.videos_dir))
        where = f" in {videos['class'].nunique()} classes"
        return [_to_open(settings, len(videos), where)], len(videos)
    find = _archives if settings.videos_dir is None else _root
    lines, count = find(settings, entry, folder)
    return [*_published(published_files(settings), settings.dataset), *lines], count


def _root(settings: PrepareSettings, entry: CatalogEntry, folder: Path) -> tuple[list[Line], int]:
    root = project_path(settings.videos_dir)
    if not root.is_dir():
        return [Line("videos", MISSING, f"videos_dir: {root} is not a folder")], 0
    count = sum(1 for _ in walk_videos(root))
    return [_to_open(settings, count, f" below {root}")], count


def _archives(
    settings: PrepareSettings, entry: CatalogEntry, folder: Path
) -> tuple[list[Line], int]:
    count = entry.num_videos or 0
    if not entry.archives:
        return [Line("videos", MISSING, f"set videos_dir: {entry.how_to_get}")], count
    files = published_files(settings)
    lines = [_file("archive", file, files) for file in entry.archives]
    there = sum(p.stat().st_size for p in (folder / "videos").rglob("*") if p.is_file())
    details = f"about {entry.videos_gb:g} GB below {folder / 'videos'}"
    lines.append(Line("unpacking", TO_DO, details, 0, max(0.0, entry.videos_gb * 1e9 - there)))
    return [*lines, _to_open(settings, count, "")], count


def _published(files: PublishedFiles, name: str) -> Iterator[Line]:
    entry = CATALOG[name]
    yield from (_file(f"list {p.name}", p.file, files) for p in entry.lists)
    if (unpacked := files.find_splits(name)) is not None:
        yield Line("official splits", THERE, str(unpacked))
    elif entry.splits is not None:
        yield _file("official splits", entry.splits, files)
    if entry.categories is not None:
        yield _file("class names", entry.categories, files)


def _file(title: str, file: RemoteFile, files: PublishedFiles) -> Line:
    if (found := files.find(file)) is not None:
        return Line(title, THERE, str(found))
    size = f", about {file.size_gb:g} GB" if file.size_gb else ""
    check = ", checksum known" if file.checksum else ", no checksum is published"
    if file.url.startswith("http:"):
        check += ", which with plain http is MD5 only: who changes it on purpose is not noticed"
    if files.allowed:
        details = f"download {file.url}{size}{check}"
        return Line(title, TO_DO, details, 0, file.size_gb * 1e9)
    details = f"{file.url}{size}{check}; set download, or put it into downloads_dir"
    return Line(title, MISSING, details)


def _made(settings: PrepareSettings, dataset: VideoDataset) -> Iterator[Line]:
    report = dataset.folder / BROKEN_FILE
    broken = int((~pd.read_csv(report)["is_kept"]).sum()) if report.is_file() else 0
    yield Line("videos", THERE, f"{len(dataset.index):,}, root {dataset.root}")
    known = dataset.index["fingerprint"] != ""
    if walked := int((known & (dataset.index["seek"] == "")).sum()):
        details = f"{walked:,} of {known.sum():,} videos are decoded from their start, which takes "
        yield Line("seeking", THERE, f"{details}longer; the frames are the same")
    if broken:
        yield Line("unreadable videos", MISSING, f"{broken}, reasons in {report}")
    missing = (CATALOG[settings.dataset].num_videos or 0) - len(dataset.index) - broken
    if missing > 0:
        details = f"{missing:,} of {CATALOG[settings.dataset].num_videos:,}, named in "
        details += f"{dataset.folder / 'splits'}/*.problems.csv; when they are there, delete "
        yield Line("absent videos", MISSING, f"{details}{dataset.folder / 'dataset.json'}")
    if settings.dataset == "folder":
        yield from _changes(settings, dataset, broken)


def _changes(settings: PrepareSettings, dataset: VideoDataset, broken: int) -> Iterator[Line]:
    """Say where a prepared folder of your own videos is not what the settings ask for."""
    source = read_description(dataset.folder)["source"]
    groups = settings.groups_file and str(project_path(settings.groups_file))
    asked = {"val_fraction": settings.val_fraction, "seed": settings.seed, "groups_file": groups}
    for name, value in asked.items():
        if name in source and source[name] != value:
            details = f"val was drawn with {name} {source[name]}, not {value}; delete "
            yield Line("changes", MISSING, f"{details}{dataset.folder} to draw it again")
    root = project_path(settings.videos_dir)
    if root.is_dir():
        now, then = len(find_videos(root)), len(dataset.index) + broken
        if now != then:
            details = (
                f"{root} has {now} videos, it had {then} when it was opened; delete "
                f"{dataset.folder / 'dataset.json'} to open it again"
            )
            yield Line("changes", MISSING, details)


def _frames(
    settings: PrepareSettings, dataset: VideoDataset | None, counted: np.ndarray
) -> list[Line]:
    if settings.storage == "videos":
        return []
    if dataset is not None and stores_frames(dataset):
        return [Line("frames", THERE, str(dataset.root))]
    count = int(counted[:, 0].sum())
    size = jpeg_bytes(counted, settings.frames_short_side)
    seconds = SECONDS_PER_JPEG * count / _cores(settings)
    details = f"{count:,} to write, about {_duration(seconds)}, about {gigabytes(size)}"
    return [Line("frames", TO_DO, details, seconds, size)]


def _lists(settings: PrepareSettings, folder: Path) -> Iterator[Line]:
    names = [*REQUIRED, *labeled_splits(settings)]
    for state in (THERE, TO_DO):
        if some := [name for name in names if _split_state(folder, name) == state]:
            yield Line("splits", state, ", ".join(some))
    for path in map(project_path, settings.split_files):
        state = _split_state(folder, path.stem) if path.is_file() else MISSING
        yield Line("your list", state, str(path))


def _split_state(folder: Path, name: str) -> str:
    return THERE if (folder / "splits" / f"{name}.txt").is_file() else TO_DO


def _told(made_with: dict) -> str:
    """Say what made something; checksums by their first digits."""
    parts = [f"{key} {str(value)[:12]}" for key, value in made_with.items()]
    return "made with " + (", ".join(parts) or "the data set")


def _made_or_to_do(part: str, is_made: bool, told: str, how: str) -> Line:
    return Line(part, THERE, told) if is_made else Line(part, TO_DO, f"{how}; {told}")


def _kept_boxes(folder: Path, told: str, dataset: str) -> Line:
    part = "person boxes"
    if (folder / PERSON_BOXES_FILE).is_file():
        return Line(part, THERE, told)
    if dataset == "synthetic":
        return Line(part, TO_DO, "known to the pixel, written with the videos")
    return Line(part, MISSING, f"{told}; ActorCutMix needs them: set person_boxes")


def _boxes(settings: PrepareSettings, folder: Path, frames: np.ndarray) -> Line:
    part, made_with = "person boxes", read_made_with(folder / PERSON_BOXES_FILE)
    told = "none yet" if made_with is None else _told(made_with)
    if settings.person_boxes == "keep":
        return _kept_boxes(folder, told, settings.dataset)
    if settings.person_boxes == "import":
        path = project_path(settings.detections_file)
        if not path.is_file():
            return Line(part, MISSING, f"detections_file: {path} is not there")
        is_made = is_made_with(folder, import_made_with(path))
        return _made_or_to_do(part, is_made, told, f"import {path}")
    if settings.person_boxes == "motion":
        is_made = is_made_with(folder, motion_made_with(settings.detector_stride))
        return _made_or_to_do(part, is_made, told, "motion")
    return _detected_boxes(settings, folder, told, frames)


def _detected_boxes(settings: PrepareSettings, folder: Path, told: str, frames: np.ndarray) -> Line:
    part = "person boxes"
    weights = detector_path(settings.detector_weights, project_path(settings.prepared_dir))
    if weights.is_file():
        wanted = yolox_made_with(weights, settings.detector_stride, settings.detector_min_score)
        if is_made_with(folder, wanted):
            return Line(part, THERE, told)
    elif settings.detector_weights is not None or not settings.download:
        hint = "" if settings.detector_weights else f"; set download, or get {YOLOX_NANO_URL}"
        return Line(part, MISSING, f"the detector {weights} is not there{hint}")
    count = int((-(-frames // settings.detector_stride)).sum())
    seconds = count * SECONDS_PER_DETECTION / _cores(settings)
    details = f"yolox; {told}; {count:,} frames, about {_duration(seconds)} with YOLOX-Nano"
    return Line(part, TO_DO, f"{details} on {_cores(settings)} cores", seconds, 24.0 * frames.sum())


def _teacher(settings: PrepareSettings, folder: Path, frames: np.ndarray) -> Line:
    part, made_with = "ImageNet scores", read_made_with(folder / TEACHER_FILE)
    told = "none" if made_with is None else _told(made_with)
    if settings.teacher_scores == "keep":
        hint = "; only distillation needs them" if made_with is None else ""
        return Line(part, THERE, told + hint)
    for name in ("teacher_file", "teacher_weights"):
        path = getattr(settings, name)
        if path is not None and not project_path(path).is_file():
            return Line(part, MISSING, f"{name}: {project_path(path)} is not there")
    if settings.teacher_scores == "import":
        path = project_path(settings.teacher_file)
        return _made_or_to_do(part, made_with == import_made_with(path), told, f"import {path}")
    if made_with is not None and _wanted_teacher(settings).items() <= made_with.items():
        return Line(part, THERE, told)
    count = int((-(-frames // settings.teacher_stride)).sum())
    size, seconds = count * 2 * NUM_CLASSES, count * SECONDS_PER_SCORE / num_cores()
    details = f"compute; {told}; {count:,} frames, about "
    details += f"{gigabytes(size)}, about {_duration(seconds)} with ResNet-18 without a GPU"
    return Line(part, TO_DO, details, seconds, size)


def _wanted_teacher(settings: PrepareSettings) -> dict:
    wanted = {"model": settings.teacher_model, "stride": settings.teacher_stride}
    if settings.teacher_weights is not None:
        wanted["weights_sha256"] = sha256_of(project_path(settings.teacher_weights))
    return wanted
