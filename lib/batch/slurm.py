"""Submission of a batch to Slurm, with submitit.

Each run is a job of a Slurm array; it waits for the data, and the reports wait for it. A job that
is preempted or reaches its time limit saves a checkpoint, is queued again, and continues exactly.
A run uses one machine; docs/machines.md has the call for one over several.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Mapping
from functools import partial
from importlib.util import find_spec
from typing import Annotated, Any

from pydantic import Field

from lib.batch.jobs import POLL_S, Batch, Job, JobError
from lib.batch.plan import COMPLETE, state_of
from lib.config import Count, Natural, Positive, Settings

LOCKED_WAIT_S = 120.0  # for the remains of a job that was queued again
SIGNAL_DELAY_S = 120  # between SIGTERM and the time limit
MAX_REQUEUES = 1000  # after time limits; preemptions do not count
_SIGNAL = "SUBMITIT_PREEMPT_SIGNAL"


class Resources(Settings):
    """Resources of each run, the options of the command line; None for the cluster's default."""

    gpus: Natural = 1
    """GPUs"""
    cpus: Count = 8
    """cores"""
    hours: Annotated[float, Field(ge=1 / 60)] = 24.0
    """time limit; a run that needs longer is queued again"""
    memory_gb: Positive | None = None
    """memory"""
    partition: str | None = None
    """partition"""

    def for_sbatch(self) -> dict[str, Any]:
        """Return the resources by sbatch's names."""
        values = {
            "partition": self.partition,
            "nodes": 1,
            "ntasks_per_node": 1,
            "gpus_per_node": self.gpus or None,
            "cpus_per_task": self.cpus,
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


class SlurmJob:
    """A job of a batch as submitit calls it."""

    def __init__(self, job: Job):
        self.job, job.lock_wait_s = job, LOCKED_WAIT_S

    def __call__(self) -> str:
        """Do the job and return its result; JobError if it failed."""
        cores = os.environ.get("SLURM_CPUS_PER_TASK")
        has_threads = cores is None or "OMP_NUM_THREADS" in os.environ
        return self.job.do({} if has_threads else {"OMP_NUM_THREADS": cores})

    def checkpoint(self) -> object:
        """Wait for the checkpoint and return the job to queue; submitit calls it on SIGTERM.

        Slurm sends that signal to all processes of a job.
        """
        from submitit.helpers import DelayedSubmission

        print(f"{self.job.title}: asked to end, saves a checkpoint", flush=True)
        while self.job.process is not None and self.job.process.poll() is None:
            self.job.stop()
            time.sleep(POLL_S)
        self.job.process = None
        return DelayedSubmission(SlurmJob(self.job))


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


def submit(
    batch: Batch, resources: Resources, options: Mapping[str, str], jobs: int | None = None
) -> None:
    """Submit a batch to Slurm, its stages dependent on each other, and print their job numbers.

    The resources are those of each run; the other jobs get no GPU. At most `jobs` runs are done at
    the same time, with None as many as Slurm allows. The folder of the first study must be on a
    disk that the machines share. ValueError with the reason if Slurm refuses the jobs.
    """
    folder = batch.folders[0] / "cluster"
    os.environ.setdefault(_SIGNAL, "TERM")  # the same signal from everywhere
    import submitit  # reads that variable once

    numbers: list[str] = []
    dependency: dict[str, str] = {}
    without_gpu = resources.model_copy(update={"gpus": 0})
    stages = {
        "prepare": list(map(SlurmJob, batch.prepare)),
        "run": list(map(SlurmJob, batch.work)),
        "report": [partial(finish, batch)],
    }
    for stage, calls in stages.items():
        if not calls:
            continue
        share = resources if stage == "run" else without_gpu
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
