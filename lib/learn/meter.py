"""What a run logs of its steps: exact means over clips and processes, and memory."""

import resource
import sys

import torch
from torch import Tensor

from lib.run.processes import World


class Meter:
    """Adds up the statistics of steps; means over all micro-batches and processes are exact."""

    def __init__(self):
        self._sums: dict[str, Tensor] = {}

    def update(self, stats: dict[str, tuple[Tensor, Tensor]]) -> None:
        """Add (sum, count) per name."""
        for name, pair in stats.items():
            value = torch.stack([part.float() for part in pair])
            self._sums[name] = self._sums[name] + value if name in self._sums else value

    def means(self, world: World) -> dict[str, float | None]:
        """Return sum / count per name over all processes; None where nothing was counted."""
        if not self._sums:
            return {}
        table = world.sum_(torch.stack(list(self._sums.values()))).cpu().tolist()
        return {
            name: total / count if count else None
            for name, (total, count) in zip(self._sums, table, strict=True)
        }


def peak_memory_mb(device: torch.device) -> int:
    """Return the most memory of this process so far, MB: of its GPU, or without one of its own."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 1e6)
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes elsewhere
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6)
