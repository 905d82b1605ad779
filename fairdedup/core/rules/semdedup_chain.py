"""`semdedup-chain`: what SemDeDup's published code does, to reproduce old runs. It does not sweep."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fairdedup.core.rules.base import Representatives, Rule

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fairdedup.core.arranged import ArrangedCluster
    from fairdedup.core.model import Part, Plan


class SemDeDupChain(Rule):
    """Remove every row that is similar to any earlier row in visiting order, removed rows included."""

    name = "semdedup-chain"
    summary = "what SemDeDup's published code keeps, to reproduce old runs; it does not sweep"
    source = "SemDeDup's code"
    reads = ()
    sweeps = False
    accepts_pinned_rows = False

    def count_kept(self, part: Part, eps: list[int], plan: Plan) -> NDArray[np.int64]:
        """Return how many rows of a part are kept at each eps."""
        from fairdedup.core.chain import count_chain

        return count_chain(part, eps)

    def represent(self, cluster: ArrangedCluster, eps: int, plan: Plan) -> Representatives:
        """Return the first row of each row's chain, and its most similar earlier row (itself if it is kept)."""
        from fairdedup.core.chain import represent_chain

        return represent_chain(cluster, eps)
