"""Reproduction of a run from its folder, with a comparison of its losses."""

import json
import shutil

import pytest

from lib.batch.__main__ import main
from lib.batch.local import difference
from lib.runs.run_dir import RunDir, read_result
from lib.train.fit import fit


@pytest.mark.slow
def test_a_run_is_reproduced_from_its_folder_alone(tiny_settings, capsys):
    run = fit(tiny_settings(epochs=2))
    assert main(["--from", str(run.folder)]) == 0
    said = capsys.readouterr().out
    again = RunDir(f"{run.folder}_again")
    assert f"its first losses equal those of {run.folder} to the last digit" in said
    assert again.is_finished() and read_result(again)["splits"]
    assert [e["loss/total"] for e in again.log_entries()] == [
        e["loss/total"] for e in run.log_entries()
    ]


def test_the_first_difference_is_named(tiny_settings, tmp_path):
    run = fit(tiny_settings(epochs=2))
    other = RunDir(shutil.copytree(run.folder, tmp_path / "other"))
    assert difference(run, other) == ""
    entries = other.log_entries()
    entries[1]["loss/total"] = 7.0
    other.log_path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    assert "epoch 2: the loss was" in difference(run, other)
    assert "code or data have changed" in difference(run, other)
    environment = json.loads(other.environment_path.read_text())
    other.environment_path.write_text(json.dumps(environment | {"packages": {"torch": "1.0"}}))
    assert "the machines or PyTorch differ" in difference(run, other)
