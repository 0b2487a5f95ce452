"""Tables of a report: results of groups, published numbers, costs, exports.

A summary is the table of `study.summarize`, comparisons are those of `verdict.compare_groups`, and
baselines those of `verdict.find_baselines`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lib.config import PROJECT_ROOT, TrainSettings
from lib.fileio import write_text
from lib.jupyter.html import escape
from lib.report.study import run_rows
from lib.report.verdict import Pair
from lib.runs.run_dir import METRICS, RunDir

SHOWN_COLUMNS = ["run", "split", *METRICS, "labels", "epochs", "train_minutes", "clips", "crops"]
# Columns of the verdict in summary.csv: the difference of the run, and those of its group
VERDICT_COLUMNS = {
    "worse": "baseline",
    "seeds": "seeds_compared",
    "agree": "seeds_better",
    "difference": "mean_difference",
    "low": "interval_low",
    "high": "interval_high",
    "verdict": "verdict",
}
PAPER_NUMBERS = PROJECT_ROOT / "params" / "paper.csv"
LITERATURE = PROJECT_ROOT / "params" / "literature.csv"
LITERATURE_COLUMNS = [
    "method", "backbone", "pretraining", "labeled_videos", "top1", "views", "epochs",
]  # fmt: skip


def group_table(summary: pd.DataFrame) -> pd.DataFrame:
    """Return mean and deviation of top-1 over seeds: a row per group, a column per split."""

    def mean_and_deviation(top1: pd.Series) -> str:
        mean = f"{top1.mean():.1f}"
        return mean if len(top1) == 1 else f"{mean} ± {top1.std():.1f}"

    grouped = summary.groupby(["group", "split"], sort=False)["top1"]
    groups, splits = (list(dict.fromkeys(summary[name])) for name in ("group", "split"))
    table = grouped.agg(mean_and_deviation).unstack(fill_value="").loc[groups, splits]
    table.columns = [f"{name}, top-1 (%)" for name in splits]
    table.insert(0, "seeds", grouped.size().groupby("group").first())
    return table


def paper_table(summary: pd.DataFrame, study: str) -> pd.DataFrame:
    """Compare our top-1 with the numbers of the paper that could be confirmed.

    Returns:
        One row per group that has such a number, on its first test split, columns paper, ours,
        difference (all in percent) and source; maybe empty.
    """
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
    table = pd.DataFrame(
        {
            "training (minutes)": runs["train_minutes"].mean().round(2),
            "clips a second": runs["clips_per_s"].mean().round(1),
            "peak memory of a process (MB)": runs["memory_mb"].max(),
            "machine": runs["machine"].agg(lambda names: "; ".join(dict.fromkeys(names))),
        }
    )
    return table.rename_axis("group")


def groups_to_compare(summary: pd.DataFrame, names: list[str], pairs: Sequence[Pair]) -> list[str]:
    """Return the two groups whose classes are compared: those named, or of the first question.

    The baseline comes first.

    Raises:
        ValueError: If there are no such two groups.
    """
    groups = list(dict.fromkeys(summary["group"]))
    if names:
        if len(names) != 2 or not set(names) <= set(groups):
            raise ValueError(
                f"compared_groups: {names!r} must be two of the groups {', '.join(groups)}"
            )
        return list(names)
    tested = (pair for pair in pairs if {pair.better, pair.worse} <= set(groups))
    return next(([pair.worse, pair.better] for pair in tested), groups[:1])


# --- Literature -----------------------------------------------------------------------------------


def literature_table(runs: Sequence[RunDir]) -> pd.DataFrame:
    """Rank the runs among published numbers with as many labeled videos of the same data set.

    Args:
        runs: Evaluated runs; each counts on its first test split.

    Returns:
        Columns dataset, `LITERATURE_COLUMNS` and source, the best first for each number of labels;
        blank if not reported. Empty if nothing was published for such runs.
    """
    ours = pd.DataFrame([_literature_row(run) for run in runs])
    published = pd.read_csv(LITERATURE, dtype={"labels": str})
    keys = ["dataset", "labeled_videos"]
    published = published.merge(ours[keys].drop_duplicates(), on=keys)
    ours = ours.merge(published[keys].drop_duplicates(), on=keys)
    groups = ours.groupby([column for column in ours if column != "top1"], sort=False)
    table = pd.concat([published, groups["top1"].mean().round(1).reset_index()])
    table = table.reindex(columns=["dataset", *LITERATURE_COLUMNS, "source"])
    table = table.sort_values([*keys, "top1"], ascending=[True, True, False])
    return table.fillna("").reset_index(drop=True)


def _literature_row(run: RunDir) -> dict[str, object]:
    settings, first = run.settings(), run_rows(run)[0]
    return {
        "dataset": settings.dataset,
        "labeled_videos": first["labels"],
        "method": first["group"],
        "backbone": settings.model,
        "pretraining": pretraining_of(settings),
        "top1": first["top1"],
        "views": f"{settings.test_num_clips} x {settings.test_num_crops}",
        "epochs": str(settings.epochs),
        "source": "these runs",
    }


def pretraining_of(settings: TrainSettings) -> str:
    """Describe the pretraining of a run's network."""
    if settings.weights is not None:
        return "from a file"
    if settings.pretrained:
        return "published weights"
    teachers = {
        "ImageNet teacher": settings.distillation_weight > 0,
        "soft targets": settings.soft_targets is not None,
    }
    return ", ".join(name for name, is_used in teachers.items() if is_used) or "none"


# --- Files ----------------------------------------------------------------------------------------


def export_tables(
    summary: pd.DataFrame, study_dir: Path, comparisons: pd.DataFrame, baselines: Mapping[str, str]
) -> None:
    """Write the tables of a study to its folder.

    `summary.csv` has a row per run and split, `verdict.csv` a row per comparison, `table.md` and
    `table.tex` a row per group.
    """
    rows = with_verdict(summary, comparisons, baselines)
    write_text(study_dir / "summary.csv", rows.to_csv(index=False))
    write_text(study_dir / "verdict.csv", comparisons.to_csv(index=False))
    table = group_table(summary)
    paper = paper_table(summary, study_dir.name)
    if len(paper):
        numbers = paper["paper"].map("{:.1f}".format).reindex(table.index, fill_value="")
        table["paper, top-1 (%)"] = numbers
    write_text(study_dir / "table.md", as_markdown(table))
    write_text(study_dir / "table.tex", as_latex(table))


def with_verdict(
    summary: pd.DataFrame, comparisons: pd.DataFrame, baselines: Mapping[str, str]
) -> pd.DataFrame:
    """Add the verdict of each row's group against its baseline to a summary.

    Returns:
        The summary with the columns baseline, difference (of this run and the baseline's run of
        its seed, in points) and the rest of `VERDICT_COLUMNS`; empty without a comparison.
    """
    columns = ["group", "split", *VERDICT_COLUMNS]
    table = comparisons.rename(columns={"better": "group"})[columns]
    table = table[table["group"].map(baselines) == table["worse"]].rename(columns=VERDICT_COLUMNS)
    both = summary.merge(table, on=["group", "split"], how="left")
    counts = ["seeds_compared", "seeds_better"]
    both[counts] = both[counts].astype("Int64")  # empty without a comparison
    top1 = summary.groupby(["group", "seed", "split"])["top1"].mean()
    baseline_runs = zip(both["baseline"], both["seed"], both["split"], strict=True)
    both["difference"] = (both["top1"] - [top1.get(k, np.nan) for k in baseline_runs]).round(3)
    return both


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
