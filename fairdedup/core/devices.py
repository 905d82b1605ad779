"""Where matrix products run: NumPy and numba on the CPU, or torch on a GPU. What they lead to is the same.

Torch is loaded only where the work takes longer than the loading, or where a device is named. This module multiplies
nothing itself.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fairdedup.errors import UserError

TORCH_WORK = 5e10  # float32 multiply-adds of a process after which it pays to load torch
DEVICE_WORK = 1e8  # multiply-adds below which a transfer takes longer than the product; not measured on a GPU
GPU_FILES = ("nvidia*", "nvhost*", "nvmap", "kfd", "dxg")  # in /dev: of NVIDIA's drivers, of AMD's, of WSL's
BY_TORCH = "torch:"  # "torch:cpu" runs the code for GPUs on torch's CPU; tests and benchmarks use it
_wanted: ContextVar[str] = ContextVar("device", default="auto")


@contextmanager
def use_device(device: str) -> Iterator[None]:
    """Run the products of this block, and of what it calls, on a device.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda"}, or "torch:" and a device of torch
        What `choose_device` takes for "auto" within the block; "auto" leaves what a block around this one says.
    """
    token = _wanted.set(_wanted.get() if device == "auto" else device)
    try:
        yield
    finally:
        _wanted.reset(token)


def call_on_device(device: str, function: Callable[..., Any], *args: Any) -> Any:
    """Return ``function(*args)``, whose products run on a device as with `use_device`."""
    with use_device(device):
        return function(*args)


def choose_device(device: str, work: float) -> str:
    """Return where to multiply: "cpu" (without torch), "cuda", or what begins with "torch:", unchanged.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda"}, or "torch:" and a device of torch
        "auto" takes what `use_device` says. If that is "auto" too, it takes a GPU if torch sees one, and if torch is
        loaded or the work is much.
    work : float
        Multiply-adds to be done by this process.

    Raises
    ------
    UserError
        If it is "cuda" and torch sees no GPU.
    """
    device = _wanted.get() if device == "auto" else device
    if device == "cpu" or device.startswith(BY_TORCH):
        return device
    if device == "auto" and not (is_torch_worth_it(work) and may_have_gpu()):
        return "cpu"
    if sees_gpu():
        return "cuda"
    if device == "cuda":
        raise UserError("`device=cuda`: torch sees no GPU here; use `device=cpu` or auto")
    return "cpu"


def choose_product_device(work: float, done: float = 0.0) -> str:
    """Return where to compute some products, as `choose_device` of "auto".

    Parameters
    ----------
    work : float
        Multiply-adds of these products. On a GPU that nobody has named, few are not worth the transfer.
    done : float
        Multiply-adds that this process has done on the CPU.
    """
    if _wanted.get() == "auto" and work < DEVICE_WORK:
        return "cpu"
    return choose_device("auto", max(work, done))


def torch_name(device: str) -> str:
    """Return what torch calls a device that `choose_device` has returned, but for "cpu"."""
    return device.removeprefix(BY_TORCH)


def is_torch_worth_it(work: float) -> bool:
    """Tell whether torch is loaded, or is there and some work takes longer than to load it.

    Parameters
    ----------
    work : float
        Multiply-adds that this process has done in float32, or is to do.
    """
    return "torch" in sys.modules or (work > TORCH_WORK and find_spec("torch") is not None)


@lru_cache(maxsize=1)
def may_have_gpu() -> bool:
    """Tell whether this machine may have a GPU that torch can use: without a driver, torch need not be loaded."""
    if sys.platform != "linux":
        return sys.platform == "win32"
    return any(path for pattern in GPU_FILES for path in Path("/dev").glob(pattern))


@lru_cache(maxsize=1)
def sees_gpu() -> bool:
    """Tell whether torch can use a GPU here. Loads torch, and a GPU's driver if there is one."""
    import torch

    if not torch.cuda.is_available():
        return False
    try:
        torch.zeros(1, device="cuda")
    except RuntimeError:  # its memory is full, or other processes have it to themselves
        return False
    return True
