"""Where settings look up a name: the tables of augmentations and objectives.

The tables stand beside the functions that they name, and those need torch, which takes seconds to
import: a table is opened when a name is looked up, not before.
"""

import difflib
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field

if TYPE_CHECKING:
    from lib.augment.scene import SceneAugmentation
    from lib.augment.temporal import TemporalOperation
    from lib.train.objectives import Objective


def operations() -> list[str]:
    """Return the names of RandAugment's operations, the groups first."""
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


def objectives() -> "dict[str, type[Objective]]":
    """Return the table of objectives."""
    from lib.train.objectives import OBJECTIVES

    return OBJECTIVES


def did_you_mean(name: str, known: Collection[str]) -> str:
    """Return the question, to be put behind an error, whether a name that is known was meant."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _in(table: Callable[[], Collection[str]]) -> AfterValidator:
    def check(name: str) -> str:
        known = list(table())
        if name in known:
            return name
        hint = did_you_mean(name, known) or ";"
        raise ValueError(f"no such name{hint} There are {', '.join(known)}")

    return AfterValidator(check)


OperationNames = list[Annotated[str, _in(operations)]]
TemporalNames = Annotated[list[Annotated[str, _in(temporal_ops)]], Field(min_length=1)]
SceneName = Annotated[str, _in(scene_augmentations)]
ObjectiveName = Annotated[str, _in(objectives)]
