"""Rehearsal of the script for the first quarter of an hour on a GPU: every stage, on a CPU."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch

from benchmarks import first_gpu
from lib.config import PROJECT_ROOT


@pytest.fixture
def sigterm() -> Iterator[None]:
    """Restore what happens at SIGTERM."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


@pytest.mark.slow
def test_rehearsal_measures_every_stage(tmp_path, capsys, monkeypatch, sigterm):
    """Two stages by the script, the others in this process."""
    command = ["bash", "benchmarks/first_gpu.sh", "--rehearse", "tests", "features"]
    variables = os.environ | {"PYTHON": sys.executable, "OUT": str(tmp_path)}
    subprocess.run(command, cwd=PROJECT_ROOT, env=variables, check=True, capture_output=True)
    for stage in ("speed", "method"):
        options = ["--rehearse", "--work", str(tmp_path / "work"), "--out", str(tmp_path)]
        monkeypatch.setattr(sys, "argv", ["first_gpu", stage, *options])
        first_gpu.main()
    results = tmp_path / "results.jsonl"
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    assert [row for row in rows if "error" in row] == []
    parts = {row["part"] for row in rows if row["stage"] == "speed"}
    assert parts == {"network", "loader", "loader and network", "compiled network"}
    runs = [row for row in rows if row["stage"] == "method"]
    assert [run["run"].rsplit("_", 1)[1] for run in runs] == ["semi", "supervised"]
    for run in runs:
        curve = [row for row in rows if row["stage"] == "curve" and row["run"] == run["run"]]
        assert len(curve) == run["epochs"] == run["of"] == 4
        assert curve[1]["lr"] == curve[2]["lr"] == 0.08 > curve[3]["lr"]  # warm-up, then cosine
        assert set(run["top1"]) == {"val", "val_swapped"}
    assert {row["precision"] for row in rows if row["stage"] == "features"} == {"bf16", "fp32"}
    assert "5 passed" in (tmp_path / "tests.txt").read_text()
    first_gpu.report(results, tmp_path / "curves.png")
    printed = capsys.readouterr().out
    assert "**features**" in printed and "no GPU,r3d_small,fp32,2," in printed
    assert (tmp_path / "curves.png").stat().st_size


def test_a_measurement_that_fails_is_noted(tmp_path):
    stage = first_gpu.Stage(tmp_path, tmp_path, tmp_path / "results.jsonl", end=0.0, device="cpu")

    def fail() -> dict:
        raise torch.OutOfMemoryError("too large\nmore")

    stage.attempt("speed", fail, clips=64)
    (row,) = map(json.loads, stage.results.read_text().splitlines())
    assert row == {"stage": "speed", "clips": 64, "error": "OutOfMemoryError: too large"}
