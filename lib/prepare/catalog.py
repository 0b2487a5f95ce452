"""Catalog of data sets: addresses, checksums, expected contents and published splits.

Class names come from the folders of the videos or from the published splits; labels are their
alphabetical positions. The splits are listed in `published_lists.csv`.

The addresses were not opened. Checksums of splits are those
of the files at the pinned commits; Kinetics addresses are from the README of
cvdfoundation/kinetics-dataset; those of UCF-101 and HMDB-51 and their checksums are from
torchvision's data sets (HMDB-51's videos: from other public code that downloads them). Read a
license at its source before you rely on it.
"""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from lib.data.dataset import prepared_folder


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
    """A data set of the catalog; None or empty if not fixed or not needed."""

    title: str
    license: str  # as its authors state it
    homepage: str = ""  # where the videos can be obtained
    num_classes: int | None = None
    num_videos: int | None = None
    archives: tuple[RemoteFile, ...] = ()  # of videos; no registration is needed
    videos_gb: float = 0.0  # disk space of the extracted archives
    official_splits: RemoteFile | None = None
    splits: tuple[PublishedSplit, ...] = ()
    categories: RemoteFile | None = None  # class names in label order, one a line


def _published_splits(dataset: str) -> tuple[PublishedSplit, ...]:
    path = Path(__file__).with_name("published_lists.csv")
    rows = csv.DictReader(path.read_text(encoding="utf-8").splitlines())
    return tuple(
        PublishedSplit(
            row["name"],
            RemoteFile(row["url"], row["sha256"] or None),
            int(row["num_videos"]) if row["num_videos"] else None,
        )
        for row in rows
        if row["dataset"] == dataset
    )


_KINETICS = "https://github.com/cvdfoundation/kinetics-dataset"
_KINETICS_LICENSE = "annotations CC BY 4.0; videos belong to their uploaders, research only"

CATALOG: dict[str, CatalogEntry] = {
    "synthetic": CatalogEntry("Moving actors", "Apache-2.0, rendered here", num_classes=4),
    "folder": CatalogEntry("Your own videos", "yours"),
    "ucf101": CatalogEntry(
        title="UCF-101",
        license="none stated; clips belong to their uploaders, research only",
        homepage="https://www.crcv.ucf.edu/data/UCF101.php",
        num_classes=101,
        num_videos=13_320,
        archives=(
            RemoteFile(
                "https://www.crcv.ucf.edu/data/UCF101/UCF101.rar",
                "ca8dfadb4c891cb11316f94d52b6b0ac2a11994e67a0cae227180cd160bd8e55",
                size_gb=6.9,
            ),
        ),
        videos_gb=7.0,
        official_splits=RemoteFile(
            "https://www.crcv.ucf.edu/data/UCF101/UCF101TrainTestSplits-RecognitionTask.zip",
            "5c0d1a53b8ed364a2ac830a73f405e51bece7d98ce1254fd19ed4a36b224bd27",
        ),
        splits=_published_splits("ucf101"),
    ),
    "hmdb51": CatalogEntry(
        title="HMDB-51",
        license="CC BY 4.0; clips are from films and YouTube",
        homepage="https://serre-lab.clps.brown.edu/resource/hmdb-a-large-human-motion-database/",
        num_classes=51,
        num_videos=6766,
        archives=(
            RemoteFile(
                "http://serre-lab.clps.brown.edu/wp-content/uploads/2013/10/hmdb51_org.rar",
                "md5:517d6f1f19f215c45cdd4d25356be1fb",
                size_gb=2.1,
            ),
        ),
        videos_gb=4.3,  # with the inner archives
        official_splits=RemoteFile(
            "http://serre-lab.clps.brown.edu/wp-content/uploads/2013/10/test_train_splits.rar",
            "md5:15e67781e70dcfbdce2d7dbb9b3344b5",
        ),
        splits=_published_splits("hmdb51"),
    ),
    "kinetics100": CatalogEntry(  # classes of the paper's splits, not of the few-shot benchmark
        title="Kinetics-100",
        license=_KINETICS_LICENSE,
        homepage=_KINETICS,
        num_classes=100,
        num_videos=89_693,
        splits=_published_splits("kinetics100"),
    ),
    "kinetics400": CatalogEntry(
        title="Kinetics-400",
        license=_KINETICS_LICENSE,
        homepage=_KINETICS,
        num_classes=400,
        splits=_published_splits("kinetics400"),
    ),
    "mini_ssv2": CatalogEntry(
        title="Mini-Something-Something v2",
        license="research only, under an agreement with Qualcomm",
        homepage="https://www.qualcomm.com/developer/software/something-something-v-2-dataset",
        num_classes=87,
        num_videos=93_462,
        splits=_published_splits("mini_ssv2"),
        categories=RemoteFile(
            "https://raw.githubusercontent.com/CVIR/TCL/661076c893120cdf980e10adb4440f773a9979fd/"
            "datasets/Mini-Something-V2/data/category_mini.txt",
            "eceebc79a819987cf7b514d4885b1101356c6df4f493c0f583fc8db18c5454ba",
        ),
    ),
}


def dataset_folder(name: str, videos_dir: str | None, prepared_dir: str) -> Path:
    """Return the prepared folder of a data set of the catalog.

    Raises:
        ValueError: If the name is not in the catalog, or `folder` has no `videos_dir`.
    """
    if name not in CATALOG:
        raise ValueError(f"dataset: no data set {name!r}; there are {list(CATALOG)}")
    return prepared_folder(name, videos_dir, prepared_dir)
