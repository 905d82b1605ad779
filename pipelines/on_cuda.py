"""Run a command of fairdedup on the GPUs of this machine, with one worker for each.

dask-cuda starts the workers, each with its own GPU first in CUDA_VISIBLE_DEVICES and on the cores that lie next to it.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from starter import Adapt, ClusterConfig, starter

from fairdedup.cli import call
from fairdedup.config import MemoryOrAuto
from fairdedup.errors import UserError
from fairdedup.workers import DASHBOARD, PRELOAD, WORKER_THREADS, held_back


class GpuConfig(ClusterConfig):
    """Which GPUs, by number or UUID, and the memory (not the GPU's) of each worker."""

    gpus: Literal["all"] | tuple[int | str, ...] = "all"
    memory: MemoryOrAuto = "auto"
    local_directory: Path | None = None


def visible(config: GpuConfig) -> list[str]:
    """Return CUDA_VISIBLE_DEVICES of each worker.

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
        raise UserError(f"no GPU can be found here ({error}): see `nvidia-smi`") from None


def options(config: GpuConfig) -> dict[str, Any]:
    """Return what dask-cuda is told."""
    return {
        "CUDA_VISIBLE_DEVICES": visible(config)[0],
        "threads_per_worker": WORKER_THREADS,
        "memory_limit": config.memory,
        "device_memory_limit": None,  # what is on a GPU is torch's, and Dask holds none of it
        "local_directory": str(config.local_directory or tempfile.gettempdir()),
        "dashboard_address": DASHBOARD,
        "silence_logs": logging.CRITICAL,
        "preload": [PRELOAD],
    }


def plan(config: GpuConfig, adapt: Adapt = None) -> str:
    """Return a line for each worker."""
    told = options(config)
    lines = [
        f"worker {k}: CUDA_VISIBLE_DEVICES={gpus} threads={told['threads_per_worker']} memory={told['memory_limit']}\n"
        for k, gpus in enumerate(visible(config))
    ]
    return "".join(lines)


@contextmanager
def started(config: GpuConfig, adapt: Adapt) -> Iterator[Any]:
    """Start the workers, and end them in the end."""
    from dask_cuda import LocalCUDACluster

    told = options(config)
    with held_back(ignored=True):  # the workers end when the command has: a terminal's Ctrl-C is not for them
        cluster = LocalCUDACluster(**told)
    with cluster:
        yield cluster


main = starter(GpuConfig, plan, started, "dask_cuda", look="see `nvidia-smi`")

if __name__ == "__main__":
    sys.exit(call(sys.argv[1:], main, "on_cuda.py"))
