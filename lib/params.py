"""Settings of a notebook: from its parameters cell, and as it prints them."""

import ast
import json
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from lib.config import Settings
from lib.registry import did_you_mean

AUTO = "auto"  # left to the footage and the machine (`lib.prepare.auto_settings`)
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
        return f"{name}: no such parameter{did_you_mean(name, model.model_fields)}"
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


RECIPE = "recipe.yaml"  # what the runs of a study share


def is_run_file(path: Path) -> bool:
    """Whether a file is a run of a study: YAML beside a recipe."""
    is_one = path.suffix == ".yaml" and path.name != RECIPE
    return is_one and (path.parent / RECIPE).is_file()


def parameter_files(run_file: Path) -> list[Path]:
    """Return the files that a run consists of; a later one wins, as with papermill's `-f … -f …`.

    They are what several studies share, if the first line of the recipe names such a file, as
    `# over: ../paper.yaml` does, the recipe of the study, and the run file.

    Raises:
        ValueError: If no recipe stands beside the run file, or what it is laid over is not there.
    """
    if not is_run_file(run_file):
        raise ValueError(f"{run_file}: no {RECIPE} beside it; a study has a recipe and run files")
    recipe = run_file.parent / RECIPE
    with open(recipe, encoding="utf-8") as file:
        found = re.match(r"# over: (\S+)", file.readline())
    if found is None:
        return [recipe, run_file]
    shared = (recipe.parent / found[1]).resolve()
    if not shared.is_file():
        raise ValueError(f"{recipe}: its first line names {found[1]}, which is not there")
    return [shared, recipe, run_file]


def read_parameters(model: type[AnySettings], namespace: Mapping[str, Any]) -> AnySettings:
    """Return a notebook's parameters as settings; call it with `globals()`.

    The values are those of the parameters cell, overridden by the cell that papermill injects.
    Papermill only logs a warning for a name that the notebook does not declare; here it is an
    error.

    Args:
        model: The notebook's settings.
        namespace: The notebook's `globals()`.

    Raises:
        ValueError: If a parameter is missing, unknown or has a value that cannot be used.
    """
    known = list(model.model_fields)
    unknown = sorted(_injected_names(namespace) - set(known))
    wrong = [f"{name}: no such parameter{did_you_mean(name, known)}" for name in unknown]
    wrong += [
        f"{name}: not set; the parameters cell declares it"
        for name in known
        if name not in namespace
    ]
    if wrong:
        raise ValueError("\n  ".join(["parameters of this notebook that cannot be used", *wrong]))
    return make_settings(model, {name: namespace[name] for name in known}, "this notebook")


def _injected_names(namespace: Mapping[str, Any]) -> set[str]:
    """Return the names that papermill's cell assigns."""
    cells = [cell for cell in namespace.get("In", []) if cell.startswith("# Parameters\n")]
    statements = [statement for cell in cells for statement in ast.parse(cell).body]
    targets = [s.targets for s in statements if isinstance(s, ast.Assign)]
    return {target.id for names in targets for target in names if isinstance(target, ast.Name)}


def summary(settings: Settings) -> str:
    """Return settings as a few wrapped lines `name=value`."""
    pairs = [f"{name}={value!r}".replace(" ", "") for name, value in settings.model_dump().items()]
    return textwrap.fill("  ".join(pairs), 110, break_long_words=False, break_on_hyphens=False)
