"""The report: what a study's runs reached, as a table and as a page."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from lib.evaluation import scores_path
from lib.files import write_text
from lib.learn.runs import Run
from lib.learn.scoring import confusion_matrix
from lib.learn.training import load_data
from lib.show.plots import group_of

SUMMARY_COLUMNS = [
    "run", "group", "split", "top1", "top5", "mean_class_accuracy",
    "videos", "objective", "labels", "epochs", "train_minutes", "clips", "crops",
]  # fmt: skip


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
    rows = []
    for run in runs:
        settings, results = run.settings(), json.loads(run.metrics_path.read_text())
        seconds = run.read_log()["seconds"].iloc[-1]
        for split, values in results["lists"].items():
            rows.append(
                {
                    "run": run.name,
                    "group": group_of(run.name),
                    "split": split,
                    **{name: round(value, 3) for name, value in values.items()},
                    "objective": settings.objective,
                    "labels": results["labels"],
                    "epochs": settings.epochs,
                    "train_minutes": round(seconds / 60, 2),
                    "clips": settings.test_num_clips,
                    "crops": settings.test_num_crops,
                }
            )
    return pd.DataFrame(rows)[SUMMARY_COLUMNS]


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
    wide = wide.reindex(index=seeds.index, columns=order)
    wide.columns = [f"{split}, top-1 (%)" for split in order]
    wide.insert(0, "seeds", seeds)
    return wide


def differing_settings(runs: list[Run]) -> pd.DataFrame:
    """Return the settings that are not the same in all runs: a row a group, columns by setting."""
    rows = {run.name: run.settings().model_dump() for run in runs}
    table = pd.DataFrame(rows).T.drop(columns=["run_dir", "seed", "labeled_seed"])
    table.index = [group_of(name) for name in table.index]
    table = table[~table.index.duplicated()]
    varies = [column for column in table if table[column].astype(str).nunique() > 1]
    return table[varies]


def load_confusions(runs: list[Run], split: str) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Return run name -> confusion matrix on a list, of each group's first run; class names."""
    matrices, classes = {}, ()
    shown = set()
    for run in runs:
        path = scores_path(run, split)
        if group_of(run.name) in shown or not path.is_file():
            continue
        shown.add(group_of(run.name))
        with np.load(path) as file:
            matrices[run.name] = confusion_matrix(file["scores"], file["labels"])
        classes = load_data(run.settings()).labeled.classes
    return matrices, classes


def findings(summary: pd.DataFrame) -> list[str]:
    """Return, in words, how each group's mean top-1 differs from the baseline's, list by list.

    The baseline is the first supervised group, or the first group where there is none.
    """
    supervised = summary[summary["objective"] == "supervised"]["group"]
    baseline = (supervised if len(supervised) else summary["group"]).iloc[0]
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
