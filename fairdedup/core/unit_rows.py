"""What holds the unit vectors of a cluster: an array, or files that are read when a step asks for some of them."""

from __future__ import annotations

from typing import Any, Protocol


class UnitRows(Protocol):
    """Unit vectors (n, d), float16: an array, or rows of files that are read when a step needs them."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of rows and of dimensions."""
        ...

    def __getitem__(self, index: Any, /) -> Any:
        """Return the rows of a slice, of positions or of a mask, as an array."""
        ...
