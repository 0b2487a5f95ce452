"""Index a public data set: its published splits, its videos, its class order."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from lib.config import PrepareSettings, project_path
from lib.data.dataset import VideoDataset, write_dataset
from lib.prepare.catalog import CATALOG, CatalogEntry, PublishedSplit, RemoteFile, dataset_folder
from lib.prepare.download import UnavailableError, download, extract, extract_nested, matches
from lib.prepare.match_names import (
    find_entries,
    has_youtube_ids,
    import_split,
    match_names,
    normalize_name,
    stem_of,
    youtube_id,
)
from lib.prepare.own_folder import open_videos, walk_videos
from lib.prepare.split_formats import (
    SplitEntry,
    read_categories,
    read_hmdb_split,
    read_split_file,
    read_ucf_split,
)
from lib.prepare.status import MISSING, THERE, TO_DO, Step

REQUIRED = ("train", "val")
OFFICIAL_SPLITS = (1, 2, 3)
SPLIT_MARKERS = {"ucf101": "trainlist01.txt", "hmdb51": "wave_test_split1.txt"}
SPLIT_READERS = {"ucf101": read_ucf_split, "hmdb51": read_hmdb_split}
Splits = dict[str, list[SplitEntry]]


@dataclass(frozen=True)
class PublishedFiles:
    """Published files of a data set.

    Attributes:
        folder: The prepared folder; downloads go to its `published/`.
        downloads_dir: Folder of archives and splits that the user has, or None.
        allowed: Whether missing files may be downloaded.
    """

    folder: Path
    downloads_dir: Path | None = None
    allowed: bool = False

    def find(self, file: RemoteFile) -> Path | None:
        """Return a file in `downloads_dir` or from an earlier download; None if there is none."""
        earlier = self.folder / "published" / file.filename
        return self._own(file.filename) or (earlier if earlier.is_file() else None)

    def get(self, file: RemoteFile) -> Path:
        """Return a file with the right checksum; download it if needed and allowed.

        Raises:
            UnavailableError: If it is not there and may not or cannot be downloaded.
            ValueError: If it has another checksum.
        """
        own = self._own(file.filename)
        if own is None:
            path = self.folder / "published" / file.filename
            return download(file.url, path, file.checksum, self.allowed)
        if not matches(own, file.checksum):
            raise ValueError(
                f"{own}: not the file at {file.url} (its checksum is not {file.checksum}); remove "
                "or replace it"
            )
        return own

    def find_official_splits(self, name: str) -> Path | None:
        """Return the folder of the extracted official splits in `downloads_dir`, or None."""
        marker = self._own(SPLIT_MARKERS[name]) if name in SPLIT_MARKERS else None
        return marker and marker.parent

    def _own(self, filename: str) -> Path | None:
        return self.downloads_dir and next(self.downloads_dir.rglob(filename), None)


def published_files(settings: PrepareSettings) -> PublishedFiles:
    """Return the published files of the data set of some settings."""
    folder = dataset_folder(settings.dataset, settings.videos_dir, settings.prepared_dir)
    own = None if settings.downloads_dir is None else project_path(settings.downloads_dir)
    return PublishedFiles(folder, own, settings.download)


def index_public_dataset(
    name: str, root: Path | None, files: PublishedFiles, num_processes: int = 0
) -> VideoDataset:
    """Index a data set of the catalog; only videos of its splits are used.

    Args:
        name: Its name.
        root: Its videos or folders of frames, in any of the usual layouts; None for its archives.
        files: Its published files; their `folder` becomes the prepared folder.
        num_processes: Worker processes; 0 for one per core.

    Raises:
        ValueError: If files are missing or damaged; names them and their addresses.
    """
    entry, folder = CATALOG[name], files.folder
    splits = read_splits(name, files)
    root = root or extract_videos(name, files)
    videos, num_unlisted = match_listed_videos(root, splits, has_youtube_ids(name))
    num_listed = len({e.name for entries in splits.values() for e in entries})
    print(f"{root}: {len(videos)} of {num_listed} listed videos, {num_unlisted} others left out")
    if videos.empty:
        raise ValueError(
            f"{root}: has none of the {num_listed} videos of {entry.title}'s splits; get them from "
            f"{entry.homepage}"
        )
    index = open_videos(videos, root, folder, num_processes)
    classes = class_order(splits)
    if len(classes) != entry.num_classes:
        raise ValueError(
            f"{folder}: its splits have {len(classes)} classes, expected {entry.num_classes}"
        )
    index["label"] = index["class"].map(classes.index)
    dataset = VideoDataset(name, folder, tuple(classes), root, index)
    for split_name, entries in splits.items():
        rows = find_entries(dataset, [e.name for e in entries])
        if (rows < 0).all() and split_name not in REQUIRED:
            print(f"{split_name}: none of its {len(entries)} videos is there, left out")
        else:
            print(import_split(dataset, split_name, entries, split_name).summary())
    source = {"made_by": "lib.prepare.public_datasets", "root": str(root), "license": entry.license}
    return write_dataset(folder, name, classes, root, index, source)


def read_splits(name: str, files: PublishedFiles) -> Splits:
    """Read the published and the official splits that are available, entries `class/stem`.

    Raises:
        ValueError: If `train` or `val` is not available, or a file is damaged.
    """
    entry = CATALOG[name]
    splits: Splits = {}
    unavailable: dict[str, UnavailableError] = {}
    for published in entry.splits:
        try:
            splits[published.name] = _read_published(published, entry.categories, files)
        except UnavailableError as error:
            unavailable[published.name] = error
    if entry.official_splits is not None:
        try:
            splits = _read_official_splits(name, files) | splits
        except UnavailableError as error:
            unavailable["official splits"] = error
    for split_name in unavailable.keys() - splits.keys():
        print(f"split {split_name} is left out: {unavailable[split_name]}")
    if missing := [part for part in REQUIRED if part not in splits]:
        reasons = "\n  ".join(str(unavailable[part]) for part in missing)
        raise ValueError(f"{entry.title}: its splits {missing} are not available:\n  {reasons}")
    return splits


def _read_published(
    published: PublishedSplit, categories: RemoteFile | None, files: PublishedFiles
) -> list[SplitEntry]:
    path = files.get(published.file)
    entries = read_split_file(path)
    if published.num_videos not in (None, len(entries)):
        raise ValueError(f"{path}: {len(entries)} videos, expected {published.num_videos}")
    if categories is None:
        return entries
    classes = read_categories(files.get(categories))
    return [entry._replace(name=f"{classes[entry.label]}/{entry.name}") for entry in entries]


def _read_official_splits(name: str, files: PublishedFiles) -> Splits:
    """Read the official splits of UCF-101 or HMDB-51; `train` and `val` are those of split 1."""
    folder = files.find_official_splits(name)
    if folder is None:
        folder = files.folder / "published" / "splits"
        extract(files.get(CATALOG[name].official_splits), folder)
    parts = {number: SPLIT_READERS[name](folder, number) for number in OFFICIAL_SPLITS}
    # The paper also trains on the clips that HMDB-51's split leaves out.
    splits = {"train": parts[1]["train"] + parts[1].get("unused", []), "val": parts[1]["test"]}
    for number in OFFICIAL_SPLITS:
        for part in ("train", "test"):
            splits[f"split{number}_{part}"] = parts[number][part]
    return splits


def class_order(splits: Mapping[str, Sequence[SplitEntry]]) -> list[str]:
    """Return the class names in label order: by majority of the entries, else alphabetically.

    Raises:
        ValueError: If two classes have one label.
    """
    votes: dict[str, Counter] = defaultdict(Counter)
    for entry in (entry for entries in splits.values() for entry in entries):
        labels = [] if entry.label is None else [entry.label]
        votes[entry.name.rpartition("/")[0]].update(labels)
    if not any(votes.values()):
        return sorted(votes)
    majority = {name: count.most_common(1)[0][0] for name, count in votes.items() if count}
    if sorted(majority.values()) != list(range(len(votes))):
        raise ValueError(f"the splits do not give each of {len(votes)} classes its own label")
    return sorted(majority, key=majority.__getitem__)


def extract_videos(name: str, files: PublishedFiles) -> Path:
    """Extract the archives of a data set into `videos/` and return that folder.

    Raises:
        ValueError: If it has no free archives, or they cannot be extracted.
    """
    entry = CATALOG[name]
    root = files.folder / "videos"
    if not entry.archives:
        raise ValueError(
            f"videos_dir: {entry.title} needs the folder of its videos; get them from "
            f"{entry.homepage}"
        )
    for file in entry.archives:
        (extract_nested if name == "hmdb51" else extract)(files.get(file), root)
    return root


def match_listed_videos(
    root: Path, splits: Mapping[str, Sequence[SplitEntry]], is_kinetics: bool
) -> tuple[pd.DataFrame, int]:
    """Find the videos of splits anywhere below a folder.

    A video matches by its class folder, in any spelling, and its name; or by its name alone; in
    Kinetics, by its YouTube id.

    Returns:
        Columns class, name (`class/stem`, as listed) and path; the number of unlisted videos.

    Raises:
        ValueError: If a listed video is there twice.
    """
    listed = list(dict.fromkeys(e.name for entries in splits.values() for e in entries))
    videos = list(walk_videos(root))
    keys = [(normalize_name, normalize_name), (stem_of, stem_of)]
    keys += [(youtube_id, youtube_id)] if is_kinetics else []
    paths: dict[int, str] = {}  # by position in `listed`
    rows = match_names([name for name, _ in videos], listed, keys).tolist()
    for row, (_, path) in zip(rows, videos, strict=True):
        if row in paths:
            raise ValueError(
                f"{root}: {listed[row]} is there twice, as {paths[row]} and {path}; remove one"
            )
        if row >= 0:
            paths[row] = path
    table = [(listed[row].rpartition("/")[0], listed[row], paths[row]) for row in sorted(paths)]
    return pd.DataFrame(table, columns=["class", "name", "path"]), len(videos) - len(paths)


# --- Steps ----------------------------------------------------------------------------------------


def public_steps(settings: PrepareSettings, _: Path) -> tuple[list[Step], int]:
    """Return the steps for the videos of a public data set, and the number of its videos."""
    entry, files = CATALOG[settings.dataset], published_files(settings)
    steps = list(_split_steps(settings, files))
    root = None if settings.videos_dir is None else project_path(settings.videos_dir)
    count = entry.num_videos or 0
    details, error = f"{count:,} to open", ""
    if root is not None and root.is_dir():
        count = sum(1 for _ in walk_videos(root))
        details = f"{count:,} below {root} to open"
    elif root is not None:
        error = f"videos_dir: {root} is not a folder"
    elif entry.archives:
        steps += _archive_steps(entry, files)
    else:
        error = f"videos_dir: {entry.title} needs the folder of its videos; get them from "
        error += entry.homepage
    if error:
        return [*steps, Step("videos", MISSING, error, blocks=True)], count

    def run(_: None) -> None:
        index_public_dataset(settings.dataset, root, files, settings.num_processes)

    return [*steps, Step("videos", TO_DO, details, run)], count


def _archive_steps(entry: CatalogEntry, files: PublishedFiles) -> list[Step]:
    steps = [_file_step("archive", file, files, True) for file in entry.archives]
    videos = files.folder / "videos"
    extracted = sum(path.stat().st_size for path in videos.rglob("*") if path.is_file())
    size = max(0.0, entry.videos_gb * 1e9 - extracted)
    details = f"about {entry.videos_gb:g} GB below {videos}"
    return [*steps, Step("extracting", TO_DO, details, size=size)]


def _split_steps(settings: PrepareSettings, files: PublishedFiles) -> Iterator[Step]:
    entry, has_official = CATALOG[settings.dataset], False
    if entry.official_splits is not None:
        path = files.find_official_splits(settings.dataset)
        step = _file_step("official splits", entry.official_splits, files, False)
        yield (step := step if path is None else Step(step.part, THERE, str(path)))
        has_official = step.state != MISSING
    for split in entry.splits:
        is_required = split.name in REQUIRED and not has_official
        yield _file_step(f"split {split.name}", split.file, files, is_required)
    if entry.categories is not None:
        yield _file_step("class names", entry.categories, files, True)


def _file_step(part: str, file: RemoteFile, files: PublishedFiles, is_required: bool) -> Step:
    """Return the step of a published file, which the step `videos` downloads."""
    if (path := files.find(file)) is not None:
        return Step(part, THERE, str(path))
    details = file.url + (f", about {file.size_gb:g} GB" if file.size_gb else "")
    details += ", checksum known" if file.checksum else ", no checksum is published"
    if file.url.startswith("http:"):
        details += ", MD5 over plain http: does not protect against deliberate changes"
    if files.allowed:
        return Step(part, TO_DO, f"download {details}", size=file.size_gb * 1e9)
    details += "; set download to true, or put it into downloads_dir"
    return Step(part, MISSING, details, blocks=is_required)
