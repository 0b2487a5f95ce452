"""The known data sets: where they are from, what they should hold, which lists are published.

Class names are not written down here: they are the folder names of the videos, or those of the
published lists, and the labels are their alphabetical positions. Nothing here opens a connection.

How far these entries have been verified, without access to the addresses themselves: the lists'
checksums are those of the files at the pinned commits; the Kinetics addresses stand in the README
of cvdfoundation/kinetics-dataset; those of UCF-101 and HMDB-51 and their checksums in torchvision's
data sets (HMDB-51's videos: in other public code that downloads them). The licences are as data
cards and the authors' pages report them; read them at the source before you rely on them.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lib.data.folders import prepared_folder

ListFormat = Literal["reference", "video_folder", "kinetics_csv"]

_ZOU = (
    "https://raw.githubusercontent.com/vt-vl-lab/video-data-aug/"
    "01667cdbd1b952f2510af3422beeeb76e0d9e15a/data/"
)
_XIAO = (
    "https://raw.githubusercontent.com/lambert-x/video-semisup/"
    "17cc13c85a91e048fb4912c686aa06de3bf11c78/data/kinetics400/videossl_splits/"
)
_TCL = (
    "https://raw.githubusercontent.com/CVIR/TCL/"
    "661076c893120cdf980e10adb4440f773a9979fd/datasets/Mini-Something-V2/data/"
)


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
class PublishedList:
    """A published list of videos.

    Attributes:
        name: Name that the list gets here.
        file: The file.
        num_videos: Videos in it.
        format: How it is written.
    """

    name: str
    file: RemoteFile
    num_videos: int | None
    format: ListFormat = "reference"


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
        lists: Published lists.
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
    lists: tuple[PublishedList, ...] = ()
    categories: RemoteFile | None = None
    videos_gb: float = 0.0
    warning: str = ""


def _zou(name: str, path: str, num_videos: int, sha256: str) -> PublishedList:
    return PublishedList(name, RemoteFile(_ZOU + path, sha256), num_videos)


def _zou_ucf(percent: int, num_videos: int, sha256: str) -> PublishedList:
    path = f"ucf101/videossl_splits/ucf101_train_{percent}_percent_labeled_split_1_rawframes.txt"
    return _zou(f"reference_{percent}percent", path, num_videos, sha256)


def _zou_hmdb(percent: int, num_videos: int, sha256: str) -> PublishedList:
    path = f"hmdb51/videossl_splits/hmdb51_train_{percent}_percent_labeled_split_1_rawframes.txt"
    name = "train" if percent == 100 else f"reference_{percent}percent"
    return _zou(name, path, num_videos, sha256)


def _zou_kinetics(percent: int, num_videos: int, sha256: str) -> PublishedList:
    path = f"kinetics400/videossl_splits/kinetics100_train_{percent}_percent_labeled_rawframes.txt"
    name = "train" if percent == 100 else f"reference_{percent}percent"
    return _zou(name, path, num_videos, sha256)


def _xiao(percent: int, num_videos: int, sha256: str) -> PublishedList:
    path = f"kinetics400_train_{percent}_percent_labeled_rawframes.txt"
    return PublishedList(
        f"reference_{percent}percent", RemoteFile(_XIAO + path, sha256), num_videos
    )


_KINETICS = (
    "archives of CVDF (https://github.com/cvdfoundation/kinetics-dataset, with replacements for "
    "about 1,400 damaged clips); unpack them and give the folder as data_root: "
    "<id>_<start>_<end>.mp4 in one folder or in a folder for each class"
)
_KINETICS_LICENCE = "annotations CC BY 4.0; the videos are their uploaders', for research only"

CATALOG: dict[str, CatalogEntry] = {
    "synthetic": CatalogEntry(
        "Moving actors", 6, None, "made here, Apache-2.0", "rendered by notebook 1"
    ),
    "folder": CatalogEntry(
        "Your own videos",
        None,
        None,
        "yours",
        "data_root: <class>/<video> or {train,val}/<class>/<video>",
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
        lists=(
            _zou(
                "train",
                "ucf101/ucf101_train_split_1_rawframes.txt",
                9537,
                "4a94bf449120106f267901c66f9b9b69cff32564cf319fff716ff9ef90ed5ec8",
            ),
            _zou(
                "val",
                "ucf101/ucf101_val_split_1_rawframes.txt",
                3783,
                "03b0a611bb5d1d327e529bf658e077f498d6016c4eb849e78aa063be57fd7f7e",
            ),
            _zou_ucf(5, 476, "3f8223e0e78098cda66d1208a9ee4882e03aa18b446ac614f58c04c387f17b46"),
            _zou_ucf(10, 953, "9f937369faffa1096058b0f09cc98deae9858c1d44094cc6c92e124e5f3eb384"),
            _zou_ucf(20, 1907, "92a85dad9d9ecfa687cb5e868379befec593caf80d2edc9ce1fcf83a9ff7b63d"),
            _zou_ucf(50, 4768, "eb605473db82a76d2cd3965805533d6dcc116e9c6b1f3653fa38800e78a34cd7"),
        ),
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
        lists=(
            _zou_hmdb(
                100, 5236, "b872f39240a24d6a2a0f36d4f4066a5b1bb7afd77723256801df97732accf18a"
            ),
            _zou(
                "val",
                "hmdb51/hmdb51_val_split_1_rawframes.txt",
                1530,
                "34af6054810b925b0a181dc9a8deaad3026f875d64bdee66eb622d0e1660a549",
            ),
            _zou_hmdb(40, 2094, "4824314f097165c1b2485201ed8bdab74a0d0552c6d1dc8231464ff6c40561a0"),
            _zou_hmdb(50, 2618, "016027f6dc4605b09d36dfa10b098a79425b735a899352db04f828bf4d1e4a34"),
            _zou_hmdb(60, 3141, "cc91278ffdeebd7efb192feac55a9fd62ba0eb8c54f84cd4b1416d490511be5c"),
        ),
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
        lists=(
            _zou_kinetics(
                100, 85_114, "da9db47a583053e369b39581b392a66eb32082febc9be7b9ef7a685396734a84"
            ),
            _zou(
                "val",
                "kinetics400/videossl_splits/kinetics100_val_100_percent_labeled_rawframes.txt",
                4579,
                "01858b7a49703412b2f943e0b66044bd14d9cc282d84f512f66dda61ca32bc1f",
            ),
            _zou_kinetics(
                5, 4209, "717a19fc6d2dfaa33d30e90c694b6a1a1f23866b36fb7cae42a2a3c88bd887ce"
            ),
            _zou_kinetics(
                10, 8470, "3067112b287cd1961ec990ae0400aae37735eaaa1eb49ef93e573079fabc131d"
            ),
            _zou_kinetics(
                20, 16_985, "9db77bc4a35907009da99ff110c1a82f3de40a8271f163fc9ab08592e8ff64b6"
            ),
            _zou_kinetics(
                50, 42_517, "75a83a710b8095761ad5487e2eb6326d3f7cd84761b9d79568229b536f851297"
            ),
        ),
    ),
    "kinetics400": CatalogEntry(
        title="Kinetics-400",
        num_classes=400,
        num_videos=None,
        licence=_KINETICS_LICENCE,
        how_to_get=_KINETICS,
        lists=(
            PublishedList(
                "train",
                RemoteFile("https://s3.amazonaws.com/kinetics/400/annotations/train.csv"),
                None,
                "kinetics_csv",
            ),
            PublishedList(
                "val",
                RemoteFile("https://s3.amazonaws.com/kinetics/400/annotations/val.csv"),
                None,
                "kinetics_csv",
            ),
            _xiao(1, 2400, "002e1055585f3c517bb1f92fd9e65efc65154140e9aae5cce9019d2a96f32453"),
            _xiao(10, 24_000, "389283c900548251452b0c0695150be57a4319b2e377097276beec2af8edd3cf"),
        ),
    ),
    "mini_ssv2": CatalogEntry(
        title="Mini-Something-Something v2",
        num_classes=87,
        num_videos=93_462,
        licence="for research, under an agreement with Qualcomm that each user accepts",
        how_to_get=(
            "register at https://www.qualcomm.com/developer/software/something-something-v-2-dataset"
            ", unpack Something-Something v2 and give the folder of its .webm files as data_root"
        ),
        categories=RemoteFile(
            _TCL + "category_mini.txt",
            "eceebc79a819987cf7b514d4885b1101356c6df4f493c0f583fc8db18c5454ba",
        ),
        lists=(
            PublishedList(
                "train",
                RemoteFile(
                    _TCL + "train_videofolder_mini.txt",
                    "fe8daffad2b270740bf6776f884d1a7ca6385c1333e1c525ae8d28e7d5bc4e44",
                ),
                81_663,
                "video_folder",
            ),
            PublishedList(
                "val",
                RemoteFile(
                    _TCL + "val_videofolder_mini.txt",
                    "0dd04bd134090f685c24cce0ac7f1355459a49cbf253b72c61672500c36bd875",
                ),
                11_799,
                "video_folder",
            ),
        ),
    ),
}


def dataset_folder(name: str, data_root: str | None, data_dir: str) -> Path:
    """Return where a data set of the catalog is prepared.

    Raises:
        ValueError: If the name is not in the catalog, or `folder` comes without `data_root`.
    """
    if name not in CATALOG:
        raise ValueError(f"dataset: no data set {name!r}; there are {list(CATALOG)}")
    return prepared_folder(name, data_root, data_dir)
