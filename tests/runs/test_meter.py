"""Means for the log."""

from types import SimpleNamespace

import torch

from lib.runs.progress import Meter


def test_what_was_counted_elsewhere_is_added_up_where_the_processes_talk():
    """Some counts are on the CPU, and nccl sums on GPUs alone."""
    seen = []

    def all_reduce(table: torch.Tensor) -> torch.Tensor:
        seen.append(table.device.type)
        return torch.tensor([[3.0, 2.0]])

    meter = Meter()
    meter.update({"some/count": (torch.tensor(1), torch.tensor(4))})
    world = SimpleNamespace(
        device=torch.device("meta"), all_reduce=all_reduce
    )  # the only other device here
    assert meter.means(world) == {"some/count": 1.5} and seen == ["meta"]


def test_a_count_goes_on_where_its_next_value_is():
    """After a resume all sums are on the GPU, and some counts are on the CPU."""
    meter = Meter()
    meter.update({"some/count": (torch.tensor(1), torch.tensor(4))})
    elsewhere = torch.ones((), device="meta")
    meter.update({"some/count": (elsewhere, elsewhere)})
    assert meter.sums["some/count"].device.type == "meta"
