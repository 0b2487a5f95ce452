"""Software and hardware of a run: two machines with the same packages may round differently."""

import os
import platform
import re
import subprocess
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from lib.config import PROJECT_ROOT


def environment(num_processes: int = 1) -> dict[str, Any]:
    """Return all installed packages, devices, git commit and what else affects the results."""
    import torch

    from lib.runs.distributed import num_threads

    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu_count": os.cpu_count(),
        "cpu_model": cpu_model(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "num_processes": num_processes,
        "threads_per_process": num_threads(num_processes),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "packages": _packages(),
        "torch_config": torch.__config__.show(),
        "commit": _commit(),
    }


@cache  # a quarter of a second, and each run of a process asks
def _packages() -> dict[str, str]:
    """Return the versions of the installed packages by their names."""
    metadata = (distribution.metadata for distribution in distributions())
    return dict(sorted((fields["Name"].lower(), fields["Version"]) for fields in metadata))


def cpu_model() -> str:
    """Return the name, family and model of the CPU, as far as the system reports them."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0]  # the first core
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    fields = dict(re.findall(r"^(model name|cpu family|model)\s*: (.+)$", text, re.MULTILINE))
    return ", ".join(f"{name}: {value}" for name, value in fields.items()) or platform.machine()


def _commit() -> str | None:
    command = ["git", "-C", str(PROJECT_ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
