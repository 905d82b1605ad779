"""What is computed faster than by numpy, with the same bytes: products of 8-bit integers, and float16 to float32."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_info, threadpool_limits

from fairdedup.core.devices import is_torch_worth_it
from fairdedup.core.int8_kernel import LANES, cpu_features, multiply_by_avx2

SHARED_WORK = 1e7  # multiply-adds of a product from which threads share it
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


def multiply_int8(
    rows: NDArray[np.int8], other: NDArray[np.int8], out: NDArray[np.int32] | None = None
) -> NDArray[np.int32]:
    """Return the products of all pairs of 8-bit rows: by our own kernel where that is the fastest, else by torch.

    Parameters
    ----------
    rows : ndarray of shape (n, d), int8
    other : ndarray of shape (m, d), int8
    out : ndarray of shape (n, m), int32, C-contiguous, optional
        Where to write the products.

    Returns
    -------
    ndarray of shape (n, m), int32
        `out`, if it is given.
    """
    if out is None:
        out = np.empty((len(rows), len(other)), np.int32)
    multiply = _multiply_in_threads if _has_avx2_alone() else _multiply_by_torch
    multiply(rows, other, out)
    return out


def _multiply_in_threads(rows: NDArray[np.int8], other: NDArray[np.int8], out: NDArray[np.int32]) -> None:
    """Write the products of all pairs of rows by our kernel, in as many threads as a product of numpy has."""
    threads = 1 if _alone or rows.size * len(other) < SHARED_WORK else _count_threads()
    step = -(-len(rows) // (threads * LANES)) * LANES
    if step >= len(rows):
        multiply_by_avx2(rows, other, out)
        return
    slices = [slice(start, start + step) for start in range(0, len(rows), step)]
    list(_threads(threads).map(lambda some: multiply_by_avx2(rows[some], other, out[some]), slices))


@lru_cache(maxsize=1)
def _count_threads() -> int:
    """Return how many threads a product of numpy takes: the environment may limit them. Asking takes milliseconds."""
    return max((pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"), default=1)


@lru_cache(maxsize=1)
def _threads(number: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(number, thread_name_prefix="int8")


def _multiply_by_torch(rows: NDArray[np.int8], other: NDArray[np.int8], out: NDArray[np.int32]) -> None:
    """Write the products of all pairs of rows. Loads torch."""
    import torch

    _limit_this_thread(torch)
    mine, others = (torch.from_numpy(np.require(values, requirements=("C", "W"))) for values in (rows, other))
    torch._int_mm(mine, others.t(), out=torch.from_numpy(out))


def _has_int8_instructions() -> bool:
    """Tell whether the processor has instructions for products of 8-bit integers, which torch uses."""
    return not cpu_features().isdisjoint(("avx512vnni", "avxvnni", "amx-int8"))


def _has_avx2_alone() -> bool:
    """Tell whether `multiply_by_avx2` is the fastest. With AVX-512 alone, products in float32 are as fast."""
    return "avx2" in cpu_features() and "avx512f" not in cpu_features() and not _has_int8_instructions()


@lru_cache(maxsize=1)
def int8_products_are_exact() -> bool:
    """Tell whether torch multiplies 8-bit integers without saturation on this machine. Loads torch."""
    try:
        most, products = np.full((32, 512), 127, np.int8), np.empty((32, 32), np.int32)
        _multiply_by_torch(most, -most, products)
        return bool((products == -127 * 127 * 512).all())
    except (ImportError, AttributeError, RuntimeError):
        return False


def int8_is_worth_it(work: float) -> bool:
    """Tell whether products of 8-bit integers are exact here and faster than those of float32.

    Parameters
    ----------
    work : float
        Multiply-adds of this process: where only torch is fast, many must pay for loading it.
    """
    if _has_int8_instructions():
        return is_torch_worth_it(work) and int8_products_are_exact()
    return _has_avx2_alone()
