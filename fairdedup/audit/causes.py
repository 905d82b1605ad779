"""Why a group was lost: the clusters and neighbourhoods that cost it most, and who of it was removed there for whom."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fairdedup.audit.measures import Loss
from fairdedup.core.representation import decompose
from fairdedup.stages.group_counts import Source, Weights, rows_in
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.run_files import read_json
from fairdedup.storage.schemas import DECISIONS_SCHEMA
from fairdedup.tasks import MapGroups

MOST_ROWS = 1 << 22  # of the clusters that are looked into
NAMED = 5  # lost members that are named
LEAST = 1e-9  # a cost below it is rounding


def explain(
    lines: list[dict[str, Any]], losses: list[Loss], top: int, source: Source, over: MapGroups,
    run: RunDirectory,
) -> list[str]:  # fmt: skip
    """Add to each sufficient group what its loss is made of, and return notes.

    Parameters
    ----------
    lines : list of dict
        As `measured` returns them.
    losses : list of Loss
        Of the same attributes.
    top : int
        How many clusters and neighbourhoods to name.
    source : Source
    over : MapGroups
        Maps a function over the parts of the decisions.
    run : RunDirectory
    """
    wanted = [
        (group["loss"], loss, g, _costliest(loss.between[:, g], top), _costliest(loss.within[:, g], top))
        for line, loss in zip(lines, losses, strict=True)
        for g, group in enumerate(line["groups"])
        if group["sufficient"]
    ]
    opened, notes = _opened([c for _, _, _, *both in wanted for c in both], np.array(read_json(run.sizes), np.int64))
    looked = _Looked(over("why", rows_in, source, opened) if len(opened) else [], source.unit)
    everybody = {id(loss): looked.everybody(loss) for loss in losses}
    for told, loss, g, between, within in wanted:
        held = looked.weight(loss, g)
        told["clusters_between"] = [_cluster(looked, loss, g, c, loss.between, held) for c in between]
        told["clusters_within"] = [_cluster(looked, loss, g, c, loss.within, held) for c in within]
        told["neighbourhoods"] = looked.neighbourhoods(held, everybody[id(loss)], [*between, *within], top)
    return notes


def _costliest(cost: NDArray[np.float64], top: int) -> list[int]:
    """Return where the largest costs above 0 are, largest first, ties to the lower number."""
    order = np.argsort(-cost, kind="stable")[:top]
    return [int(c) for c in order if cost[c] > LEAST]


def _opened(lists: list[list[int]], sizes: NDArray[np.int64]) -> tuple[NDArray[np.int64], list[str]]:
    """Return the clusters to be looked into, ascending: everybody's costliest first, while their rows can be held."""
    ranked = sorted({c: k for own in reversed(lists) for k, c in enumerate(own)}.items(), key=lambda x: (x[1], x[0]))
    taken, rows = [], 0
    for cluster, _ in ranked:
        if rows + sizes[cluster] <= MOST_ROWS:
            rows += int(sizes[cluster])
            taken.append(cluster)
    left = len(ranked) - len(taken)
    notes = [f"{left:,} of the costliest clusters are too large to be looked into: no ids of them"] if left else []
    return np.array(sorted(taken), np.int64), notes


class _Looked:
    """The rows of the clusters that are looked into."""

    def __init__(self, found: list[tuple[pa.Table, Weights]], unit: int) -> None:
        self.unit = unit
        tables = [table for table, _ in found]
        table = pa.concat_tables(tables).combine_chunks() if tables else DECISIONS_SCHEMA.empty_table()
        self.ids = table.column("id")
        names = ("row", "cluster", "neighbourhood", "kept", "representative", "similarity")
        self.row, self.cluster, self.neighbourhood, self.kept, self.representative, self.similarity = (
            table.column(name).to_numpy() for name in names
        )
        self.weights = [np.concatenate(own) for own in zip(*(w for _, w in found), strict=True)]
        self.order = np.argsort(self.cluster, kind="stable")

    def weight(self, loss: Loss, g: int) -> NDArray[np.float64]:
        """Return how much of each row (n,) belongs to a group."""
        if not self.weights:
            return np.zeros(0)
        cells = loss.attribute.cells
        return cells.column(self.weights, self.unit, int(loss.present[g])) / self.unit

    def everybody(self, loss: Loss) -> NDArray[np.float64]:
        """Return how much of each row (n,) belongs to any group of an attribute."""
        total = np.zeros(len(self.row))
        for g in range(len(loss.present)):
            total = total + self.weight(loss, g)
        return total

    def of(self, cluster: int) -> NDArray[np.int64]:
        """Return the places of a cluster's rows."""
        ordered = self.cluster[self.order]
        return self.order[slice(*np.searchsorted(ordered, [cluster, cluster + 1]))]

    def lost(self, places: NDArray[np.int64], held: NDArray[np.float64]) -> list[dict[str, Any]]:
        """Return who of a group was removed, whoever belongs to it most first, then the lowest row."""
        gone = places[~self.kept[places] & (held[places] > 0)]
        gone = gone[np.lexsort((self.row[gone], -held[gone]))][:NAMED]
        out = []
        for place in gone:
            stands = self.of(int(self.cluster[place]))
            who = stands[self.row[stands] == self.representative[place]]
            out.append({
                "id": self.ids[int(place)].as_py(),
                "representative": self.ids[int(who[0])].as_py() if len(who) else None,
                "similarity": float(self.similarity[place]),
                "membership": float(held[place]),
            })  # fmt: skip
        return out

    def neighbourhoods(
        self, held: NDArray[np.float64], everybody: NDArray[np.float64], clusters: list[int], top: int
    ) -> list[dict[str, Any]]:
        """Return the neighbourhoods of these clusters whose choice cost the group most."""
        found = []
        for cluster in sorted(set(clusters)):
            places = self.of(cluster)
            if not len(places):
                continue
            names, of = np.unique(self.neighbourhood[places], return_inverse=True)

            def added(values: NDArray[np.float64], of: Any = of) -> NDArray[Any]:
                return np.bincount(of, values)

            kept = self.kept[places]
            both = (held[places], everybody[places] - held[places])  # the group, and the others
            before = np.stack([added(v) for v in both], axis=1)
            after = np.stack([added(v * kept) for v in both], axis=1)
            cost = decompose(before, after)[1][:, 0]
            for s in _costliest(cost, top):
                found.append((-cost[s], int(names[s]), {
                    "neighbourhood": int(names[s]), "cluster": cluster,
                    "rows": float(before[s].sum()), "kept": float(after[s].sum()),
                    "group_rows": float(before[s, 0]), "group_kept": float(after[s, 0]), "cost": float(cost[s]),
                    "lost": self.lost(places[of == s], held),
                }))  # fmt: skip
        return [line for _, _, line in sorted(found, key=lambda f: f[:2])[:top]]


def _cluster(
    looked: _Looked, loss: Loss, g: int, cluster: int, cost: NDArray[np.float64], held: NDArray[np.float64]
) -> dict[str, Any]:
    return {
        "cluster": cluster,
        "rows": float(loss.before[cluster].sum()), "kept": float(loss.after[cluster].sum()),
        "group_rows": float(loss.before[cluster, g]), "group_kept": float(loss.after[cluster, g]),
        "cost": float(cost[cluster, g]), "lost": looked.lost(looked.of(cluster), held),
    }  # fmt: skip
