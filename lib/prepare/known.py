"""Making a data set of the catalog ready: its published lists, its videos, its index."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd

from lib.data.dataset import VideoDataset
from lib.prepare.archives import extract, extract_nested, find_file
from lib.prepare.catalog import CATALOG, CatalogEntry, PublishedList, RemoteFile
from lib.prepare.download import download, matches
from lib.prepare.folder import is_video, open_videos
from lib.prepare.lists import YOUTUBE_ID, find_entries, import_list, loose_class
from lib.prepare.official_lists import (
    ListEntry,
    read_categories,
    read_hmdb_split,
    read_kinetics_csv,
    read_reference_list,
    read_ucf_list,
)
from lib.prepare.writing import write_dataset

SPLITS = (1, 2, 3)
SPLIT_MARKERS = {"ucf101": "trainlist01.txt", "hmdb51": "wave_test_split1.txt"}
REQUIRED = ("train", "val")
MAX_DEPTH = 6  # folders below the root in which videos are looked for; links may lead in circles
READERS = {
    "reference": read_reference_list,
    "video_folder": read_reference_list,
    "kinetics_csv": read_kinetics_csv,
}


def index_known(
    name: str,
    root: Path | None,
    sources: Path | None,
    folder: Path,
    allowed: bool,
    num_processes: int = 0,
) -> VideoDataset:
    """Index a data set of the catalog; only videos that its lists name are taken.

    Args:
        name: Its name.
        root: Its videos or frames, in any of the usual layouts; None to unpack its archives.
        sources: Folder of archives and lists that are there already, or None.
        folder: The prepared folder to make.
        allowed: Whether missing files may be downloaded.
        num_processes: Worker processes; 0 for one per core.

    Raises:
        ValueError: If files are missing or damaged; says which, where they are from and what to do.
    """
    entry = CATALOG[name]
    if entry.warning:
        print(f"{entry.title}: {entry.warning}")
    lists, absent = read_lists(name, sources, folder, allowed)
    for list_name, reason in absent.items():
        print(f"list {list_name} is left out: {reason}")
    root = root or unpack_videos(name, sources, folder, allowed)
    videos = _listed_videos(root, lists, entry, name.startswith("kinetics"))
    index = open_videos(videos, root, folder, num_processes)
    classes = class_order(lists)
    if len(classes) != entry.num_classes:
        raise ValueError(
            f"{folder}: the lists name {len(classes)} classes, {entry.title} has "
            f"{entry.num_classes}; are they the lists of another data set?"
        )
    index["label"] = index["class"].map({c: label for label, c in enumerate(classes)})
    _take_over(lists, VideoDataset(name, folder, tuple(classes), root, index))
    source = {"made_by": "lib.prepare.known", "root": str(root), "licence": entry.licence}
    return write_dataset(folder, name, classes, root, index, source)


def _listed_videos(
    root: Path, lists: Mapping[str, Sequence[ListEntry]], entry: CatalogEntry, is_kinetics: bool
) -> pd.DataFrame:
    if not root.is_dir():
        raise ValueError(f"data_root: {root} is not a folder")
    videos, unknown = find_known_videos(root, lists, is_kinetics)
    num_listed = len({e.name for entries in lists.values() for e in entries})
    print(f"{root}: {len(videos)} of {num_listed} listed videos, {unknown} others left out")
    if videos.empty:
        raise ValueError(
            f"{root}: none of the {num_listed} videos of {entry.title}'s lists is below it; "
            f"{entry.how_to_get}"
        )
    return videos


def _take_over(lists: Mapping[str, Sequence[ListEntry]], dataset: VideoDataset) -> None:
    """Write the published lists; one of which no video is there is left out, unless required."""
    for name, entries in lists.items():
        found = find_entries(dataset, [entry.name for entry in entries])
        if (found < 0).all() and name not in REQUIRED:
            print(f"{name}: none of its {len(entries)} videos is there, left out")
        else:
            print(import_list(dataset, name, entries, name).summary())


def get_file(file: RemoteFile, sources: Path | None, folder: Path, allowed: bool) -> Path:
    """Return a published file: from `sources`, from an earlier download, or downloaded now.

    Raises:
        ValueError: If it is not there and may not be downloaded, or has another checksum.
    """
    found = find_file(sources, file.filename)
    if found is None:
        return download(file.url, folder / "published" / file.filename, file.checksum, allowed)
    if file.checksum is not None and not matches(found, file.checksum):
        raise ValueError(
            f"{found}: not the file that is at {file.url} (its checksum is not {file.checksum}); "
            "take it away or replace it"
        )
    return found


def read_lists(
    name: str, sources: Path | None, folder: Path, allowed: bool
) -> tuple[dict[str, list[ListEntry]], dict[str, str]]:
    """Read all lists that can be had.

    Returns:
        The lists by name, all entries named `class/stem`; why the others are not there.

    Raises:
        ValueError: If `train` or `val` cannot be had.
    """
    entry = CATALOG[name]
    lists: dict[str, list[ListEntry]] = {}
    absent: dict[str, str] = {}
    for published in entry.lists:
        try:
            path = get_file(published.file, sources, folder, allowed)
        except ValueError as error:
            absent[published.name] = str(error)
            continue
        lists[published.name] = _read(published, path, entry, sources, folder, allowed)
    if entry.splits is not None:
        try:
            texts = _get_splits(name, entry.splits, sources, folder, allowed)
        except ValueError as error:
            absent["official splits"] = str(error)
        else:
            splits = _read_splits(name, texts)
            lists = {**{part: splits[part] for part in REQUIRED}, **splits, **lists}
    _check_required(entry, lists, absent)
    return lists, {n: reason for n, reason in absent.items() if n not in lists}


def _check_required(entry: CatalogEntry, lists: Mapping, absent: Mapping[str, str]) -> None:
    missing = [part for part in REQUIRED if part not in lists]
    if missing:
        reasons = "\n  ".join(absent[part] for part in missing)
        raise ValueError(
            f"{entry.title}: its lists {missing} are not there; set download to true, or "
            f"sources_dir to a folder that has them:\n  {reasons}"
        )


def _read(
    published: PublishedList,
    path: Path,
    entry: CatalogEntry,
    sources: Path | None,
    folder: Path,
    allowed: bool,
) -> list[ListEntry]:
    entries = READERS[published.format](path)
    if published.num_videos is not None and len(entries) != published.num_videos:
        raise ValueError(f"{path}: {len(entries)} videos, expected {published.num_videos}")
    if entry.categories is None:
        return entries
    classes = read_categories(get_file(entry.categories, sources, folder, allowed))
    return [e._replace(name=f"{classes[e.label]}/{e.name}") for e in entries]


def _get_splits(
    name: str, file: RemoteFile, sources: Path | None, folder: Path, allowed: bool
) -> Path:
    """Return the folder of the split files: unpacked in `sources`, or from the archive."""
    marker = find_file(sources, SPLIT_MARKERS[name])
    if marker is not None:
        return marker.parent
    texts = folder / "published" / "splits"
    extract(get_file(file, sources, folder, allowed), texts)
    return texts


def _read_splits(name: str, texts: Path) -> dict[str, list[ListEntry]]:
    """Read the official splits of UCF-101 or HMDB-51, and `train` and `val` from the first."""
    lists = {}
    for split in SPLITS:
        if name == "hmdb51":
            parts = read_hmdb_split(texts, split)
        else:
            files = {part: f"{part}list{split:02d}.txt" for part in ("train", "test")}
            paths = {part: find_file(texts, file) for part, file in files.items()}
            if None in paths.values():
                raise ValueError(f"{texts}: holds no {' or '.join(files.values())}")
            parts = {part: read_ucf_list(file) for part, file in paths.items()}
        lists |= {f"split{split}_{part}": parts[part] for part in ("train", "test")}
        if split == 1:  # the paper trains on the clips that HMDB-51's split leaves out, too
            lists |= {"train": parts["train"] + parts.get("unused", []), "val": parts["test"]}
    return lists


def class_order(lists: Mapping[str, Sequence[ListEntry]]) -> list[str]:
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


def unpack_videos(name: str, sources: Path | None, folder: Path, allowed: bool) -> Path:
    """Unpack the archives of a data set into `videos/` and return that folder.

    Raises:
        ValueError: If it has none that may be downloaded freely, or they cannot be unpacked.
    """
    entry = CATALOG[name]
    root = folder / "videos"
    if not entry.archives:
        raise ValueError(
            f"data_root: {entry.title} needs the folder of its videos: {entry.how_to_get}"
        )
    for file in entry.archives:
        archive = get_file(file, sources, folder, allowed)
        unpack = extract_nested if name == "hmdb51" else extract
        unpack(archive, root)
    return root


def find_known_videos(
    root: Path, lists: Mapping[str, Sequence[ListEntry]], is_kinetics: bool
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
    names = _Names(listed, is_kinetics)
    found: dict[str, str] = {}
    unknown = 0
    for class_folder, stem, path in walk_videos(root):
        name = names.find(class_folder, stem)
        unknown += name is None
        if name in found:
            raise ValueError(
                f"{root}: {name} is there twice, as {found[name]} and {path}; remove one"
            )
        if name is not None:
            found[name] = path
    rows = [(name.rpartition("/")[0], name, found[name]) for name in listed if name in found]
    return pd.DataFrame(rows, columns=["class", "name", "path"]), unknown


class _Names:
    """The listed names, to be found by what a file is called."""

    def __init__(self, listed: Sequence[str], is_kinetics: bool):
        self.length = YOUTUBE_ID if is_kinetics else None
        self.exact: dict[tuple[str, str], str] = {}
        self.alone: dict[str, list[str]] = defaultdict(list)  # by the stem, or by the YouTube id
        for name in listed:
            class_name, _, stem = name.rpartition("/")
            self.exact[loose_class(class_name), stem] = name
            for key in {stem, stem[: self.length]}:
                self.alone[key].append(name)

    def find(self, class_folder: str, stem: str) -> str | None:
        """Return the listed name of a video; None for another, or where several fit."""
        exact = self.exact.get((loose_class(class_folder), stem))
        options = [[exact]] if exact else []
        options += [self.alone.get(key, []) for key in (stem, stem[: self.length])]
        return next((names[0] for names in options if len(names) == 1), None)


def walk_videos(folder: Path, inside: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield (folder name, stem, path below the first folder) of all videos and frame folders."""
    for entry in sorted(os.scandir(folder / inside), key=lambda entry: entry.name):
        path = f"{inside}/{entry.name}".lstrip("/")
        if is_video(entry):
            stem = entry.name if entry.is_dir() else Path(entry.name).stem
            yield Path(inside).name, stem, path
        elif entry.is_dir() and not entry.name.startswith(".") and path.count("/") < MAX_DEPTH:
            yield from walk_videos(folder, path)
