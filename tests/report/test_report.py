"""The tables of the report: beside the paper's numbers, in Markdown and in LaTeX."""

import json
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from conftest import make_tiny_settings

from lib.batch.plan import read_plan
from lib.data.dataset import read_dataset
from lib.plots.comparison import (
    plot_class_gains,
    plot_differences,
    plot_invariance_of_groups,
)
from lib.plots.style import VERDICT_COLORS, group_colors
from lib.report.page import (
    export_html,
    left_out_note,
    page_head,
    range_note,
    run_links,
    shown_cells,
    verdict_html,
)
from lib.report.tables import (
    PAPER_NUMBERS,
    as_latex,
    as_markdown,
    cost_table,
    differing_settings,
    export_tables,
    group_table,
    groups_to_compare,
    load_confusions,
    means_over_seeds,
    paper_table,
    read_invariance,
    read_runs,
    run_table,
    summarize,
    zero_shot_rows,
)
from lib.report.verdict import (
    CLAIMS,
    CONTRADICTED,
    EXPECTED,
    HOLDS,
    UNDECIDED,
    Pair,
    accuracy_interval,
    compare_groups,
    of_study,
    paired_differences,
    plan_comparisons,
)
from lib.runs.run_dir import METRICS, RunDir, group_of


@pytest.fixture
def summary() -> pd.DataFrame:
    rows = [
        ("semi_10percent", "0", "val", 40.0),
        ("semi_10percent", "1", "val", 41.0),
        ("supervised_10percent", "0", "val", 20.0),
        ("semi_10percent", "0", "other", 90.0),
    ]
    return pd.DataFrame(rows, columns=["group", "seed", "split", "top1"])


def test_our_top1_is_compared_with_the_papers_number(summary):
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
    export_tables(summary, study, compare_groups(summary, []))
    lines = (study / "table.md").read_text().splitlines()
    assert lines[2:] == [
        "| semi_10percent | 2 | 40.5 ± 0.7 | 90.0 | 40.2 |",
        "| supervised_10percent | 1 | 20.0 |  |  |",
    ]
    assert (study / "table.tex").read_text().startswith(r"\begin{tabular}")
    assert len((study / "summary.csv").read_text().splitlines()) == 5
    assert (study / "verdict.csv").read_text().startswith("better,worse,split,margin,seeds,agree")


def test_markup_in_a_table_is_no_markup():
    table = pd.DataFrame({"a|b": ["<img src=x>"]}, index=pd.Index(["*x*"], name="group"))
    assert as_markdown(table).splitlines() == [
        "| group | a&#124;b |",
        "| --- | --- |",
        "| &#42;x&#42; | &lt;img src=x&gt; |",
    ]


# --- Groups of runs side by side ------------------------------------------------------------------


@pytest.fixture
def runs(prepared_dir, tmp_path) -> list[RunDir]:
    """Two supervised seeds that are right in 4 and 6 of 8 videos, a semi-supervised one in 7."""
    made = []
    plan = {
        "base_seed0": (4, "supervised"),
        "base_seed1": (6, "supervised"),
        "semi": (7, "fixmatch"),
    }
    for name, (right, objective) in plan.items():
        run = RunDir(tmp_path / name)
        run.start(make_tiny_settings(prepared_dir, run.folder, objective=objective))
        run.append_log(
            {
                "epoch": 1,
                "step": 3,
                "seconds": 60.0,
                "samples_per_s": 10.0,
                "memory_mb": 100 + right,
            }
        )
        run.append_log(
            {
                "epoch": 2,
                "step": 6,
                "seconds": 90.0,
                "samples_per_s": 30.0,
                "memory_mb": 200 + right,
            }
        )
        labels = np.arange(8) % 4
        predicted = np.where(np.arange(8) < right, labels, (labels + 1) % 4)
        np.savez(run.folder / "scores_val.npz", scores=np.eye(4)[predicted], labels=labels)
        values = {"top1": 100 * right / 8, "top5": 100.0, "mean_class_accuracy": 1.0, "videos": 8}
        run.metrics_path.write_text(json.dumps({"labels": 6, "splits": {"val": values}}))
        made.append(run)
    return made


def test_the_cost_of_groups(runs):
    summary = summarize(runs)
    assert list(summary.columns) == [
        "run", "group", "split", *METRICS, "seed", "dataset", "objective", "model", "view",
        "labels", "unlabeled", "epochs", "steps", "train_minutes", "clips_per_s", "memory_mb",
        "machine", "clips", "crops",
    ]  # fmt: skip
    cost = cost_table(summary)
    assert list(cost.index) == ["base", "semi"]
    assert cost.loc["base"].tolist()[:3] == [1.5, 20.0, 206]
    assert "CPU cores" in cost.loc["base", "machine"] or "×" in cost.loc["base", "machine"]
    runs[2].log_path.write_text('{"epoch": 2, "step": 6, "seconds": 90.0, "samples_per_s": 30.0}\n')
    assert np.isnan(summarize(runs)["memory_mb"].iloc[2])  # a run from before memory was logged


def test_every_run_has_the_interval_of_its_accuracy(runs):
    table = run_table(summarize(runs))
    assert table.loc["semi", ["top-1 (%)", "95 % interval"]].tolist() == [87.5, "53 to 98"]


def test_the_groups_that_are_compared(runs):
    summary = summarize(runs)
    asked, baselines = plan_comparisons(summary, "any")
    assert baselines == {"semi": "base"} and asked == [Pair("semi", "base", "val")]
    assert groups_to_compare(runs, asked) == ["base", "semi"]
    assert groups_to_compare(runs[:2], []) == ["base"]


def test_own_videos_with_one_seed_have_no_question(runs):
    summary = summarize(runs[1:]).assign(dataset="folder", seed="0")
    assert plan_comparisons(summary, "any") == ([], {})
    assert groups_to_compare(runs, []) == ["semi"]  # that is recommended
    assert plan_comparisons(summary, "any", "base")[0] == [Pair("semi", "base", "val")]
    again = pd.concat([summary, summary.assign(seed="1")])
    assert plan_comparisons(again, "any")[0] == [Pair("semi", "base", "val")]


def test_a_reader_names_the_baseline(runs):
    asked, baselines = plan_comparisons(summarize(runs), "any", "semi")
    assert baselines == {"base": "semi"} and asked == [Pair("base", "semi", "val")]
    with pytest.raises(ValueError, match="baseline: 'sime' is none of the groups base, semi"):
        plan_comparisons(summarize(runs), "any", "sime")


def test_a_study_claims(runs, tmp_path, monkeypatch):
    path = tmp_path / "claims.csv"
    path.write_text(
        "study,better,worse,split,margin\nmine,semi,base,val,0\nmine,x,y,val,0\n"
        "mine,semi,gone,val,0\nother,base,semi,val,0\n"
    )
    monkeypatch.setattr("lib.report.verdict.CLAIMS", path)
    summary = summarize(runs)
    failed = Pair("semi", "gone", "val")  # the run of `gone` failed
    assert plan_comparisons(summary, "mine")[0] == [Pair("semi", "base", "val"), failed]
    summary["objective"] = "fixmatch"  # as in an ablation: what is claimed worse is the baseline
    asked, baselines = plan_comparisons(summary, "other")
    assert asked == [Pair("base", "semi", "val")] and baselines == {"base": "semi"}


def test_every_claim_and_range_is_of_a_run():
    groups = {
        (run.run_dir.parent.name, group_of(run.name)): set(run.settings.test_splits)
        for run in read_plan(["params"])
    }
    claims = pd.read_csv(CLAIMS)
    for row in claims.itertuples():
        assert row.split in groups[row.study, row.better] & groups[row.study, row.worse]
    for row in of_study(EXPECTED, "demo").itertuples():
        assert row.split in groups["demo", row.group] and 0 <= row.low <= row.high <= 100


def test_confusions_are_summed_over_seeds(runs):
    matrices, classes = load_confusions(runs, "val", ["semi", "base"])
    assert list(matrices) == ["semi", "base"] and len(classes) == 4
    assert matrices["base"].sum() == 16 and matrices["base"].trace() == 10
    figure = plot_class_gains(matrices["base"], matrices["semi"], classes, ("base", "semi"), "val")
    gains = [bar.get_width() for bar in figure.axes[0].patches]
    assert gains == pytest.approx([50, 25, 25, 0])  # of classes 2, 0, 1 and 3


def test_differences_are_drawn_by_seed(runs):
    summary = summarize(runs)
    summary.loc[summary["run"] == "semi", "seed"] = "1"
    comparisons = compare_groups(summary, [Pair("semi", "base", "val")])
    differences = [paired_differences(summary, Pair("semi", "base", "val"))]
    axis = plot_differences(comparisons, differences).axes[0]
    assert axis.collections[0].get_offsets().tolist() == [[12.5, 0]]  # 7 and 6 of 8 videos
    assert not axis.patches  # one seed has no interval
    assert axis.get_title() == "1 × not decided"
    assert "points" in axis.get_xlabel()


def test_intervals_are_drawn():
    summary = make_summary({"semi": [60, 70, 68], "base": [50, 55, 60]})
    comparisons = compare_groups(summary, [Pair("semi", "base", "val")])
    differences = [paired_differences(summary, Pair("semi", "base", "val"))]
    axis = plot_differences(comparisons, differences).axes[0]
    (bar,) = axis.patches
    assert (bar.get_x(), bar.get_width()) == pytest.approx((2.043, 17.915), abs=1e-3)
    assert axis.get_title() == "1 × holds"


def test_class_names_alone_are_a_row_of_the_table(runs, prepared_dir, tmp_path, capsys):
    assert zero_shot_rows(runs).empty
    shutil.copytree(prepared_dir / "synthetic", tmp_path / "data" / "synthetic")
    for run in runs:
        text = run.params_path.read_text().replace(str(prepared_dir), str(tmp_path / "data"))
        run.params_path.write_text(text)
    data = read_dataset(tmp_path / "data" / "synthetic")
    rows, labels = data.read_labels("val")
    shares = np.full((len(data.index), 4), 0.25)
    shares[rows[:3]] = np.eye(4)[labels[:3]]  # the others are ties, which count as errors
    table = pd.DataFrame(shares, columns=data.classes).assign(name=data.index["name"])
    table.to_csv(data.folder / "soft_targets_clip.csv", index=False)
    table[:1].to_csv(data.folder / "soft_targets_old.csv", index=False)
    shown = group_table(summarize(runs), zero_shot_rows(runs))
    assert shown["val, top-1 (%)"].to_dict() == {
        "base": "62.5 ± 17.7",
        "semi": "87.5",
        "no labels: class names by clip": "37.5",
    }
    assert "soft_targets_old.csv has no row for 8 of 8 videos" in capsys.readouterr().out


# --- What the page says ---------------------------------------------------------------------------

PAIRS = [Pair("semi", "base", "val")]
HOSTILE = "semi<img src=x onerror=alert(1)>`*|_[a](javascript:b)"


def make_summary(groups: dict[str, list[float]]) -> pd.DataFrame:
    rows = [
        (f"{group}_seed{seed}", group, str(seed), "val", top1)
        for group, values in groups.items()
        for seed, top1 in enumerate(values)
    ]
    columns = ["run", "group", "seed", "split", "top1"]
    return pd.DataFrame(rows, columns=columns).assign(dataset="synthetic")


def test_the_first_line_is_the_claim(runs):
    summary = summarize(runs)
    summary.loc[summary["run"] == "semi", ["unlabeled", "steps"]] = 12, 60
    page = page_head("demo", summary, [Pair("semi", "base", "val")], runs)
    assert re.search(
        r"<h1[^>]*>From 6 labeled and 12 unlabeled videos, <b>semi</b> recognizes 87.5 % of val; "
        r"<b>base</b> from 6 labeled videos 62.5 % \(60 and 6 steps\).</h1>",
        page,
    )
    assert (
        "<p>Best run: <b>semi</b>: 88 % of 8 videos of val right (95 % interval 53 to 98)" in page
    )
    assert re.search(r"<p>demo · 3 runs · \d+ \w+ 20\d\d · .* · commit \w+", page)
    summary["seed"], summary["unlabeled"], summary["steps"] = ["0", "1", "0"], 0, 6
    both = page_head("demo", pd.concat([summary, summary.assign(seed="1")]), PAIRS, runs)
    assert "recognizes 87.5 % of val; <b>base</b> 62.5 % (6 steps each, mean of 2 seeds)" in both


def test_own_videos_get_a_recommendation(runs):
    summary = summarize(runs).assign(dataset="folder")
    page = page_head("mine", summary, PAIRS, runs)
    assert "Use <b>semi</b>: 88 % of 8 videos of val right (95 % interval 53 to 98)" in page
    assert "so that 8 videos do not decide, is base (62 %)" in page
    assert f"python -m lib.predict {runs[2].folder} VIDEOS" in page
    folds = {"eval/top1_cross_validated": 90.0, "eval/videos_cross_validated": 40.0}
    entry = runs[2].log_entries()[-1] | folds
    runs[2].log_path.write_text(json.dumps(entry) + "\n")
    page = page_head("mine", summary, PAIRS, runs)
    assert (
        "Use <b>semi</b>: 90 % of 40 labeled videos right in cross-validation "
        "(95 % interval 77 to 96), learned from 6 labeled videos in 6 steps."
    ) in page
    assert "88 % of the 8 videos of val are right (95 % interval 53 to 98)" in page
    probe = page_head("mine", summary.assign(steps=0), PAIRS, runs)
    assert "learned from 6 labeled videos.</h1>" in probe
    alone = page_head("quickstart", summary[2:].assign(dataset="synthetic"), [], runs)
    assert "Use <b>semi</b>" in alone and "do not decide" not in alone
    for run in runs:
        (run.folder / "params.yaml").write_text(
            run.settings().as_yaml().replace(": val\n", ": x\n")
        )
    assert "No run is tested on its validation split" in page_head("mine", summary, PAIRS, runs)


def test_the_interval_of_an_accuracy_is_wilsons():
    assert accuracy_interval(100 * 10 / 12, 12) == pytest.approx((55.20, 95.30), abs=0.01)
    assert accuracy_interval(0, 5)[0] == 0 and accuracy_interval(100, 5)[1] == 100


def test_a_single_group_is_told_how_to_be_compared():
    page = verdict_html(make_summary({"semi": [60]}), [])
    assert "nothing to compare" in page and "Asked" not in page
    assert (
        "one group of runs, semi: train a baseline" in page and 'objective = "supervised"' in page
    )
    page = verdict_html(make_summary({"a": [60], "b": [70]}), [])
    assert "name one of a and b with the parameter <code>baseline</code>" in page


def test_own_videos_without_a_baseline_have_no_verdict():
    summary = make_summary({"probe": [60], "probe_self_trained": [70]}).assign(dataset="folder")
    assert verdict_html(summary, []).strip() == ""
    page = verdict_html(summary, [], ["A note."])
    assert "<p>A note.</p>" in page and "Verdict" not in page and "baseline" not in page
    assert "Verdict: <b>not decided</b>" in verdict_html(
        summary, [Pair("probe_self_trained", "probe", "val")]
    )


def test_the_page_opens_with_the_verdict():
    summary = make_summary({"semi": [60, 70, 68], "base": [50, 55, 60]})
    page = verdict_html(summary, PAIRS, ["A note."])
    assert "Asked: Is <b>semi</b> better than <b>base</b> on val?" in page
    assert "Verdict: <b>holds</b>" in page and "<p>A note.</p>" in page
    assert (
        "semi against base on val: +11.0 points (95 % interval +2.0 to +20.0), better in 3 of 3 "
        "seeds: <b>holds</b>"
    ) in page


def test_one_run_decides_nothing():
    summary = make_summary({"semi": [90], "base": [10]})
    page = verdict_html(summary, PAIRS)
    assert "Verdict: <b>not decided</b>" in page and "One run decides nothing" in page
    page = verdict_html(summary, [Pair("semi", "other", "val")])
    assert "no seed was run and tested in both" in page


def test_whether_this_machine_lies_in_the_range(tmp_path):
    summary = make_summary({"semi": [60, 70], "base": [50, 55]})
    path = tmp_path / "expected.csv"
    assert range_note(summary, of_study(path, "demo")) == ""  # no file, no sentence
    path.write_text(
        "study,group,split,low,high\ndemo,semi,val,60,70\ndemo,base,val,51,60\nx,base,val,0,1\n"
    )
    assert range_note(summary, of_study(path, "demo")) == (
        "1 of 4 results of single runs are outside README's range "
        "(base, seed 0, on val: 50.0 % (51.0 to 60.0))."
    )
    path.write_text("study,group,split,low,high\ndemo,semi,val,60,70\ndemo,base,val,50,60\n")
    assert "All 4 results of single runs are in README's range" in range_note(
        summary, of_study(path, "demo")
    )
    assert range_note(summary, of_study(path, "mine")) == ""


@pytest.mark.parametrize(
    "file, content, message",
    [
        ("log.jsonl", '{"epoch" 1}\n', r"log\.jsonl, line 1: damaged .*; delete that line"),
        (
            "log.jsonl",
            '{"epoch": 1, "step": 2}\n',
            r"log\.jsonl: damaged, no numbers 'sec",
        ),
        ("log.jsonl", "", r"log\.jsonl: damaged, no numbers"),
        (
            "metrics.json",
            '{"labels": 6',
            r"metrics\.json: damaged .*; test the run again",
        ),
        (
            "metrics.json",
            '{"labels": 6, "splits": {}}',
            r"metrics\.json: damaged .*; test",
        ),
        ("metrics.json", '{"splits": {"val": {"top1": "a"}}}', r"metrics\.json: damaged .'labels'"),
        ("metrics.json", '{"labels": 6, "splits": {"val": 3}}', r"metrics\.json: damaged .*; test"),
        ("scores_val.npz", "PK", r"scores_val\.npz: damaged .*; test the run again"),
        ("environment.json", "{", r"environment\.json: damaged .*; delete that file"),
    ],
)
def test_a_damaged_run_costs_only_itself(runs, file, content, message):
    study = runs[0].folder.parent
    (runs[0].folder / file).write_text(content)
    sound, problems = read_runs(study)
    assert [run.name for run in sound] == ["base_seed1", "semi"] and list(problems) == [
        "base_seed0"
    ]
    assert re.search(message, problems["base_seed0"])
    assert len(summarize(sound)) == 2


def test_a_study_without_a_sound_run_says_why(runs):
    for run in runs:
        run.metrics_path.write_text("?")
    with pytest.raises(ValueError, match=r"no tested run; (.*\n)+  semi: .*metrics\.json: dam"):
        read_runs(runs[0].folder.parent)


def test_a_page_has_no_empty_sections_and_no_text_of_absent_figures():
    from nbformat.v4 import new_code_cell, new_markdown_cell, new_output

    shown_output = new_output("display_data", data={"text/html": "a"})
    printed = new_output("stream", text="a")
    cells = [
        new_markdown_cell("# 5 · Report", metadata={"tags": ["notebook-only"]}),
        new_code_cell("display(title)", outputs=[shown_output]),
        new_markdown_cell("## Empty\n\nnobody sees"),
        new_code_cell("print(y)", outputs=[printed]),
        new_markdown_cell("what nobody sees"),
        new_code_cell("x = 1"),
        new_markdown_cell("## Full"),
        new_markdown_cell("of an absent figure"),
        new_code_cell("y = 2"),
        new_markdown_cell("of a figure"),
        new_code_cell("display(y)", outputs=[shown_output, printed]),
    ]
    shown = shown_cells(cells)
    assert [c.source for c in shown] == ["display(title)", "## Full\n\nof a figure", "display(y)"]
    assert [len(c.outputs) for c in shown if c.cell_type == "code"] == [1, 1]


def test_a_figure_has_a_description(tmp_path):
    from nbformat import write
    from nbformat.v4 import new_code_cell, new_notebook, new_output

    picture = new_output("display_data", data={"image/png": "iVBORw0KGgo=", "text/plain": "f"})
    cell = new_code_cell("figure", outputs=[picture], metadata={"alt": 'Bars: "a" <b>'})
    write(new_notebook(cells=[cell]), tmp_path / "5.ipynb")
    page = export_html(tmp_path / "5.ipynb", tmp_path / "report.html").read_text()
    assert 'alt="Bars: &#34;a&#34; &lt;b&gt;"' in page or "alt='Bars: \"a\" &lt;b&gt;'" in page
    assert "No description" not in page


def test_a_color_means_one_thing():
    from lib.plots import style

    others = {style.LABELED, style.UNLABELED, style.ACCURACY, style.WRONG, style.GRAY}
    assert not others & set(style.GROUP_COLORS)
    assert len(set(style.GROUP_COLORS)) == len(style.GROUP_COLORS)
    assert set(VERDICT_COLORS) == {HOLDS, UNDECIDED, CONTRADICTED}
    assert group_colors("abcdefghi")["a"] == group_colors("abcdefghi")["i"]


def test_names_are_shown_as_they_are(tmp_path, monkeypatch):
    summary = make_summary({HOSTILE: [60, 70], "base": [50, 55]})
    made = [RunDir(tmp_path / name) for name in summary["run"]]
    expected = pd.DataFrame({"group": [HOSTILE], "split": ["val"], "low": [0], "high": [1]})
    pairs = [Pair(HOSTILE, "base", "val")]
    settings = SimpleNamespace(val_split="val")
    best = SimpleNamespace(name=made[0].name, folder=made[0].folder, settings=lambda: settings)
    best.log_entries = list
    monkeypatch.setattr("lib.report.page.best_in_validation", lambda _: best)
    facts = {"dataset": "synthetic", "labels": 6, "unlabeled": 0, "steps": 3, "videos": 8}
    facts = summary.assign(**facts, machine="a", run=[run.name for run in made])
    texts = [
        verdict_html(summary, pairs),
        verdict_html(summary, []),
        range_note(summary, expected),
        run_links([RunDir(tmp_path / HOSTILE)]),
        left_out_note({HOSTILE: f"{HOSTILE}: damaged"}),
        page_head(HOSTILE, facts, pairs, made),
        page_head("title", facts, [], made),
        as_markdown(means_over_seeds(summary)),
    ]
    for text in texts:
        assert "semi&lt;img src=x" in text and "<img" not in text and "[a]" not in text


def test_invariance_is_a_mean_over_seeds(runs):
    assert all(table.empty for table in read_invariance(runs))
    for run, value in zip(runs, (50.0, 60.0, 80.0), strict=True):
        families = f"family,agreement,kl,draws\nphotometric,{value},0.1,9\ntemporal,90,0.1,9\n"
        (run.folder / "invariance_families.csv").write_text(families)
        (run.folder / "invariance_inputs.csv").write_text(
            f"input,top1,videos\nwhole clip,{value},9\n"
        )
    families, inputs = read_invariance(runs)
    assert families["seed"].tolist() == ["0", "0", "1", "1", "0", "0"]
    agreement, accuracy = means_over_seeds(families), means_over_seeds(inputs)
    assert agreement["photometric"].to_dict() == {"base": 55.0, "semi": 80.0}
    assert accuracy["whole clip"].to_dict() == {"base": 55.0, "semi": 80.0}
    figure = plot_invariance_of_groups(agreement, accuracy, group_colors(["base", "semi"]))
    assert len(figure.axes) == 2
    assert figure.axes[0].get_title() == "photometric augmentation changes the class most often"


def test_settings_without_effect_are_no_difference(runs):
    table = differing_settings(runs)
    assert table.loc["objective"].to_dict() == {"base": "supervised", "semi": "fixmatch"}
    assert not any(name.startswith(("unlabeled_", "confidence_")) for name in table.index)
