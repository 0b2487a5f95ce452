"""The rooms of the library: which room may import which, and what the training loop loads."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from radon.complexity import cc_visit_ast

ROOT = Path(__file__).resolve().parent.parent
LIB = ROOT / "lib"

# A room imports from the rows above its own, and from its own row.
ORDER = [
    ["config", "fileio", "params", "registry", "augment"],
    ["data"],
    ["models"],
    ["runs"],
    ["train"],
    ["prepare"],
    ["evaluate"],
    ["plots"],
    ["predict", "jupyter", "report", "batch"],
]
ROW = {room: row for row, rooms in enumerate(ORDER) for room in rooms}
# The settings check names against the tables of augmentations, objectives and networks.
EXCEPTIONS = {("config.py", "train"), ("config.py", "models")}
MAX_COMPLEXITY = 10
FILES = sorted(path for path in LIB.rglob("*.py") if path != LIB / "__init__.py")


def name_of(path: Path) -> str:
    return path.relative_to(LIB).as_posix()


def room_of(path: Path) -> str:
    return path.relative_to(LIB).with_suffix("").parts[0]


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported_modules(path: Path) -> Iterator[str]:
    """Yield the dotted names that a file imports from `lib`, also inside of its functions."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        else:
            continue
        yield from (module for module in modules if module.startswith("lib."))


def module_of(name: str) -> str | None:
    """Return the module (dotted, without `lib.`) that an imported name is, or is defined in."""
    parts = name.split(".")[1:]
    for end in (len(parts), len(parts) - 1):
        path = LIB.joinpath(*parts[:end])
        if end and (path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()):
            return ".".join(parts[:end])
    return None


def test_every_file_is_in_a_room():
    assert {room_of(path) for path in FILES} == set(ROW)


def test_every_import_of_lib_exists():
    missing = {(name_of(path), name) for path in FILES for name in imported_modules(path)
               if module_of(name) is None}  # fmt: skip
    assert missing == set()


def test_a_room_imports_only_from_rooms_above_it():
    wrong = set()
    for path in FILES:
        rooms = {name.split(".")[1] for name in imported_modules(path)}
        wrong |= {(name_of(path), room) for room in rooms if ROW[room] > ROW[room_of(path)]}
    assert wrong == EXCEPTIONS


def test_no_modules_import_each_other():
    """Imports inside of functions and under TYPE_CHECKING count as well."""
    graph = {}
    for path in FILES:
        module = name_of(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        if (name_of(path), "train") not in EXCEPTIONS:
            graph[module] = {module_of(name) for name in imported_modules(path)} - {module}
    remaining = dict(graph)
    while leaves := {m for m, uses in remaining.items() if not uses & remaining.keys()}:
        remaining = {m: uses for m, uses in remaining.items() if m not in leaves}
    assert sorted(remaining) == []


def test_imports_inside_of_functions_are_seen(tmp_path):
    path = tmp_path / "some.py"
    path.write_text(
        "import os\ndef f():\n    from lib.plots import style\n    import lib.batch.plan\n"
    )
    assert list(imported_modules(path)) == ["lib.plots.style", "lib.batch.plan"]


def test_no_two_modules_have_one_name():
    stems = [path.stem for path in FILES if path.stem not in ("__init__", "__main__")]
    assert sorted({stem for stem in stems if stems.count(stem) > 1}) == []


@pytest.mark.slow
def test_the_training_loop_loads_nothing_that_prepares_or_shows():
    code = "import sys, lib.train.trainer; print('\\n'.join(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = set(result.stdout.split())
    modules = {name for name in loaded if name.startswith("lib.")}
    assert "lib.train.trainer" in modules and len(modules) <= 40
    rooms = {name.split(".")[1] for name in modules}
    assert rooms <= {room for row in ORDER[:5] for room in row}
    assert {"onnxruntime", "rarfile", "pebble", "IPython", "requests"} & loaded == set()


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_functions_are_simple(path):
    complexity = {}
    for block in cc_visit_ast(tree_of(path)):
        for part in [*getattr(block, "methods", []), *getattr(block, "closures", []), block]:
            if not hasattr(part, "methods"):  # a class's own number is a sum
                complexity[f"{name_of(path)}:{part.fullname}"] = part.complexity
    assert {name: n for name, n in complexity.items() if n > MAX_COMPLEXITY} == {}


QUESTION_WORDS = ("What", "Whether", "How", "Which", "Let", "Say", "Tell", "Who", "Where")


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_docstrings_begin_with_a_noun_or_an_imperative(path):
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    documented = (node for node in ast.walk(tree_of(path)) if isinstance(node, kinds))
    lines = ((ast.get_docstring(node) or "").split("\n")[0] for node in documented)
    assert [line for line in lines if line.split(" ")[0] in QUESTION_WORDS] == []
