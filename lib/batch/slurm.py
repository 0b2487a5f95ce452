"""Submission of a batch to Slurm, with submitit.

Each run is a job of a Slurm array; it waits for the data, and the reports wait for it. A job that
is preempted or reaches its time limit saves a checkpoint, is queued again, and continues exactly.
A run over several machines is one task per GPU.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from lib.batch.jobs import POLL_S, Batch, Job, JobError, wait_for
from lib.batch.plan import COMPLETE, state_of
from lib.config import PROJECT_ROOT, Count, Natural, Positive, Settings
from lib.fileio import write_text
from lib.runs.run_dir import RunDir

LOCKED_WAIT_S = 120.0  # for the remains of a job that was queued again
SIGNAL_DELAY_S = 120  # between SIGTERM and the time limit
MAX_REQUEUES = 1000  # after time limits; preemptions do not count
PORT = 29400
_SIGNAL = "SUBMITIT_PREEMPT_SIGNAL"


class Resources(Settings):
    """Resources of each run, the options of the command line; None for the cluster's default."""

    nodes: Count = 1
    """machines of a run"""
    gpus: Natural = 1
    """GPUs on each machine"""
    cpus: Count = 8
    """cores on each machine"""
    hours: Annotated[float, Field(ge=1 / 60)] = 24.0
    """time limit; a run that needs longer is queued again"""
    memory_gb: Positive | None = None
    """memory on each machine"""
    partition: str | None = None
    """partition"""

    @property
    def tasks_per_node(self) -> int:
        """One per GPU of a run over several machines; else one, which starts the others."""
        return max(1, self.gpus) if self.nodes > 1 else 1

    def for_sbatch(self) -> dict[str, Any]:
        """Return the resources by sbatch's names."""
        values = {
            "partition": self.partition,
            "nodes": self.nodes,
            "ntasks_per_node": self.tasks_per_node,
            "gpus_per_node": self.gpus or None,
            "cpus_per_task": max(1, self.cpus // self.tasks_per_node),
            "time": max(1, round(60 * self.hours)),
            "mem": None if self.memory_gb is None else f"{round(1024 * self.memory_gb)}MB",
        }
        return {name: value for name, value in values.items() if value is not None}


def check_slurm() -> None:
    """Raise ValueError, with the remedy, if jobs cannot be submitted from here."""
    if find_spec("submitit") is None:
        raise ValueError("--executor slurm needs the package submitit; pip install -e '.[cluster]'")
    if shutil.which("sbatch") is None:
        raise ValueError(
            "--executor slurm: there is no Slurm on this machine (no program sbatch); call it "
            "where jobs are submitted, or leave --executor out"
        )


# --- On the cluster -------------------------------------------------------------------------------


class SlurmJob:
    """A job of a batch as submitit calls it, in every task of a Slurm job.

    `settings_file` has all settings of its run, for more than one task.
    """

    def __init__(self, job: Job, settings_file: Path | None = None):
        self.job, self.settings_file = job, settings_file
        self.process: subprocess.Popen | None = None

    def __call__(self) -> str:
        """Do the job and return its result; JobError if it failed."""
        import submitit

        here = submitit.JobEnvironment()
        if here.num_tasks > 1 and not RunDir(self.job.folder).is_finished():
            self._train_as_task(here)
        if here.global_rank > 0:
            return self.job.title
        while True:
            try:
                return self.job.do(_threads())
            except JobError as error:
                print(f"{self.job.title}: {error}; see {self.job.log_path}", flush=True)
                self.job.tries -= 1
                if self.job.tries <= 0:
                    raise

    def _train_as_task(self, here: Any) -> None:
        """Train as one process of a run over several machines, as under torchrun."""
        world = {
            "MASTER_ADDR": os.environ["SLURM_LAUNCH_NODE_IPADDR"],  # of the machine of task 0
            "MASTER_PORT": PORT + int(here.raw_job_id) % 1000,
            "RANK": here.global_rank,
            "LOCAL_RANK": here.local_rank,
            "WORLD_SIZE": here.num_tasks,
            "TORCHELASTIC_RUN_ID": here.raw_job_id,
        }
        environment = os.environ | _threads() | {name: str(v) for name, v in world.items()}
        command = [sys.executable, "-m", "lib.train.fit", str(self.settings_file)]
        self.process = subprocess.Popen(command, cwd=PROJECT_ROOT, env=environment)
        if status := wait_for(self.process):
            raise JobError(f"{self.job.title}: training ended with status {status}")

    def checkpoint(self) -> object:
        """Wait for the checkpoint and return the job to queue; submitit calls it on SIGTERM.

        Slurm sends that signal to all processes of a job.
        """
        from submitit.helpers import DelayedSubmission

        print(f"{self.job.title}: asked to end, saves a checkpoint", flush=True)
        if self.process is not None:
            wait_for(self.process)
        while self.job.process is not None and self.job.process.poll() is None:
            self.job.stop()
            time.sleep(POLL_S)
        self.process = self.job.process = None
        return DelayedSubmission(SlurmJob(self.job, self.settings_file))


def _threads() -> dict[str, str]:
    """Return the cores of this task as a number of threads."""
    cores = os.environ.get("SLURM_CPUS_PER_TASK")
    return {} if cores is None or "OMP_NUM_THREADS" in os.environ else {"OMP_NUM_THREADS": cores}


def finish(batch: Batch) -> None:
    """Make the reports of studies with a tested run; the last job of a batch.

    RuntimeError with a list of the runs that are not complete and the reports that failed.
    """
    wrong = []
    for run in batch.runs:
        state, detail = state_of(run)
        if state != COMPLETE:
            text = ": ".join(filter(None, (run.name, state, detail)))
            wrong.append(f"{text}; see {run.run_dir / 'batch.log'}")
    for job in batch.reports:
        try:
            job.do({})
        except JobError as error:
            wrong.append(f"{job.title}: {error}; see {job.log_path}")
    if wrong:
        raise RuntimeError("\n  ".join(["not complete:", *wrong]))
    print("all runs are complete")


# --- Submission -----------------------------------------------------------------------------------


def submit(
    batch: Batch, resources: Resources, options: Mapping[str, str], jobs: int | None = None
) -> None:
    """Submit a batch to Slurm, its stages dependent on each other, and print their job numbers.

    The resources are those of each run; the other jobs get one machine and no GPU. At most `jobs`
    runs are done at the same time, with None as many as Slurm allows. The folder of the first study
    must be on a disk that the machines share. ValueError with the reason if Slurm refuses the jobs.
    """
    folder = batch.folders[0] / "cluster"
    os.environ.setdefault(_SIGNAL, "TERM")  # the same signal from everywhere
    import submitit  # reads that variable once

    numbers: list[str] = []
    dependency: dict[str, str] = {}
    alone = resources.model_copy(update={"nodes": 1, "gpus": 0})
    for stage, calls in _stages(batch, folder).items():
        share = resources if stage == "run" else alone
        executor = submitit.SlurmExecutor(folder, max_num_timeout=MAX_REQUEUES)
        parameters = share.for_sbatch()
        executor.update_parameters(
            job_name=stage,
            **parameters,
            array_parallelism=jobs or len(calls),
            signal_delay_s=SIGNAL_DELAY_S,
            setup=[f"export {_SIGNAL}=TERM"],
            # not inherited since Slurm 22.05
            srun_args=[f"--cpus-per-task={parameters['cpus_per_task']}"],
            additional_parameters={"requeue": True, **options, **dependency},
        )
        try:
            with executor.batch():
                submitted = [executor.submit(call) for call in calls]
        except submitit.core.utils.FailedJobError as error:  # with the message of sbatch
            for number in numbers:
                subprocess.run(["scancel", number], check=False)
            text = str(error).strip()
            hint = "; without GPUs use --gpus 0" if "gres" in text else ""
            raise ValueError(f"--executor slurm: sbatch refused the jobs{hint}\n{text}") from error
        numbers.append(submitted[0].job_id.split("_")[0])
        kind = "afterok" if stage == "prepare" else "afterany"
        dependency = {"dependency": f"{kind}:{numbers[-1]}", "kill-on-invalid-dep": "yes"}
    print(f"submitted as jobs {', '.join(numbers)}; the last one makes the report")
    print(f"their output: {folder}; state of the runs: the same command with --dry-run")


def _stages(batch: Batch, folder: Path) -> dict[str, list[Callable]]:
    """Return the calls of submitit, by stage; empty stages are left out."""
    runs = []
    for job in batch.work:
        path = folder / f"{job.folder.parent.name}_{job.folder.name}.yaml"
        write_text(path, job.planned.settings.as_yaml())
        job.lock_wait_s = LOCKED_WAIT_S
        runs.append(SlurmJob(job, path))
    prepare, report = [SlurmJob(job) for job in batch.prepare], [partial(finish, batch)]
    stages = {"prepare": prepare, "run": runs, "report": report}
    return {stage: calls for stage, calls in stages.items() if calls}
