"""`requirements.lock`: a pin with hashes for everything that pyproject.toml asks for."""

import re
import tomllib

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from lib.config import PROJECT_ROOT

LOCK = (PROJECT_ROOT / "requirements.lock").read_text(encoding="utf-8")
HASHES = r"((?: \\\n    --hash=sha256:[0-9a-f]{64})+)$"
ENTRIES = re.findall(r"^([^\s#].*?==.*?)" + HASHES, LOCK, re.MULTILINE)


def required() -> list[Requirement]:
    project = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text(encoding="utf-8"))[
        "project"
    ]
    extras = project["optional-dependencies"]
    requirements = [Requirement(text) for text in [*project["dependencies"], *extras["test"]]]
    (others,) = [each for each in requirements if each.name == project["name"]]
    requirements += [Requirement(text) for name in others.extras for text in extras[name]]
    return [requirement for requirement in requirements if requirement.name != project["name"]]


def pins(python: str) -> dict[str, str]:
    """Return package -> version for a version of Python on this system."""
    environment = default_environment() | {"python_full_version": python, "python_version": python}
    found = {}
    for text, _ in ENTRIES:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate(environment):
            (specifier,) = requirement.specifier
            assert canonicalize_name(requirement.name) not in found
            found[canonicalize_name(requirement.name)] = specifier.version
    return found


def test_every_line_is_a_pin_with_hashes_and_names_no_index():
    packages = [line for line in LOCK.splitlines() if line and not line.startswith(("#", " "))]
    assert len(packages) == len(ENTRIES) > 100
    assert "://" not in LOCK and not re.search(
        r"^\s*(-i|--index|--extra|--find)", LOCK, re.MULTILINE
    )


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13", "3.14"])
def test_pins_lie_in_the_ranges_of_pyproject(python):
    found = pins(python)
    wrong = [
        f"{requirement}: {found.get(canonicalize_name(requirement.name))}"
        for requirement in required()
        if not requirement.specifier.contains(found.get(canonicalize_name(requirement.name), "0"))
    ]
    assert wrong == [], "run `make update-lock UPGRADE=`"
