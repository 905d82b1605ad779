"""The steps of a decision in rounds that each part takes: pure functions of the part and of what it saved."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.arranged import ArrangedCluster, arrange, compare_with_centroid
from fairdedup.core.conflicts import Cards, Resolved
from fairdedup.core.cover import cover_sweep
from fairdedup.core.model import Plan
from fairdedup.core.part import Part, Shared
from fairdedup.core.parts import Decided, are_kept_distinct, build_decided, compare_rows, join_decided
from fairdedup.core.pinned import NEVER, PinnedRows
from fairdedup.core.remembered_pairs import RememberedPairs
from fairdedup.core.round_state import ClusterState, Trial, load_states, save_states
from fairdedup.core.rules.base import Preference
from fairdedup.core.similarity import EPS_UNIT, cosine_of_pairs, most_similar
from fairdedup.core.swept import find_preference


class Removed(NamedTuple):
    """Open rows that are linked to rows that are kept in other clusters; a row may occur several times.

    Attributes
    ----------
    rows, keepers : ndarrays of shape (m,), int64
    unit : ndarray of shape (m, d), float16
        Unit vectors of the keepers.
    """

    rows: NDArray[np.int64]
    keepers: NDArray[np.int64]
    unit: NDArray[np.float16]


NOTHING_REMOVED = Removed(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 0), np.float16))


def list_flags(part: Part) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the rows of a part, and the mask of the protected ones."""
    found = [(cluster.rows, cluster.is_protected) for cluster in part.clusters()]
    return np.concatenate([rows for rows, _ in found]), np.concatenate([protected for _, protected in found])


def read_cards(part: Part, rows: NDArray[np.int64]) -> Cards:
    """Return what a sweep of several clusters needs of some rows of a part, ascending."""
    out = []
    for cluster in part.clusters():
        own = find_places(cluster.rows, rows)
        if len(own):
            similarity = compare_with_centroid(part, cluster)
            values = np.zeros(len(own), np.int64) if cluster.values is None else cluster.values[own]
            number = np.full(len(own), cluster.number)
            out.append(Cards(cluster.rows[own], number, cluster.unit[own], similarity[own], values))
    return Cards.join(out)


def find_places(rows: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the places of those of the wanted rows, ascending, that are among some rows, ascending."""
    within = wanted[np.searchsorted(wanted, rows[0]) : np.searchsorted(wanted, rows[-1], side="right")]
    places = np.searchsorted(rows, within)
    return places[rows[places] == within]


def sweep_first(part: Part, own: tuple[int, Removed], trial: Trial, plan: Plan) -> NDArray[np.int64]:
    """Take the first round of a part, and return the rows that are candidates.

    Parameters
    ----------
    part : Part
        At least one cluster.
    own : (int, Removed)
        Number under which the state is saved, and the rows that protected rows of other clusters remove.
    trial : Trial
        The eps.
    plan : Plan
        What is known about the whole data set.
    """
    version, removed = own
    states: dict[int, ClusterState] = {}
    found, remembered = [], RememberedPairs(part, trial.most)
    for cluster in part.clusters():
        arranged = arrange(part, cluster)
        pinned, n = arranged.pinned, len(arranged.rows)
        nothing = np.full(n, -1)
        state = ClusterState(arranged.order, arranged.rows, nothing, nothing.copy(), np.zeros(0, np.int64))
        states[cluster.number] = state
        visited = pinned.needed <= trial.eps
        state.keeper[visited] = state.leader[visited] = arranged.rows[pinned.keeper[visited]]
        _remove_linked(arranged, state, removed, np.flatnonzero(~pinned.mask))
        preference = find_preference(arranged, plan)
        state.sums = preference.sums
        _sweep_rows(arranged, state, preference, trial, plan, remembered)
        found.append(state.rows[(state.keeper == state.rows) & ~pinned.mask])
    remembered.save()
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
    for cluster in part.clusters():
        state = states[cluster.number]
        opened, kept = np.flatnonzero(state.keeper < 0), np.flatnonzero(state.keeper == state.rows)
        if not len(opened):
            continue
        arranged = arrange(part, cluster)
        kept = kept[np.argsort(state.rows[kept])]
        if len(kept):
            nearest, similarity = most_similar(arranged.vectors.take(opened), arranged.vectors.take(kept))
            linked = similarity > 1.0 - trial.eps / EPS_UNIT
            keeper = state.rows[kept[nearest[linked]]]
            state.keeper[opened[linked]] = state.leader[opened[linked]] = keeper
        _remove_linked(arranged, state, removed, opened)
        preference = find_preference(arranged, plan)._replace(sums=state.sums)
        before = state.keeper == state.rows
        _sweep_rows(arranged, state, preference, trial, plan, remembered)
        found.append(state.rows[(state.keeper == state.rows) & ~before])
    save_states(part, trial, version + 1, states)
    return np.concatenate(found)


def _remove_linked(arranged: ArrangedCluster, state: ClusterState, removed: Removed, judged: NDArray[np.int64]) -> None:
    """Give rows to the most similar kept row of another cluster, unless one of their own cluster is as similar.

    Ties go to the lowest row.
    """
    places = np.flatnonzero(np.isin(removed.rows, state.rows[judged])) if len(removed.rows) else removed.rows
    if not len(places):
        return
    by_row = np.argsort(state.rows)
    own = by_row[np.searchsorted(state.rows[by_row], removed.rows[places])]
    similarity = compare_rows(arranged.cluster.unit[arranged.order[own]], removed.unit[places])
    order = np.lexsort((removed.keepers[places], -similarity, own))
    first = order[np.flatnonzero(np.diff(own[order], prepend=-1))]
    place, keeper, best = own[first], removed.keepers[places[first]], similarity[first]
    known = np.flatnonzero(state.keeper[place] >= 0)
    if len(known):
        theirs = by_row[np.searchsorted(state.rows[by_row], state.keeper[place[known]])]
        x, squares = arranged.vectors.x, arranged.vectors.squares
        before = cosine_of_pairs(x, squares, place[known], theirs)
        stays = (before > best[known]) | ((before == best[known]) & (state.keeper[place[known]] < keeper[known]))
        change = np.ones(len(place), np.bool_)
        change[known[stays]] = False
        place, keeper = place[change], keeper[change]
    state.keeper[place] = state.leader[place] = keeper


def _sweep_rows(
    arranged: ArrangedCluster,
    state: ClusterState,
    preference: Preference,
    trial: Trial,
    plan: Plan,
    remembered: RememberedPairs,
) -> None:
    """Sweep the open rows of a cluster, and add what is kept to its sums."""
    mask = state.keeper < 0
    opened = np.flatnonzero(mask)
    if not len(opened):
        return
    graph = remembered.of(arranged, trial.eps)
    settled = PinnedRows(np.where(mask, NEVER, 0), np.arange(len(mask)))
    leader, keeper = cover_sweep(
        arranged.vectors, state.rows, trial.eps, preference, graph, settled, own_only=plan.options.cover
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
    own : (int, (Resolved of n rows, ndarray of shape (n, d), float16))
        Number under which the state was saved, the candidates of the part that were in conflict, and the unit vectors
        of their keepers.
    trial : Trial
        The eps.
    plan : Plan
        What is known about the whole data set.
    """
    version, (resolved, unit) = own
    states, opened = load_states(part, trial, version), []
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
            similarity = compare_rows(cluster.unit[state.order[moved]], unit[at[moved]])
            goes = (similarity > 1.0 - trial.eps / EPS_UNIT) | itself[moved]
        state.keeper[moved[goes]] = keepers[goes]
        state.keeper[moved[~goes]] = state.leader[moved[~goes]] = -1
        opened.append(state.rows[moved[~goes]])
    save_states(part, trial, version + 1, states)
    return np.concatenate(opened)


def list_foreign_keepers(part: Part, version: int, trial: Trial) -> NDArray[np.int64]:
    """Return the rows of other clusters that represent rows of a part, ascending."""
    found = [np.setdiff1d(state.keeper, state.rows) for state in load_states(part, trial, version).values()]
    return np.unique(np.concatenate(found))


def decide_in_part(part: Part, own: tuple[int, Cards], trial: Trial, plan: Plan, kept: Shared) -> Decided:
    """Return the decisions of a part.

    Parameters
    ----------
    part : Part
        At least one cluster.
    own : (int, Cards)
        Number under which the state was saved, and the rows of other clusters that represent rows of the part.
    trial : Trial
        The eps.
    plan : Plan
        What is known about the whole data set.
    kept : Shared
        Whether each row of the input is kept: (input,), bool.
    """
    version, foreign = own
    states, eps, is_kept = load_states(part, trial, version), trial.eps, kept.read()
    found, distinct = [], True
    for cluster in part.clusters():
        arranged = arrange(part, cluster)
        state = states[cluster.number]
        own_kept = state.keeper == state.rows
        similarity = _compare_with_keepers(arranged, state, foreign)
        near = ~own_kept & is_kept[state.keeper] & (similarity > 1.0 - eps / EPS_UNIT)
        found.append(
            build_decided(
                arranged,
                plan,
                kept=own_kept,
                neighbourhood=state.leader,
                representative=state.keeper,
                similarity=similarity,
                near=np.flatnonzero(near),
            )
        )
        distinct = distinct and are_kept_distinct(arranged, own_kept, eps)
    return join_decided(found, distinct=distinct)


def _compare_with_keepers(arranged: ArrangedCluster, state: ClusterState, foreign: Cards) -> NDArray[np.float64]:
    """Return the cosine of each row to the row that is kept for it (n,); 1 for a kept one."""
    similarity = np.ones(len(state.rows))
    removed = np.flatnonzero(state.keeper != state.rows)
    own = np.isin(state.keeper[removed], state.rows)
    here, there = removed[own], removed[~own]
    by_row = np.argsort(state.rows)
    x, squares = arranged.vectors.x, arranged.vectors.squares
    if len(here):
        keepers = by_row[np.searchsorted(state.rows[by_row], state.keeper[here])]
        similarity[here] = cosine_of_pairs(x, squares, here, keepers)
    if len(there):
        unit = foreign.take(state.keeper[there]).unit
        similarity[there] = compare_rows(arranged.cluster.unit[arranged.order[there]], unit)
    return similarity
