"""The one training loop, and what a spawned worker runs.

Notebook 3 calls `fit`. The same run from a shell, here or on several machines with a shared disk:

    python -m lib.learn.training params/demo/recipe.yaml params/demo/semi_seed0.yaml
    torchrun --nproc-per-node 2 -m lib.learn.training recipe.yaml run.yaml

On each of two machines: `torchrun --nnodes 2 --nproc-per-node 4 --rdzv-backend c10d
--rdzv-endpoint <first machine>:29400 -m lib.learn.training recipe.yaml run.yaml`.
"""

import argparse
import math
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lib.augment.scene import NEEDS_ACTORS, SCENE_AUGMENTATIONS
from lib.clips import ClipBatch, ClipDataset, StreamSampler, Views, make_generator, make_loader
from lib.config import (
    PROJECT_ROOT,
    TrainSettings,
    make_settings,
    notebook_defaults,
    project_path,
    read_yaml,
)
from lib.data.annotations import VideoDataset, draw_labeled_rows
from lib.data.catalog import dataset_folder
from lib.data.prepare import open_dataset
from lib.data.video import FrameReader
from lib.learn.distributed import (
    World,
    is_in_torchrun,
    launch,
    resolve_device,
    resolve_num_processes,
)
from lib.learn.models import build_model, check_input, input_spec, load_reference_weights
from lib.learn.objectives import (
    ClipTensors,
    FixMatchObjective,
    SupervisedObjective,
    UDAObjective,
)
from lib.learn.runs import Run
from lib.learn.scoring import Protocol, metrics, score_videos
from lib.learn.video_resnet import Conv2Plus1d
from lib.locks import exclusive

LABELED, UNLABELED, ORDER, MIXING, DROPOUT = range(5)  # what a seed key is for
STOP_CHECK_STEPS = 20
LOCK_WAIT_S = 15.0  # for the processes of a batch that was killed a moment ago


@dataclass(frozen=True)
class Data:
    """What a run learns from.

    Attributes:
        labeled: Data set of the labels.
        labeled_rows: Its labelled videos.
        val_rows: Its validation videos.
        unlabeled: Data set of the unlabelled clips; None if there are none.
        unlabeled_rows: Its videos.
    """

    labeled: VideoDataset
    labeled_rows: np.ndarray
    val_rows: np.ndarray
    unlabeled: VideoDataset | None
    unlabeled_rows: np.ndarray | None

    @property
    def epoch_rows(self) -> np.ndarray:
        """The list whose pass is an epoch: the unlabelled one if there is one."""
        return self.labeled_rows if self.unlabeled_rows is None else self.unlabeled_rows


def load_data(settings: TrainSettings) -> Data:
    """Open the data sets and lists of a run and check that they fit together.

    Raises:
        ValueError: If a data set or list is missing or training and validation overlap.
    """
    dataset = open_dataset(settings.dataset, settings.data_root, settings.data_dir)
    listed = dataset.read_list(settings.labeled_list)
    labels = dataset.index["label"].to_numpy()
    labeled_rows = draw_labeled_rows(
        labels, listed, settings.labeled_fraction, settings.labeled_seed
    )
    val_rows = dataset.read_list(settings.val_list)
    _check_disjoint(dataset, listed, settings.labeled_list, val_rows, settings.val_list)
    _warn_of_missing_classes(dataset, labeled_rows, settings.labeled_list)
    unlabeled = unlabeled_rows = None
    if settings.is_semi_supervised:
        unlabeled = dataset
        if settings.unlabeled_dataset is not None:
            unlabeled = open_dataset(
                settings.unlabeled_dataset, settings.unlabeled_data_root, settings.data_dir
            )
        unlabeled_rows = unlabeled.read_list(settings.unlabeled_list)
        if unlabeled.folder == dataset.folder:
            _check_disjoint(
                dataset, unlabeled_rows, settings.unlabeled_list, val_rows, settings.val_list
            )
    return Data(dataset, labeled_rows, val_rows, unlabeled, unlabeled_rows)


def _check_disjoint(
    dataset: VideoDataset, train: np.ndarray, train_list: str, val: np.ndarray, val_list: str
) -> None:
    both = np.intersect1d(train, val)
    if len(both):
        raise ValueError(
            f"lists {train_list!r} and {val_list!r} of {dataset.folder} share {len(both)} videos, "
            f"the first: {dataset.index['name'].iloc[both[0]]}; training would see the answers"
        )


def _warn_of_missing_classes(dataset: VideoDataset, rows: np.ndarray, list_name: str) -> None:
    present = set(dataset.index["label"].to_numpy()[rows].tolist())
    if missing := [name for k, name in enumerate(dataset.classes) if k not in present]:
        warnings.warn(
            f"list {list_name!r} of {dataset.folder} has no labelled video of {missing}; "
            "the network cannot learn them",
            stacklevel=3,
        )


def make_objective(settings: TrainSettings) -> SupervisedObjective | FixMatchObjective:
    """Return the objective that the settings name."""
    scene = SCENE_AUGMENTATIONS[settings.scene_augmentation]
    labeled = SupervisedObjective(settings.labeled_view, settings.labeled_scene_p, scene)
    if settings.objective == "supervised":
        return labeled
    common = {
        "labeled": labeled,
        "confidence_threshold": settings.confidence_threshold,
        "unlabeled_weight": settings.unlabeled_weight,
        "scene_p": settings.unlabeled_scene_p,
        "scene": scene,
        "distillation_weight": settings.distillation_weight,
    }
    if settings.objective == "uda":
        return UDAObjective(**common, temperature=settings.temperature)
    return FixMatchObjective(**common)


def make_clips(settings: TrainSettings, data: Data) -> tuple[ClipDataset, ClipDataset | None]:
    """Return the sources of the labelled and of the unlabelled clips."""
    uses_actors = settings.scene_augmentation in NEEDS_ACTORS
    scene_p = settings.labeled_scene_p
    strong = settings.labeled_view == "strong"
    views = Views(not strong or scene_p > 0, strong, uses_actors and scene_p > 0)
    labeled = ClipDataset(data.labeled, settings, views, (settings.seed, LABELED))
    if data.unlabeled is None:
        return labeled, None
    views = Views(
        weak=True,
        strong=True,
        human_mask=uses_actors and settings.unlabeled_scene_p > 0,
        teacher=settings.distillation_weight > 0,
    )
    has_labels = data.unlabeled.classes == data.labeled.classes
    key = (settings.seed, UNLABELED)
    return labeled, ClipDataset(data.unlabeled, settings, views, key, has_labels)


class Normalize(nn.Module):
    """uint8 clips (B, T, 3, H, W) -> float clips (B, 3, T, H, W), mean 0, on their device.

    Args:
        mean: Per channel, in 0..255.
        std: Per channel, in 0..255.
    """

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, clips: Tensor) -> Tensor:
        """Return the normalised clips."""
        return ((clips - self.mean) / self.std).transpose(1, 2)


def run_normalize(settings: TrainSettings) -> Normalize:
    """Return the normalisation of the run's network."""
    spec = input_spec(settings.model, settings.pretrained)
    return Normalize(spec.mean, spec.std)


def to_tensors(batch: ClipBatch, normalize: Normalize, num_classes: int) -> ClipTensors:
    """Move a batch to the device of `normalize` and normalise it there."""
    device = normalize.mean.device

    def view(clips: Tensor | None) -> Tensor | None:
        return None if clips is None else normalize(clips.to(device, non_blocking=True))

    mask = batch.human_mask
    if mask is not None:
        mask = mask.to(device, non_blocking=True).transpose(1, 2).float()
    label = batch.label.to(device).unsqueeze(1)  # −1, not known, gives zeros
    targets = (label == torch.arange(num_classes, device=device)).float()
    teacher = None if batch.teacher is None else batch.teacher.to(device, non_blocking=True)
    return ClipTensors(view(batch.weak), view(batch.strong), mask, targets, teacher)


def learning_rate(step: int, steps_per_epoch: int, settings: TrainSettings) -> float:
    """Return the learning rate of a step: linear warm-up, then cosine to 0, stepped per epoch.

    Source: Zou et al., section 4.1 (no warm-up there).
    """
    warmup_steps = settings.warmup_epochs * steps_per_epoch
    if step < warmup_steps:
        return settings.lr * (step + 1) / warmup_steps
    epoch = step // steps_per_epoch
    return settings.lr * 0.5 * (1 + math.cos(math.pi * epoch / settings.epochs))


def at_step(
    objective: SupervisedObjective | FixMatchObjective,
    step: int,
    steps_per_epoch: int,
    settings: TrainSettings,
) -> SupervisedObjective | FixMatchObjective:
    """Return the objective with the unlabelled weight of a step (linear ramp-up)."""
    rampup_steps = settings.unlabeled_rampup_epochs * steps_per_epoch
    if step >= rampup_steps or isinstance(objective, SupervisedObjective):
        return objective
    return replace(objective, unlabeled_weight=objective.unlabeled_weight * step / rampup_steps)


def num_micro_batches(settings: TrainSettings, size: int) -> int:
    """Return into how many micro-batches each process cuts its share of a step.

    Raises:
        ValueError: If a global batch cannot be shared equally.
    """
    batches = {"labeled_batch": settings.labeled_batch}
    if settings.is_semi_supervised:
        batches["unlabeled_batch"] = settings.unlabeled_batch
    for name, batch in batches.items():
        if batch % size:
            raise ValueError(f"{name}: {batch} clips cannot be shared equally by {size} processes")
    largest = max(batches.values()) // size
    bound = settings.micro_batch or largest
    for count in range(1, largest + 1):
        if all(batch % (size * count) == 0 for batch in batches.values()):
            if max(batches.values()) // (size * count) <= bound:
                return count
    raise ValueError(
        f"micro_batch: no equal parts of {batches} over {size} processes have at most {bound} clips"
    )


def val_protocol(settings: TrainSettings) -> Protocol:
    """Return the protocol of validation: one centre clip, one centre crop."""
    return Protocol(
        1, 1, settings.crop_size, settings.short_side, settings.clip_len, settings.frame_interval
    )


def test_protocol(settings: TrainSettings) -> Protocol:
    """Return the protocol of the final test (`test_*`)."""
    return Protocol(
        settings.test_num_clips,
        settings.test_num_crops,
        settings.test_crop_size,
        settings.short_side,
        settings.clip_len,
        settings.frame_interval,
        settings.test_fusion,
    )


class Meter:
    """Adds up the statistics of steps; means over all micro-batches and processes are exact."""

    def __init__(self):
        self._sums: dict[str, Tensor] = {}

    def update(self, stats: dict[str, tuple[Tensor, Tensor]]) -> None:
        """Add (sum, count) per name."""
        for name, pair in stats.items():
            value = torch.stack([part.float() for part in pair])
            self._sums[name] = self._sums[name] + value if name in self._sums else value

    def means(self, world: World) -> dict[str, float | None]:
        """Return sum / count per name over all processes; None where nothing was counted."""
        if not self._sums:
            return {}
        table = world.sum_(torch.stack(list(self._sums.values()))).cpu().tolist()
        return {
            name: total / count if count else None
            for name, (total, count) in zip(self._sums, table, strict=True)
        }


class Trainer:
    """One process of a run.

    Args:
        settings: The run.
        world: The processes.
    """

    def __init__(self, settings: TrainSettings, world: World):
        self.settings, self.world = settings, world
        self.run = Run(settings.run_dir)
        self.data = load_data(settings)
        self.objective = make_objective(settings)
        self.clips = make_clips(settings, self.data)
        self.num_classes = len(self.data.labeled.classes)
        batch = settings.labeled_batch if self.data.unlabeled is None else settings.unlabeled_batch
        self.steps_per_epoch = max(1, len(self.data.epoch_rows) // batch)
        self.num_micro = num_micro_batches(settings, world.size)

        self.normalize = run_normalize(settings).to(world.device)
        torch.manual_seed(settings.seed)
        self.model = build_run_model(settings, self.num_classes).to(world.device)
        self.parallel = self._wrap(self.model)
        self.optimizer = torch.optim.SGD(
            self.model.parameters(),
            lr=settings.lr,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
        )
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=settings.precision == "fp16")
        self.val_reader = FrameReader(settings.cache_mb)
        self.step = 0
        self.best_top1 = -1.0
        self.seconds = 0.0

    def _wrap(self, model: nn.Module) -> nn.Module:
        if self.world.size == 1:
            return model
        if self.world.device.type == "cuda":
            self.model = model = sync_batch_norm(model)
            return DistributedDataParallel(
                model, device_ids=[self.world.device.index], forward_sync_buffers=False
            )
        return DistributedDataParallel(model, forward_sync_buffers=False)

    def fit(self) -> None:
        """Train to the last epoch, from the last checkpoint if there is one."""
        self._resume()
        last_step = self.settings.epochs * self.steps_per_epoch
        batches = self._batches(self.step, last_step)
        started, samples = time.perf_counter(), 0
        meter = Meter()
        while self.step < last_step:
            epoch = self.step // self.steps_per_epoch + 1
            with hold_interrupt() as is_interrupted:
                samples += self._train_step(batches, meter)
            if is_interrupted():  # only in a run without spawned processes
                self._save(self.run.last_path)
                raise KeyboardInterrupt
            stop = self._is_asked_to_stop()
            if self.step % self.steps_per_epoch == 0:
                elapsed = time.perf_counter() - started
                self.seconds += elapsed
                self._end_epoch(epoch, meter, samples / elapsed)
                started, samples, meter = time.perf_counter(), 0, Meter()
            if stop:
                self._save(self.run.last_path)
                return

    def _train_step(self, batches: Iterator, meter: Meter) -> int:
        """Make one optimiser step and return the clips it used, over all processes."""
        settings, device = self.settings, self.world.device
        lr = learning_rate(self.step, self.steps_per_epoch, settings)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.parallel.train()
        self.optimizer.zero_grad(set_to_none=True)
        torch.manual_seed(  # dropout, the only reader of the global generator
            make_generator(settings.seed, DROPOUT, self.step, self.world.rank).initial_seed()
        )
        objective = at_step(self.objective, self.step, self.steps_per_epoch, settings)
        samples = 0
        for micro in range(self.num_micro):
            labeled, unlabeled = (
                None if batch is None else to_tensors(batch, self.normalize, self.num_classes)
                for batch in next(batches)
            )
            part = self.world.rank * self.num_micro + micro
            generator = make_generator(settings.seed, MIXING, self.step, part)
            is_last = micro == self.num_micro - 1
            if isinstance(self.parallel, DistributedDataParallel):
                self.parallel.require_backward_grad_sync = is_last
            with torch.autocast(
                device.type, _AUTOCAST[settings.precision], settings.precision != "fp32"
            ):
                loss, stats = objective(self.parallel, labeled, unlabeled, generator)
            self.scaler.scale(loss / self.num_micro).backward()
            meter.update(stats)
            samples += len(labeled.targets) + (0 if unlabeled is None else len(unlabeled.targets))
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), settings.grad_clip)
        meter.update({"grad_norm": (norm, torch.ones_like(norm))})
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.step += 1
        return samples * self.world.size

    def _batches(
        self, start_step: int, stop_step: int
    ) -> Iterator[tuple[ClipBatch, ClipBatch | None]]:
        """Yield the pairs of labelled and unlabelled micro-batches of this process."""
        settings = self.settings
        labeled = self._loader(
            self.clips[0],
            self.data.labeled_rows,
            settings.labeled_batch,
            LABELED,
            start_step,
            stop_step,
        )
        if self.clips[1] is None:
            return zip(labeled, repeat(None), strict=False)
        unlabeled = self._loader(
            self.clips[1],
            self.data.unlabeled_rows,
            settings.unlabeled_batch,
            UNLABELED,
            start_step,
            stop_step,
        )
        return zip(labeled, unlabeled, strict=True)

    def _loader(
        self, clips: ClipDataset, rows: np.ndarray, batch: int, stream: int, start: int, stop: int
    ) -> Iterator[ClipBatch]:
        sampler = StreamSampler(
            rows,
            batch,
            (self.settings.seed, ORDER, stream),
            start,
            stop,
            self.world.rank,
            self.world.size * self.num_micro,
            self.num_micro,
        )
        return iter(make_loader(clips, sampler, self.settings.num_workers))

    def _end_epoch(self, epoch: int, meter: Meter, samples_per_s: float) -> None:
        """Log the epoch; every `val_interval` epochs and after the last, validate and save."""
        settings = self.settings
        entry = {
            "epoch": epoch,
            "step": self.step,
            "seconds": round(self.seconds, 3),
            "lr": learning_rate(self.step - 1, self.steps_per_epoch, settings),
            **meter.means(self.world),
            "samples_per_s": round(samples_per_s, 1),
        }
        is_validated = epoch % settings.val_interval == 0 or epoch == settings.epochs
        if is_validated:
            entry |= self.validate()
        if self.world.rank == 0:
            self.run.append_log(entry)
        if is_validated:
            if entry["eval/top1_video"] > self.best_top1:
                self.best_top1 = entry["eval/top1_video"]
                self._save(self.run.best_path)
            self._save(self.run.last_path)

    def validate(self) -> dict[str, float]:
        """Return the validation metrics, computed with one set of batch norm buffers."""
        average_buffers(self.model, self.world)
        dataset, rows = self.data.labeled, self.data.val_rows
        scores = score_videos(
            self.model,
            self.normalize,
            dataset,
            rows,
            val_protocol(self.settings),
            self.world,
            batch_videos=max(1, self.settings.labeled_batch // self.world.size),
            num_workers=self.settings.num_workers,
            reader=self.val_reader,
        )
        labels = dataset.index["label"].to_numpy()[rows]
        return {f"eval/{name}_video": v for name, v in metrics(scores, labels).items()}

    def _is_asked_to_stop(self) -> bool:
        if self.step % STOP_CHECK_STEPS and self.step % self.steps_per_epoch:
            return False
        return self.world.agree(self.run.stop_path.exists())

    def _save(self, path: object) -> None:
        if self.world.rank:
            return
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "step": self.step,
            "best_top1": self.best_top1,
            "seconds": self.seconds,
            "classes": list(self.data.labeled.classes),
        }
        self.run.save(path, state)

    def _resume(self) -> None:
        if not self.run.last_path.exists():
            return
        state = self.run.load(self.run.last_path)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.step, self.best_top1 = state["step"], state["best_top1"]
        self.seconds = state["seconds"]
        if self.world.rank == 0:
            self.run.truncate_log(self.step)


_AUTOCAST = {"fp32": torch.bfloat16, "bf16": torch.bfloat16, "fp16": torch.float16}


def build_run_model(settings: TrainSettings, num_classes: int) -> nn.Module:
    """Return the network of a run, as it is before the first step."""
    model = build_model(
        settings.model,
        num_classes,
        pretrained=settings.pretrained,
        dropout=settings.dropout,
        teacher_classes=1000 if settings.distillation_weight else 0,
    )
    if settings.weights is not None:
        load_reference_weights(model, project_path(settings.weights))
    return model


def sync_batch_norm(model: nn.Module) -> nn.Module:
    """Synchronise batch norm over GPUs, except inside a (2+1)D pair, as in the reference."""
    pairs = [module for module in model.modules() if isinstance(module, Conv2Plus1d)]
    inner = [pair.norm for pair in pairs]
    model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for pair, norm in zip(pairs, inner, strict=True):
        pair.norm = norm
    return model


@torch.no_grad()
def average_buffers(model: nn.Module, world: World) -> None:
    """Replace the running statistics of batch norm by their mean over the processes."""
    if world.size == 1:
        return
    for buffer in model.buffers():
        if buffer.is_floating_point():
            world.sum_(buffer).div_(world.size)


@contextmanager
def hold_interrupt() -> Iterator[Callable[[], bool]]:
    """Hold back Ctrl-C until the end of the body: half a step could not be continued.

    A second Ctrl-C is not held back.

    Yields:
        Whether there was one.
    """
    caught = []

    def catch(number: int, frame: object) -> None:
        if caught:
            raise KeyboardInterrupt
        caught.append(number)

    before = signal.getsignal(signal.SIGINT)
    is_main = threading.current_thread() is threading.main_thread()
    if before is signal.SIG_IGN or not is_main:  # a spawned process; a thread that gets none
        yield lambda: False
        return
    signal.signal(signal.SIGINT, catch)
    try:
        yield lambda: bool(caught)
    finally:
        signal.signal(signal.SIGINT, before)


def train_worker(world: World, settings: TrainSettings) -> None:
    """Train one run; what every process of it runs."""
    Trainer(settings, world).fit()


def fit(settings: TrainSettings) -> Run:
    """Train a run, or continue it, showing a line per validated epoch.

    Everything is checked before the processes start. A finished run is left as it is, and says so.

    Args:
        settings: The run.

    Returns:
        The run, with `last.pt`, `best.pt` and its log.

    Raises:
        ValueError: If data, lists, boxes, batches or the folder do not fit the settings.
        KeyboardInterrupt: After a checkpoint was saved; the same call continues.
    """
    device = resolve_device(settings.device)
    num_processes = resolve_num_processes(settings.num_processes, device)
    num_micro_batches(settings, num_processes)
    if settings.precision != "fp32" and device == "cpu":  # PyTorch's bf16 there can crash
        raise ValueError(f"precision: {settings.precision!r} needs a GPU; use 'fp32'")
    data = load_data(settings)
    make_clips(settings, data)
    for crop_size in (settings.crop_size, settings.test_crop_size):
        check_input(settings.model, settings.clip_len, crop_size)
    build_run_model(settings, len(data.labeled.classes))  # names wrong weights now, not later
    run = Run(settings.run_dir)
    has_lock = not is_in_torchrun() or os.environ["RANK"] == "0"
    with exclusive(run.folder / ".train.lock", LOCK_WAIT_S) if has_lock else nullcontext():
        run.open(settings)
        if run.is_finished():
            print(f"{run.folder} is finished ({settings.epochs} epochs): nothing is trained")
            return run
        if run.last_path.exists():
            print(f"continuing {run.folder} from its last checkpoint")
        launch(
            train_worker,
            (settings,),
            num_processes,
            device,
            run.folder / ".rendezvous",
            LogFollower(run, settings.epochs).show,
            lambda: run.stop_path.touch(),
        )
    return run


class LogFollower:
    """Prints a line for each validated epoch of a run as its log grows.

    Args:
        run: The run.
        epochs: Its number of epochs.
    """

    def __init__(self, run: Run, epochs: int):
        self.run, self.epochs = run, epochs
        self.shown = len(run.log_entries())
        self.started = time.perf_counter()
        self.first_epoch = run.log_entries()[-1]["epoch"] if self.shown else 0

    def show(self) -> None:
        """Print what is new."""
        entries = self.run.log_entries()
        for entry in entries[self.shown :]:
            if "eval/top1_video" in entry:
                print(self._line(entry), flush=True)
        self.shown = len(entries)

    def _line(self, entry: dict) -> str:
        elapsed = time.perf_counter() - self.started
        left = elapsed / max(1, entry["epoch"] - self.first_epoch) * (self.epochs - entry["epoch"])
        parts = [f"epoch {entry['epoch']}/{self.epochs}", f"loss {entry['loss/total']:.3f}"]
        if "ssl/mask_rate" in entry:
            parts.append(f"confident {100 * entry['ssl/mask_rate']:.0f} %")
            accuracy = entry["ssl/pseudo_label_accuracy"]
            parts.append("right -" if accuracy is None else f"right {100 * accuracy:.0f} %")
        parts.append(f"val top-1 {entry['eval/top1_video']:.1f} %")
        parts.append(f"{entry['samples_per_s']:.0f} clips/s")
        parts.append(f"{int(left // 60)}:{int(left % 60):02d} left")
        return " | ".join(parts)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train the run of some YAML files, alone or as one process of torchrun; the exit status."""
    parser = argparse.ArgumentParser(prog="lib.learn.training", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("files", nargs="+", type=Path, help="recipe and run; later ones win")
    files = parser.parse_args(arguments).files
    try:
        settings = read_settings(files)
        run = Run(settings.run_dir)
        if is_in_torchrun():
            _check_prepared(settings)
            for number in (signal.SIGTERM, signal.SIGINT):  # torchrun's way to say stop
                signal.signal(number, lambda *_: run.stop_path.touch())
        fit(settings)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    if is_in_torchrun() and os.environ["RANK"] != "0":  # rank 0 saves, perhaps a moment later
        return 0
    return 0 if run.is_finished() else 1


def read_settings(files: Sequence[Path]) -> TrainSettings:
    """Return the settings of YAML files laid over each other and over notebook 3's defaults.

    Raises:
        ValueError: If a file or a value cannot be used.
    """
    values = notebook_defaults(PROJECT_ROOT / "notebooks" / "3_train.ipynb")
    for path in files:
        values |= read_yaml(path)
    return make_settings(TrainSettings, values, ", ".join(map(str, files)))


def _check_prepared(settings: TrainSettings) -> None:
    """Raise ValueError if a data set is not prepared: its processes must not all do that."""
    wanted = [(settings.dataset, settings.data_root)]
    if settings.is_semi_supervised and settings.unlabeled_dataset is not None:
        wanted.append((settings.unlabeled_dataset, settings.unlabeled_data_root))
    for name, root in wanted:
        if not (dataset_folder(name, root, settings.data_dir) / "dataset.json").is_file():
            raise ValueError(
                f"dataset: {name!r} is not prepared in {settings.data_dir}; first run "
                f"python -m lib.data.prepare --dataset {name}"
            )


if __name__ == "__main__":
    from lib.learn import training  # the module that spawned processes import, not `__main__`

    sys.exit(training.main())
