"""A user's own rule, as in docs/rules.md: it needs no other change of the package."""

from __future__ import annotations

from fairdedup.core.arranged import ArrangedCluster
from fairdedup.core.model import Plan
from fairdedup.core.rules.base import Preference, Rule
from fairdedup.core.rules.registry import register
from fairdedup.core.similarity import quantised


@register
class Central(Rule):
    """Keep the most typical member of each neighbourhood."""

    name = "central"
    summary = "the member nearest to the centroid, the most typical"

    def preference(self, cluster: ArrangedCluster, plan: Plan) -> Preference:
        """Prefer the highest similarity to the centroid."""
        return Preference.by_price(quantised(cluster.centroid_similarity))
