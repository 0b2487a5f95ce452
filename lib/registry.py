"""Names in settings, checked against the tables of augmentations and objectives.

The modules of the tables import the settings, so a table is imported when a name is looked up.
"""

import difflib
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field

if TYPE_CHECKING:
    from lib.augment.scene import SceneAugmentation
    from lib.augment.temporal import TemporalOperation
    from lib.train.objectives import SupervisedObjective


def operations() -> list[str]:
    """Return the names of RandAugment's groups and operations."""
    from lib.augment.ops import RANDAUGMENT_OPS
    from lib.augment.randaugment import OPERATION_GROUPS

    return [*OPERATION_GROUPS, *RANDAUGMENT_OPS]


def temporal_ops() -> "dict[str, TemporalOperation]":
    """Return the table of temporal operations."""
    from lib.augment.temporal import TEMPORAL_OPS

    return TEMPORAL_OPS


def scene_augmentations() -> "dict[str, SceneAugmentation]":
    """Return the table of scene augmentations."""
    from lib.augment.scene import SCENE_AUGMENTATIONS

    return SCENE_AUGMENTATIONS


def objectives() -> "dict[str, type[SupervisedObjective]]":
    """Return the table of objectives."""
    from lib.train.adaptive import ADAPTIVE_OBJECTIVES
    from lib.train.objectives import OBJECTIVES

    return OBJECTIVES | ADAPTIVE_OBJECTIVES


def did_you_mean(name: str, names: Collection[str]) -> str:
    """Return the hint `; did you mean …?` for the end of an error; empty without a close name."""
    close = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _in(table: Callable[[], Collection[str]]) -> AfterValidator:
    def check(name: str) -> str:
        names = list(table())
        if name not in names:
            hint = did_you_mean(name, names) or ";"
            raise ValueError(f"no such name{hint} There are {', '.join(names)}")
        return name

    return AfterValidator(check)


OperationNames = list[Annotated[str, _in(operations)]]
TemporalNames = Annotated[list[Annotated[str, _in(temporal_ops)]], Field(min_length=1)]
SceneName = Annotated[str, _in(scene_augmentations)]
ObjectiveName = Annotated[str, _in(objectives)]
