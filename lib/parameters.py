"""Settings from values and from YAML files; errors name the field."""

import ast
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from lib.config import Settings
from lib.tables import near_miss

AUTO = "auto"  # left to the footage and the machine (`lib.prepare.sizing`)
AnySettings = TypeVar("AnySettings", bound=Settings)


def make_settings(model: type[AnySettings], values: Mapping[str, Any], source: str) -> AnySettings:
    """Check values and return them as settings.

    Args:
        model: The settings to make.
        values: One value per field name; fields that are not given keep their default.
        source: Where the values are from, for the message (a file or a notebook).

    Raises:
        ValueError: Naming `source`, every wrong field, what is wrong, and the near miss of a name.
    """
    try:
        return model(**values)
    except ValidationError as error:
        lines = [_explain(problem, model) for problem in error.errors()]
        raise ValueError("\n  ".join([f"{source}: settings that cannot be used", *lines])) from None


def _explain(problem: Any, model: type[Settings]) -> str:
    name = str(problem["loc"][0]) if problem["loc"] else ""
    if problem["type"] == "extra_forbidden":
        return f"{name}: no such parameter{near_miss(name, model.model_fields)}"
    message = problem["msg"].removeprefix("Value error, ")
    if not name:
        return message
    hint = ""
    if problem["type"] in ("float_type", "int_type") and isinstance(problem["input"], str):
        has_e = "e" in problem["input"].lower()
        hint = " (YAML reads 1e-4 as text: write 1.0e-4)" if has_e else " (write it without quotes)"
    if problem["input"] == AUTO:
        hint = " (lib.batch fills it in; by hand take params.yaml of a run that it has begun)"
    return f"{name}: {message}, got {problem['input']!r}{hint}"


def notebook_defaults(notebook: Path) -> dict[str, Any]:
    """Return the literal defaults of a notebook's parameters cell.

    Raises:
        ValueError: If no cell has the tag `parameters`.
    """
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        if "parameters" in cell["metadata"].get("tags", []):
            return {
                statement.target.id: ast.literal_eval(statement.value)
                for statement in ast.parse("".join(cell["source"])).body
                if isinstance(statement, ast.AnnAssign)
            }
    raise ValueError(f"{notebook}: no cell tagged 'parameters'")


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a flat YAML file of parameters.

    Raises:
        ValueError: If it is not valid YAML, not flat, or has a key twice; names file and line.
    """
    try:
        with open(path, encoding="utf-8") as file:
            values = yaml.load(file, _UniqueKeyLoader)  # a SafeLoader
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from error
    except Exception as error:  # damaged YAML fails in many ways
        hint = "; use spaces, not tabs" if r"'\t'" in str(error) else ""
        raise ValueError(f"{path}: not valid YAML: {error}{hint}") from error
    if values is None:
        return {}
    is_flat = isinstance(values, dict) and not any(isinstance(v, dict) for v in values.values())
    if not is_flat or not all(isinstance(name, str) for name in values):
        raise ValueError(f"{path}: must be flat lines `name: value`")
    return values


def read_layers(files: Iterable[Path], read: Callable = read_yaml) -> dict[str, Any]:
    """Return flat YAML files laid over each other; errors as in `read_yaml`, which `read` is."""
    values: dict[str, Any] = {}
    for path in files:
        values |= read(path)
    return values


class _UniqueKeyLoader(yaml.SafeLoader):
    """A safe loader that refuses a key that stands twice, and what can grow without end."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("references (*name) are not used here: write the value")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [self.construct_object(key) for key, _ in node.value]
        for position, key in enumerate(keys):
            if key in keys[:position]:
                line = node.value[position][0].start_mark.line + 1
                raise yaml.YAMLError(f"line {line}: {key!r} is set a second time")
        return super().construct_mapping(node, deep)
