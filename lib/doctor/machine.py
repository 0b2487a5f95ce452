"""What this machine is and what would fail on it: versions, GPUs, memory, disks, video readers."""

import importlib
import platform
import shutil
from collections.abc import Iterator
from importlib.metadata import version

import psutil
import torch

from lib.config import PROJECT_ROOT
from lib.doctor.check import Bench, Result, holds
from lib.prepare.parallel import num_cores
from lib.runs.device import cuda_problem, driver, nvidia_devices
from lib.runs.environment import cpu
from lib.runs.hang_detector import SHARED_MEMORY

LOADER_GB = 0.8  # of shared memory a process: twice what waits there in the paper's recipe
CORES_PER_GPU = 8  # two streams of 4 loader processes
FREE_GB = 5  # for checkpoints: the paper's network takes 0.5 GB each, a run keeps three
READERS = {"av": "av", "decord": "decord2", "simplejpeg": "simplejpeg"}  # module -> package


def software(bench: Bench) -> Iterator[Result]:
    """Versions of Python and PyTorch, and the video readers."""
    yield Result("Python", "measured", f"{platform.python_version()}, {platform.platform()}")
    built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "the CPU alone"
    yield Result("PyTorch", "measured", f"{torch.__version__}, built for {built}")
    for name, package in READERS.items():
        try:
            importlib.import_module(name)
            yield holds(f"reader {name}", True, version(package), "is imported")
        except Exception as error:
            yield holds(f"reader {name}", False, str(error), "is imported")


def gpus(bench: Bench) -> Iterator[Result]:
    """The GPUs, and whether PyTorch can use them."""
    problem = cuda_problem()
    if problem is not None and not nvidia_devices():
        yield Result("GPU", "measured", "none: runs with `device: auto` train on the CPU")
        return
    yield holds("GPU", problem is None, problem or "PyTorch can use it", "no error")
    if problem is None:
        yield from _usable_gpus()


def _usable_gpus() -> Iterator[Result]:
    for number in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(number)
        text = f"{card.name}, sm_{card.major}{card.minor}, {card.total_memory / 1e9:.1f} GB"
        yield Result(f"GPU {number}", "measured", text)
    has_nccl = torch.distributed.is_nccl_available()
    nccl = ".".join(map(str, torch.cuda.nccl.version())) if has_nccl else "none"
    text = f"{driver()}; cuDNN {torch.backends.cudnn.version()}, nccl {nccl}"
    yield Result("driver", "measured", text)
    has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    yield Result("bf16", "measured", "computed" if has_bf16 else "only emulated, and refused")


def memory(bench: Bench) -> Iterator[Result]:
    """Cores, memory, shared memory and disk, as far as a run needs them."""
    processes = max(1, torch.cuda.device_count()) if bench.has_gpu else 1
    cores = num_cores()
    yield Result("CPU", "measured", f"{cpu()[0]}, {cores} cores for this process")
    if bench.has_gpu:
        wanted = CORES_PER_GPU * processes
        yield holds("cores", cores >= wanted, f"{cores}", f"≥ {wanted}, or fewer num_workers")
    total = psutil.virtual_memory()
    yield Result("memory", "measured", f"{total.available / 1e9:.1f} of {total.total / 1e9:.1f} GB")
    if SHARED_MEMORY.is_dir():
        free = shutil.disk_usage(SHARED_MEMORY).free / 1e9
        text = f"≥ {LOADER_GB * processes:.1f} GB for num_workers: 4 at the paper's size"
        is_enough = free >= LOADER_GB * processes
        yield holds("/dev/shm", is_enough, f"{free:.1f} GB free", text)
    free = shutil.disk_usage(PROJECT_ROOT).free / 1e9
    yield holds("disk", free >= FREE_GB, f"{free:.0f} GB free", f"≥ {FREE_GB} GB for checkpoints")


CHECKS = (software, gpus, memory)
