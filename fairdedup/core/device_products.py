"""Products by torch, on a GPU or on torch's CPU: only the pairs that may matter come back, and float64 settles them.

The vectors stay on the device in float32, which holds their float16 values exactly. The bound of the error is that of
any float32 product. With u = 2**-24, d values, and lengths a and b of two rows:

- A product of two float16 values has at most 22 bits and is at least 2**-48, so float32 holds it exactly. The sum of d
  of them, in any order and with or without fused additions, is within d u / (1 - d u) a b of the exact one (Higham
  2002, section 3.1). torch is kept from products of fewer bits (TF32, bfloat16) while it multiplies.
- `similarity.margin` adds four roundings, for lengths that are rounded and divided by. `approximate.ARITHMETIC`, twice,
  is 67 u: it covers the six roundings of the comparison below, each of numbers of at most 2.

A comparison that goes wrong within the bound costs a pair that is settled for nothing. No pair is lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.devices import torch_name
from fairdedup.errors import FairdedupError

if TYPE_CHECKING:
    from fairdedup.core.approximate import ErrorTerms

TILE = 1 << 12  # rows and columns of a tile of pairs
COLUMNS = 1 << 16  # columns that the leaders of a sweep are multiplied by at a time
FILTERED = 1 << 24  # products that are filtered at a time: at most so many pairs come back, in 12 bytes each
_GROWTH = 4


class _Precision:
    """The precision that the program has set for torch, while threads of this module are in `in_float32`."""

    lock, threads, before = Lock(), 0, "highest"


_precision = _Precision()


class Candidates(NamedTuple):
    """Pairs of a tile that may reach a floor, by row and then by column.

    Attributes
    ----------
    rows, columns : ndarrays of shape (m,), int32
        Places in the tile.
    products : ndarray of shape (m,), float32
        Their products.
    """

    rows: NDArray[np.int32]
    columns: NDArray[np.int32]
    products: NDArray[np.float32]

    def split(self, most: int) -> Iterator[Candidates]:
        """Yield the pairs, at most so many at a time."""
        for first in range(0, len(self.rows), most):
            some = slice(first, first + most)
            yield Candidates(self.rows[some], self.columns[some], self.products[some])

    def starts(self, rows: slice) -> NDArray[np.int64]:
        """Return where the pairs of each of some rows begin, and the end of the last one's."""
        return np.searchsorted(self.rows, np.arange(rows.start, rows.stop + 1))


@dataclass(frozen=True)
class DeviceVectors:
    """Vectors on a device; the counterpart of `ApproximateVectors`.

    Attributes
    ----------
    values : torch.Tensor of shape (n, d), float32
        Values to multiply.
    terms : ErrorTerms of n rows
        Terms that turn a product of them into a cosine: those of `approximate_in_float32`.
    """

    values: Any
    terms: ErrorTerms
    rounded = False

    @classmethod
    def put(cls, x: NDArray[np.float32], terms: ErrorTerms, device: str) -> DeviceVectors | None:
        """Copy vectors (n, d) to a device; return None if they do not fit into its memory.

        Parameters
        ----------
        x : ndarray of shape (n, d), float32
            Float16 values.
        terms : ErrorTerms of n rows
        device : str
            What `choose_device` has returned, but for "cpu".
        """
        values = copy_to_device(x, device)
        return None if values is None else cls(values, terms)

    def __len__(self) -> int:
        return len(self.values)

    def take(self, index: NDArray[np.integer] | slice) -> DeviceVectors:
        """Return the rows at these positions."""
        terms = type(self.terms)(*(term[index] for term in self.terms))
        if isinstance(index, slice):
            return DeviceVectors(self.values[index], terms)
        import torch

        places = torch.from_numpy(np.asarray(index, np.int64)).to(self.values.device)
        with explain_memory():
            return DeviceVectors(self.values.index_select(0, places), terms)

    def move_up(self, index: NDArray[np.int64]) -> DeviceVectors:
        """Return the rows at these positions; the counterpart of `ApproximateVectors.move_up`."""
        return self.take(index)

    def multiply(self, other: DeviceVectors) -> DeviceProducts:
        """Return the products of all pairs of rows, which stay on the device."""
        with in_float32(), explain_memory():
            return DeviceProducts(self.values @ other.values.t(), self.terms, other.terms)


@dataclass(frozen=True)
class DeviceProducts:
    """Products of r rows with c columns.

    Attributes
    ----------
    values : torch.Tensor of shape (r, c), float32
    row, column : ErrorTerms of r and of c rows
    """

    values: Any
    row: ErrorTerms
    column: ErrorTerms

    @property
    def size(self) -> int:
        """Number of products."""
        return int(self.values.numel())

    def iterate_reaching(
        self,
        first: NDArray[np.float32],
        rows: slice | None = None,
        row_floor: NDArray[np.float64] | None = None,
    ) -> Iterator[tuple[slice, Candidates]]:
        """Yield the pairs whose cosine may reach the floors of both row and column, some rows at a time.

        Parameters
        ----------
        first : ndarray of shape (c,), float32
            `ColumnBounds.first` of the columns' floors. It may be raised while the pairs are used: rows that follow
            are compared with what it says then.
        rows : slice, optional
            Rows to compare; all if not given.
        row_floor : ndarray of shape (r,), float64, optional
            Floor of each row.

        Yields
        ------
        (slice, Candidates)
            The rows that were compared, and their pairs.
        """
        own = slice(0, len(self.values)) if rows is None else rows
        step = max(1, FILTERED // max(1, len(first)))
        device = self.values.device
        length, error = self.row.length, 1.01 * self.row.error  # lengths are at most 1.001
        for start in range(own.start, own.stop, step):
            some = slice(start, min(own.stop, start + step))
            products = self.values[some]
            with explain_memory():
                reaching = products >= _outer(length[some], first, -error[some], device)
                if row_floor is not None:
                    floors = (row_floor[some] - self.row.error[some]) * length[some]
                    turned = _outer(self.column.length, floors, -1.01 * self.column.error, device)
                    reaching &= products >= turned.t()
                found = copy_back(products, reaching, start)
            yield some, found


def _outer(a: NDArray[Any], b: NDArray[Any], c: NDArray[Any], device: Any) -> Any:
    """Return a b^T + c, for arrays (n,), (m,) and (n,), as a tensor (n, m) in float32."""
    import torch

    left, right, added = (torch.from_numpy(np.asarray(each, np.float32)).to(device) for each in (a, b, c))
    return torch.addcmul(added[:, None], left[:, None], right[None, :])


def copy_back(products: Any, chosen: Any, first: int = 0) -> Candidates:
    """Return what a mask chooses of products on a device.

    Parameters
    ----------
    products : torch.Tensor of shape (n, m), float32
    chosen : torch.Tensor of shape (n, m), bool
    first : int
        Place of the first row.
    """
    import torch

    pairs = torch.nonzero(chosen).int().t().contiguous().cpu().numpy()  # by row, then by column
    return Candidates(pairs[0] + np.int32(first), pairs[1], products[chosen].cpu().numpy())


def grow(n: int) -> Iterator[slice]:
    """Yield slices of n rows, each about three times as long as all before it.

    A sweep's floors rise with each leader, mostly with the first ones, and a filter knows those from before its rows.
    """
    start, stop = 0, 1
    while start < n:
        yield slice(start, min(n, stop))
        start, stop = stop, _GROWTH * stop


def copy_to_device(x: NDArray[np.float32], device: str) -> Any:
    """Return an array as a tensor on a device; None if it does not fit into the memory of the device."""
    import torch

    try:
        return torch.from_numpy(np.ascontiguousarray(x)).to(torch_name(device))
    except torch.OutOfMemoryError:
        return None


@contextmanager
def in_float32() -> Iterator[None]:
    """Let torch multiply float32 in full, whatever the program that calls has allowed: until no thread is in here."""
    import torch

    with _precision.lock:
        if not _precision.threads:
            _precision.before = torch.get_float32_matmul_precision()
            torch.set_float32_matmul_precision("highest")
        _precision.threads += 1
    try:
        yield
    finally:
        with _precision.lock:
            _precision.threads -= 1
            if not _precision.threads:
                torch.set_float32_matmul_precision(_precision.before)


@contextmanager
def explain_memory() -> Iterator[None]:
    """Raise a `FairdedupError` where the memory of the device does not suffice."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError:
        raise FairdedupError(
            "the memory of the GPU is full: end other programs that use it, or set CUDA_VISIBLE_DEVICES to nothing, "
            "which leaves the work to the CPU"
        ) from None
