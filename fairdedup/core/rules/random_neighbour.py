"""`random-neighbour`: a random member of each neighbourhood is kept. A baseline for rules that choose."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fairdedup.core.rules.base import Preference, Rule

if TYPE_CHECKING:
    from fairdedup.core.arranged import ArrangedCluster
    from fairdedup.core.model import Plan


class RandomNeighbour(Rule):
    """Keep a random member of each neighbourhood."""

    name = "random-neighbour"
    summary = "a random member: the one with the largest hash of row and seed, ties to the lowest row"
    source = "baseline"
    reads = ("cover", "seed")

    def preference(self, cluster: ArrangedCluster, plan: Plan) -> Preference:
        """Prefer the row with the largest hash of seed and row, which does not depend on how the data is divided."""
        from fairdedup.core.row_hash import row_hash

        return Preference.by_price(row_hash(cluster.rows, plan.options.seed))
