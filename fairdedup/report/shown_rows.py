"""The second pass over the decisions: the rows that are shown, those that they stand for, and the points of the map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fairdedup.report.embedding_points import Points
from fairdedup.report.report_figures import ShownSample
from fairdedup.stages.group_counts import DecisionPart, GroupSource, LabelledGroups, PerceivedGroups
from fairdedup.storage.contents import Embedded
from fairdedup.storage.schemas import to_text
from fairdedup.storage.shard_files import GroupVectors, read_known_columns

ROW_COLUMNS = ("row", "id", "kept", "readmitted", "cluster", "representative", "similarity", "centroid_similarity")
MEMBERS = 32  # of a neighbourhood that are looked at, apart from the least similar one
CAPTION = 300  # characters
AT_ONCE = 1 << 15  # points whose groups are determined at a time
NO_GROUP = 255


@dataclass(frozen=True)
class FoundRows:
    """Rows of the decisions.

    Attributes
    ----------
    shown : Table
        `ROW_COLUMNS` of the wanted rows and of the members of the chosen neighbourhoods.
    points : Table
        Those of the points of the map.
    groups : dict of str to ndarray of shape (n,), uint8
        Group of each point, by attribute.
    weights : dict of int to list of ndarray
        Memberships of a row in the groups of each attribute, 0 to 1, for the neighbourhoods in the sampled groups.
    """

    shown: pa.Table
    points: pa.Table
    groups: dict[str, NDArray[np.uint8]]
    weights: dict[int, list[NDArray[np.float64]]]

    def collect(self, rows: set[int]) -> dict[int, ShownSample]:
        """Return those of some rows that were found."""
        wanted, samples = np.array(sorted(rows), np.int64), dict[int, ShownSample]()
        for table in (self.points, self.shown):
            own = table.filter(pa.array(_is_in(table.column("row").to_numpy(), wanted)))
            for line in own.select(ROW_COLUMNS).to_pylist():
                samples[line["row"]] = ShownSample(**line)
        return samples


def find_rows(
    parts: Sequence[DecisionPart],
    wanted: NDArray[np.int64],
    leaders: NDArray[np.int64],
    points: Points | None,
    source: GroupSource | None,
    sampled: set[int],
) -> FoundRows:
    """Read the decisions once and return the rows that matter.

    Parameters
    ----------
    parts : sequence of DecisionPart
    wanted : ndarray of shape (m,), int64, ascending
        Rows to return.
    leaders : ndarray of shape (l,), int64, ascending
        Representatives whose rows are returned too.
    points : Points or None
        Points of the map.
    source : GroupSource or None
        What assigns rows to groups.
    sampled : set of int
        Numbers of the groups of shards in which memberships are read.
    """
    shown, own_points, weights = [], [], dict[int, list[NDArray[np.float64]]]()
    codes: list[list[NDArray[np.uint8]]] = []
    for part in parts:
        table = part.read(ROW_COLUMNS).select(ROW_COLUMNS)
        row, representative = table.column("row").to_numpy(), table.column("representative").to_numpy()
        member = ~table.column("kept").to_numpy() & _is_in(representative, leaders)
        few = table.filter(pa.array(member | _is_in(row, wanted)))
        shown.append(_trim_members(few, leaders))
        if part.group.number in sampled and points is not None:
            mine = table.filter(pa.array(_is_in(row, points.rows)))
            own_points.append(mine)
            if source is not None:
                codes.append(_assign_groups(part, mine, source))
                _read_weights(part, shown[-1], source, weights)
    found = _trim_members(pa.concat_tables(shown), leaders)
    on_map = pa.concat_tables(own_points) if own_points else found.slice(0, 0)
    groups = {}
    if source is not None and codes:
        groups = dict(zip(_attribute_names(source), map(np.concatenate, zip(*codes, strict=True)), strict=True))
    return FoundRows(found, on_map, groups, weights)


def _is_in(values: NDArray[np.int64], known: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which values (n,) are among ascending ones (m,)."""
    if not len(known):
        return np.zeros(len(values), np.bool_)
    return known[np.searchsorted(known, values).clip(max=len(known) - 1)] == values


def _trim_members(table: pa.Table, leaders: NDArray[np.int64]) -> pa.Table:
    """Return the table with at most `MEMBERS` rows of each leader, the most similar ones, and its least similar one."""
    row, kept = table.column("row").to_numpy(), table.column("kept").to_numpy()
    owner, similarity = table.column("representative").to_numpy(), table.column("similarity").to_numpy()
    member = np.flatnonzero(~kept & _is_in(owner, leaders))
    order = member[np.lexsort((row[member], -similarity[member], owner[member]))]
    ordered = owner[order]
    rank = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    last = np.append(ordered[1:] != ordered[:-1], True) if len(ordered) else np.zeros(0, np.bool_)
    drop = order[(rank >= MEMBERS) & ~last]
    stays = np.ones(table.num_rows, np.bool_)
    stays[drop] = False
    return table.filter(pa.array(stays))


def _attribute_names(source: GroupSource) -> list[str]:
    if isinstance(source, LabelledGroups):
        return list(source.labels.attributes)
    assert isinstance(source, PerceivedGroups)
    return [attribute.name for attribute in source.prototypes.attributes]


def _assign_groups(part: DecisionPart, table: pa.Table, source: GroupSource) -> list[NDArray[np.uint8]]:
    """Return the group that each row most belongs to, for each attribute."""
    found: list[list[NDArray[np.uint8]]] = [[np.zeros(0, np.uint8)] for _ in _attribute_names(source)]
    for start in range(0, table.num_rows, AT_ONCE):
        for into, weights in zip(found, _compute_weights(part, table.slice(start, AT_ONCE), source), strict=True):
            best = weights.argmax(axis=1) if weights.shape[1] else np.zeros(len(weights), np.int64)
            none = ~weights.any(axis=1) | (best >= NO_GROUP)
            into.append(np.where(none, NO_GROUP, best).astype(np.uint8))
    return [np.concatenate(each) for each in found]


def _read_weights(
    part: DecisionPart, table: pa.Table, source: GroupSource, into: dict[int, list[NDArray[np.float64]]]
) -> None:
    weights = _compute_weights(part, table, source)
    for k, row in enumerate(table.column("row").to_pylist()):
        into[row] = [own[k] for own in weights]


def _compute_weights(part: DecisionPart, table: pa.Table, source: GroupSource) -> list[NDArray[np.float64]]:
    """Return, for each attribute, how much of each row (n, c) belongs to each group, 0 to 1.

    Memberships are in single precision, which is enough to choose what to show and does not load a compiler.
    """
    if isinstance(source, LabelledGroups):
        return [weights.astype(np.float64) for weights in source.weights(part, table)]
    assert isinstance(source, PerceivedGroups)
    x = GroupVectors(part.run, part.group).read_rows(table.column("row").to_numpy()).astype(np.float32)
    found = []
    for attribute, temperature in zip(source.prototypes.attributes, source.temperatures, strict=True):
        prototypes = np.concatenate((attribute.vectors, attribute.absent)).astype(np.float32)
        logits = (x @ prototypes.T if len(x) else np.zeros((0, len(prototypes)))) / temperature
        shares = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
        shares /= np.maximum(shares.sum(axis=1, keepdims=True), 1e-30)
        found.append(shares[:, : len(attribute.concepts)].astype(np.float64))
    return found


def read_details(embedded: Embedded, samples: dict[int, ShownSample]) -> None:
    """Add captions and sizes to samples, from the metadata of their shards."""
    wanted = np.array(sorted(samples), np.int64)
    for group in embedded.groups:
        for record, first in group.shards():
            low, high = np.searchsorted(wanted, [first, first + record.input])
            if low == high:
                continue
            table = read_known_columns(embedded.directory, record, ["caption", "width", "height", "bytes"])
            if not table.num_columns:
                continue
            places = np.searchsorted(first + record.positions(), wanted[low:high])
            for row, line in zip(wanted[low:high].tolist(), table.take(pa.array(places)).to_pylist(), strict=True):
                sample = samples[row]
                caption = line.get("caption")
                sample.caption = None if caption is None else str(caption)[:CAPTION]
                for name in ("width", "height", "bytes"):
                    setattr(sample, name, _whole(line.get(name)))


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def read_texts(embedded: Embedded, rows: NDArray[np.int64]) -> list[str] | None:
    """Return the beginning of the caption of each of some ascending rows (n,); None where there are no captions."""
    texts, some = [], False
    for group in embedded.groups:
        for record, first in group.shards():
            low, high = np.searchsorted(rows, [first, first + record.input])
            if low == high:
                continue
            table = read_known_columns(embedded.directory, record, ["caption"])
            if not table.num_columns:
                texts += [""] * int(high - low)
                continue
            places = np.searchsorted(first + record.positions(), rows[low:high])
            own = to_text(table.column("caption").take(pa.array(places))).to_pylist()
            texts += ["" if text is None else text[:CAPTION] for text in own]
            some = True
    return texts if some else None
