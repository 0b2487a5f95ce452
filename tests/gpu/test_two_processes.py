"""Two processes together compute what one computes: by nccl on two GPUs, else by gloo."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from lib.runs.distributed import DistContext, launch
from lib.train.run_model import average_batch_norm, wrap_ddp

SIZE, CLASSES = 2, 4


@pytest.mark.slow
def test_two_processes_compute_what_one_computes(device):
    """On one GPU both use it, and gloo takes the place of nccl."""
    has_two = device.type == "cuda" and torch.cuda.device_count() >= SIZE
    launch(rank_worker, (device.type,), SIZE, "cuda" if has_two else "cpu")


def rank_worker(world: DistContext, device: str) -> None:
    if device == "cuda" and world.device.type == "cpu":
        world = replace(world, device=torch.device("cuda", 0))
    for check in (check_buffers, check_gradients, check_steps, check_sync_batch_norm):
        check(world)


def make_model(world: DistContext) -> nn.Module:
    torch.manual_seed(0)
    head = nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(8, CLASSES)
    model = nn.Sequential(nn.Conv3d(3, 8, 3, stride=2), nn.BatchNorm3d(8), nn.ReLU(), *head)
    return model.to(world.device)


def make_clips(world: DistContext) -> Tensor:
    clips = torch.randn(8, 3, 4, 32, 32, generator=torch.Generator().manual_seed(1))
    return clips.to(world.device)


def compute_loss(model: nn.Module, clips: Tensor) -> Tensor:
    targets = (clips.mean(dim=(1, 2, 3, 4)) > 0).long()
    return nn.functional.cross_entropy(model(clips), targets)


def accumulate_gradients(parallel: nn.Module, world: DistContext) -> None:
    """Add the gradients of this process's clips in two micro-batches, shared at the second."""
    parts = make_clips(world).chunk(SIZE)[world.rank].chunk(2)
    for number, part in enumerate(parts):
        parallel.require_backward_grad_sync = number == len(parts) - 1
        (compute_loss(parallel, part) / len(parts)).backward()


def flatten(tensors) -> Tensor:
    return torch.cat([tensor.detach().cpu().float().flatten() for tensor in tensors])


def check_buffers(world: DistContext) -> None:
    """Averaged buffers of batch norm are equal in both, and the mean of what they were."""
    model, parallel = wrap_ddp(make_model(world), world)
    parallel.train()(make_clips(world).chunk(SIZE)[world.rank])
    before = world.all_gather(flatten(model.buffers()))
    average_batch_norm(model, world)
    after = world.all_gather(flatten(model.buffers()))
    assert after[0].equal(after[1]) and (
        world.device.type == "cuda" or not before[0].equal(before[1])
    )
    torch.testing.assert_close(after[0], torch.stack(before).mean(dim=0), rtol=1e-5, atol=1e-6)


def check_gradients(world: DistContext) -> None:
    """The accumulated gradient is that of the joined batch, without batch statistics."""
    model = make_model(world).eval()
    compute_loss(model, make_clips(world)).backward()
    expected = flatten(p.grad for p in model.parameters())
    model, parallel = wrap_ddp(make_model(world), world)
    accumulate_gradients(parallel.eval(), world)
    gradient = flatten(p.grad for p in model.parameters())
    assert (gradient - expected).abs().max() <= 1e-4 * expected.abs().max()


def check_steps(world: DistContext) -> None:
    """Steps leave the same parameters in both, bit for bit."""
    model, parallel = wrap_ddp(make_model(world), world)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, fused=True)
    before = flatten(model.parameters())
    for _ in range(3):
        optimizer.zero_grad()
        accumulate_gradients(parallel.train(), world)
        optimizer.step()
    after = world.all_gather(flatten(model.parameters()))
    assert after[0].equal(after[1]) and not after[0].equal(before)


def check_sync_batch_norm(world: DistContext) -> None:
    """Synchronized batch norm, which exists for GPUs only, is that of the joined batch."""
    if world.device.type != "cuda":
        return
    clips, outputs = make_clips(world), []
    for kind, part in ((nn.BatchNorm3d, clips), (nn.SyncBatchNorm, clips.chunk(SIZE)[world.rank])):
        norm = kind(3).to(world.device).train()
        part = part.clone().requires_grad_()
        output = norm(part)
        output.pow(3).sum().backward()
        outputs.append((output.detach(), part.grad))
    for joined, own in zip(*outputs, strict=True):
        torch.testing.assert_close(own, joined.chunk(SIZE)[world.rank], rtol=1e-4, atol=1e-4)
