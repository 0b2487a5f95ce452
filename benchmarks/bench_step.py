"""What a step of training costs, and what trades time for memory or arithmetic; prints a table.

    python -m benchmarks.bench_step --model r3d_small --clips 12 --side 56
    python -m benchmarks.bench_step --processes 2

Ways of making the same step take turns in one process with one thread; CPU time, the shortest.
With two processes: a run that they share beside two runs of one process each, at the same time, on
two cores that nothing else wants.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.timing import describe_machine, interleave, print_table
from lib.models.networks import build_model
from lib.models.video_resnet import checkpoint_blocks
from lib.runs.device import autocast
from lib.runs.distributed import DistContext, launch
from lib.train.batch_norm import for_processes

CPU = torch.device("cpu")


def make_step(
    model: nn.Module, clips: Tensor, *, is_fused: bool = True, precision: str = "fp32"
) -> Callable[[], None]:
    """Return a step of SGD."""
    options = {"momentum": 0.9, "weight_decay": 1e-4, "fused": is_fused}
    optimizer = torch.optim.SGD(model.parameters(), 1e-3, **options)
    targets = torch.arange(len(clips)) % 10

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(CPU, precision):
            loss = nn.functional.cross_entropy(model(clips), targets)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 40.0)
        optimizer.step()

    return step


def checkpointed(model: nn.Module) -> nn.Module:
    """Return a network whose blocks are computed again going backward."""
    checkpoint_blocks(model)
    return model


def compiled(model: nn.Module) -> nn.Module:
    """Return a network whose backbone `torch.compile` has made faster, for one size of input."""
    model.backbone = torch.compile(model.backbone, dynamic=False)
    return model


def without_weak_gradients(model: nn.Module, clips: Tensor) -> Callable[[], None]:
    """Return a step whose second third of the clips passes by itself, without gradients."""
    labeled, weak, strong = clips.chunk(3)
    step = make_step(model, torch.cat([labeled, strong]))

    def both() -> None:
        with torch.no_grad():
            model(weak)
        step()

    return both


def kept_mb(model: nn.Module, clips: Tensor) -> float:
    """Return how much a forward pass keeps for the backward pass, megabytes."""
    sizes = {}

    def keep(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        outputs = model(clips)  # held, or what it kept would be taken for new
    del outputs
    return sum(sizes.values()) / 1e6


def compare_ways(given: argparse.Namespace) -> None:
    """Print what each way of making a step costs."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    clips = torch.randn(given.clips, 3, 8, given.side, given.side)

    def network() -> nn.Module:
        return build_model(given.model, 10)

    ways = {
        "as it is trained": make_step(network(), clips),
        "SGD not fused": make_step(network(), clips, is_fused=False),
        "checkpoint_blocks": make_step(checkpointed(network()), clips),
        "joint_forward: false": without_weak_gradients(network(), clips),
    }
    if given.bf16:
        ways["precision: bf16"] = make_step(network(), clips, precision="bf16")
    if given.compile:
        ways["torch.compile"] = make_step(compiled(network()), clips)
        start = time.process_time()
        ways["torch.compile"]()
        print(f"compiled in {time.process_time() - start:.0f} s of CPU")
    times = interleave(ways, given.rounds)
    plain = times["as it is trained"]
    title = f"A step of {given.model}, {given.clips} clips of 8 × {given.side}²"
    print_table(
        title, ("step", "ms", "÷ as it is trained"), [(*x, x[1] / plain) for x in times.items()]
    )
    kept = kept_mb(network(), clips), kept_mb(checkpointed(network()), clips)
    print(
        f"\nkept for the backward pass: {kept[0]:.0f} MB, with checkpoint_blocks {kept[1]:.0f} MB"
    )


def compare_processes(world: DistContext, given: argparse.Namespace) -> None:
    """Print, in the first of the processes, what sharing a step costs beside not sharing it."""
    clips = torch.randn(given.clips, 3, 8, given.side, given.side)
    _, parallel = for_processes(build_model(given.model, 10), world)
    ways = {
        f"one run of {world.world_size} processes": make_step(
            parallel, clips.chunk(world.world_size)[0]
        ),
        f"{world.world_size} runs of one process": make_step(build_model(given.model, 10), clips),
    }
    found = {name: [] for name in ways}
    for _ in range(given.rounds + 2):  # the first ones fill caches
        for name, step in ways.items():
            world.all_gather(None)  # all begin together
            before = time.perf_counter(), time.thread_time(), time.process_time()
            step()
            after = time.perf_counter(), time.thread_time(), time.process_time()
            found[name].append([b - a for a, b in zip(before, after, strict=True)])
    walls, rows = [], []
    for name, measured in found.items():
        wall, own, cpu = (statistics.median(x) for x in zip(*measured[2:], strict=True))
        walls.append(max(world.all_gather(wall)))
        rows.append((name, 1000 * walls[-1], 1000 * cpu, 100 * (1 - own / wall)))
    if world.rank == 0:
        header = ("a step of", "ms", "CPU ms of a process", "% that it waits")
        print_table(f"{given.model}, {given.clips} clips a run", header, rows)
        print(f"\nclips a second, shared ÷ apart: {walls[1] / (world.world_size * walls[0]):.2f}")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="r3d_small")
    parser.add_argument("--clips", type=int, default=12)
    parser.add_argument("--side", type=int, default=56)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--bf16", action="store_true", help="measure bf16 too")
    parser.add_argument("--compile", action="store_true", help="measure torch.compile too")
    given = parser.parse_args()
    print(describe_machine())
    if given.processes > 1:
        launch(compare_processes, (given,), given.processes, "cpu")
    else:
        compare_ways(given)


if __name__ == "__main__":
    main()
