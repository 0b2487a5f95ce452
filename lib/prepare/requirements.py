"""Data that training runs need: the missing parts and the command that prepares them."""

import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from lib.config import PrepareSettings, TrainSettings
from lib.data.dataset import is_prepared
from lib.data.frame_tables import PERSON_BOXES_FILE, TEACHER_FILE
from lib.prepare.catalog import CATALOG, dataset_folder
from lib.prepare.steps import list_steps

PREPARED_BY_BATCH = ("synthetic", "folder")  # data sets that need no download


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
        splits = [f"no split {name!r}" for name in sorted(self.splits) if self._is_absent(name)]
        steps = list_steps(PrepareSettings(**self.parameters()))
        return splits + [f"{step.part}: {step.details}" for step in steps if step.blocks]

    def command(self) -> str:
        """Return the command that prepares the missing parts."""
        if self.folder is None:
            return "--set videos_dir=/path/to/videos"
        options = self.parameters()
        has_videos = self.is_prepared or self.videos_dir or self.dataset == "synthetic"
        if not has_videos and not CATALOG[self.dataset].archives:
            options["videos_dir"] = "/path/to/videos"
        if self.is_prepared and any(map(self._is_absent, self.splits)):
            options["split_files"] = "[/path/to/split.txt]"
        options["download"] = "true"
        texts = [f"--{name} {shlex.quote(text)}" for name, text in options.items() if text]
        return " ".join(["python -m lib.prepare", *texts])

    def _parts_to_compute(self) -> dict[str, str]:
        """Return the settings that compute needed parts which are not there."""
        if self.folder is None:
            return {}
        parts = {}
        has_boxes = self.dataset == "synthetic" or (self.folder / PERSON_BOXES_FILE).is_file()
        if self.person_boxes and not has_boxes:
            parts["person_boxes"] = "yolox"
        if self.teacher_scores and not (self.folder / TEACHER_FILE).is_file():
            parts["teacher_scores"] = "compute"
        return parts

    def _is_absent(self, split: str) -> bool:
        """Return True if a split is not there, and preparing a data set does not create it."""
        if split.endswith(".txt"):
            return not Path(split).is_file()
        if self.is_prepared:
            return not (self.folder / "splits" / f"{split}.txt").is_file()
        return self.dataset == "folder" and split not in ("train", "val")


def data_requirements(runs: Iterable[TrainSettings]) -> list[DataRequirement]:
    """Return the requirements of runs, one per data set, in the order of their first use."""
    requirements: dict[tuple, DataRequirement] = {}

    def requirement(name: str, videos_dir: str | None, prepared_dir: str) -> DataRequirement:
        has_folder = name != "folder" or videos_dir is not None
        folder = dataset_folder(name, videos_dir, prepared_dir) if has_folder else None
        new = DataRequirement(name, videos_dir, prepared_dir, folder)
        return requirements.setdefault((name, folder), new)

    for s in runs:
        labeled = requirement(s.dataset, s.videos_dir, s.prepared_dir)
        labeled.splits |= {s.labeled_split, s.val_split, *s.test_splits}
        labeled.person_boxes |= s.scene_needs_person_mask and s.labeled_scene_p > 0
        if s.reads_unlabeled:
            unlabeled = labeled
            if s.unlabeled_dataset is not None:
                place = (s.unlabeled_dataset, s.unlabeled_videos_dir)
                unlabeled = requirement(*place, s.prepared_dir)
            unlabeled.splits.add(s.unlabeled_split)
            is_mixed = s.is_semi_supervised and s.unlabeled_scene_p > 0
            unlabeled.person_boxes |= s.scene_needs_person_mask and is_mixed
            unlabeled.teacher_scores |= s.distillation_weight > 0
    return list(requirements.values())


def missing_data(runs: Iterable[TrainSettings]) -> list[str]:
    """Return one message per data set that lacks parts: the parts and the command for them."""
    return [
        f"data set {need.dataset}: {', '.join(parts)}\n    {need.command()}"
        for need in data_requirements(runs)
        if (parts := need.missing())
    ]
