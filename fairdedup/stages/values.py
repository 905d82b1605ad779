"""What stages return and other stages take: the values that pass between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.decision import Decision
from fairdedup.core.moments import MembershipMoments
from fairdedup.storage.manifest import Counts, GroupShare


class DecidedTask(NamedTuple):
    """Decisions that a prune task has written to disk.

    Attributes
    ----------
    number : int
        Number of the task.
    bounds : ndarray of shape (g + 1,), int64
        Where the rows of each group of shards begin among those of the task.
    """

    number: int
    bounds: NDArray[np.int64]


@dataclass(frozen=True)
class Pruned:
    """A decision over a clustered run whose results are not written yet.

    Attributes
    ----------
    decision : Decision
    tasks : list of DecidedTask
    shares : list of GroupShare
        Share of each concept by soft membership; empty without prototypes.
    absent : list of str
        Attributes that hardly any sample shows; they have no shares.
    temperatures : tuple of float
        Temperature of each attribute's memberships.
    memberships : tuple of MembershipMoments
        Moments of each attribute's memberships over the valid rows.
    doubts : list of str
        What speaks against the shares.
    warnings : list of str
    """

    decision: Decision
    tasks: list[DecidedTask]
    shares: list[GroupShare]
    absent: list[str]
    temperatures: tuple[float, ...]
    memberships: tuple[MembershipMoments, ...]
    doubts: list[str]
    warnings: list[str]


@dataclass(frozen=True)
class Written:
    """The results of a run on disk.

    Attributes
    ----------
    counts : Counts
    seals : dict of str to str
        Seal of every part of decisions/, kept/ and rejected/, by its path below the run directory.
    cosines : ndarray of shape (201,), int64
        Number of removed rows by the cosine to their representative, in whole hundredths from -1, rounded down.
    """

    counts: Counts
    seals: dict[str, str]
    cosines: NDArray[np.int64]
