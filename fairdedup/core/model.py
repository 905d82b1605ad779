"""The data model of `core`: the options of a decision, the clusters, and the facts about the whole data set.

Values only: nothing here computes a decision.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.moments import MembershipMoments, Moments, PriceTerm
from fairdedup.core.prototypes import Prototypes
from fairdedup.core.reach import REACH_CLUSTERS, check_reach
from fairdedup.core.rules.base import Rule
from fairdedup.core.rules.registry import DEFAULT, all_rules, find_rule, sweeping_names
from fairdedup.core.unit_rows import UnitRows
from fairdedup.errors import UserError

MOST_RESERVED = 0.3
_CHOICES = {"start": ("cluster", "zero"), "calibrate": ("none", "zscore")}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of a decision; docs/rules.md defines each of them.

    Attributes
    ----------
    rule : Rule
        The rule; the constructor also accepts its name.
    cover : bool
        Whether a kept sample removes only its own duplicates.
    seed : int
        Seed of the random rules and of the sample behind the first guess of eps.
    start : {"cluster", "zero"}
        Where concept sums start.
    calibrate : {"none", "zscore"}
        Whether the similarity to each concept is standardised over the data set first.
    target : {"uniform", "data"} or mapping attribute -> {concept: share}
        Shares to aim at.
    temperature : float, "auto" or mapping attribute -> float
        Temperature of the membership softmax.
    reserve : float
        Share of the kept count that is reserved for rare rows; 0 to 0.3.
    protected : bool
        Whether some rows are kept whatever the rule is.
    reach : "auto" or float
        How near another cluster a row must lie to be compared with its rows; 0 means never.
    reach_clusters : int
        Number of most similar clusters that a row can reach, its own included.
    within : bool
        Whether rows are compared only where the values of a column are equal.

    Raises
    ------
    UserError
        If a value is unknown or out of range, or the rule cannot be combined with `cover`, `within` or protected rows.
    """

    rule: Rule = field(default_factory=lambda: find_rule(DEFAULT))
    cover: bool = False
    seed: int = 0
    start: str = "cluster"
    calibrate: str = "none"
    target: Any = "uniform"
    temperature: Any = "auto"
    reserve: float = 0.1
    protected: bool = False
    reach: str | float = 0
    reach_clusters: int = REACH_CLUSTERS
    within: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.rule, Rule):
            object.__setattr__(self, "rule", find_rule(self.rule))
        name = self.rule.name
        check_reach(self.reach, self.reach_clusters)
        if self.cover and not self.rule.sweeps:
            raise UserError(
                f"`cover` cannot be combined with `rule={name}`: choose one of {', '.join(sweeping_names())}"
            )
        if self.within and not self.rule.has_eps:
            known = ", ".join(each.name for each in all_rules() if each.has_eps)
            raise UserError(
                f"`within` cannot be combined with `rule={name}`, which compares no rows: choose one of {known}"
            )
        if self.protected and not self.rule.accepts_pinned_rows:
            known = ", ".join(each.name for each in all_rules() if each.accepts_pinned_rows)
            raise UserError(f"`always_keep` cannot be combined with `rule={name}`: choose one of {known}")
        for option, known_values in _CHOICES.items():
            value = getattr(self, option)
            if value not in known_values:
                raise UserError(f"`{option}={value}` is unknown: choose one of {', '.join(known_values)}")
        if not isinstance(self.target, Mapping) and self.target not in ("uniform", "data"):
            raise UserError(f"`target={self.target}` is unknown: choose uniform, data or {{attribute: shares}}")
        automatic = self.temperature == "auto" or isinstance(self.temperature, Mapping)
        if not automatic and not is_positive(self.temperature):
            raise UserError(f"`temperature` must be a number above 0, or auto; got {self.temperature}")
        if not 0 <= self.reserve <= MOST_RESERVED:
            raise UserError(f"`reserve` must be in [0, {MOST_RESERVED}]; got {self.reserve:g}")

    @property
    def looks_across(self) -> bool:
        """Whether rows of different clusters are compared."""
        return self.rule.sweeps and bool(self.reach) and self.reach_clusters > 1

    @property
    def own_reach(self) -> float | str:
        """The reach that the decision has; 0 if its rule does not look across clusters."""
        if not self.looks_across:
            return 0.0
        return self.reach if isinstance(self.reach, str) else float(self.reach)

    @property
    def other_clusters(self) -> int:
        """Number of other clusters that a row can reach."""
        return self.reach_clusters - 1 if self.looks_across else 0

    @property
    def hands_over_duplicates(self) -> bool:
        """Whether a candidate that is taken hands over duplicates of the kept one only, and the other rows are open."""
        return self.rule.guarantees(cover=self.cover)


def is_positive(value: Any) -> bool:
    """Tell whether a value is a finite number above 0."""
    try:
        return isinstance(value, Real) and 0 < float(value) < math.inf
    except OverflowError:
        return False


@dataclass(frozen=True)
class EarlierKept:
    """Samples of one cluster that earlier runs kept. They stay kept; rows that duplicate them are removed first.

    Attributes
    ----------
    unit : ndarray of shape (m, d), float16
        Their unit vectors, in the order that breaks ties: by run, then by row.
    names : ndarray of shape (m,), int64, 0 or more, ascending
        Numbers by which decisions refer to them.
    order : ndarray of shape (m,), int64, from 0 to 2^61, ascending
        Place of each in the order that breaks ties, over all clusters.
    sums : ndarray of shape (c,), int64, or None
        Value that each concept's sum has reached (`fairdedup`); None where no earlier run had a row in the cluster.
    within : ndarray of shape (m,), int64, or None
        Codes of their values, as `Cluster.within` has them.
    """

    unit: NDArray[np.float16]
    names: NDArray[np.int64]
    order: NDArray[np.int64]
    sums: NDArray[np.int64] | None = None
    within: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Inherited:
    """What a decision takes over from earlier runs.

    Attributes
    ----------
    eps : int
        Smallest eps that the decision may use, in ten-thousandths.
    temperatures : tuple of float
        Temperature of each attribute's memberships.
    memberships : tuple of MembershipMoments
        Moments of each attribute's memberships over the rows of the earlier runs.
    moments : Moments or None
        Moments of the similarity to each concept (`calibrate: zscore`).
    """

    eps: int
    temperatures: tuple[float, ...] = ()
    memberships: tuple[MembershipMoments, ...] = ()
    moments: Moments | None = None


@dataclass(frozen=True)
class Cluster:
    """The rows of one cluster.

    Attributes
    ----------
    number : int
        Number of the cluster.
    rows : ndarray of shape (n,), int64, ascending
        Positions in the input.
    unit : UnitRows of shape (n, d)
        Unit vectors of the rows, float16.
    centroid : ndarray of shape (d,), float16
        Unit vector; zero if the vectors of the cluster add up to zero.
    protected : ndarray of shape (n,), bool, optional
        Rows that are kept whatever the rule is.
    values : ndarray of shape (n,), int64, optional
        Values that the rule `prefer` compares, as `ordered_integers.to_ordered_integers` returns them.
    earlier : EarlierKept, optional
        Samples of the cluster that earlier runs kept.
    within : ndarray of shape (n,), int64, optional
        Codes of the values within which rows are compared: rows whose codes differ never are.
    """

    number: int
    rows: NDArray[np.int64]
    unit: UnitRows
    centroid: NDArray[np.float16]
    protected: NDArray[np.bool_] | None = None
    values: NDArray[np.int64] | None = None
    earlier: EarlierKept | None = None
    within: NDArray[np.int64] | None = None

    @property
    def is_protected(self) -> NDArray[np.bool_]:
        """Mask of the protected rows (n,)."""
        return np.zeros(len(self.rows), np.bool_) if self.protected is None else self.protected


class LastDrawn(NamedTuple):
    """Rank and row of the last row that a rule without eps keeps. Rows up to it are kept, in every part."""

    rank: int
    row: int


@dataclass(frozen=True)
class Plan:
    """What the decision of a cluster needs to know about the whole data set.

    Attributes
    ----------
    options : Options
        Options of the decision.
    prototypes : Prototypes or None
        Prototypes, for a rule that needs them.
    temperatures : tuple of float
        Temperature of each attribute (`balanced`).
    memberships : tuple of MembershipMoments
        Moments of each attribute's memberships over the data set (`balanced`).
    targets : tuple of tuple of Fraction
        Target shares of each attribute (`balanced`).
    terms : tuple of PriceTerm
        Price of each attribute (`balanced`).
    moments : Moments or None
        Moments of the similarity to each concept (`calibrate: zscore`).
    last_drawn : LastDrawn or None
        Last row that is kept, for a rule without eps.
    """

    options: Options
    prototypes: Prototypes | None = None
    temperatures: tuple[float, ...] = ()
    memberships: tuple[MembershipMoments, ...] = ()
    targets: tuple[tuple[Fraction, ...], ...] = ()
    terms: tuple[PriceTerm, ...] = ()
    moments: Moments | None = None
    last_drawn: LastDrawn | None = None
