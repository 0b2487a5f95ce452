"""The names that `from lib import …` gives."""

import subprocess
import sys

import pytest

import lib
from lib.config import PROJECT_ROOT


def test_public_names_are_those_of_their_modules():
    from lib import TrainedModel, fit
    from lib.evaluate.trained_model import TrainedModel as its_own
    from lib.train.fit import fit as its_fit

    assert TrainedModel is its_own and fit is its_fit
    names = [name for names in lib.PUBLIC.values() for name in names]
    assert len(names) == len(set(names)) and set(names) <= set(dir(lib))
    for module, names in lib.PUBLIC.items():
        for name in names:
            value = getattr(lib, name)
            if not isinstance(value, dict):  # a table
                assert value.__module__ == module  # not imported from elsewhere


def test_no_public_name_is_that_of_a_room():
    """The import of a room would replace it."""
    rooms = {path.stem for path in (PROJECT_ROOT / "lib").iterdir()}
    assert rooms & {name for names in lib.PUBLIC.values() for name in names} == set()


def test_an_unknown_name_is_an_error():
    with pytest.raises(ImportError, match="cannot import name 'fti' from 'lib'"):
        from lib import fti  # noqa: F401


def test_importing_lib_imports_no_other_module_of_it():
    code = "import sys, lib; print(sorted(m for m in sys.modules if m[:4] in ('lib.', 'torc')))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT_ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
