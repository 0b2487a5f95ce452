"""Catalog of data sets: addresses, checksums, expected contents and published splits.

The data sets are listed in `catalog.yaml`. Class names come from the folders of the videos or from
the published splits; labels are their alphabetical positions.
"""

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
    num_videos: int | None = None  # if fixed


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
    splits: tuple[PublishedSplit, ...] = ()
    categories: RemoteFile | None = None


_TEXT = Path(__file__).with_name("catalog.yaml").read_text(encoding="utf-8")
CATALOG = TypeAdapter(dict[str, CatalogEntry]).validate_python(yaml.safe_load(_TEXT))


def dataset_folder(name: str, videos_dir: str | None, prepared_dir: str) -> Path:
    """Return the prepared folder of a data set of the catalog.

    ValueError if the name is not in the catalog, or `folder` has no `videos_dir`.
    """
    if name not in CATALOG:
        hint = did_you_mean(name, CATALOG) or f"; choose one of {', '.join(CATALOG)}"
        raise ValueError(f"dataset: no data set {name!r}{hint}")
    return prepared_folder(name, videos_dir, prepared_dir)
