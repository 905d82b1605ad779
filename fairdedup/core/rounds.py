"""The decision in rounds, where duplicates in different clusters are found: one eps, all parts.

The steps of a part are in `round_steps`; this module joins their small results. What a part knows from step to step
stays with it. Here are only the candidates in conflict, those that are taken, the links among candidates, and some
bytes for each row of the input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairdedup.core import round_steps as steps
from fairdedup.core.all_cross_links import CrossLinks
from fairdedup.core.claims import NOTHING_REMOVED, Removed
from fairdedup.core.conflicts import NOTHING_RESOLVED, Cards, Resolved, resolve_conflicts
from fairdedup.core.cross_links import Links
from fairdedup.core.model import Plan
from fairdedup.core.part import MapParts, Part, Workspace
from fairdedup.core.parts import Decided
from fairdedup.core.round_state import Trial, name_of
from fairdedup.core.similarity import MAX_EPS

OPEN, CANDIDATE, KEPT, PROTECTED = 1, 2, 4, 8  # flags of a row
MARGIN = 64  # of a search
RECENT = 3  # trials that are remembered: a search ends within some steps of the eps that it returns


class AcrossClusters:
    """Decides a clustered data set in rounds, at one eps after the other. It finds each pair of duplicates once.

    Parameters
    ----------
    parts : sequence of Part
        The clustered data set; each part can list its visitors.
    plan : Plan
        What is known about the whole data set.
    map_parts : MapParts
        Maps the steps over the parts.
    workspace : Workspace
        What steps leave for later steps.
    decide_step : callable
        `round_steps.decide_in_part`, or a wrapper that stores the columns and returns the rest.
    with_earlier : sequence of Part
        Parts with clusters of which earlier runs have kept samples; some may have no row.
    margin : int
        Ten-thousandths above an eps that is tried, up to which duplicates are looked for at once.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        plan: Plan,
        map_parts: MapParts,
        workspace: Workspace,
        decide_step: Callable[..., Any] = steps.decide_in_part,
        with_earlier: Sequence[Part] = (),
        margin: int = MARGIN,
    ) -> None:
        self.parts, self.plan, self.map_parts = parts, plan, map_parts
        self.workspace, self.decide_step = workspace, decide_step
        self.with_earlier, self.margin = with_earlier, margin
        listed = map_parts("list", steps.list_flags, parts)
        self.home = np.full(workspace.input, -1, np.int32)  # part of each row
        self.protected = np.zeros(len(self.home), np.bool_)
        for number, (own, protected) in enumerate(listed):
            self.home[own], self.protected[own] = number, protected
        self.links: CrossLinks | None = None
        self._recent: list[Rounds] = []

    def forget_trials(self) -> None:
        """Forget what was decided at each eps. The pairs stay, for a later eps."""
        for rounds in self._recent:
            self.workspace.forget(rounds.name)
        self._recent = []

    def at(self, eps: int) -> Rounds:
        """Take all rounds at an eps, in ten-thousandths; the last few are remembered."""
        for rounds in self._recent:
            if rounds.eps == eps:
                return rounds
        if self.links is None or eps > self.links.most:
            most = min(eps + self.margin, MAX_EPS)
            self.forget_trials()  # the pairs that they go by are looked for anew
            self.links = CrossLinks(self.parts, self.map_parts, self.workspace, self.protected, most, self.with_earlier)
        kept = [rounds for rounds in self._recent if rounds.ended][1 - RECENT :]
        for rounds in self._recent:
            if rounds not in kept:
                self.workspace.forget(rounds.name)
        self._recent = kept
        self._recent.append(Rounds(self, self.links, Trial(eps, self.links.most)))
        return self._recent[-1]


class Rounds:
    """All rounds at one eps: the first is taken at once, the others when they are needed.

    Parameters
    ----------
    across : AcrossClusters
        The data set.
    links : CrossLinks
        The pairs in different clusters.
    trial : Trial
        The eps.

    Attributes
    ----------
    ended : bool
        Whether all rounds are taken.
    """

    def __init__(self, across: AcrossClusters, links: CrossLinks, trial: Trial) -> None:
        self._across, self._links, self._trial = across, links, trial
        self._flags = np.where(across.protected, PROTECTED, np.where(across.home >= 0, OPEN, 0)).astype(np.uint8)
        self._versions = np.zeros(len(across.parts), np.int64)  # of the state that each part saved last
        earlier = links.of_earlier.at(trial.eps)
        self._earlier = [earlier.take(places) for places in self._split(earlier.rows)]  # of the rows of each part
        before = [steps.KeptBefore(*own) for own in zip(self._find_protectors(), self._earlier, strict=True)]
        self._candidates = np.concatenate(self._map("round", steps.sweep_first, before))
        self._flags[self._flags == OPEN] = 0  # all are decided, until some are opened again
        self._settled = self._settle()
        self.ended = False

    def _settle(self) -> tuple[Resolved, Cards]:
        """Settle the conflicts of the candidates of a round; return how that ended, and their cards."""
        candidates = self._candidates
        self._flags[candidates] = CANDIDATE
        resolved, cards = self._settle_conflicts()
        self._flags[candidates] = KEPT
        self._flags[resolved.rows[resolved.taken]] = 0
        return resolved, cards

    def finish(self) -> None:
        """Take the rounds after the first, unless they have been taken."""
        home, eps = self._across.home, self._trial.eps
        while not self.ended:
            opened = self._hand_over(*self._settled)
            self._settled = NOTHING_RESOLVED, Cards.join([])
            if not len(opened):
                self.ended = True
                return
            self._flags[opened] = OPEN
            removed = self._send_home(self._links.between(self._have(OPEN), self._have(KEPT), eps))
            still = np.unique(home[opened])
            found = self._map(
                "round", steps.sweep_open, [removed[k] if k in still else None for k in range(len(removed))]
            )
            self._versions[still] += 1
            self._flags[opened] = 0
            self._candidates = np.concatenate(found)
            self._settled = self._settle()

    @property
    def eps(self) -> int:
        """The eps, in ten-thousandths."""
        return self._trial.eps

    def _have(self, flag: int) -> NDArray[np.bool_]:
        """Return the mask of the rows with a flag."""
        return (self._flags & flag) > 0

    @property
    def name(self) -> str:
        """How the names begin of what the parts have saved."""
        return name_of(self._trial)

    def _map(self, step: str, function: Callable[..., Any], own: Sequence[Any], *args: Any) -> list[Any]:
        """Map a step over the parts, each with an argument of its own; a part with None has nothing to do."""
        across = self._across
        given = {k: (int(self._versions[k]), value) for k, value in enumerate(own) if value is not None}
        parts = [across.parts[k] for k in given]
        return across.map_parts(step, function, parts, self._trial, across.plan, *args, own=list(given.values()))

    def _find_protectors(self) -> list[Removed]:
        """Return the open rows of each part that are linked to a protected row of another cluster."""
        links = self._links.of_protected
        return self._send_home(links.between(self._flags, OPEN, PROTECTED, self._trial.eps))

    def _send_home(self, links: Links) -> list[Removed]:
        """Return, for each part, its rows among the first of these pairs, with vectors of the second."""
        cards = self._cards(np.unique(links.second))
        out = []
        for own in self._split(links.first):
            rows, keepers = links.first[own], links.second[own]
            out.append(Removed(rows, keepers, cards.take(keepers).unit) if len(own) else NOTHING_REMOVED)
        return out

    def _split(self, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Return, for each part, the places of its own rows among some."""
        home = self._across.home[rows]
        order = np.argsort(home, kind="stable")
        return np.split(order, np.searchsorted(home[order], np.arange(1, len(self._across.parts))))

    def _cards(self, rows: NDArray[np.int64]) -> Cards:
        """Return the cards of some rows, ascending."""
        if not len(rows):
            return Cards.join([])
        across = self._across
        wanted = {k: rows[own] for k, own in enumerate(self._split(rows)) if len(own)}
        parts = [across.parts[k] for k in wanted]
        return Cards.join(across.map_parts("cards", steps.read_cards, parts, across.plan, own=list(wanted.values())))

    def _settle_conflicts(self) -> tuple[Resolved, Cards]:
        """Sweep the candidates in conflict; return how that ended, and their cards."""
        candidates = self._have(CANDIDATE)
        links = self._links.between(candidates, candidates, self._trial.eps)
        if not len(links.first):
            return NOTHING_RESOLVED, Cards.join([])
        once = links.first < links.second
        pairs = Links(*(column[once] for column in links))
        cards = self._cards(np.unique(links.first))
        return resolve_conflicts(cards, pairs, self._trial.eps, self._across.plan), cards

    def _hand_over(self, resolved: Resolved, cards: Cards) -> NDArray[np.int64]:
        """Let each part give what its taken candidates stood for to their keepers; return the rows that are open."""
        if not len(resolved.rows):
            return resolved.rows
        own: list[Any] = []
        for places in self._split(resolved.rows):
            mine = resolved.take(places)
            own.append((mine, cards.take(mine.keepers[mine.taken]).unit) if len(places) else None)
        opened = np.concatenate(self._map("round", steps.hand_over, own))
        self._versions[np.unique(self._across.home[resolved.rows])] += 1
        return opened

    def estimate(self) -> int:
        """Return how many rows are kept after the rounds that were taken so far; the first keeps nearly all."""
        return int(np.count_nonzero(self._flags & (KEPT | PROTECTED)))

    def count(self) -> int:
        """Return how many rows are kept after all rounds."""
        self.finish()
        return self.estimate()

    def decide(self) -> list[Decided]:
        """Return the decisions of every part."""
        self.finish()
        across, kept = self._across, self._have(KEPT | PROTECTED)
        versions = self._versions.tolist()
        foreign = across.map_parts("cards", steps.list_foreign_keepers, across.parts, self._trial, own=versions)
        cards = self._cards(np.unique(np.concatenate(foreign)))
        own = [steps.Keepers(cards.take(rows), old) for rows, old in zip(foreign, self._earlier, strict=True)]
        decided: list[Decided] = self._map("decide", across.decide_step, own, across.workspace.share(kept))
        distinct = self._are_distinct()
        for each in decided:
            each.distinct = each.distinct and distinct
        return decided

    def _are_distinct(self) -> bool:
        """Tell whether no pair in different clusters is kept on both sides; two pinned samples may be."""
        kept, links, eps = self._have(KEPT), self._links, self._trial.eps
        both = links.between(kept, kept, eps), links.of_protected.between(self._flags, KEPT, PROTECTED, eps)
        old = np.concatenate([links.rows for links in self._earlier])
        return not any(len(links.first) for links in both) and not kept[old].any()
