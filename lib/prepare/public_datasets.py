"""Index a public data set: its published splits, its videos, its class order."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from lib.config import PrepareSettings, project_path
from lib.data.dataset import VideoDataset, write_dataset
from lib.prepare.catalog import CATALOG, CatalogEntry, RemoteFile
from lib.prepare.download import UnavailableError, download, extract, extract_nested
from lib.prepare.find_videos import video_paths, without_suffix
from lib.prepare.own_folder import open_videos
from lib.prepare.published_splits import (
    SplitEntry,
    find_entries,
    has_youtube_ids,
    import_split,
    match_names,
    normalize_name,
    read_categories,
    read_split_file,
    stem_of,
    youtube_id,
)
from lib.prepare.status import MISSING, THERE, TO_DO, Step

REQUIRED = ("train", "val")
Splits = dict[str, list[SplitEntry]]


@dataclass(frozen=True)
class PublishedFiles:
    """Published files of a data set."""

    folder: Path  # the prepared folder; downloads go to its `published/`
    downloads_dir: Path | None = None  # archives and splits that the user has
    allowed: bool = False  # missing files may be downloaded

    def path(self, file: RemoteFile) -> Path:
        """Return the place of a file: in `downloads_dir` if it is there, else in `published/`."""
        own = self.downloads_dir and next(self.downloads_dir.rglob(file.filename), None)
        return own or self.folder / "published" / file.filename

    def get(self, file: RemoteFile) -> Path:
        """Return a file; errors as in `download`."""
        return download(file.url, self.path(file), file.checksum, self.allowed)


def index_public_dataset(
    name: str, root: Path | None, files: PublishedFiles, num_processes: int = 0
) -> VideoDataset:
    """Index the videos of a public data set that are in its splits.

    `name` is in the catalog; `root` holds its videos or folders of frames, in any layout, None for
    its archives. The `folder` of its published files becomes the prepared folder. ValueError if
    files are missing or damaged; names them and their addresses.
    """
    entry, folder = CATALOG[name], files.folder
    splits = read_splits(name, files)
    if root is None:
        root = folder / "videos"
        for file in entry.archives:
            (extract_nested if name == "hmdb51" else extract)(files.get(file), root)
    videos, num_unlisted = match_listed_videos(root, splits, has_youtube_ids(name))
    if videos.empty:
        raise ValueError(f"{root}: has no video of {entry.title}; see {entry.homepage}")
    print(f"{root}: {len(videos)} listed videos, {num_unlisted} others left out")
    index = open_videos(videos, root, folder, num_processes)
    classes = class_order(splits)
    index["label"] = index["class"].map(classes.index)
    dataset = VideoDataset(name, folder, tuple(classes), root, index)
    for split_name, entries in splits.items():
        rows = find_entries(dataset, [e.name for e in entries])
        if (rows < 0).all() and split_name not in REQUIRED:
            print(f"{split_name}: none of its {len(entries)} videos is there, left out")
        else:
            import_split(dataset, split_name, entries, split_name)
    source = {"made_by": "lib.prepare.public_datasets", "root": str(root), "license": entry.license}
    return write_dataset(folder, name, classes, root, index, source)


def read_splits(name: str, files: PublishedFiles) -> Splits:
    """Read the published splits that are available, entries `class/stem`.

    ValueError if `train` or `val` is not available, or a file is damaged.
    """
    entry, splits = CATALOG[name], {}
    for split_name, file, _ in entry.splits:
        try:
            splits[split_name] = read_split_file(files.get(file))
        except UnavailableError as error:
            if split_name in REQUIRED:
                raise
            print(f"split {split_name}: left out: {error}")
    if entry.categories is None:
        return splits
    classes = read_categories(files.get(entry.categories))
    return {
        name: [e._replace(name=f"{classes[e.label]}/{e.name}") for e in entries]
        for name, entries in splits.items()
    }


def class_order(splits: Mapping[str, Sequence[SplitEntry]]) -> list[str]:
    """Return the class names in label order: by majority of the entries, else alphabetically.

    ValueError if two classes have one label.
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


def match_listed_videos(
    root: Path, splits: Mapping[str, Sequence[SplitEntry]], is_kinetics: bool
) -> tuple[pd.DataFrame, int]:
    """Find the videos of splits anywhere below a folder.

    A video matches by its class folder, in any spelling, and its name; or by its name alone; in
    Kinetics, by its YouTube id. Returns columns class, name (`class/stem`, as listed) and path; the
    number of unlisted videos. ValueError if a listed video is there twice.
    """
    listed = list(dict.fromkeys(e.name for entries in splits.values() for e in entries))
    keys = [(normalize_name, normalize_name), (stem_of, stem_of)]
    keys += [(youtube_id, youtube_id)] if is_kinetics else []
    found = video_paths(root)
    names = ["/".join(without_suffix(path).split("/")[-2:]) for path in found]
    rows = match_names(names, listed, keys)
    paths = pd.Series(found, dtype=str).set_axis(rows)[rows >= 0].sort_index(kind="stable")
    if paths.index.has_duplicates:
        first, second = paths[paths.index.duplicated(keep=False)].iloc[:2]
        raise ValueError(f"{root}: a video is there twice, as {first} and {second}; remove one")
    names = pd.Series([listed[row] for row in paths.index], dtype=str)
    table = pd.DataFrame({"class": names.str.rsplit("/", n=1).str[0], "name": names})
    return table.assign(path=paths.to_numpy()), len(found) - len(paths)


def public_steps(settings: PrepareSettings, folder: Path) -> tuple[list[Step], int]:
    """Return the steps for the videos of a public data set, and the number of its videos."""
    entry = CATALOG[settings.dataset]
    own = settings.downloads_dir and project_path(settings.downloads_dir)
    files = PublishedFiles(folder, own, settings.download)
    steps = list(_split_steps(entry, files))
    root = settings.videos_dir and project_path(settings.videos_dir)
    count, place, problem = entry.num_videos or 0, "", ""
    if root is None and entry.archives:
        steps += _archive_steps(entry, files)
    elif root is None:
        problem = f"{entry.title} needs the folder of its videos, from {entry.homepage}"
    elif root.is_dir():
        count, place = len(video_paths(root)), f" below {root}"
    else:
        problem = f"{root} is not a folder"
    if problem:
        return [*steps, Step("videos", MISSING, f"videos_dir: {problem}", blocks=True)], count

    def run(_: None) -> None:
        index_public_dataset(settings.dataset, root, files, settings.num_processes)

    return [*steps, Step("videos", TO_DO, f"{count:,}{place} to open", run)], count


def _archive_steps(entry: CatalogEntry, files: PublishedFiles) -> Iterator[Step]:
    for file in entry.archives:
        yield _file_step("archive", file, files, True)
    folder = files.folder / "videos"
    extracted = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    details = f"about {entry.videos_gb:g} GB below {folder}"
    yield Step("extracting", TO_DO, details, size=max(0.0, entry.videos_gb * 1e9 - extracted))


def _split_steps(entry: CatalogEntry, files: PublishedFiles) -> Iterator[Step]:
    for split in entry.splits:
        yield _file_step(f"split {split.name}", split.file, files, split.name in REQUIRED)
    if entry.categories is not None:
        yield _file_step("class names", entry.categories, files, True)


def _file_step(part: str, file: RemoteFile, files: PublishedFiles, is_required: bool) -> Step:
    """Return the step of a published file, which the step `videos` downloads."""
    if (path := files.path(file)).is_file():
        return Step(part, THERE, str(path))
    details = file.url + (f", about {file.size_gb:g} GB" if file.size_gb else "")
    details += ", checksum known" if file.checksum else ", no checksum is published"
    if file.url.startswith("http:"):
        details += ", MD5 over plain http: does not protect against deliberate changes"
    if files.allowed:
        return Step(part, TO_DO, f"download {details}", size=file.size_gb * 1e9)
    details += "; set download to true, or put it into downloads_dir"
    return Step(part, MISSING, details, blocks=is_required)
