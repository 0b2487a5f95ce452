"""Log entries of an epoch: exact means over clips and processes, time and memory."""

import resource
import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from lib.runs.distributed import DistContext


class Meter:
    """Sums of the statistics of an epoch's steps; the means over all processes are exact.

    Attributes:
        sums: Name -> (sum, count).
        clips: Clips of these steps, over all processes.
    """

    def __init__(self):
        self.sums: dict[str, Tensor] = {}
        self.clips = 0
        self._seconds_before, self._started = 0.0, time.perf_counter()

    def seconds(self) -> float:
        """Return the training time since the epoch began, without pauses between two starts."""
        return self._seconds_before + time.perf_counter() - self._started

    def state_dict(self) -> dict[str, Any]:
        """Return the content for a checkpoint within the epoch."""
        sums = {name: value.cpu() for name, value in self.sums.items()}
        return {"sums": sums, "clips": self.clips, "seconds": self.seconds()}

    def load(
        self, states: list[dict[str, Any]], device: torch.device, is_counted: bool = True
    ) -> None:
        """Continue with the sums of one or of several processes, by the `state_dict()` of each.

        Without `is_counted`, only the names are registered: another process holds the sums.
        """
        for state in states:
            sums = {name: value.to(device) for name, value in state["sums"].items()}
            self.update(sums, is_counted)
            self.clips, self._seconds_before = state["clips"], state["seconds"]

    def update(self, stats: Mapping[str, Iterable[Tensor]], is_counted: bool = True) -> None:
        """Add (sum, count) per name, or zeros for a step that was skipped."""
        for name, pair in stats.items():
            value = torch.stack([part.float() for part in pair])
            value = value if is_counted else torch.zeros_like(value)
            self.sums[name] = value + self.sums[name].to(value) if name in self.sums else value

    def means(self, world: DistContext) -> dict[str, float | None]:
        """Return sum / count per name over all processes; None where nothing was counted."""
        if not self.sums:
            return {}
        sums = [value.to(world.device) for value in self.sums.values()]  # a probe's are on the CPU
        table = world.all_reduce(torch.stack(sums)).cpu().tolist()
        return {
            name: total / count if count else None
            for name, (total, count) in zip(self.sums, table, strict=True)
        }


def peak_memory_mb(device: torch.device) -> int:
    """Return the peak memory of this process in MB: of its GPU, else of the process itself."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 1e6)
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes elsewhere
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6)
