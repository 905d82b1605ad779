"""The decision in rounds, where duplicates in different clusters are found: one eps, all parts.

The steps of a part are in `round_steps`; this module joins their small results. What a part knows from step to step
stays with it. Here are only the candidates in conflict, those that are taken, and one byte for each row of the input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairdedup.core import round_steps as steps
from fairdedup.core.conflicts import Cards, Resolved, resolve_conflicts
from fairdedup.core.cross_links import Links
from fairdedup.core.model import MapParts, Part, Plan
from fairdedup.core.parts import Decided

OPEN, CANDIDATE, KEPT, PROTECTED = 1, 2, 4, 8  # flags of a row


class Rounds:
    """One decision in rounds.

    Parameters
    ----------
    parts : sequence of Part
        The clustered data set; each part can list its visitors.
    eps : int
        Ten-thousandths.
    plan : Plan
        What is known about the whole data set.
    map_parts : MapParts
        Maps the steps over the parts.
    """

    def __init__(self, parts: Sequence[Part], eps: int, plan: Plan, map_parts: MapParts) -> None:
        self.parts, self.eps, self.plan, self.map_parts = parts, eps, plan, map_parts
        listed = map_parts("list", steps.list_flags, parts)
        rows = np.concatenate([rows for rows, _ in listed])
        self.home = np.empty(int(rows.max()) + 1, np.int32)  # part of each row
        self.flags = np.zeros(len(self.home), np.uint8)
        for number, (own, protected) in enumerate(listed):
            self.home[own] = number
            self.flags[own] = np.where(protected, PROTECTED, OPEN)
        self.linked: list[Links] = []  # pairs in different clusters, to check the guarantee
        self._run()

    def _run(self) -> None:
        removed = self._find_protectors()
        found = self._map("round", steps.sweep_first, removed, self.eps, self.plan)
        while True:
            candidates = np.concatenate(found)
            self.flags[candidates] = CANDIDATE
            resolved = self._settle_conflicts()
            self.flags[candidates] = KEPT
            self.flags[resolved.rows[resolved.taken]] = 0
            opened = self._hand_over(resolved)
            if not len(opened):
                return
            self.flags[opened] = OPEN
            removed = self._find_keepers()
            found = self._map("round", steps.sweep_open, removed, self.eps, self.plan)
            self.flags[opened] = 0

    def _map(self, step: str, function: Callable[..., Any], own: Sequence[Any], *args: Any) -> list[Any]:
        """Map a step over the parts, each with an argument of its own."""
        return self.map_parts(step, steps.call_with_own, self.parts, function, dict(enumerate(own)), *args)

    def _links(self, query: int, target: int) -> Links:
        """Return the linked pairs in different clusters of rows with some flags: of a query and of a target."""
        found = self.map_parts("links", steps.find_cross_links, self.parts, self.flags, query, target, self.eps)
        return Links.join(found)

    def _find_protectors(self) -> list[steps.Removed]:
        """Return the open rows of each part that are linked to a protected row of another cluster."""
        if not (self.flags == PROTECTED).any():
            return [steps.NOTHING_REMOVED] * len(self.parts)
        links = self._links(OPEN, PROTECTED)
        self.linked.append(self._links(PROTECTED, PROTECTED))
        return self._send_home(links)

    def _find_keepers(self) -> list[steps.Removed]:
        """Return the open rows of each part that are linked to a kept row of another cluster."""
        return self._send_home(self._links(OPEN, KEPT))

    def _send_home(self, links: Links) -> list[steps.Removed]:
        """Return, for each part, its rows among the first of these pairs, with vectors of the second."""
        cards = self._cards(np.unique(links.second)) if len(links.first) else None
        home, out = self.home[links.first], []
        for number in range(len(self.parts)):
            own = np.flatnonzero(home == number)
            if cards is None or not len(own):
                out.append(steps.NOTHING_REMOVED)
            else:
                unit = cards.take(links.second[own]).unit
                out.append(steps.Removed(links.first[own], links.second[own], unit))
        return out

    def _cards(self, rows: NDArray[np.int64]) -> Cards:
        wanted = [rows[self.home[rows] == number] for number in range(len(self.parts))]
        return Cards.join([card for card in self._map("cards", steps.read_cards, wanted) if len(card.rows)])

    def _settle_conflicts(self) -> Resolved:
        links = self._links(CANDIDATE, CANDIDATE)
        self.linked.append(links)
        if not len(links.first):
            nothing = np.zeros(0, np.int64)
            return Resolved(nothing, nothing, nothing)
        once = links.first < links.second
        pairs = Links(*(column[once] for column in links))
        return resolve_conflicts(self._cards(np.unique(links.first)), pairs, self.eps, self.plan)

    def _hand_over(self, resolved: Resolved) -> NDArray[np.int64]:
        """Let each part give what its taken candidates stood for to their keepers; return the rows that are open."""
        if not len(resolved.rows):
            return resolved.rows
        cards, own = self._cards(np.unique(resolved.keepers)), []
        for number in range(len(self.parts)):
            mine = resolved.take(np.flatnonzero(self.home[resolved.rows] == number))
            own.append((mine, cards.take(mine.keepers).unit))
        return np.concatenate(self._map("round", steps.hand_over, own, self.eps, self.plan))

    def count(self) -> int:
        """Return how many rows are kept."""
        return int(np.count_nonzero(self.flags & (KEPT | PROTECTED)))

    def decide(self) -> list[Decided]:
        """Return the decisions of every part."""
        foreign = self.map_parts("cards", steps.list_foreign_keepers, self.parts, self.eps)
        needed = np.unique(np.concatenate(foreign))
        cards = self._cards(needed) if len(needed) else None
        own = [None if cards is None or not len(rows) else cards.take(rows) for rows in foreign]
        decided: list[Decided] = self._map(
            "decide", steps.decide_in_part, own, self.eps, self.plan, self.flags & (KEPT | PROTECTED)
        )
        distinct = all(self._are_distinct(links) for links in self.linked)
        for each in decided:
            each.distinct = each.distinct and distinct
        return decided

    def _are_distinct(self, links: Links) -> bool:
        """Tell whether no pair is kept on both sides; two protected rows may be."""
        a, b = self.flags[links.first], self.flags[links.second]
        both = ((a & (KEPT | PROTECTED)) > 0) & ((b & (KEPT | PROTECTED)) > 0)
        return not (both & ~((a == PROTECTED) & (b == PROTECTED))).any()
