"""The tables of the report: beside the paper's numbers, in Markdown and in LaTeX."""

import json

import numpy as np
import pandas as pd
import pytest
from conftest import make_tiny_settings

from lib.batch.plan import read_plan
from lib.run.folder import Run
from lib.show.comparison import ablation_bars, class_gains, invariance_comparison
from lib.show.report import (
    PAPER_NUMBERS,
    SUMMARY_COLUMNS,
    as_latex,
    as_markdown,
    baseline_of,
    compared_groups,
    cost_table,
    export_tables,
    group_table,
    invariance_tables,
    load_confusions,
    paper_table,
    summarize,
)


@pytest.fixture
def summary() -> pd.DataFrame:
    rows = [
        ("semi_10percent", "val", 40.0),
        ("semi_10percent", "val", 41.0),
        ("supervised_10percent", "val", 20.0),
        ("semi_10percent", "other", 90.0),
    ]
    return pd.DataFrame(rows, columns=["group", "split", "top1"])


def test_ours_stands_beside_the_papers_number(summary):
    table = paper_table(summary, "ucf101")
    assert list(table.index) == ["semi_10percent"]  # the supervised number is not confirmed
    assert table.loc["semi_10percent", ["paper", "ours", "difference"]].tolist() == [
        40.2,
        40.5,
        0.3,
    ]
    assert "LEViL" in table.loc["semi_10percent", "source"]
    assert table.loc["semi_10percent", "± over seeds"] == 0.7
    assert paper_table(summary, "demo").empty


def test_every_number_of_the_paper_belongs_to_a_run():
    runs = {(run.run_dir.parent.name, run.name) for run in read_plan(["params"])}
    paper = pd.read_csv(PAPER_NUMBERS)
    assert set(zip(paper["study"], paper["run"], strict=True)) <= runs
    assert paper["source"].notna().all() and not paper.duplicated(["study", "run"]).any()


def test_tables_are_written_in_markdown_and_latex(summary, tmp_path):
    table = group_table(summary)
    assert as_markdown(table).splitlines()[:3] == [
        "| group | seeds | val, top-1 (%) | other, top-1 (%) |",
        "| --- | --- | --- | --- |",
        "| semi_10percent | 2 | 40.5 ± 0.7 | 90.0 |",
    ]
    latex = as_latex(table)
    assert r"semi\_10percent & 2 & 40.5 $\pm$ 0.7 & 90.0 \\" in latex and r"top-1 (\%)" in latex
    study = tmp_path / "ucf101"
    export_tables(summary, study)
    lines = (study / "table.md").read_text().splitlines()
    assert lines[2:] == [
        "| semi_10percent | 2 | 40.5 ± 0.7 | 90.0 | 40.2 |",
        "| supervised_10percent | 1 | 20.0 |  |  |",
    ]
    assert (study / "table.tex").read_text().startswith(r"\begin{tabular}")
    assert len((study / "summary.csv").read_text().splitlines()) == 5


# --- Groups of runs side by side ------------------------------------------------------------------


@pytest.fixture
def runs(data_dir, tmp_path) -> list[Run]:
    """Two supervised seeds that are right in 4 and 6 of 8 videos, a semi-supervised one in 7."""
    made = []
    plan = {
        "base_seed0": (4, "supervised"),
        "base_seed1": (6, "supervised"),
        "semi": (7, "fixmatch"),
    }
    for name, (right, objective) in plan.items():
        run = Run(tmp_path / name)
        run.open(make_tiny_settings(data_dir, run.folder, objective=objective))
        run.append_log(
            {"epoch": 1, "seconds": 60.0, "samples_per_s": 10.0, "memory_mb": 100 + right}
        )
        run.append_log(
            {"epoch": 2, "seconds": 90.0, "samples_per_s": 30.0, "memory_mb": 200 + right}
        )
        labels = np.arange(8) % 6
        predicted = np.where(np.arange(8) < right, labels, (labels + 1) % 6)
        np.savez(run.folder / "scores_val.npz", scores=np.eye(6)[predicted], labels=labels)
        values = {"top1": 100 * right / 8, "top5": 100.0, "mean_class_accuracy": 1.0, "videos": 8}
        run.metrics_path.write_text(json.dumps({"labels": 6, "lists": {"val": values}}))
        made.append(run)
    return made


def test_the_cost_of_groups(runs):
    summary = summarize(runs)
    assert list(summary.columns) == SUMMARY_COLUMNS
    cost = cost_table(summary)
    assert list(cost.index) == ["base", "semi"]
    assert cost.loc["base"].tolist()[:3] == [1.5, 20.0, 206]
    assert "CPU cores" in cost.loc["base", "machine"] or "×" in cost.loc["base", "machine"]
    runs[2].log_path.write_text('{"epoch": 2, "seconds": 90.0, "samples_per_s": 30.0}\n')
    assert np.isnan(summarize(runs)["memory_mb"].iloc[2])  # a run from before memory was logged


def test_the_groups_that_are_compared(runs):
    summary = summarize(runs)
    assert baseline_of(summary) == "base" and compared_groups(summary, []) == ["base", "semi"]
    assert compared_groups(summary, ["semi", "base"]) == ["semi", "base"]
    assert compared_groups(summary[summary["group"] == "base"], []) == ["base"]
    for wrong in (["semi"], ["semi", "sime"]):
        with pytest.raises(ValueError, match="compare: .* must be two of the groups base, semi"):
            compared_groups(summary, wrong)


def test_confusions_are_summed_over_seeds(runs):
    matrices, classes = load_confusions(runs, "val", ["semi", "base"])
    assert list(matrices) == ["semi", "base"] and len(classes) == 6
    assert matrices["base"].sum() == 16 and matrices["base"].trace() == 10
    figure = class_gains(matrices["base"], matrices["semi"], classes, ("base", "semi"), "val")
    gains = [bar.get_width() for bar in figure.axes[0].patches]
    assert gains == pytest.approx([0, 0, 0, 50, 50, 50])  # of classes 0, 4 and 5


def test_gains_are_drawn_against_the_baseline(runs):
    axis = ablation_bars(summarize(runs), "base").axes[0]
    assert [bar.get_width() for bar in axis.patches] == [pytest.approx(100 * (7 - 5) / 8)]
    assert "semi: +25.0 points on val" in axis.get_title()


def test_invariance_is_a_mean_over_seeds(runs):
    assert all(table.empty for table in invariance_tables(runs))
    for run, value in zip(runs, (50.0, 60.0, 80.0), strict=True):
        families = f"family,agreement,kl,draws\nphotometric,{value},0.1,9\ntemporal,90,0.1,9\n"
        (run.folder / "invariance_families.csv").write_text(families)
        (run.folder / "invariance_inputs.csv").write_text(
            f"input,top1,videos\nwhole clip,{value},9\n"
        )
    agreement, accuracy = invariance_tables(runs)
    assert agreement["photometric"].to_dict() == {"base": 55.0, "semi": 80.0}
    assert accuracy["whole clip"].to_dict() == {"base": 55.0, "semi": 80.0}
    figure = invariance_comparison(agreement, accuracy)
    assert len(figure.axes) == 2 and "semi" in figure.axes[0].get_title()
