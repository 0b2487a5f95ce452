"""What a batch costs beside the training itself, against the targets; one line a measurement.

    python -m benchmarks.bench_batch

A run of a second is trained and evaluated twice: by `fit` and `evaluate` in a fresh process, and as
a job of a batch, through papermill and the notebooks. Beside the time stands that of the processor,
which other work on the machine does not stretch as much.
"""

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import yaml

from benchmarks.bench_data import report
from lib.batch.jobs import RunJob
from lib.batch.local import Pool
from lib.batch.plan import read_plan
from lib.config import PROJECT_ROOT
from lib.prepare.synthetic import make_synthetic

TINY = {
    "clip_len": 4,
    "short_side": 20,
    "crop_size": 16,
    "test_crop_size": 20,
    "test_num_clips": 1,
    "epochs": 1,
    "device": "cpu",
    "num_processes": 1,
}
DIRECT = """
import sys
from pathlib import Path
from lib.config import EvaluateSettings
from lib.evaluate.test import evaluate
from lib.evaluate.invariance import invariance_of
from lib.params import read_settings
from lib.train.fit import fit
run = fit(read_settings([Path(path) for path in sys.argv[1:]]))
settings = EvaluateSettings(run_dir=str(run.folder))
invariance_of(settings, list(evaluate(settings).values())[-1])
"""


def measure(work: Callable[[], object]) -> tuple[float, float]:
    """Return how long something takes, and how much processor time in processes that it starts."""

    def used() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    start, before = time.perf_counter(), used()
    work()
    return time.perf_counter() - start, used() - before


def python(*arguments: str) -> None:
    """Call this Python in the project's root."""
    command = [sys.executable, *arguments]
    subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, check=True)


def main() -> None:
    """Run all measurements."""
    seconds, _ = measure(lambda: python("-m", "lib.batch", "--help"))
    report("python -m lib.batch --help", f"{seconds:.2f} s", "4 s")
    seconds, _ = measure(lambda: python("-m", "lib.batch", "params", "--dry-run"))
    report("plan of all experiments", f"{seconds:.2f} s", "6 s")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        make_synthetic(
            work / "data" / "synthetic", split_sizes={"train": 36, "val": 18, "val_swapped": 6}
        )
        study = work / "study"
        study.mkdir()
        recipe = TINY | {"prepared_dir": str(work / "data")}
        (study / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        for name in ("direct", "batch"):
            (study / f"{name}.yaml").write_text(f"run_dir: {work / 'runs' / name}\n")
        direct = measure(lambda: python("-c", DIRECT, str(study / "direct.yaml")))
        (planned,) = read_plan([study / "batch.yaml"])
        pool = Pool([{}], [planned])
        batch = measure(lambda: pool.do([RunJob(planned, "batch")]))
    if pool.failures:
        sys.exit(f"the run failed: {pool.failures}")
    for name, (seconds, cpu), target in (
        ("a run of a second: fit and evaluate called directly", direct, "-"),
        ("the same as a job of a batch", batch, f"{direct[0] + 15:.1f} s"),
    ):
        report(name, f"{seconds:.1f} s, CPU {cpu:.1f} s", target)


if __name__ == "__main__":
    main()
