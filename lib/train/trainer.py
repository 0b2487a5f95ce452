"""The one training loop: steps, epochs, validation, checkpoints."""

import functools
import time
from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lib.config import TrainSettings
from lib.data.clip_dataset import ClipBatch, make_generator
from lib.data.dataset import VideoDataset
from lib.data.video_reader import FrameReader
from lib.runs.device import autocast, set_kernels
from lib.runs.distributed import DistContext
from lib.runs.progress import EventWriter, ProgressFile
from lib.runs.run_dir import RunDir
from lib.train import resume, setup
from lib.train.batch_norm import average_buffers, for_processes
from lib.train.ema import Average
from lib.train.linear_probe import fit_head
from lib.train.meter import Meter, peak_memory_mb
from lib.train.non_finite import MicroStep, are_finite, describe
from lib.train.objectives import Objective
from lib.train.schedule import at_step, count_steps, learning_rate, num_micro_batches
from lib.train.scoring import metrics, score_videos
from lib.train.streams import paired_batches

STOP_CHECK_STEPS = 20
MAX_UNSAVED_S = 60  # when a validation begins, in which nothing is saved
MIN_SCALE = 1.0  # of fp16's gradient scaler, which begins at 65,536 and halves
ALONE = DistContext(0, 1, torch.device("cpu"))  # means over one process's own steps


class Trainer:
    """One process of a run.

    Args:
        settings: The run.
        world: The processes.
    """

    def __init__(self, settings: TrainSettings, world: DistContext):
        self.settings, self.world = settings, world
        set_kernels(settings.cudnn_benchmark, settings.tf32)
        self.run = RunDir(settings.run_dir)
        self.data = setup.load_data(settings)
        self.objective = setup.make_objective(settings)
        self.objective.begin(self.data.epoch_rows(settings))
        self.soft = setup.load_soft_targets(settings, self.data)
        self.clips = setup.make_clip_datasets(settings, self.data)
        self.num_classes = len(self.data.labeled.classes)
        self.steps_per_epoch = count_steps(len(self.data.epoch_rows(settings)), settings)
        self.num_micro = num_micro_batches(settings, world.world_size)

        self.normalize = setup.run_normalize(settings).to(world.device)
        torch.manual_seed(settings.seed)
        self.model = setup.build_run_model(settings, self.num_classes).to(world.device)
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
        self.val_reader = FrameReader(self.data.labeled, settings.frame_cache_mb)
        self.events: EventWriter | None = None
        self.step, self.epoch = 0, 0  # steps made, epochs that are in the log
        self.best_top1 = -1.0
        self.seconds = 0.0  # of the epochs in the log
        self.meter = Meter()  # of the epoch that is not there yet
        self.is_sound = True  # whether what would be saved now can be continued exactly
        self.undo: Callable[[], None] | None = None  # of the step that began
        self.saved_step, self.saved_at = 0, time.perf_counter()

    def fit(self) -> None:
        """Train to the last epoch, from the last checkpoint if there is one.

        Raises:
            FloatingPointError: At the first loss or gradient that is no number.
        """
        self._resume()
        if self.settings.tensorboard and self.world.rank == 0:
            self.events = EventWriter(self.run)
        try:
            self._train()
        except FloatingPointError:  # what led to it is no good checkpoint
            raise
        except Exception:
            try:
                resume.save_before_the_error(self)
            except Exception:  # before its own `try`: a loader that died is reported twice
                resume.save_before_the_error(self)
            raise

    def _train(self) -> None:
        last_step = self.settings.epochs * self.steps_per_epoch
        if self.settings.objective == "linear_probe":
            self.step = last_step
            return self._end_epoch()
        where = self.world, self.step, last_step
        batches = paired_batches(self.settings, self.data, self.clips, *where)
        progress = ProgressFile(self.run, self.step, last_step, self.steps_per_epoch)
        if self.step // self.steps_per_epoch > self.epoch:  # it failed at the end of an epoch
            self._end_epoch()
        while self.step < last_step:
            self._train_step(batches)
            if self.world.rank == 0 and progress.is_due():
                lr = self.optimizer.param_groups[0]["lr"]
                rate = self.meter.clips / self.meter.seconds()
                progress.write(self.step, lr, rate, self.meter.means(ALONE))
            if self.step % self.steps_per_epoch == 0:
                self._end_epoch()
            is_to_stop, is_to_save = self._requests()
            if is_to_save and self.saved_step != self.step:
                self._save()
            if is_to_stop:
                return

    def _fit_head(self) -> None:
        """Let the head be a logistic regression on the features of the videos."""
        score = functools.partial(self._score, self.model.backbone)
        stats = fit_head(self.model.head, score, self.data, self.settings, self.world)
        if self.settings.objective == "linear_probe":  # that was its epoch
            self.meter.update(stats)
            self.meter.clips = len(self.data.labeled_rows) + len(self.data.other_rows)

    def _train_step(self, batches: Iterator[tuple[ClipBatch, ClipBatch | None]]) -> None:
        """Make one optimiser step."""
        settings = self.settings
        lr = learning_rate(self.step, self.steps_per_epoch, settings)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.undo = resume.begin_step(self)
        self.parallel.train()
        self.optimizer.zero_grad(set_to_none=True)
        torch.manual_seed(  # dropout, the only reader of the global generator
            make_generator(settings.seed, setup.DROPOUT, self.step, self.world.rank).initial_seed()
        )
        objective = at_step(self.objective, self.step, self.steps_per_epoch, settings)
        pairs = (next(batches) for _ in range(self.num_micro))
        taken = [self._micro_step(pair, micro, objective) for micro, pair in enumerate(pairs)]
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), settings.grad_clip)
        is_made = self._check_finite(norm, taken)
        if not is_made:
            self.undo()
        self.is_sound = False
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.average.update()
        self.step += 1
        for part in (*taken, MicroStep(norm, {"grad_norm": (norm, torch.ones_like(norm))}, ())):
            self.meter.update(part.stats, is_made)
            self.meter.clips += self.world.world_size * sum(map(len, part.rows))
        self.is_sound, self.undo = True, None

    def _micro_step(
        self, batches: tuple[ClipBatch, ClipBatch | None], micro: int, objective: Objective
    ) -> MicroStep:
        """Add the gradient of a micro-batch; at the last of a step the processes share theirs."""
        settings, device = self.settings, self.world.device
        labeled, unlabeled = (
            None
            if batch is None
            else setup.to_device(batch, self.normalize, self.num_classes, soft)
            for batch, soft in zip(batches, (None, self.soft), strict=True)
        )
        part = self.world.rank * self.num_micro + micro
        generator = make_generator(settings.seed, setup.MIXING, self.step, part)
        if isinstance(self.parallel, DistributedDataParallel):
            self.parallel.require_backward_grad_sync = micro == self.num_micro - 1
        with autocast(device, settings.precision):
            labeler = self.average.network if settings.ema_teacher else None
            loss, stats = objective(self.parallel, labeled, unlabeled, generator, labeler)
        self.scaler.scale(loss / self.num_micro).backward()
        rows = tuple([] if batch is None else batch.row.tolist() for batch in batches)
        return MicroStep(loss.detach(), stats, rows)

    def _check_finite(self, norm: Tensor, taken: list[MicroStep]) -> bool:
        """Raise FloatingPointError if a loss or the gradient is no number.

        In fp16 the scaler leaves out steps with such a gradient (returns False), until it cannot go
        lower.
        """
        whose = are_finite(norm, taken)
        if all(whose):
            return True
        if self.scaler.is_enabled() and not whose[0] and self.scaler.get_scale() >= MIN_SCALE:
            return False
        problem = describe(*whose, taken, (self.data.labeled, self.data.unlabeled), self.world)
        saved = self.run.saved_progress()
        kept = f"the last good checkpoint is kept (step {saved.step})" if saved else ""
        raise FloatingPointError(
            f"step {self.step + 1}: {problem}; {kept or 'there is no checkpoint yet'}; "
            "a lower lr or a warm-up may help, and bf16 in place of fp16"
        )

    def _end_epoch(self) -> None:
        """Log the epoch; every `val_every_epochs` epochs and at each end, validate and save."""
        settings, epoch = self.settings, self.epoch + 1
        seconds = self.seconds + self.meter.seconds()
        entry = {
            "epoch": epoch,
            "step": self.step,
            "seconds": round(seconds, 3),
            "lr": learning_rate(self.step - 1, self.steps_per_epoch, settings),
            **self.meter.means(self.world),
            "samples_per_s": round(self.meter.clips / self.meter.seconds(), 1),
            "memory_mb": max(self.world.all_gather(peak_memory_mb(self.world.device))),
        }
        is_end = epoch in (*settings.lr_restart_epochs, settings.epochs)
        is_validated = is_end or epoch % settings.val_every_epochs == 0
        if is_validated:
            if self.world.broadcast(time.perf_counter() - self.saved_at > MAX_UNSAVED_S):
                self._save()
            entry |= self.validate()
        self.is_sound = False
        if self.world.rank == 0:
            self.run.append_log(entry)
            if self.events is not None:
                self.events.add(entry)
        self.epoch, self.seconds, self.meter = epoch, seconds, Meter()
        if is_validated:
            if entry["eval/top1_video"] > self.best_top1:
                self.best_top1 = entry["eval/top1_video"]
                self._save("best")
            self._save()
        self.is_sound = True

    def validate(self) -> dict[str, float]:
        """Return the validation metrics, computed with one set of batch norm buffers."""
        for network in {self.model, self.average.network}:
            average_buffers(network, self.world)
        dataset, rows = self.data.labeled, self.data.val_rows
        batch = self.settings.labeled_batch // (self.world.world_size * self.num_micro)
        how = {"precision": self.settings.precision, "reader": self.val_reader}
        network = self.average.network
        scores = self._score(network, dataset, rows, batch_clips=batch, **how)
        labels = dataset.index["label"].to_numpy()[rows]
        return {f"eval/{name}_video": v for name, v in metrics(scores, labels).items()}

    def _score(
        self, network: nn.Module, dataset: VideoDataset, rows: np.ndarray, **how: object
    ) -> np.ndarray:
        """Return what a network gives for videos, one view each; the processes share them."""
        return score_videos(
            network,
            self.normalize,
            dataset,
            rows,
            setup.val_protocol(self.settings),
            self.world,
            num_workers=self.settings.num_workers,
            **how,
        )

    def _requests(self) -> tuple[bool, bool]:
        """Return whether to stop, and whether to save: rank 0 decides, every few steps."""
        is_due = self.world.world_size == 1 or self.step % STOP_CHECK_STEPS == 0
        if not is_due and self.step % self.steps_per_epoch:
            return False, False
        self.run.check_exists()
        is_to_stop = self.run.is_asked_to_stop()
        wait_s = 60 * self.settings.checkpoint_every_minutes
        is_old = wait_s > 0 and time.perf_counter() - self.saved_at > wait_s
        return self.world.broadcast((is_to_stop, is_old or is_to_stop))

    def _save(self, which: Literal["last", "best"] = "last") -> None:
        ranks = self.world.all_gather(resume.own_state(self))
        if self.world.rank == 0:
            self.run.save(resume.state(self, ranks), which)
        if which == "last":
            self.saved_step, self.saved_at = self.step, time.perf_counter()

    def _resume(self) -> None:
        """Go on from the last checkpoint; without one what is logged is made again."""
        if self.run.saved_progress():
            resume.load(self, self.run.load())
        else:
            if "linear_probe" in (self.settings.head_init, self.settings.objective):
                self._fit_head()
            self.average.update()
        resume.check_same_step(self)
        if self.world.rank == 0:
            self.run.truncate_log(self.epoch)
