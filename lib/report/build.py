"""The report's tables: what a study's runs reached."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lib.config import PROJECT_ROOT
from lib.fileio import write_text
from lib.jupyter.html import escape
from lib.plots.evaluation import confusion_matrix
from lib.report.results import group_of, read_scores, rows_of
from lib.report.verdict import Pair, baseline_pairs, claimed_pairs, find_baselines
from lib.runs.run_dir import METRICS, RunDir
from lib.train.setup import load_data

SHOWN_COLUMNS = ["run", "list", *METRICS, "labels", "epochs", "train_minutes", "clips", "crops"]
# What the verdict adds to summary.csv: this run's difference, and its group's
VERDICT_COLUMNS = {
    "worse": "baseline",
    "seeds": "seeds_compared",
    "agree": "seeds_better",
    "difference": "mean_difference",
    "low": "interval_low",
    "high": "interval_high",
    "verdict": "verdict",
}
PARAMS = PROJECT_ROOT / "params"
PAPER_NUMBERS = PARAMS / "paper.csv"
CLAIMS = PARAMS / "claims.csv"  # what a study claims: study, better, worse, list
EXPECTED = PARAMS / "expected.csv"  # the range of single runs: study, group, list, low, high


def of_study(path: Path, study: str) -> pd.DataFrame:
    """Return the rows of a study in `claims.csv` or `expected.csv`; none without the file."""
    if not path.is_file():
        return pd.DataFrame(columns=["study", "better", "worse", "group", "list", "low", "high"])
    table = pd.read_csv(path, comment="#")
    return table[table["study"] == study]


def plan_comparisons(
    summary: pd.DataFrame, study: str, baseline: str = ""
) -> tuple[list[Pair], dict[str, str]]:
    """Return what is asked of a study, and group -> the baseline that it is compared with.

    Asked is what the study claims in `params/claims.csv`, else whether each group is better than
    its baseline. Baselines are those of `verdict.find_baselines`; where there are none, what a
    claim names as worse is one for all.

    Args:
        summary: As from `summarize`.
        study: Name of the study, as in `params/`.
        baseline: A baseline that a reader named: it is compared with all groups, and asked for.

    Raises:
        ValueError: If there is no such group.
    """
    baselines = find_baselines(summary, baseline)
    claimed = [] if baseline else claimed_pairs(of_study(CLAIMS, study), summary)
    worse = {pair.worse for pair in claimed} & set(summary["group"])
    if not baselines and len(worse) == 1:
        baselines = find_baselines(summary, worse.pop())
    return claimed or baseline_pairs(summary, baselines), baselines


# --- Tables ---------------------------------------------------------------------------------------


def summarize(runs: Sequence[RunDir]) -> pd.DataFrame:
    """Return one row a run and test list, columns as of `rows_of`; accuracies in percent."""
    return pd.DataFrame([row for run in runs for row in rows_of(run)])


def group_table(summary: pd.DataFrame) -> pd.DataFrame:
    """Return mean and standard deviation of top-1 over seeds: a row a group, columns per list."""
    grouped = summary.groupby(["group", "list"], sort=False)["top1"]
    groups, lists = (list(dict.fromkeys(summary[name])) for name in ("group", "list"))
    table = grouped.agg(_mean_and_deviation).unstack(fill_value="").loc[groups, lists]
    table.columns = [f"{name}, top-1 (%)" for name in lists]
    table.insert(0, "seeds", grouped.size().groupby("group").first())
    return table


def _mean_and_deviation(top1: pd.Series) -> str:
    mean = f"{top1.mean():.1f}"
    return mean if len(top1) == 1 else f"{mean} ± {top1.std():.1f}"


def paper_table(summary: pd.DataFrame, study: str) -> pd.DataFrame:
    """Set our top-1 beside the paper's numbers that could be confirmed.

    Args:
        summary: As from `summarize`.
        study: Name of the study, as in `params/`.

    Returns:
        One row a group that has such a number, on its first test list, columns paper, ours,
        difference (all in percent) and source; empty if there is none.
    """
    paper = pd.read_csv(PAPER_NUMBERS)
    paper = paper[paper["study"] == study].set_index("run")
    first_split = summary[summary["list"] == summary["list"].iloc[0]]
    grouped = first_split.groupby("group", sort=False)["top1"]
    means = grouped.mean()
    shared = [group for group in means.index if group in paper.index]
    table = pd.DataFrame({"paper": paper.loc[shared, "top1"], "ours": means[shared].round(1)})
    table["± over seeds"] = grouped.std()[shared].round(1)
    table["difference"] = (table["ours"] - table["paper"]).round(1)
    table["source"] = paper.loc[shared, "source"]
    return table.rename_axis("group")


def cost_table(summary: pd.DataFrame) -> pd.DataFrame:
    """Return what the runs of each group cost: a row a group, means over seeds, peak memory."""
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


def compared_groups(summary: pd.DataFrame, names: list[str], pairs: Sequence[Pair]) -> list[str]:
    """Return the two groups whose classes are compared, baseline first.

    Args:
        summary: As from `summarize`.
        names: Two groups to compare; empty for those of the first question.
        pairs: What is asked of the study.

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
    there = [pair for pair in pairs if {pair.better, pair.worse} <= set(groups)]
    return [there[0].worse, there[0].better] if there else groups[:1]


def invariance_tables(runs: list[RunDir]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the measured invariance of groups of runs, means over seeds, in percent.

    Returns:
        A row a group that was measured: columns the families, the share of unchanged predictions;
        columns the inputs, the top-1. Both empty where notebook 4 measured nothing.
    """
    tables = []
    for name, column, value in (("families", "family", "agreement"), ("inputs", "input", "top1")):
        parts = [
            pd.read_csv(path).assign(group=group_of(run.name))
            for run in runs
            if (path := run.folder / f"invariance_{name}.csv").is_file()
        ]
        if not parts:
            return pd.DataFrame(), pd.DataFrame()
        rows = pd.concat(parts)
        table = rows.pivot_table(index="group", columns=column, values=value, sort=False)
        tables.append(table.rename_axis(columns=None).round(1))
    return tables[0], tables[1]


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


def with_verdict(
    summary: pd.DataFrame, comparisons: pd.DataFrame, baselines: Mapping[str, str]
) -> pd.DataFrame:
    """Return a summary with what the verdict says of each row's group against its baseline.

    Args:
        summary: As from `summarize`.
        comparisons: From `verdict.compare_groups`; rows of other pairs are not used.
        baselines: From `verdict.find_baselines`.

    Returns:
        The summary with the columns baseline, difference (of this run and the baseline's run of
        its seed, in points) and the rest of `VERDICT_COLUMNS`; empty where nothing is compared.
    """
    columns = ["group", "list", *VERDICT_COLUMNS]
    table = comparisons.rename(columns={"better": "group"})[columns]
    table = table[table["group"].map(baselines) == table["worse"]].rename(columns=VERDICT_COLUMNS)
    both = summary.merge(table, on=["group", "list"], how="left")
    counts = ["seeds_compared", "seeds_better"]
    both[counts] = both[counts].astype("Int64")  # empty where nothing is compared
    top1 = summary.groupby(["group", "seed", "list"])["top1"].mean()
    beside = zip(both["baseline"], both["seed"], both["list"], strict=True)
    both["difference"] = (both["top1"] - [top1.get(run, np.nan) for run in beside]).round(3)
    return both


def export_tables(
    summary: pd.DataFrame,
    study_dir: Path,
    comparisons: pd.DataFrame,
    baselines: Mapping[str, str],
) -> None:
    """Write the tables of a study.

    `summary.csv` has a row a run and list, `verdict.csv` a row a comparison, `table.md` and
    `table.tex` a row a group.

    Args:
        summary: As from `summarize`.
        study_dir: Folder of the study.
        comparisons: From `verdict.compare_groups`.
        baselines: From `verdict.find_baselines`.
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


def differing_settings(runs: list[RunDir]) -> pd.DataFrame:
    """Return the settings that are not the same in all runs: a row a group, columns by setting."""
    rows = {run.name: run.settings().model_dump() for run in runs}
    table = pd.DataFrame(rows).T.drop(columns=["run_dir", "seed", "labeled_seed"])
    table.index = [group_of(name) for name in table.index]
    table = table[~table.index.duplicated()]
    varies = [column for column in table if table[column].astype(str).nunique() > 1]
    return table[varies]


def load_confusions(
    runs: Sequence[RunDir], split_name: str, groups: Sequence[str] | None = None
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Return group -> confusion matrix on a list, the sum over its seeds; and the class names.

    Args:
        runs: Evaluated runs.
        split_name: The list.
        groups: Which groups, in their order; None for all.
    """
    sums: dict[str, np.ndarray] = {}
    classes: tuple[str, ...] = ()
    for run in runs:
        group = group_of(run.name)
        if groups is not None and group not in groups:
            continue
        if (known := read_scores(run, split_name)) is None:
            continue
        matrix = confusion_matrix(*known)
        sums[group] = sums[group] + matrix if group in sums else matrix
        classes = classes or load_data(run.settings()).labeled.classes
    return {group: sums[group] for group in groups or sums if group in sums}, classes
