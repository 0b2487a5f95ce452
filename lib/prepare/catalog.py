"""Catalog of data sets: addresses, checksums, expected contents and published splits.

The data sets are listed in `catalog.yaml`, their published splits in `published_lists.csv`, with
the checksums of the files at the pinned commits. Class names come from the folders of the videos or
from the published splits; labels are their alphabetical positions.
"""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import yaml
from pydantic import TypeAdapter

from lib.data.dataset import prepared_folder
from lib.registry import did_you_mean


class RemoteFile(NamedTuple):
    """A published file; its checksum is a SHA-256 in hexadecimal, or `md5:` and the MD5."""

    url: str
    checksum: str | None = None
    size_gb: float = 0.0

    @property
    def filename(self) -> str:
        """Its name without the address."""
        return self.url.rsplit("/", 1)[1]


class PublishedSplit(NamedTuple):
    """A published split, in a format of `read_split_file`."""

    name: str
    file: RemoteFile
    num_videos: int | None  # if fixed


@dataclass(frozen=True)
class CatalogEntry:
    """A data set of the catalog, as `catalog.yaml` explains."""

    title: str
    license: str
    homepage: str = ""
    num_classes: int | None = None
    num_videos: int | None = None
    archives: tuple[RemoteFile, ...] = ()
    videos_gb: float = 0.0
    official_splits: RemoteFile | None = None
    splits: tuple[PublishedSplit, ...] = ()
    categories: RemoteFile | None = None


def _read_catalog(folder: Path) -> dict[str, CatalogEntry]:
    entries = yaml.safe_load((folder / "catalog.yaml").read_text(encoding="utf-8"))
    with open(folder / "published_lists.csv", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            remote = RemoteFile(row["url"], row["sha256"] or None)
            split = PublishedSplit(row["name"], remote, int(row["num_videos"] or 0) or None)
            entries[row["dataset"]].setdefault("splits", []).append(split)
    return TypeAdapter(dict[str, CatalogEntry]).validate_python(entries)


CATALOG = _read_catalog(Path(__file__).parent)


def dataset_folder(name: str, videos_dir: str | None, prepared_dir: str) -> Path:
    """Return the prepared folder of a data set of the catalog.

    Raises:
        ValueError: If the name is not in the catalog, or `folder` has no `videos_dir`.
    """
    if name not in CATALOG:
        hint = did_you_mean(name, CATALOG) or f"; choose one of {', '.join(CATALOG)}"
        raise ValueError(f"dataset: no data set {name!r}{hint}")
    return prepared_folder(name, videos_dir, prepared_dir)
