"""Pseudo-labels as a table, decisions about them, and the labeled split that results."""

import math
import shlex
import shutil

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch

from lib.batch.__main__ import main as batch_main
from lib.batch.__main__ import parse_set
from lib.batch.jobs import EVALUATE, TRAIN, Job
from lib.config import EvaluateSettings, TrainSettings
from lib.data.dataset import parse_split
from lib.evaluate.pseudo_labels import (
    SKIPPED,
    TABLE,
    PseudoLabels,
    main,
    pseudo_label,
    training_command,
    write_pseudo_labels,
)
from lib.evaluate.run_results import Calibration
from lib.evaluate.test import evaluate
from lib.evaluate.trained_model import TrainedModel
from lib.jupyter.pseudo_label_browser import PseudoLabelBrowser, show_pseudo_labels
from lib.prepare.published_splits import class_counts
from lib.prepare.synthetic import make_synthetic
from lib.runs.run_dir import RunDir, differences, read_result
from lib.train.fit import fit
from lib.train.run_data import load_data, make_streams

LABELED = 0.3


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> RunDir:
    """A tested run with its table, on data of its own."""
    from conftest import make_tiny_settings

    folder = tmp_path_factory.mktemp("pseudo")
    make_synthetic(folder / "synthetic", split_sizes={"train": 18, "val": 8, "val_swapped": 6})
    changes = {"labeled_fraction": LABELED, "epochs": 1, "frame_cache_mb": 0}  # videos are moved
    run = fit(make_tiny_settings(folder, folder / "study" / "semi_seed0", **changes))
    evaluate(EvaluateSettings(run_dir=str(run.folder)))
    assert main([str(run.folder)]) == 0
    return run


@pytest.fixture
def run(trained):
    """The run as the fixture above left it, with no decision and no list."""
    yield trained
    table = pd.read_csv(trained.folder / TABLE, keep_default_na=False)
    table.assign(decision="").to_csv(trained.folder / TABLE, index=False)
    lists = load_data(trained.settings()).labeled.folder / "splits"
    for path in lists.glob("checked*"):
        path.unlink()


def decide(run: RunDir, *labels: str) -> PseudoLabels:
    """Decide about the first videos of the table."""
    labels_of = PseudoLabels(run)
    for name, label in zip(labels_of.table["name"], labels, strict=False):
        labels_of.decide(name, label)
    return labels_of


def another(labels: PseudoLabels, row: int) -> str:
    """Return a class that neither the network nor the index gives a video of the table."""
    name, said = labels.table.loc[row, ["name", "label"]]
    index = labels.data.unlabeled.index.set_index("name")
    return next(c for c in labels.data.labeled.classes if c not in (said, index.loc[name, "class"]))


# --- The table ------------------------------------------------------------------------------------


def model_with(fusion: str, temperature: float) -> TrainedModel:
    settings = TrainSettings(test_average=fusion)
    calibration = Calibration(temperature, np.empty((0, 3)), np.empty((0, 3)), 0)
    return TrainedModel(settings, ("a", "b", "c"), None, None, calibration)


def test_label_confidence_and_agreement_by_hand():
    logits = torch.tensor([[2.0, 0.0, 1.0], [0.0, 3.0, 1.0], [4.0, 0.0, 1.0]])
    label, sure, second, agreement = pseudo_label(model_with("logits", 2.0), logits)
    share = [math.exp(x / 2) for x in (2.0, 1.0, 1.0)]  # the means of the columns
    assert (label, second) == (0, 1)
    assert sure == pytest.approx(share[0] / sum(share)) and agreement == pytest.approx(2 / 3)


def test_probabilities_are_averaged_before_the_temperature():
    logits = torch.log(torch.tensor([[0.9, 0.1], [0.3, 0.7]]))
    label, sure, second, agreement = pseudo_label(model_with("probabilities", 0.5), logits)
    assert (label, second, agreement) == (0, 1, 0.5)
    assert sure == pytest.approx(0.6**2 / (0.6**2 + 0.4**2))


def test_the_table_holds_the_unlabeled_videos_by_the_test_protocol(run):
    data, table = load_data(run.settings()), pd.read_csv(run.folder / TABLE)
    assert list(table) == ["name", "label", "confidence", "second", "agreement", "decision"]
    names = data.labeled.index["name"]
    drawn, listed = set(names[data.labeled_rows]), set(names[data.labeled.read_split("train")])
    assert set(table["name"]) == listed - drawn and drawn and len(table) == len(listed - drawn)
    assert table["confidence"].is_monotonic_increasing
    views = run.settings().test_num_clips * run.settings().test_num_crops
    assert np.allclose((table["agreement"] * views) % 1, 0, atol=2e-3)
    assert (table["label"] != table["second"]).all()


def test_a_video_of_the_table_has_its_test_scores(run, tmp_path):
    copy = RunDir(shutil.copytree(run.folder, tmp_path / "copy"))
    text = copy.params_path.read_text().replace("test_splits:\n- val\n", "test_splits:\n- train\n")
    copy.params_path.write_text(text)
    result = evaluate(EvaluateSettings(run_dir=str(copy.folder)))["train"]
    temperature = TrainedModel.load(run).temperature
    scores = torch.from_numpy(result.scores) / temperature
    shares = pd.DataFrame(scores.softmax(dim=1).numpy(), columns=result.dataset.classes)
    shares.index = result.dataset.index["name"].to_numpy()[result.rows]
    for _, row in pd.read_csv(run.folder / TABLE).iterrows():
        assert shares.loc[row["name"]].idxmax() == row["label"]
        assert shares.loc[row["name"]].max() == pytest.approx(row["confidence"], abs=1e-3)


def test_without_a_test_confidence_is_plain_and_that_is_said(run, tmp_path, capsys):
    copy = RunDir(shutil.copytree(run.folder, tmp_path / "copy"))
    (copy.folder / "scores_val.npz").unlink()
    assert len(write_pseudo_labels(copy)) == len(pd.read_csv(run.folder / TABLE))
    assert "confidence is not calibrated" in capsys.readouterr().out


def test_a_video_that_cannot_be_read_is_left_out_and_named(run, tmp_path, capsys):
    name = pd.read_csv(run.folder / TABLE)["name"].iloc[0]
    index = load_data(run.settings()).labeled
    path = index.root / index.index.set_index("name").loc[name, "path"]
    moved = path.rename(tmp_path / "moved")
    copy = RunDir(shutil.copytree(run.folder, tmp_path / "copy"))
    try:
        table = write_pseudo_labels(copy)
    finally:
        moved.rename(path)
    assert name not in set(table["name"]) and str(path) in capsys.readouterr().err


# --- Decisions and the list -----------------------------------------------------------------------


def test_decisions_are_kept_at_once(run):
    labels = PseudoLabels(run)
    classes = labels.data.labeled.classes
    decide(run, labels.table["label"][0], SKIPPED, classes[1])
    decisions = [labels.table["label"][0], SKIPPED, classes[1]]
    assert PseudoLabels(run).table["decision"][:4].tolist() == [*decisions, ""]
    labels.decide(labels.table["name"][3], classes[0])  # a second window forgets nothing
    assert PseudoLabels(run).table["decision"][:4].tolist() == [*decisions, classes[0]]
    table = write_pseudo_labels(run)  # nor does the command, when it is run again
    assert table.equals(PseudoLabels(run).table)
    assert table["decision"][:4].tolist() == [*decisions, classes[0]]


def test_the_list_is_learned_from_with_the_labels_that_were_decided(run):
    labels = PseudoLabels(run)
    given = [another(labels, 0), SKIPPED, labels.table["label"][2], another(labels, 3)]
    path = decide(run, *given).write_split("checked")
    names, numbers, _ = parse_split(path)
    old = load_data(run.settings())
    assert names[: len(old.labeled_rows)] == list(old.labeled.index["name"][old.labeled_rows])
    wanted = labels.table["name"][[0, 2, 3]].tolist()
    assert names[len(old.labeled_rows) :] == wanted
    assert [old.labeled.classes[k] for k in numbers[-3:]] == [given[0], given[2], given[3]]

    settings = run.settings().model_copy(
        update={"labeled_split": "checked", "labeled_fraction": 1.0}
    )
    data = load_data(settings)
    clips = make_streams(settings, data)[0].clips
    seen = {data.labeled.record(row).name: clips[0, int(row)].label for row in data.labeled_rows}
    assert seen == dict(zip(names, numbers.tolist(), strict=True))
    assert data.unlabeled.index["label"].equals(old.unlabeled.index["label"])
    assert class_counts(data.unlabeled, "checked").sum() == len(names)
    assert class_counts(data.unlabeled, "checked").tolist() == np.bincount(numbers).tolist()


def work_here(job, notebook, parameters, *_) -> None:
    """Do what a notebook of a batch does, in this process."""
    if notebook == TRAIN:
        fit(TrainSettings(**parameters))
    elif notebook == EVALUATE:
        evaluate(EvaluateSettings(**parameters))
    else:
        nbformat.write(nbformat.v4.new_notebook(), job.folder / notebook)


@pytest.mark.slow
def test_the_command_trains_with_the_split_and_a_second_round_works(run, capsys, monkeypatch):
    monkeypatch.setattr(Job, "execute", work_here)
    labels = PseudoLabels(run)
    decide(run, another(labels, 0), another(labels, 1))
    capsys.readouterr()
    assert main([str(run.folder), "--split", "checked"]) == 0
    command = capsys.readouterr().out.splitlines()[-1]
    assert command == training_command(run, "checked")
    words = shlex.split(command)
    assert words[:3] == ["python", "-m", "lib.batch"]
    assert batch_main(words[3:]) == 0
    second = RunDir(run.folder.with_name("semi_checked_seed0"))
    assert (
        second.is_finished()
        and read_result(second)["labels"] == len(load_data(run.settings()).labeled_rows) + 2
    )
    changed = {"run_dir", "labeled_split", "labeled_fraction"}
    lines = differences(run.settings(), second.settings())
    assert {line.split(":")[0] for line in lines} <= changed
    assert (second.folder.parent / "report.html").is_file()

    table = write_pseudo_labels(second)
    assert not set(table["name"]) & set(labels.table["name"][:2])
    path = decide(second, table["label"][0]).write_split("checked2")
    before, numbers, _ = parse_split(path.with_name("checked.txt"))
    assert parse_split(path)[0][: len(before)] == before
    assert parse_split(path)[1][: len(before)].tolist() == numbers.tolist()
    load_data(second.settings().model_copy(update={"labeled_split": "checked2"}))
    shutil.rmtree(second.folder)


def test_labels_that_differ_from_the_index_are_used_with_a_warning(run):
    labels = PseudoLabels(run)
    path = decide(run, another(labels, 0)).write_split("checked")
    with pytest.warns(UserWarning, match=r"checked\.txt: 1 of \d+ labels differ from the index"):
        labels.data.labeled.read_split("checked")
    path.write_text(path.read_text().rstrip()[:-1] + "9")
    with pytest.raises(ValueError, match=r"checked\.txt: label 9 of .* is not one of 4 classes"):
        labels.data.labeled.read_split("checked")


# --- The browser ----------------------------------------------------------------------------------


def test_the_browser_accepts_corrects_skips_and_writes(run):
    browser = PseudoLabelBrowser(run)
    table = browser.labels.table
    assert "<img" in browser.clip.value and browser.other.value == table["second"][0]
    browser.accept.click()
    browser.correct.click()  # the second class is offered first
    browser.skip.click()
    decisions = [table["label"][0], table["second"][1], SKIPPED]
    assert PseudoLabels(run).table["decision"][:4].tolist() == [*decisions, ""]
    assert "<b>3</b> of" in browser.count.value and "1 accepted, 1 corrected" in browser.count.value
    assert browser.videos.value == 3
    assert PseudoLabelBrowser(run).videos.value == 3  # one goes on where one was
    browser.split_name.value = "train"
    browser.write.click()
    assert "train.txt exists; choose another name" in browser.message.value
    browser.split_name.value = "checked"
    browser.write.click()
    assert "labeled_split=checked" in browser.message.value
    browser.videos.value = 0
    browser.skip.click()  # a decision can be changed
    assert "0 accepted, 1 corrected, 2 skipped" in browser.count.value
    for _ in range(len(table)):
        browser.accept.click()
    assert f"<b>{len(table)}</b> of {len(table)} videos" in browser.count.value


def test_the_browser_accepts_all_from_a_confidence(run):
    browser = PseudoLabelBrowser(run)
    browser.skip.click()  # the least certain
    limit = sorted(browser.labels.table["confidence"])[len(browser.labels.table) // 2]
    browser.percent.value = int(100 * limit)
    browser.accept_all.click()
    table = PseudoLabels(run).table
    is_sure = table["confidence"] >= browser.percent.value / 100
    expected = table["label"].where(is_sure, "")
    expected[0] = SKIPPED
    assert table["decision"].tolist() == expected.tolist()
    assert f"{is_sure[1:].sum()} accepted, 0 corrected, 1 skipped" in browser.count.value


def test_the_notebook_says_what_to_do(run, tiny_settings, tmp_path, capsys):
    show_pseudo_labels(run)
    said = capsys.readouterr().out
    assert f"{len(pd.read_csv(run.folder / TABLE))} videos, 0 decided" in said
    bare = RunDir(shutil.copytree(run.folder, tmp_path / "bare"))
    (bare.folder / TABLE).unlink()
    show_pseudo_labels(bare)
    assert f"python -m lib.evaluate.pseudo_labels {bare.folder}" in capsys.readouterr().out
    supervised = tiny_settings(objective="supervised")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "params.yaml").write_text(supervised.as_yaml())
    show_pseudo_labels(RunDir(tmp_path / "run"))
    assert "'supervised' uses no unlabeled videos" in capsys.readouterr().out
    (bare.folder / TABLE).write_text("damaged")
    show_pseudo_labels(bare)
    assert f"{bare.folder / TABLE}: damaged" in capsys.readouterr().out


# --- Bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": "supervised"}, "objective 'supervised' uses no unlabeled videos"),
        ({"labeled_fraction": 1.0}, "all of unlabeled_split 'train' is labeled"),
        ({"epochs": 3}, "not finished, 0 of 3 epochs"),
    ],
)
def test_runs_without_pseudo_labels_say_why(tiny_settings, tmp_path, capsys, changes, message):
    settings = tiny_settings(**{"labeled_fraction": LABELED} | changes)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "params.yaml").write_text(settings.as_yaml())
    assert main([str(tmp_path / "run")]) == 2
    assert message in capsys.readouterr().err


def test_unlabeled_videos_of_another_data_set_are_refused(run, tmp_path, prepared_dir, capsys):
    shutil.copytree(prepared_dir / "synthetic", tmp_path / "data" / "synthetic")
    shutil.copytree(prepared_dir / "synthetic", tmp_path / "data" / "ucf101")
    changes = {"unlabeled_dataset": "ucf101", "prepared_dir": str(tmp_path / "data")}
    settings = run.settings().model_copy(update=changes)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "params.yaml").write_text(settings.as_yaml())
    assert main([str(tmp_path / "run")]) == 2
    assert "choose a run without unlabeled_dataset" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("decision", None, r"pseudo_labels\.csv: damaged .*decision"),
        ("decision", "wlak", r"pseudo_labels\.csv, line 2: decision 'wlak' is no class"),
        ("second", "wlak", "line 2: second 'wlak' is no class of the data set; correct that line"),
        ("name", "no/video", "line 2: name 'no/video' .* is no unlabeled video of the run"),
        ("name", 1, "line 3: name .* occurs twice, or .*; correct that line"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(run, column, value, message):
    text = (run.folder / TABLE).read_text()
    table = pd.read_csv(run.folder / TABLE, keep_default_na=False)
    if value is None:
        table = table.drop(columns=column)
    else:
        table.loc[0, column] = table[column][value] if isinstance(value, int) else value
    table.to_csv(run.folder / TABLE, index=False)
    try:
        with pytest.raises(ValueError, match=message):
            PseudoLabels(run)
    finally:
        (run.folder / TABLE).write_text(text)


@pytest.mark.parametrize("name", ["", "a b", "a/b", "../x", "17", "-x", ".x", "a,b"])
def test_a_list_name_that_is_not_plain_is_refused(run, name):
    labels = decide(run, PseudoLabels(run).table["label"][0])
    with pytest.raises(ValueError, match="split name .*must be a word"):
        labels.write_split(name)


def test_a_list_is_written_of_decisions_only_and_over_no_other(run, tmp_path, capsys):
    with pytest.raises(ValueError, match=r"pseudo_labels\.csv: no pseudo-label is accepted"):
        decide(run, SKIPPED).write_split("checked")
    labels = decide(run, *PseudoLabels(run).table["label"][:2])
    labels.write_split("checked")
    with pytest.raises(ValueError, match="'checked': .* exists; choose another name"):
        labels.write_split("checked")
    bare = RunDir(shutil.copytree(run.folder, tmp_path / "bare"))
    (bare.folder / TABLE).unlink()
    assert main([str(bare.folder), "--split", "more"]) == 2
    assert "create it with python -m lib.evaluate.pseudo_labels" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["labeled_split=checked"], "--set run_dir: with --from"),
        (["run_dir=a", "seed=0,1"], "--set seed: several values"),
        (["run_dir=outputs/x", "labeld_list=checked"], "labeld_list"),
    ],
)
def test_a_run_from_another_with_other_settings_needs_a_folder(run, capsys, given, message):
    assert batch_main(["--from", str(run.folder), *(f"--set={text}" for text in given)]) == 2
    assert message in capsys.readouterr().err


def test_the_training_command_survives_any_folder(tmp_path):
    words = shlex.split(training_command(RunDir(tmp_path / "a, b" / "semi"), "checked"))
    assert parse_set(words[-1]) == ("run_dir", [str(tmp_path / "a, b" / "semi_checked")])
