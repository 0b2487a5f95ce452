"""What a step of training costs, and what trades time for memory or arithmetic; prints a table.

    python -m benchmarks.bench_step --model r2plus1d_small --clips 12 --side 56

Ways of making the same step take turns in one process with one thread; CPU time, the shortest.
"""

import argparse
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from benchmarks.timing import describe_machine, interleave, print_table
from lib.learn.models import build_model
from lib.learn.video_resnet import ResidualBlock


def make_step(model: nn.Module, clips: Tensor, *, is_fused: bool) -> Callable[[], None]:
    """Return a plain step of SGD."""
    optimizer = torch.optim.SGD(model.parameters(), 1e-3, 0.9, weight_decay=1e-4, fused=is_fused)
    targets = torch.arange(len(clips)) % 10

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(model(clips), targets).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 40.0)
        optimizer.step()

    return step


def checkpoint_blocks(model: nn.Module) -> nn.Module:
    """Let each residual block forget its activations and compute them again going backward."""
    for module in model.modules():
        if isinstance(module, ResidualBlock):
            module.forward = partial(checkpoint, module.forward, use_reentrant=False)
    return model


def without_weak_gradients(model: nn.Module, clips: Tensor) -> Callable[[], None]:
    """Return a step whose second third of the clips passes by itself, without gradients."""
    labeled, weak, strong = clips.chunk(3)
    step = make_step(model, torch.cat([labeled, strong]), is_fused=False)

    def both() -> None:
        with torch.no_grad():
            model(weak)
        step()

    return both


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="r2plus1d_small")
    parser.add_argument("--clips", type=int, default=12)
    parser.add_argument("--side", type=int, default=56)
    parser.add_argument("--rounds", type=int, default=10)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    clips = torch.randn(given.clips, 3, 8, given.side, given.side)

    def network() -> nn.Module:
        return build_model(given.model, 10)

    times = interleave(
        {
            "plain": make_step(network(), clips, is_fused=False),
            "fused SGD": make_step(network(), clips, is_fused=True),
            "blocks checkpointed": make_step(checkpoint_blocks(network()), clips, is_fused=False),
            "weak pass without gradients": without_weak_gradients(network(), clips),
        },
        given.rounds,
    )
    print(describe_machine())
    rows = [(name, total, total / times["plain"]) for name, total in times.items()]
    title = f"A step of {given.model}, {given.clips} clips of 8 × {given.side}²"
    print_table(title, ("step", "ms", "÷ plain"), rows)


if __name__ == "__main__":
    main()
