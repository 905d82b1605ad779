"""`balanced`: the member that is rare in the whole data set, yet like its neighbourhood, is kept. Ours.

The rule has no state inside a cluster: what it needs to know about the data set is surveyed first. Part of the kept
count is reserved for rare rows that were removed (`core/seats.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fairdedup.core.rules.base import Preference, Rule

if TYPE_CHECKING:
    from fairdedup.core.arranged import ArrangedCluster
    from fairdedup.core.model import Plan

LIKENESS_WEIGHT = 60  # weight of h, the likeness to the mean of a neighbourhood, relative to the price


class Balanced(Rule):
    """Keep the member with the largest price + 60 h: rare by the data set's shares, yet like its neighbourhood."""

    name = "balanced"
    summary = (
        "the member whose concepts are rare in the whole data set and that is still like its neighbours; some seats "
        "are reserved for rare samples that were removed everywhere"
    )
    source = "ours"
    reads = ("cover", "prototypes", "target", "temperature", "reserve")
    needs_prototypes = True
    needs_memberships = True
    reserves_seats = True

    def preference(self, cluster: ArrangedCluster, plan: Plan) -> Preference:
        """Prefer rows with a high price that are like the members' mean."""
        return Preference.by_price(cluster.price(plan), LIKENESS_WEIGHT)
