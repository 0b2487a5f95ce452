"""Steps of preparing a data set: `prepare` runs them, and the status prints them."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd

from lib.config import PrepareSettings, TrainSettings, project_path
from lib.data.dataset import (
    VideoDataset,
    check_room,
    draw_labeled_rows,
    draw_rows,
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
    SCALED_TO,
    TEACHER_FILE,
    read_made_with,
)
from lib.fileio import check_writable
from lib.prepare.catalog import CATALOG, dataset_folder
from lib.prepare.choose_reader import MIN_FILES, choose_readers, readers_text, undecided
from lib.prepare.download import UnavailableError, download
from lib.prepare.find_videos import count_text, find_videos
from lib.prepare.import_reference import import_detections, import_made_with
from lib.prepare.jpeg_frames import jpeg_bytes, store_frames, stores_frames
from lib.prepare.own_folder import BROKEN_FILE, index_folder
from lib.prepare.parallel import num_cores
from lib.prepare.person_boxes import (
    YOLOX_NANO_SHA256,
    YOLOX_NANO_URL,
    detect_motion,
    detect_persons,
    motion_made_with,
    yolox_made_with,
)
from lib.prepare.public_datasets import REQUIRED, public_steps
from lib.prepare.published_splits import import_split, read_split_file
from lib.prepare.status import MISSING, OPTIONAL, THERE, TO_DO, Step, status_table
from lib.prepare.synthetic import SPLIT_SIZES, make_synthetic
from lib.prepare.teacher import (
    load_teacher,
    published_weights,
    score_frames,
    teacher_made_with,
)
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
    folder, steps = _folder(settings), list(list_steps(settings))
    if errors := [f"{step.part}: {step.details}" for step in steps if step.blocks]:
        raise ValueError("\n".join(errors))
    # The folder is created on demand; `store_frames` checks the room for its own frames.
    todo = {step.part: step.size for step in steps if step.state == TO_DO}
    if todo.keys() - {"folder"}:
        check_writable(folder, "prepared_dir", "set prepared_dir to a folder that you may write to")
        check_room(folder, sum(todo.values()) - todo.get("frames", 0), "prepared_dir")
    for step in steps:
        if step.run is not None:
            step.run(read_dataset(folder) if is_prepared(folder) else None)
    return read_dataset(folder)


def status_of(settings: PrepareSettings) -> pd.DataFrame:
    """Return `status_table` of a data set; errors as in `list_steps`, nothing is written."""
    return status_table(list(list_steps(settings)), free_bytes(_folder(settings)))


def open_dataset(name: str, videos_dir: str | None, prepared_dir: str) -> VideoDataset:
    """Open a data set; prepare it first, without any download, if it is not prepared."""
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
    yield Step("folder", THERE if folder.is_dir() else TO_DO, str(folder))
    if settings.person_boxes == "yolox":  # weights come first: downloads may fail
        yield _or_missing("detector", _weights_step, settings, "detector")
    if settings.teacher_scores == "compute":
        yield _or_missing("classifier", _weights_step, settings, "teacher")
    dataset = read_dataset(folder) if is_prepared(folder) else None
    if dataset is not None:
        yield from _prepared_videos(settings, dataset)
        sizes = dataset.index[["frames", "width", "height"]].to_numpy()
    else:
        list_videos = {"synthetic": _synthetic, "folder": _own_folder}
        steps, count = list_videos.get(settings.dataset, public_steps)(settings, folder)
        yield from steps
        sizes = np.tile(UNOPENED, (count, 1))
    if settings.storage == "frames":
        yield _jpeg_step(settings, dataset, sizes)
    else:
        yield _or_missing("reader", _reader_step, settings, dataset, len(sizes))
    yield from _split_steps(settings, folder)
    yield _or_missing("person boxes", _boxes_step, settings, folder, sizes[:, 0])
    yield _or_missing("ImageNet scores", _scores_step, settings, folder, sizes[:, 0])


def _folder(settings: PrepareSettings) -> Path:
    return dataset_folder(settings.dataset, settings.videos_dir, settings.prepared_dir)


def _or_missing(part: str, make_step: Callable[..., Step], *arguments: object) -> Step:
    """Return `make_step(part, *arguments)`; if that raises ValueError, a step that blocks."""
    try:
        return make_step(part, *arguments)
    except ValueError as error:
        return Step(part, MISSING, str(error), blocks=True)


def _required_file(setting: str, value: str) -> Path:
    """Return the file that a setting names; ValueError if it is not there."""
    path = project_path(value)
    if not path.is_file():
        raise ValueError(f"{setting}: {path}: no such file")
    return path


# --- Videos ---------------------------------------------------------------------------------------


def _synthetic(settings: PrepareSettings, folder: Path) -> tuple[list[Step], int]:
    def run(_: None) -> None:
        make_synthetic(folder, num_processes=settings.num_processes)

    count = sum(SPLIT_SIZES.values())
    return [Step("videos", TO_DO, f"{count} to render", run, SYNTHETIC_BYTES)], count


def _own_folder(settings: PrepareSettings, folder: Path) -> tuple[list[Step], int]:
    root = project_path(settings.videos_dir)
    videos, ignored = find_videos(root)
    groups = settings.groups_file and _required_file("groups_file", settings.groups_file)

    def run(_: None) -> None:
        share, seed = settings.val_fraction, settings.seed
        index_folder(root, folder, share, seed, settings.num_processes, groups)

    steps = [Step("videos", TO_DO, f"{count_text(videos)}, to open", run)]
    return steps + [Step("left out", OPTIONAL, text) for text in ignored], len(videos)


def _opened_videos(part: str, videos_dir: str | None, dataset: VideoDataset) -> Step:
    root = videos_dir and project_path(videos_dir)
    source = read_description(dataset.folder)["source"].get("root", root)
    if root and root != Path(source).resolve():
        raise ValueError(
            f"videos_dir: {dataset.folder} was made from {source}, not from {root}; omit "
            f"videos_dir, or delete {dataset.folder / 'dataset.json'} to prepare it again"
        )
    text = f"{len(dataset.index):,}"
    if num_unlabeled := int((dataset.index["label"] < 0).sum()):
        text += f", {num_unlabeled:,} of them unlabeled"
    return Step(part, THERE, f"{text}, root {dataset.root}")


def _prepared_videos(settings: PrepareSettings, dataset: VideoDataset) -> Iterator[Step]:
    """Yield the steps for the videos of a prepared data set."""
    yield _or_missing("videos", _opened_videos, settings.videos_dir, dataset)
    files = dataset.index[dataset.index["fingerprint"] != ""]
    if slow := int((files["seek"] == "").sum()):
        details = f"{slow:,} of {len(files):,} videos are decoded from their start: slower"
        yield Step("seeking", THERE, details)
    report, num_broken = dataset.folder / BROKEN_FILE, 0
    if report.is_file():
        num_broken = int((~pd.read_csv(report)["is_kept"]).sum())
    if num_broken:
        yield Step("unreadable videos", MISSING, f"{num_broken}, reasons in {report}")
    expected, num_videos = CATALOG[settings.dataset].num_videos, len(dataset.index) + num_broken
    if expected and (num_absent := expected - num_videos) > 0:
        details = f"{num_absent:,} of {expected:,}, named in splits/*.problems.csv; to add them, "
        yield Step("absent videos", MISSING, f"{details}delete {dataset.folder / 'dataset.json'}")
    if settings.dataset == "folder":
        yield from _own_changes(settings, dataset)


def _own_changes(settings: PrepareSettings, dataset: VideoDataset) -> Iterator[Step]:
    """Yield what is left out of a folder of own videos, and what differs from its preparation."""
    source = read_description(dataset.folder)["source"]
    groups = settings.groups_file and str(project_path(settings.groups_file))
    values = {"val_fraction": settings.val_fraction, "seed": settings.seed, "groups_file": groups}
    changes = [
        f"val was drawn with {name} {source[name]}, not {value}"
        for name, value in values.items()
        if name in source and source[name] != value
    ]
    if (root := project_path(settings.videos_dir)).is_dir():
        videos, ignored = find_videos(root)
        yield from (Step("left out", OPTIONAL, text) for text in ignored)
        changes += _changed_videos(dataset, videos)
    for change in changes:
        yield Step("changes", MISSING, f"{change}; delete {dataset.folder} to prepare it again")


def _changed_videos(dataset: VideoDataset, videos: pd.DataFrame) -> list[str]:
    broken = pd.read_csv(dataset.folder / BROKEN_FILE)
    is_broken = videos["path"].isin(broken["path"][~broken["is_kept"]])
    now = videos.set_index("name")["class"]
    before = dataset.index.set_index("name")["class"]
    both = now.index.intersection(before.index)
    changes = {
        "are new": now.index[~is_broken.to_numpy()].difference(before.index),
        "are gone": before.index.difference(now.index),
        "have another class": both[now[both] != before[both]],
    }
    return [
        f"{len(names)} videos {text}, the first: {names[0]}"
        for text, names in changes.items()
        if len(names)
    ]


def _jpeg_step(settings: PrepareSettings, dataset: VideoDataset | None, sizes: np.ndarray) -> Step:
    if dataset is not None and stores_frames(dataset):
        return Step("frames", THERE, str(dataset.root))
    side = settings.frames_short_side
    size = jpeg_bytes(sizes, side)
    details = f"{int(sizes[:, 0].sum()):,} to write, about {gigabytes(size)}"
    run = partial(store_frames, short_side=side, num_processes=settings.num_processes)
    return Step("frames", TO_DO, details, run, size)


def _reader_step(
    part: str, settings: PrepareSettings, dataset: VideoDataset | None, num_videos: int
) -> Step:
    if settings.reader == "decord" and find_spec("decord") is None:
        raise ValueError("reader: decord is not installed; install decord2, or set reader to av")
    run = partial(choose_readers, reader=settings.reader, num_processes=settings.num_processes)
    if dataset is not None:
        text, count = readers_text(dataset.index), len(undecided(dataset.index, settings.reader))
        return Step(part, TO_DO if count else THERE, text, run if count else None)
    is_few = settings.dataset == "synthetic" or num_videos < MIN_FILES
    if settings.reader == "av" or (settings.reader == "auto" and is_few):
        return Step(part, THERE, "PyAV")
    return Step(part, TO_DO, f"{settings.reader}: decord is tried", run)


# --- Splits ---------------------------------------------------------------------------------------


def labeled_splits(settings: PrepareSettings) -> dict[str, Callable[..., np.ndarray]]:
    """Return the functions that draw the labeled splits from labels and index rows, by name.

    Both kinds of draws with one seed are nested: a smaller split is a subset of a larger one.
    """
    splits, seed = {}, settings.seed
    for fraction in settings.labeled_fractions:
        draw = partial(draw_labeled_rows, fraction=fraction, seed=seed)
        splits[f"train_{100 * fraction:g}percent_seed{seed}"] = draw
    for count in settings.labeled_counts:
        draw = partial(draw_rows, count_for=partial(min, count), seed=seed)
        splits[f"train_{count}perclass_seed{seed}"] = draw
    return splits


def draw_splits(dataset: VideoDataset, settings: PrepareSettings) -> list[str]:
    """Draw the labeled splits that are not there yet; return the names of all of them."""
    labels, splits = dataset.index["label"].to_numpy(), labeled_splits(settings)
    for name, draw in splits.items():
        if not dataset.split_path(name).is_file():
            write_split(dataset, name, draw(labels, dataset.read_split("train")))
    return list(splits)


def _split_steps(settings: PrepareSettings, folder: Path) -> Iterator[Step]:
    def state_of(name: str) -> str:
        return THERE if (folder / "splits" / f"{name}.txt").is_file() else TO_DO

    def own_split(part: str, path: Path) -> Step:
        entries = read_split_file(path)
        run = partial(import_split, split_name=path.stem, entries=entries, source=str(path))
        return Step(part, state_of(path.stem), str(path), run)

    for path in map(project_path, settings.split_files):
        yield _or_missing("your split", own_split, path)
    names = [*REQUIRED, *labeled_splits(settings)]
    for state, run in ((THERE, None), (TO_DO, partial(draw_splits, settings=settings))):
        if selected := [name for name in names if state_of(name) == state]:
            yield Step("splits", state, ", ".join(selected), run)


# --- Person boxes and ImageNet scores -------------------------------------------------------------


def weights_file(settings: PrepareSettings, network: str, allowed: bool) -> Path:
    """Return the weights of the "detector" or the "teacher"; download them if allowed and needed.

    Raises:
        UnavailableError: If they are neither set nor there, and may not or cannot be downloaded.
        ValueError: If a file is damaged, or the one that is set is missing.
    """
    own = {"detector": settings.detector_weights, "teacher": settings.teacher_weights}[network]
    if own is not None:
        return _required_file(f"{network}_weights", own)
    folder = project_path(settings.prepared_dir) / "weights"
    if network == "teacher":
        return published_weights(settings.teacher_model, folder, allowed)
    path = folder / Path(YOLOX_NANO_URL).name
    return download(YOLOX_NANO_URL, path, YOLOX_NANO_SHA256, allowed)


def _weights_step(part: str, settings: PrepareSettings, network: str) -> Step:
    try:
        return Step(part, THERE, str(weights_file(settings, network, allowed=False)))
    except UnavailableError:
        if not settings.download:
            raise
        return Step(part, TO_DO, "to download", lambda _: weights_file(settings, network, True))


def _boxes_step(part: str, settings: PrepareSettings, folder: Path, frames: np.ndarray) -> Step:
    made_with, stride = read_made_with(folder / PERSON_BOXES_FILE), settings.detector_stride
    processes, expected = settings.num_processes, None
    if settings.person_boxes == "keep":
        if made_with is not None:
            return Step(part, THERE, _describe(made_with))
        if settings.dataset == "synthetic":
            return Step(part, TO_DO, "exact, written with the videos")
        return Step(part, OPTIONAL, "none yet; ActorCutMix needs them: set person_boxes")
    if settings.person_boxes == "yolox":
        with suppress(ValueError):  # the step of the detector has the reason
            weights = weights_file(settings, "detector", allowed=False)
            expected = yolox_made_with(weights, stride)
        cores = processes or num_cores()
        work = _work(frames, stride, SECONDS_PER_DETECTION / cores)
        details, run = f"yolox: {work} with YOLOX-Nano on {cores} cores", partial(_detect, settings)
    elif settings.person_boxes == "motion":
        expected, details = motion_made_with(stride), "motion"
        run = partial(detect_motion, stride=stride, num_processes=processes)
    else:
        path = _required_file("detections_file", settings.detections_file)
        expected, details = import_made_with(path), f"import {path}"
        run = partial(import_detections, path=path)
    if _is_made_with(made_with, expected):
        return Step(part, THERE, _describe(made_with))
    details = f"{details}; {_describe(made_with)}"
    return Step(part, TO_DO, details, run, BYTES_OF_BOXES * frames.sum())


def _is_made_with(made_with: dict | None, expected: dict | None) -> bool:
    """Return True if a table has the expected settings, ignoring a later rescaling of boxes."""
    stored = {key: value for key, value in (made_with or {}).items() if key != SCALED_TO}
    return expected is not None and expected == stored


def _detect(settings: PrepareSettings, dataset: VideoDataset) -> None:
    weights = weights_file(settings, "detector", allowed=False)
    detect_persons(dataset, weights, settings.detector_stride, settings.num_processes)


def _scores_step(part: str, settings: PrepareSettings, folder: Path, frames: np.ndarray) -> Step:
    made_with, expected = read_made_with(folder / TEACHER_FILE), None
    model, stride = settings.teacher_model, settings.teacher_stride
    if settings.teacher_scores == "keep":
        if made_with is not None:
            return Step(part, THERE, _describe(made_with))
        return Step(part, OPTIONAL, "none yet; distillation needs them: set teacher_scores")
    with suppress(ValueError):  # the step of the classifier has the reason
        weights = weights_file(settings, "teacher", allowed=False)
        expected = teacher_made_with(model, weights) | {"stride": stride}
    if _is_made_with(made_with, expected):
        return Step(part, THERE, _describe(made_with))
    size = _num_keys(frames, stride) * 2 * NUM_CLASSES
    work = _work(frames, stride, SECONDS_PER_SCORE / num_cores())
    details = f"compute: {work} with ResNet-18 without a GPU, about {gigabytes(size)}"
    details += f"; {_describe(made_with)}"
    return Step(part, TO_DO, details, partial(compute_scores, settings), size)


def compute_scores(settings: PrepareSettings, dataset: VideoDataset) -> None:
    """Compute the ImageNet scores of a data set."""
    weights = weights_file(settings, "teacher", allowed=False)
    teacher = load_teacher(settings.teacher_model, weights)
    score_frames(dataset, teacher, settings.teacher_stride, settings.num_processes)


def _num_keys(frames: np.ndarray, stride: int) -> int:
    return int((-(-frames // stride)).sum())


def _work(frames: np.ndarray, stride: int, seconds: float) -> str:
    """Return the number of every `stride`-th frames and the time at `seconds` for one."""
    count = _num_keys(frames, stride)
    return f"{count:,} frames, about {format_duration(count * seconds)}"


def _describe(made_with: dict | None) -> str:
    """Return the settings that made a part; checksums by their first digits."""
    if made_with is None:
        return "none yet"
    parts = [f"{key} {str(value)[:12]}" for key, value in made_with.items()]
    return "made with " + (", ".join(parts) or "the data set")
