"""The jobs of a batch on a Slurm cluster, or by the same way without one, with submitit.

Each run is a job of a Slurm array; it waits for the data, and the reports wait for it. A job that
is preempted or reaches its time limit saves a checkpoint, is queued again, and goes on exactly.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lib.batch.job import POLL_S, Batch, Job, has_results, stop
from lib.batch.plan import COMPLETE, state_of
from lib.config import PROJECT_ROOT
from lib.fileio import write_text
from lib.runs.run_dir import RunDir

LOCKED_WAIT_S = 120.0  # for what is left of a job that was queued again
SIGNAL_DELAY_S = 120  # between SIGTERM and the time limit
MAX_REQUEUES = 1000  # after time limits; preemptions do not count
PORT = 29400
_SIGNAL = "SUBMITIT_PREEMPT_SIGNAL"
os.environ.setdefault(_SIGNAL, "TERM")  # submitit reads it once; the same signal from everywhere


@dataclass(frozen=True)
class Resources:
    """What each run of a batch gets.

    Attributes:
        nodes: Machines.
        gpus: GPUs on each.
        cpus: Cores on each.
        hours: Time limit; a run that needs longer is queued again.
        memory_gb: Memory on each machine; None for the cluster's default.
        partition: None for the cluster's default.
        options: Further options of sbatch, by name.
    """

    nodes: int = 1
    gpus: int = 1
    cpus: int = 8
    hours: float = 24.0
    memory_gb: float | None = None
    partition: str | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        """Raise ValueError for amounts that cannot be."""
        for name, least in (("nodes", 1), ("gpus", 0), ("cpus", 1), ("hours", 1 / 60)):
            if getattr(self, name) < least:
                raise ValueError(f"--{name}: must be at least {least:.2g}")

    def for_sbatch(self) -> dict[str, Any]:
        """Return them as sbatch calls them."""
        values = {
            "partition": self.partition,
            "nodes": self.nodes,
            "ntasks_per_node": 1,  # it starts the others of its machine
            "gpus_per_node": self.gpus or None,
            "cpus_per_task": self.cpus,
            "time": max(1, round(60 * self.hours)),
            "mem": None if self.memory_gb is None else f"{round(1024 * self.memory_gb)}MB",
        }
        return {name: value for name, value in values.items() if value is not None}


def check_executor(executor: str) -> None:
    """Raise ValueError, with the remedy, if jobs cannot be submitted from here."""
    if find_spec("submitit") is None:
        raise ValueError(
            f"--executor {executor} needs the package submitit; pip install -e '.[cluster]'"
        )
    if executor == "slurm" and shutil.which("sbatch") is None:
        raise ValueError(
            "--executor slurm: there is no Slurm on this machine (no program sbatch); call it "
            "where jobs are submitted, or leave --executor out"
        )


# --- What a job does ------------------------------------------------------------------------------


class ClusterJob:
    """A job of a batch as submitit calls it, on every machine that it got.

    Args:
        job: The job.
        slot: Environment variables of its share of the machine.
        settings_file: All settings of its run, for more than one machine.
    """

    def __init__(self, job: Job, slot: dict[str, str], settings_file: Path | None = None):
        self.job, self.slot, self.settings_file = job, slot, settings_file
        self.process: subprocess.Popen | None = None

    def __call__(self) -> str:
        """Do the job and return its title.

        Raises:
            RuntimeError: If it failed; says where its log is.
        """
        import submitit

        here = submitit.JobEnvironment()
        if here.num_tasks > 1 and not RunDir(self.job.folder).is_finished():
            self._train_on_all(here)
        if here.global_rank > 0:
            return self.job.title
        give_up, status = time.monotonic() + LOCKED_WAIT_S, 0
        while not self.job.is_complete():
            status = self._wait(self.job.start(self._environment()))
            if status:
                print(f"{self.job.title}: {self.job.last_line()}", flush=True)
            if not self.job.is_tried_again(status, give_up):
                break
            time.sleep(max(0.0, self.job.not_before - time.monotonic()))
        if status:
            raise RuntimeError(
                f"{self.job.title} failed: {self.job.problem(status)}; see {self.job.log_path}"
            )
        return self.job.title

    def _train_on_all(self, here: Any) -> None:
        """Be one machine's torchrun of a run over several."""
        num_processes = self._num_processes(here.num_nodes)
        print(f"{self.job.title}: {num_processes} processes on this machine", flush=True)
        first = os.environ["SLURM_LAUNCH_NODE_IPADDR"]  # where the batch script runs: task 0
        port = PORT + int(here.raw_job_id) % 1000
        command = [sys.executable, "-m", "torch.distributed.run"]
        command += [f"--nnodes={here.num_nodes}", f"--nproc-per-node={num_processes}"]
        command += [f"--node-rank={here.global_rank}"]
        command += [f"--master-addr={first}", f"--master-port={port}"]
        command += ["-m", "lib.train.fit", str(self.settings_file)]
        environment = os.environ | self._environment(num_processes)
        environment["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] = str(SIGNAL_DELAY_S)  # it kills after 30 s
        process = subprocess.Popen(command, cwd=PROJECT_ROOT, env=environment)
        if status := self._wait(process):
            raise RuntimeError(f"{self.job.title}: torchrun ended with status {status}")

    def _num_processes(self, num_nodes: int) -> int:
        """Return one per GPU that this job may use here, else this machine's share of them."""
        import torch

        settings = self.job.run.settings
        gpus = 0 if settings.device == "cpu" else torch.cuda.device_count()
        return gpus or max(1, settings.num_processes // num_nodes)

    def _environment(self, num_processes: int = 1) -> dict[str, str]:
        cores = os.environ.get("SLURM_CPUS_PER_TASK")
        if cores is None or "OMP_NUM_THREADS" in os.environ:
            return self.slot
        return self.slot | {"OMP_NUM_THREADS": str(max(1, int(cores) // num_processes))}

    def _wait(self, process: subprocess.Popen) -> int:
        self.process = process
        while process.poll() is None:  # `wait` would hold a lock that `checkpoint` needs
            time.sleep(POLL_S)
        return process.returncode

    def checkpoint(self) -> object:
        """Wait for the checkpoint and return what is to be done then; submitit calls it on SIGTERM.

        Slurm sends that signal to all processes of a job.
        """
        from submitit.helpers import DelayedSubmission

        print(f"{self.job.title}: asked to end, saves a checkpoint", flush=True)
        if self.settings_file is not None:
            self._wait(self.process)
        elif self.process is not None:
            stop([self.process])
        return DelayedSubmission(ClusterJob(self.job, self.slot, self.settings_file))


def finish(batch: Batch) -> None:
    """Make the reports of studies with an evaluated run; the last job of a batch.

    Raises:
        RuntimeError: If a run is not complete or a report failed; lists them.
    """
    states = [(run, *state_of(run)) for run in batch.runs]
    wrong = [
        f"{run.name}: {state}{detail and ': '}{detail}; see {run.run_dir / 'batch.log'}"
        for run, state, detail in states
        if state != COMPLETE
    ]
    for job in batch.reports:
        if has_results(job.folder) and job.start({}).wait():
            wrong.append(f"{job.title}: {job.last_line()}; see {job.log_path}")
    if wrong:
        raise RuntimeError("\n  ".join(["not complete:", *wrong]))
    print("all runs are complete")


# --- Handing jobs over ----------------------------------------------------------------------------


def submit_to_slurm(
    batch: Batch, folder: Path, resources: Resources, jobs: int | None = None
) -> list[str]:
    """Submit a batch to Slurm, its stages dependent on each other, and return their job numbers.

    Args:
        batch: The jobs.
        folder: For submitit's files and what jobs print, on a disk that the machines share.
        resources: Of each run. The other jobs get one machine and no GPU.
        jobs: Most runs at the same time; None for as many as Slurm allows.

    Raises:
        ValueError: If Slurm refuses them; says why.
    """
    import submitit

    numbers: list[str] = []
    options = {"requeue": True, **resources.options}
    for stage, calls in _stages(batch, folder, resources.nodes).items():
        share = resources if stage == "run" else replace(resources, nodes=1, gpus=0)
        executor = submitit.SlurmExecutor(folder, max_num_timeout=MAX_REQUEUES)
        executor.update_parameters(
            job_name=stage,
            **share.for_sbatch(),
            array_parallelism=jobs or len(calls),
            signal_delay_s=SIGNAL_DELAY_S,
            setup=[f"export {_SIGNAL}=TERM"],
            srun_args=[f"--cpus-per-task={share.cpus}"],  # not inherited since Slurm 22.05
            additional_parameters=options,
        )
        try:
            with executor.batch():
                submitted = [executor.submit(call) for call in calls]
        except submitit.core.utils.FailedJobError as error:  # with what sbatch said
            for number in numbers:
                subprocess.run(["scancel", number], check=False)
            hint = "; without GPUs use --gpus 0" if "gres" in str(error) else ""
            reason = str(error).strip()
            raise ValueError(
                f"--executor slurm: sbatch refused the jobs{hint}\n{reason}"
            ) from error
        numbers.append(submitted[0].job_id.split("_")[0])
        kind = "afterok" if stage == "prepare" else "afterany"
        after = {"dependency": f"{kind}:{numbers[-1]}", "kill-on-invalid-dep": "yes"}
        options = {"requeue": True, **resources.options, **after}
    return numbers


def do_locally(
    batch: Batch, folder: Path, resources: Resources, slots: Sequence[dict[str, str]]
) -> bool:
    """Do a batch with submitit's local executor, stage by stage; whether all succeeded.

    Args:
        batch: The jobs.
        folder: For submitit's files and what jobs print.
        resources: The time limit is used.
        slots: Shares of the machine, as environment variables.
    """
    import submitit

    executor = submitit.LocalExecutor(folder, max_num_timeout=MAX_REQUEUES)
    executor.update_parameters(timeout_min=60 * resources.hours, signal_delay_s=SIGNAL_DELAY_S)
    for stage in (batch.prepare, batch.work):
        _do_stage(executor, stage, list(slots))
    problem = executor.submit(finish, batch).exception()
    if problem is not None:
        print(problem, file=sys.stderr)
    return problem is None


def _do_stage(executor: Any, stage: Sequence[Job], free: list[dict[str, str]]) -> None:
    """Do jobs, as many at a time as there are slots free, and say how each ended."""
    waiting, active = list(stage), []
    while waiting or active:
        while waiting and free:
            job, slot = waiting.pop(0), free.pop(0)
            active.append((job.title, slot, executor.submit(ClusterJob(job, slot))))
        time.sleep(POLL_S)
        for entry in [entry for entry in active if entry[2].done()]:
            title, slot, submitted = entry
            active.remove(entry)
            free.append(slot)
            print(f"{title}: {'failed' if submitted.exception() else 'done'}", flush=True)


def _stages(batch: Batch, folder: Path, num_nodes: int) -> dict[str, list[Callable]]:
    """Return what submitit is to call, by stage; empty stages are left out."""
    runs = []
    for job in batch.work:
        path = None
        if num_nodes > 1:
            path = write_text(folder / f"{job.folder.name}.yaml", job.run.settings.as_yaml())
        runs.append(ClusterJob(job, {}, path))
    prepare, report = [ClusterJob(job, {}) for job in batch.prepare], [partial(finish, batch)]
    stages = {"prepare": prepare, "run": runs, "report": report}
    return {stage: calls for stage, calls in stages.items() if calls}
