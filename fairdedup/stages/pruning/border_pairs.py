"""An example pair at an eps: the removed row that is least similar to its representative, of those that are linked.

A task decides a range of clusters and returns that pair alone, so no decision leaves its worker.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fairdedup.core.model import Plan
from fairdedup.core.part import Shared
from fairdedup.core.parts import Decided, decide_part
from fairdedup.core.round_state import Trial
from fairdedup.core.round_steps import Keepers, decide_in_part
from fairdedup.core.similarity import EPS_UNIT
from fairdedup.stages.pruning.cluster_ranges import ClusterRange


class BorderPair(NamedTuple):
    """A removed row, the row that represents it, and their cosine."""

    row: int
    representative: int
    similarity: float


@dataclass
class BorderDecided(Decided):
    """A decision of which only its pair is left.

    Attributes
    ----------
    pair : BorderPair or None
    """

    pair: BorderPair | None = None


def find_border_pair(part: ClusterRange, eps: int, plan: Plan) -> BorderPair | None:
    """Decide a range of clusters, and return its linked pair with the least cosine; None if there is none.

    Parameters
    ----------
    part : ClusterRange
    eps : int
        Ten-thousandths.
    plan : Plan
    """
    return _find_pair(decide_part(part, eps, plan), eps)


def find_border_pair_across(
    part: ClusterRange, own: tuple[int, Keepers], trial: Trial, plan: Plan, kept: Shared
) -> BorderDecided:
    """Take the last step of a decision in rounds, and return the pair that `find_border_pair` would.

    Parameters
    ----------
    part : ClusterRange
    own : (int, Keepers)
        As `decide_in_part` has them.
    trial : Trial
    plan : Plan
    kept : Shared
        Whether each row of the input is kept.
    """
    decided = decide_in_part(part, own, trial, plan, kept)
    rows = np.zeros(0, np.int64)
    return BorderDecided({}, rows, np.zeros(0), [], rows, decided.distinct, _find_pair(decided, trial.eps))


def choose_border_pair(pairs: Iterable[BorderPair | None]) -> BorderPair | None:
    """Return the pair with the least cosine, ties to the lower row; None if there is none."""
    found = [pair for pair in pairs if pair is not None]
    return min(found, key=lambda pair: (pair.similarity, pair.row), default=None)


def _find_pair(decided: Decided, eps: int) -> BorderPair | None:
    columns = decided.columns
    linked = ~columns["kept"] & (columns["representative"] >= 0) & (columns["similarity"] > 1 - eps / EPS_UNIT)
    places = np.flatnonzero(linked)
    if not len(places):
        return None
    first = places[np.lexsort((columns["row"][places], columns["similarity"][places]))[0]]
    row, representative, similarity = (columns[name][first] for name in ("row", "representative", "similarity"))
    return BorderPair(int(row), int(representative), float(similarity))
