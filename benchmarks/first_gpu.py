"""The first quarter of an hour on a GPU: speed, the method on the paper's network, features.

    benchmarks/first_gpu.sh --pack              # packages and data for a machine without a network
    benchmarks/first_gpu.sh tests speed         # there; then: method features
    benchmarks/first_gpu.sh --rehearse          # the same code on a CPU, small
    python -m benchmarks.first_gpu report results.jsonl --figure curves.png

Training is the library's (`lib.train`), with the paper's recipe (`params/paper`). Each result is a
line of `results.jsonl` as soon as it is measured. Clips are counted as the network sees them: one
of a labeled clip, two of an unlabeled one (weak and strong view).
"""

import argparse
import gc
import itertools
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from shutil import copy2, copytree
from tempfile import TemporaryDirectory

import av
import numpy as np
import pandas as pd
import torch

from benchmarks.timing import describe_machine, print_table
from lib.config import PROJECT_ROOT, PrepareSettings, TrainSettings
from lib.data.dataset import is_prepared, open_prepared, write_dataset
from lib.data.frame_tables import PERSON_BOXES_FILE
from lib.evaluate.run_results import read_results
from lib.evaluate.test import evaluate_worker
from lib.models.networks import input_spec
from lib.params import read_settings
from lib.runs.distributed import DistContext
from lib.runs.progress import peak_memory_mb
from lib.runs.run_dir import RunDir
from lib.train.fit import train_worker
from lib.train.run_model import build_run_model, run_normalize
from lib.train.scoring import VideoViews, score_videos, val_protocol
from lib.train.trainer import Trainer

RECIPES = {
    "semi": PROJECT_ROOT / "params" / "paper" / "ucf101" / "semi_10percent.yaml",
    "supervised": PROJECT_ROOT / "params" / "paper" / "ucf101" / "supervised_100percent.yaml",
}
PACK = PROJECT_ROOT / "outputs" / "first_gpu" / "pack.tar.xz"
PACKAGES = (
    "av", "simplejpeg", "pydantic", "pydantic_core", "annotated-types", "typing-inspection",
    "typing-extensions", "filelock", "pebble",
)  # fmt: skip
VIDEOS = PROJECT_ROOT.parent / "shared" / "data"
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
ENDLESS = 10**6  # steps of a run that is only measured
WARMUP_EPOCHS = 2  # of a run by the clock; the second one is timed
SHARE_OF_STEPS = 0.7  # of the time after them; the rest is validation, checkpoints and the test
# Clips of the footage that the pack has; `synthetic` stands in for it.
FOOTAGE = {
    "weizmann_scenes": {"frame_interval": 3, "test_splits": ["val", "val_swapped"]},
    "ucf101_10": {"frame_interval": 1, "short_side": 64, "crop_size": 56, "test_crop_size": 64},
    "synthetic": {"frame_interval": 3, "test_splits": ["val", "val_swapped"]},
}
# One GPU: 16 + 16 clips a step instead of 40 + 40, and the learning rate in proportion.
BY_THE_CLOCK = {
    "labeled_split": "train", "labeled_fraction": 0.1, "labeled_batch": 16, "unlabeled_batch": 16,
    "micro_batch": 0, "lr": 0.08, "epochs": WARMUP_EPOCHS, "warmup_epochs": float(WARMUP_EPOCHS),
    "checkpoint_every_minutes": 0.0, "frame_cache_mb": 4000, "short_side": 128, "crop_size": 112,
    "test_crop_size": 128, "test_num_clips": 3, "test_num_crops": 1,
}  # fmt: skip
SMALL_CLIPS = {
    "clip_len": 4, "short_side": 36, "crop_size": 32, "test_crop_size": 32, "precision": "fp32",
}  # fmt: skip
HALF = {"precision": "bf16"}
CHANNELS_LAST = {"precision": "bf16", "channels_last": True}


@dataclass(frozen=True)
class Stage:
    """Sizes of the measurements, and where their data and results are.

    Attributes:
        data: Folder of prepared data sets.
        runs: Folder of the runs.
        results: File of the results.
        end: Time of `time.monotonic` at which the stage is ended from outside.
        device: `cuda` or `cpu`.
        networks: Networks to train, the paper's first.
        features: Networks of which features are computed.
        few, many: Clips of a pass.
        seconds: Duration of a measurement of speed.
        run_seconds: Duration of a semi-supervised run of the first network; supervised: half.
        max_epochs: Of a run, after the warm-up.
        workers: Loader processes of a stream.
    """

    data: Path
    runs: Path
    results: Path
    end: float
    device: str = "cuda"
    networks: tuple[str, ...] = ("r2plus1d_34", "r3d_18")
    features: tuple[str, ...] = (
        "vit_b_16", "vit_l_16", "swin3d_b", "timm/vit_base_patch14_dinov2.lvd142m",
    )  # fmt: skip
    few: int = 16
    many: int = 64
    seconds: float = 3.0
    run_seconds: float = 95.0
    max_epochs: int = 1000
    workers: int = max(1, (os.cpu_count() or 2) // 2)

    @property
    def world(self) -> DistContext:
        """The only process."""
        return DistContext(0, 1, torch.device(self.device))

    @property
    def datasets(self) -> list[str]:
        """Data sets of the method that are there."""
        return [name for name in FOOTAGE if is_prepared(self.data / name)]

    def settings(self, objective: str, **changes: object) -> TrainSettings:
        """Return the paper's settings with changes; on a CPU with small clips."""
        values = read_settings([RECIPES[objective]]).model_dump() | changes
        values |= {"device": self.device, "prepared_dir": str(self.data), "num_processes": 1}
        return TrainSettings(**values | (SMALL_CLIPS if self.device == "cpu" else {}))

    def write(self, stage: str, **values: object) -> None:
        """Append a result and print it."""
        line = json.dumps({"stage": stage} | values)
        with self.results.open("a") as file:
            file.write(line + "\n")
        print(line, flush=True)

    def attempt(self, stage: str, measure: Callable[[], dict], **names: object) -> None:
        """Write the names and what `measure` returns, or its error: the others still count."""
        try:
            values = measure()
        except Exception as error:  # out of memory, a kernel or a package that is missing
            values = {"error": f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"}
        self.write(stage, **names, **values)
        gc.collect()
        if self.device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()


# --- Speed ----------------------------------------------------------------------------------------


def measure_speed(stage: Stage) -> None:
    """Measure training steps of the paper's networks, the most valuable ones first."""
    few, many = {"labeled_batch": stage.few}, {"labeled_batch": stage.many}
    share = {"labeled_batch": 5, "unlabeled_batch": 5}  # of one of the paper's 8 GPUs
    whole = {"labeled_batch": 40, "unlabeled_batch": 40}
    if stage.device == "cpu":
        share = whole = {"labeled_batch": 2, "unlabeled_batch": 2}
    for changes in ({"tf32": False}, {}, HALF, CHANNELS_LAST):
        time_step(stage, "supervised", **few, **changes)
    for changes in (HALF, CHANNELS_LAST):
        time_step(stage, "supervised", **many, **changes)
    time_step(stage, "semi", **share)
    time_step(stage, "semi", **whole, **CHANNELS_LAST)
    for part in ("loader", "loader and network"):
        time_step(stage, "semi", part, num_workers=stage.workers, **whole, **CHANNELS_LAST)
    for model in stage.networks[1:]:
        time_step(stage, "supervised", model=model, **few)
        time_step(stage, "supervised", model=model, **few, **HALF)
        time_step(stage, "supervised", model=model, **many, **CHANNELS_LAST)
    time_step(stage, "supervised", "compiled network", **few, **HALF)
    time_step(stage, "supervised", **few, channels_last=True)
    time_step(stage, "supervised", **few, precision="fp16")


def time_step(stage: Stage, objective: str, part: str = "network", **changes: object) -> None:
    """Write clips per second and peak memory of a step, of its `network` or `loader` alone."""
    name = "ucf101" if is_prepared(stage.data / "ucf101") else stage.datasets[0]
    common = {"dataset": name, "labeled_split": "train", "micro_batch": 0, "epochs": ENDLESS}
    common |= {"lr": 1e-3, "num_workers": 0, "model": stage.networks[0]}
    settings = stage.settings(objective, **common | changes)
    views = sum(settings.batches.values()) + settings.batches.get("unlabeled_batch", 0)
    names = ("model", "precision", "tf32", "channels_last", "crop_size")
    described = {name: getattr(settings, name) for name in names}

    def measure() -> dict[str, float]:
        seconds = seconds_per_step(stage, settings, part)
        memory = peak_memory_mb(stage.world.device) / 1000
        return {"clips_per_s": round(views / seconds, 1), "memory_gb": memory}

    described |= {"objective": objective, "part": part, "clips": views}
    stage.attempt("speed", measure, **described)


def seconds_per_step(stage: Stage, settings: TrainSettings, part: str) -> float:
    """Return the seconds of a step; without loader processes it repeats its first batch."""
    trainer = Trainer(settings, stage.world)
    if part == "compiled network":
        backend = "inductor" if stage.device == "cuda" else "eager"
        model = trainer.ddp_model
        model.backbone = torch.compile(model.backbone, dynamic=False, backend=backend)
    pairs = trainer.load_pairs(0, ENDLESS)
    if not settings.num_workers:
        pairs = itertools.repeat(next(pairs))

    def step() -> None:
        if part == "loader":
            next(pairs)
        else:
            trainer.train_step(pairs)  # waits for the GPU

    for _ in range(3):
        step()
    for _ in range(4 * settings.num_workers + 2):  # loaded while cuDNN chose its kernels
        next(pairs)
    if stage.device == "cuda":  # cuDNN tried some that need more memory
        torch.cuda.reset_peak_memory_stats()
    count, started = 0, time.perf_counter()
    while count < 3 or time.perf_counter() - started < stage.seconds:
        step()
        count += 1
    return (time.perf_counter() - started) / count


# --- The method -----------------------------------------------------------------------------------


def measure_method(stage: Stage) -> None:
    """Train a semi-supervised and a supervised run on each data set, network by network."""
    for number, model in enumerate(stage.networks):
        for dataset, objective in itertools.product(stage.datasets, RECIPES):
            seconds = stage.run_seconds / (1 + number) / (1 if objective == "semi" else 2)
            if stage.end - time.monotonic() < 1.2 * seconds:
                return
            name = f"{dataset}_{model}_{objective}"
            changes = BY_THE_CLOCK | FOOTAGE[dataset] | {"dataset": dataset, "model": model}
            changes |= {"num_workers": stage.workers, "run_dir": str(stage.runs / name)}
            settings = stage.settings(objective, **HALF | changes)
            train = partial(train_by_the_clock, stage, settings, seconds)
            stage.attempt("method", train, run=name)


def train_by_the_clock(stage: Stage, settings: TrainSettings, seconds: float) -> dict:
    """Train as many epochs as the time allows and test; return epochs and top-1 by split.

    The learning rate grows over the warm-up epochs, whose time gives the number of the others; over
    these it falls to 0 as in every run.
    """
    started, run = time.monotonic(), RunDir(settings.run_dir)
    run.start(settings)
    limit = threading.Timer(seconds, run.ask_to_stop)
    limit.start()
    try:
        train_worker(stage.world, settings)
        if not run.is_finished():
            raise TimeoutError(f"{WARMUP_EPOCHS} epochs took longer than {seconds:.0f} s")
        before, now = (entry["seconds"] for entry in run.log_entries())
        left = seconds - (time.monotonic() - started)
        more = min(stage.max_epochs, max(1, int(SHARE_OF_STEPS * left / (now - before))))
        epochs = WARMUP_EPOCHS + more
        changes = {"epochs": epochs, "lr_restart_epochs": [WARMUP_EPOCHS]}
        settings = settings.model_copy(update=changes | {"val_every_epochs": math.ceil(epochs / 6)})
        run.start(settings)
        train_worker(stage.world, settings)
    finally:  # also at the end of the stage's time
        limit.cancel()
        for entry in run.log_entries():
            stage.write("curve", run=run.name, **entry)
    evaluate_worker(stage.world, run, batch_clips=32)
    top1 = {name: result.metrics["top1"] for name, result in read_results(run).items()}
    rate = statistics.median(entry["samples_per_s"] for entry in run.log_entries())
    return {"epochs": len(run.log_entries()), "of": epochs, "top1": top1, "samples_per_s": rate}


# --- Features -------------------------------------------------------------------------------------


def measure_features(stage: Stage) -> None:
    """Measure the features of large networks with random weights, as a linear probe needs them."""
    for precision, model in itertools.product(("bf16", "fp32"), stage.features):
        measure = partial(time_features, stage, model, precision)
        stage.attempt("features", measure, model=model, precision=precision)


def time_features(stage: Stage, model: str, precision: str) -> dict[str, float]:
    """Return the clips per second and the peak memory of the features of one clip a video."""
    spec = input_spec(model)
    sizes = {"short_side": spec.short_side, "crop_size": spec.crop_size}
    sizes |= {"test_crop_size": spec.crop_size, "clip_len": max(8, spec.min_clip_len)}
    settings = stage.settings("supervised", model=model, precision=precision, **sizes)
    network = build_run_model(settings, 10).backbone.to(stage.device)
    data = open_prepared(stage.datasets[0], None, str(stage.data))
    rows = np.arange(min(len(data.index), stage.many * 8))
    normalize = run_normalize(settings).to(stage.device)

    def score(rows: np.ndarray) -> None:
        views = VideoViews(data, rows, val_protocol(settings), BY_THE_CLOCK["frame_cache_mb"])
        options = {"num_workers": stage.workers, "precision": settings.precision}
        score_videos(network, normalize, views, stage.world, **options)

    score(rows[:32])
    started = time.perf_counter()
    score(rows)
    rate = len(rows) / (time.perf_counter() - started)
    memory = peak_memory_mb(stage.world.device) / 1000
    size = {"clip_len": settings.clip_len, "crop_size": settings.crop_size}
    return size | {"clips_per_s": round(rate, 1), "memory_gb": memory}


# --- The pack -------------------------------------------------------------------------------------


def pack(videos: Path, python: str) -> None:
    """Write packages for `python` on Linux (x86-64) and prepared data sets into `PACK`."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile"]
        install += ["--only-binary=:all:", "--implementation=cp", f"--python-version={python}"]
        install += [f"--platform={platform}" for platform in PLATFORMS]
        wheels = [f"{package}=={version(package)}" for package in PACKAGES]
        subprocess.run([*install, f"--target={folder / 'packages'}", *wheels], check=True)
        collect_videos(videos, folder / "data")
        source = videos / "weizmann_scenes"
        lists = [str(source / "lists" / f"{split}.txt") for split in ("val", "val_swapped")]
        boxes = {"person_boxes": "import", "boxes_file": str(source / "person_boxes.csv")}
        pack_dataset(folder / "data" / "weizmann_scenes", split_files=lists, **boxes)
        for dataset in ("ucf101_10", "ucf101"):
            pack_dataset(folder / "data" / dataset, person_boxes="motion", detector_stride=1)
        PACK.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(PACK, "w:xz") as archive:
            archive.add(folder / "packages", "packages")
            archive.add(folder / "data", "data")
    print(f"{PACK}: {PACK.stat().st_size / 1e6:.1f} MB")


def collect_videos(source: Path, target: Path) -> None:
    """Copy the footage: all of Weizmann, every second frame of the ten classes, six of UCF-101."""
    for part in ("train", "val"):
        copytree(source / "weizmann_scenes" / part, target / "weizmann_scenes" / "videos" / part)
    for path in sorted((source / "ucf101_10").glob("*/*/*.avi")):
        keep_every_second_frame(
            path, target / "ucf101_10" / "videos" / path.relative_to(source / "ucf101_10")
        )
    for folder in sorted(path for path in (source / "ucf101_avi").iterdir() if path.is_dir()):
        for part, path in zip(("train", "val"), sorted(folder.iterdir()), strict=False):
            copy = target / "ucf101" / "videos" / part / folder.name / path.name
            copy.parent.mkdir(parents=True)
            copy.write_bytes(path.read_bytes())


def keep_every_second_frame(source: Path, target: Path) -> None:
    """Copy a video of which each frame is a picture of its own, without decoding it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(source)) as video, av.open(str(target), "w") as copy:
        stream = copy.add_stream_from_template(video.streams.video[0])
        packets = (packet for packet in video.demux(video=0) if packet.size)
        for number, packet in enumerate(itertools.islice(packets, 0, None, 2)):
            packet.stream, packet.pts, packet.dts = stream, number, number
            copy.mux(packet)


def pack_dataset(folder: Path, **boxes: object) -> None:
    """Prepare `folder/videos` into `folder`, which can then be moved."""
    from lib.prepare.steps import prepare  # it imports what the machine may lack

    videos = folder / "videos"
    with TemporaryDirectory() as prepared_dir:
        options = {"dataset": "folder", "prepared_dir": prepared_dir, "reader": "av"}
        data = prepare(PrepareSettings(videos_dir=str(videos), **options, **boxes))
        copytree(data.folder / "splits", folder / "splits")
        copy2(data.folder / PERSON_BOXES_FILE, folder)
        write_dataset(folder, folder.name, data.classes, videos, data.index, {})


# --- The report -----------------------------------------------------------------------------------


def report(path: Path, figure: Path | None) -> None:
    """Print the results as tables, and lines for `params/speed.csv`; draw the validation curves."""
    rows = pd.DataFrame(map(json.loads, path.read_text().splitlines()))
    stages = dict(list(rows.groupby("stage", sort=False)))
    for stage in ("machine", "speed", "method", "features"):
        if stage in stages:
            table = stages[stage].drop(columns="stage").dropna(axis="columns", how="all").fillna("")
            print_table(stage, list(table), table.to_numpy().tolist())
    if "speed" in stages:
        print("\nfor params/speed.csv:")
        gpus = [*stages["machine"]["gpus"].iloc[0], "no GPU"]
        steps = stages["speed"].query("objective == 'supervised' and part == 'network'")
        plain = steps.query("tf32 and not channels_last and clips == clips.min()")
        for row in plain.dropna(subset="clips_per_s").itertuples():
            speed = f"{row.clips:.0f},{row.clips_per_s},{row.memory_gb:.1f}"
            print(f"{gpus[0]},{row.model},{row.precision},{speed},benchmarks/first_gpu.sh")
    if figure is not None and "curve" in stages:
        draw_curves(stages["curve"], figure)


def draw_curves(curves: pd.DataFrame, path: Path) -> None:
    """Draw top-1 in validation over the training time of each run."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.2), layout="constrained")
    for name, run in curves.dropna(subset="eval/top1_video").groupby("run", sort=False):
        axes.plot(run["seconds"], run["eval/top1_video"], "o-", markersize=4, label=name)
    axes.set(xlabel="training time (s)", ylabel="validation top-1 (%)")
    axes.legend(fontsize="small")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=130)


# --- Command line ---------------------------------------------------------------------------------

STAGES = {"speed": measure_speed, "method": measure_method, "features": measure_features}
SMALL = {
    "device": "cpu", "networks": ("r3d_small",), "features": ("mobilenet_v3_small",), "few": 2,
    "many": 4, "seconds": 0.0, "run_seconds": 240.0, "max_epochs": 2, "workers": 1,
}  # fmt: skip


def run_stage(options: argparse.Namespace) -> None:
    """Run a stage; SIGTERM ends it and keeps what was measured."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    torch.set_num_threads(1)  # as a training process
    options.out.mkdir(parents=True, exist_ok=True)
    stage = Stage(
        data=options.work / "data",
        runs=options.runs or options.work / "runs",
        results=options.out / "results.jsonl",
        end=time.monotonic() + options.seconds - 10,
        **SMALL if options.rehearse else {},
    )
    if not stage.datasets:
        from lib.prepare.synthetic import make_synthetic

        sizes = {"train": 24, "val": 8, "val_swapped": 8} if options.rehearse else None
        make_synthetic(stage.data / "synthetic", sizes)
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    stage.write("machine", gpus=gpus, cpu=describe_machine(), data=stage.datasets)
    STAGES[options.task](stage)


def main() -> None:
    """Run one task of the command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.first_gpu", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("task", choices=[*STAGES, "pack", "report"])
    parser.add_argument("results", nargs="?", type=Path, help="of report")
    parser.add_argument("--figure", type=Path, help="of report")
    parser.add_argument("--videos", type=Path, default=VIDEOS, help="footage to pack")
    parser.add_argument("--python", default="3.12", help="version on the machine, to pack")
    parser.add_argument("--work", type=Path, help="folder of the data of a stage")
    parser.add_argument("--runs", type=Path, help="folder of its runs, if elsewhere")
    parser.add_argument("--out", type=Path, help="folder of its results")
    parser.add_argument("--seconds", type=float, default=600.0, help="its time")
    parser.add_argument("--rehearse", action="store_true", help="small, on the CPU")
    options = parser.parse_args()
    if options.task == "pack":
        pack(options.videos, options.python)
    elif options.task == "report":
        report(options.results, options.figure)
    else:
        run_stage(options)


if __name__ == "__main__":
    main()
