"""Making a data set of the catalog ready: its published lists, its videos, its index."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from lib.config import PrepareSettings, project_path
from lib.data.dataset import VideoDataset, write_dataset
from lib.prepare.archives import extract, extract_nested, find_file
from lib.prepare.catalog import CATALOG, CatalogEntry, PublishedSplit, RemoteFile, dataset_folder
from lib.prepare.download import download, matches
from lib.prepare.match_names import (
    find_entries,
    find_names,
    has_youtube_ids,
    import_split,
    loose_name,
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

SPLITS = (1, 2, 3)
SPLIT_MARKERS = {"ucf101": "trainlist01.txt", "hmdb51": "wave_test_split1.txt"}
REQUIRED = ("train", "val")
READERS = {"ucf101": read_ucf_split, "hmdb51": read_hmdb_split}  # of the official splits


@dataclass(frozen=True)
class PublishedFiles:
    """The published files of a data set.

    Attributes:
        folder: The prepared folder; what is downloaded goes into its `published/`.
        sources: Folder of archives and lists that are there already, or None.
        allowed: Whether missing files may be downloaded.
    """

    folder: Path
    sources: Path | None = None
    allowed: bool = False

    def find(self, file: RemoteFile) -> Path | None:
        """Return a file that is there, in `sources` or from an earlier download."""
        earlier = self._place(file)
        return find_file(self.sources, file.filename) or (earlier if earlier.is_file() else None)

    def get(self, file: RemoteFile) -> Path:
        """Return a file that is there, or is downloaded now.

        Raises:
            ValueError: If it is not there and may not be downloaded, or has another checksum.
        """
        found = find_file(self.sources, file.filename)
        if found is None:
            return download(file.url, self._place(file), file.checksum, self.allowed)
        if file.checksum is not None and not matches(found, file.checksum):
            raise ValueError(
                f"{found}: not the file that is at {file.url} (its checksum is not "
                f"{file.checksum}); take it away or replace it"
            )
        return found

    def find_splits(self, name: str) -> Path | None:
        """Return the folder of the official splits of a data set, unpacked in `sources`."""
        marker = find_file(self.sources, SPLIT_MARKERS.get(name, ""))
        return marker and marker.parent

    def _place(self, file: RemoteFile) -> Path:
        return self.folder / "published" / file.filename


def published_files(settings: PrepareSettings) -> PublishedFiles:
    """Return where the published files of the data set of some settings are."""
    folder = dataset_folder(settings.dataset, settings.videos_dir, settings.prepared_dir)
    sources = None if settings.downloads_dir is None else project_path(settings.downloads_dir)
    return PublishedFiles(folder, sources, settings.download)


def index_known(
    name: str, root: Path | None, files: PublishedFiles, num_processes: int = 0
) -> VideoDataset:
    """Index a data set of the catalog; only videos that its lists name are taken.

    Args:
        name: Its name.
        root: Its videos or frames, in any of the usual layouts; None to unpack its archives.
        files: Its published files; tells the prepared folder to make.
        num_processes: Worker processes; 0 for one per core.

    Raises:
        ValueError: If files are missing or damaged; says which, where they are from and what to do.
    """
    entry, folder = CATALOG[name], files.folder
    if entry.warning:
        print(f"{entry.title}: {entry.warning}")
    lists, absent = read_splits(name, files)
    for split_name, reason in absent.items():
        print(f"list {split_name} is left out: {reason}")
    root = root or unpack_videos(name, files)
    videos = _listed_videos(root, lists, entry, has_youtube_ids(name))
    index = open_videos(videos, root, folder, num_processes)
    classes = class_order(lists)
    if len(classes) != entry.num_classes:
        raise ValueError(
            f"{folder}: the lists name {len(classes)} classes, {entry.title} has "
            f"{entry.num_classes}; are they the lists of another data set?"
        )
    index["label"] = index["class"].map({c: label for label, c in enumerate(classes)})
    _take_over(lists, VideoDataset(name, folder, tuple(classes), root, index))
    source = {"made_by": "lib.prepare.public_datasets", "root": str(root), "licence": entry.licence}
    return write_dataset(folder, name, classes, root, index, source)


def _listed_videos(
    root: Path, lists: Mapping[str, Sequence[SplitEntry]], entry: CatalogEntry, is_kinetics: bool
) -> pd.DataFrame:
    if not root.is_dir():
        raise ValueError(f"videos_dir: {root} is not a folder")
    videos, unknown = find_known_videos(root, lists, is_kinetics)
    num_listed = len({e.name for entries in lists.values() for e in entries})
    print(f"{root}: {len(videos)} of {num_listed} listed videos, {unknown} others left out")
    if videos.empty:
        raise ValueError(
            f"{root}: none of the {num_listed} videos of {entry.title}'s lists is below it; "
            f"{entry.how_to_get}"
        )
    return videos


def _take_over(lists: Mapping[str, Sequence[SplitEntry]], dataset: VideoDataset) -> None:
    """Write the published lists; one of which no video is there is left out, unless required."""
    for name, entries in lists.items():
        found = find_entries(dataset, [entry.name for entry in entries])
        if (found < 0).all() and name not in REQUIRED:
            print(f"{name}: none of its {len(entries)} videos is there, left out")
        else:
            print(import_split(dataset, name, entries, name).summary())


def read_splits(
    name: str, files: PublishedFiles
) -> tuple[dict[str, list[SplitEntry]], dict[str, str]]:
    """Read all lists that can be had.

    Returns:
        The lists by name, all entries named `class/stem`; why the others are not there.

    Raises:
        ValueError: If `train` or `val` cannot be had.
    """
    entry = CATALOG[name]
    lists: dict[str, list[SplitEntry]] = {}
    absent: dict[str, str] = {}
    for published in entry.lists:
        try:
            path = files.get(published.file)
        except ValueError as error:
            absent[published.name] = str(error)
            continue
        lists[published.name] = _read(published, path, entry, files)
    if entry.splits is not None:
        try:
            texts = files.find_splits(name) or _unpack_splits(entry.splits, files)
        except ValueError as error:
            absent["official splits"] = str(error)
        else:
            lists = _read_splits(name, texts) | lists
    _check_required(entry, lists, absent)
    return lists, {n: reason for n, reason in absent.items() if n not in lists}


def _check_required(entry: CatalogEntry, lists: Mapping, absent: Mapping[str, str]) -> None:
    missing = [part for part in REQUIRED if part not in lists]
    if missing:
        reasons = "\n  ".join(absent[part] for part in missing)
        raise ValueError(
            f"{entry.title}: its lists {missing} are not there; set download to true, or "
            f"downloads_dir to a folder that has them:\n  {reasons}"
        )


def _read(
    published: PublishedSplit, path: Path, entry: CatalogEntry, files: PublishedFiles
) -> list[SplitEntry]:
    entries = read_split_file(path)
    if published.num_videos is not None and len(entries) != published.num_videos:
        raise ValueError(f"{path}: {len(entries)} videos, expected {published.num_videos}")
    if entry.categories is None:
        return entries
    classes = read_categories(files.get(entry.categories))
    return [e._replace(name=f"{classes[e.label]}/{e.name}") for e in entries]


def _unpack_splits(archive: RemoteFile, files: PublishedFiles) -> Path:
    texts = files.folder / "published" / "splits"
    extract(files.get(archive), texts)
    return texts


def _read_splits(name: str, texts: Path) -> dict[str, list[SplitEntry]]:
    """Read the official splits of UCF-101 or HMDB-51, and `train` and `val` from the first."""
    splits = {split: READERS[name](texts, split) for split in SPLITS}
    first = splits[1]  # the paper trains on the clips that HMDB-51's split leaves out, too
    lists = {"train": first["train"] + first.get("unused", []), "val": first["test"]}
    for split, parts in splits.items():
        lists |= {f"split{split}_{part}": parts[part] for part in ("train", "test")}
    return lists


def class_order(lists: Mapping[str, Sequence[SplitEntry]]) -> list[str]:
    """Return the class names in label order: as most entries say, else alphabetically.

    Raises:
        ValueError: If two classes have one label.
    """
    votes: dict[str, Counter] = defaultdict(Counter)
    for entry in (entry for entries in lists.values() for entry in entries):
        votes[entry.name.rpartition("/")[0]].update(
            [entry.label] if entry.label is not None else []
        )
    if not any(votes.values()):
        return sorted(votes)
    labels = {name: count.most_common(1)[0][0] for name, count in votes.items() if count}
    order = sorted(labels, key=labels.__getitem__)
    if sorted(labels.values()) != list(range(len(votes))):
        raise ValueError(f"the lists do not give each of {len(votes)} classes its own label")
    return order


def unpack_videos(name: str, files: PublishedFiles) -> Path:
    """Unpack the archives of a data set into `videos/` and return that folder.

    Raises:
        ValueError: If it has none that may be downloaded freely, or they cannot be unpacked.
    """
    entry = CATALOG[name]
    root = files.folder / "videos"
    if not entry.archives:
        raise ValueError(
            f"videos_dir: {entry.title} needs the folder of its videos: {entry.how_to_get}"
        )
    for file in entry.archives:
        unpack = extract_nested if name == "hmdb51" else extract
        unpack(files.get(file), root)
    return root


def find_known_videos(
    root: Path, lists: Mapping[str, Sequence[SplitEntry]], is_kinetics: bool
) -> tuple[pd.DataFrame, int]:
    """Find the listed videos anywhere below a folder.

    A video is known by its class folder, written in any way, and its name; or by its name alone;
    in Kinetics, by its YouTube id.

    Returns:
        Columns class, name (`class/stem`, as listed) and path; the number of unlisted videos.

    Raises:
        ValueError: If a listed video is there twice.
    """
    listed = list(dict.fromkeys(e.name for entries in lists.values() for e in entries))
    videos = list(walk_videos(root))
    ways = [(loose_name, loose_name), (stem_of, stem_of)]
    ways += [(youtube_id, youtube_id)] if is_kinetics else []
    rows = find_names([name for name, _ in videos], listed, ways).tolist()
    found: dict[int, str] = {}  # position in `listed` -> path
    for row, (_, path) in zip(rows, videos, strict=True):
        if row in found:
            raise ValueError(
                f"{root}: {listed[row]} is there twice, as {found[row]} and {path}; remove one"
            )
        if row >= 0:
            found[row] = path
    table = [(listed[row].rpartition("/")[0], listed[row], found[row]) for row in sorted(found)]
    return pd.DataFrame(table, columns=["class", "name", "path"]), len(videos) - len(found)
