"""Pairs of linked rows in different clusters, over the whole data set: each pair is found once, for every eps.

There may be many more pairs than rows, so each part keeps its own, and hands out those that a step needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.cross_links import OTHER, OWN, Links, find_cross_links
from fairdedup.core.earlier_links import EarlierLinks, find_earlier_links
from fairdedup.core.part import MapParts, Part, Shared, Workspace

FIRST, SECOND = 4, 8  # flags of the rows whose pairs are handed out, beside those of `find_cross_links`
LINK = np.dtype([("first", np.int64), ("second", np.int64), ("needed", np.int16)])  # a pair on disk


class Search(NamedTuple):
    """What is known of the pairs of a data set, and whether more of them are needed.

    Attributes
    ----------
    most : int
        Largest eps, in ten-thousandths.
    number : int
        Number of searches so far; each part has saved the pairs of each.
    new : bool
        Whether any row has the flag `OWN`: its pairs are looked for and saved.
    """

    most: int
    number: int
    new: bool


def list_links(part: Part, flags: Shared, search: Search, eps: int) -> Links:
    """Return the pairs of a part that are linked at an eps, one row with the flag `FIRST`, the other with `SECOND`.

    Parameters
    ----------
    part : Part
        At least one cluster.
    flags : Shared
        Flags by row: (input,), uint8.
    search : Search
        What the part has saved, and whether it looks for more.
    eps : int
        Ten-thousandths.
    """
    found, known = [], flags.read()
    for number in range(search.number):
        saved = part.load(_name(search.most, number))
        assert saved is not None
        pairs = Links(*(saved["links"][name] for name in Links._fields))
        found.append(pairs.between(known, FIRST, SECOND, eps))
    if search.new:
        links = find_cross_links(part, flags, search.most)
        saved_links = np.empty(len(links.first), LINK)
        for name in Links._fields:
            saved_links[name] = getattr(links, name)
        part.save(_name(search.most, search.number), {"links": saved_links})
        found.append(links.between(known, FIRST, SECOND, eps))
    return Links.join(found)


def _name(most: int, number: int) -> str:
    return f"links-{most}-{number}"


class CrossLinks:
    """Pairs of linked rows in different clusters, up to a largest eps, among all rows that were needed so far.

    Parameters
    ----------
    parts : sequence of Part
        The clustered data set; each part can list its visitors.
    map_parts : MapParts
        Maps the search over the parts.
    workspace : Workspace
        Lists the visits, and hands flags to the tasks.
    protected : ndarray of shape (input,), bool
        Mask of the protected rows.
    most : int
        Largest eps, in ten-thousandths.
    with_earlier : sequence of Part
        Parts with clusters of which earlier runs have kept samples; some may have no row.

    Attributes
    ----------
    of_protected : Links
        The pairs that have a protected row.
    of_earlier : EarlierLinks
        The pairs of a row that is not protected and a sample that an earlier run kept.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        map_parts: MapParts,
        workspace: Workspace,
        protected: NDArray[np.bool_],
        most: int,
        with_earlier: Sequence[Part] = (),
    ) -> None:
        self._parts, self._map_parts, self._workspace, self.most = parts, map_parts, workspace, most
        workspace.list_visits(most)
        workspace.forget("pairs-")
        workspace.forget("links-")
        self._searched, self._searches = np.zeros(len(protected), np.bool_), 0
        self.of_protected = Links.join([])
        self.of_earlier = EarlierLinks.join([])
        flags = np.where(protected, OWN, OTHER).astype(np.uint8)
        if protected.any():
            shared = workspace.share(flags)
            self.of_protected = Links.join(map_parts("links", find_cross_links, parts, shared, most))
        if with_earlier:
            shared = workspace.share(flags)
            self.of_earlier = EarlierLinks.join(
                map_parts("links", find_earlier_links, with_earlier, shared, OTHER, most)
            )

    def between(self, a: NDArray[np.bool_], b: NDArray[np.bool_], eps: int) -> Links:
        """Return the pairs that are linked at an eps, the first row of a mask and the second of another (both by row).

        A pair of two rows of both masks is there both ways. Neither mask has a protected row.
        """
        new = (a | b) & ~self._searched
        flags = np.zeros(len(new), np.uint8)
        for mask, flag in ((new, OWN), (self._searched, OTHER), (a, FIRST), (b, SECOND)):
            flags[mask] |= flag
        search = Search(self.most, self._searches, new=bool(new.any()))
        found = Links.join(self._map_parts("links", list_links, self._parts, self._workspace.share(flags), search, eps))
        self._searched |= new
        self._searches += search.new
        return found
