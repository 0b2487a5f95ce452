"""What a run depends on besides its settings: versions, devices, and how the machine computes.

Two machines with the same packages may round differently, and two such runs then drift apart. What
decides about that is kept with every run, so that a difference can be explained.
"""

import os
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lib.config import PROJECT_ROOT

PACKAGES = ("torch", "torchvision", "numpy", "av", "simplejpeg", "papermill", "pydantic")
# The instruction sets that numerical kernels are chosen by
FLAGS = (
    "avx", "avx2", "fma", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16",
    "amx_tile", "amx_bf16", "asimd", "sve", "sve2", "bf16", "i8mm",
)  # fmt: skip
# Variables that make PyTorch, oneDNN, MKL or OpenMP choose other kernels
VARIABLES = (
    "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS",
    "MKL_CBWR", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "CUBLAS_WORKSPACE_CONFIG",
    "NVIDIA_TF32_OVERRIDE",
)  # fmt: skip
CPUINFO = Path("/proc/cpuinfo")  # Linux's description of the CPU


def environment(num_processes: int = 1) -> dict[str, Any]:
    """Return versions, devices, the commit, and what decides how a run computes here.

    Args:
        num_processes: Processes that train, as returned by `resolve_num_processes`.
    """
    import torch

    from lib.runs.distributed import num_threads

    model, flags = cpu()
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu_count": os.cpu_count(),
        "cpu_model": model,
        "cpu_flags": flags,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "num_processes": num_processes,
        "threads": num_threads(num_processes),  # of each of them
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "packages": {name: version(name) for name in PACKAGES},
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        "torch_config": torch.__config__.show(),
        "commit": _commit(),
    }


def cpu() -> tuple[str, list[str]]:
    """Return the CPU's model and those of `FLAGS` that it has; only Linux lets them be known."""
    try:
        text = CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip().lower(), value.strip())
    known = set(fields.get("flags", fields.get("features", "")).split())
    model = fields.get("model name") or platform.processor() or platform.machine()
    parts = [f"{name} {fields[name]}" for name in ("cpu family", "model") if name in fields]
    return ", ".join([model, *parts]), [flag for flag in FLAGS if flag in known]


def arithmetic(known: Mapping[str, Any]) -> dict[str, str]:
    """Return what decides whether two runs of the same settings are equal, in words.

    Args:
        known: A run's `environment.json`; what an older one lacks is left out.
    """
    words = {
        "CPU": known.get("cpu_model"),
        "instructions": " ".join(known.get("cpu_flags", [])),
        "kernels": known.get("cpu_capability"),
        "GPU": ", ".join(dict.fromkeys(known.get("gpus", []))),
        "processes": known.get("num_processes"),
        "threads of a process": known.get("threads"),
        "PyTorch": known.get("packages", {}).get("torch"),
        "variables": ", ".join(f"{k}={v}" for k, v in known.get("variables", {}).items()),
        "build of PyTorch": known.get("torch_config"),
    }
    return {name: str(value) for name, value in words.items() if value}


def _commit() -> str | None:
    command = ["git", "-C", str(PROJECT_ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
