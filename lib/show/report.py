"""The report: what a study's runs reached, as a table and as a page."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lib.config import PROJECT_ROOT
from lib.evaluation.evaluate import scores_path
from lib.files import write_text
from lib.learn.scoring import confusion_matrix
from lib.learn.setup import load_data
from lib.run.folder import Run
from lib.show.plots import group_of

SUMMARY_COLUMNS = [
    "run", "group", "split", "top1", "top5", "mean_class_accuracy",
    "videos", "objective", "labels", "epochs", "train_minutes", "clips_per_s", "memory_mb",
    "machine", "clips", "crops",
]  # fmt: skip
PAPER_NUMBERS = PROJECT_ROOT / "params" / "paper.csv"


def find_runs(study_dir: Path) -> list[Run]:
    """Return the evaluated runs of a study, sorted by name.

    Raises:
        ValueError: If there is none; says how to make one.
    """
    runs = [Run(path.parent) for path in sorted(study_dir.glob("*/metrics.json"))]
    if not runs:
        raise ValueError(
            f"{study_dir}: no evaluated run; run notebooks 3 and 4, or python -m lib.batch"
        )
    return runs


def summarize(runs: list[Run]) -> pd.DataFrame:
    """Return one row a run and test list, columns `SUMMARY_COLUMNS`; accuracies in percent."""
    return pd.DataFrame([row for run in runs for row in _rows_of(run)])[SUMMARY_COLUMNS]


def _rows_of(run: Run) -> list[dict[str, Any]]:
    settings, results, log = run.settings(), run.metrics(), run.read_log()
    known = {
        "run": run.name,
        "group": group_of(run.name),
        "objective": settings.objective,
        "labels": results["labels"],
        "epochs": settings.epochs,
        "train_minutes": round(log["seconds"].iloc[-1] / 60, 2),
        "clips_per_s": round(log["samples_per_s"].median(), 1),
        "memory_mb": log["memory_mb"].max() if "memory_mb" in log else None,
        "machine": run.machine(),
        "clips": settings.test_num_clips,
        "crops": settings.test_num_crops,
    }
    return [
        known | {"split": split} | {name: round(value, 3) for name, value in values.items()}
        for split, values in results["lists"].items()
    ]


def group_table(summary: pd.DataFrame) -> pd.DataFrame:
    """Return mean and standard deviation of top-1 over seeds: a row a group, columns per list."""
    grouped = summary.groupby(["group", "split"], sort=False)["top1"]
    table = grouped.agg(["mean", "std", "count"]).reset_index()
    table["top1"] = [
        f"{mean:.1f}" if count == 1 else f"{mean:.1f} ± {std:.1f}"
        for mean, std, count in zip(table["mean"], table["std"], table["count"], strict=True)
    ]
    seeds = table.groupby("group", sort=False)["count"].first()
    wide = table.pivot(index="group", columns="split", values="top1")
    order = list(dict.fromkeys(summary["split"]))
    wide = wide.reindex(index=seeds.index, columns=order).fillna("")
    wide.columns = [f"{split}, top-1 (%)" for split in order]
    wide.insert(0, "seeds", seeds)
    return wide


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
    first_list = summary[summary["split"] == summary["split"].iloc[0]]
    grouped = first_list.groupby("group", sort=False)["top1"]
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


def baseline_of(summary: pd.DataFrame) -> str:
    """Return the first supervised group, or the first group where there is none."""
    supervised = summary[summary["objective"] == "supervised"]["group"]
    return (supervised if len(supervised) else summary["group"]).iloc[0]


def compared_groups(summary: pd.DataFrame, names: list[str]) -> list[str]:
    """Return the two groups whose classes are compared: those named, else baseline and best.

    Raises:
        ValueError: If there are no such two groups.
    """
    groups = list(dict.fromkeys(summary["group"]))
    if names:
        if len(names) != 2 or not set(names) <= set(groups):
            raise ValueError(f"compare: {names!r} must be two of the groups {', '.join(groups)}")
        return list(names)
    first_list = summary[summary["split"] == summary["split"].iloc[0]]
    means = first_list.groupby("group")["top1"].mean().drop(baseline_of(summary))
    return [baseline_of(summary), *([means.idxmax()] if len(means) else [])]


def invariance_tables(runs: list[Run]) -> tuple[pd.DataFrame, pd.DataFrame]:
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
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in rows]
    return "".join(f"| {' | '.join(row)} |\n" for row in cells)


def as_latex(table: pd.DataFrame) -> str:
    """Return a table in LaTeX (booktabs), its index as the first column."""
    table = table.reset_index().rename(columns=str)
    text = table.to_latex(index=False, escape=True, column_format="l" + "r" * (table.shape[1] - 1))
    return text.replace("±", r"$\pm$")


def export_tables(summary: pd.DataFrame, study_dir: Path) -> None:
    """Write `summary.csv` (a row a run and list) and `table.md`, `table.tex` (a row a group)."""
    write_text(study_dir / "summary.csv", summary.to_csv(index=False))
    table = group_table(summary)
    paper = paper_table(summary, study_dir.name)
    if len(paper):
        numbers = paper["paper"].map("{:.1f}".format).reindex(table.index, fill_value="")
        table["paper, top-1 (%)"] = numbers
    write_text(study_dir / "table.md", as_markdown(table))
    write_text(study_dir / "table.tex", as_latex(table))


def run_links(runs: list[Run]) -> str:
    """Return a line of Markdown with a link to each run's folder, relative to the study."""
    return " · ".join(f"[{run.name}]({run.name}/)" for run in runs)


def differing_settings(runs: list[Run]) -> pd.DataFrame:
    """Return the settings that are not the same in all runs: a row a group, columns by setting."""
    rows = {run.name: run.settings().model_dump() for run in runs}
    table = pd.DataFrame(rows).T.drop(columns=["run_dir", "seed", "labeled_seed"])
    table.index = [group_of(name) for name in table.index]
    table = table[~table.index.duplicated()]
    varies = [column for column in table if table[column].astype(str).nunique() > 1]
    return table[varies]


def load_confusions(
    runs: list[Run], split: str, groups: list[str] | None = None
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Return group -> confusion matrix on a list, the sum over its seeds; and the class names.

    Args:
        runs: Evaluated runs.
        split: The list's name.
        groups: Which groups, in their order; None for all.
    """
    sums: dict[str, np.ndarray] = {}
    classes: tuple[str, ...] = ()
    for run in runs:
        path, group = scores_path(run, split), group_of(run.name)
        if not path.is_file() or (groups is not None and group not in groups):
            continue
        with np.load(path) as file:
            matrix = confusion_matrix(file["scores"], file["labels"])
        sums[group] = sums[group] + matrix if group in sums else matrix
        classes = classes or load_data(run.settings()).labeled.classes
    return {group: sums[group] for group in groups or sums if group in sums}, classes


def findings(summary: pd.DataFrame) -> list[str]:
    """Return, in words, how each group's mean top-1 differs from the baseline's, list by list."""
    baseline = baseline_of(summary)
    sentences = []
    for split, part in summary.groupby("split", sort=False):
        means = part.groupby("group", sort=False)["top1"].agg(["mean", "count"])
        reference = means.loc[baseline, "mean"]
        for group, (mean, count) in means.drop(baseline).iterrows():
            gain = mean - reference
            sentences.append(
                f"On `{split}`, **{group}** reaches {mean:.1f} %: {abs(gain):.1f} points "
                f"{'more' if gain >= 0 else 'less'} than **{baseline}** ({reference:.1f} %; means "
                f"of {int(count)} {'seed' if count == 1 else 'seeds'})."
            )
    return sentences


def export_html(notebook: Path, page: Path) -> Path:
    """Write an executed notebook as one self-contained page without code, for reading offline."""
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(exclude_input=True, embed_images=True, exclude_input_prompt=True)
    exporter.exclude_output_prompt = True
    exporter.mathjax_url = exporter.require_js_url = exporter.jquery_url = ""
    exporter.mermaid_js_url = exporter.jupyter_widgets_base_url = ""
    body, _ = exporter.from_filename(str(notebook))
    return write_text(page, body)
