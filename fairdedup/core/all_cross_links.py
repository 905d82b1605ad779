"""Pairs of linked rows in different clusters, over the whole data set: each pair is found once, for every eps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.cross_links import OTHER, OWN, Links, find_cross_links
from fairdedup.core.earlier_links import EarlierLinks, find_earlier_links
from fairdedup.core.part import MapParts, Part, Workspace


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
        self._searched = np.zeros(len(protected), np.bool_)
        self._links = Links.join([])
        self.of_protected = Links.join([])
        self.of_earlier = EarlierLinks.join([])
        flags = np.where(protected, OWN, OTHER).astype(np.uint8)
        if protected.any():
            self.of_protected = self._search(flags)
        if with_earlier:
            shared = workspace.share(flags)
            self.of_earlier = EarlierLinks.join(
                map_parts("links", find_earlier_links, with_earlier, shared, OTHER, most)
            )

    def between(self, a: NDArray[np.bool_], b: NDArray[np.bool_], eps: int) -> Links:
        """Return the pairs that are linked at an eps, as `Links.between` does; neither mask has a protected row."""
        new = (a | b) & ~self._searched
        if new.any():
            flags = np.where(new, OWN, np.where(self._searched, OTHER, 0)).astype(np.uint8)
            self._links = Links.join([self._links, self._search(flags)])
            self._searched |= new
        return self._links.between(a, b, eps)

    def _search(self, flags: NDArray[np.uint8]) -> Links:
        shared = self._workspace.share(flags)
        return Links.join(self._map_parts("links", find_cross_links, self._parts, shared, self.most))
