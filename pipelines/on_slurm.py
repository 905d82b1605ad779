"""Run a command of fairdedup on workers that are jobs of Slurm.

The Dask scheduler and the command run where this script is called: on a login node, or in a separate job. Each job that
is submitted runs `workers_per_job` workers. All of them see RUN and INPUT by the same path.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from dask.utils import parse_bytes
from pydantic import BeforeValidator, Field, model_validator
from starter import NANNY_MEMORY, Adapt, QueuedConfig, make_command

from fairdedup.cli import call
from fairdedup.errors import UserError
from fairdedup.workers import PRELOAD, WORKER_THREADS


def _refuse_number(value: Any) -> Any:
    if isinstance(value, int):
        raise ValueError('is read as a number by YAML. Write it in quotes, such as "10:00:00".')
    return value


class SlurmConfig(QueuedConfig):
    """YAML file of Slurm jobs. `memory` and `cpus` are those of one worker."""

    name: str = "fairdedup"
    workers_per_job: int = Field(1, ge=1)
    gres: str | None = None
    partition: str | None = None
    account: str | None = None
    walltime: Annotated[str, BeforeValidator(_refuse_number)] = "04:00:00"
    directives: tuple[str, ...] = ()
    prologue: tuple[str, ...] = ()
    python: str | None = None
    interface: str | None = None
    local_directory: Path | None = None
    log_directory: Path = Path("fairdedup-slurm")

    @model_validator(mode="after")
    def _check_gpu(self) -> SlurmConfig:
        if self.gres and self.workers_per_job > 1:
            raise ValueError(
                f"gres needs workers_per_job 1, since all workers of a job would use its first GPU; got gres "
                f"{self.gres!r} and workers_per_job {self.workers_per_job}."
            )
        return self


def job_options(config: SlurmConfig) -> dict[str, Any]:
    """Return the options of a job, as dask-jobqueue names them."""
    memory = int(parse_bytes(config.memory))
    directives = [f"-o {shlex.quote(str(config.log_directory / '%x-%j.out'))}", *config.directives]
    if config.gres:
        directives.append(f"--gres={config.gres}")
    return {
        "cores": WORKER_THREADS * config.workers_per_job,
        "processes": config.workers_per_job,
        "memory": f"{memory * config.workers_per_job}B",
        "job_cpu": config.cpus * config.workers_per_job,
        "job_mem": f"{-((memory + NANNY_MEMORY) * config.workers_per_job // -(2**20))}M",
        "job_name": config.name,
        "queue": config.partition,
        "account": config.account,
        "walltime": config.walltime,
        "interface": config.interface,
        "python": config.python,
        "local_directory": config.local_directory and shlex.quote(str(config.local_directory)),
        "job_script_prologue": list(config.prologue),
        "job_extra_directives": directives,
        "worker_extra_args": ["--no-dashboard", "--preload", PRELOAD],
    }


def job_script(config: SlurmConfig, adapt: Adapt = None) -> str:
    """Return the script that is submitted for each job, with a placeholder for the scheduler."""
    from dask_jobqueue.slurm import SLURMJob

    text: str = SLURMJob("tcp://SCHEDULER:8786", name=config.name, **job_options(config)).job_script()
    return text


@contextmanager
def start_cluster(config: SlurmConfig, adapt: Adapt) -> Iterator[Any]:
    """Submit the jobs, and cancel them at the end."""
    from dask_jobqueue import SLURMCluster

    if shutil.which("sbatch") is None:
        raise UserError("there is no `sbatch` here. Start this on a node that submits to Slurm.")
    # If Slurm refuses a job, dask-jobqueue only logs it and waits for its worker.
    tried = subprocess.run(["sbatch", "--test-only"], input=job_script(config), capture_output=True, text=True)
    if tried.returncode:
        raise UserError(f"Slurm refuses the job ({tried.stderr.strip()}). See --dry-run, and change the YAML file.")
    config.log_directory.mkdir(parents=True, exist_ok=True)  # Slurm drops a job whose log it cannot write
    with SLURMCluster(**job_options(config), scheduler_options={"dashboard_address": ":0"}) as cluster:
        cluster.scale(adapt[0] if adapt else config.workers)
        if adapt:
            cluster.adapt(minimum=adapt[0], maximum=adapt[1])
        yield cluster


main = make_command(
    SlurmConfig,
    job_script,
    start_cluster,
    library="dask_jobqueue",
    advice="See `squeue --me` and the logs in `log_directory`.",
)

if __name__ == "__main__":
    sys.exit(call(sys.argv[1:], main, "on_slurm.py"))
