"""What a decision works on: the parts of a clustered data set, how steps are mapped over them, and what steps leave.

These are protocols. `in_memory` implements them for arrays, and `stages/pruning` for the files of a run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.model import Cluster, EarlierKept


class Visitors(NamedTuple):
    """Rows of other clusters that reach a cluster.

    Attributes
    ----------
    rows : ndarray of shape (m,), int64
        Positions in the input.
    unit : ndarray of shape (m, d), float16
        Unit vectors of the rows.
    needed : ndarray of shape (m,), int
        The least eps at which each reaches the cluster, in ten-thousandths.
    within : ndarray of shape (m,), int64, or None
        Codes of the values within which rows are compared.
    """

    rows: NDArray[np.int64]
    unit: NDArray[np.float16]
    needed: NDArray[np.integer]
    within: NDArray[np.int64] | None = None

    @classmethod
    def join(cls, pieces: Sequence[Visitors]) -> Visitors:
        """Return the rows of several pieces, at least one, all with codes or all without."""
        if len(pieces) == 1:
            return pieces[0]
        rows, unit, needed, within = zip(*pieces, strict=True)
        codes = None if within[0] is None else np.concatenate(within)
        return cls(np.concatenate(rows), np.concatenate(unit), np.concatenate(needed), codes)


class Part(Protocol):
    """Some clusters of the data set, read one at a time."""

    @property
    def rows(self) -> int:
        """Number of rows."""
        ...

    @property
    def index(self) -> int:
        """Place of the part among all parts."""
        ...

    @property
    def memo(self) -> dict[Any, Any]:
        """Cache that a pass leaves for the next one in the same process; it only saves time."""
        ...

    def clusters(self) -> Iterator[Cluster]:
        """Yield the clusters, always in the same order."""
        ...

    def visitors(self, cluster: int, flags: NDArray[np.uint8], wanted: int, eps: int) -> Iterator[Visitors]:
        """Yield the rows that reach a cluster at an eps and whose flags, by row, have any of the wanted bits.

        They come a block at a time: there may be many more of them than the cluster has rows.
        """
        ...

    def clusters_with_earlier(self) -> list[int]:
        """Return the numbers of the clusters that earlier runs kept samples of; they may have no row."""
        ...

    def earlier(self, cluster: int) -> EarlierKept:
        """Return the samples that earlier runs kept of a cluster."""
        ...

    def earlier_visitors(self, cluster: int) -> Iterator[EarlierKept]:
        """Yield the samples that earlier runs kept in other clusters and that reach a cluster, a block at a time.

        They reach it at the eps of their line, whatever the eps of the decision.
        """
        ...

    def save(self, name: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Keep arrays for a later step, which may run in another process. A name is never used twice."""
        ...

    def load(self, name: str) -> Mapping[str, NDArray[Any]] | None:
        """Return the arrays of a name, read-only; None if there are none."""
        ...


class MapParts(Protocol):
    """Maps a function over parts and returns the results in the order of the parts."""

    def __call__(
        self,
        step: str,
        function: Callable[..., Any],
        parts: Sequence[Any],
        *args: Any,
        own: Sequence[Any] | None = None,
    ) -> list[Any]:
        """Return ``function(part, *args)`` of each part, in the order of the parts.

        Parameters
        ----------
        step : str
            Name of the step, for progress.
        function : callable
            A module-level function, so that it can be pickled.
        parts : sequence
            Parts to map over.
        *args
            Further arguments of every call.
        own : sequence, optional
            An argument for each part, which comes before the others.
        """
        ...


class Shared(Protocol):
    """An array that every task of a step reads."""

    def read(self) -> NDArray[Any]:
        """Return the array, read-only."""
        ...


class Workspace(Protocol):
    """What a decision in rounds leaves for its own later steps."""

    @property
    def input(self) -> int:
        """Number of rows of the input."""
        ...

    def share(self, array: NDArray[Any]) -> Shared:
        """Return an array as tasks read it; it may be forgotten once another one is shared."""
        ...

    def list_visits(self, eps: int) -> None:
        """Prepare what `Part.visitors` needs at any eps up to one, in ten-thousandths; any before is forgotten."""
        ...

    def forget(self, prefix: str) -> None:
        """Remove what parts have saved under names that begin like this."""
        ...
