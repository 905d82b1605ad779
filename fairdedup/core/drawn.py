"""What a rule without eps keeps of a cluster: the rows with the lowest ranks of the whole data set."""

from __future__ import annotations

import numpy as np

from fairdedup.core.arranged import ArrangedCluster
from fairdedup.core.model import Plan
from fairdedup.core.rules.base import Representatives


def represent_drawn(cluster: ArrangedCluster, plan: Plan) -> Representatives:
    """Return each row itself where it is kept: a pinned row, or one up to the last that is drawn; else none."""
    assert plan.last_drawn is not None
    rows, last = cluster.rows, plan.last_drawn
    rank = plan.options.rule.rank_rows(rows, plan.options)
    kept = cluster.pinned.mask | (rank < last.rank) | ((rank == last.rank) & (rows <= last.row))
    return Representatives(cluster.places, np.where(kept, cluster.places, -1))
