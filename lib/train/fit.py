"""Start of a training run: its checks, its processes, its command line.

Notebook 3 calls `fit`. From a shell, on this machine or on several with a shared disk:

    python -m lib.train.fit params/demo/semi.yaml
    torchrun --nproc-per-node 2 -m lib.train.fit params/paper/ucf101/semi_5percent.yaml

On each of two machines: `torchrun --nnodes 2 --nproc-per-node 4 --rdzv-backend c10d
--rdzv-endpoint <first machine>:29400 -m lib.train.fit run.yaml`.
"""

import argparse
import signal
import sys
import traceback
import warnings
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from importlib.util import find_spec
from pathlib import Path

from lib.config import TrainSettings
from lib.fileio import check_writable, file_lock, write_text
from lib.models.networks import input_spec
from lib.params import read_settings
from lib.runs.device import check_precision, resolve_device
from lib.runs.distributed import (
    DistContext,
    exit_now,
    is_in_torchrun,
    is_rank_0,
    launch,
    resolve_num_processes,
)
from lib.runs.progress import LogPrinter
from lib.runs.run_dir import RunDir
from lib.runs.signals import stop_on_signals
from lib.runs.tracker import tracking
from lib.train import run_model
from lib.train.run_data import load_data, load_soft_targets, make_streams
from lib.train.schedule import num_micro_batches
from lib.train.trainer import Trainer

LOCK_WAIT_S = 15.0  # for the processes of a batch that was killed a moment ago


def fit(settings: TrainSettings) -> RunDir:
    """Train a run, or continue it, and print a line per validated epoch.

    Everything is checked before the processes start. A finished run is left as it is.

    Returns:
        The run, with its checkpoints and its log.

    ValueError if data, splits, boxes, batches or the folder do not fit the settings;
    KeyboardInterrupt after Ctrl-C or SIGTERM, when a checkpoint is saved; the same call continues.
    """
    device, num_processes, data_digest = check(settings)
    run = RunDir(settings.run_dir)
    with file_lock(run.lock_path, LOCK_WAIT_S) if is_rank_0() else nullcontext():
        if is_rank_0():
            run.check_compatible(settings, data_digest)
            run.start(settings, num_processes)
            settings = run.settings()  # names in files of the user are now those of the copies
        step, epoch = run.saved_progress() or (0, 0)
        if epoch >= settings.epochs:
            print(f"{run.folder} is finished ({settings.epochs} epochs): nothing is trained")
            return run
        if step:
            print(f"continuing {run.folder} from its last checkpoint")
        with stop_on_signals(run.ask_to_stop, second_interrupts=not is_in_torchrun()) as signals:
            _launch(settings, run, num_processes, device)
    if signal.SIGINT in signals or (signals and not run.is_finished()):
        print(f"asked to end ({signal.Signals(signals[0]).name}): the same call continues")
        raise KeyboardInterrupt
    return run


def check(settings: TrainSettings) -> tuple[str, int, str]:
    """Check everything that can be checked before processes start.

    Returns device, number of processes and digest of the data; ValueError names the setting that
    does not fit.
    """
    device = resolve_device(settings.device)
    num_processes = resolve_num_processes(settings.num_processes, device)
    num_micro_batches(settings.batches, settings.micro_batch, num_processes)
    check_precision(settings.precision, device)
    if device == "cuda" and not settings.num_workers:
        warnings.warn("num_workers: 0 lets the GPU wait for every clip; use about 4", stacklevel=3)
    name = settings.tracker
    if name != "none" and getattr(find_spec(name), "origin", None) is None:  # not a mere folder
        raise ValueError(f"tracker: {name} is missing; pip install -e '.[{name}]', or set none")
    data = load_data(settings)
    for split_name in settings.test_splits:
        data.labeled.read_labeled_split(split_name)
    make_streams(settings, data)
    load_soft_targets(settings, data)
    for crop_size in (settings.crop_size, settings.test_crop_size):
        input_spec(settings.model).check(settings.model, settings.clip_len, crop_size)
    model = run_model.build_run_model(settings, len(data.labeled.classes))  # checks its weights
    run_model.make_optimizer(settings, model)
    check_writable(RunDir(settings.run_dir).folder, "run_dir", "choose another run_dir")
    return device, num_processes, data.digest


def _launch(settings: TrainSettings, run: RunDir, num_processes: int, device: str) -> None:
    printer = LogPrinter(run, settings.epochs)
    try:
        with tracking(run, settings.tracker if is_rank_0() else "none") as send_log:
            launch(
                train_worker,
                (settings,),
                num_processes,
                device,
                on_poll=lambda: (printer.update(), send_log()),
            )
    except ChildProcessError as error:  # the other processes failed only because of it
        _write_error(run, str(error))
        raise
    finally:
        if not is_in_torchrun():  # a process that was killed has left it
            run.progress_path.unlink(missing_ok=True)


def train_worker(world: DistContext, settings: TrainSettings) -> None:
    """Train one run in each of its processes; the first error is kept in `error.txt`."""
    run = RunDir(settings.run_dir)
    try:
        trainer = Trainer(settings, world)
        if settings.objective == "linear_probe":
            trainer.fit_probe()
        else:
            trainer.fit()
    except Exception:
        if not run.error_path.exists():  # the other processes fail because of the first one
            process = f"process {world.rank} of {world.world_size}"
            _write_error(run, f"{process}\n{traceback.format_exc()}")
        raise
    finally:
        if world.rank == 0:
            run.progress_path.unlink(missing_ok=True)


def _write_error(run: RunDir, text: str) -> None:
    with suppress(OSError):  # a full disk may be the error
        write_text(run.error_path, text + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Train the run of YAML files, alone or as one process of torchrun; return the exit status."""
    parser = argparse.ArgumentParser(prog="lib.train.fit", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "files", nargs="+", type=Path, help="run file, whose recipes apply; a later file overrides"
    )
    try:
        run = fit(read_settings(parser.parse_args(arguments).files))
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    if not is_rank_0():  # which may save a moment later
        return 0
    return 0 if run.is_finished() else 1


if __name__ == "__main__":
    from lib.train.fit import main as imported_main  # spawned processes import `lib.train.fit`

    exit_now(imported_main())
