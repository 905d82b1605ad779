"""The procedures that rules choose from: how rows are counted, and decided, at an eps.

A rule names its procedure and never imports it, so rules are listed without loading compiled code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.arranged import ArrangedCluster
from fairdedup.core.chain import count_chain, represent_chain
from fairdedup.core.drawn import represent_drawn
from fairdedup.core.model import Plan
from fairdedup.core.part import Part
from fairdedup.core.rules.base import Procedure, Representatives
from fairdedup.core.swept import count_swept, represent_swept


@dataclass(frozen=True)
class Steps:
    """The two steps of a procedure.

    Attributes
    ----------
    count : callable or None
        ``count(part, eps, plan)`` returns how many rows of a part are kept at each of some ascending eps. None for a
        procedure without eps.
    represent : callable
        ``represent(cluster, eps, plan)`` returns the leader and the representative of each row of a cluster.
    """

    count: Callable[[Part, list[int], Plan], NDArray[np.int64]] | None
    represent: Callable[[ArrangedCluster, int, Plan], Representatives]


STEPS = {
    Procedure.SWEEP: Steps(count_swept, represent_swept),
    Procedure.CHAIN: Steps(count_chain, represent_chain),
    Procedure.DRAW: Steps(None, represent_drawn),
}
