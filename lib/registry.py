"""Tables of what settings name: augmentations, objectives and networks, also in a user's own files.

`my_idea.py:Name` in such a setting is the object `Name` of that file, in the project's root, in
`notebooks/` or in the working directory.
"""

import difflib
import hashlib
import re
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

PROJECT_ROOT = Path(__file__).resolve().parent.parent
OWN_NAME = re.compile(r"(.+\.py):(\w+)")
OWN_FIELDS = ("objective", "model", "scene_augmentation", "temporal_ops")  # settings


class Table(dict):
    """Rows of one kind by name: those of the library, and `my_idea.py:Name` once it is looked up.

    `kind` is the class of the rows, or their base class if the rows are classes.
    """

    def __init__(self, kind: type, rows: Mapping[str, Any]):
        super().__init__(rows)
        self.kind = kind

    def __contains__(self, name: object) -> bool:
        """Return True for a row of the library and for any name in a file."""
        return super().__contains__(name) or OWN_NAME.fullmatch(str(name)) is not None

    def __missing__(self, name: str) -> Any:
        """Import a row from its file."""
        file, attribute = OWN_NAME.fullmatch(name).groups()
        row = getattr(import_file(find_file(file)), attribute, None)
        if not issubclass(row if isinstance(row, type) else type(row), self.kind):
            raise ValueError(f"{file} has no {self.kind.__name__} of the name {attribute!r}")
        self[name] = row
        return row

    def check(self, name: str) -> None:
        """Import a name in a file again, which may have changed; ValueError if that fails."""
        if OWN_NAME.fullmatch(name):
            self.pop(name, None)
            self[name]


def find_file(file: str) -> Path:
    """Return the path of a user's file; ValueError if there is none."""
    folders = PROJECT_ROOT, PROJECT_ROOT / "notebooks", Path.cwd()
    paths = [folder / Path(file).expanduser() for folder in folders]
    for path in paths:
        if path.is_file():
            return path
    raise ValueError(f"there is no file {' or '.join(dict.fromkeys(map(str, paths)))}")


def import_file(path: Path) -> ModuleType:
    """Import a user's file; ValueError if it fails. A changed file is another module."""
    source = path.read_bytes()
    name = f"{path.stem}_{hashlib.sha256(source).hexdigest()[:12]}"
    if name not in sys.modules:
        module = sys.modules[name] = ModuleType(name)  # dataclasses and pickle look it up there
        module.__file__ = str(path)
        try:
            exec(compile(source, str(path), "exec"), vars(module))
        except Exception as error:
            del sys.modules[name]
            raise ValueError(f"{path} cannot be imported ({error!r})") from error
    return sys.modules[name]


def map_own_names(values: dict[str, Any], change: Callable[[str, str], str]) -> dict[str, Any]:
    """Return settings in which `change(file, name)` replaces each name in a user's file."""

    def changed(value: Any) -> Any:
        if isinstance(value, list):
            return [changed(item) for item in value]
        match = OWN_NAME.fullmatch(value) if isinstance(value, str) else None
        return change(*match.groups()) if match else value

    return values | {name: changed(values[name]) for name in OWN_FIELDS if name in values}


def did_you_mean(name: str, names: Collection[str]) -> str:
    """Return the hint `; did you mean …?` for the end of an error; empty without a close name."""
    close = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
