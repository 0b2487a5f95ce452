"""Batch norm over several processes: synchronised over GPUs, one set of buffers at validation."""

from inspect import signature

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from lib.models.video_resnet import Conv2Plus1d
from lib.runs.distributed import DistContext


def sync_batch_norm(model: nn.Module) -> nn.Module:
    """Synchronise batch norm over GPUs, except inside a (2+1)D pair, as in the reference."""
    pairs = {module: module.norm for module in model.modules() if isinstance(module, Conv2Plus1d)}
    model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for pair, norm in pairs.items():
        pair.norm = norm
    return model


@torch.no_grad()
def average_buffers(model: nn.Module, world: DistContext) -> None:
    """Replace the running statistics of batch norm by their mean over the processes."""
    if world.world_size == 1:
        return
    for buffer in model.buffers():
        if buffer.is_floating_point():
            world.all_reduce(buffer).div_(world.world_size)


def for_processes(model: nn.Module, world: DistContext) -> tuple[nn.Module, nn.Module]:
    """Return the network, its batch norm over all GPUs, and the same to train in these processes.

    Args:
        model: The network, on the device of `world`.
        world: The processes.
    """
    if world.world_size == 1:
        return model, model
    ids = [world.device.index] if world.device.type == "cuda" else None
    model = sync_batch_norm(model) if ids else model
    known = signature(DistributedDataParallel).parameters  # PyTorch 2.9 has the old name alone
    name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    options = {name: False, "gradient_as_bucket_view": True}
    return model, DistributedDataParallel(model, device_ids=ids, **options)
