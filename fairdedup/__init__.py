"""fairdedup: semantic deduplication of image-text data that does not forget the rare."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fairdedup.errors import FairdedupError, UserError

if TYPE_CHECKING:
    from fairdedup.api import Result, deduplicate

__version__ = "0.1.0"
__all__ = ["FairdedupError", "Result", "UserError", "deduplicate"]


def __getattr__(name: str) -> Any:
    # pandas and numba load with the first use, so that `fairdedup --help` answers at once.
    if name in ("deduplicate", "Result"):
        from fairdedup import api

        return getattr(api, name)
    raise AttributeError(f"module 'fairdedup' has no attribute {name!r}")
