"""What a checkpoint holds, so that a run goes on as if it had never stopped."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from lib.train.trainer import Trainer


def own_state(trainer: "Trainer") -> dict[str, Any]:
    """Return what a process has of its own: buffers, the objective's state, sums for the log."""
    return {
        "buffers": {name: value.cpu() for name, value in trainer.model.named_buffers()},
        "objective": trainer.objective.state_dict(),
        "meter": trainer.meter.state_dict(),
    }


def begin_step(trainer: "Trainer") -> Callable[[], None]:
    """Return what undoes the step that begins: its buffers, objective's state, sums for the log."""
    buffers = [buffer.clone() for buffer in trainer.model.buffers()]
    kept = {name: value.clone() for name, value in trainer.objective.state.items()}
    sums = dict(trainer.meter.sums)

    @torch.no_grad()
    def undo() -> None:
        for buffer, value in zip(trainer.model.buffers(), buffers, strict=True):
            buffer.copy_(value)
        trainer.objective.state.clear()
        trainer.objective.state.update(kept)
        trainer.meter.sums = dict(sums)

    return undo


def state(trainer: "Trainer", ranks: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what is saved.

    Args:
        trainer: The process of rank 0.
        ranks: What each process has of its own.
    """
    return {
        "settings": trainer.settings.model_dump(),
        "data": trainer.data.digest,
        "classes": list(trainer.data.labeled.classes),
        "step": trainer.step,
        "epoch": trainer.epoch,
        "best_top1": trainer.best_top1,
        "seconds": trainer.seconds,
        "model": trainer.model.state_dict(),
        "average": trainer.average.state_dict(),
        "optimizer": trainer.optimizer.state_dict(),
        "scaler": trainer.scaler.state_dict(),
        "ranks": ranks,
    }


def load(trainer: "Trainer", state: dict[str, Any]) -> None:
    """Go on from what was saved; by another number of processes, what they had is shared anew."""
    world = trainer.world
    trainer.model.load_state_dict(state["model"])
    trainer.average.load_state_dict(state.get("average", {}))
    trainer.optimizer.load_state_dict(state["optimizer"])
    trainer.scaler.load_state_dict(state["scaler"])
    trainer.step, trainer.best_top1 = state["step"], state["best_top1"]
    trainer.epoch = state.get("epoch", trainer.step // trainer.steps_per_epoch)
    trainer.seconds, trainer.saved_step = state["seconds"], trainer.step
    # Checkpoints of before have no more than the buffers.
    ranks = state.get("ranks") or [{"buffers": part} for part in state.get("buffers", ())]
    if not ranks:
        return
    own = ranks[world.rank % len(ranks)]
    trainer.objective.load_state_dict(own.get("objective", {}))
    sums = [part["meter"] for part in ranks if "meter" in part]
    if len(ranks) == world.world_size:
        trainer.model.load_state_dict(own["buffers"], strict=False)
        buffers = dict(trainer.model.named_buffers())  # the average has those of the network
        trainer.average.network.load_state_dict(buffers, strict=False)
        sums = sums[world.rank :][:1]
    trainer.meter.load(
        sums, world.device, is_counted=len(ranks) == world.world_size or world.rank == 0
    )


def check_same_step(trainer: "Trainer") -> None:
    """Raise ValueError if the processes go on from different steps: they would wait for ever."""
    steps = trainer.world.all_gather(trainer.step)
    if len(set(steps)) > 1:
        raise ValueError(
            f"{trainer.run.folder}: processes 0 to {len(steps) - 1} find checkpoints of steps "
            f"{steps}; put run_dir on a disk that all machines share"
        )


def save_before_the_error(trainer: "Trainer") -> None:
    """Save what was before the failed step, of one process: what others had is not to be got."""
    for _ in range(3):  # loaders that die raise errors as the system reports them, here too
        try:
            if (
                trainer.world.world_size > 1
                or not trainer.is_sound
                or trainer.saved_step == trainer.step
            ):
                return
            if trainer.undo is not None:
                trainer.undo()
            saved = state(trainer, [own_state(trainer)])
            return trainer.run.save(saved)
        except Exception as error:  # the first error is the one to show
            problem = error
    print(f"no checkpoint could be saved after the error below: {problem}")
