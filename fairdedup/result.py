"""What `deduplicate()` returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fairdedup.argument_checks import check_text, read_whole
from fairdedup.core.leftover import Leftover
from fairdedup.core.similarity import EPS_UNIT
from fairdedup.errors import UserError, format_count
from fairdedup.report.leftover_summary import NEAR_COSINE, describe_few_near

if TYPE_CHECKING:
    from fairdedup.report.drawing import Drawing

SHOWN_PAIRS = 50  # least similar pairs on the page of `to_html`
PLOTS = ("curve", "histogram")


@dataclass(frozen=True, repr=False)
class Result:
    """What was kept, and why the rest was not.

    It holds the unit vectors (2 bytes a value) and the pairs of duplicates that were found, for `rethreshold`. A copy
    and a pickle of it leave them out.

    Attributes
    ----------
    kept : ndarray of shape (k,)
        IDs of the kept samples, in input order.
    decisions : pandas.DataFrame
        A line for each valid row, in input order, with the columns row, id, cluster, neighbourhood (row of the leader
        of the step that visited it), kept, representative (row of the kept sample that represents it: itself if it is
        kept, the sample it was removed for if it is re-admitted, -1 for none), similarity (to the representative),
        centroid_similarity and readmitted. Rows and clusters are int64, cosines float64, kept and readmitted bool.
    rejected : pandas.DataFrame
        A line for each row that could not be used, with the columns row, id and reason.
    eps : float or None
        Two samples that are compared are duplicates when their cosine is above 1 - eps; None for the rule `random`.
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
    _decide_at: Callable[[Any], Result] | None = field(default=None, compare=False)

    def __repr__(self) -> str:
        c, similarity = self.counts, self._similarity
        again = f" ({c['readmitted']:,} re-admitted)" if c["readmitted"] else ""
        lines = [
            f"Result: kept {c['kept']:,}{again} of {format_count(c['input'], 'row')}, removed {c['removed']:,}, "
            f"rejected {c['rejected']:,}"
        ]
        facts = [] if self.eps is None else [f"eps {self.eps:.4f}: duplicates have a cosine above {1 - self.eps:.4f}"]
        if len(similarity):
            facts.append(f"cosines of the removed to the kept: {similarity.min():.4f} to {similarity.max():.4f}")
        if self.warnings:
            facts.append(format_count(len(self.warnings), "warning"))
        return "\n  ".join([*lines, *(["; ".join(facts)] if facts else []), *self._doubts])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_decide_at": None}

    @property
    def _doubts(self) -> list[str]:
        """What to say where hardly any removed row is a near-duplicate."""
        cosines = self._similarity
        if not len(cosines) or self.eps is None:
            return []
        near = int(np.count_nonzero(cosines >= NEAR_COSINE))
        said = describe_few_near(len(cosines), near, float(np.median(cosines)))
        return [] if said is None else [f"{said}; to remove near-duplicates only: eps={1 - NEAR_COSINE:.2g}"]

    @property
    def _removed(self) -> NDArray[np.bool_]:
        """Mask of the removed rows of `decisions` that a sample represents."""
        table = self.decisions
        return ~table["kept"].to_numpy() & (table["representative"].to_numpy() >= 0)

    @property
    def _similarity(self) -> NDArray[np.float64]:
        """Cosine of each of these rows to its representative."""
        return self.decisions["similarity"].to_numpy(np.float64)[self._removed]

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

        Returns
        -------
        ndarray of shape (m,)
            Their ids, of the type of `kept`.

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

    def pairs(self) -> pd.DataFrame:
        """Return each removed sample with the one that stands for it, in input order.

        Returns
        -------
        pandas.DataFrame
            The columns removed and kept (ids), cosine (float64), removed_row and kept_row (int64). With the rule
            `semdedup-chain` the sample in `kept` may itself be removed. The rule `random` has no pairs.
        """
        table, removed = self.decisions, self._removed
        rows, keepers = table["row"].to_numpy()[removed], table["representative"].to_numpy()[removed]
        places = np.searchsorted(table["row"].to_numpy(), keepers)
        columns = {
            "removed": table["id"].iloc[np.flatnonzero(removed)].array,
            "kept": table["id"].iloc[places].array,
            "cosine": self._similarity,
            "removed_row": rows,
            "kept_row": keepers,
        }
        return pd.DataFrame(columns)

    def least_similar(self, n: int = 10) -> pd.DataFrame:
        """Return the pairs with the lowest cosines: look at them to see whether eps is too large.

        Parameters
        ----------
        n : int
            Number of pairs; 0 or more.

        Returns
        -------
        pandas.DataFrame
            Up to n lines of `pairs`, the least similar first (ties: the lowest removed row).

        Raises
        ------
        UserError
            If n is not a whole number from 0 on.
        """
        n = read_whole("n", n)
        if n < 0:
            raise UserError(f"`n` must be 0 or more; got {n}: give one such as `n=10`")
        return self.pairs().sort_values(["cosine", "removed_row"]).head(n).reset_index(drop=True)

    def rethreshold(self, eps: float) -> Result:
        """Return the result at another eps: that of `deduplicate` with the same arguments and this eps.

        Vectors are not converted and not clustered again. Where rows are compared across clusters, as by default, the
        pairs of duplicates that were found serve every eps that is not much larger. Otherwise they are looked for anew.

        Parameters
        ----------
        eps : float
            A whole number of ten-thousandths, 0 to 2.

        Returns
        -------
        Result
            Nothing is re-admitted.

        Raises
        ------
        UserError
            If eps is wrong, the rule has none, or this is a copy of a result.
        """
        if self._decide_at is None:
            raise UserError(
                "`rethreshold` needs the vectors, and copies of a result have none: call `deduplicate` with `eps`"
            )
        return self._decide_at(eps)

    def plot(self, kind: str = "curve") -> Drawing:
        """Draw the result as SVG. A notebook shows it; ``Path("plot.svg").write_text(result.plot())`` keeps it.

        Parameters
        ----------
        kind : {"curve", "histogram"}
            The kept fraction if only samples within a smaller eps of their representative were removed, or how similar
            the removed samples are to their representatives.

        Returns
        -------
        Drawing
            A text, the SVG.

        Raises
        ------
        UserError
            If the kind is unknown, or there is nothing to draw.
        """
        from fairdedup.report import plots
        from fairdedup.report.drawing import make_drawing

        check_text("kind", kind, " or ".join(PLOTS))
        if kind not in PLOTS:
            raise UserError(f"`kind={kind}` is unknown: choose {' or '.join(PLOTS)}")
        similarities = self._count_similarities()
        if not similarities.any():
            raise UserError("no sample was removed for another, so there is nothing to draw: see `result.counts`")
        if kind == "histogram":
            return make_drawing(plots.draw_histogram(similarities, None if self.eps is None else 1 - self.eps))
        assert self.eps is not None  # only a rule without eps has none, and removes no sample for another
        return make_drawing(plots.draw_curve(similarities, self.counts["valid"], self.eps))

    def to_html(self) -> str:
        """Return a page about the result: one HTML file that loads nothing.

        It has the counts, what was checked, both plots, the least similar pairs and the rejected rows by reason.

        Returns
        -------
        str
        """
        from fairdedup.report.result_page import ResultFigures, render_result

        shown = self.least_similar(SHOWN_PAIRS)[["removed", "kept", "cosine"]]
        reasons: dict[str, list[str]] = {}
        for reason, name in zip(self.rejected["reason"], self.rejected["id"], strict=True):
            reasons.setdefault(reason, []).append(str(name))
        return render_result(
            ResultFigures(
                counts=self.counts,
                eps=self.eps,
                guarantees=self.guarantees,
                warnings=[*self.warnings, *self._doubts],
                leftover=self.leftover,
                similarities=self._count_similarities(),
                pairs=[(str(a), str(b), float(c)) for a, b, c in shown.itertuples(index=False)],
                rejections=[(len(names), reason, names[0]) for reason, names in reasons.items()],
            )
        )

    def _count_similarities(self) -> NDArray[np.int64]:
        """Return the number of removed samples by cosine, in ten-thousandths from -1: (20001,)."""
        units = np.rint(self._similarity * EPS_UNIT).astype(np.int64).clip(-EPS_UNIT, EPS_UNIT)
        return np.bincount(units + EPS_UNIT, minlength=2 * EPS_UNIT + 1)
