"""`semdedup`: the leader of each neighbourhood is kept (Abbas et al. 2023, section 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fairdedup.core.rules.base import Preference, Rule

if TYPE_CHECKING:
    from fairdedup.core.arranged import ArrangedCluster
    from fairdedup.core.model import Plan


class SemDeDup(Rule):
    """Keep the leader: the member farthest from the centroid."""

    name = "semdedup"
    summary = "the leader: the member farthest from the centroid, the oddest"
    source = "Abbas et al. 2023"
    promises_without_cover = True

    def preference(self, cluster: ArrangedCluster, plan: Plan) -> Preference:
        """Prefer the first row in visiting order."""
        return Preference.by_price(-cluster.places)
