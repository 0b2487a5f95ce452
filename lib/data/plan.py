"""What is there, what is missing and what will be made, told before any work starts."""

import shutil
import textwrap
from pathlib import Path

import pandas as pd

from lib.config import PrepareSettings, project_path
from lib.data.actors import read_made_with
from lib.data.annotations import read_dataset
from lib.data.archives import find_file
from lib.data.catalog import CATALOG, CatalogEntry, RemoteFile, dataset_folder
from lib.data.folder import BROKEN_FILE, find_videos
from lib.data.known import REQUIRED, SPLIT_MARKERS, walk_videos
from lib.data.lists import counted_list_name, labeled_list_name
from lib.data.synthetic import PARTS
from lib.data.teacher import NUM_CLASSES, read_teacher_made_with
from lib.data.workers import num_cores

# Seconds of one core, measured on small videos (320 × 240); large ones take longer.
SECONDS_PER_VIDEO = 0.01
SECONDS_PER_DETECTION = 0.03
SYNTHETIC_SECONDS = 60
FRAMES_PER_VIDEO = 180  # where nothing has been opened yet

THERE, TO_DO, MISSING = "there", "to do", "missing"
Row = tuple[str, str, str]


def make_plan(settings: PrepareSettings) -> pd.DataFrame:
    """Say what preparing would do; nothing is opened, downloaded or written.

    Returns:
        Columns part, state ("there", "to do" or "missing") and details.

    Raises:
        ValueError: If the settings name no data set, or its videos are not laid out as expected.
    """
    folder = dataset_folder(settings.dataset, settings.data_root, settings.data_dir)
    rows = _plan_entry(CATALOG[settings.dataset])
    rows += [("folder", THERE if folder.is_dir() else TO_DO, f"{folder}; {_free_space(folder)}")]
    if (folder / "dataset.json").is_file():
        rows += _plan_made(settings, folder)
    elif settings.dataset == "synthetic":
        details = f"{sum(PARTS.values())} to render, about {SYNTHETIC_SECONDS} s"
        rows += [("videos", TO_DO, details)]
    elif settings.dataset == "folder":
        videos = find_videos(project_path(settings.data_root))
        rows += [_to_open(settings, len(videos), f" in {videos['class'].nunique()} classes")]
    else:
        rows += _plan_known(settings, CATALOG[settings.dataset], folder)
    rows += _plan_lists(settings, folder)
    rows += [_plan_actors(settings, folder), _plan_teacher(settings, folder)]
    return pd.DataFrame(rows, columns=["part", "state", "details"])


def plan_text(settings: PrepareSettings) -> str:
    """Return the plan as text for a terminal; arguments and errors as in `make_plan`."""
    lines = []
    for part, state, details in make_plan(settings).itertuples(index=False):
        lines += textwrap.wrap(
            f"{part:<24} {state:<8} {details}",
            100,
            subsequent_indent=" " * 6,
            break_long_words=False,
            break_on_hyphens=False,
        )
    return "\n".join(lines)


def _plan_entry(entry: CatalogEntry) -> list[Row]:
    if entry.num_videos is None and entry.num_classes is None:
        return []
    number = "" if entry.num_videos is None else f", {entry.num_videos:,} videos"
    rows = [("data set", THERE, f"{entry.title}: {entry.num_classes} classes{number}")]
    rows.append(("licence", THERE, entry.licence))
    return rows + ([("note", THERE, entry.warning)] if entry.warning else [])


def _free_space(folder: Path) -> str:
    while not folder.exists():
        folder = folder.parent
    return f"{shutil.disk_usage(folder).free / 1e9:.1f} GB free"


def _to_open(settings: PrepareSettings, count: int, where: str) -> Row:
    seconds = SECONDS_PER_VIDEO * count / (settings.num_processes or num_cores())
    return "videos", TO_DO, f"{count:,}{where} to open, about {_duration(max(2, seconds))}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _plan_known(settings: PrepareSettings, entry: CatalogEntry, folder: Path) -> list[Row]:
    sources = None if settings.sources_dir is None else project_path(settings.sources_dir)
    rows = []
    for published in entry.lists:
        title = f"list {published.name}"
        rows.append(_plan_file(title, published.file, sources, folder, settings.download))
    unpacked = find_file(sources, SPLIT_MARKERS.get(settings.dataset, ""))
    if unpacked is not None:
        rows.append(("official splits", THERE, str(unpacked.parent)))
    elif entry.splits is not None:
        rows.append(_plan_file("official splits", entry.splits, sources, folder, settings.download))
    if entry.categories is not None:
        rows.append(_plan_file("class names", entry.categories, sources, folder, settings.download))
    if settings.data_root is not None:
        root = project_path(settings.data_root)
        if not root.is_dir():
            return [*rows, ("videos", MISSING, f"data_root: {root} is not a folder")]
        return [*rows, _to_open(settings, sum(1 for _ in walk_videos(root)), f" below {root}")]
    if not entry.archives:
        return [*rows, ("videos", MISSING, f"set data_root: {entry.how_to_get}")]
    rows += [_plan_file("videos", f, sources, folder, settings.download) for f in entry.archives]
    details = f"about {entry.videos_gb:g} GB below {folder / 'videos'}"
    rows.append(("unpacking", TO_DO, details))
    return [*rows, _to_open(settings, entry.num_videos or 0, "")]


def _plan_file(
    title: str, file: RemoteFile, sources: Path | None, folder: Path, allowed: bool
) -> Row:
    found = find_file(sources, file.filename)
    earlier = folder / "published" / file.filename
    if found or earlier.is_file():
        return title, THERE, str(found or earlier)
    size = f", about {file.size_gb:g} GB" if file.size_gb else ""
    check = ", SHA-256 known" if file.sha256 else ", no checksum is published"
    if allowed:
        return title, TO_DO, f"download {file.url}{size}{check}"
    return title, MISSING, f"{file.url}{size}{check}; set download, or put it into sources_dir"


def _plan_made(settings: PrepareSettings, folder: Path) -> list[Row]:
    dataset = read_dataset(folder)
    report = folder / BROKEN_FILE
    broken = int((~pd.read_csv(report)["is_kept"]).sum()) if report.is_file() else 0
    rows = [("videos", THERE, f"{len(dataset.index):,} opened, root {dataset.root}")]
    if broken:
        rows.append(("unreadable videos", MISSING, f"{broken}, reasons in {report}"))
    root = project_path(settings.data_root) if settings.dataset == "folder" else None
    if root is not None and root.is_dir():
        now, then = len(find_videos(root)), len(dataset.index) + broken
        if now != then:
            details = (
                f"{root} has {now} videos, it had {then} when it was opened; delete "
                f"{folder / 'dataset.json'} to open it again"
            )
            rows.append(("changes", MISSING, details))
    return rows


def _plan_lists(settings: PrepareSettings, folder: Path) -> list[Row]:
    names = list(REQUIRED)
    names += [labeled_list_name(f, settings.seed) for f in settings.labeled_fractions]
    names += [counted_list_name(n, settings.seed) for n in settings.labeled_counts]
    there = [name for name in names if (folder / "lists" / f"{name}.txt").is_file()]
    todo = [name for name in names if name not in there]
    rows = [("lists", THERE, ", ".join(there))] if there else []
    return rows + ([("lists", TO_DO, ", ".join(todo))] if todo else [])


def _num_frames(settings: PrepareSettings, folder: Path, stride: int) -> int:
    """Return how many frames are looked at, estimated where nothing has been opened."""
    if (folder / "dataset.json").is_file():
        frames = read_dataset(folder).index["frames"].to_numpy()
        return int((-(-frames // stride)).sum())
    return (CATALOG[settings.dataset].num_videos or 0) * FRAMES_PER_VIDEO // stride


def _told(made_with: dict) -> str:
    """Say what made something; checksums by their first digits."""
    parts = [f"{key} {str(value)[:12]}" for key, value in made_with.items()]
    return "made with " + (", ".join(parts) or "the data set")


def _plan_actors(settings: PrepareSettings, folder: Path) -> Row:
    made_with = read_made_with(folder)
    there = "none yet" if made_with is None else _told(made_with)
    if settings.actor_boxes == "keep":
        state = MISSING if made_with is None else THERE
        hint = "; ActorCutMix needs them: set actor_boxes" if made_with is None else ""
        return "person boxes", state, there + hint
    if settings.actor_boxes == "yolox":
        count = _num_frames(settings, folder, settings.actor_stride)
        seconds = count * SECONDS_PER_DETECTION / (settings.num_processes or num_cores())
        there += f"; {count:,} frames, about {_duration(seconds)} with YOLOX-Nano on these cores"
    method = f"{settings.actor_boxes} (those of the same settings stay)"
    return "person boxes", TO_DO, f"{method}; {there}"


def _plan_teacher(settings: PrepareSettings, folder: Path) -> Row:
    made_with = read_teacher_made_with(folder)
    there = "none" if made_with is None else _told(made_with)
    if settings.teacher_scores == "keep":
        hint = "; only distillation needs them" if made_with is None else ""
        return "ImageNet scores", THERE, there + hint
    if settings.teacher_scores == "compute":
        size = _num_frames(settings, folder, settings.teacher_stride) * 2 * NUM_CLASSES
        there += f"; about {size / 1e9:.2f} GB to write"
    return "ImageNet scores", TO_DO, f"{settings.teacher_scores}; {there}"
