"""Accuracy of `params/folder` on videos that took no part in any choice, fold by fold.

    python -m benchmarks.bench_folder /data/weizmann --labels 1 --folds 0 1 2 --set epochs=15
    python -m benchmarks.bench_folder --report

A fold is an own folder of links: `--labels` videos of each class, the others in `unlabeled/`, and a
validation and a test part. Parts are persons (the start of a name `person_action.avi`, held out in
turn) or, of a folder with `train/` and `val/`, the halves of `val/`, drawn like the labels by the
number of the fold. `--share 0.5` keeps half of the training videos.

Each finished run adds its lines to `outputs/bench_folder/results.csv`; the same command continues.
"""

import argparse
import csv
import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.timing import describe_machine, print_table
from lib.batch.__main__ import parse_set
from lib.batch.plan import read_plan
from lib.config import PROJECT_ROOT, EvaluateSettings, TrainSettings
from lib.data.dataset import read_dataset, write_split
from lib.evaluate.test import evaluate
from lib.prepare.catalog import dataset_folder
from lib.prepare.find_videos import find_videos
from lib.prepare.steps import prepare_for
from lib.runs.run_dir import RunDir, group_of
from lib.train.fit import fit

OUTPUTS = PROJECT_ROOT / "outputs" / "bench_folder"
RESULTS = OUTPUTS / "results.csv"
KEYS = ["data", "settings", "fold", "run"]
COLUMNS = [*KEYS, "checkpoint", "epoch", "steps", "validation", "test", "videos", "seconds"]
START, METHOD = "probe_self_trained", "semi"
VALIDATION, TEST = "validation", "test"


def divide(videos: pd.DataFrame, fold: int, labels: int, share: float) -> pd.Series:
    """Return the part of each video: labeled, unlabeled, validation, test; empty if left out."""
    rng = np.random.default_rng(fold)
    order = rng.permutation(len(videos))
    rank = videos.iloc[order].groupby(["part", "class"]).cumcount().sort_index()
    size = videos.groupby(["part", "class"])["path"].transform("size")
    if (videos["part"] == "val").any():
        held_out = np.where(rank % 2, VALIDATION, TEST)
        part = pd.Series(np.where(videos["part"] == "val", held_out, "unlabeled"), videos.index)
    else:
        person = videos["name"].str.extract(r"/([^/_]+)_[^/]*$")[0]
        names = sorted(person.unique())
        held_out = {names[fold]: TEST, names[(fold + 1) % len(names)]: VALIDATION}
        part = person.map(held_out).fillna("unlabeled")
        rank = rank.where(part == "unlabeled").groupby(videos["class"]).rank() - 1
        size = size - len(held_out)
    is_train = part == "unlabeled"
    part[is_train & (rank < labels)] = "labeled"
    part[is_train & (rank >= share * size)] = ""
    return part


def make_folder(root: Path, place: Path, part: pd.Series, videos: pd.DataFrame) -> None:
    """Make an own folder of links to the videos of `find_videos`."""
    shutil.rmtree(place, ignore_errors=True)
    for path, class_name, of in zip(videos["path"], videos["class"], part, strict=True):
        folder = {"labeled": f"train/{class_name}", "unlabeled": "train/unlabeled", "": ""}
        inside = folder.get(of, f"val/{class_name}")
        if inside:
            link = place / inside / f"{of}_{path.replace('/', '-')}"
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(root / path)


def write_parts(settings: TrainSettings) -> None:
    """Write the splits `validation` and `test`, the halves of `val`, of a prepared folder."""
    folder = dataset_folder("folder", settings.videos_dir, settings.prepared_dir)
    dataset = read_dataset(folder)
    names = dataset.index["path"].str.rsplit("/", n=1).str[-1]
    for part in (VALIDATION, TEST):
        write_split(dataset, part, np.flatnonzero(names.str.startswith(f"{part}_")))


def run_once(settings: TrainSettings) -> list[list[object]]:
    """Train and test a run; return a line of results for each of its two checkpoints."""
    started, lines = time.process_time(), []
    for which in ("best", "last"):
        run = fit(settings.model_copy(update={"test_checkpoint": which}))
        evaluate(EvaluateSettings(run_dir=settings.run_dir, num_processes=1))
        splits = json.loads(run.metrics_path.read_text())["splits"]
        tested = [splits[part]["top1"] for part in (VALIDATION, TEST)]
        state = run.load(which)
        line = [which, state["epoch"], state["step"], *tested, splits[TEST]["videos"]]
        lines.append([*line, round(time.process_time() - started)])
        if settings.objective == "linear_probe":
            break
    return lines


def measure(root: Path, options: argparse.Namespace) -> None:
    """Make the runs that are missing."""
    grid = {name: values for name, values in map(parse_set, options.set)}
    videos = find_videos(root).videos
    data = f"{root.name}, {options.labels} labels"
    data += f", {options.share:g} of it" if options.share < 1 else ""
    for fold in options.folds:
        place = OUTPUTS / "folders" / f"{root.name}_{options.share:g}_{options.labels}_{fold}"
        make_folder(root, place, divide(videos, fold, options.labels, options.share), videos)
        fixed = {"videos_dir": [str(place)], "prepared_dir": [str(OUTPUTS / "data")]}
        fixed |= {"val_split": [VALIDATION], "test_splits": [[VALIDATION, TEST]]}
        for planned in read_plan(["params/folder"], fixed | {"num_processes": [1]} | grid):
            name = group_of(planned.name)
            key = [data, " ".join(options.set) or "as is", fold, name]
            if name not in options.runs or key in read_results()[KEYS].to_numpy().tolist():
                continue
            settings = planned.settings.model_copy(update={"run_dir": str(OUTPUTS / "run")})
            prepare_for(settings.model_copy(update={"val_split": "val", "test_splits": ["val"]}))
            write_parts(settings)
            shutil.rmtree(RunDir(settings.run_dir).folder, ignore_errors=True)
            append_results([key + line for line in run_once(settings)])


def read_results() -> pd.DataFrame:
    """Return the lines of all finished runs, columns `COLUMNS`."""
    return pd.read_csv(RESULTS) if RESULTS.is_file() else pd.DataFrame(columns=COLUMNS)


def append_results(lines: Sequence[Sequence[object]]) -> None:
    """Add lines to the table."""
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    is_new = not RESULTS.exists()
    with RESULTS.open("a", newline="") as file:
        csv.writer(file).writerows([*([COLUMNS] if is_new else []), *lines])


def report(results: pd.DataFrame) -> None:
    """Print test top-1 of each run, and what is kept of the start, per data set."""
    print(describe_machine())
    for (data, settings), rows in results.groupby(["data", "settings"], sort=False):
        is_kept = rows["checkpoint"] == "best"
        rows = rows.assign(run=rows["run"].where(is_kept, rows["run"] + ", last"))
        table = rows.pivot_table("test", "fold", "run", sort=False)
        if {START, METHOD} <= set(table):
            table["kept - start"] = table[METHOD] - table[START]
            table["epoch kept"] = rows[rows["run"] == METHOD].set_index("fold")["epoch"]
        table.loc["mean"] = table.mean()
        title = f"{data}; {settings}; {rows['videos'].max()} test videos a fold; top-1 (%)"
        print_table(title, ["fold", *table], table.reset_index().to_numpy().tolist())


def main() -> None:
    """Measure what is missing and print what there is."""
    parser = argparse.ArgumentParser(prog="benchmarks.bench_folder", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("root", nargs="?", type=Path, help="a folder of videos in class folders")
    parser.add_argument("--labels", type=int, default=1, help="labeled videos of each class")
    parser.add_argument("--share", type=float, default=1.0, help="of the training videos")
    parser.add_argument("--folds", type=int, nargs="+", default=[0, 1, 2])
    runs = ["probe", START, "supervised", METHOD]
    parser.add_argument("--runs", nargs="+", choices=runs, default=runs)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--report", action="store_true", help="train nothing")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if not options.report:
        measure(options.root.resolve(), options)
    report(read_results())


if __name__ == "__main__":
    main()
