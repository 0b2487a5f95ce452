"""Pseudo-labels of a run's unlabeled videos, decisions about them, and the split that results.

    python -m lib.evaluate.pseudo_labels outputs/videos/semi_seed0
    python -m lib.evaluate.pseudo_labels outputs/videos/semi_seed0 --split checked

The first command writes `pseudo_labels.csv` to the run's folder: a row for each video of its
unlabeled split that has no label in the run, the least confident first. The browser of notebook 6
or a spreadsheet fills the column `decision`; a repeated first command keeps it. The second command
writes the labeled and the decided videos with their labels as `splits/<name>.txt` of the data set,
and prints the command that trains with them.

name        the video
label       the class of its fused score, by the run's test protocol
confidence  its probability, calibrated if the validation split is tested
second      the second class
agreement   share of the video's views (clips x crops) whose own best class is `label`
decision    the class that a person decided on, `?` if skipped; empty if not decided yet
"""

import argparse
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from lib.config import short_path
from lib.data.dataset import write_split
from lib.data.video_reader import UnreadableVideoError
from lib.evaluate.trained_model import NOT_CALIBRATED, TrainedModel, check_finished
from lib.fileio import reading, write_text
from lib.runs.run_dir import RunDir
from lib.train.run_data import RunData, load_data
from lib.train.scoring import VideoViews

TABLE = "pseudo_labels.csv"
COLUMNS = dict.fromkeys(["name", "label", "confidence", "second", "agreement", "decision"], str)
COLUMNS |= {"confidence": float, "agreement": float}
SKIPPED = "?"
SPLIT_NAME = r"[^\W\d][\w.+-]*"
BATCH_CLIPS = 16
MAX_SHOWN = 10  # rows that the command prints


def unlabeled_rows(run: RunDir, data: RunData) -> np.ndarray:
    """Return the index rows of the videos that a run used without a label, in the split's order.

    ValueError if there are none, or they are in another data set than the labels.
    """
    s = run.settings()
    if not s.reads_unlabeled:
        problem = f"objective {s.objective!r} uses no unlabeled videos; choose another run"
    elif data.unlabeled.folder != data.labeled.folder:
        problem = "its unlabeled videos are of another data set than its labeled ones; "
        problem += "choose a run without unlabeled_dataset"
    elif not len(data.other_rows):
        problem = f"all of unlabeled_split {s.unlabeled_split!r} is labeled in this run; "
        problem += "choose a run with a smaller labeled_fraction"
    else:
        return data.other_rows
    raise ValueError(f"{run.params_path}: {problem}")


def pseudo_label(model: TrainedModel, logits: Tensor) -> tuple[int, float, int, float]:
    """Return class, confidence, second class and agreement of the logits (V, K) of its views."""
    share = model.probabilities(logits[None])[0]
    first, second = share.argsort(descending=True, stable=True)[:2].tolist()
    agreement = (logits.argmax(dim=1) == first).double().mean()
    return first, float(share[first]), second, float(agreement)


def write_pseudo_labels(run: RunDir) -> pd.DataFrame:
    """Score the unlabeled videos of a run, write `pseudo_labels.csv` and return that table.

    Unreadable videos are left out and printed.
    """
    settings = run.settings()
    data = load_data(settings)
    rows, dataset = unlabeled_rows(run, data), data.labeled
    check_finished(run)
    model = TrainedModel.load(run, classes=dataset.classes)
    if model.calibration is None:
        print(NOT_CALIBRATED)
    views, labeled = VideoViews(dataset, rows, model.protocol, settings.frame_cache_mb), []
    for position, row in enumerate(tqdm(rows.tolist(), unit="video", disable=None)):
        try:
            clips = model.protocol.crops.views(*views[position])
        except UnreadableVideoError as error:
            print(f"left out: {error}", file=sys.stderr)
            continue
        logits = torch.cat([model.view_logits(part) for part in clips.split(BATCH_CLIPS)])
        label, confidence, second, agreement = pseudo_label(model, logits)
        label, second = model.classes[label], model.classes[second]
        labeled.append((dataset.record(row).name, label, confidence, second, agreement, ""))
    if not labeled:
        raise ValueError(f"{dataset.root}: none of {len(rows)} unlabeled videos can be read")
    table = pd.DataFrame(labeled, columns=list(COLUMNS)).round({"confidence": 4, "agreement": 4})
    table = table.sort_values(["confidence", "agreement", "name"], ignore_index=True)
    if (run.folder / TABLE).is_file():
        before = PseudoLabels(run).table.set_index("name")["decision"]
        table["decision"] = table["name"].map(before).fillna("")
    write_text(run.folder / TABLE, table.to_csv(index=False))
    return table


class PseudoLabels:
    """The pseudo-labels of a run and the decisions about them, columns `COLUMNS` of `table`."""

    def __init__(self, run: RunDir):
        self.run, self.data = run, load_data(run.settings())
        self.table = self._read()

    def decide(self, name: str, decision: str) -> None:
        """Save the class of a video, or `SKIPPED`."""
        table = self._read()  # another window may have written
        table.loc[table["name"] == name, "decision"] = decision
        self._write(table)

    def accept_from(self, confidence: float) -> None:
        """Accept the undecided pseudo-labels from a confidence on, in [0, 1], and save them."""
        table = self._read()
        chosen = (table["decision"] == "") & (table["confidence"] >= confidence)
        table.loc[chosen, "decision"] = table.loc[chosen, "label"]
        self._write(table)

    def _write(self, table: pd.DataFrame) -> None:
        write_text(self.run.folder / TABLE, table.to_csv(index=False))
        self.table = table

    def write_split(self, split_name: str) -> Path:
        """Write the labeled videos of the run and the decided ones as a split of the data set."""
        dataset = self.data.labeled
        decided = self.table[~self.table["decision"].isin(["", SKIPPED])]
        if decided.empty:
            problem = "no pseudo-label is accepted or corrected yet; do so in notebook 6"
            raise ValueError(f"{self.run.folder / TABLE}: {problem}")
        if not re.fullmatch(SPLIT_NAME, split_name):
            rule = "a word of letters, digits, '_', '.', '+' and '-' that begins with a letter"
            raise ValueError(f"split name {split_name!r}: must be {rule}; choose 'checked'")
        if (path := dataset.folder / "splits" / f"{split_name}.txt").exists():
            raise ValueError(f"split name {split_name!r}: {path} exists; choose another name")
        rows = pd.Index(dataset.index["name"]).get_indexer(decided["name"])
        relabeled = dataset.relabeled(rows, list(map(dataset.classes.index, decided["decision"])))
        rows = np.concatenate([self.data.labeled_rows, rows])
        return write_split(relabeled, str(path), rows)

    def _read(self) -> pd.DataFrame:
        """Read the table; ValueError if a name or a class does not fit the run."""
        names = self.data.labeled.index["name"].to_numpy()[unlabeled_rows(self.run, self.data)]
        path, folder = self.run.folder / TABLE, shlex.quote(short_path(self.run.folder))
        with reading(path, f"create it with python -m lib.evaluate.pseudo_labels {folder}"):
            table = pd.read_csv(path, dtype=COLUMNS, keep_default_na=False)[list(COLUMNS)]
        classes = list(self.data.labeled.classes)
        valid = {column: table[column].isin(classes) for column in ("label", "second")}
        valid["name"] = table["name"].isin(names) & ~table["name"].duplicated()
        valid["decision"] = table["decision"].isin([*classes, "", SKIPPED])
        for column, is_valid in valid.items():
            if not is_valid.all():
                line = int(is_valid.to_numpy().argmin())
                source = f"{path}, line {line + 2}: {column} {table[column].iloc[line]!r}"
                problem = "is no class of the data set"
                if column == "name":
                    problem = "occurs twice, or is no unlabeled video of the run"
                raise ValueError(f"{source} {problem}; correct that line, or delete the file")
        return table


def training_command(run: RunDir, split_name: str) -> str:
    """Return the command that trains a run like this one with another labeled split."""
    base, mark, seed = run.name.rpartition("_seed")
    name = f"{base}_{split_name}{mark}{seed}" if mark else f"{run.name}_{split_name}"
    folder = short_path(run.folder.with_name(name))
    words = ["python", "-m", "lib.batch", "--from", short_path(run.folder)]
    for value in (f"labeled_split={split_name}", "labeled_fraction=1.0", f"run_dir={folder}"):
        words += ["--set", value]
    return shlex.join(words)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    prog, style = "python -m lib.evaluate.pseudo_labels", argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog=prog, description=__doc__, formatter_class=style)
    parser.add_argument("run", help="folder of a finished run that used unlabeled videos")
    parser.add_argument("--split", metavar="NAME", help="write the decisions as a labeled split")
    options = parser.parse_args(arguments)
    try:
        run = RunDir(options.run)
        if options.split is not None:
            print(f"written: {PseudoLabels(run).write_split(options.split)}; to train with it:")
            print(training_command(run, options.split))
            return 0
        table = write_pseudo_labels(run)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(table.head(MAX_SHOWN).round(2).to_string(index=False))
    print(f"{len(table)} videos: {run.folder / TABLE}; review them in notebook 6")
    return 0


if __name__ == "__main__":
    sys.exit(main())
