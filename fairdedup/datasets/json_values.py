"""Adds values to the `.json` of samples that are copied into new shards; a sample without one gets it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import groupby
from typing import Any

from fairdedup.datasets.originals import FileRange, Member, to_json
from fairdedup.datasets.reserved_columns import rename_reserved
from fairdedup.datasets.sidecars import MAX_TEXT_BYTES
from fairdedup.storage.plain_files import open_plain_file

JSON, OWN_JSON = "json", "collected.json"  # suffixes; the second where the sample has a .json that is no object


def add_values(found: Iterable[Member], values: Mapping[int, Mapping[str, Any]]) -> Iterator[Member]:
    """Yield the files of samples, with values added to the `.json` of each.

    Keys that a `.json` has already are renamed, as `rename_reserved` does it.

    Parameters
    ----------
    found : iterable of Member
        Files of the samples, those of one sample after each other.
    values : mapping of int to mapping of str to object
        What to add, by the sample's position.
    """
    for position, files in groupby(found, lambda member: member.position):
        added, suffix = False, JSON
        for member in files:
            if member.suffix.lower() == JSON:
                suffix = OWN_JSON
                known = None if added else _read_object(member)
                if known is not None:
                    member, added = replace(member, data=to_json(_merge(known, values[position]))), True
            yield member
        if not added:
            yield replace(member, suffix=suffix, data=to_json(dict(values[position])))


def _merge(known: dict[str, Any], added: Mapping[str, Any]) -> dict[str, Any]:
    renamed = rename_reserved(known, added)
    return {renamed[name]: value for name, value in known.items()} | dict(added)


def _read_object(member: Member) -> dict[str, Any] | None:
    """Return the object that a file holds; None if it holds something else, or is no JSON."""
    data = member.data
    if isinstance(data, FileRange):
        if data.size > MAX_TEXT_BYTES:
            return None
        with open_plain_file(data.path) as file:
            file.seek(data.offset)
            data = file.read(data.size)
    try:
        known = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return known if isinstance(known, dict) else None
