"""Reproduction of a run from its folder."""

import pytest
from test_batch import execute_here

from lib.batch.__main__ import main
from lib.batch.jobs import ReportJob, RunJob
from lib.runs.run_dir import RunDir, read_result
from lib.train.fit import fit


@pytest.mark.slow
def test_a_run_is_reproduced_from_its_folder_alone(tiny_settings, tmp_path, monkeypatch):
    monkeypatch.setattr(RunJob, "execute", execute_here)
    monkeypatch.setattr(ReportJob, "do", lambda self, environment: "")
    run, again = fit(tiny_settings(epochs=2)), RunDir(tmp_path / "again")
    assert main(["--from", str(run.folder), "--set", f"run_dir={again.folder}"]) == 0
    assert again.is_finished() and read_result(again)["splits"]
    assert [e["loss/total"] for e in again.log_entries()] == [
        e["loss/total"] for e in run.log_entries()
    ]


def test_the_folder_of_the_new_run_is_asked_for(tiny_settings, capsys):
    assert main(["--from", tiny_settings().run_dir]) == 2
    assert "--set run_dir" in capsys.readouterr().err
