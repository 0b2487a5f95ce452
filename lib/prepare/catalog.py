"""The known data sets: where they are from, what they should hold, which lists are published.

Class names are not written down here: they are the folder names of the videos, or those of the
published lists, and the labels are their alphabetical positions. The lists stand in
`published_lists.csv`. Nothing here opens a connection.

How far these entries have been verified, without access to the addresses themselves: the lists'
checksums are those of the files at the pinned commits; the Kinetics addresses stand in the README
of cvdfoundation/kinetics-dataset; those of UCF-101 and HMDB-51 and their checksums in torchvision's
data sets (HMDB-51's videos: in other public code that downloads them). The licences are as data
cards and the authors' pages report them; read them at the source before you rely on them.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

from lib.data.dataset import prepared_folder


@dataclass(frozen=True)
class RemoteFile:
    """A published file.

    Attributes:
        url: Its address.
        checksum: SHA-256 in hexadecimal, or `md5:` and the MD5; None where none is published.
        size_gb: About how large it is.
    """

    url: str
    checksum: str | None = None
    size_gb: float = 0.0

    @property
    def filename(self) -> str:
        """Its name without the address."""
        return self.url.rsplit("/", 1)[1]


@dataclass(frozen=True)
class PublishedSplit:
    """A published list of videos.

    Attributes:
        name: Name that the list gets here.
        file: The file.
        num_videos: Videos in it.
    """

    name: str
    file: RemoteFile
    num_videos: int | None


@dataclass(frozen=True)
class CatalogEntry:
    """A known data set.

    Attributes:
        title: Its name in print.
        num_classes: Its classes; None for your own videos.
        num_videos: Its videos; None where that is not fixed.
        licence: What its authors allow, in short.
        how_to_get: Where the videos are from, for someone who has none.
        archives: Archives of the videos, where they may be downloaded without asking anyone.
        splits: Archive of the official splits.
        lists: Published lists, in formats of `read_split_file`.
        categories: File of class names in label order, where the videos have no class folders.
        videos_gb: Disk that unpacking takes, about; with archives inside of archives, for both.
        warning: What is easily taken for something else.
    """

    title: str
    num_classes: int | None
    num_videos: int | None
    licence: str
    how_to_get: str
    archives: tuple[RemoteFile, ...] = ()
    splits: RemoteFile | None = None
    lists: tuple[PublishedSplit, ...] = ()
    categories: RemoteFile | None = None
    videos_gb: float = 0.0
    warning: str = ""


def _published_splits(name: str) -> tuple[PublishedSplit, ...]:
    """Return the published lists of a data set: its rows of `published_lists.csv`."""
    with open(Path(__file__).with_name("published_lists.csv"), encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["dataset"] == name]
    return tuple(
        PublishedSplit(
            row["name"],
            RemoteFile(row["url"], row["sha256"] or None),
            int(row["num_videos"]) if row["num_videos"] else None,
        )
        for row in rows
    )


_KINETICS = (
    "archives of CVDF (https://github.com/cvdfoundation/kinetics-dataset, with replacements for "
    "about 1,400 damaged clips); unpack them and give the folder as videos_dir: "
    "<id>_<start>_<end>.mp4 in one folder or in a folder for each class"
)
_KINETICS_LICENCE = "annotations CC BY 4.0; the videos are their uploaders', for research only"

CATALOG: dict[str, CatalogEntry] = {
    "synthetic": CatalogEntry(
        "Moving actors", 4, None, "made here, Apache-2.0", "rendered by notebook 1"
    ),
    "folder": CatalogEntry(
        "Your own videos",
        None,
        None,
        "yours",
        "videos_dir: <class>/<video> or {train,val}/<class>/<video>",
    ),
    "ucf101": CatalogEntry(
        title="UCF-101",
        num_classes=101,
        num_videos=13_320,
        licence=(
            "none stated by its authors; the clips are their uploaders' (YouTube), for research"
        ),
        how_to_get="https://www.crcv.ucf.edu/data/UCF101.php",
        archives=(
            RemoteFile(
                "https://www.crcv.ucf.edu/data/UCF101/UCF101.rar",
                "ca8dfadb4c891cb11316f94d52b6b0ac2a11994e67a0cae227180cd160bd8e55",
                size_gb=6.9,
            ),
        ),
        splits=RemoteFile(
            "https://www.crcv.ucf.edu/data/UCF101/UCF101TrainTestSplits-RecognitionTask.zip",
            "5c0d1a53b8ed364a2ac830a73f405e51bece7d98ce1254fd19ed4a36b224bd27",
        ),
        videos_gb=7.0,
        lists=_published_splits("ucf101"),
    ),
    "hmdb51": CatalogEntry(
        title="HMDB-51",
        num_classes=51,
        num_videos=6766,
        licence="CC BY 4.0, its authors say; the clips are from films and YouTube",
        how_to_get="https://serre-lab.clps.brown.edu/resource/hmdb-a-large-human-motion-database/",
        archives=(
            RemoteFile(
                "http://serre-lab.clps.brown.edu/wp-content/uploads/2013/10/hmdb51_org.rar",
                "md5:517d6f1f19f215c45cdd4d25356be1fb",
                size_gb=2.1,
            ),
        ),
        splits=RemoteFile(
            "http://serre-lab.clps.brown.edu/wp-content/uploads/2013/10/test_train_splits.rar",
            "md5:15e67781e70dcfbdce2d7dbb9b3344b5",
        ),
        videos_gb=4.3,
        warning=(
            "the reference's labelled lists give 132 clips (of 5,236) the label of a class whose "
            "name begins alike (climb and climb_stairs, kick and kick_ball, sword and "
            "sword_exercise); here the folder decides. Its list of 100 % holds the clips that the "
            "official split leaves out"
        ),
        lists=_published_splits("hmdb51"),
    ),
    "kinetics100": CatalogEntry(
        title="Kinetics-100",
        num_classes=100,
        num_videos=89_693,
        licence=_KINETICS_LICENCE,
        how_to_get=_KINETICS,
        warning=(
            "these are the 100 classes of the paper's lists, not those of the few-shot benchmark "
            "of the same name"
        ),
        lists=_published_splits("kinetics100"),
    ),
    "kinetics400": CatalogEntry(
        title="Kinetics-400",
        num_classes=400,
        num_videos=None,
        licence=_KINETICS_LICENCE,
        how_to_get=_KINETICS,
        lists=_published_splits("kinetics400"),
    ),
    "mini_ssv2": CatalogEntry(
        title="Mini-Something-Something v2",
        num_classes=87,
        num_videos=93_462,
        licence="for research, under an agreement with Qualcomm that each user accepts",
        how_to_get=(
            "register at https://www.qualcomm.com/developer/software/something-something-v-2-dataset"
            ", unpack Something-Something v2 and give the folder of its .webm files as videos_dir"
        ),
        categories=RemoteFile(
            "https://raw.githubusercontent.com/CVIR/TCL/661076c893120cdf980e10adb4440f773a9979fd/"
            "datasets/Mini-Something-V2/data/category_mini.txt",
            "eceebc79a819987cf7b514d4885b1101356c6df4f493c0f583fc8db18c5454ba",
        ),
        lists=_published_splits("mini_ssv2"),
    ),
}


def dataset_folder(name: str, videos_dir: str | None, prepared_dir: str) -> Path:
    """Return where a data set of the catalog is prepared.

    Raises:
        ValueError: If the name is not in the catalog, or `folder` comes without `videos_dir`.
    """
    if name not in CATALOG:
        raise ValueError(f"dataset: no data set {name!r}; there are {list(CATALOG)}")
    return prepared_folder(name, videos_dir, prepared_dir)
