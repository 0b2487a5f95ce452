"""Timing things that take turns, and tables that can be pasted."""

import os
import platform
import time
from collections.abc import Callable, Sequence

import torch


def interleave(
    contenders: dict[str, Callable[[], object]], rounds: int, clock=time.process_time
) -> dict[str, float]:
    """Return the shortest time of a call of each, in milliseconds.

    In each round every contender is called once, so that they meet the same machine; the shortest
    time is the one that other programs disturbed least.

    Args:
        contenders: What is called, by name.
        rounds: Calls of each that count; one more goes before.
        clock: Seconds; the default is this process's CPU time, over all its threads.
    """
    times = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, call in contenders.items():
            start = clock()
            call()
            if number:
                times[name].append(1000 * (clock() - start))
    return {name: min(measured) for name, measured in times.items()}


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a Markdown table; numbers get two digits after the point."""
    print(f"\n**{title}**\n\n| {' | '.join(header)} |\n|{' --- |' * len(header)}", flush=True)
    for row in rows:
        cells = [f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in row]
        print(f"| {' | '.join(cells)} |", flush=True)


def describe_machine() -> str:
    """Return processor, threads and versions in one line."""
    processor = platform.processor() or platform.machine()
    with open("/proc/cpuinfo") as lines:
        names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    if names:
        processor = f"{len(names)} × {names[0]}"
    threads, load = torch.get_num_threads(), os.getloadavg()[0]
    return f"{processor}, load {load:.1f}, {threads} thread(s), torch {torch.__version__}"
