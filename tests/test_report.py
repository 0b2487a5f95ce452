"""The tables of the report: beside the paper's numbers, in Markdown and in LaTeX."""

import pandas as pd
import pytest

from lib.plan import read_plan
from lib.show.report import (
    PAPER_NUMBERS,
    as_latex,
    as_markdown,
    export_tables,
    group_table,
    paper_table,
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
    assert "paper, top-1 (%)" in (study / "table.md").read_text()
    assert (study / "table.tex").read_text().startswith(r"\begin{tabular}")
    assert len((study / "summary.csv").read_text().splitlines()) == 5
