"""The steps of a decision in rounds that each part takes: pure functions of the part and of what it saved."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.arranged import ArrangedCluster, arrange, compare_with_centroid
from fairdedup.core.claims import Removed, remove_first, remove_linked
from fairdedup.core.conflicts import Cards, Resolved
from fairdedup.core.cover import cover_sweep
from fairdedup.core.earlier_links import EarlierLinks
from fairdedup.core.model import Plan
from fairdedup.core.pair_graph import PairGraph
from fairdedup.core.part import Part, Shared
from fairdedup.core.parts import Decided, are_kept_distinct, build_decided, compare_rows, join_decided
from fairdedup.core.pinned import NEVER, PinnedRows
from fairdedup.core.remembered_clusters import recall_clusters, save_clusters
from fairdedup.core.remembered_pairs import RememberedPairs
from fairdedup.core.round_state import OPEN, ClusterState, Trial, encode_earlier, load_states, save_states
from fairdedup.core.rules.base import Preference
from fairdedup.core.similarity import EPS_UNIT, cosine_of_pairs
from fairdedup.core.swept import find_preference
from fairdedup.core.within import codes_or_zeros


class KeptBefore(NamedTuple):
    """Samples of other clusters that are kept before the first round, and the rows of a part that they remove.

    Attributes
    ----------
    removed : Removed
        Rows that are linked to protected rows of other clusters.
    old : EarlierLinks
        The sample that an earlier run kept in another cluster and that represents a row, if there is one.
    """

    removed: Removed
    old: EarlierLinks


class Keepers(NamedTuple):
    """Samples of other clusters that represent rows of a part.

    Attributes
    ----------
    foreign : Cards
        The rows.
    old : EarlierLinks
        As `KeptBefore` has them, by row.
    """

    foreign: Cards
    old: EarlierLinks


def list_flags(part: Part) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the rows of a part, and the mask of the protected ones."""
    found = [(cluster.rows, cluster.is_protected) for cluster in part.clusters()]
    return np.concatenate([rows for rows, _ in found]), np.concatenate([protected for _, protected in found])


def read_cards(part: Part, rows: NDArray[np.int64], plan: Plan) -> Cards:
    """Return what a sweep of several clusters needs of some rows of a part, ascending."""
    out = []
    recall_clusters(part, plan)
    for cluster in part.clusters():
        own = find_places(cluster.rows, rows)
        if len(own):
            similarity = compare_with_centroid(part, cluster)
            values = np.zeros(len(own), np.int64) if cluster.values is None else cluster.values[own]
            number = np.full(len(own), cluster.number)
            within = codes_or_zeros(cluster.within, len(cluster.rows))[own]
            out.append(Cards(cluster.rows[own], number, cluster.unit[own], similarity[own], values, within))
    return Cards.join(out)


def find_places(rows: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the places of those of the wanted rows, ascending, that are among some rows, ascending."""
    within = wanted[np.searchsorted(wanted, rows[0]) : np.searchsorted(wanted, rows[-1], side="right")]
    places = np.searchsorted(rows, within)
    return places[rows[places] == within]


def sweep_first(part: Part, own: tuple[int, KeptBefore], trial: Trial, plan: Plan) -> NDArray[np.int64]:
    """Take the first round of a part, and return the rows that are candidates.

    Parameters
    ----------
    part : Part
        At least one cluster.
    own : (int, KeptBefore)
        Number under which the state is saved, and the rows that are removed by samples of other clusters.
    trial : Trial
        The eps.
    plan : Plan
        What is known about the whole data set.
    """
    version, known = own
    states: dict[int, ClusterState] = {}
    found, remembered = [], RememberedPairs(part, trial.most)
    recall_clusters(part, plan)
    for cluster in part.clusters():
        arranged = arrange(part, cluster)
        pinned, n = arranged.pinned, len(arranged.rows)
        nothing = np.full(n, -1)
        state = ClusterState(arranged.order, arranged.rows, nothing, nothing.copy(), np.zeros(0, np.int64))
        states[cluster.number] = state
        remove_first(arranged, state, trial.eps, known.removed, known.old)
        preference = find_preference(arranged, plan)
        state.sums = preference.sums
        _sweep_rows(arranged, state, preference, trial, plan, remembered.of(arranged, trial.eps))
        found.append(state.rows[(state.keeper == state.rows) & ~pinned.mask])
    remembered.save()
    save_clusters(part, list(states), plan)
    save_states(part, trial, version, states)
    return np.concatenate(found)


def sweep_open(part: Part, own: tuple[int, Removed], trial: Trial, plan: Plan) -> NDArray[np.int64]:
    """Remove the open rows that are linked to a kept one, sweep the others, and return the rows that are candidates.

    Parameters
    ----------
    part : Part
        At least one cluster with open rows.
    own : (int, Removed)
        Number under which the state was saved, and the rows that rows kept in other clusters remove.
    trial : Trial
        The eps.
    plan : Plan
        What is known about the whole data set.
    """
    version, removed = own
    states = load_states(part, trial, version)
    found, remembered = [], RememberedPairs(part, trial.most)
    recall_clusters(part, plan)
    for cluster in part.clusters():
        state = states[cluster.number]
        if not state.is_open.any():
            continue
        arranged = arrange(part, cluster)
        graph = remembered.of(arranged, trial.eps)
        remove_linked(arranged, state, trial.eps, removed, graph)
        preference = find_preference(arranged, plan)._replace(sums=state.sums)
        before = state.keeper == state.rows
        _sweep_rows(arranged, state, preference, trial, plan, graph)
        found.append(state.rows[(state.keeper == state.rows) & ~before])
    save_states(part, trial, version + 1, states)
    return np.concatenate(found)


def _sweep_rows(
    arranged: ArrangedCluster,
    state: ClusterState,
    preference: Preference,
    trial: Trial,
    plan: Plan,
    graph: PairGraph | None,
) -> None:
    """Sweep the open rows of a cluster, and add what is kept to its sums."""
    mask = state.is_open
    opened = np.flatnonzero(mask)
    if not len(opened):
        return
    settled = PinnedRows(np.where(mask, NEVER, 0), np.arange(len(mask)))
    leader, keeper = cover_sweep(
        None if graph is not None and not preference.likeness_weight else arranged.vectors,
        state.rows,
        trial.eps,
        preference,
        graph,
        settled,
        own_only=plan.options.cover,
        within=arranged.within,
    )
    state.keeper[opened], state.leader[opened] = state.rows[keeper[opened]], state.rows[leader[opened]]
    kept = opened[keeper[opened] == opened]
    state.sums = state.sums + preference.similarity[kept].sum(axis=0)


def hand_over(
    part: Part, own: tuple[int, tuple[Resolved, NDArray[np.float16]]], trial: Trial, plan: Plan
) -> NDArray[np.int64]:
    """Give what the taken candidates of a part stood for to their keepers, and return the rows that are open again.

    Parameters
    ----------
    part : Part
        At least one cluster.
    own : (int, (Resolved of n rows, ndarray of shape (m, d), float16))
        Number under which the state was saved, the candidates of the part that were in conflict, and the unit vectors
        of the keepers of the m taken ones.
    trial : Trial
        The eps.
    plan : Plan
        What is known about the whole data set.
    """
    version, (resolved, unit) = own
    states, opened, taken = load_states(part, trial, version), [], np.flatnonzero(resolved.taken)
    for cluster in part.clusters():
        if not len(find_places(cluster.rows, resolved.rows)):
            continue
        state = states[cluster.number]
        at = np.searchsorted(resolved.rows, state.keeper).clip(max=len(resolved.rows) - 1)
        concerned = resolved.rows[at] == state.keeper
        itself = concerned & (state.rows == state.keeper)
        state.leader[itself] = resolved.leaders[at[itself]]
        moved = np.flatnonzero(concerned & resolved.taken[at])
        keepers, goes = resolved.keepers[at[moved]], np.ones(len(moved), np.bool_)
        if plan.options.hands_over_duplicates:
            similarity = compare_rows(cluster.unit[state.order[moved]], unit[np.searchsorted(taken, at[moved])])
            goes = (similarity > 1.0 - trial.eps / EPS_UNIT) | itself[moved]
        state.keeper[moved[goes]] = keepers[goes]
        state.keeper[moved[~goes]] = state.leader[moved[~goes]] = OPEN
        opened.append(state.rows[moved[~goes]])
    save_states(part, trial, version + 1, states)
    return np.concatenate(opened)


def list_foreign_keepers(part: Part, version: int, trial: Trial) -> NDArray[np.int64]:
    """Return the rows of other clusters that represent rows of a part, ascending."""
    found = [np.setdiff1d(state.keeper, state.rows) for state in load_states(part, trial, version).values()]
    foreign = np.unique(np.concatenate(found))
    return foreign[foreign >= 0]


def decide_in_part(part: Part, own: tuple[int, Keepers], trial: Trial, plan: Plan, kept: Shared) -> Decided:
    """Return the decisions of a part.

    Parameters
    ----------
    part : Part
        At least one cluster.
    own : (int, Keepers)
        Number under which the state was saved, and the samples of other clusters that represent rows of the part.
    trial : Trial
        The eps.
    plan : Plan
        What is known about the whole data set.
    kept : Shared
        Whether each row of the input is kept: (input,), bool.
    """
    version, keepers = own
    states, eps, is_kept = load_states(part, trial, version), trial.eps, kept.read()
    recall_clusters(part, plan)
    found, distinct = [], True
    for cluster in part.clusters():
        arranged = arrange(part, cluster)
        state = states[cluster.number]
        own_kept, earlier = state.keeper == state.rows, state.keeper < OPEN
        similarity = _compare_with_keepers(arranged, state, keepers)
        stands = earlier | is_kept[np.where(earlier, state.rows, state.keeper)]
        near = ~own_kept & stands & (similarity > 1.0 - eps / EPS_UNIT)
        found.append(
            build_decided(
                arranged,
                plan,
                kept=own_kept,
                neighbourhood=np.where(earlier, -1, state.leader),
                representative=np.where(earlier, -1, state.keeper),
                similarity=similarity,
                near=np.flatnonzero(near),
                names=np.where(earlier, encode_earlier(state.keeper), -1),
            )
        )
        distinct = distinct and are_kept_distinct(arranged, own_kept, eps)
    return join_decided(found, distinct=distinct)


def _compare_with_keepers(arranged: ArrangedCluster, state: ClusterState, keepers: Keepers) -> NDArray[np.float64]:
    """Return the cosine of each row to the sample that is kept for it (n,); 1 for a kept one."""
    similarity = np.ones(len(state.rows))
    removed = np.flatnonzero(state.keeper != state.rows)
    earlier = state.keeper[removed] < OPEN
    own = np.isin(state.keeper[removed], state.rows)
    here, there = removed[own], removed[~own & ~earlier]
    by_row = np.argsort(state.rows)
    x, squares = arranged.vectors.x, arranged.vectors.squares
    unit = arranged.cluster.unit
    if len(here):
        places = by_row[np.searchsorted(state.rows[by_row], state.keeper[here])]
        similarity[here] = cosine_of_pairs(x, squares, here, places)
    if len(there):
        theirs = keepers.foreign.take(state.keeper[there]).unit
        similarity[there] = compare_rows(unit[arranged.order[there]], theirs)
    old, names = removed[earlier], encode_earlier(state.keeper[removed[earlier]])
    samples = arranged.cluster.earlier
    if len(old) and samples is not None and len(samples.names):
        at = np.searchsorted(samples.names, names).clip(max=len(samples.names) - 1)
        mine = samples.names[at] == names
        similarity[old[mine]] = compare_rows(unit[arranged.order[old[mine]]], samples.unit[at[mine]])
        old = old[~mine]
    places = np.searchsorted(keepers.old.rows, state.rows[old])
    similarity[old] = keepers.old.similarity[places]
    return similarity
