"""What a process computes on, and how: device, precision, kernels."""

import os
from pathlib import Path

import torch

AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
NVIDIA = Path("/dev")  # of Linux: `nvidia0` there is a GPU with a driver
DRIVER = Path("/proc/driver/nvidia/version")


def resolve_device(device: str) -> str:
    """Return `cuda` or `cpu` for `auto`, `cuda` or `cpu`.

    Raises:
        ValueError: If CUDA is asked for and cannot be used, or if a GPU is there that PyTorch
            cannot use: a run of days is not to train on the CPU unnoticed.
    """
    if device == "cpu":
        return "cpu"
    problem = cuda_problem()
    if problem is None:
        return "cuda"
    if device == "cuda" or nvidia_devices():
        raise ValueError(
            f"device: {device!r}: {problem}; docs/machines.md says how to choose a build "
            "of PyTorch, and device: cpu trains without a GPU"
        )
    return "cpu"


def resolve_test_device(device: str) -> str:
    """Return where to test what was trained with `device`: on a GPU if there is one."""
    return resolve_device("cpu" if device == "cpu" else "auto")


def nvidia_devices() -> list[str]:
    """Return the NVIDIA GPUs that the system shows; none if CUDA_VISIBLE_DEVICES hides them."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1", "NoDevFiles"):
        return []
    return sorted(path.name for path in NVIDIA.glob("nvidia[0-9]*"))


def driver() -> str:
    """Return the NVIDIA driver's version, as the system words it; `unknown` without one."""
    try:
        return DRIVER.read_text(encoding="utf-8").splitlines()[0]
    except (OSError, IndexError):
        return "unknown"


def cuda_problem() -> str | None:
    """Return why PyTorch cannot compute on a GPU here; None if it can."""
    if torch.cuda.is_available():
        return _architecture_problem()
    build = torch.version.cuda
    if not nvidia_devices():
        return f"PyTorch {torch.__version__} sees no GPU, and the system shows no NVIDIA device"
    if build is None:
        return f"there is an NVIDIA GPU, but PyTorch {torch.__version__} is a build without CUDA"
    return (
        f"there is an NVIDIA GPU, but PyTorch {torch.__version__} for CUDA {build} cannot use it: "
        f"its driver ({driver()}) must be new enough for CUDA {build}, or install a build for an "
        "older CUDA"
    )


def _architecture_problem() -> str | None:
    """Return which GPU PyTorch was not built for, if there is one."""
    built = torch.cuda.get_arch_list()
    for number in range(torch.cuda.device_count()):
        major, minor = torch.cuda.get_device_capability(number)
        fits = {f"sm_{major}{lower}" for lower in range(minor + 1)}
        later = {name for name in built if name.startswith("compute_") and _level(name) <= major}
        if not fits & set(built) and not later:
            return (
                f"GPU {number}, {torch.cuda.get_device_name(number)}, has architecture "
                f"sm_{major}{minor}, and PyTorch {torch.__version__} is built for "
                f"{' '.join(built)}; install a build for an older CUDA"
            )
    return None


def _level(name: str) -> int:
    return int("".join(filter(str.isdigit, name))) // 10


def check_precision(precision: str, device: str) -> None:
    """Raise ValueError if the device cannot compute in a precision, or only by emulation."""
    if precision == "fp32":
        return
    if device == "cpu":  # PyTorch's bf16 there can crash
        raise ValueError(f"precision: {precision!r} needs a GPU; use 'fp32'")
    if precision == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise ValueError(
            "precision: this GPU only emulates 'bf16', which is slower than 'fp32'; use 'fp16' "
            "or 'fp32'"
        )


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return the context in which a network computes in a precision."""
    return torch.autocast(device.type, AUTOCAST[precision], enabled=precision != "fp32")


def set_kernels(cudnn_benchmark: bool, tf32: bool) -> None:
    """Choose the convolutions of GPUs in this process; nothing changes on a CPU.

    Args:
        cudnn_benchmark: Try algorithms for each size of input and keep the fastest.
        tf32: Round factors to 10 bits of mantissa, where the GPU does that faster (Ampere on).
    """
    torch.backends.cudnn.benchmark = cudnn_benchmark
    torch.backends.cudnn.allow_tf32 = tf32


def to_channels_last(model: torch.nn.Module) -> None:
    """Store the weights of convolutions, and so what they return, with the channels last."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    for parameter in model.parameters():
        if parameter.dim() in formats:
            parameter.data = parameter.data.contiguous(memory_format=formats[parameter.dim()])
