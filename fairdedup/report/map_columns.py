"""Packs the map of a page: columns of its points, compressed, and as much of the rest as the page has room for."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from fairdedup.report.report_figures import EmbeddingMap

WITH_LINKS = 250_000  # points up to which the map knows who stands for each
MOST_CODES = 3_000_000  # bytes that the groups of all attributes may take on the page
MOST_TEXT = 4_000_000  # bytes that all ids, or all captions, may take on the page; else only those shown are searched
NONE = 65_535


class PackedMap(NamedTuple):
    """A map as it is on the page.

    Attributes
    ----------
    data : dict or None
        What the script reads.
    omitted : list of str
        Attributes that no colour of the map shows, for lack of room.
    pictured : int
        Number of points with a picture of their own.
    """

    data: dict[str, Any] | None
    omitted: list[str]
    pictured: int


def pack_map(points: EmbeddingMap, pictures: Mapping[int, str], room: int) -> PackedMap:
    """Return the map for a page; groups, ids, captions and pictures as far as there is room, in this order.

    Parameters
    ----------
    points : EmbeddingMap
    pictures : mapping of int to str
        Small pictures by row, as base64, the most important first.
    room : int
        Bytes that the map may take.
    """
    columns = {name: _compress(values.tobytes()) for name, values in _list_columns(points).items()}
    packed: dict[str, Any] = {
        "n": len(points.rows),
        "among": points.among,
        "explained": round(points.explained, 4),
        "reach": points.reach,
        "columns": columns,
        "groups": [],
    }
    room -= _count_bytes(packed)
    omitted, codes_room = [], min(room, MOST_CODES)
    for name, codes in points.groups.items():
        group = {"name": name, "groups": points.names[name], "codes": _compress(codes.tobytes())}
        size = _count_bytes(group)
        if size <= codes_room:
            packed["groups"].append(group)
            codes_room, room = codes_room - size, room - size
        else:
            omitted.append(name)
    for name, texts in (("ids", points.ids), ("captions", points.captions)):
        if texts is not None:
            column = _compress(json.dumps(texts, ensure_ascii=False).encode("utf-8", "backslashreplace"))
            if len(column) <= min(room, MOST_TEXT):
                packed[name] = column
                room -= len(column)
    own = _choose_pictures(points, pictures, room)
    if own:
        packed |= {"before": "data:image/webp;base64,", "pictures": own}
    return PackedMap(packed, omitted, len(own))


def _list_columns(points: EmbeddingMap) -> dict[str, np.ndarray[Any, Any]]:
    number = len(points.rows)
    columns: dict[str, Any] = {
        "x": points.x,
        "y": points.y,
        "kept": points.kept.astype(np.uint8),
        "cluster": (points.cluster % NONE).astype(np.uint16),
        "step": np.diff(points.rows, prepend=0).astype(np.uint32),
    }
    if number <= WITH_LINKS:
        place = np.searchsorted(points.rows, points.representative).clip(max=number - 1)
        known = (points.representative >= 0) & (points.rows[place] == points.representative)
        columns["owner"] = np.where(known, place, -1).astype(np.int32)
        units = np.where(np.isnan(points.similarity), NONE, np.rint((points.similarity + 1) * 10_000))
        columns["cosine"] = units.clip(0, NONE).astype(np.uint16)
    return columns


def _choose_pictures(points: EmbeddingMap, pictures: Mapping[int, str], room: int) -> dict[int, str]:
    """Return the pictures that there is room for, by the place of their point."""
    rows = np.fromiter(pictures, np.int64, len(pictures))
    places = np.searchsorted(points.rows, rows)
    found: dict[int, str] = {}
    for place, text in zip(places.tolist(), pictures.values(), strict=True):
        size = len(text) + len(f'"{place}":"",')
        if size > room:
            break
        room -= size
        found[place] = text
    return found


def _count_bytes(value: Any) -> int:
    """Return the bytes of a value as JSON on the page, where some signs are written in six."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return len(text.encode("utf-8", "backslashreplace")) + 5 * sum(map(text.count, "<>&\u2028\u2029"))


def _compress(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data, 6)).decode()
