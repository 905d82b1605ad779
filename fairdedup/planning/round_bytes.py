"""How many bytes a decision across clusters leaves in decisions/_rounds/, by what is counted of the data.

docs/design.md, "Across clusters", has the procedure. A test compares these formulas with the files of a run.
"""

from __future__ import annotations

from typing import NamedTuple

from fairdedup.core.all_cross_links import LINK
from fairdedup.core.eps_steps import EXPECTED_STEPS
from fairdedup.core.rounds import RECENT
from fairdedup.planning.coefficients import LINKS, PAIRS, VISITS
from fairdedup.planning.stage_work import Size

VISIT_BYTES = 8 + 2  # place of a row, and the least eps
PAIR_BYTES = 4 + 2  # place of the other row, and the least eps
STATE_BYTES = 4 * 8  # of a row: order, row, keeper, leader
SIMILARITY_BYTES = 2 * 8  # of a row: similarity to the centroid, and price
CONCEPT_BYTES = 8  # of a row and a concept
TRIALS = EXPECTED_STEPS  # values of eps that are tried
STATES = 3  # of each row and trial: after the first sweep, and for a part with conflicts after they are settled


class RoundCounts(NamedTuple):
    """What a decision across clusters has on disk.

    Attributes
    ----------
    visits : float
        Rows that reach another cluster, counted for each that they reach.
    pairs : float
        Pairs of rows of one cluster that may be duplicates, in both directions.
    links : float
        Linked pairs of rows in different clusters, counted for each part and search that found them.
    states : float
        Rows in all states that were saved.
    """

    visits: float
    pairs: float
    links: float
    states: float


def expect_counts(size: Size) -> RoundCounts:
    """Return the counts of a run, from those that were measured for a row; all states that are on disk at once."""
    rows = size.rows
    return RoundCounts(VISITS * rows, PAIRS * rows, LINKS * rows, RECENT * STATES * rows)


def count_round_bytes(size: Size, counts: RoundCounts, concepts: int = 0) -> float:
    """Return the bytes of the arrays in decisions/_rounds/.

    Parameters
    ----------
    size : Size
    counts : RoundCounts
    concepts : int
        Number of concepts of a rule with prototypes.
    """
    starts = 8 * (size.clusters + 1) * size.groups + 8 * (size.rows + size.clusters)  # of visits, and of pairs
    flags = size.rows
    clusters = (SIMILARITY_BYTES + CONCEPT_BYTES * concepts) * size.rows
    states = STATE_BYTES * counts.states
    return (
        starts
        + flags
        + clusters
        + states
        + VISIT_BYTES * counts.visits
        + PAIR_BYTES * counts.pairs
        + LINK.itemsize * counts.links
    )


def count_rounds_on_disk(size: Size) -> float:
    """Return the bytes of decisions/_rounds/ at its largest."""
    return count_round_bytes(size, expect_counts(size))


def count_rounds_written(size: Size) -> float:
    """Return the bytes that all trials write: what no eps changes once, and the states and flags of each."""
    once = expect_counts(size)._replace(states=TRIALS * STATES * size.rows)
    return count_round_bytes(size, once) + (TRIALS * STATES - 1) * size.rows


def count_rounds_read(size: Size) -> float:
    """Return the bytes that all trials read: all vectors once, those of visits, and the files in each trial."""
    once = expect_counts(size)
    trial = count_round_bytes(size, once._replace(states=STATES * size.rows))
    return size.vectors + 2 * size.dim * once.visits + TRIALS * trial
