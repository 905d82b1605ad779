"""`fairdedup`: the member most similar to the least represented concept is kept (Slyman et al. 2024, Algorithm 1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fairdedup.core.rules.base import Preference, Rule

if TYPE_CHECKING:
    from fairdedup.core.arranged import ArrangedCluster
    from fairdedup.core.model import Options, Plan


class FairDeDup(Rule):
    """Keep the member most similar to the concept least represented so far in the cluster."""

    name = "fairdedup"
    summary = (
        'the member most similar to the concept ("an older person", "a woman" …) that is least represented so far in '
        "its cluster"
    )
    source = "Slyman et al. 2024, Algorithm 1"
    reads = ("cover", "prototypes", "start", "calibrate")
    needs_prototypes = True

    def needs_moments(self, options: Options) -> bool:
        """Tell whether similarities are standardised over the data set first."""
        return options.calibrate == "zscore"

    def preference(self, cluster: ArrangedCluster, plan: Plan) -> Preference:
        """Prefer the rows most similar to the concept that has the lowest sum at that step."""
        return Preference.by_least_represented(cluster.concept_similarity(plan), start=plan.options.start)
