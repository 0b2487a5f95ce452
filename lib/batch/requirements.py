"""What data runs need, what of it is missing, and the command that makes it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lib.config import TrainSettings, project_path
from lib.data.dataset import is_prepared
from lib.prepare.catalog import CATALOG, dataset_folder
from lib.train.schedule import count_steps

MADE_ON_DEMAND = ("synthetic", "folder")  # data sets that need no download and no detector


@dataclass
class DataNeed:
    """What the runs of a batch need of one data set.

    Attributes:
        dataset: Its name in the catalog.
        videos_dir: Folder of the original videos.
        prepared_dir: Folder of the prepared data sets.
        folder: Where it is prepared; None if `videos_dir` is missing.
        lists: Lists that are read.
        person_boxes: Whether person boxes are needed.
        teacher: Whether ImageNet scores are needed.
    """

    dataset: str
    videos_dir: str | None
    prepared_dir: str
    folder: Path | None
    lists: set[str] = field(default_factory=set)
    person_boxes: bool = False
    teacher: bool = False

    @property
    def is_prepared(self) -> bool:
        """Whether the data set is there."""
        return self.folder is not None and is_prepared(self.folder)

    @property
    def is_made_on_demand(self) -> bool:
        """Whether the batch makes it by itself."""
        if self.folder is None or self.teacher or self.dataset not in MADE_ON_DEMAND:
            return False
        return self.dataset == "synthetic" or not self.person_boxes or self.can_detect

    @property
    def can_detect(self) -> bool:
        """Whether the batch itself can find people in your own videos: the detector is here."""
        from lib.prepare.boxes.yolox import detector_path  # loads its runtime

        return (
            self.dataset == "folder"
            and detector_path(None, project_path(self.prepared_dir)).is_file()
        )

    @property
    def lacks_boxes(self) -> bool:
        """Whether person boxes are needed and not there."""
        from lib.data.frame_tables import PERSON_BOXES_FILE  # loads pandas

        return self.person_boxes and not (self.folder / PERSON_BOXES_FILE).is_file()

    def parameters(self) -> dict[str, str | None]:
        """Return notebook 1's parameters that make what is missing."""
        values = {name: getattr(self, name) for name in ("dataset", "videos_dir", "prepared_dir")}
        return values | ({"person_boxes": "yolox"} if self.person_boxes and self.can_detect else {})

    def split_path(self, name: str) -> Path:
        """Return the file of a list."""
        return Path(name) if name.endswith(".txt") else self.folder / "splits" / f"{name}.txt"

    def missing(self) -> list[str]:
        """Return what is not there, in words."""
        from lib.data.frame_tables import TEACHER_FILE  # loads pandas

        if self.folder is None:
            return ["videos_dir is not set"]
        if not self.is_prepared:
            return self._lists_never_made() if self.is_made_on_demand else ["not prepared"]
        absent = [f"no list {n!r}" for n in sorted(self.lists) if not self.split_path(n).is_file()]
        if self.lacks_boxes and not self.can_detect:
            absent.append("no person boxes")
        if self.teacher and not (self.folder / TEACHER_FILE).is_file():
            absent.append("no ImageNet scores")
        return absent

    def _lists_never_made(self) -> list[str]:
        wanted = {name for name in self.lists if not name.endswith(".txt")} - {"train", "val"}
        if self.dataset != "folder":
            return []
        return [f"no list {name!r}; there will be 'train' and 'val'" for name in sorted(wanted)]

    def command(self) -> str:
        """Return the command that prepares what is missing."""
        if self.folder is None:
            return "--set videos_dir=/path/to/videos"
        return " ".join([f"python -m lib.prepare --dataset {self.dataset}", *self._options()])

    def _options(self) -> Iterator[str]:
        if self.prepared_dir != "data":
            yield f"--prepared_dir {self.prepared_dir}"
        has_archive = self.dataset == "synthetic" or bool(CATALOG[self.dataset].archives)
        if not self.is_prepared and (self.videos_dir or not has_archive):
            yield f"--videos_dir {self.videos_dir or '/path/to/videos'}"
        if self.is_prepared and "no list" in ", ".join(self.missing()):
            yield "--split_files '[/path/to/list.txt]'"
        yield from self._computed()

    def _computed(self) -> Iterator[str]:
        """Yield the options of what is computed from the videos, and of what that needs."""
        if self.person_boxes and self.dataset != "synthetic":
            yield "--person_boxes yolox"
        if self.teacher:
            yield "--teacher_scores compute"
        if self.dataset not in MADE_ON_DEMAND or self.person_boxes or self.teacher:
            yield "--download true"


def data_needs(runs: Iterable[TrainSettings]) -> list[DataNeed]:
    """Return what runs need of each data set, in the order of their first use."""
    needs: dict[tuple, DataNeed] = {}
    for s in runs:
        labeled = _need(needs, s.dataset, s.videos_dir, s.prepared_dir)
        labeled.lists |= {s.labeled_split, s.val_split, *s.test_splits}
        uses_masks = s.scene_needs_person_mask
        labeled.person_boxes |= uses_masks and s.labeled_scene_p > 0
        if s.reads_unlabeled:
            unlabeled = labeled
            if s.unlabeled_dataset is not None:
                unlabeled = _need(
                    needs, s.unlabeled_dataset, s.unlabeled_videos_dir, s.prepared_dir
                )
            unlabeled.lists.add(s.unlabeled_split)
            is_mixed = s.is_semi_supervised and s.unlabeled_scene_p > 0
            unlabeled.person_boxes |= uses_masks and is_mixed
            unlabeled.teacher |= s.distillation_weight > 0
    return list(needs.values())


def _need(needs: dict[tuple, DataNeed], name: str, root: str | None, prepared_dir: str) -> DataNeed:
    if name == "folder" and root is None:
        return needs.setdefault((name, None), DataNeed(name, root, prepared_dir, None))
    folder = dataset_folder(name, root, prepared_dir)
    return needs.setdefault((name, folder), DataNeed(name, root, prepared_dir, folder))


def problems(needs: Iterable[DataNeed]) -> list[str]:
    """Return what data is missing and how to get it, a text for each data set; empty for none."""
    return [
        f"data set {need.dataset}: {', '.join(need.missing())}\n    {need.command()}"
        for need in needs
        if need.missing()
    ]


def estimate_clips(s: TrainSettings) -> int | None:
    """Return how many clips a run trains on, labelled and unlabelled; None if not known yet."""
    source, name, share, batch = (s.dataset, s.videos_dir), s.labeled_split, s.labeled_fraction, 0
    if s.is_semi_supervised:
        name, share, batch = s.unlabeled_split, 1.0, s.unlabeled_batch
        if s.unlabeled_dataset is not None:
            source = (s.unlabeled_dataset, s.unlabeled_videos_dir)
    length = list_length(*source, s.prepared_dir, name)
    if length is None:
        return None
    return s.epochs * count_steps(round(length * share), s) * (s.labeled_batch + batch)


def list_length(dataset: str, root: str | None, prepared_dir: str, name: str) -> int | None:
    """Return the videos of a list: of the file if it is there, else of the catalog, else None."""
    if dataset == "folder" and root is None:
        return None
    path = dataset_folder(dataset, root, prepared_dir) / "splits" / f"{name}.txt"
    path = Path(name) if name.endswith(".txt") else path
    if path.is_file():
        return sum(bool(line.strip()) for line in path.read_text(encoding="utf-8").splitlines())
    known = {entry.name: entry.num_videos for entry in CATALOG[dataset].lists}
    return known.get(name)
