"""What this machine is and what would fail on it; with `--gpu`, whether it computes rightly.

    python -m lib.doctor          # a minute: versions, GPUs, memory, disks, video readers
    python -m lib.doctor --gpu    # two more: arithmetic, processes and small runs, on the GPU

Without a GPU, `--gpu` runs all that a CPU can do. The page and the JSON file can be sent.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from lib.config import project_path
from lib.doctor import arithmetic, machine, ranks, runs
from lib.doctor.check import Bench, Result, run_checks
from lib.fileio import write_text
from lib.jupyter.html import escape
from lib.runs.device import cuda_problem
from lib.runs.environment import environment

SELF_TEST = (*arithmetic.CHECKS, *ranks.CHECKS, *runs.CHECKS)
STYLE = (
    "body{font-family:sans-serif;max-width:70em;margin:2em auto}td,th{text-align:left;"
    "padding:.3em 1em;border-bottom:1px solid #ccc;vertical-align:top}.failed{color:#b00020;"
    "font-weight:bold}.passed{color:#00703c}table{border-collapse:collapse}"
)


def make_bench(folder: Path) -> Bench:
    """Return what is tested: the paper's network on a GPU, a small one on a CPU."""
    if cuda_problem() is None:
        return Bench(torch.device("cuda", 0), "r2plus1d_34", 5, 8, 224, folder)
    return Bench(torch.device("cpu"), "r2plus1d_small", 4, 4, 32, folder)


def write_pages(results: Sequence[Result], folder: Path) -> None:
    """Write `doctor.html` and `doctor.json`."""
    known = {"environment": environment(1), "results": [asdict(one) for one in results]}
    write_text(folder / "doctor.json", json.dumps(known, indent=1) + "\n")
    rows = "".join(
        f"<tr><td>{escape(one.name)}</td><td class='{escape(one.verdict)}'>{escape(one.verdict)}"
        f"</td><td>{escape(one.measured)}</td><td>{escape(one.tolerance)}</td></tr>\n"
        for one in results
    )
    head = "<tr><th>check</th><th>verdict</th><th>measured</th><th>allowed or wanted</th></tr>"
    write_text(
        folder / "doctor.html",
        f"<!doctype html><meta charset='utf-8'><title>Self-test</title><style>{STYLE}</style>"
        f"<h1>Self-test</h1><p>{escape(summary(results))}</p><table>{head}\n{rows}</table>\n",
    )


def summary(results: Sequence[Result]) -> str:
    """Return how many checks ended how."""
    verdicts = [one.verdict for one in results]
    names = ("passed", "failed", "not run", "measured")
    return ", ".join(f"{verdicts.count(name)} {name}" for name in names if name in verdicts)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the checks, print and write what they found; 1 if one failed."""
    parser = argparse.ArgumentParser(prog="lib.doctor", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--gpu", action="store_true", help="the self-test too")
    parser.add_argument("--output", default="outputs/doctor", help="folder of the page")
    given = parser.parse_args(arguments)
    results = []
    with TemporaryDirectory(prefix="doctor_") as folder:
        checks = machine.CHECKS + (SELF_TEST if given.gpu else ())
        for one in run_checks(checks, make_bench(Path(folder))):
            results.append(one)
            allowed = f"  ({one.tolerance})" if one.tolerance else ""
            print(f"{one.verdict:8}  {one.name}: {one.measured}{allowed}", flush=True)
    write_pages(results, project_path(given.output))
    print(f"{summary(results)}; {project_path(given.output) / 'doctor.html'}")
    return int(any(one.verdict == "failed" for one in results))


if __name__ == "__main__":
    from lib.doctor import __main__ as module

    sys.exit(module.main())
