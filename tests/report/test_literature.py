"""Runs among the numbers of the literature."""

import json

import pandas as pd
import pytest

from lib.config import PROJECT_ROOT
from lib.report.tables import LITERATURE, LITERATURE_COLUMNS, literature_table, pretraining_of
from lib.runs.run_dir import RunDir


@pytest.fixture
def make_run(tiny_settings, tmp_path):
    def make(name: str, top1: float, labels: int, **changes) -> RunDir:
        run = RunDir(tmp_path / name)
        run.start(tiny_settings(run_dir=tmp_path / name, **changes))
        values = {"top1": top1, "top5": 90.0, "mean_class_accuracy": 50.0, "videos": 3783}
        run.metrics_path.write_text(json.dumps({"labels": labels, "splits": {"val": values}}))
        run.append_log({"epoch": 2, "step": 9, "seconds": 60.0, "samples_per_s": 5.0})
        return run

    return make


def test_every_number_has_its_source_and_no_row_occurs_twice():
    table = pd.read_csv(LITERATURE)
    assert table["source"].notna().all() and table["top1"].between(1, 99).all()
    assert not table.duplicated(["dataset", "labels", "method", "backbone", "source"]).any()
    counts = {("ucf101", "10 %"): 953, ("hmdb51", "40 %"): 2094, ("kinetics100", "5 %"): 4209}
    for (dataset, labels), count in counts.items():
        part = table[(table["dataset"] == dataset) & (table["labels"] == labels)]
        assert set(part["labeled_videos"]) == {count}


def test_numbers_of_the_paper_are_those_of_the_report():
    paper = pd.read_csv(PROJECT_ROOT / "params" / "paper.csv")
    table = pd.read_csv(LITERATURE)
    ours = table[table["method"].str.startswith("this paper") & table["backbone"].notna()]
    for _, row in paper[paper["study"].isin(["ucf101", "hmdb51"])].iterrows():
        percent = row["run"].split("_")[-1].removesuffix("percent")
        same = (ours["dataset"] == row["study"]) & (ours["labels"] == f"{percent} %")
        assert row["top1"] in set(ours[same]["top1"])


def test_runs_are_ranked_among_published_numbers_of_as_many_labels(make_run):
    runs = [
        make_run("semi_seed0", 50.0, 953, dataset="ucf101"),
        make_run("semi_seed1", 53.0, 953, dataset="ucf101"),
        make_run("few_seed0", 99.0, 33, dataset="ucf101"),
    ]
    table = literature_table(runs)
    assert list(table.columns) == ["dataset", *LITERATURE_COLUMNS, "source"]
    assert set(table["labeled_videos"]) == {953} and set(table["dataset"]) == {"ucf101"}
    (place,) = table.index[table["source"] == "these runs"]
    row = table.loc[place]
    assert (row["method"], row["top1"], row["views"], row["epochs"]) == ("semi", 51.5, "2 x 3", "2")
    assert table["top1"].is_monotonic_decreasing
    assert table.loc[place - 1, "method"] == "this paper, ImageNet distilled"
    assert table.loc[place - 1, "views"] == ""


def test_nothing_is_shown_where_nothing_was_published(make_run):
    assert literature_table([make_run("semi_seed0", 50.0, 18)]).empty


def test_what_a_network_had_learned_before(tiny_settings):
    assert pretraining_of(tiny_settings()) == "none"
    assert pretraining_of(tiny_settings(pretrained=True)) == "published weights"
    assert pretraining_of(tiny_settings(weights="a.pth")) == "from a file"
    distilled = tiny_settings(distillation_weight=1.0, soft_targets="soft.csv")
    assert pretraining_of(distilled) == "ImageNet teacher, soft targets"
