"""The self-test: all that this machine can do passes, and what is wrong fails."""

import json

import pytest
import torch

from lib.doctor import __main__ as doctor
from lib.doctor import arithmetic, ranks, runs
from lib.doctor.check import Bench, Result, at_most, run_checks

NEED_A_GPU = {
    "logits with TF32",
    "20 steps in bf16",
    "20 steps in fp16",
    "memory of a step",
    "memory of a test batch",
    "synchronised batch norm, output",
    "its gradient",
    "a step waits for the GPU",
}


@pytest.fixture
def bench(tmp_path) -> Bench:
    return doctor.make_bench(tmp_path)


def verdicts(checks, bench) -> dict[str, str]:
    found = {one.name: one for one in run_checks(checks, bench)}
    assert [one for one in found.values() if one.verdict == "failed"] == []
    return {name: one.verdict for name, one in found.items()}


@pytest.mark.parametrize("part", [arithmetic, ranks, runs], ids=lambda part: part.__name__)
def test_all_that_this_machine_can_do_passes(bench, part):
    found = verdicts(part.CHECKS, bench)
    assert "passed" in found.values()
    if not bench.has_gpu:
        assert {name for name, verdict in found.items() if verdict == "not run"} == {
            name for name in NEED_A_GPU if name in found
        }


def test_the_self_test_knows_what_needs_a_gpu(bench):
    if bench.has_gpu:
        pytest.skip("there is one")
    checks = (arithmetic.logits, arithmetic.half_precision, arithmetic.memory_of_a_step)
    found = [one for one in run_checks(checks, bench) if one.verdict == "not run"]
    assert len(found) == 5 and all(one.measured for one in found)  # each says why


def test_wrong_arithmetic_fails(bench, monkeypatch):
    real = arithmetic.actor_cutmix
    calls = iter([0.0, 1e-3])  # the CPU's, then the device's

    def wrong(weak, strong, mask):
        mixed = real(weak, strong, mask)
        return mixed._replace(clips=mixed.clips + next(calls), partner=mixed.partner)

    monkeypatch.setattr(arithmetic, "actor_cutmix", wrong)
    found = {one.name: one.verdict for one in run_checks((arithmetic.scene,), bench)}
    assert found["ActorCutMix, clips"] == "failed"
    assert found["ActorCutMix, partners"] == "passed"


def test_a_check_that_ends_with_an_error_has_failed(bench):
    def bad_day(bench):
        yield Result("first", "passed", "fine")
        raise RuntimeError("out of memory")

    (found,) = run_checks((bad_day,), bench)
    assert (found.name, found.verdict) == ("bad day", "failed")
    assert "out of memory" in found.measured


def test_no_number_is_no_success():
    assert at_most("error", float("nan"), 1e-3).verdict == "failed"
    assert at_most("error", 1e-3, 1e-3).verdict == "passed"


@pytest.mark.parametrize("verdict", ["passed", "failed"])
def test_what_was_found_is_written_and_decides_the_exit_status(
    tmp_path, monkeypatch, capsys, verdict
):
    def check(bench):
        yield Result("disk <x>", verdict, "7 GB", "≥ 5 GB")

    monkeypatch.setattr(doctor.machine, "CHECKS", (check,))
    assert doctor.main(["--output", str(tmp_path)]) == (verdict == "failed")
    assert f"1 {verdict}" in capsys.readouterr().out
    known = json.loads((tmp_path / "doctor.json").read_text())
    assert known["results"][0]["measured"] == "7 GB" and known["environment"]["packages"]
    assert "disk &lt;x&gt;" in (tmp_path / "doctor.html").read_text()


def test_the_machine_is_described(bench):
    found = {one.name: one for one in run_checks(doctor.machine.CHECKS, bench)}
    assert {"Python", "PyTorch", "GPU", "CPU", "memory", "disk", "reader av"} <= set(found)
    assert torch.__version__ in found["PyTorch"].measured
