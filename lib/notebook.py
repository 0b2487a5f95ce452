"""Settings of a notebook: from its parameters cell, and as it prints them."""

import ast
import textwrap
from collections.abc import Mapping
from typing import Any

from lib.config import Settings
from lib.parameters import AnySettings, make_settings
from lib.tables import near_miss


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
    wrong = [f"{name}: no such parameter{near_miss(name, known)}" for name in unknown]
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
