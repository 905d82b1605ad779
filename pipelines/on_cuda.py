"""Run a command of fairdedup on the GPUs of this machine, with one worker for each.

dask-cuda starts the workers. Each has its own GPU first in CUDA_VISIBLE_DEVICES, and runs on the cores next to it.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from starter import Adapt, ClusterConfig, make_command

from fairdedup.cli import call
from fairdedup.config import MemoryOrAuto
from fairdedup.errors import UserError
from fairdedup.workers import DASHBOARD, PRELOAD, WORKER_THREADS, delay_interrupts


class GpuConfig(ClusterConfig):
    """YAML file of GPU workers: the GPUs to use, by number or UUID, and the main memory of each worker."""

    gpus: Literal["all"] | tuple[int | str, ...] = "all"
    memory: MemoryOrAuto = "auto"
    local_directory: Path | None = None


def visible_devices(config: GpuConfig) -> list[str]:
    """Return CUDA_VISIBLE_DEVICES for each worker.

    Raises
    ------
    UserError
        If there is no GPU.
    """
    from dask_cuda.utils import cuda_visible_devices, get_n_gpus
    from pynvml import NVMLError

    try:
        gpus = None if config.gpus == "all" else list(config.gpus)
        return [cuda_visible_devices(k, gpus) for k in range(get_n_gpus() if gpus is None else len(gpus))]
    except NVMLError as error:
        raise UserError(f"no GPU was found here ({error}). See `nvidia-smi`.") from None


def cluster_options(config: GpuConfig) -> dict[str, Any]:
    """Return the options of the cluster, as dask-cuda names them."""
    return {
        "CUDA_VISIBLE_DEVICES": visible_devices(config)[0],
        "threads_per_worker": WORKER_THREADS,
        "memory_limit": config.memory,
        "device_memory_limit": None,  # torch manages the memory of the GPU, not Dask
        "local_directory": str(config.local_directory or tempfile.gettempdir()),
        "dashboard_address": DASHBOARD,
        "silence_logs": logging.CRITICAL,
        "preload": [PRELOAD],
    }


def describe_workers(config: GpuConfig, adapt: Adapt = None) -> str:
    """Return a description with one line for each worker."""
    return "".join(
        f"worker {k}: CUDA_VISIBLE_DEVICES={gpus} threads={WORKER_THREADS} memory={config.memory}\n"
        for k, gpus in enumerate(visible_devices(config))
    )


@contextmanager
def start_cluster(config: GpuConfig, adapt: Adapt) -> Iterator[Any]:
    """Start the workers, and stop them at the end."""
    from dask_cuda import LocalCUDACluster

    options = cluster_options(config)
    with delay_interrupts(ignored=True):  # the workers stop after the command, so they ignore Ctrl-C in the terminal
        cluster = LocalCUDACluster(**options)
    with cluster:
        yield cluster


main = make_command(GpuConfig, describe_workers, start_cluster, library="dask_cuda", advice="See `nvidia-smi`.")

if __name__ == "__main__":
    sys.exit(call(sys.argv[1:], main, "on_cuda.py"))
