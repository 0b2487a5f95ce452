"""A check: what it measured, its tolerance, the verdict, or why it could not run."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

Verdict = Literal["passed", "failed", "measured", "not run"]


@dataclass(frozen=True)
class Bench:
    """What is tested.

    Attributes:
        device: Where networks compute.
        model: The network of the arithmetic, the memory and the speed.
        clips: Its clips in a step.
        clip_len: Frames of a clip.
        side: Side of a clip, pixels.
        folder: For what the checks write.
    """

    device: torch.device
    model: str
    clips: int
    clip_len: int
    side: int
    folder: Path

    @property
    def has_gpu(self) -> bool:
        """Whether networks compute on a GPU."""
        return self.device.type == "cuda"


@dataclass(frozen=True)
class Result:
    """What a check found.

    Attributes:
        name: What was checked.
        verdict: `measured` where there is nothing to hold it against.
        measured: What came out; of a check that could not run, why.
        tolerance: What is allowed.
        seconds: What it took, with the checks that share its work.
    """

    name: str
    verdict: Verdict
    measured: str
    tolerance: str = ""
    seconds: float = 0.0


Check = Callable[[Bench], Iterable[Result]]


def holds(name: str, is_right: bool, measured: str, tolerance: str) -> Result:
    """Return the result of something that is right or wrong."""
    return Result(name, "passed" if is_right else "failed", measured, tolerance)


def at_most(name: str, value: float, limit: float) -> Result:
    """Return the result of an error that must not exceed a limit; NaN does."""
    return holds(name, value <= limit, f"{value:.2g}", f"{limit:g}")


def not_run(name: str, why: str) -> Result:
    """Return the result of a check that this machine cannot run."""
    return Result(name, "not run", why)


def run_checks(checks: Sequence[Check], bench: Bench) -> Iterator[Result]:
    """Yield what the checks find; one that ends with an error has failed."""
    for check in checks:
        started = time.perf_counter()
        try:
            found = list(check(bench))
        except Exception as error:
            name = check.__name__.replace("_", " ")
            found = [Result(name, "failed", f"{type(error).__name__}: {error}", "no error")]
        seconds = time.perf_counter() - started
        yield from (replace(result, seconds=round(seconds, 1)) for result in found)


def relative(value: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the largest difference, as a share of the largest expected value."""
    value, expected = value.detach().double().cpu(), expected.detach().double().cpu()
    return float((value - expected).abs().max() / expected.abs().max())
