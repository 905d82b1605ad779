"""What `deduplicate()` returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fairdedup.core.leftover import Leftover
from fairdedup.errors import UserError


@dataclass(frozen=True)
class Result:
    """What was kept, and why the rest was not.

    Attributes
    ----------
    kept : ndarray
        IDs of the kept samples, in input order.
    decisions : pandas.DataFrame
        A line for each valid row, in input order, with the columns row, id, cluster, neighbourhood (row of the leader
        of the step that visited it), kept, representative (row of the kept sample that represents it: itself if it is
        kept, the sample it was removed for if it is re-admitted, -1 for none), similarity (to the representative),
        centroid_similarity and readmitted.
    rejected : pandas.DataFrame
        A line for each row that could not be used, with the columns row, id and reason.
    eps : float or None
        Two samples of a cluster are duplicates when their cosine is above 1 - eps; None for the rule `random`.
    counts : dict
        Number of rows: input, valid, kept, removed, rejected, readmitted; and number of clusters.
    guarantees : dict
        Whether the guarantees hold for this result, apart from re-admitted rows: ``no_two_kept_are_duplicates`` (in a
        cluster) and ``every_removed_has_a_kept_representative`` (with a cosine above 1 - eps).
    warnings : list of str
        What the user should know about the result.
    leftover : Leftover or None
        How many of a sample of kept rows still have a kept duplicate, in their own cluster, in a comparable one and
        elsewhere: `looked_up`, `among`, `own`, `comparable`, `elsewhere`, `any`, and the 95 % `intervals` of their
        shares. None for ``leftover=0`` and for the rule `random`.
    """

    kept: NDArray[Any]
    decisions: pd.DataFrame
    rejected: pd.DataFrame
    eps: float | None
    counts: dict[str, int]
    guarantees: dict[str, bool]
    warnings: list[str] = field(default_factory=list)
    leftover: Leftover | None = None

    def __repr__(self) -> str:
        c = self.counts
        return (
            f"Result(kept {c['kept']:,} of {c['input']:,}, removed {c['removed']:,}, rejected {c['rejected']:,}, "
            f"eps {self.eps})"
        )

    @property
    def stands_for(self) -> NDArray[np.int64]:
        """How many removed samples each kept one represents, in the order of `kept`: (k,), int64.

        The column ``stands_for`` of kept/ holds the same numbers. A re-admitted sample stands for none.
        """
        table = self.decisions
        kept = table["kept"].to_numpy()
        rows, representative = table["row"].to_numpy()[kept], table["representative"].to_numpy()[~kept]
        order = np.sort(representative)
        return np.searchsorted(order, rows, side="right") - np.searchsorted(order, rows)

    def duplicates_of(self, name: Any) -> NDArray[Any]:
        """Return the ids of the removed samples that a kept one stands for, most similar first.

        Parameters
        ----------
        name : hashable
            ID of a sample. A removed or re-admitted one stands for none.

        Raises
        ------
        UserError
            If no valid sample has the id.
        """
        table = self.decisions
        rows = table["row"].to_numpy()[(table["id"] == name).to_numpy()]
        if not len(rows):
            raise UserError(f"`name={name!r}` is not the id of a valid sample: see the column id of `decisions`")
        found = table[(table["representative"] == rows[0]) & ~table["kept"]]
        return found.sort_values(["similarity", "row"], ascending=[False, True])["id"].to_numpy()
