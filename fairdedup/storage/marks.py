"""Marks of rows: excluded, protected, and the values that a decision compares, in the order of the sorted vectors."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairdedup.errors import visible
from fairdedup.storage.sealed_files import Unsealed, load_array, load_table

MARK = np.dtype([("excluded", "?"), ("protected", "?"), ("value", "<i8"), ("within", "<i8")])
WRITTEN = "a task of the same command has written it, and the command removes it when it ends"
EXCLUDED = np.dtype([("row", "<i8"), ("reason", "<i8"), ("near", "<i8")])  # near: an evaluation sample, or -1


@dataclass(frozen=True)
class Marks:
    """The marks of a run: where they are, and their sums.

    Attributes
    ----------
    folder : Path or None
        Folder that holds them; None if no option marks any row.
    excluded, protected : ndarray of shape (k,), int64, or 0
        Number of excluded and of protected rows in each cluster.
    reasons : tuple of str
        Texts of the reasons for exclusion; marks refer to them by number.
    warnings : list of str
    """

    folder: Path | None = None
    excluded: NDArray[np.int64] | int = 0
    protected: NDArray[np.int64] | int = 0
    reasons: tuple[str, ...] = ()
    warnings: list[str] = field(default_factory=list)

    def path(self, number: int) -> Path:
        """Return the path of a group's marks, in the order of its sorted rows."""
        assert self.folder is not None
        return self.folder / f"marks_{number}.npy"

    def excluded_path(self, number: int) -> Path:
        """Return the path of a group's excluded rows, ascending, each with its reason."""
        assert self.folder is not None
        return self.folder / f"excluded_{number}.npy"

    @property
    def evaluation(self) -> Path:
        """Path of the ids of evaluation samples; `near` is a place among them."""
        assert self.folder is not None
        return self.folder / "evaluation.parquet"

    def texts(self, excluded: NDArray[Any]) -> list[str]:
        """Return the reason of each excluded row, as text; `excluded` is an array of `EXCLUDED`."""
        if not (excluded["near"] >= 0).any():
            return [self.reasons[why] for why in excluded["reason"].tolist()]
        ids = load_table(Unsealed(self.evaluation, WRITTEN), ["id"]).column("id")
        return [
            self.reasons[why] + (f" {visible(ids[near].as_py())!r}" if near >= 0 else "")
            for _, why, near in excluded.tolist()
        ]

    def of_group(self, number: int) -> NDArray[Any]:
        """Return a group's excluded rows, as `EXCLUDED`."""
        return load_array(Unsealed(self.excluded_path(number), WRITTEN)) if self.folder else np.zeros(0, EXCLUDED)

    @property
    def always_kept(self) -> int:
        """Number of protected rows."""
        return int(np.sum(self.protected))
