"""The command that predicts new videos with a trained run."""

import pandas as pd
import pytest

from lib.data.video_reader import UnreadableVideoError
from lib.predict import main
from lib.runs.run_dir import RunDir
from lib.train.fit import fit


@pytest.fixture(scope="module")
def run(prepared_dir, tmp_path_factory) -> RunDir:
    from conftest import make_tiny_settings

    return fit(make_tiny_settings(prepared_dir, tmp_path_factory.mktemp("runs") / "semi_seed0"))


def test_damaged_scores_are_named_with_the_remedy(run, video, capsys):
    path = run.folder / "scores_val.npz"
    path.write_bytes(b"PK no scores")
    try:
        assert main([str(run.folder), str(video)]) == 2
    finally:
        path.unlink()
    assert f"{path}: damaged" in (said := capsys.readouterr().err) and "test the run again" in said


@pytest.fixture
def video(prepared_dir):
    return sorted((prepared_dir / "synthetic").rglob("*.mp4"))[0]


@pytest.mark.slow
def test_tables_have_what_was_done_before_an_interrupt_or_a_failure(
    run, video, tmp_path, monkeypatch, capsys
):
    import lib.predict

    predict, calls = lib.predict.report_video, []

    def fail_in_turn(model, opened, stem, *options):
        calls.append(opened.record.path)
        if len(calls) == 1:
            raise UnreadableVideoError(f"{opened.record.path}: has changed")
        if len(calls) == 3:
            raise KeyboardInterrupt
        return predict(model, opened, stem, *options)

    monkeypatch.setattr(lib.predict, "report_video", fail_in_turn)
    for name in "abcd":
        (tmp_path / f"{name}.mp4").write_bytes(video.read_bytes())
    out = tmp_path / "out"
    assert main([str(run.folder), str(tmp_path), "--out", str(out)]) == 130
    printed = capsys.readouterr().err
    assert f"left out: {calls[0]}: has changed" in printed and "interrupted" in printed
    for name in ("videos.csv", "clips.csv"):
        assert set(pd.read_csv(out / name)["video"]) == {str(calls[1])}


@pytest.mark.slow
def test_names_of_figures_are_shortened(run, video, tmp_path):
    path = tmp_path / f"{'歩' * 80}.mp4"  # 244 bytes
    path.write_bytes(video.read_bytes())
    assert main([str(run.folder), str(path), "--out", str(tmp_path / "out")]) == 0
    assert len(pd.read_csv(tmp_path / "out" / "videos.csv")) == 1
    figures = sorted((tmp_path / "out").glob("001_歩*.png"))
    assert len(figures) == 2 and all(len(f.name.encode()) <= 220 for f in figures)


@pytest.mark.slow
def test_the_command_writes_tables_and_figures(run, video, tmp_path, capsys):
    (tmp_path / "empty.mp4").touch()
    given = [str(run.folder), str(video), str(tmp_path / "empty.mp4")]
    assert main([*given, "--out", str(tmp_path / "a")]) == 0
    printed = capsys.readouterr()
    assert "left out" in printed.err and "is empty" in printed.err
    assert "actor_only" in printed.out and "shows the moving region" in printed.out
    table = pd.read_csv(tmp_path / "a" / "videos.csv")
    assert len(table) == 1 and {"background_only_confidence", "regions_note"} <= set(table)
    assert len(list((tmp_path / "a").glob("001_*.png"))) == 2
    assert main([str(run.folder), str(tmp_path / "empty.mp4"), "--out", str(tmp_path / "c")]) == 2
