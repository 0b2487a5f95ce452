"""The rooms of the library: who imports whom, and how large they may become.

The core is what decides a number of the paper. It reads prepared data and makes none, so it can be
read, and imported, without the rest: making data, running batches, drawing figures.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from radon.complexity import cc_visit

ROOT = Path(__file__).resolve().parent.parent
LIB = ROOT / "lib"

# A room imports from the rooms before it, and from itself.
CORE = [
    *("files", "augment", "tables", "config", "parameters"),
    *("data", "clips", "run", "learn", "evaluation"),
]
AROUND = [
    *("published", "notebook", "state", "recipes", "invariance"),
    *("prepare", "show", "batch", "predict", "doctor"),
]
ROOMS = [*CORE, *AROUND]

MAX_FILE, MAX_CORE = 300, 5_000  # lines
MAX_COMPLEXITY = 10  # as radon counts, which counts conditions inside of conditions as well
MAX_MEDIAN, MAX_NINE_TENTHS = 9, 27  # lines of a function

# Settings look names up in the tables that stand beside what they name; a run that names a network
# or weights of others opens them.
ASKED = {("tables.py", "learn"), ("learn/models.py", "published")}

# What does not hold yet; to be lowered.
KNOWN_CORE = 7_462

FILES = sorted(path for path in LIB.rglob("*.py") if path != LIB / "__init__.py")


def name_of(path: Path) -> str:
    return path.relative_to(LIB).as_posix()


def room_of(path: Path) -> str:
    return path.relative_to(LIB).with_suffix("").parts[0]


def imported_rooms(path: Path) -> Iterator[str]:
    """Yield the rooms that a file imports from, also inside of its functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        else:
            continue
        yield from (module.split(".")[1] for module in modules if module.startswith("lib."))


def functions_of(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def num_lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def core_files() -> list[Path]:
    return [path for path in FILES if room_of(path) in CORE]


def test_every_file_is_in_a_room():
    assert {room_of(path) for path in FILES} == set(ROOMS)


def test_a_room_imports_only_from_the_rooms_before_it():
    wrong = set()
    for path in FILES:
        allowed = ROOMS[: ROOMS.index(room_of(path)) + 1] if room_of(path) in ROOMS else []
        wrong |= {(name_of(path), room) for room in imported_rooms(path) if room not in allowed}
    assert wrong == ASKED


def test_imports_inside_of_functions_are_seen(tmp_path):
    path = tmp_path / "some.py"
    path.write_text(
        "import os\ndef f():\n    from lib.show import style\n    import lib.batch.plan\n"
    )
    assert list(imported_rooms(path)) == ["show", "batch"]


def test_files_of_the_core_are_short():
    long = {name_of(path): num_lines(path) for path in core_files() if num_lines(path) > MAX_FILE}
    assert long == {}


def test_the_core_can_be_read_in_one_sitting():
    assert sum(num_lines(path) for path in core_files()) <= max(MAX_CORE, KNOWN_CORE)


def test_the_training_loop_loads_nothing_that_makes_data_or_shows_it():
    code = "import sys, lib.train.fit; print('\\n'.join(sys.modules))"
    made = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = set(made.stdout.split())
    assert "lib.train.fit" in loaded
    rooms = {name.split(".")[1] for name in loaded if name.startswith("lib.")} & set(AROUND)
    unwanted = rooms | ({"onnxruntime", "rarfile", "pebble"} & loaded)
    assert unwanted == set()


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_functions_are_simple(path):
    found = {}
    for block in cc_visit(path.read_text(encoding="utf-8")):
        for one in [*getattr(block, "methods", []), *getattr(block, "closures", []), block]:
            if not hasattr(one, "methods"):  # a class's own number is a sum
                found[f"{name_of(path)}:{one.fullname}"] = one.complexity
    hard = {name: number for name, number in found.items() if number > MAX_COMPLEXITY}
    assert hard == {}


def test_functions_are_short():
    lengths = [
        one.end_lineno - one.lineno + 1 for path in FILES for one in functions_of(path)
    ]  # with the docstring, without decorators
    assert np.median(lengths) <= MAX_MEDIAN
    assert np.quantile(lengths, 0.9) <= MAX_NINE_TENTHS


def test_the_reading_list_is_the_core_and_can_be_read_in_one_sitting():
    named = re.compile(r"`(lib/[\w/]+(?:\.py|/))`")
    order, rest = (
        {place for place in named.findall(part)}
        for part in (ROOT / "docs/reading.md").read_text().split("## What may be trusted")
    )
    core = {f"lib/{name_of(path)}" for path in core_files() if path.name != "__init__.py"}
    assert order <= core and {place for place in rest if place.endswith(".py")} <= core
    carried = {path for path in core if any(path.startswith(place) for place in rest)}
    assert order | carried == core and not order & carried
    assert sum(num_lines(ROOT / path) for path in order) <= MAX_CORE
