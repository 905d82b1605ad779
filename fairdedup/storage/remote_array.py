"""An .npy file in an object store as an array: indexing it reads rows by range requests."""

from __future__ import annotations

import io
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairdedup.errors import FairdedupError
from fairdedup.storage.object_stores import RemotePath
from fairdedup.storage.remedies import MAKE_AGAIN

HEAD = 1 << 14  # bytes of the first request: the header, and all of a small file
GAP = 1 << 20  # a gap of up to this many bytes between rows is read too, which is cheaper than another request


class RemoteArray:
    """A read-only array of a file; only its first axis can be sliced or indexed.

    Parameters
    ----------
    path : RemotePath
    ahead : int
        Bytes that a slice reads beyond its end, for the next one; 0 reads exactly the slice.
    upto : int or None
        Row at which reading ahead stops; None is the end.

    Attributes
    ----------
    shape, dtype, ndim, nbytes
        The same as the attributes of an ndarray.
    """

    def __init__(self, path: RemotePath, ahead: int = 0, upto: int | None = None) -> None:
        self.path, self._ahead = path, ahead
        self._start, self._buffer = 0, path.read_bytes(0, HEAD)
        file = io.BytesIO(self._buffer)
        try:
            if np.lib.format.read_magic(file) != (1, 0):
                raise ValueError("another version of the format")
            self.shape, fortran, self.dtype = np.lib.format.read_array_header_1_0(file)
        except (ValueError, TypeError, SyntaxError, TokenError, RecursionError, OverflowError) as error:
            raise FairdedupError(f"{path} is not an .npy file of a run ({error}): {MAKE_AGAIN}") from None
        if fortran or self.dtype.hasobject:
            raise FairdedupError(f"{path} is not an .npy file of a run: {MAKE_AGAIN}")
        self._first = file.tell()
        self._upto = len(self) if upto is None else upto

    def __len__(self) -> int:
        return int(self.shape[0])

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def _row(self) -> int:
        return int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of the whole array."""
        return len(self) * self._row

    def _array(self, data: bytes) -> NDArray[Any]:
        rows = len(data) // self._row if self._row else 0
        count = rows * int(np.prod(self.shape[1:], dtype=np.int64))
        return np.frombuffer(data, self.dtype, count=count).reshape(rows, *self.shape[1:])

    def _rows(self, start: int, stop: int) -> NDArray[Any]:
        if stop <= start or not self._row:
            return np.zeros((max(0, stop - start), *self.shape[1:]), self.dtype)
        low, high = (self._first + row * self._row for row in (start, stop))
        if low < self._start or high > self._start + len(self._buffer):
            end = min(high + self._ahead, max(high, self._first + self._upto * self._row))
            self._start, self._buffer = low, self.path.read_bytes(low, end)
        found = self._array(self._buffer[low - self._start : high - self._start])
        if len(found) != stop - start:
            raise FairdedupError(f"{self.path} is shorter than its header says: {MAKE_AGAIN}")
        return found

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice):
            start, stop, step = key.indices(len(self))
            if step == 1:
                return self._rows(start, stop)
            return self[np.arange(start, stop, step)]
        if isinstance(key, int | np.integer):
            place = int(key) + (len(self) if key < 0 else 0)
            if not 0 <= place < len(self):
                raise IndexError(f"row {key} of {len(self)}")
            return self._rows(place, place + 1)[0]
        places = np.asarray(key)
        if places.dtype == np.bool_ and places.shape == (len(self),):
            places = np.flatnonzero(places)
        if places.ndim != 1 or places.dtype.kind not in "iu":
            raise IndexError(f"{self.path}: only rows can be read, by a slice, an index, an array of indices or a mask")
        return self._take(places)

    def _take(self, places: NDArray[np.int64]) -> NDArray[Any]:
        """Return some rows, by one request for each sequence of rows that are near each other."""
        wanted, back = np.unique(places, return_inverse=True)
        if not len(wanted):
            return np.zeros((0, *self.shape[1:]), self.dtype)
        cuts = np.flatnonzero(np.diff(wanted) * max(self._row, 1) > GAP) + 1
        runs = [(int(run[0]), int(run[-1]) + 1) for run in np.split(wanted, cuts)]
        ranges = [(self._first + a * self._row, self._first + b * self._row) for a, b in runs]
        found = [self._array(data) for data in self.path.read_ranges(ranges)]
        own = [rows[run - a] for rows, (a, _), run in zip(found, runs, np.split(wanted, cuts), strict=True)]
        return np.concatenate(own)[back]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        whole = self._rows(0, len(self))
        return whole if dtype is None else whole.astype(dtype)
