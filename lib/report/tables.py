"""Runs of a study, and the tables of its report: groups, published numbers, costs, exports.

A summary is the table of `summarize`, comparisons are those of `verdict.compare_groups`, and
baselines those of `verdict.find_baselines`. A damaged run is left out.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lib.config import PROJECT_ROOT, TrainSettings
from lib.data.dataset import prepared_folder, read_dataset
from lib.data.frame_tables import SOFT_TARGETS, read_soft_targets
from lib.evaluate.run_results import best_in_validation, read_log, read_scores
from lib.fileio import write_text
from lib.jupyter.html import escape
from lib.plots.evaluation import confusion_matrix
from lib.report.verdict import Pair, accuracy_interval
from lib.runs.run_dir import METRICS, RunDir, group_of, read_result
from lib.train.run_data import load_data
from lib.train.scoring import metrics

SHOWN_COLUMNS = {  # of the summary, and their names in the report
    "run": "run",
    "split": "split",
    "top1": "top-1 (%)",
    "interval": "95 % interval",
    "mean_class_accuracy": "mean of classes (%)",
    "videos": "videos",
    "steps": "steps",
    "train_minutes": "minutes",
}
UNLABELED_ONLY = ("unlabeled_", "confidence_", "threshold_", "temperature")  # starts of settings
PAPER_NUMBERS = PROJECT_ROOT / "params" / "paper.csv"
LITERATURE = PROJECT_ROOT / "params" / "literature.csv"
LITERATURE_COLUMNS = [
    "method", "backbone", "pretraining", "labeled_videos", "top1", "views", "epochs",
]  # fmt: skip


# --- Runs -----------------------------------------------------------------------------------------


def read_runs(study_dir: Path) -> tuple[list[RunDir], dict[str, str]]:
    """Return the tested runs of a study, sorted by name, and the problem of each other run."""
    readable, problems = [], {}
    for path in sorted(study_dir.glob("*/params.yaml")):
        run = RunDir(path.parent)
        try:
            for row in run_rows(run):
                read_scores(run, row["split"])
            readable.append(run)
        except ValueError as error:
            problems[run.name] = str(error)
    if not readable:
        lines = [f"{study_dir}: no tested run; run notebooks 3 and 4, or python -m lib.batch"]
        lines += [f"  {name}: {problem}" for name, problem in problems.items()]
        raise ValueError("\n".join(lines))
    return readable, problems


def summarize(runs: Sequence[RunDir]) -> pd.DataFrame:
    """Return one row per run and test split, columns as of `run_rows`."""
    return pd.DataFrame([row for run in runs for row in run_rows(run)])


def run_rows(run: RunDir) -> list[dict[str, Any]]:
    """Return the row of each test split of a run: accuracies in percent, settings and cost."""
    settings, results, log = run.settings(), read_result(run), read_log(run)
    for name in ("seconds", "samples_per_s"):
        if name not in log or not pd.api.types.is_numeric_dtype(log[name]):
            problem = f"damaged, no numbers {name!r}; delete the run folder and train it again"
            raise ValueError(f"{run.log_path}: {problem}")
    group = group_of(run.name)
    columns = {
        "seed": seed_of(run),
        "dataset": settings.dataset,
        "objective": settings.objective,
        "model": settings.model,
        "view": settings.labeled_view + (" + scene" if settings.labeled_scene_p > 0 else ""),
        "labels": results["labels"],
        "unlabeled": results.get("unlabeled", 0),
        "epochs": settings.epochs,
        "steps": 0 if settings.objective == "linear_probe" else int(log["step"].iloc[-1]),
        "train_minutes": round(log["seconds"].iloc[-1] / 60, 2),
        "clips_per_s": round(log["samples_per_s"].median(), 1),
        "memory_mb": log["memory_mb"].max() if "memory_mb" in log else None,
        "machine": machine_of(run),
        "clips": settings.test_num_clips,
        "crops": settings.test_num_crops,
    }
    return [
        {"run": run.name, "group": group, "split": name}
        | {metric: round(values[metric], 3) for metric in METRICS}
        | columns
        for name, values in results["splits"].items()
    ]


def seed_of(run: RunDir) -> str:
    """Return the seed of a run, from its name or else from its settings."""
    name = run.name.removeprefix(group_of(run.name)).removeprefix("_seed")
    return name or str(run.settings().seed)


def machine_of(run: RunDir) -> str:
    """Describe the GPUs, or else the cores, of the machine that trained a run."""
    environment = run.environment()
    if gpus := environment.get("gpus"):
        return f"{len(gpus)} × {gpus[0]}"
    return f"{environment['cpu_count']} CPU cores" if "cpu_count" in environment else "unknown"


def run_table(summary: pd.DataFrame) -> pd.DataFrame:
    """Return the columns `SHOWN_COLUMNS` of every run on every split; the interval is Wilson's."""
    ends = itertools.starmap(accuracy_interval, summary[["top1", "videos"]].itertuples(index=False))
    table = summary.assign(interval=[f"{low:.0f} to {high:.0f}" for low, high in ends])
    table = table[[*SHOWN_COLUMNS]].rename(columns=SHOWN_COLUMNS)
    return table.set_index("run").round(1)


# --- Groups ---------------------------------------------------------------------------------------


def zero_shot_rows(runs: Sequence[RunDir]) -> pd.DataFrame:
    """Return the top-1 of class names alone, in percent, for each network and test split.

    The networks are those of `lib.prepare --soft_targets` on the data set of all runs. Prints why a
    table cannot be used.
    """
    rows: list[dict[str, Any]] = []
    folders = {prepared_folder(*run.settings().labeled_source) for run in runs}
    splits = dict.fromkeys(name for run in runs for name in run.settings().test_splits)
    for path in sorted(folders.pop().glob(f"{SOFT_TARGETS}*.csv")) if len(folders) == 1 else []:
        try:
            dataset = read_dataset(path.parent)
            for split in splits:
                tested, labels = dataset.read_labels(split)
                shares = read_soft_targets(path, dataset, tested)[tested]
                group = f"no labels: class names by {path.stem.removeprefix(SOFT_TARGETS)}"
                rows.append({"group": group, "split": split} | metrics(shares, labels))
        except ValueError as error:
            print(error)
    return pd.DataFrame(rows)


def group_table(summary: pd.DataFrame, zero_shot: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return mean and deviation of top-1 over seeds: a row per group, a column per split."""
    summary = pd.concat([summary, zero_shot])

    def mean_and_deviation(top1: pd.Series) -> str:
        mean = f"{top1.mean():.1f}"
        return mean if len(top1) == 1 else f"{mean} ± {top1.std():.1f}"

    grouped = summary.groupby(["group", "split"], sort=False)["top1"]
    groups, splits = summary["group"].unique(), summary["split"].unique()
    table = grouped.agg(mean_and_deviation).unstack(fill_value="").loc[groups, splits]
    table.columns = [f"{name}, top-1 (%)" for name in splits]
    table.insert(0, "seeds", grouped.size().groupby("group").first())
    return table


def paper_table(summary: pd.DataFrame, study: str) -> pd.DataFrame:
    """Compare our top-1 on the first split with confirmed numbers of the paper, in percent."""
    paper = pd.read_csv(PAPER_NUMBERS)
    paper = paper[paper["study"] == study].set_index("run")
    first_split = summary[summary["split"] == summary["split"].iloc[0]]
    top1 = first_split.groupby("group", sort=False)["top1"].agg(["mean", "std"]).round(1)
    table = top1.join(paper[["top1", "source"]], how="inner").rename_axis("group")
    table = table.rename(columns={"top1": "paper", "mean": "ours", "std": "± over seeds"})
    table["difference"] = (table["ours"] - table["paper"]).round(1)
    return table[["paper", "ours", "± over seeds", "difference", "source"]]


def cost_table(summary: pd.DataFrame) -> pd.DataFrame:
    """Return the cost of the runs of each group: means over seeds, peak memory, machine."""
    runs = summary.drop_duplicates("run").groupby("group", sort=False)
    columns = {
        "training (minutes)": runs["train_minutes"].mean().round(2),
        "clips per second": runs["clips_per_s"].mean().round(1),
        "peak memory of a process (MB)": runs["memory_mb"].max(),
        "machine": runs["machine"].agg(lambda names: "; ".join(dict.fromkeys(names))),
    }
    return pd.DataFrame(columns)


def groups_to_compare(runs: Sequence[RunDir], pairs: Sequence[Pair]) -> list[str]:
    """Return the groups of the first question, the baseline first.

    Without a question it is the group of the recommended run (`best_in_validation`), or the first.
    """
    groups = {group_of(run.name) for run in runs}
    tested = (pair for pair in pairs if {pair.better, pair.worse} <= groups)
    best = best_in_validation(runs) or runs[0]
    return next(([pair.worse, pair.better] for pair in tested), [group_of(best.name)])


def read_invariance(runs: Sequence[RunDir]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the invariance of runs, measured by notebook 4, in percent; empty if it was not.

    Two tables like a summary (columns run, group, seed, split, top1): the share of unchanged
    predictions, with the families of augmentations as splits, and the top-1, with the inputs.
    """
    tables = []
    for name, column, value in (("families", "family", "agreement"), ("inputs", "input", "top1")):
        parts = [pd.DataFrame(columns=["run", "group", "seed", "split", "top1"])]
        for run in runs:
            if (path := run.folder / f"invariance_{name}.csv").is_file():
                table = pd.read_csv(path).rename(columns={column: "split", value: "top1"})
                table = table.assign(run=run.name, group=group_of(run.name), seed=seed_of(run))
                parts.append(table[parts[0].columns])
        tables.append(pd.concat(parts[min(1, len(parts) - 1) :]))
    return tables[0], tables[1]


def means_over_seeds(summary: pd.DataFrame) -> pd.DataFrame:
    """Return mean top-1 in percent: a row per group, a column per split."""
    table = summary.pivot_table("top1", "group", "split", sort=False)
    return table.rename_axis(columns=None).round(1)


def differing_settings(runs: Sequence[RunDir]) -> pd.DataFrame:
    """Return the settings that are not the same in all groups, as text: a column per group.

    A setting of the unlabeled loss is a dash in a group without unlabeled clips.
    """
    groups = {group_of(run.name): run.settings() for run in runs}
    columns = {}
    for group, settings in groups.items():
        values = settings.model_dump(exclude={"run_dir", "seed", "labeled_seed"})
        if not settings.is_semi_supervised:
            values |= {name: "–" for name in values if name.startswith(UNLABELED_ONLY)}
        columns[group] = {name: str(value) for name, value in values.items()}
    table = pd.DataFrame(columns).rename_axis("setting")
    return table[table.where(table != "–").nunique(axis=1) > 1]


def load_confusions(
    runs: Sequence[RunDir], split_name: str, groups: Sequence[str]
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Return group -> confusion matrix on a split, the sum over its seeds; and the class names."""
    sums: dict[str, np.ndarray] = {}
    classes: tuple[str, ...] = ()
    for run in runs:
        group = group_of(run.name)
        if group in groups and (saved := read_scores(run, split_name)) is not None:
            sums[group] = sums.get(group, 0) + confusion_matrix(*saved)
            classes = classes or load_data(run.settings()).labeled.classes
    return {group: sums[group] for group in groups if group in sums}, classes


# --- Literature -----------------------------------------------------------------------------------


def literature_table(runs: Sequence[RunDir]) -> pd.DataFrame:
    """Rank the runs among published numbers with as many labeled videos of the same data set.

    Each run counts on its first test split. The best is first for each number of labels; a blank
    was not reported. Empty if nothing was published for such runs.
    """
    columns, keys = ["dataset", *LITERATURE_COLUMNS, "source"], ["dataset", "labeled_videos"]
    names = {"group": "method", "model": "backbone", "labels": "labeled_videos"}
    ours = summarize(runs).drop_duplicates("run").rename(columns=names)
    ours["pretraining"] = [pretraining_of(run.settings()) for run in runs]
    ours["views"] = ours["clips"].astype(str) + " x " + ours["crops"].astype(str)
    ours["epochs"], ours["source"] = ours["epochs"].astype(str), "these runs"
    published = pd.read_csv(LITERATURE).merge(ours[keys].drop_duplicates(), on=keys)
    ours = ours.merge(published[keys].drop_duplicates(), on=keys)
    groups = ours.groupby([name for name in columns if name != "top1"], sort=False)
    table = pd.concat([published, groups["top1"].mean().round(1).reset_index()])
    table = table.sort_values([*keys, "top1"], ascending=[True, True, False])
    return table.reindex(columns=columns).fillna("").reset_index(drop=True)


def pretraining_of(settings: TrainSettings) -> str:
    """Describe the pretraining of a run's network."""
    if settings.weights is not None:
        return "from a file"
    if settings.pretrained:
        return "published weights"
    teachers = ["ImageNet teacher"] if settings.distillation_weight > 0 else []
    teachers += ["soft targets"] if settings.soft_targets is not None else []
    return ", ".join(teachers) or "none"


# --- Files ----------------------------------------------------------------------------------------


def export_tables(
    summary: pd.DataFrame,
    study_dir: Path,
    comparisons: pd.DataFrame,
    zero_shot: pd.DataFrame | None = None,
) -> None:
    """Write the tables of a study to its folder.

    `summary.csv` has a row per run and split, `verdict.csv` a row per comparison, `table.md` and
    `table.tex` a row per group.
    """
    write_text(study_dir / "summary.csv", summary.to_csv(index=False))
    write_text(study_dir / "verdict.csv", comparisons.to_csv(index=False))
    table, paper = group_table(summary, zero_shot), paper_table(summary, study_dir.name)
    if len(paper):
        numbers = paper["paper"].map("{:.1f}".format).reindex(table.index, fill_value="")
        table["paper, top-1 (%)"] = numbers
    write_text(study_dir / "table.md", as_markdown(table))
    write_text(study_dir / "table.tex", as_latex(table))


def as_markdown(table: pd.DataFrame) -> str:
    """Return a table in Markdown, its index as the first column."""
    table = table.reset_index()
    rows = [list(table.columns), ["---"] * table.shape[1], *table.to_numpy().tolist()]
    cells = [[escape(cell) for cell in row] for row in rows]
    return "".join(f"| {' | '.join(row)} |\n" for row in cells)


def as_latex(table: pd.DataFrame) -> str:
    """Return a table in LaTeX (booktabs), its index as the first column."""
    table = table.reset_index().rename(columns=str)
    text = table.to_latex(index=False, escape=True, column_format="l" + "r" * (table.shape[1] - 1))
    return text.replace("±", r"$\pm$")
