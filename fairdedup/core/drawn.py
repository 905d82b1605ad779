"""The rows of a cluster that a rule without eps keeps: those with the lowest ranks of the whole data set."""

from __future__ import annotations

import numpy as np

from fairdedup.core.arranged import ArrangedCluster
from fairdedup.core.model import Plan
from fairdedup.core.rules.base import Representatives


def represent_drawn(cluster: ArrangedCluster, plan: Plan) -> Representatives:
    """Return each row as its own representative if it is kept, and no representative otherwise.

    Pinned rows are kept, and rows up to the last one that is drawn.

    Parameters
    ----------
    cluster : ArrangedCluster
        The rows in visiting order.
    plan : Plan
        What is known about the whole data set, with `last_drawn`.
    """
    assert plan.last_drawn is not None
    rows, last = cluster.rows, plan.last_drawn
    rank = plan.options.rule.rank_rows(rows, plan.options)
    kept = cluster.pinned.mask | (rank < last.rank) | ((rank == last.rank) & (rows <= last.row))
    return Representatives(cluster.places, np.where(kept, cluster.places, -1))
