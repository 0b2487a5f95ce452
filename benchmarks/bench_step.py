"""Benchmark of a training step, and of options that trade its time for memory or arithmetic.

    python -m benchmarks.bench_step --model r3d_small --clips 12 --side 56
    python -m benchmarks.bench_step --processes 2

The variants of a step alternate in one process with one thread; the table has the shortest CPU
time. With two processes: a run that they share, compared with two simultaneous runs of one process
each, on two idle cores.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.timing import describe_machine, interleave, print_table
from lib.models.networks import build_model
from lib.runs.device import autocast
from lib.runs.distributed import DistContext, launch
from lib.train.run_model import wrap_ddp

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


def compiled(model: nn.Module) -> nn.Module:
    """Compile the backbone of a network for one size of input."""
    model.backbone = torch.compile(model.backbone, dynamic=False)
    return model


def without_weak_gradients(model: nn.Module, clips: Tensor) -> Callable[[], None]:
    """Return a step with a separate pass without gradients for the second third of the clips."""
    labeled, weak, strong = clips.chunk(3)
    step = make_step(model, torch.cat([labeled, strong]))

    def both() -> None:
        with torch.no_grad():
            model(weak)
        step()

    return both


def kept_mb(model: nn.Module, clips: Tensor) -> float:
    """Return the memory that a forward pass keeps for the backward pass, megabytes."""
    sizes = {}

    def keep(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        outputs = model(clips)  # a reference, or its freed memory would be counted twice
    del outputs
    return sum(sizes.values()) / 1e6


def compare_variants(args: argparse.Namespace) -> None:
    """Print the cost of each variant of a step."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    clips = torch.randn(args.clips, 3, 8, args.side, args.side)

    def network() -> nn.Module:
        return build_model(args.model, 10)

    variants = {
        "as it is trained": make_step(network(), clips),
        "SGD not fused": make_step(network(), clips, is_fused=False),
        "joint_forward: false": without_weak_gradients(network(), clips),
    }
    if args.bf16:
        variants["precision: bf16"] = make_step(network(), clips, precision="bf16")
    if args.compile:
        variants["torch.compile"] = make_step(compiled(network()), clips)
        start = time.process_time()
        variants["torch.compile"]()
        print(f"compiled in {time.process_time() - start:.0f} s of CPU")
    times = interleave(variants, args.rounds)
    plain = times["as it is trained"]
    title = f"A step of {args.model}, {args.clips} clips of 8 × {args.side}²"
    print_table(
        title, ("step", "ms", "÷ as it is trained"), [(*x, x[1] / plain) for x in times.items()]
    )
    print(f"\nkept for the backward pass: {kept_mb(network(), clips):.0f} MB")


def compare_processes(world: DistContext, args: argparse.Namespace) -> None:
    """Print, in the first process, the cost of a shared step and of separate ones."""
    clips = torch.randn(args.clips, 3, 8, args.side, args.side)
    _, parallel = wrap_ddp(build_model(args.model, 10), world)
    variants = {
        f"one run of {world.world_size} processes": make_step(
            parallel, clips.chunk(world.world_size)[0]
        ),
        f"{world.world_size} runs of one process": make_step(build_model(args.model, 10), clips),
    }
    measured_by_name = {name: [] for name in variants}
    for _ in range(args.rounds + 2):  # the first ones warm up
        for name, step in variants.items():
            world.all_gather(None)  # synchronize the start
            before = time.perf_counter(), time.thread_time(), time.process_time()
            step()
            after = time.perf_counter(), time.thread_time(), time.process_time()
            measured_by_name[name].append([b - a for a, b in zip(before, after, strict=True)])
    walls, rows = [], []
    for name, measured in measured_by_name.items():
        wall, own, cpu = (statistics.median(x) for x in zip(*measured[2:], strict=True))
        walls.append(max(world.all_gather(wall)))
        rows.append((name, 1000 * walls[-1], 1000 * cpu, 100 * (1 - own / wall)))
    if world.rank == 0:
        header = ("a step of", "ms", "CPU ms of a process", "% waiting")
        print_table(f"{args.model}, {args.clips} clips a run", header, rows)
        print(f"\nclips a second, shared ÷ apart: {walls[1] / (world.world_size * walls[0]):.2f}")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="r3d_small")
    parser.add_argument("--clips", type=int, default=12)
    parser.add_argument("--side", type=int, default=56)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--bf16", action="store_true", help="measure bf16 too")
    parser.add_argument("--compile", action="store_true", help="measure torch.compile too")
    args = parser.parse_args()
    print(describe_machine())
    if args.processes > 1:
        launch(compare_processes, (args,), args.processes, "cpu")
    else:
        compare_variants(args)


if __name__ == "__main__":
    main()
