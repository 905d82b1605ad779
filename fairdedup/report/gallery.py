"""Chooses the neighbourhoods that the page shows: the largest, those closest to the threshold, and costly ones."""

from __future__ import annotations

import numpy as np
import pyarrow.compute as pc

from fairdedup.report.decision_scan import CLOSEST, DecisionScan
from fairdedup.report.report_figures import GroupFigures, LostGroup, Neighbourhood
from fairdedup.report.shown_rows import FoundRows

SHOWN = 6  # members of a neighbourhood that are shown
COSTLY = 8
LEAST_LOSS = 0.2  # of a sample's share in a group, below which a choice is not worth showing


def choose_gallery(
    scan: DecisionScan, found: FoundRows, names: dict[str, list[str]], groups: GroupFigures | None
) -> list[Neighbourhood]:
    """Return the neighbourhoods to show, the largest first.

    Parameters
    ----------
    scan : DecisionScan
        What the first pass has found.
    found : FoundRows
        What the second pass has found.
    names : dict of str to list of str
        Names of the groups of each attribute.
    groups : GroupFigures or None
        Shares before and after: only the loss of a group whose share fell is shown.
    """
    sizes = dict(zip(scan.largest.rows.tolist(), (-scan.largest.keys).astype(int).tolist(), strict=True))
    members = _list_members(found)
    fell = _list_losers(groups, names)
    every = {row: _describe(row, own, sizes.get(row), found, names, fell) for row, own in members.items()}
    chosen = [row for row in scan.largest.rows.tolist() if row in every]
    closest = [row for row in dict.fromkeys(scan.closest.others.tolist()) if row in every]
    chosen += closest[:CLOSEST]
    costly = sorted(
        (each for each in every.values() if each.lost is not None), key=lambda each: (-_loss(each), each.row)
    )
    chosen += [each.row for each in costly[:COSTLY]]
    picked = [every[row] for row in dict.fromkeys(chosen)]
    return sorted(picked, key=lambda each: (-each.size, each.row))


def _loss(each: Neighbourhood) -> float:
    return each.lost.loss if each.lost is not None else 0.0


def _list_members(found: FoundRows) -> dict[int, list[tuple[int, float]]]:
    """Return the rows that each leader stands for, with their cosines, most similar first."""
    table = found.shown.filter(pc.invert(found.shown.column("kept")))
    rows, owners = table.column("row").to_pylist(), table.column("representative").to_pylist()
    members: dict[int, list[tuple[int, float]]] = {}
    for row, owner, cosine in zip(rows, owners, table.column("similarity").to_pylist(), strict=True):
        if owner >= 0 and cosine is not None:
            members.setdefault(owner, []).append((row, cosine))
    for own in members.values():
        own.sort(key=lambda member: (-member[1], member[0]))
    return members


def _list_losers(groups: GroupFigures | None, names: dict[str, list[str]]) -> set[tuple[str, str]]:
    """Return the groups whose share fell; an audit by labels may be about other attributes than `names`."""
    known = [] if groups is None else [a for a in groups.attributes if a.attribute in names]
    return {(a.attribute, g.group) for a in known for g in a.groups if g.after < g.before}


def _describe(
    row: int,
    members: list[tuple[int, float]],
    size: int | None,
    found: FoundRows,
    names: dict[str, list[str]],
    fell: set[tuple[str, str]],
) -> Neighbourhood:
    shown = members if len(members) <= SHOWN else [*members[: SHOWN - 1], members[-1]]
    lost = _find_lost(row, [member for member, _ in members], found, names, fell)
    return Neighbourhood(row, size or len(members), shown, members[-1][1], lost)


def _find_lost(
    row: int, members: list[int], found: FoundRows, names: dict[str, list[str]], fell: set[tuple[str, str]]
) -> LostGroup | None:
    """Return the group that the choice of the kept sample cost most: its mean share less that of the kept one."""
    own = found.weights.get(row)
    others = [found.weights[member] for member in members if member in found.weights]
    if own is None or not others:
        return None
    best: LostGroup | None = None
    for a, (attribute, groups) in enumerate(names.items()):
        loss = np.mean([own[a], *(other[a] for other in others)], axis=0) - own[a]
        for group, value in zip(groups, loss.tolist(), strict=True):
            counts = not fell or (attribute, group) in fell
            if counts and value >= LEAST_LOSS and (best is None or value > best.loss):
                best = LostGroup(attribute, group, round(value, 4))
    return best
