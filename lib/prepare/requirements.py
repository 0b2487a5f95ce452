"""Data and networks that runs need: the missing parts and the command that prepares them."""

import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from lib.config import PrepareSettings, TrainSettings
from lib.data.dataset import is_prepared
from lib.data.frame_tables import PERSON_BOXES_FILE, TEACHER_FILE
from lib.models.transformers_video import missing_network
from lib.prepare.catalog import CATALOG, dataset_folder
from lib.prepare.steps import Preparation
from lib.prepare.synthetic import EMBEDDED
from lib.registry import did_you_mean

PREPARED_BY_BATCH = (*EMBEDDED, "folder")  # data sets that need no download


@dataclass
class DataRequirement:
    """Parts of one data set that runs need."""

    dataset: str
    videos_dir: str | None
    prepared_dir: str
    folder: Path | None  # the prepared folder; None if `videos_dir` is missing
    splits: set[str] = field(default_factory=set)  # names, or paths ending in `.txt`
    person_boxes: bool = False
    teacher_scores: bool = False

    @property
    def is_prepared(self) -> bool:
        """True if the data set is prepared; parts of it may be missing."""
        return self.folder is not None and is_prepared(self.folder)

    @property
    def is_complete(self) -> bool:
        """True if there is nothing to prepare and nothing is missing."""
        return self.is_prepared and not self._parts_to_compute() and not self.missing()

    def parameters(self) -> dict[str, str | None]:
        """Return the parameters of notebook 1 that prepare the missing parts."""
        names = ("dataset", "videos_dir", "prepared_dir")
        return {name: getattr(self, name) for name in names} | self._parts_to_compute()

    def missing(self) -> list[str]:
        """Return the missing parts that a batch cannot prepare."""
        if self.folder is None:
            return ["videos_dir is not set"]
        if not self.is_prepared and self.dataset not in PREPARED_BY_BATCH:
            return ["not prepared"]
        splits = [f"no split {name!r}{hint}" for name, hint in self._absent_splits().items()]
        steps = Preparation(PrepareSettings(**self.parameters())).steps()
        return splits + [f"{step.part}: {step.details}" for step in steps if step.blocks]

    def command(self) -> str:
        """Return the command that prepares the missing parts; empty if a name is misspelled."""
        if self.folder is None:
            return "--set videos_dir=/path/to/videos"
        absent = self._absent_splits()
        if any(absent.values()):
            return ""
        options = self.parameters()
        has_videos = self.is_prepared or self.videos_dir or self.dataset in EMBEDDED
        if not has_videos and not CATALOG[self.dataset].archives:
            options["videos_dir"] = "/path/to/videos"
        if absent:
            options["split_files"] = "/path/to/split.txt"
        options["download"] = "true"
        texts = [f"--{name} {shlex.quote(text)}" for name, text in options.items() if text]
        return " ".join(["python -m lib.prepare", *texts])

    def _parts_to_compute(self) -> dict[str, str]:
        """Return the settings that compute needed parts which are not there."""
        if self.folder is None:
            return {}
        parts = {}
        has_boxes = self.dataset in EMBEDDED or (self.folder / PERSON_BOXES_FILE).is_file()
        if self.person_boxes and not has_boxes:
            parts["person_boxes"] = "yolox"
        if self.teacher_scores and not (self.folder / TEACHER_FILE).is_file():
            parts["teacher_scores"] = "compute"
        return parts

    def _absent_splits(self) -> dict[str, str]:
        """Return the splits that neither exist nor are created by preparing, and a near miss."""
        absent = [
            name for name in self.splits if name.endswith(".txt") and not Path(name).is_file()
        ]
        if not self.is_prepared and self.dataset not in PREPARED_BY_BATCH:
            return dict.fromkeys(absent, "")
        names = self._split_names()
        absent += [name for name in self.splits if name not in names and name[-4:] != ".txt"]
        return {name: did_you_mean(name, names) for name in sorted(absent)}

    def _split_names(self) -> list[str]:
        if self.is_prepared:
            return [path.stem for path in (self.folder / "splits").glob("*.txt")]
        embedded = EMBEDDED.get(self.dataset)
        names = embedded.split_sizes if embedded else ("train", "val")
        return list(names)


def data_requirements(runs: Iterable[TrainSettings]) -> list[DataRequirement]:
    """Return the requirements of runs, one per data set, in the order of their first use."""
    requirements: dict[tuple, DataRequirement] = {}

    def requirement(name: str, videos_dir: str | None, prepared_dir: str) -> DataRequirement:
        has_folder = name != "folder" or videos_dir is not None
        folder = dataset_folder(name, videos_dir, prepared_dir) if has_folder else None
        new = DataRequirement(name, videos_dir, prepared_dir, folder)
        return requirements.setdefault((name, folder), new)

    for s in runs:
        labeled = requirement(*s.labeled_source)
        labeled.splits |= {s.labeled_split, s.val_split, *s.test_splits}
        labeled.person_boxes |= s.scene_needs_person_mask and s.labeled_scene_p > 0
        if s.reads_unlabeled:
            unlabeled = requirement(*s.unlabeled_source)
            unlabeled.splits.add(s.unlabeled_split)
            is_mixed = s.is_semi_supervised and s.unlabeled_scene_p > 0
            unlabeled.person_boxes |= s.scene_needs_person_mask and is_mixed
            unlabeled.teacher_scores |= s.distillation_weight > 0
    return list(requirements.values())


def missing_data(runs: Iterable[TrainSettings]) -> list[str]:
    """Return a message per data set and network that lacks parts: these and their command."""
    runs = list(runs)
    data = [
        f"data set {need.dataset}: {', '.join(parts)}\n    {need.command()}".rstrip()
        for need in data_requirements(runs)
        if (parts := need.missing())
    ]
    return data + missing_networks(runs)


def missing_networks(runs: Iterable[TrainSettings]) -> list[str]:
    """Return a message, with a command, per network of the hub that is not on this machine."""
    return list(filter(None, dict.fromkeys(missing_network(s.model) for s in runs)))
