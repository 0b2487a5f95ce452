"""Device, precision and kernels of a process."""

import os
from pathlib import Path

import torch

AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
DEV = Path("/dev")  # on Linux an NVIDIA driver adds `nvidia0` there


def resolve_device(device: str) -> str:
    """Return `cuda` or `cpu` for `auto`, `cuda` or `cpu`.

    A GPU that PyTorch cannot use is a ValueError: a long run must not train on the CPU unnoticed.
    """
    if device != "cpu" and torch.cuda.is_available():
        return "cuda"
    has_gpu = _has_nvidia_gpu()
    if device == "cuda" or (device == "auto" and has_gpu):
        build = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
        problem = f"PyTorch {torch.__version__} (a build {build}) cannot use the NVIDIA GPU"
        raise ValueError(
            f"device: {device!r}: {problem if has_gpu else 'there is no NVIDIA GPU'}; "
            "install a build of PyTorch that fits the driver (docs/machines.md), or set device: cpu"
        )
    return "cpu"


def resolve_test_device(device: str) -> str:
    """Return the device for testing a run that was trained on `device`: a GPU if there is one."""
    return resolve_device("cpu" if device == "cpu" else "auto")


def _has_nvidia_gpu() -> bool:
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1", "NoDevFiles"):
        return False
    return any(DEV.glob("nvidia[0-9]*"))


def check_precision(precision: str, device: str) -> None:
    """Raise ValueError if the device cannot compute in a precision, or only by emulation."""
    if precision != "fp32" and device == "cpu":  # PyTorch's bf16 can crash there
        raise ValueError(f"precision: {precision!r} needs a GPU; use 'fp32'")
    if precision == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise ValueError("precision: this GPU only emulates 'bf16'; use 'fp16' or 'fp32'")


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return the context in which a network computes in a precision."""
    return torch.autocast(device.type, AUTOCAST[precision], enabled=precision != "fp32")


def set_kernels(cudnn_benchmark: bool, tf32: bool) -> None:
    """Choose the fastest convolution kernels by timing them; allow factors of 10 bits (TF32)."""
    torch.backends.cudnn.benchmark = cudnn_benchmark
    torch.backends.cudnn.allow_tf32 = tf32


def to_channels_last(model: torch.nn.Module) -> None:
    """Store convolution weights, and so their outputs, with the channels last."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    for parameter in model.parameters():
        if parameter.dim() in formats:
            parameter.data = parameter.data.contiguous(memory_format=formats[parameter.dim()])
