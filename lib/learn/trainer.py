"""The one training loop: steps, epochs, validation, checkpoints."""

import time
from collections.abc import Iterator, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lib.clips import ClipBatch, ClipDataset, StreamSampler, make_generator, make_loader
from lib.config import TrainSettings
from lib.data.video import FrameReader
from lib.learn.averaging import Average
from lib.learn.batch_norm import average_buffers, for_processes
from lib.learn.meter import Meter, peak_memory_mb
from lib.learn.probe import fit_head
from lib.learn.schedule import at_step, count_steps, learning_rate, num_micro_batches
from lib.learn.scoring import metrics, score_videos
from lib.learn.setup import (
    DROPOUT,
    LABELED,
    MIXING,
    ORDER,
    UNLABELED,
    build_run_model,
    load_data,
    load_soft_targets,
    make_clips,
    make_objective,
    run_normalize,
    to_tensors,
    val_protocol,
)
from lib.run.folder import Run
from lib.run.processes import World
from lib.run.progress import ProgressFile
from lib.run.tracking import EventWriter

STOP_CHECK_STEPS = 20
ALONE = World(0, 1, torch.device("cpu"))  # means over one process's own steps


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
        self.objective.begin(self.data.epoch_rows)
        self.soft = load_soft_targets(settings, self.data)
        self.clips = make_clips(settings, self.data)
        self.num_classes = len(self.data.labeled.classes)
        self.steps_per_epoch = count_steps(len(self.data.epoch_rows), settings)
        self.num_micro = num_micro_batches(settings, world.size)

        self.normalize = run_normalize(settings).to(world.device)
        torch.manual_seed(settings.seed)
        self.model = build_run_model(settings, self.num_classes).to(world.device)
        self.model, self.parallel = for_processes(self.model, world)
        self.average = Average(self.model, settings.ema_decay)
        self.optimizer = torch.optim.SGD(
            self.model.parameters(),
            lr=settings.lr,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=settings.precision == "fp16")
        self.val_reader = FrameReader(self.data.labeled, settings.cache_mb)
        self.step, self.best_top1, self.seconds = 0, -1.0, 0.0
        self.events: EventWriter | None = None

    def fit(self) -> None:
        """Train to the last epoch, from the last checkpoint if there is one."""
        self._resume()
        if self.settings.tensorboard and self.world.rank == 0:
            self.events = EventWriter(self.run)
        last_step = self.settings.epochs * self.steps_per_epoch
        if self.settings.objective == "probe":
            return self._fit_probe(last_step)
        batches = self._batches(self.step, last_step)
        started, samples, meter = time.perf_counter(), 0, Meter()
        progress = ProgressFile(self.run, self.step, last_step, self.steps_per_epoch)
        while self.step < last_step:
            epoch = self.step // self.steps_per_epoch + 1
            samples += self._train_step(batches, meter)
            if self.world.rank == 0 and progress.is_due():
                rate = samples / (time.perf_counter() - started)
                progress.write(self.step, self._lr(), rate, meter.means(ALONE))
            stop = self._is_asked_to_stop()
            if self.step % self.steps_per_epoch == 0:
                elapsed = time.perf_counter() - started
                self.seconds += elapsed
                self._end_epoch(epoch, meter, samples / elapsed)
                started, samples, meter = time.perf_counter(), 0, Meter()
            if stop:  # within an epoch, processes have their own buffers
                buffers = {name: value.cpu() for name, value in self.model.named_buffers()}
                self._save(self.run.last_path, self.world.gather(buffers))
                return

    def _fit_probe(self, last_step: int) -> None:
        started, meter = time.perf_counter(), Meter()
        meter.update(self._fit_head())
        self.step, self.seconds = last_step, time.perf_counter() - started
        self._end_epoch(1, meter, len(self.data.labeled_rows) / self.seconds)

    def _fit_head(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Let the head be a logistic regression on the labelled videos' features."""
        videos = self.data.labeled, self.data.labeled_rows
        how = val_protocol(self.settings), self.world, self.settings.probe_l2
        return fit_head(self.model, self.normalize, *videos, *how)

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
                None if batch is None else to_tensors(batch, self.normalize, self.num_classes, soft)
                for batch, soft in zip(next(batches), (None, self.soft), strict=True)
            )
            part = self.world.rank * self.num_micro + micro
            generator = make_generator(settings.seed, MIXING, self.step, part)
            is_last = micro == self.num_micro - 1
            if isinstance(self.parallel, DistributedDataParallel):
                self.parallel.require_backward_grad_sync = is_last
            with torch.autocast(
                device.type, _AUTOCAST[settings.precision], settings.precision != "fp32"
            ):
                labeler = self.average.network if settings.average_labels else None
                loss, stats = objective(self.parallel, labeled, unlabeled, generator, labeler)
            self.scaler.scale(loss / self.num_micro).backward()
            meter.update(stats)
            samples += len(labeled.targets) + (0 if unlabeled is None else len(unlabeled.targets))
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), settings.grad_clip)
        meter.update({"grad_norm": (norm, torch.ones_like(norm))})
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.average.update()
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
            "lr": self._lr(),
            **meter.means(self.world),
            "samples_per_s": round(samples_per_s, 1),
            "memory_mb": max(self.world.gather(peak_memory_mb(self.world.device))),
        }
        is_validated = epoch % settings.val_interval == 0 or epoch == settings.epochs
        if is_validated:
            entry |= self.validate()
        if self.world.rank == 0:
            self.run.append_log(entry)
            if self.events is not None:
                self.events.add(entry)
        if is_validated:
            if entry["eval/top1_video"] > self.best_top1:
                self.best_top1 = entry["eval/top1_video"]
                self._save(self.run.best_path)
            self._save(self.run.last_path)

    def _lr(self) -> float:
        """Return the learning rate of the last step."""
        return learning_rate(self.step - 1, self.steps_per_epoch, self.settings)

    def validate(self) -> dict[str, float]:
        """Return the validation metrics, computed with one set of batch norm buffers."""
        for network in {self.model, self.average.network}:
            average_buffers(network, self.world)
        dataset, rows = self.data.labeled, self.data.val_rows
        scores = score_videos(
            self.average.network,
            self.normalize,
            dataset,
            rows,
            val_protocol(self.settings),
            self.world,
            batch_clips=max(1, self.settings.labeled_batch // self.world.size),
            num_workers=self.settings.num_workers,
            reader=self.val_reader,
        )
        labels = dataset.index["label"].to_numpy()[rows]
        return {f"eval/{name}_video": v for name, v in metrics(scores, labels).items()}

    def _is_asked_to_stop(self) -> bool:
        is_due = self.world.size == 1 or self.step % STOP_CHECK_STEPS == 0
        if not is_due and self.step % self.steps_per_epoch:
            return False
        return self.world.agree(self.run.is_asked_to_stop())

    def _save(self, path: Path, buffers: Sequence[dict[str, Tensor]] = ()) -> None:
        objective_states = self.world.gather(self.objective.state_dict())
        if self.world.rank:
            return
        state = {
            "objective": objective_states,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "buffers": list(buffers),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "step": self.step,
            "epoch": self.step // self.steps_per_epoch,
            "best_top1": self.best_top1,
            "seconds": self.seconds,
            "classes": list(self.data.labeled.classes),
        }
        self.run.save(path, state)

    def _resume(self) -> None:
        """Go on from the last checkpoint; without one what is logged is made again."""
        if self.run.last_path.exists():
            self._load(self.run.load(self.run.last_path))
        else:
            if self.settings.head == "probe":
                self._fit_head()
            self.average.update()
        if self.world.rank == 0:
            self.run.truncate_log(self.step)

    def _load(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        if len(buffers := state.get("buffers", ())) == self.world.size:
            self.model.load_state_dict(buffers[self.world.rank], strict=False)
        states = state.get("objective", [{}])
        self.objective.load_state_dict(states[self.world.rank % len(states)])
        self.average.load_state_dict(state.get("average", {}))
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.step, self.best_top1 = state["step"], state["best_top1"]
        self.seconds = state["seconds"]


_AUTOCAST = {"fp32": torch.bfloat16, "bf16": torch.bfloat16, "fp16": torch.float16}
