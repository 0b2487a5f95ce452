"""The one training loop, and what a spawned worker runs.

Notebook 3 calls `fit`. The same run from a shell, here or on several machines with a shared disk:

    python -m lib.learn.training params/demo/recipe.yaml params/demo/semi_seed0.yaml
    torchrun --nproc-per-node 2 -m lib.learn.training recipe.yaml run.yaml

On each of two machines: `torchrun --nnodes 2 --nproc-per-node 4 --rdzv-backend c10d
--rdzv-endpoint <first machine>:29400 -m lib.learn.training recipe.yaml run.yaml`.
"""

import argparse
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from itertools import repeat
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lib.clips import ClipBatch, ClipDataset, StreamSampler, make_generator, make_loader
from lib.config import TrainSettings
from lib.data.video import FrameReader
from lib.files import exclusive, write_text
from lib.learn.batch_norm import average_buffers, sync_batch_norm
from lib.learn.meter import Meter, peak_memory_mb
from lib.learn.models import check_input
from lib.learn.schedule import at_step, count_steps, learning_rate, num_micro_batches
from lib.learn.scoring import metrics, score_videos
from lib.learn.setup import (
    DROPOUT,
    LABELED,
    MIXING,
    ORDER,
    UNLABELED,
    build_run_model,
    check_prepared,
    load_data,
    make_clips,
    make_objective,
    read_settings,
    run_normalize,
    to_tensors,
    val_protocol,
)
from lib.run.folder import Run
from lib.run.processes import (
    World,
    is_in_torchrun,
    launch,
    leave,
    resolve_device,
    resolve_num_processes,
)
from lib.run.progress import LogFollower, ProgressFile
from lib.run.stop import hold_interrupt, stop_on_sigterm
from lib.run.tracking import EventWriter, check_tensorboard

STOP_CHECK_STEPS = 20
ALONE = World(0, 1, torch.device("cpu"))  # means over one process's own steps
LOCK_WAIT_S = 15.0  # for the processes of a batch that was killed a moment ago


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
        self.steps_per_epoch = count_steps(len(self.data.epoch_rows), settings)
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
        self.events: EventWriter | None = None

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
        if self.settings.tensorboard and self.world.rank == 0:
            self.events = EventWriter(self.run)
        last_step = self.settings.epochs * self.steps_per_epoch
        batches = self._batches(self.step, last_step)
        started, samples = time.perf_counter(), 0
        meter = Meter()
        progress = ProgressFile(self.run, self.step, last_step, self.steps_per_epoch)
        while self.step < last_step:
            epoch = self.step // self.steps_per_epoch + 1
            with hold_interrupt() as is_interrupted:
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
            if stop or is_interrupted():  # within an epoch, processes have their own buffers
                buffers = {name: value.cpu() for name, value in self.model.named_buffers()}
                self._save(self.run.last_path, self.world.gather(buffers))
            if is_interrupted():  # only in a run without spawned processes
                raise KeyboardInterrupt
            if stop:
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
        is_due = self.world.size == 1 or self.step % STOP_CHECK_STEPS == 0
        if not is_due and self.step % self.steps_per_epoch:
            return False
        return self.world.agree(self.run.stop_path.exists())

    def _save(self, path: Path, buffers: Sequence[dict[str, Tensor]] = ()) -> None:
        if self.world.rank:
            return
        state = {
            "model": self.model.state_dict(),
            "buffers": list(buffers),
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
        if len(buffers := state.get("buffers", ())) == self.world.size:
            self.model.load_state_dict(buffers[self.world.rank], strict=False)
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.step, self.best_top1 = state["step"], state["best_top1"]
        self.seconds = state["seconds"]
        if self.world.rank == 0:
            self.run.truncate_log(self.step)


_AUTOCAST = {"fp32": torch.bfloat16, "bf16": torch.bfloat16, "fp16": torch.float16}


def train_worker(world: World, settings: TrainSettings) -> None:
    """Train one run; what every process of it runs. The first failure is kept in `error.txt`."""
    run = Run(settings.run_dir)
    try:
        Trainer(settings, world).fit()
    except Exception:
        if not run.error_path.exists():  # the other processes fail too, because of the first
            where = f"process {world.rank} of {world.size}"
            write_text(run.error_path, f"{where}\n{traceback.format_exc()}")
        raise
    finally:
        if world.rank == 0:
            run.progress_path.unlink(missing_ok=True)


def fit(settings: TrainSettings) -> Run:
    """Train a run, or continue it, showing a line per validated epoch.

    Everything is checked before the processes start. A finished run is left as it is, and says so.

    Args:
        settings: The run.

    Returns:
        The run, with `last.pt`, `best.pt` and its log.

    Raises:
        ValueError: If data, lists, boxes, batches or the folder do not fit the settings.
        KeyboardInterrupt: After Ctrl-C or SIGTERM, when a checkpoint was saved; the same call
            continues.
    """
    device = resolve_device(settings.device)
    num_processes = resolve_num_processes(settings.num_processes, device)
    num_micro_batches(settings, num_processes)
    if settings.precision != "fp32" and device == "cpu":  # PyTorch's bf16 there can crash
        raise ValueError(f"precision: {settings.precision!r} needs a GPU; use 'fp32'")
    if settings.tensorboard:
        check_tensorboard()
    data = load_data(settings)
    make_clips(settings, data)
    for crop_size in (settings.crop_size, settings.test_crop_size):
        check_input(settings.model, settings.clip_len, crop_size)
    build_run_model(settings, len(data.labeled.classes))  # names wrong weights now, not later
    run = Run(settings.run_dir)
    has_lock = not is_in_torchrun() or os.environ["RANK"] == "0"
    with exclusive(run.lock_path, LOCK_WAIT_S) if has_lock else nullcontext():
        run.open(settings, num_processes, device)
        if run.is_finished():
            print(f"{run.folder} is finished ({settings.epochs} epochs): nothing is trained")
            return run
        if run.last_path.exists():
            print(f"continuing {run.folder} from its last checkpoint")
        elif has_lock and run.log_path.exists():
            run.truncate_log(0)  # of a run that was killed before its first checkpoint
        with stop_on_sigterm(run.stop_path.touch) as is_terminated:
            launch(
                train_worker,
                (settings,),
                num_processes,
                device,
                run.folder / ".rendezvous",
                LogFollower(run, settings.epochs).show,
                run.stop_path.touch,
            )
        if is_terminated() and not run.is_finished():
            print("asked to end (SIGTERM): a checkpoint is saved, the same call continues")
            raise KeyboardInterrupt
    return run


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
            check_prepared(settings)
            for number in (signal.SIGTERM, signal.SIGINT):  # torchrun's way to say stop
                signal.signal(number, lambda *_: run.stop_path.touch())
        fit(settings)
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    if is_in_torchrun() and os.environ["RANK"] != "0":  # rank 0 saves, perhaps a moment later
        return 0
    return 0 if run.is_finished() else 1


if __name__ == "__main__":
    from lib.learn import training  # the module that spawned processes import, not `__main__`

    leave(training.main())
