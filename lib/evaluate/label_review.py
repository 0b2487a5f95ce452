"""What a person decided about the pseudo-labels of a run, and the labelled list that comes of it.

`pseudo_labels.csv`, in the run's folder, is what the network says (`lib.evaluate.pseudo_labels`);
`pseudo_decisions.csv` what was decided: name, label (empty: skipped), and the pseudo-label. In the
data set, `splits/<name>.txt` becomes the run's labelled videos and those that were decided, and
`splits/decided/<name>.txt` names those of them whose label differs from the index.
"""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from lib.config import PROJECT_ROOT
from lib.data.dataset import write_split
from lib.fileio import reading, write_text
from lib.runs.run_dir import RunDir
from lib.train.setup import Data, load_data

TABLE, DECISIONS = "pseudo_labels.csv", "pseudo_decisions.csv"
COLUMNS = {"name": str, "label": str, "confidence": float, "second": str, "agreement": float}
DECISION_COLUMNS = {"name": str, "label": str, "pseudo_label": str}
PLAIN_NAME, PLAIN_VALUE = r"[^\W\d][\w.+-]*", r"[\w./+-]+"


def unlabeled_rows(run: RunDir, data: Data) -> np.ndarray:
    """Return the index rows of the videos that a run used without a label, in the list's order.

    Raises:
        ValueError: If there are none, or they are in another data set than the labels.
    """
    settings = run.settings()
    if not settings.reads_unlabeled:
        why = f"objective {settings.objective!r} uses no unlabelled videos; choose another run"
    elif data.unlabeled.folder != data.labeled.folder:
        why = (
            f"unlabeled_dataset is {settings.unlabeled_dataset!r}, and a labelled list has videos "
            f"of {settings.dataset!r} only; choose a run without unlabeled_dataset"
        )
    else:
        rows = data.other_rows
        if len(rows):
            return rows
        why = (
            f"all of unlabeled_split {settings.unlabeled_split!r} is labelled in this run; choose "
            "one with a smaller labeled_fraction"
        )
    raise ValueError(f"{run.params_path}: {why}")


class PseudoLabels:
    """The pseudo-labels of a run and what was decided about them.

    Args:
        run: The run.

    Attributes:
        data: What the run learned from.
        table: The pseudo-labels, columns `COLUMNS`.
        said: Video -> the class that the network gives it.
        decisions: Video -> the class that was decided, empty where it was skipped.

    Raises:
        ValueError: If a file is missing, damaged, or of other videos or classes.
    """

    def __init__(self, run: RunDir):
        self.run, self.data = run, load_data(run.settings())
        names = self.data.labeled.index["name"].to_numpy()[unlabeled_rows(run, self.data)]
        self.table = self._read(TABLE, COLUMNS, names, f"make it with {table_command(run)}")
        self.said = dict(zip(self.table["name"], self.table["label"], strict=True))
        self.decisions = self._read_decisions()

    def decide(self, name: str, label: str) -> None:
        """Write down at once which class a video has; an empty one skips it."""
        decisions = self._read_decisions() | {name: label}  # another window may have written
        rows = [(video, given, self.said[video]) for video, given in decisions.items()]
        text = pd.DataFrame(rows, columns=list(DECISION_COLUMNS)).to_csv(index=False)
        write_text(self.run.folder / DECISIONS, text)
        self.decisions = decisions

    def write_split(self, split_name: str) -> Path:
        """Write the run's labelled videos and those that were decided as a list of the data set.

        Raises:
            ValueError: If nothing was decided, or the name is taken or not plain.
        """
        dataset, given = self.data.labeled, {k: v for k, v in self.decisions.items() if v}
        if not given:
            raise ValueError(
                f"{self.run.folder / DECISIONS}: no pseudo-label is accepted or corrected yet; do "
                f"so in notebooks/4_evaluate.ipynb with run_dir = {_short(self.run.folder)!r}"
            )
        if not re.fullmatch(PLAIN_NAME, split_name) or yaml.safe_load(split_name) != split_name:
            raise ValueError(
                f"list name {split_name!r}: must be a word that begins with a letter and has "
                "letters, digits, '_', '.', '+' and '-' only; for instance 'checked'"
            )
        if (path := dataset.folder / "splits" / f"{split_name}.txt").exists():
            raise ValueError(f"list name {split_name!r}: {path} is there; choose another name")
        rows = pd.Index(dataset.index["name"]).get_indexer(list(given))
        labels = [dataset.classes.index(label) for label in given.values()]
        relabeled = dataset.relabeled(rows, labels)
        labels = relabeled.index["label"].to_numpy()
        rows = np.concatenate([self.data.labeled_rows, rows])
        differ = rows[labels[rows] != self.data.unlabeled.index["label"].to_numpy()[rows]]
        if len(differ):  # written first: without it the list would be refused
            write_split(relabeled, str(path.parent / "decided" / path.name), differ)
        return write_split(relabeled, str(path), rows)

    def _read_decisions(self) -> dict[str, str]:
        if not (self.run.folder / DECISIONS).is_file():
            return {}
        remedy = "correct that line, or delete the file and decide anew"
        found = self._read(DECISIONS, DECISION_COLUMNS, self.table["name"], remedy)
        return dict(zip(found["name"], found["label"], strict=True))

    def _read(self, file: str, columns: dict, known: object, remedy: str) -> pd.DataFrame:
        """Return a table of the run's folder; ValueError if a name or a class does not fit."""
        with reading(path := self.run.folder / file, remedy):
            table = pd.read_csv(path, dtype=columns, keep_default_na=False)[list(columns)]
        classes = {*self.data.labeled.classes, *([""] if file == DECISIONS else [])}
        checks = [
            ("name", ~table["name"].isin(known), "is no unlabelled video of the run"),
            ("name", table["name"].duplicated(), "is there twice"),
        ]
        for name in {"label", "second"} & columns.keys():
            checks.append((name, ~table[name].isin(classes), "is no class of the data set"))
        for name, is_wrong, why in checks:
            if is_wrong.any():
                line = int(is_wrong.to_numpy().argmax())
                text = f"{name} {table[name].iloc[line]!r} {why}"
                raise ValueError(f"{path}, line {line + 2}: {text}; {remedy}")
        return table


def table_command(run: RunDir) -> str:
    """Return the command that makes a run's table of pseudo-labels."""
    return f"python -m lib.evaluate.pseudo_labels {shlex.quote(_short(run.folder))}"


def command_to_go_on(run: RunDir, split_name: str) -> str:
    """Return the command that trains a run like this one with another labelled list."""
    base, mark, seed = run.name.rpartition("_seed")
    name = f"{base}_{split_name}{mark}{seed}" if mark else f"{run.name}_{split_name}"
    place = _short(run.folder.with_name(name))
    if not re.fullmatch(PLAIN_VALUE, place):
        place = json.dumps(place, ensure_ascii=False)  # as YAML
    values = (f"labeled_split={split_name}", "labeled_fraction=1.0", f"run_dir={place}")
    words = ["python -m lib.batch --from", shlex.quote(_short(run.folder))]
    return " ".join([*words, *(f"--set {shlex.quote(value)}" for value in values)])


def _short(path: Path) -> str:
    return str(path.relative_to(PROJECT_ROOT) if path.is_relative_to(PROJECT_ROOT) else path)
