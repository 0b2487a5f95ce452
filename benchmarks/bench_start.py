"""What a fresh process costs before it is of use: the first batch, the first step, a first figure.

    python -m benchmarks.bench_start

Processor time (user and system) of a process with one thread, from its start; the shortest of all
rounds, in which all take turns. The notebook's is that of its kernel.
"""

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import nbformat
import torch
from nbclient import NotebookClient

from benchmarks.bench_batch import measure, python
from benchmarks.timing import describe_machine, print_table
from lib.config import PROJECT_ROOT
from lib.prepare.synthetic import make_synthetic

PARTS = {"train": 300, "val": 60, "val_swapped": 60}
BATCH = """
import sys
from pathlib import Path
import torch
from lib.params import read_settings
from lib.train.trainer import Trainer
from lib.runs.distributed import DistContext
torch.set_num_threads(1)
folder = Path(sys.argv[1])
(folder / "run").mkdir(exist_ok=True)
settings = read_settings([Path(path) for path in sys.argv[2:]]).model_copy(
    update={"prepared_dir": str(folder / "data"), "run_dir": str(folder / "run")}
)
own = Trainer(settings, DistContext(0, 1, torch.device("cpu")))
batch = next(own.load_pairs(0, 1))
"""
STEP = f"{BATCH}own.train_step(iter([batch]))\n"


def first_figure(prepared_dir: Path) -> None:
    """Run notebook 2 in a kernel up to the cell with its first figure."""
    notebook = nbformat.read(PROJECT_ROOT / "notebooks" / "2_look_at_augmentations.ipynb", 4)
    codes = [cell for cell in notebook.cells if cell.cell_type == "code"]
    last = next(number for number, cell in enumerate(codes) if "clip_rows(" in cell.source)
    notebook.cells = codes[: last + 1]
    notebook.cells.insert(2, nbformat.v4.new_code_cell(f"prepared_dir = {str(prepared_dir)!r}"))
    NotebookClient(notebook, timeout=600).execute()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        make_synthetic(Path(folder) / "data" / "synthetic", split_sizes=PARTS)
        arguments = folder, str(PROJECT_ROOT / "params" / "demo" / "semi.yaml")
        starts: dict[str, Callable[[], None]] = {
            "import torch": lambda: python("-c", "import torch"),
            "import lib.train.fit": lambda: python("-c", "import lib.train.fit"),
            "the demo's first batch": lambda: python("-c", BATCH, *arguments),
            "the demo's first step": lambda: python("-c", STEP, *arguments),
            "notebook 2's first figure": lambda: first_figure(Path(folder) / "data"),
        }
        times = {name: [] for name in starts}
        for _ in range(rounds + 1):  # the first one fills caches
            for name, start in starts.items():
                times[name].append(measure(start)[1])
    print(describe_machine())
    rows = [(name, min(found[1:])) for name, found in times.items()]
    print_table("From the start of a process", ("until", "CPU s"), rows)


if __name__ == "__main__":
    main()
