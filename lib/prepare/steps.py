"""Steps of preparing a data set: `prepare` runs them, and the status prints them."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd

from lib.config import PrepareSettings, TrainSettings, project_path
from lib.data.dataset import (
    VideoDataset,
    check_room,
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
from lib.prepare.jpeg_frames import jpeg_bytes, store_frames, stores_frames
from lib.prepare.own_folder import BROKEN_FILE, index_folder
from lib.prepare.parallel import num_cores
from lib.prepare.person_boxes import (
    YOLOX_NANO_SHA256,
    YOLOX_NANO_URL,
    detect_motion,
    detect_persons,
    import_boxes,
    import_made_with,
    motion_made_with,
    yolox_made_with,
)
from lib.prepare.public_datasets import REQUIRED, public_steps
from lib.prepare.published_splits import import_split, read_split_file
from lib.prepare.status import MISSING, OPTIONAL, THERE, TO_DO, Step, status_table
from lib.prepare.synthetic import EMBEDDED, make_synthetic
from lib.prepare.teacher import (
    load_teacher,
    published_weights,
    score_frames,
    teacher_made_with,
)
from lib.prepare.zero_shot import check_zero_shot, soft_targets_path, write_soft_targets
from lib.runs.run_dir import format_duration

# Seconds of one core for a frame of a small video (320 × 240); large ones take longer.
SECONDS_PER_DETECTION = 0.03
SECONDS_PER_SCORE = 0.05
UNOPENED = (180, 320, 240)  # assumed frames, width and height of a video that was not opened yet
EMBEDDED_BYTES = 22e3  # per video
BYTES_OF_BOXES = 24.0  # per frame


def prepare(settings: PrepareSettings) -> VideoDataset:
    """Prepare a data set; parts that are there already are kept.

    ValueError before any work, if videos or files are missing, the videos are not laid out as
    expected, or the folder cannot be written or is too small; later, if a file is damaged.
    """
    preparation = Preparation(settings)
    folder, steps = preparation.folder, list(preparation.steps())
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
    """Return `status_table` of a data set; errors as in `Preparation`, nothing is written."""
    preparation = Preparation(settings)
    return status_table(list(preparation.steps()), free_bytes(preparation.folder))


def open_dataset(name: str, videos_dir: str | None, prepared_dir: str) -> VideoDataset:
    """Open a data set; prepare it first, without any download, if it is not prepared."""
    folder = dataset_folder(name, videos_dir, prepared_dir)
    if is_prepared(folder):
        return read_dataset(folder)
    return prepare(PrepareSettings(dataset=name, videos_dir=videos_dir, prepared_dir=prepared_dir))


def prepare_for(settings: TrainSettings) -> None:
    """Prepare the data sets of a run that are not prepared yet, as `open_dataset` does."""
    for source in dict.fromkeys((settings.labeled_source, settings.unlabeled_source)):
        open_dataset(*source)


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


class Preparation:
    """The steps of a data set; making them opens no video, downloads and writes nothing.

    ValueError if the settings name no data set, or its videos are not laid out as expected.
    """

    def __init__(self, settings: PrepareSettings):
        self.settings = settings
        self.folder = dataset_folder(settings.dataset, settings.videos_dir, settings.prepared_dir)
        self.dataset = read_dataset(self.folder) if is_prepared(self.folder) else None
        self.sizes = np.zeros((0, 3))  # frames, width and height of each video

    def steps(self) -> Iterator[Step]:
        """Yield the steps in their order."""
        settings, entry = self.settings, CATALOG[self.settings.dataset]
        if entry.num_classes is not None:
            number = "" if entry.num_videos is None else f", {entry.num_videos:,} videos"
            details = f"{entry.title}: {entry.num_classes} classes{number}"
            yield Step("data set", THERE, f"{details}; license: {entry.license}")
        yield Step("folder", THERE if self.folder.is_dir() else TO_DO, str(self.folder))
        if settings.person_boxes == "yolox":  # weights come first: downloads may fail
            yield _or_missing("detector", self._weights, "detector")
        if settings.teacher_scores == "compute":
            yield _or_missing("classifier", self._weights, "teacher")
        yield from self._videos()
        if settings.storage == "frames":
            yield self._frames()
        else:
            yield _or_missing("reader", self._reader)
        yield from self._splits()
        yield _or_missing("person boxes", self._boxes)
        yield _or_missing("ImageNet scores", self._scores)
        if self.settings.soft_targets is not None:
            yield _or_missing("soft targets", self._soft_targets)

    # --- Videos -----------------------------------------------------------------------------------

    def _videos(self) -> Iterator[Step]:
        if self.dataset is not None:
            self.sizes = self.dataset.index[["frames", "width", "height"]].to_numpy()
            yield from self._prepared_videos(self.dataset)
            return
        if self.settings.dataset in EMBEDDED:
            steps, count = self._embedded()
        elif self.settings.dataset == "folder":
            steps, count = self._own_folder()
        else:
            steps, count = public_steps(self.settings, self.folder)
        yield from steps
        self.sizes = np.tile(UNOPENED, (count, 1))

    def _embedded(self) -> tuple[list[Step], int]:
        name, num_processes = self.settings.dataset, self.settings.num_processes

        def run(_: None) -> None:
            make_synthetic(self.folder, num_processes=num_processes, name=name)

        count = sum(EMBEDDED[name].split_sizes.values())
        return [Step("videos", TO_DO, f"{count} to render", run, EMBEDDED_BYTES * count)], count

    def _own_folder(self) -> tuple[list[Step], int]:
        settings, root = self.settings, project_path(self.settings.videos_dir)
        videos, ignored = find_videos(root)
        groups = settings.groups_file and _required_file("groups_file", settings.groups_file)

        def run(_: None) -> None:
            share, seed = settings.val_fraction, settings.seed
            index_folder(root, self.folder, share, seed, settings.num_processes, groups)

        steps = [Step("videos", TO_DO, f"{count_text(videos)}, to open", run)]
        return steps + [Step("left out", OPTIONAL, text) for text in ignored], len(videos)

    def _prepared_videos(self, dataset: VideoDataset) -> Iterator[Step]:
        yield _or_missing("videos", self._opened_videos, dataset)
        files = dataset.index[dataset.index["fingerprint"] != ""]
        if slow := int((files["seek"] == "").sum()):
            details = f"{slow:,} of {len(files):,} videos are decoded from their start: slower"
            yield Step("seeking", THERE, details)
        report, num_broken = self.folder / BROKEN_FILE, 0
        if report.is_file():
            num_broken = int((~pd.read_csv(report)["is_kept"]).sum())
        if num_broken:
            yield Step("unreadable videos", MISSING, f"{num_broken}, reasons in {report}")
        expected = CATALOG[self.settings.dataset].num_videos
        if expected and (absent := expected - len(dataset.index) - num_broken) > 0:
            details = f"{absent:,} of {expected:,}, named in splits/*.problems.csv; to add them, "
            details += f"delete {self.folder / 'dataset.json'}"
            yield Step("absent videos", MISSING, details)
        if self.settings.dataset == "folder":
            yield from self._own_changes(dataset)

    def _opened_videos(self, part: str, dataset: VideoDataset) -> Step:
        root = self.settings.videos_dir and project_path(self.settings.videos_dir)
        source = read_description(self.folder)["source"].get("root", root)
        if root and root != Path(source).resolve():
            raise ValueError(
                f"videos_dir: {self.folder} was made from {source}, not from {root}; omit "
                f"videos_dir, or delete {self.folder / 'dataset.json'} to prepare it again"
            )
        text = f"{len(dataset.index):,}"
        if num_unlabeled := int((dataset.index["label"] < 0).sum()):
            text += f", {num_unlabeled:,} of them unlabeled"
        return Step(part, THERE, f"{text}, root {dataset.root}")

    def _own_changes(self, dataset: VideoDataset) -> Iterator[Step]:
        """Yield what is left out of a folder of own videos, and what differs from before."""
        settings, source = self.settings, read_description(self.folder)["source"]
        groups = settings.groups_file and str(project_path(settings.groups_file))
        values = {"val_fraction": settings.val_fraction, "seed": settings.seed}
        changes = [
            f"val was drawn with {name} {source[name]}, not {value}"
            for name, value in (values | {"groups_file": groups}).items()
            if name in source and source[name] != value
        ]
        if (root := project_path(settings.videos_dir)).is_dir():
            videos, ignored = find_videos(root)
            yield from (Step("left out", OPTIONAL, text) for text in ignored)
            changes += _changed_videos(dataset, videos)
        for change in changes:
            yield Step("changes", MISSING, f"{change}; delete {self.folder} to prepare it again")

    def _frames(self) -> Step:
        if self.dataset is not None and stores_frames(self.dataset):
            return Step("frames", THERE, str(self.dataset.root))
        side, processes = self.settings.frames_short_side, self.settings.num_processes
        size = jpeg_bytes(self.sizes, side)
        details = f"{int(self.sizes[:, 0].sum()):,} to write, about {gigabytes(size)}"
        run = partial(store_frames, short_side=side, num_processes=processes)
        return Step("frames", TO_DO, details, run, size)

    def _reader(self, part: str) -> Step:
        reader, num_processes = self.settings.reader, self.settings.num_processes
        if reader == "decord" and find_spec("decord") is None:
            raise ValueError(
                "reader: decord is not installed; install decord2, or set reader to av"
            )
        run = partial(choose_readers, reader=reader, num_processes=num_processes)
        if self.dataset is not None:
            text = readers_text(self.dataset.index)
            if len(undecided(self.dataset.index, reader)):
                return Step(part, TO_DO, text, run)
            return Step(part, THERE, text)
        is_few = self.settings.dataset in EMBEDDED or len(self.sizes) < MIN_FILES
        if reader == "av" or (reader == "auto" and is_few):
            return Step(part, THERE, "PyAV")
        return Step(part, TO_DO, f"{reader}: decord is tried", run)

    # --- Splits, person boxes and ImageNet scores -------------------------------------------------

    def _splits(self) -> Iterator[Step]:
        for path in map(project_path, self.settings.split_files):
            yield _or_missing("your split", self._own_split, path)
        names = [*REQUIRED, *labeled_splits(self.settings)]
        for state, run in ((THERE, None), (TO_DO, partial(draw_splits, settings=self.settings))):
            if selected := [name for name in names if self._split_state(name) == state]:
                yield Step("splits", state, ", ".join(selected), run)

    def _own_split(self, part: str, path: Path) -> Step:
        entries = read_split_file(path)
        run = partial(import_split, split_name=path.stem, entries=entries, source=str(path))
        return Step(part, self._split_state(path.stem), str(path), run)

    def _split_state(self, name: str) -> str:
        return THERE if (self.folder / "splits" / f"{name}.txt").is_file() else TO_DO

    def _weights(self, part: str, network: str) -> Step:
        try:
            return Step(part, THERE, str(self.weights_file(network, allowed=False)))
        except UnavailableError:
            if not self.settings.download:
                raise
            return Step(part, TO_DO, "to download", lambda _: self.weights_file(network, True))

    def _boxes(self, part: str) -> Step:
        made_with, settings = read_made_with(self.folder / PERSON_BOXES_FILE), self.settings
        stride, processes, expected = settings.detector_stride, settings.num_processes, None
        if settings.person_boxes == "keep":
            if made_with is not None:
                return Step(part, THERE, _describe(made_with))
            if settings.dataset in EMBEDDED:
                return Step(part, TO_DO, "exact, written with the videos")
            return Step(part, OPTIONAL, "none yet; ActorCutMix needs them: set person_boxes")
        if settings.person_boxes == "yolox":
            with suppress(ValueError):  # the step of the detector has the reason
                expected = yolox_made_with(self.weights_file("detector", False), stride)
            cores = processes or num_cores()
            work = _work(self.sizes[:, 0], stride, SECONDS_PER_DETECTION / cores)
            details = f"yolox: {work} with YOLOX-Nano on {cores} cores"
            run = self._detect
        elif settings.person_boxes == "motion":
            expected, details = motion_made_with(stride), "motion"
            run = partial(detect_motion, stride=stride, num_processes=processes)
        else:
            path = _required_file("boxes_file", settings.boxes_file)
            expected, details = import_made_with(path), f"import {path}"
            run = partial(import_boxes, path=path)
        size = BYTES_OF_BOXES * self.sizes[:, 0].sum()
        return _table_step(part, made_with, expected, Step(part, TO_DO, details, run, size))

    def _scores(self, part: str) -> Step:
        made_with, settings = read_made_with(self.folder / TEACHER_FILE), self.settings
        model, stride, expected = settings.teacher_model, settings.teacher_stride, None
        if settings.teacher_scores == "keep":
            if made_with is not None:
                return Step(part, THERE, _describe(made_with))
            return Step(part, OPTIONAL, "none yet; distillation needs them: set teacher_scores")
        with suppress(ValueError):  # the step of the classifier has the reason
            weights = self.weights_file("teacher", False)
            expected = teacher_made_with(model, weights) | {"stride": stride}
        size = _num_keys(self.sizes[:, 0], stride) * 2 * NUM_CLASSES
        work = _work(self.sizes[:, 0], stride, SECONDS_PER_SCORE / num_cores())
        details = f"compute: {work} with ResNet-18 without a GPU, about {gigabytes(size)}"
        todo = Step(part, TO_DO, details, self.compute_scores, size)
        return _table_step(part, made_with, expected, todo)

    def _soft_targets(self, part: str) -> Step:
        name, prompts = self.settings.soft_targets, self.settings.prompts_file
        path = soft_targets_path(self.folder, name)
        if path.is_file():
            return Step(part, THERE, f"{path}; delete it to compute it again")
        check_zero_shot(name)
        prompts = prompts and _required_file("prompts_file", prompts)
        run = partial(write_soft_targets, name=name, prompts_file=prompts)
        return Step(part, TO_DO, f"{len(self.sizes):,} videos, by {name}: {path}", run)

    def weights_file(self, network: str, allowed: bool) -> Path:
        """Return the weights of the "detector" or "teacher"; download them if allowed and needed.

        UnavailableError if they are neither set nor there, and may not, or cannot, be downloaded;
        ValueError if a file is damaged, or the one that is set is missing.
        """
        settings = self.settings
        own = {"detector": settings.detector_weights, "teacher": settings.teacher_weights}[network]
        if own is not None:
            return _required_file(f"{network}_weights", own)
        folder = project_path(settings.prepared_dir) / "weights"
        if network == "teacher":
            return published_weights(settings.teacher_model, folder, allowed)
        path = folder / Path(YOLOX_NANO_URL).name
        return download(YOLOX_NANO_URL, path, YOLOX_NANO_SHA256, allowed)

    def _detect(self, dataset: VideoDataset) -> None:
        weights = self.weights_file("detector", allowed=False)
        stride, processes = self.settings.detector_stride, self.settings.num_processes
        detect_persons(dataset, weights, stride, processes)

    def compute_scores(self, dataset: VideoDataset) -> None:
        """Compute the ImageNet scores of a data set."""
        settings = self.settings
        teacher = load_teacher(settings.teacher_model, self.weights_file("teacher", allowed=False))
        score_frames(dataset, teacher, settings.teacher_stride, settings.num_processes)


def _changed_videos(dataset: VideoDataset, videos: pd.DataFrame) -> list[str]:
    broken = pd.read_csv(dataset.folder / BROKEN_FILE)
    videos = videos[~videos["path"].isin(broken["path"][~broken["is_kept"]])]
    before, now = (set(zip(t["name"], t["class"], strict=True)) for t in (dataset.index, videos))
    names = sorted({name for name, _ in before ^ now})
    text = "videos are new, gone or of another class, the first"
    return [f"{len(names)} {text}: {names[0]}"] if names else []


def _table_step(part: str, made_with: dict | None, expected: dict | None, todo: Step) -> Step:
    """Return `todo` unless a table has the expected settings, but for a later scaling of boxes."""
    stored = {key: value for key, value in (made_with or {}).items() if key != SCALED_TO}
    if expected is not None and expected == stored:
        return Step(part, THERE, _describe(made_with))
    return replace(todo, details=f"{todo.details}; {_describe(made_with)}")


# --- Work -----------------------------------------------------------------------------------------


def labeled_splits(settings: PrepareSettings) -> dict[str, int]:
    """Return the number of videos of each class in the labeled splits, by name."""
    return {f"train_{n}perclass_seed{settings.seed}": n for n in settings.labeled_counts}


def draw_splits(dataset: VideoDataset, settings: PrepareSettings) -> list[str]:
    """Draw the labeled splits that are not there yet; return the names of all of them.

    Draws with one seed are nested: a smaller split is a subset of a larger one.
    """
    labels, splits = dataset.index["label"].to_numpy(), labeled_splits(settings)
    for name, count in splits.items():
        if not dataset.split_path(name).is_file():
            rows = dataset.read_split("train")
            write_split(dataset, name, draw_rows(labels, rows, partial(min, count), settings.seed))
    return list(splits)


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
