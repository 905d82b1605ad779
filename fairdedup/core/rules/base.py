"""What a rule is: a stateless object that says what it needs and which member of a neighbourhood it prefers.

A rule states a preference over the rows of one cluster, and one compiled loop (`core/choice.py`) turns preferences
into choices, so that no rule sweeps differently. What computes is imported inside methods, numpy included: the command
line lists the rules, and needs none of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fairdedup.core.arranged import ArrangedCluster
    from fairdedup.core.model import Options, Part, Plan


class Preference(NamedTuple):
    """What a rule prefers among the n rows of one cluster, in visiting order.

    Of a neighbourhood, the member with the largest
    ``price + likeness_weight * h + similarity[:, argmin(sums)]`` is kept, ties to the lowest row.

    Attributes
    ----------
    price : ndarray of shape (n,), int64
        Price of each row.
    likeness_weight : int
        Weight of h, the quantised product with the mean of the members' vectors.
    similarity : ndarray of shape (n, c), int64
        Quantised similarity to each concept; c = 0 for a rule without concepts.
    sums : ndarray of shape (c,), int64
        Value from which each concept's sum over the kept samples starts.
    """

    price: NDArray[np.int64]
    likeness_weight: int
    similarity: NDArray[np.int64]
    sums: NDArray[np.int64]

    @classmethod
    def by_price(cls, price: NDArray[np.int64], likeness_weight: int = 0) -> Preference:
        """Return the preference of a rule without concepts for the rows with the highest price (n,)."""
        import numpy as np

        return cls(price, likeness_weight, np.zeros((len(price), 0), np.int64), np.zeros(0, np.int64))

    @classmethod
    def by_least_represented(cls, similarity: NDArray[np.int64], *, start: str = "cluster") -> Preference:
        """Return the preference for the rows most similar to the concept with the lowest sum.

        Parameters
        ----------
        similarity : ndarray of shape (n, c), int64
            Quantised similarity of the cluster's rows, in visiting order, to each concept.
        start : {"cluster", "zero"}
            Start each concept's sum from the cluster's mean similarity, or from zero.
        """
        import numpy as np

        n, concepts = similarity.shape
        sums = np.zeros(concepts, np.int64)
        if start == "cluster" and n:
            # The sum is exact in int64 and in float64, so the quotient is rounded once.
            sums = np.rint(similarity.sum(axis=0) / n).astype(np.int64)
        return cls(np.zeros(n, np.int64), 0, similarity, sums)


class Representatives(NamedTuple):
    """Who stands for each of the n rows of a cluster, as places in the visiting order.

    Attributes
    ----------
    leader : ndarray of shape (n,), int64
        The row that began the step which visited each row.
    keeper : ndarray of shape (n,), int64
        The representative of each row: itself where it is kept, -1 where it has none, n + j for the j-th sample that
        earlier runs kept of the cluster.
    """

    leader: NDArray[np.int64]
    keeper: NDArray[np.int64]


class Rule:
    """Decides which rows are kept. A subclass sets the attributes and overrides `preference`.

    An instance has no state: two of one class are equal, and a worker process gets it by importing its class.

    Attributes
    ----------
    name : str
        Name by which users choose the rule.
    summary : str
        One line that completes "of a neighbourhood, it keeps ...", in Markdown, for the help and the documentation.
    source : str
        Publication that the rule is from, or "ours", or "baseline".
    reads : tuple of str
        Names of the options that this rule reads and some other rules do not.
    sweeps : bool
        Whether neighbourhoods come from the sweep; then `cover` and earlier runs go with the rule.
    has_eps : bool
        Whether rows are compared at some eps. A rule without one overrides `rank_rows`.
    needs_prototypes : bool
        Whether the preference is about concepts.
    needs_memberships : bool
        Whether memberships in the concepts are surveyed over the whole data set first.
    needs_column : bool
        Whether the preference is about a column of numbers, the option `prefer`.
    accepts_pinned_rows : bool
        Whether some rows can be kept before the rule decides.
    reserves_seats : bool
        Whether part of the kept count is reserved, and given to removed rows of all clusters at the end.
    promises_without_cover : bool
        Whether both guarantees hold without `cover` too; with it they hold for every rule that sweeps.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    source: ClassVar[str] = "yours"
    reads: ClassVar[tuple[str, ...]] = ("cover",)
    sweeps: ClassVar[bool] = True
    has_eps: ClassVar[bool] = True
    needs_prototypes: ClassVar[bool] = False
    needs_memberships: ClassVar[bool] = False
    needs_column: ClassVar[bool] = False
    accepts_pinned_rows: ClassVar[bool] = True
    reserves_seats: ClassVar[bool] = False
    promises_without_cover: ClassVar[bool] = False

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)

    def __hash__(self) -> int:
        return hash(type(self))

    def __repr__(self) -> str:
        return f"<rule {self.name!r}>"

    def guarantees(self, *, cover: bool) -> bool:
        """Tell whether both guarantees are promised of every result."""
        return self.sweeps and (cover or self.promises_without_cover)

    def needs_moments(self, options: Options) -> bool:
        """Tell whether the moments of the similarity to each concept are surveyed over the whole data set first."""
        return False

    def preference(self, cluster: ArrangedCluster, plan: Plan) -> Preference:
        """Return what the rule prefers among the rows of a cluster.

        Parameters
        ----------
        cluster : ArrangedCluster
            The rows in visiting order, with their `values`, `concept_similarity` and `price`.
        plan : Plan
            What is known of the whole data set.
        """
        raise NotImplementedError(f"rule {self.name!r} has no preference")

    def count_kept(self, part: Part, eps: list[int], plan: Plan) -> NDArray[np.int64]:
        """Return how many rows of a part are kept at each of some ascending eps, in ten-thousandths."""
        from fairdedup.core.swept import count_swept

        return count_swept(part, eps, plan)

    def represent(self, cluster: ArrangedCluster, eps: int, plan: Plan) -> Representatives:
        """Return who stands for each row of a cluster at an eps, in ten-thousandths."""
        if not self.has_eps:
            from fairdedup.core.drawn import represent_drawn

            return represent_drawn(cluster, plan)
        from fairdedup.core.swept import represent_swept

        return represent_swept(cluster, eps, plan)

    def rank_rows(self, rows: NDArray[np.int64], options: Options) -> NDArray[np.int64]:
        """Return the rank of each row (n,), for a rule without eps: the lowest ranks of the data set are kept."""
        raise NotImplementedError(f"rule {self.name!r} has an eps")
