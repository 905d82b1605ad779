"""`semdedup-chain`: what SemDeDup's published code does, to reproduce old runs. It does not sweep."""

from __future__ import annotations

from fairdedup.core.rules.base import Procedure, Rule


class SemDeDupChain(Rule):
    """Remove every row that is similar to any earlier row in visiting order, removed rows included."""

    name = "semdedup-chain"
    summary = "what SemDeDup's published code keeps, to reproduce old runs; it does not sweep"
    source = "SemDeDup's code"
    reads = ()
    procedure = Procedure.CHAIN
    accepts_pinned_rows = False
