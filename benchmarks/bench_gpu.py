"""Speed and peak memory of training steps and test batches on a GPU; prints a table.

    python -m benchmarks.bench_gpu
    python -m benchmarks.bench_gpu --model r3d_small --clips 4 --side 32 --device cpu

Clips of 8 frames in memory, without data loading: an upper bound for a run's clips per second.
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.timing import describe_machine, print_table
from lib.models.networks import build_model
from lib.runs.device import autocast, set_kernels, to_channels_last

STEPS = 5
TEST_CLIPS, TEST_SIDE = 32, 256


def make_step(model: nn.Module, clips: Tensor, precision: str) -> Callable[[], None]:
    """Return an optimizer step."""
    optimizer = torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9, fused=True)
    targets = torch.arange(len(clips), device=clips.device) % 10

    def step() -> None:
        optimizer.zero_grad()
        with autocast(clips.device, precision):
            loss = nn.functional.cross_entropy(model(clips), targets)
        loss.backward()
        optimizer.step()

    return step


def measure(work: Callable[[], None], device: torch.device) -> tuple[float, float]:
    """Return seconds per call, after one that does not count, and peak memory, GB (0 on a CPU)."""
    is_gpu = device.type == "cuda"
    if is_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    work()
    if is_gpu:
        torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(STEPS):
        work()
    if is_gpu:
        torch.cuda.synchronize()
    seconds = (time.perf_counter() - started) / STEPS
    return seconds, torch.cuda.max_memory_reserved() / 1e9 if is_gpu else 0.0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="benchmarks.bench_gpu", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--model", default="r2plus1d_34")
    parser.add_argument("--clips", type=int, default=15, help="per step")
    parser.add_argument("--side", type=int, default=224, help="pixels")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--precisions", nargs="+", default=["fp32"], help="fp32, bf16, fp16")
    options = parser.parse_args()
    device = torch.device(options.device)
    rows = []
    for precision in options.precisions:
        for cudnn_benchmark in (False, True):
            for channels_last in (False, True):
                set_kernels(cudnn_benchmark, tf32=True)
                model = build_model(options.model, 10).to(device).train()
                if channels_last:
                    to_channels_last(model)
                clips = torch.randn(options.clips, 3, 8, options.side, options.side, device=device)
                seconds, memory = measure(make_step(model, clips, precision), device)
                name = f"{precision}, benchmark {cudnn_benchmark}, channels last {channels_last}"
                rows.append([name, f"{options.clips / seconds:.1f}", f"{memory:.1f}"])
    test_side = TEST_SIDE if device.type == "cuda" else options.side
    clips = torch.randn(TEST_CLIPS, 3, 8, test_side, test_side, device=device)
    with torch.no_grad():
        seconds, memory = measure(lambda: model.eval()(clips), device)
    rows.append([f"test, {TEST_CLIPS} clips", f"{TEST_CLIPS / seconds:.1f}", f"{memory:.1f}"])
    print(describe_machine())
    print_table(f"{options.model} on {device}", ["step", "clips/s", "GB"], rows)


if __name__ == "__main__":
    main()
