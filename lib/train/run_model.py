"""Network of a run: its construction, optimizer, wrapper for processes, and moving average."""

from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lib.config import TrainSettings, project_path
from lib.models.classifier import VideoClassifier, insert_drop_path, layer_depths
from lib.models.networks import build_model, input_spec
from lib.models.video_resnet import Conv2Plus1d
from lib.runs.device import to_channels_last
from lib.runs.distributed import DistContext
from lib.train.run_data import Normalize

BETA2 = 0.999  # of AdamW


def build_run_model(settings: TrainSettings, num_classes: int) -> nn.Module:
    """Return the network of a run before its first step."""
    model = build_model(
        settings.model,
        num_classes,
        pretrained=settings.pretrained,
        weights=None if settings.weights is None else project_path(settings.weights),
        dropout=settings.dropout,
        teacher_classes=1000 if settings.distillation_weight else 0,
        temporal_std_pooling=settings.temporal_std_pooling,
    )
    if settings.init_noise:
        generator = torch.Generator().manual_seed(settings.seed)
        for weight in model.parameters():
            noise = torch.randn(weight.shape, generator=generator)
            weight.data.mul_(1 + settings.init_noise * noise)
    model.freeze(settings.freeze_fraction, settings.freeze_batch_norm)
    insert_drop_path(model.backbone, settings.drop_path, settings.model)
    if settings.gradient_checkpointing:
        _checkpoint_gradients(model.backbone, settings.model)
    if settings.channels_last:
        to_channels_last(model)
    return model


def _checkpoint_gradients(backbone: nn.Module, name: str) -> None:
    """Compute activations again in the backward pass; ValueError if a network has no switch."""
    for module in backbone.modules():
        if hasattr(module, "gradient_checkpointing_enable"):  # of transformers
            return module.gradient_checkpointing_enable({"use_reentrant": False})
        if hasattr(module, "set_grad_checkpointing"):  # of timm
            return module.set_grad_checkpointing()
    raise ValueError(f"gradient_checkpointing: {name} has no such switch; set it to false")


def run_normalize(settings: TrainSettings) -> Normalize:
    """Return the normalization of the run's network."""
    spec = input_spec(settings.model, settings.pretrained)
    return Normalize(spec.mean, spec.std)


def make_optimizer(settings: TrainSettings, model: VideoClassifier) -> torch.optim.Optimizer:
    """Return SGD, or AdamW, whose norms and biases have no weight decay.

    `lr_scale` of a group is layer_decay to the power of the layers between it and the head.

    Source: Bao et al., BEiT (arXiv 2106.08254), for the rate of a layer.
    """
    is_adamw, decay = settings.optimizer == "adamw", settings.layer_decay
    depths, num_blocks = layer_depths(model.backbone) if decay < 1 else ({}, 0)
    if decay < 1 and not num_blocks:
        raise ValueError(f"layer_decay: {settings.model} has no transformer blocks; set it to 1")
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        depth = depths.get(name.removeprefix("backbone."), num_blocks + 1)
        is_decayed = not is_adamw or parameter.ndim > 1
        key = decay ** (num_blocks + 1 - depth), is_decayed
        groups.setdefault(key, []).append(parameter)
    parameters = [
        {"params": group, "lr_scale": scale, "weight_decay": is_decayed * settings.weight_decay}
        for (scale, is_decayed), group in groups.items()
    ]
    if is_adamw:
        betas = settings.momentum, BETA2
        return torch.optim.AdamW(parameters, lr=settings.lr, betas=betas, fused=True)
    return torch.optim.SGD(parameters, lr=settings.lr, momentum=settings.momentum, fused=True)


def wrap_ddp(model: nn.Module, world: DistContext) -> tuple[nn.Module, nn.Module]:
    """Convert batch norm to SyncBatchNorm on GPUs; return the network and its wrapper by DDP.

    With a single process both are the network itself.
    """
    if world.world_size == 1:
        return model, model
    ids = [world.device.index] if world.device.type == "cuda" else None
    model = sync_batch_norm(model) if ids else model
    parameters = signature(DistributedDataParallel).parameters  # PyTorch 2.9 has only the old name
    name = "forward_sync_buffers" if "forward_sync_buffers" in parameters else "broadcast_buffers"
    options = {name: False, "gradient_as_bucket_view": True}
    return model, DistributedDataParallel(model, device_ids=ids, **options)


def sync_batch_norm(model: nn.Module) -> nn.Module:
    """Synchronize batch norm over GPUs, except inside a (2+1)D pair, as in the reference."""
    pairs = {module: module.norm for module in model.modules() if isinstance(module, Conv2Plus1d)}
    model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for pair, norm in pairs.items():
        pair.norm = norm
    return model


@torch.no_grad()
def average_batch_norm(model: nn.Module, world: DistContext) -> None:
    """Replace the running statistics of batch norm by their mean over the processes."""
    if world.world_size == 1:
        return
    for buffer in model.buffers():
        if buffer.is_floating_point():
            world.all_reduce(buffer).div_(world.world_size)


def make_ema(model: nn.Module, decay: float) -> AveragedModel:
    """Return a copy of a network that follows it: ema = decay · ema + (1 − decay) · network.

    The first update copies the weights; buffers are always those of the network.

    Source: Tarvainen and Valpola, "Mean teachers are better role models" (arXiv 1703.01780).
    """
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay)).eval()


def eval_state_dict(checkpoint: dict[str, Any]) -> dict[str, Tensor]:
    """Return the weights of a checkpoint that are tested: those of the EMA if there is one."""
    if not checkpoint["ema"]:
        return checkpoint["model"]
    weights = {name.removeprefix("module."): value for name, value in checkpoint["ema"].items()}
    del weights["n_averaged"]
    return weights
