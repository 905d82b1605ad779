"""What torch computes faster than numpy, with the same bytes: products of 8-bit integers, and float16 to float32."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from fairdedup.core.devices import is_torch_worth_it

_alone = False  # whether each product takes one thread, since the caller has threads of its own


@contextmanager
def limit_product_threads() -> Iterator[None]:
    """Limit every product to one thread, while the caller computes several products at a time."""
    global _alone
    loaded = sys.modules.get("torch")
    before = loaded.get_num_threads() if loaded else None
    _alone = True
    try:
        if loaded:
            loaded.set_num_threads(1)
        with threadpool_limits(1, user_api="blas"):
            yield
    finally:
        _alone = False
        loaded = sys.modules.get("torch")
        if loaded:
            loaded.set_num_threads(before or os.cpu_count() or 1)


def _limit_this_thread(torch: Any) -> None:
    """Let torch compute in this thread alone, if its caller has threads of its own: OpenMP counts by thread."""
    if _alone and torch.get_num_threads() != 1:
        torch.set_num_threads(1)


def widen(values: NDArray[np.float16], out: NDArray[np.float32]) -> None:
    """Write float16 values into a float32 array of the same shape, exactly.

    If torch is loaded, it does so in a tenth of numpy's time.
    """
    if "torch" in sys.modules:
        import torch

        _limit_this_thread(torch)
        values = np.require(values, requirements=("C", "W"))
        torch.from_numpy(out).copy_(torch.from_numpy(np.asarray(values)))
    else:
        out[...] = values


def multiply_int8(rows: NDArray[np.int8], other: Any, out: Any = None) -> NDArray[np.int32]:
    """Return the products of 8-bit rows (n, d) with the columns of a tensor (d, m), by torch: (n, m), int32.

    Parameters
    ----------
    rows : ndarray of shape (n, d), int8, writable
    other : torch.Tensor of shape (d, m), int8
    out : torch.Tensor of shape (n, m), int32, optional
        Where to write the products.
    """
    import torch

    _limit_this_thread(torch)
    given = {} if out is None else {"out": out}
    return np.asarray(torch._int_mm(torch.from_numpy(rows), other, **given))


@lru_cache(maxsize=1)
def int8_products_are_exact() -> bool:
    """Tell whether torch multiplies 8-bit integers fast, and without saturation, on this machine. Loads torch."""
    try:
        import torch

        fast = "vnni" in _cpu_flags() or "amx_int8" in _cpu_flags()
        most = np.full((32, 512), 127, np.int8)
        return fast and bool((multiply_int8(most, torch.from_numpy(-most).t()) == -127 * 127 * 512).all())
    except (ImportError, AttributeError, RuntimeError):
        return False


@lru_cache(maxsize=1)
def _cpu_flags() -> str:
    try:
        return next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags"))
    except (OSError, StopIteration):
        return ""


def int8_is_worth_it(work: float) -> bool:
    """Tell whether to multiply 8-bit integers by torch: that is fast and exact here, and torch is worth it."""
    fast = "vnni" in _cpu_flags() or "amx_int8" in _cpu_flags()
    return fast and is_torch_worth_it(work) and int8_products_are_exact()
