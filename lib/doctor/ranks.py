"""What two processes tell each other, and whether together they learn what one learns."""

import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import psutil
import torch
from torch import Tensor, nn

from lib.doctor.check import Bench, Result, at_most, holds, not_run, relative
from lib.fileio import write_text
from lib.models.build import build_model
from lib.runs.distributed import DistContext, launch
from lib.train.batch_norm import average_buffers, for_processes

SIZE, CLASSES, STEPS = 2, 4, 3
FAILURE_S = 30.0  # until the failure of one process has ended all
ASLEEP_S = 600.0


def two_processes(bench: Bench) -> Iterator[Result]:
    """Talking and learning in two processes: by nccl on two GPUs, else by gloo."""
    launch(rank_worker, (bench,), SIZE, _device(bench))
    results = [Result(**found) for found in json.loads((bench.folder / "ranks.json").read_text())]
    yield Result("two processes", "measured", _backend(bench))
    yield from results


def _device(bench: Bench) -> str:
    return "cuda" if bench.has_gpu and torch.cuda.device_count() >= SIZE else "cpu"


def _backend(bench: Bench) -> str:
    if _device(bench) == "cuda":
        return "nccl, a GPU each"
    return "gloo, both on the one GPU" if bench.has_gpu else "gloo, on the CPU"


def rank_worker(world: DistContext, bench: Bench) -> None:
    """Do the checks of two processes; rank 0 writes what was found."""
    if bench.has_gpu and world.device.type == "cpu":
        world = replace(world, device=bench.device)
    parts = (_talk, _buffers, _gradients, _steps, _synchronized)
    results = [result for part in parts for result in part(world)]
    if world.rank == 0:
        text = json.dumps([asdict(result) for result in results])
        write_text(bench.folder / "ranks.json", text)


def _network() -> nn.Module:
    torch.manual_seed(0)
    return build_model("r2plus1d_small", CLASSES, dropout=0.0)


def _clips(count: int = 8) -> Tensor:
    return torch.randn(count, 3, 4, 32, 32, generator=torch.Generator().manual_seed(1))


def _loss(model: nn.Module, clips: Tensor) -> Tensor:
    targets = (clips.mean(dim=(1, 2, 3, 4)) > 0).long()
    return nn.functional.cross_entropy(model(clips), targets)


def _talk(world: DistContext) -> Iterator[Result]:
    total = world.all_reduce(torch.tensor([1.0 + world.rank, 10.0], device=world.device)).tolist()
    yield holds("sum over two processes", total == [3, 20], str(total), "[3, 20]")
    said = world.all_gather(f"rank {world.rank}")
    yield holds("gather", said == ["rank 0", "rank 1"], str(said), "in the order of ranks")
    agreed = [world.broadcast(world.rank == 0), world.broadcast(world.rank == 1)]
    yield holds("agree on rank 0's word", agreed == [True, False], str(agreed), "[True, False]")


def _buffers(world: DistContext) -> Iterator[Result]:
    """Batch norm after a step on other clips in each process, and after averaging."""
    model, parallel = for_processes(_network().to(world.device), world)
    parallel.train()(_clips().chunk(SIZE)[world.rank].to(world.device))
    before = world.all_gather(_flat(model.buffers()))
    average_buffers(model, world)
    after = world.all_gather(_flat(model.buffers()))
    is_equal = torch.equal(*after) and not torch.equal(*before)
    yield holds("buffers of batch norm, averaged", is_equal, f"equal: {is_equal}", "equal")
    mean = torch.stack(before).mean(dim=0)
    yield at_most("their mean", relative(after[0], mean), 1e-6)


def _gradients(world: DistContext) -> Iterator[Result]:
    """Gradients of two processes with two micro-batches each, and that of the joined batch."""
    model = _network().to(world.device).eval()  # batch norm does not mix the clips of a batch
    _loss(model, _clips().to(world.device)).backward()
    expected = _flat(p.grad for p in model.parameters())
    model, parallel = for_processes(_network().to(world.device), world)
    _accumulate(parallel.eval(), world)
    error = relative(_flat(p.grad for p in model.parameters()), expected)
    yield at_most("accumulated gradient beside that of the joined batch", error, 1e-4)


def _accumulate(parallel: nn.Module, world: DistContext) -> None:
    parts = _clips().to(world.device).chunk(SIZE)[world.rank].chunk(2)
    for number, part in enumerate(parts):
        parallel.require_backward_grad_sync = number == len(parts) - 1
        (_loss(parallel, part) / len(parts)).backward()


def _steps(world: DistContext) -> Iterator[Result]:
    """Steps with micro-batches leave one set of parameters."""
    model, parallel = for_processes(_network().to(world.device), world)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, fused=True)
    before = _flat(model.parameters())
    for _ in range(STEPS):
        optimizer.zero_grad(set_to_none=True)
        _accumulate(parallel.train(), world)
        optimizer.step()
    after = world.all_gather(_flat(model.parameters()))
    is_equal = torch.equal(*after) and not torch.equal(before, after[0])
    name = f"parameters after {STEPS} steps"
    yield holds(name, is_equal, f"equal in both: {is_equal}", "equal, bit by bit")


def _synchronized(world: DistContext) -> Iterator[Result]:
    """Batch norm over two processes beside batch norm on the joined batch."""
    names = ["synchronised batch norm, output", "its gradient"]
    if world.device.type != "cuda":
        yield from (not_run(name, "it exists for GPUs alone") for name in names)
        return
    clips = _clips().to(world.device)
    found = []
    for kind, part in ((nn.BatchNorm3d, clips), (nn.SyncBatchNorm, clips.chunk(SIZE)[world.rank])):
        norm = kind(3).to(world.device).train()
        part = part.clone().requires_grad_()
        output = norm(part)
        output.pow(3).sum().backward()
        found.append((output.detach(), part.grad))
    for name, joined, own, limit in zip(names, *found, (1e-5, 1e-4), strict=True):
        yield at_most(name, relative(own, joined.chunk(SIZE)[world.rank]), limit)


def _flat(tensors: Iterator[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().cpu().float().flatten() for tensor in tensors])


def failure(bench: Bench) -> Iterator[Result]:
    """A process fails while another waits."""
    device, started = _device(bench), time.perf_counter()
    try:
        launch(failing_worker, (bench.folder,), SIZE, device)
        said = "nothing was raised"
    except Exception as error:
        said = str(error)
    seconds = time.perf_counter() - started
    is_named = "process 1 of 2" in said and "fails on purpose" in said
    yield holds("a failing process is named", is_named, said.splitlines()[0], "process 1 of 2")
    yield holds("all end soon after", seconds < FAILURE_S, f"{seconds:.1f} s", f"{FAILURE_S:g} s")
    left = [int(path.stem) for path in bench.folder.glob("*.pid")]
    left = [pid for pid in left if psutil.pid_exists(pid)]
    yield holds("no process is left", not left, f"{len(left)} left", "0")


def failing_worker(world: DistContext, folder: Path) -> None:
    """Fail in rank 1; rank 0 waits for it in a sum."""
    (folder / f"{os.getpid()}.pid").touch()
    world.all_gather(world.rank)
    if world.rank == 1:
        raise RuntimeError("fails on purpose")
    world.all_reduce(torch.zeros(1, device=world.device))
    time.sleep(ASLEEP_S)


CHECKS = (two_processes, failure)
