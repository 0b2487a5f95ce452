"""The training loop: its state, its steps, validation and checkpoints.

A run continues bit for bit from its newest checkpoint, which may be of any step. After an error the
steps since that checkpoint are trained again: nothing is saved after a step that failed.
"""

import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from lib.config import TrainSettings
from lib.data.clip_dataset import ClipBatch, Stream, make_generator
from lib.runs.device import autocast, set_kernels
from lib.runs.distributed import DistContext
from lib.runs.progress import Meter, ProgressFile, peak_memory_mb
from lib.runs.run_dir import RunDir
from lib.train import run_model
from lib.train.linear_probe import fit_head
from lib.train.objectives import (
    ObjectiveOutput,
    Stats,
    SupervisedObjective,
    make_objective,
    mean_of,
)
from lib.train.run_data import (
    DROPOUT,
    MIXING,
    load_data,
    load_soft_targets,
    make_streams,
    to_device,
)
from lib.train.schedule import count_steps, learning_rate, num_micro_batches, ramp_up
from lib.train.scoring import VideoViews, metrics, score_videos, val_protocol
from lib.train.video_features import VideoFeatures

STOP_CHECK_STEPS = 20
MAX_UNSAVED_S = 60  # at the start of a validation, during which nothing is saved
MIN_SCALE = 1.0  # of fp16's gradient scaler, which starts at 65,536 and halves

Pair = tuple[ClipBatch, ClipBatch | None]  # labeled and unlabeled micro-batch


@dataclass
class TrainState:
    """Everything that training changes, and that a checkpoint holds."""

    model: nn.Module
    ema: AveragedModel | None  # moving average of the model
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler  # of the gradient, for fp16
    objective: SupervisedObjective  # its buffers are its state
    meter: Meter = field(default_factory=Meter)  # for the log entry of the epoch in progress
    step: int = 0  # optimizer steps made
    epoch: int = 0  # epochs that are in the log
    # Validation accuracy that a better checkpoint exceeds, percent: the best one so far, plus two
    # standard errors if that is of the start from a probe.
    best_top1: float = -1.0
    seconds: float = 0.0  # training time of the epochs in the log

    @property
    def eval_model(self) -> nn.Module:
        """Network for validation and test: the EMA if there is one."""
        return self.model if self.ema is None else self.ema.module

    def update_ema(self) -> None:
        """Move the EMA by one step."""
        if self.ema is not None:
            self.ema.update_parameters(self.model)

    def state_dict(self) -> dict[str, Any]:
        """Return the state that all processes share."""
        return {
            "model": self.model.state_dict(),
            "ema": {} if self.ema is None else self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "step": self.step,
            "epoch": self.epoch,
            "best_top1": self.best_top1,
            "seconds": self.seconds,
        }

    def rank_state_dict(self) -> dict[str, Any]:
        """Return the state of this process alone: buffers, objective, sums for the log."""
        return {
            "buffers": {name: value.cpu() for name, value in self.model.named_buffers()},
            "objective": {name: value.cpu() for name, value in self.objective.state_dict().items()},
            "meter": self.meter.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any], world: DistContext) -> None:
        """Restore a `state_dict()` with the `rank_state_dict()` of every process as `ranks`.

        If it is of another number of processes, each takes the objective of one of them, the
        buffers of the first one, and the sums for the log are those of all, held by rank 0.
        """
        self.model.load_state_dict(state["model"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        for name in ("step", "epoch", "best_top1", "seconds"):
            setattr(self, name, state[name])
        ranks = state["ranks"]
        own = ranks[world.rank % len(ranks)]
        self.objective.load_state_dict(own["objective"])
        if len(ranks) == world.world_size:
            for network in (self.model, self.eval_model):
                network.load_state_dict(own["buffers"], strict=False)
            self.meter.load([own["meter"]], world.device)
        else:
            meters = [rank["meter"] for rank in ranks]
            self.meter.load(meters, world.device, is_counted=world.rank == 0)


class Trainer:
    """One process of a run."""

    def __init__(self, settings: TrainSettings, world: DistContext):
        self.settings, self.world = settings, world
        set_kernels(settings.cudnn_benchmark, settings.tf32)
        self.run = RunDir(settings.run_dir)
        self.data = load_data(settings)
        self.labeled, self.unlabeled = make_streams(settings, self.data)
        self.soft_targets = load_soft_targets(settings, self.data)
        self.num_classes = len(self.data.labeled.classes)
        epoch_rows = self.data.epoch_rows
        self.steps_per_epoch = count_steps(len(epoch_rows), settings)
        self.num_micro = num_micro_batches(settings.batches, settings.micro_batch, world.world_size)
        self.normalize = run_model.run_normalize(settings).to(world.device)
        self.val_views = VideoViews(
            self.data.labeled, self.data.val_rows, val_protocol(settings), settings.frame_cache_mb
        )
        self.saved_step, self.saved_at = 0, time.perf_counter()

        torch.manual_seed(settings.seed)
        model = run_model.build_run_model(settings, self.num_classes).to(world.device)
        model, self.ddp_model = run_model.wrap_ddp(model, world)
        self.features = VideoFeatures(settings, model.backbone, self.normalize, world)
        objective = make_objective(settings)
        objective.begin(epoch_rows, self.num_classes)
        self.state = TrainState(
            model=model,
            ema=run_model.make_ema(model, settings.ema_decay) if settings.ema_decay else None,
            optimizer=run_model.make_optimizer(settings, model),
            scaler=torch.amp.GradScaler(world.device.type, enabled=settings.precision == "fp16"),
            objective=objective.to(world.device),
        )

    def fit(self) -> None:
        """Train to the last epoch, from the newest checkpoint if there is one.

        FloatingPointError at the first loss or gradient that is NaN or infinite.
        """
        state = self.state
        if not self._resume():
            is_probe = self.settings.head_init == "linear_probe"
            if is_probe:
                self._fit_head()
            state.update_ema()
            if is_probe:  # which training may make worse
                seconds = round(state.meter.seconds(), 3)
                self._record({"epoch": 0, "step": 0, "seconds": seconds}, is_validated=True)
        last_step = self.settings.epochs * self.steps_per_epoch
        pairs = self.load_pairs(state.step, last_step)
        progress = ProgressFile(self.run, state.step, last_step)
        while state.epoch < self.settings.epochs:
            end_of_epoch = (state.epoch + 1) * self.steps_per_epoch
            if state.step < end_of_epoch:  # else its checkpoint was saved before its validation
                self.train_step(pairs)
                if self.world.rank == 0:
                    progress.update(state.step, state.optimizer.param_groups[-1]["lr"], state.meter)
            if state.step == end_of_epoch:
                self.end_epoch()
            if self._save_if_due():
                return

    def fit_probe(self) -> None:
        """Fit a linear probe, in place of the steps of a run of one epoch."""
        state = self.state
        if not self._resume():
            state.meter.update(self._fit_head())
            state.meter.clips = len(self.data.labeled_rows) + len(self.data.other_rows)
            state.step = self.steps_per_epoch
            state.update_ema()
        if state.epoch < self.settings.epochs:
            self.end_epoch()

    def load_pairs(self, start: int, stop: int) -> Iterator[Pair]:
        """Load the micro-batches of this process for the steps start to stop − 1."""

        def load(stream: Stream) -> Iterator[ClipBatch]:
            part = start, stop, self.world.rank, self.world.world_size, self.num_micro
            on_gpu = self.world.device.type == "cuda"
            return stream.load(*part, num_workers=self.settings.num_workers, pin_memory=on_gpu)

        if self.unlabeled is None:
            return zip(load(self.labeled), repeat(None), strict=False)
        return zip(load(self.labeled), load(self.unlabeled), strict=True)

    def train_step(self, pairs: Iterator[Pair]) -> None:
        """Make one optimizer step on the next `num_micro` micro-batches.

        In fp16 the scaler skips a step whose gradient overflows. As usual in PyTorch, batch norm,
        the objective's buffers and the EMA are updated all the same.
        """
        settings, state = self.settings, self.state
        lr = learning_rate(state.step, self.steps_per_epoch, settings)
        for group in state.optimizer.param_groups:
            group["lr"] = lr * group["lr_scale"]
        rampup_steps = settings.unlabeled_rampup_epochs * self.steps_per_epoch
        weight = ramp_up(settings.unlabeled_weight, state.step, rampup_steps)
        dropout = make_generator(settings.seed, DROPOUT, state.step, self.world.rank)
        torch.manual_seed(dropout.initial_seed())  # only dropout reads the global generator

        self.ddp_model.train()
        state.optimizer.zero_grad(set_to_none=True)
        clips = 0
        losses: list[Tensor] = []
        stats: list[Stats] = []
        for number in range(self.num_micro):
            pair = next(pairs)
            clips += sum(len(batch.row) for batch in pair if batch is not None)
            is_last = number == self.num_micro - 1  # whose backward pass shares the gradients
            is_shared = is_last or self.world.world_size == 1
            with nullcontext() if is_shared else self.ddp_model.no_sync():
                output = self.compute_loss(pair, number, weight)
                state.scaler.scale(output.loss / self.num_micro).backward()
            losses.append(output.loss.detach())
            stats.append({"loss/total": mean_of(output.loss)} | output.stats)
        state.scaler.unscale_(state.optimizer)
        grad_norm = nn.utils.clip_grad_norm_(state.model.parameters(), settings.grad_clip)
        is_finite = self._check_finite(torch.stack(losses), grad_norm)
        state.scaler.step(state.optimizer)
        state.scaler.update()
        state.update_ema()
        state.step += 1
        stats.append({"grad_norm": (grad_norm, torch.ones_like(grad_norm))})
        for entries in stats:
            state.meter.update(entries, is_counted=is_finite)
        state.meter.clips += self.world.world_size * clips

    def compute_loss(self, pair: Pair, number: int, unlabeled_weight: float) -> ObjectiveOutput:
        """Return the loss of the micro-batch `number`, from 0, of this process in a step."""
        labeled, unlabeled = pair
        x_l = to_device(labeled, self.normalize, self.num_classes)
        x_u = None
        if unlabeled is not None:
            x_u = to_device(unlabeled, self.normalize, self.num_classes, self.soft_targets)
        part = self.world.rank * self.num_micro + number
        generator = make_generator(self.settings.seed, MIXING, self.state.step, part)
        teacher = self.state.eval_model if self.settings.ema_teacher else None
        with autocast(self.world.device, self.settings.precision):
            return self.state.objective(
                self.ddp_model, x_l, x_u, generator, teacher, unlabeled_weight
            )

    def _check_finite(self, losses: Tensor, grad_norm: Tensor) -> bool:
        """Return True if losses and gradient are finite, False if fp16's scaler skips the step.

        FloatingPointError for a loss, or a gradient that no scaler can help.
        """
        finite = torch.stack([grad_norm.isfinite(), losses.isfinite().all()])
        is_gradient_finite, is_loss_finite = finite.tolist()
        if is_gradient_finite and is_loss_finite:
            return True
        if not is_gradient_finite:  # in all processes, which share it
            is_loss_finite, scaler = all(self.world.all_gather(is_loss_finite)), self.state.scaler
            if is_loss_finite and scaler.is_enabled() and scaler.get_scale() >= MIN_SCALE:
                return False
        saved = self.run.saved_progress()
        raise FloatingPointError(
            f"step {self.state.step + 1}: the {'gradient' if is_loss_finite else 'loss'} is NaN or "
            f"infinite; the checkpoint of step {saved.step if saved else 0} is kept; try a lower "
            "lr, a warm-up, or bf16 instead of fp16"
        )

    def end_epoch(self) -> None:
        """Log the epoch; every `val_every_epochs` epochs and at each end, validate and save."""
        settings, state, epoch = self.settings, self.state, self.state.epoch + 1
        entry = {
            "epoch": epoch,
            "step": state.step,
            "seconds": round(state.seconds + state.meter.seconds(), 3),
            "lr": learning_rate(state.step - 1, self.steps_per_epoch, settings),
            **state.meter.means(self.world),
            "samples_per_s": round(state.meter.clips / state.meter.seconds(), 1),
            "memory_mb": max(self.world.all_gather(peak_memory_mb(self.world.device))),
        }
        is_end = epoch in (*settings.lr_restart_epochs, settings.epochs)
        self._record(entry, is_end or epoch % settings.val_every_epochs == 0)

    def _record(self, entry: dict[str, Any], is_validated: bool) -> None:
        """Log the epoch of an entry, 0 for a run's start; validate and save if asked for."""
        state = self.state
        if is_validated:
            is_old = time.perf_counter() - self.saved_at > MAX_UNSAVED_S
            if self.world.broadcast(is_old and self.saved_step != state.step):
                self._save()
            entry |= self.validate()
        if self.world.rank == 0:
            self.run.append_log(entry)
        state.epoch, state.seconds, state.meter = entry["epoch"], entry["seconds"], Meter()
        if is_validated:
            top1 = entry["eval/top1_video"]
            if top1 > state.best_top1:
                margin = 2 * (top1 * (100 - top1) / len(self.data.val_rows)) ** 0.5
                state.best_top1 = top1 if state.step else top1 + margin
                self._save("best")
            self._save()

    def validate(self) -> dict[str, float]:
        """Return the validation metrics; those of a probe are of its features."""
        rows = self.data.val_rows
        is_probe = self.settings.objective == "linear_probe" or not self.state.step
        if is_probe:  # the backbone has the weights that it started with
            features = torch.from_numpy(self.features(self.data.labeled, rows))
            with torch.no_grad():
                scores = self.state.model.head(features.to(self.world.device)).cpu().numpy()
        else:
            scores = self._val_scores()
        labels = self.data.labeled.index["label"].to_numpy()[rows]
        return {f"eval/{name}_video": v for name, v in metrics(scores, labels).items()}

    def _val_scores(self) -> np.ndarray:
        """Score the validation videos with batch norm averaged over the processes."""
        run_model.average_batch_norm(self.state.model, self.world)
        if self.state.ema is not None:
            run_model.average_batch_norm(self.state.ema, self.world)
        return score_videos(
            self.state.eval_model,
            self.normalize,
            self.val_views,
            self.world,
            batch_clips=self.settings.labeled_batch // (self.world.world_size * self.num_micro),
            num_workers=self.settings.num_workers,
            precision=self.settings.precision,
        )

    def _fit_head(self) -> Stats:
        """Replace the head by a linear probe on the features of the videos; return its stats."""
        l2, rounds = self.settings.probe_l2, self.settings.self_training_rounds
        return fit_head(self.state.model.head, self.features, self.data, l2, rounds, self.world)

    def _save_if_due(self) -> bool:
        """Save by time and on a stop request; return True on the latter.

        Rank 0 decides for all processes, every few steps and at the end of an epoch.
        """
        state = self.state
        is_checked = self.world.world_size == 1 or state.step % STOP_CHECK_STEPS == 0
        if not is_checked and state.step % self.steps_per_epoch:
            return False
        self.run.check_exists()
        is_to_stop = self.run.stop_path.exists()
        interval_s = 60 * self.settings.checkpoint_every_minutes
        is_old = 0 < interval_s < time.perf_counter() - self.saved_at
        is_to_stop, is_to_save = self.world.broadcast((is_to_stop, is_old or is_to_stop))
        if is_to_save and self.saved_step != state.step:
            self._save()
        return is_to_stop

    def _save(self, which: Literal["last", "best"] = "last") -> None:
        ranks = self.world.all_gather(self.state.rank_state_dict())
        if self.world.rank == 0:
            checkpoint = {
                "settings": self.settings.model_dump(),
                "data": self.data.digest,
                "classes": list(self.data.labeled.classes),
                "ranks": ranks,
            }
            self.run.save(checkpoint | self.state.state_dict(), which)
        if which == "last":
            self.saved_step, self.saved_at = self.state.step, time.perf_counter()

    def _resume(self) -> bool:
        """Restore the newest checkpoint; return False if there is none.

        Entries of the log after it are deleted; those epochs are trained again.
        """
        has_checkpoint = self.run.saved_progress() is not None
        if has_checkpoint:
            self.state.load_state_dict(self.run.load(), self.world)
            self.saved_step = self.state.step
        steps = self.world.all_gather(self.state.step)
        if len(set(steps)) > 1:
            raise ValueError(
                f"{self.run.folder}: processes 0 to {len(steps) - 1} found checkpoints of steps "
                f"{steps}; put run_dir on a disk that all machines share"
            )
        if self.world.rank == 0:
            self.run.truncate_log(self.state.epoch if has_checkpoint else -1)
        return has_checkpoint
