"""Whole runs on a few small videos: stopped and continued, ended by a signal, their loader."""

import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch

from lib.config import PROJECT_ROOT, TrainSettings
from lib.data.clip_dataset import ClipDataset, StreamSampler, ViewSpec, make_clip_loader
from lib.data.dataset import read_dataset
from lib.doctor.check import Bench, Result, at_most, holds, not_run
from lib.prepare.synthetic import make_synthetic
from lib.runs.distributed import DistContext
from lib.runs.run_dir import RunDir
from lib.train import fit, trainer
from lib.train.streams import paired_batches

PARTS = {"train": 18, "val": 8, "val_swapped": 6}
INTERRUPTED = 130  # exit status after Ctrl-C or SIGTERM
LOADED = 20  # batches


def _settings(bench: Bench, name: str, **changes: object) -> TrainSettings:
    """Return the settings of a run of a few seconds."""
    folder = bench.folder / "data" / "synthetic"
    if not folder.exists():
        make_synthetic(folder, PARTS, num_processes=1)
    values = {
        "prepared_dir": str(folder.parent),
        "run_dir": str(bench.folder / name),
        "clip_len": 4,
        "frame_interval": 2,
        "short_side": 36,
        "crop_size": 32,
        "test_crop_size": 32,
        "model": "r2plus1d_small",
        "labeled_batch": 4,
        "unlabeled_batch": 6,
        "confidence_threshold": 0.26,
        "num_processes": min(2, torch.cuda.device_count()) if bench.has_gpu else 1,
        "lr": 0.01,
        "epochs": 2,
        "val_every_epochs": 1,
        "device": bench.device.type,
    }
    return TrainSettings(**values | changes)


def stop_and_resume(bench: Bench) -> Iterator[Result]:
    """A run that is stopped and goes on is the one that never stopped."""
    expected = fit.fit(_settings(bench, "whole", epochs=8))
    settings = _settings(bench, "stopped", epochs=8)
    run = RunDir(settings.run_dir)
    asking = threading.Thread(target=_ask_when_it_trains, args=(run,), daemon=True)
    asking.start()
    fit.fit(settings)
    asking.join()
    step, epoch = run.saved()
    name = "a run is stopped"
    if epoch >= settings.epochs:
        yield not_run(name, "it was over before it could be asked")
        return
    yield holds(name, step > 0, f"at step {step}", "before its end, with a checkpoint")
    fit.fit(settings)
    logs = [part.log_entries() for part in (expected, run)]
    ends = [[entry["step"] for entry in log] for log in logs]
    yield holds("its steps, continued", ends[0] == ends[1], str(ends[1][-1]), "as without a stop")
    first, second = (log[epoch]["loss/total"] for log in logs)
    yield at_most("its next loss, relative to a run without a stop", abs(second / first - 1), 1e-3)


def _ask_when_it_trains(run: RunDir) -> None:
    while not run.progress_path.exists() and not run.is_asked_to_stop():
        if (run.saved() or (0, 0))[1] >= 1:
            break
        time.sleep(0.005)
    run.ask_to_stop()


def signal_in_validation(bench: Bench) -> Iterator[Result]:
    """SIGTERM reaches every process of a run, loader workers too, while it validates."""
    processes = min(2, torch.cuda.device_count()) if bench.has_gpu else 2
    settings = _settings(bench, "signalled", epochs=2, num_workers=1, num_processes=processes)
    path = bench.folder / "signalled.yaml"
    path.write_text(settings.as_yaml())
    command = [sys.executable, "-m", "lib.doctor.signalled", str(path)]
    process = subprocess.run(
        command, cwd=PROJECT_ROOT, start_new_session=True, capture_output=True, text=True
    )
    run = RunDir(settings.run_dir)
    name = "exit status after SIGTERM in a validation"
    problem = "" if process.returncode == INTERRUPTED else f": {process.stderr[-500:]}"
    status = f"{process.returncode}{problem}"
    yield holds(name, process.returncode == INTERRUPTED, status, str(INTERRUPTED))
    log, saved = run.log_entries(), run.saved()
    is_saved = saved is not None and saved[1] == 1 and len(log) == 1
    yield holds("its checkpoint holds the validated epoch", is_saved, str(saved), "epoch 1")


def score_after_signal(*args: object, **options: object) -> object:
    """Signal all processes of the run, once, then validate as ever."""
    trainer.score_videos = _score_videos
    if args[5].rank == 0:
        order = "import os, signal; os.killpg(0, signal.SIGTERM)"
        subprocess.run([sys.executable, "-c", order], check=False)  # from outside, as a cluster
    return _score_videos(*args, **options)


_score_videos = trainer.score_videos
_train_worker = fit.train_worker


def signalled_worker(world: DistContext, settings: TrainSettings) -> None:
    """Train, and be signalled in the first validation."""
    trainer.score_videos = score_after_signal
    _train_worker(world, settings)


def synchronisations(bench: Bench) -> Iterator[Result]:
    """Where a step waits for the GPU."""
    name = "a step waits for the GPU"
    if not bench.has_gpu:
        yield not_run(name, "there is none")
        return
    settings = _settings(bench, "waits", num_processes=1)
    one = trainer.Trainer(settings, DistContext(0, 1, bench.device))
    batches = paired_batches(settings, one.data, one.clips, one.world, 0, 4, lambda stats: None)
    one._train_step(batches)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            one._train_step(batches)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    waits = [w for w in caught if "synchroniz" in str(w.message)]
    places = sorted({f"{_shorten(w.filename)}:{w.lineno}" for w in waits})
    ours = [place for place in places if place.startswith("lib/")]
    is_right = all(place.startswith("lib/train/non_finite.py") for place in ours)
    yield holds(name, is_right, ", ".join(places) or "nowhere", "in lib/ only in finite.py")


def _shorten(filename: str) -> str:
    path = Path(filename)
    is_ours = path.is_relative_to(PROJECT_ROOT / "lib")
    return str(path.relative_to(PROJECT_ROOT)) if is_ours else path.name


def loader(bench: Bench) -> Iterator[Result]:
    """Clips a second that loader processes make, of small videos that are scaled up."""
    size = {"clip_len": bench.clip_len, "crop_size": bench.side, "short_side": bench.side}
    settings = _settings(bench, "loader", **size)
    clips = ClipDataset(
        read_dataset(bench.folder / "data" / "synthetic"), settings, ViewSpec(strong=True), (0,)
    )
    rows = clips.dataset.read_split("train")
    workers = min(8, os.cpu_count() or 1)
    sampler = StreamSampler(rows, bench.clips, (0,), 0, LOADED + 1)
    batches = make_clip_loader(clips, sampler, workers, bench.has_gpu)
    next(batches)
    started = time.perf_counter()
    for batch in batches:
        batch.to(bench.device)
    rate = LOADED * bench.clips / (time.perf_counter() - started)
    text = f"{rate:.1f} clips/s, weak and strong, by {workers} processes"
    yield Result("loading", "measured", text, "0.9 of the clips/s of training, or the GPU waits")


CHECKS = (stop_and_resume, signal_in_validation, synchronisations, loader)
