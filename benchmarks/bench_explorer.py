"""How fast a knob of the augmentation explorer answers, against the target of 150 ms.

    python benchmarks/bench_explorer.py

A clip of 8 frames at 224 pixels from a video of 320 × 240, on one core: from the change of the knob
to the picture that is sent to the browser. The target is for the time of this process: what the
core takes when nobody else has it; the wall time of a shared machine stands beside it.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from lib.augment.randaugment import RANDAUGMENT_OPS
from lib.config import ExploreSettings
from lib.data.dataset import VideoDataset, write_dataset, write_split
from lib.data.frame_tables import FrameRows, PersonBoxes
from lib.jupyter.explorer import AugmentationExplorer
from lib.prepare.synthetic import write_video

TARGET_MS = 150
FRAMES, HEIGHT, WIDTH = 120, 240, 320


def make_videos(folder: Path) -> VideoDataset:
    """Write two noisy videos with one person box in each frame."""
    rng = np.random.default_rng(0)
    names = ["jump/a", "walk/b"]
    coarse = rng.integers(0, 255, (2, 1, HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)
    for name, pattern in zip(names, coarse, strict=True):
        scene = pattern.repeat(8, axis=1).repeat(8, axis=2)
        noise = rng.integers(0, 24, (FRAMES, HEIGHT, WIDTH, 3), dtype=np.uint8)
        write_video(folder / f"videos/{name}.mp4", scene // 2 + noise, 25)
    boxes = [[np.array([[80.0 + t, 40, 180 + t, 220, 0.9]]) for t in range(FRAMES)]] * 2
    PersonBoxes.write(folder, names, [FRAMES] * 2, map(FrameRows.stack, boxes))
    index = pd.DataFrame(
        {
            "name": names,
            "path": [f"videos/{name}.mp4" for name in names],
            "class": ["jump", "walk"],
            "label": [0, 1],
            "frames": FRAMES,
            "fps": 25,
            "width": WIDTH,
            "height": HEIGHT,
        }
    )
    dataset = write_dataset(folder, "bench", ["jump", "walk"], folder, index, {})
    write_split(dataset, "train", [0, 1])
    return dataset


def report(what: str, turn: Callable[[int], None], repeats: int) -> None:
    """Turn a knob and print the median and the slowest answer."""
    wall, cpu = [], []
    for number in range(repeats):
        started, used = time.perf_counter(), time.process_time()
        turn(number)
        wall.append(1000 * (time.perf_counter() - started))
        cpu.append(1000 * (time.process_time() - used))
    verdict = "ok" if np.median(cpu) <= TARGET_MS else "TOO SLOW"
    print(
        f"{what:28} median {np.median(cpu):4.0f} ms, target {TARGET_MS} ms: {verdict:8} "
        f"(wall: median {np.median(wall):4.0f} ms, slowest {max(wall):4.0f} ms)"
    )


def main() -> None:
    """Measure every knob, then every operation alone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        dataset = make_videos(Path(folder))
        started = time.perf_counter()
        shown = AugmentationExplorer(dataset, ExploreSettings(frame_interval=8))
        print(f"first picture: {1000 * (time.perf_counter() - started):.0f} ms, with decoding")
        knobs = shown.knobs

        def turn(name: str, *values: object) -> Callable[[int], None]:
            return lambda number: setattr(knobs[name], "value", values[number % len(values)])

        report("magnitude", turn("randaugment_magnitude", 5.0, 12.0, 20.0), repeats)
        report("operations", turn("randaugment_num_ops", 1, 3, 2), repeats)
        report("temporal", turn("temporal_ops", ("half",), ("reverse",), ("drop",)), repeats)
        report("scene", turn("scene_augmentation", "mixup", "cutmix", "actor_cutmix"), repeats)
        report(
            "smallest crop",
            lambda n: setattr(knobs["crop_area_min"], "value", 0.1 + n / 50),
            repeats,
        )
        report("box score", lambda n: setattr(knobs["person_min_score"], "value", n / 50), repeats)
        report("reseed", lambda n: shown.reseed.click(), repeats)
        report("video", lambda n: shown.video.choose(n % 2), repeats)
        knobs["randaugment_num_ops"].value = 1
        for name in RANDAUGMENT_OPS:
            knobs["randaugment_ops"].value = (name,)
            report(f"magnitude of {name}", turn("randaugment_magnitude", 5.0, 15.0, 25.0), repeats)
        print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
