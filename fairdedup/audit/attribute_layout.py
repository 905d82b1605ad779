"""Chooses the attributes and intersections of an audit, and the position of their groups among all counted groups."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, product
from typing import NamedTuple

from fairdedup.audit.audit_options import AuditOptions
from fairdedup.audit.measures import AuditedAttribute
from fairdedup.core.groups import GroupCells
from fairdedup.errors import UserError

MOST_GROUPS = 400  # groups of an intersection that the user did not name


class NamedGroups(NamedTuple):
    """An attribute and the names of its groups."""

    attribute: str
    groups: tuple[str, ...]


def lay_out_attributes(known: Sequence[NamedGroups], options: AuditOptions) -> tuple[list[AuditedAttribute], list[str]]:
    """Return the attributes and intersections to measure, and notes about what was left out.

    Parameters
    ----------
    known : sequence of NamedGroups
        All attributes of the labels or of the prototypes.
    options : AuditOptions
        The attributes to measure and to cross.

    Raises
    ------
    UserError
        If an attribute is unknown.
    """
    names, notes = [own.attribute for own in known], []
    chosen = options.attributes or tuple(names)
    for name in (*chosen, *(n for pair in options.intersections or () for n in pair)):
        if name not in names:
            raise UserError(f"no attribute {name!r}: there are {', '.join(names)}")
    if options.suggestions is not None and not options.suggest:
        notes.append("--out is the file of --suggest-labels N, which was not given: nothing is written there")
    crossed = combinations(chosen, 2) if options.intersections is None else options.intersections
    attributes: list[AuditedAttribute] = []
    start = 0
    for members in (*((name,) for name in dict.fromkeys(chosen)), *dict.fromkeys(crossed)):
        places = tuple(names.index(name) for name in members)
        cells = tuple(product(*(range(len(known[p].groups)) for p in places)))
        if len(members) > 1 and len(cells) > MOST_GROUPS and options.intersections is None:
            notes.append(f"{' x '.join(members)} would have {len(cells)} groups: name it by --intersections to have it")
            continue
        labels = tuple(tuple(known[p].groups[c] for p, c in zip(places, cell, strict=True)) for cell in cells)
        columns = slice(start, start + len(cells))
        attributes.append(AuditedAttribute(tuple(members), labels, GroupCells(places, cells), columns))
        start += len(cells)
    return attributes, notes
