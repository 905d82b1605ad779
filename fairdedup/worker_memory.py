"""How much memory a worker needs at least, and the refusal of one that has less.

Dask ends a worker at 95 % of its limit, again and again, and pauses one of a scheduler at 80 %: such a run never ends.
"""

from __future__ import annotations

import logging
import math
import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from fairdedup.errors import UserError

MIB = 1 << 20
SMALL = 32 * MIB  # data that the measured run had
PAUSES_AT = 0.8  # of its limit: a worker that Dask has paused takes no further task; local ones have this margin
ENDS_AT = 0.95  # of its limit: a worker that needs more, even for a moment, is ended


@dataclass(frozen=True)
class LeastMemory:
    """What a worker needs before it holds any data, in bytes: measured as the peak of a small run.

    Attributes
    ----------
    resident : int
        Memory for Python and the libraries.
    space : int
        Address space, which ``ulimit -v`` limits.
    """

    resident: int
    space: int


@cache
def least_memory(*, encoder: bool) -> LeastMemory:
    """Return what a worker needs, with or without an encoder. Libraries for GPUs take much, without a GPU too.

    Parameters
    ----------
    encoder : bool
        Whether the worker loads torch and a model.
    """
    if any((Path(folder) / "torch" / "lib" / "libtorch_cuda.so").exists() for folder in sys.path):
        return LeastMemory(1500 * MIB, 7300 * MIB) if encoder else LeastMemory(600 * MIB, 3500 * MIB)
    return LeastMemory(500 * MIB, 2000 * MIB) if encoder else LeastMemory(200 * MIB, 1000 * MIB)


def check_address_space(*, encoder: bool) -> None:
    """Refuse a limit of address space under which workers on this machine could not start.

    Parameters
    ----------
    encoder : bool
        Whether they load a model.

    Raises
    ------
    UserError
        If the limit is too small.
    """
    try:
        import resource
    except ImportError:  # this system has no such limit
        return
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    needed = least_memory(encoder=encoder).space
    if limit != resource.RLIM_INFINITY and limit < needed:
        what = "a worker with a model" if encoder else "a worker"
        raise UserError(
            f"`ulimit -v` gives each process {limit // 1024} KiB of address space, but {what} needs at least "
            f"{needed // 1024}: run `ulimit -v unlimited` and start again"
        )


@cache
def machine_memory() -> int:
    """Return the memory of this machine or container in bytes, as Dask finds it, without the time to import Dask."""
    import psutil

    limit = int(psutil.virtual_memory().total)
    for name in (
        "memory/memory.limit_in_bytes",
        "memory/memory.soft_limit_in_bytes",
        "memory.max",
        "memory.high",
        "memory.low",
    ):
        with suppress(OSError, ValueError):  # another system, or "max"
            limit = min(limit, int(Path("/sys/fs/cgroup", name).read_text()) or limit)
    return limit


def has_plenty(data: int, *, encoder: bool, share: float = PAUSES_AT) -> bool:
    """Tell whether an equal share of this machine's memory is certainly enough; see `check_worker_memory`."""
    return machine_memory() // (os.cpu_count() or 1) * share >= _needed(data, encoder=encoder)


def _needed(data: int, *, encoder: bool) -> int:
    return least_memory(encoder=encoder).resident + max(0, data - SMALL)


def parse_limit(memory_limit: str) -> int | None:
    """Return the bytes that Dask gives a worker of one thread on this machine; None for no limit.

    Parameters
    ----------
    memory_limit : str
        The option ``--memory-limit``: an amount, or "auto".
    """
    from distributed.worker_memory import parse_memory_limit

    return parse_memory_limit(memory_limit, 1, logger=logging.getLogger("distributed.nanny"))


def smallest_limit(client: Any) -> int | None:
    """Return the smallest memory limit of the workers of a Dask client in bytes; None if there is none."""
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    return min((worker["memory_limit"] for worker in workers if worker["memory_limit"]), default=None)


def check_worker_memory(
    limit: int | None, data: int, what: str, *, workers: int | None, encoder: bool, share: float = PAUSES_AT
) -> None:
    """Refuse a memory limit of workers that is too small.

    Parameters
    ----------
    limit : int or None
        Bytes that a worker may use; None or 0 for no limit.
    data : int
        Bytes that a task needs at least, beside the libraries.
    what : str
        What needs them, as "model 'RN50'".
    workers : int or None
        Number of workers on this machine; None if others have started them.
    encoder : bool
        Whether the task loads a model.
    share : float
        Part of the limit that it may use: `PAUSES_AT`, or `ENDS_AT` for data that are freed at once.

    Raises
    ------
    UserError
        If the limit is too small.
    """
    needed = _needed(data, encoder=encoder)
    least = math.ceil(needed / share / (10 * MIB)) * 10
    if not limit or limit >= needed / share:
        return
    amount = f"{least}MiB"
    if workers is None:
        remedy = f"start the workers with `dask worker --memory-limit {amount}`"
    else:
        from distributed.system import MEMORY_LIMIT

        fit = MEMORY_LIMIT // (least * MIB)
        remedy = f"give --memory-limit {amount}" + ("" if fit >= workers else f" --workers {max(fit, 1)}")
        if not fit:
            remedy = f"use a machine with more than the {MEMORY_LIMIT // MIB}MiB of this one"
    raise UserError(f"a worker has {limit // MIB}MiB of memory, but {what} needs at least {amount}: {remedy}")
