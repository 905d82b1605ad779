"""Several arrays in one array of bytes, so that a task writes and opens one file and not one for each array."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.lib.format import dtype_to_descr
from numpy.typing import NDArray

_ALIGNED = 64  # bytes at a multiple of which each array begins
_LENGTH = 8  # bytes of the number that says how long the list of arrays is


def pack_arrays(arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.uint8]:
    """Return the bytes of arrays: the list of their names, dtypes and shapes, then the arrays.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        Arrays, not of Python objects.

    Raises
    ------
    ValueError
        If an array has Python objects.
    """
    if any(array.dtype.hasobject for array in arrays.values()):
        raise ValueError("an array of Python objects is never written")
    head = json.dumps([(name, dtype_to_descr(own.dtype), own.shape) for name, own in arrays.items()]).encode()
    places = _place(len(head), [array.nbytes for array in arrays.values()])
    packed = np.zeros(places[-1], np.uint8)
    packed[:_LENGTH] = np.frombuffer(len(head).to_bytes(_LENGTH, "little"), np.uint8)
    packed[_LENGTH : _LENGTH + len(head)] = np.frombuffer(head, np.uint8)
    for place, array in zip(places, arrays.values(), strict=False):
        packed[place : place + array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return packed


def unpack_arrays(packed: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    """Return the arrays that `pack_arrays` has packed, as views.

    Parameters
    ----------
    packed : ndarray of shape (n,), uint8
        As `pack_arrays` returns it; it may be mapped into memory.

    Raises
    ------
    ValueError
        If the bytes are not those of packed arrays.
    """
    length = int.from_bytes(packed[:_LENGTH].tobytes(), "little")
    head = json.loads(packed[_LENGTH : _LENGTH + length].tobytes())
    dtypes = [np.dtype([tuple(field) for field in own] if isinstance(own, list) else own) for _, own, _ in head]
    sizes = [dtype.itemsize * int(np.prod(shape)) for dtype, (_, _, shape) in zip(dtypes, head, strict=True)]
    places = _place(length, sizes)
    return {
        name: packed[place : place + size].view(dtype).reshape(shape)
        for (name, _, shape), dtype, size, place in zip(head, dtypes, sizes, places, strict=False)
    }


def _place(head: int, sizes: list[int]) -> list[int]:
    """Return where each array begins, and the end of the last one."""
    places = [_align(_LENGTH + head)]
    for size in sizes:
        places.append(_align(places[-1] + size))
    return places


def _align(size: int) -> int:
    return -(-size // _ALIGNED) * _ALIGNED
