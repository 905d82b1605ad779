"""What a rule is: a stateless object that says what it needs and which member of a neighbourhood it prefers.

A rule states a preference over the rows of one cluster. One compiled loop (`core/choice.py`) turns preferences into
choices, so a rule never sweeps by itself. Libraries, numpy included, are imported inside methods: the command line
lists the rules without them.
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

    In each neighbourhood, the member with the largest
    ``price + likeness_weight * h + similarity[:, argmin(sums)]`` is kept; ties go to the lowest row.

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
        """Return the preference for the rows with the highest price, without concepts.

        Parameters
        ----------
        price : ndarray of shape (n,), int64
            Price of each row.
        likeness_weight : int
            Weight of the likeness to the mean of a neighbourhood.
        """
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
            Whether each concept's sum starts from the cluster's mean similarity, or from zero.
        """
        import numpy as np

        n, concepts = similarity.shape
        sums = np.zeros(concepts, np.int64)
        if start == "cluster" and n:
            # The sum is exact in int64 and in float64, so the quotient is rounded once.
            sums = np.rint(similarity.sum(axis=0) / n).astype(np.int64)
        return cls(np.zeros(n, np.int64), 0, similarity, sums)


class Representatives(NamedTuple):
    """Leader and representative of each of the n rows of a cluster, as places in the visiting order.

    Attributes
    ----------
    leader : ndarray of shape (n,), int64
        Leader of the step that visited each row.
    keeper : ndarray of shape (n,), int64
        Representative of each row: itself if it is kept, -1 if it has none, n + j for the j-th sample of the cluster
        that earlier runs kept.
    """

    leader: NDArray[np.int64]
    keeper: NDArray[np.int64]


class Rule:
    """A rule, which decides which rows are kept. Subclasses set the attributes and override `preference`.

    Rules have no state: two instances of a class are equal, and a worker process imports the class.

    Attributes
    ----------
    name : str
        Name by which the user chooses the rule.
    summary : str
        One line that completes "of a neighbourhood, it keeps ...", in Markdown, for the help and the documentation.
    source : str
        Publication that defines the rule, or "ours", or "baseline".
    reads : tuple of str
        Names of the options that this rule reads, of those that not all rules read.
    sweeps : bool
        Whether neighbourhoods come from the sweep. Only then can the rule be combined with `cover` and earlier runs.
    has_eps : bool
        Whether rows are duplicates at some eps. A rule without eps overrides `rank_rows`.
    needs_prototypes : bool
        Whether the preference depends on concepts.
    needs_memberships : bool
        Whether memberships in the concepts are surveyed over the whole data set first.
    needs_column : bool
        Whether the preference depends on a column of numbers, the option `prefer`.
    accepts_pinned_rows : bool
        Whether some rows can be kept before the rule decides.
    reserves_seats : bool
        Whether part of the kept count is reserved for removed rows of all clusters, which are re-admitted at the end.
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
        """Tell whether the rule promises both guarantees for every result, with `cover` or without it."""
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
            What is known about the whole data set.

        Returns
        -------
        Preference

        Raises
        ------
        NotImplementedError
            If the rule states no preference.
        """
        raise NotImplementedError(f"rule {self.name!r} has no preference")

    def count_kept(self, part: Part, eps: list[int], plan: Plan) -> NDArray[np.int64]:
        """Return how many rows of a part are kept at each eps.

        Parameters
        ----------
        part : Part
            At least one cluster.
        eps : list of 1 to 64 int, ascending
            Ten-thousandths.
        plan : Plan
            What is known about the whole data set.

        Returns
        -------
        ndarray of shape (len(eps),), int64
        """
        from fairdedup.core.swept import count_swept

        return count_swept(part, eps, plan)

    def represent(self, cluster: ArrangedCluster, eps: int, plan: Plan) -> Representatives:
        """Return the leader and the representative of each row of a cluster at one eps.

        Parameters
        ----------
        cluster : ArrangedCluster
            The n rows in visiting order.
        eps : int
            Ten-thousandths; a rule without eps ignores it.
        plan : Plan
            What is known about the whole data set.

        Returns
        -------
        Representatives of n rows
        """
        if not self.has_eps:
            from fairdedup.core.drawn import represent_drawn

            return represent_drawn(cluster, plan)
        from fairdedup.core.swept import represent_swept

        return represent_swept(cluster, eps, plan)

    def rank_rows(self, rows: NDArray[np.int64], options: Options) -> NDArray[np.int64]:
        """Return the rank of each row, for a rule without eps: the rows with the lowest ranks are kept.

        Parameters
        ----------
        rows : ndarray of shape (n,), int64
            Positions in the input.
        options : Options
            Options of the decision.

        Returns
        -------
        ndarray of shape (n,), int64

        Raises
        ------
        NotImplementedError
            If the rule has an eps.
        """
        raise NotImplementedError(f"rule {self.name!r} has an eps")
