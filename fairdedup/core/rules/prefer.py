"""`prefer`: the member with the highest value of the user's own column is kept. Ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fairdedup.core.rules.base import Preference, Rule

if TYPE_CHECKING:
    from fairdedup.core.arranged import ArrangedCluster
    from fairdedup.core.model import Plan


class Prefer(Rule):
    """Keep the member with the highest value of a column: quality, resolution, a score."""

    name = "prefer"
    summary = (
        "the member with the highest value of your own column of numbers (the option `prefer`); missing values come "
        "last, ties go to the lowest row"
    )
    source = "ours"
    reads = ("cover", "prefer")
    needs_column = True

    def preference(self, cluster: ArrangedCluster, plan: Plan) -> Preference:
        """Prefer the highest value."""
        assert cluster.values is not None
        return Preference.by_price(cluster.values)
