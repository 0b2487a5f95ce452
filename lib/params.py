"""Settings from YAML files, from the command line, and from a notebook's parameters cell.

A run is a run file and the recipes above it: every `recipe.yaml` in the folder of the run file and
in the folders above that, up to the first folder without one. The outermost applies first, the run
file last. Its place gives the folder of its results: the run file `params/paper/ucf101/semi.yaml`
goes to `outputs/paper/ucf101/semi`. A run file with `seeds: [0, 1, 2]` is one run for each seed.
"""

import ast
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import yaml
from pydantic import ValidationError

from lib.config import PathText, Settings, TrainSettings
from lib.registry import did_you_mean

AUTO = "auto"  # chosen from the footage and the machine (`lib.prepare.auto_settings`)
RECIPE = "recipe.yaml"  # what the runs below its folder share
SEEDS = "seeds"
SAFE_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C, ten times as fast
AnySettings = TypeVar("AnySettings", bound=Settings)


def make_settings(
    model: type[AnySettings], values: Mapping[str, Any], source: str, *, are_texts: bool = False
) -> AnySettings:
    """Check values and return them as settings; a field without a value has its default.

    Values of a command line (`are_texts`) are text, or lists of text, that is converted to the
    type of the field. ValueError with the `source` of the values (a file or a notebook) and the
    problem of every wrong field.
    """
    try:
        return model.model_validate(values, strict=not are_texts)
    except ValidationError as error:
        raise _problems(error.errors(), model, source) from None


def check_set_values(model: type[Settings], values: Mapping[str, Any]) -> None:
    """Raise ValueError if a value is wrong, other than those that are still `auto`."""
    try:
        model.model_validate(values, strict=True)
    except ValidationError as error:
        if problems := [problem for problem in error.errors() if problem["input"] != AUTO]:
            raise _problems(problems, model, "") from None


def _problems(problems: Iterable[Any], model: type[Settings], source: str) -> ValueError:
    lines = [_explain(problem, model) for problem in problems]
    return ValueError("\n  ".join([f"{source}: settings that cannot be used", *lines]))


def _explain(problem: Any, model: type[Settings]) -> str:
    name = str(problem["loc"][0]) if problem["loc"] else ""
    if problem["type"] == "extra_forbidden":
        return _unknown(name, model)
    message = problem["msg"].removeprefix("Value error, ")
    if not name:
        return message
    return f"{name}: {message}, got {problem['input']!r}{_hint(problem, model, name)}"


def _hint(problem: Any, model: type[Settings], name: str) -> str:
    value = problem["input"]
    if value == AUTO:
        return " (only lib.batch fills in 'auto'; copy the value from params.yaml of such a run)"
    if problem["type"] in ("float_type", "int_type") and isinstance(value, str):
        if re.fullmatch(r"[+-]?\d+e[+-]?\d+", value, re.IGNORECASE):
            return " (YAML reads 1e-4 as text: write 1.0e-4)"
        if re.fullmatch(r"[+-]?\d+(\.\d*)?", value):
            return " (write it without quotes)"
    if problem["type"] == "less_than_equal" and 1 < value <= 100 and problem["ctx"]["le"] == 1:
        return f" ({value} % is {value / 100:g})"
    return ""


def _unknown(name: str, model: type[Settings]) -> str:
    return f"{name}: no such parameter{did_you_mean(name, model.model_fields)}"


def parse_values(model: type[Settings], name: str, text: str) -> list[Any]:
    """Return the values of a field from the command line, separated by commas.

    Text is taken as it is, a path also with commas, and `null` is None where the field may be None;
    everything else is YAML.
    """
    if name not in model.model_fields:
        raise ValueError(_unknown(name, model))
    kinds = _types(model, name)
    if PathText in kinds or str in kinds:
        texts = [text] if PathText in kinds else [part.strip() for part in text.split(",")]
        return [None if part == "null" and type(None) in kinds else part for part in texts]
    try:
        return yaml.safe_load(f"[{text}]")
    except yaml.YAMLError as error:
        raise ValueError(f"{name}: {text!r} is not valid YAML: {error}") from error


def _types(model: type[Settings], name: str) -> tuple[Any, ...]:
    hint = get_type_hints(model, include_extras=True)[name]
    return (hint,) if get_origin(hint) is list else (hint, *get_args(hint))


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a flat YAML file without duplicate keys."""
    text = ""
    try:
        text = path.read_text(encoding="utf-8")
        values = _parse(text)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from error
    except Exception as error:  # damaged YAML fails in many ways
        hint = "; use spaces, not tabs" if "\t" in text else ""
        raise ValueError(f"{path}: not valid YAML: {error}{hint}") from error
    if values is None:
        return {}
    is_flat = isinstance(values, dict) and not any(isinstance(v, dict) for v in values.values())
    if not is_flat or not all(isinstance(name, str) for name in values):
        raise ValueError(f"{path}: must be flat lines `name: value`")
    return values


def _parse(text: str) -> Any:
    if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, SAFE_LOADER)):
        raise yaml.YAMLError("references (*name) are not used here: write the value")
    return yaml.load(text, _UniqueKeyLoader)


class _UniqueKeyLoader(SAFE_LOADER):
    """Safe loader that rejects duplicate keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [self.construct_object(key) for key, _ in node.value]
        for position, key in enumerate(keys):
            if key in keys[:position]:
                line = node.value[position][0].start_mark.line + 1
                raise yaml.YAMLError(f"line {line}: {key!r} is set a second time")
        return super().construct_mapping(node, deep)


def is_run_file(path: Path) -> bool:
    """Return True for a run of a study: a YAML file next to a recipe."""
    is_yaml = path.suffix == ".yaml" and path.name != RECIPE
    return is_yaml and (path.parent / RECIPE).is_file()


def parameter_files(path: Path) -> list[Path]:
    """Return the recipes above a YAML file, outermost first, and the file itself."""
    path, recipes = path.absolute(), []
    for folder in path.parents:
        if not (folder / RECIPE).is_file():
            break
        recipes.insert(0, folder / RECIPE)
    return [file for file in recipes if file != path] + [path]


def read_layers(files: Iterable[Path], read: Callable = read_yaml) -> dict[str, Any]:
    """Return the values of flat YAML files, of which a later one overrides the earlier ones."""
    return {name: value for path in files for name, value in read(path).items()}


def read_run_file(path: Path, read: Callable = read_yaml) -> dict[str, Any]:
    """Return the parameters of a run file with those of its recipes and its `run_dir`."""
    files = parameter_files(path)
    values = read_layers(files, read)
    if len(files) > 1:
        root = files[0].parent.parent  # of all studies, usually params/
        run_dir = Path("outputs", files[-1].relative_to(root).with_suffix(""))
        values.setdefault("run_dir", str(run_dir))
    return values


def split_seeds(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the parameters of one run for each of `seeds`, or these if there are none.

    A seed sets `seed` and `labeled_seed`, and is added to the name of `run_dir`.
    """
    single = {name: value for name, value in values.items() if name != SEEDS}
    if SEEDS not in values:
        return [single]
    seeds = values[SEEDS]
    if not isinstance(seeds, list) or not seeds or not all(type(seed) is int for seed in seeds):
        raise ValueError(f": {SEEDS}: must be a list of whole numbers, as in [0, 1, 2]")
    return [
        single | {"seed": s, "labeled_seed": s, "run_dir": f"{single['run_dir']}_seed{s}"}
        for s in seeds
    ]


def read_settings(files: Iterable[Path]) -> TrainSettings:
    """Return the settings of one run, the first of several `seeds`.

    A file is a run file, whose recipes apply too, or the `params.yaml` of a run; a later one
    overrides the earlier ones.
    """
    files = list(files)
    values = read_layers(files, read_run_file)
    return make_settings(TrainSettings, split_seeds(values)[0], ", ".join(map(str, files)))


def read_parameters(model: type[AnySettings], namespace: Mapping[str, Any]) -> AnySettings:
    """Return a notebook's parameters as settings; call it with `globals()`.

    The values are those of the parameters cell, overridden by the cell that papermill injects. An
    injected name that the notebook does not declare is an error; papermill only warns.
    """
    names = list(model.model_fields)
    problems = [_unknown(name, model) for name in sorted(_injected_names(namespace) - set(names))]
    missing = [name for name in names if name not in namespace]
    problems += [f"{name}: not set; the parameters cell declares it" for name in missing]
    if problems:
        title = "parameters of this notebook that cannot be used"
        raise ValueError("\n  ".join([title, *problems]))
    return make_settings(model, {name: namespace[name] for name in names}, "this notebook")


def _injected_names(namespace: Mapping[str, Any]) -> set[str]:
    cells = [cell for cell in namespace.get("In", []) if cell.startswith("# Parameters\n")]
    nodes = [node for cell in cells for node in ast.walk(ast.parse(cell))]
    return {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}


def summary(settings: Settings) -> str:
    """Return the settings that differ from their defaults, as a few wrapped lines `name=value`."""
    values, defaults = settings.model_dump(), type(settings)().model_dump()
    pairs = [f"{k}={v!r}".replace(" ", "") for k, v in values.items() if v != defaults[k]]
    return textwrap.fill("  ".join(pairs), 110, break_long_words=False, break_on_hyphens=False)
