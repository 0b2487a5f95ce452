"""What the experiments of the paper cost: cores and hours of every study, from measured costs.

    python -m benchmarks.bench_scale
    python -m benchmarks.bench_scale --clips 60    # your GPU's: from benchmarks.bench_gpu

Computed, not run. The anchor is the reference's own log: supervised R(2+1)D-34 on 8 RTX 2080 Ti,
16 clips a GPU, 0.93 s a step. Another network is taken to cost what its multiplications say, the
weak view of an unlabelled clip as much as the strong one, validation and test nothing.
"""

import argparse
import math
from functools import cache

import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.timing import print_table
from lib.batch.plan import PlannedRun, estimate_clips, read_plan
from lib.config import TrainSettings
from lib.models.networks import build_model

ANCHOR = 8 * 16 / 0.93 / 8  # clips/s of R(2+1)D-34, 8 × 224², forward and backward, one 2080 Ti
NUM_GPUS = 8
STUDIES = ["ucf101", "hmdb51", "kinetics100", "kinetics400", "mini_ssv2", "cross", "ablation"]
# Milliseconds of one core, `bench_read` and `bench_augment` (benchmarks/README.md). Mini-Something
# has no films here: the generated ones of its size stand in for them.
DECODE = {"ucf101": 5.9, "hmdb51": 8.7, "kinetics100": 41.4, "kinetics400": 41.4, "mini_ssv2": 28.1}
UNLABELED = 3.3  # beyond decoding: two views and a mask
LABELED = 0.88 / 2.56 * UNLABELED  # the weak view's share of it, in one run of `bench_augment`


@cache
def multiplications(model: str, num_frames: int, side: int) -> float:
    """Return the multiplications of a clip's forward pass."""
    with torch.device("meta"):
        network = build_model(model, 10).eval()
        clip = torch.zeros(1, 3, num_frames, side, side)
    with FlopCounterMode(display=False) as counter:
        network(clip)
    return counter.get_total_flops() / 2


def cost_of(s: TrainSettings, clips_per_second: float) -> tuple[float, float]:
    """Return the GPU hours of a run, NaN without its list, and the cores that feed one GPU."""
    size = (s.clip_len, s.crop_size)
    factor = multiplications(s.model, *size) / multiplications("r2plus1d_34", 8, 224)
    unlabeled = s.unlabeled_batch if s.is_semi_supervised else 0
    steps = (estimate_clips(s) or math.nan) / (s.labeled_batch + unlabeled)
    gpu_seconds = (s.labeled_batch + 2 * unlabeled) * factor / clips_per_second  # of a step
    frames = s.clip_len / 8
    core_ms = s.labeled_batch * frames * (DECODE[s.dataset] + LABELED)
    core_ms += unlabeled * frames * (DECODE[s.unlabeled_dataset or s.dataset] + UNLABELED)
    return steps * gpu_seconds / 3600, core_ms / 1000 / gpu_seconds


def row_of(run: PlannedRun, clips_per_second: float) -> dict[str, object]:
    """Return what a run costs, for the table."""
    hours, cores = cost_of(run.settings, clips_per_second)
    name = "semi-supervised" if run.settings.is_semi_supervised else "supervised"
    return {
        "study": run.source.parent.name,
        "runs": f"{name}, {run.settings.model}",
        "hours": hours / NUM_GPUS,
        "cores": cores,
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--clips", type=float, default=ANCHOR, help="a second, of one GPU")
    given = parser.parse_args()
    runs = read_plan([f"params/paper/{study}" for study in STUDIES])
    costs = pd.DataFrame([row_of(run, given.clips) for run in runs])
    rows = []
    for (study, kind), group in costs.groupby(["study", "runs"], sort=False):
        hours = group["hours"]
        ends = dict.fromkeys(f"{end:.1f}" for end in (hours.min(), hours.max()))
        span = "list not known" if hours.isna().all() else " to ".join(ends)
        rows.append([study, kind, len(group), span, hours.sum(min_count=1), group["cores"].max()])
    total = costs["hours"].sum()
    title = f"{NUM_GPUS} GPUs of {given.clips:.1f} clips/s each; {total:.0f} hours in all"
    header = ["study", "runs", "number", "hours each", "hours in all", "cores a GPU"]
    print_table(title, header, rows)


if __name__ == "__main__":
    main()
