"""Lists of videos: what is in them, how two of them differ, and taking over published ones."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lib.config import PrepareSettings
from lib.data.dataset import VideoDataset, draw_labeled_rows, draw_rows, write_changed, write_split
from lib.prepare.split_formats import SplitEntry

YOUTUBE_ID = 11  # characters
Spelling = Callable[[str], str]  # of a name, to compare it


def labeled_splits(settings: PrepareSettings) -> dict[str, tuple[Callable, float]]:
    """Return the labelled lists to draw: their names, how each is drawn, and how much of `train`.

    They are drawn by `draw_labeled_rows` or `draw_counted_rows`.
    """
    seed = settings.seed
    shares = {
        f"train_{100 * share:g}percent_seed{seed}": (draw_labeled_rows, share)
        for share in settings.labeled_fractions
    }
    return shares | {
        f"train_{count}perclass_seed{seed}": (draw_counted_rows, count)
        for count in settings.labeled_counts
    }


def draw_counted_rows(labels: np.ndarray, rows: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Draw `count` videos of each class of a list, all where a class has fewer.

    Arguments and result as in `draw_labeled_rows`, whose draws of the same seed these nest with.

    Raises:
        ValueError: If `count` is below 1.
    """
    if count < 1:
        raise ValueError(f"labeled_counts must be at least 1, got {count}")
    return draw_rows(labels, rows, lambda size: min(count, size), seed)


def summarize_splits(dataset: VideoDataset) -> pd.DataFrame:
    """Return one row per list of a data set.

    Returns:
        Index: the lists' names. Columns: videos; classes (that have a video in it); fewest and
        most (videos of a class, over all classes); of_train (share of `train` that it holds).
    """
    train = set(dataset.read_split("train").tolist()) if "train" in dataset.split_names() else set()
    rows = {}
    for name in dataset.split_names():
        videos = dataset.read_split(name)
        counts = class_counts(dataset, name)
        inside = len(train.intersection(videos.tolist())) / len(train) if train else float("nan")
        rows[name] = (len(videos), int((counts > 0).sum()), counts.min(), counts.max(), inside)
    columns = ["videos", "classes", "fewest", "most", "of_train"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def class_counts(dataset: VideoDataset, split_name: str) -> pd.Series:
    """Return the number of a list's videos of each class, classes in label order, int64."""
    return _count(dataset, dataset.read_labels(split_name)[1])


def _count(dataset: VideoDataset, labels: np.ndarray) -> pd.Series:
    counts = np.bincount(labels, minlength=len(dataset.classes))
    return pd.Series(counts, index=list(dataset.classes))


def compare_splits(dataset: VideoDataset, first: str, second: str) -> pd.DataFrame:
    """Compare two lists class by class.

    Args:
        dataset: The prepared data set.
        first: Name of a list in `splits/`, or a path.
        second: The other one.

    Returns:
        One row a class, in label order; columns: first, second (videos of the class in each),
        both (videos in both), missing (which of the two lacks the class: "", "first", "second" or
        "both").
    """
    shared = np.intersect1d(dataset.read_split(first), dataset.read_split(second))
    table = pd.DataFrame(
        {
            "first": class_counts(dataset, first),
            "second": class_counts(dataset, second),
            "both": _count(dataset, dataset.index["label"].to_numpy()[shared]),
        }
    )
    lacks = (table[["first", "second"]] == 0).to_numpy()
    names = {(False, False): "", (True, False): "first", (False, True): "second"}
    table["missing"] = [names.get(tuple(pair), "both") for pair in lacks.tolist()]
    return table


@dataclass(frozen=True)
class SplitImport:
    """What came of taking over a list.

    Attributes:
        name: Name of the list that was written.
        rows: Index rows of its videos.
        problems: Columns name, problem, in_list, here; one row for each video that is missing or
            of an unknown class, or whose frames or label differ.
    """

    name: str
    rows: np.ndarray
    problems: pd.DataFrame

    def summary(self) -> str:
        """Say in one line how many videos were found and what differs."""
        counts = self.problems["problem"].value_counts(sort=False)
        parts = [f"{count} {problem}" for problem, count in counts.items()]
        return f"{self.name}: {len(self.rows)} videos" + "".join(f", {part}" for part in parts)


def import_split(
    dataset: VideoDataset, split_name: str, entries: Sequence[SplitEntry], source: str
) -> SplitImport:
    """Write a published list as a list of this data set.

    Videos that are not in the index are left out, and labels are those of the index; both are
    written to `splits/<split_name>.problems.csv`.

    Args:
        dataset: The prepared data set.
        split_name: Name of the list to write.
        entries: The published list.
        source: Where it is from, for messages.

    Raises:
        ValueError: If a video is listed twice, or none is in the index.
    """
    found = find_entries(dataset, [entry.name for entry in entries])
    rows = found[found >= 0]
    if len(rows) == 0:
        raise ValueError(
            f"{source}: none of its {len(entries)} videos is in {dataset.folder / 'index.csv'}, "
            f"the first of the list is {entries[0].name!r}, the first of the index "
            f"{dataset.index['name'].iloc[0]!r}; is it the list of another data set?"
        )
    if len(np.unique(rows)) < len(rows):
        row = rows[pd.Index(rows).duplicated()][0]
        raise ValueError(f"{source}: lists {dataset.index['name'].iloc[row]!r} more than once")
    problems = pd.DataFrame(
        _problems(dataset, entries, found), columns=["name", "problem", "in_list", "here"]
    )
    write_split(dataset, split_name, rows)
    report = dataset.folder / "splits" / f"{split_name}.problems.csv"
    if len(problems):
        write_changed(report, problems.to_csv(index=False))
    elif report.exists():
        report.unlink()
    return SplitImport(split_name, rows, problems)


def _problems(
    dataset: VideoDataset, entries: Sequence[SplitEntry], found: np.ndarray
) -> Iterable[tuple]:
    labels, frames = dataset.index["label"].to_numpy(), dataset.index["frames"].to_numpy()
    classes = {loose_class(name) for name in dataset.classes}
    for entry, row in zip(entries, found.tolist(), strict=True):
        if row < 0:
            class_name = entry.name.rpartition("/")[0]
            is_known = not class_name or loose_class(class_name) in classes
            yield entry.name, "missing" if is_known else "of an unknown class", "", ""
            continue
        if entry.frames is not None and entry.frames != frames[row]:
            yield entry.name, "with other frames", entry.frames, int(frames[row])
        if entry.label is not None and entry.label != labels[row]:
            yield entry.name, "with another label", entry.label, int(labels[row])


def find_entries(dataset: VideoDataset, names: Sequence[str]) -> np.ndarray:
    """Find videos by the names that a published list gives them.

    Tried in turn: the whole name; the class written differently (blanks, underscores, brackets,
    capitals); for a name without a class the stem, where only one video has it; in Kinetics, the
    YouTube id.

    Returns:
        Index rows, -1 where a video is not there, shape (len(names),), int64.
    """
    ways: list[tuple[Spelling, Spelling]] = [(str, str), (loose_name, loose_name), (str, stem_of)]
    ways += [(youtube_id, youtube_id)] if has_youtube_ids(dataset.name) else []
    return find_names(names, dataset.index["name"].tolist(), ways)


def find_names(
    names: Sequence[str], known: Sequence[str], ways: Iterable[tuple[Spelling, Spelling]]
) -> np.ndarray:
    """Find names among known ones.

    Args:
        names: `class/stem`, or the stem alone.
        known: The same.
        ways: How a name and a known name are spelled to be compared; tried in turn. What several
            known ones are spelled like stands for none of them.

    Returns:
        Positions in `known`, -1 where a name is not there, shape (len(names),), int64.
    """
    rows = np.full(len(names), -1, dtype=np.int64)
    for of_name, of_known in ways:
        missing = np.flatnonzero(rows < 0)
        if not len(missing):
            break
        table = pd.Series(np.arange(len(known)), index=[of_known(name) for name in known])
        table = table[~table.index.duplicated(keep=False)]
        wanted = [of_name(names[position]) for position in missing]
        rows[missing] = table.reindex(wanted, fill_value=-1).to_numpy()
    return rows


def loose_class(name: str) -> str:
    """Return a class name as it is compared: lower case, all but letters and digits as one `_`."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def loose_name(name: str) -> str:
    """Return `class/stem` with the class as it is compared."""
    class_name, _, stem = name.rpartition("/")
    return f"{loose_class(class_name)}/{stem}"


def stem_of(name: str) -> str:
    """Return a name without its class."""
    return name.rpartition("/")[2]


def youtube_id(name: str) -> str:
    """Return the YouTube id that a name in Kinetics begins with."""
    return stem_of(name)[:YOUTUBE_ID]


def has_youtube_ids(dataset_name: str) -> bool:
    """Tell whether a data set's videos are named by their YouTube ids."""
    return dataset_name.startswith("kinetics")
