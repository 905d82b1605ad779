"""Replacement in a finished run: gone samples leave it, and where a kept one has gone the next of its kind is promoted.

Tasks are groups of shards. New parts are written aside; only when all are there does run.json go, and it comes back
last, so that a command that was killed has either changed nothing or is finished by the next one. Who has gone is kept
in gone/, so that a later decision takes them out again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fairdedup.core.similarity import EPS_UNIT, Vectors, cosine_of_pairs, cosines, most_similar
from fairdedup.datasets.ids import read_ids
from fairdedup.errors import FairdedupError, UserError, visible
from fairdedup.storage.contents import Embedded
from fairdedup.storage.id_lists import find_ids, unknown_ids, write_ids
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.manifest import ReplacementRecord, RunManifest, remove_audit, write_manifest
from fairdedup.storage.records import read_shard_metadata
from fairdedup.storage.run_files import (
    is_up_to_date,
    mark_up_to_date,
    move_file,
    open_table_writer,
    read_array,
    read_json,
    read_table,
    remove_folder,
    seal,
    write_array,
    write_table,
)
from fairdedup.storage.schemas import conform
from fairdedup.storage.shard_groups import Group
from fairdedup.storage.state_directory import StateDirectory
from fairdedup.storage.vectors import read_vectors_of_rows
from fairdedup.tasks import Result, Submit, Task, map_groups

FOLDERS = ("decisions", "kept", "rejected")
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class _Shards:
    """Consecutive shards of a run: what every task of this stage is given."""

    run: RunDirectory
    group: Group

    @property
    def number(self) -> int:
        return self.group.number

    @property
    def name(self) -> str:
        return self.group.name

    @property
    def input(self) -> int:
        return self.group.input

    def decisions(self) -> pa.Table:
        return read_table(self.run.part("decisions", self.number))

    def within(self, rows: Rows) -> slice:
        """Return where the rows of these shards stand among ascending rows."""
        return slice(*np.searchsorted(rows, [self.group.first, self.group.first + self.group.input]))

    def unit(self, rows: Rows) -> NDArray[np.float16]:
        """Return the vectors of some rows of these shards, in the order of the rows."""
        return read_vectors_of_rows(self.run, self.group, rows)


@dataclass(frozen=True)
class _Known:
    """The vectors of rows that others are compared with, on disk.

    Attributes
    ----------
    rows : ndarray of shape (m,), int64, ascending
    path : Path
        float16 (m, d).
    """

    rows: Rows
    path: Path

    def similarity(self, unit: NDArray[np.float16], rows: Rows) -> NDArray[np.float64]:
        """Return the cosine of each vector (n, d) with the vector of the row beside it."""
        if not len(rows):
            return np.zeros(0)
        other = np.asarray(read_array(self.path)[np.searchsorted(self.rows, rows)])
        both = Vectors.of(np.concatenate((unit, other)))
        places = np.arange(len(rows))
        return cosine_of_pairs(both.x, both.squares, places, len(rows) + places)


def _column(table: pa.Table, name: str) -> NDArray[Any]:
    return table.column(name).to_numpy()


def find_gone(shard: _Shards, ids: Path) -> tuple[Rows, NDArray[np.bool_], Rows, Rows]:
    """Return the gone rows of a shard, whether each was kept, its representative, and the places of ids found."""
    table = shard.decisions().select(["row", "id", "kept", "representative"])
    gone, named = find_ids(ids, table.column("id"))
    rejected = read_table(shard.run.part("rejected", shard.number), ["id"])
    _, before = find_ids(ids, rejected.column("id"))
    found = [_column(table, name)[gone] for name in ("row", "kept", "representative")]
    return found[0], found[1], found[2], np.concatenate((named, before))


def find_orphans(shard: _Shards, gone: Rows, roots: Rows, known: _Known) -> tuple[Rows, Rows, Any, Any]:
    """Return the rows whose representative has gone, what they go back to, their similarity to it, and who is kept."""
    table = shard.decisions()
    rows, of = _column(table, "row"), _column(table, "representative")
    own = np.isin(of, gone) & ~np.isin(rows, gone)
    back = roots[np.searchsorted(gone, of[own])]
    return rows[own], back, known.similarity(shard.unit(rows[own]), back), _column(table, "kept")[own]


def vectors_of(shard: _Shards, rows: Rows) -> NDArray[np.float16]:
    """Return the vectors of those rows that lie in a shard, in order."""
    return shard.unit(rows[shard.within(rows)])


def rewrite_shard(
    shard: _Shards, aside: Path, gone: Rows, reason: str, changed: Rows, representative: Rows, known: _Known,
    schema: pa.Schema,
) -> tuple[dict[str, int], float, dict[str, str]]:  # fmt: skip
    """Write the parts of a group anew; return how its counts change, the least new similarity, and the parts' seals."""
    run, number = shard.run, shard.number
    table = shard.decisions()
    before = _counts(table)
    rejected = read_table(run.part("rejected", number))
    left = np.isin(_column(table, "row"), gone)
    out = table.filter(pa.array(left)).select(["row", "id"])
    out = out.append_column("source", pa.array(shard.group.sources(_column(out, "row")), pa.string()))
    out = out.append_column("reason", pa.array([reason] * len(out), pa.string()))
    table = table.filter(pa.array(~left))
    rows = _column(table, "row")
    places = np.searchsorted(rows, changed)
    similarity = known.similarity(shard.unit(changed), representative)
    columns = {name: _column(table, name).copy() for name in ("kept", "representative", "similarity")}
    columns["kept"][places] |= representative == changed
    columns["representative"][places] = representative
    columns["similarity"][places] = np.where(representative == changed, 1.0, similarity)
    for name, values in columns.items():
        index = table.column_names.index(name)
        table = table.set_column(index, name, pa.array(values, from_pandas=name == "similarity"))
    parts = RunDirectory(aside)
    write_table(parts.part("decisions", number), table)
    with open_table_writer(parts.part("kept", number), schema) as kept:
        for record, first in shard.group.shards():
            stays = np.isin(first + record.positions(), rows[columns["kept"]])
            kept.write_table(conform(read_shard_metadata(run, record).filter(pa.array(stays)), schema))
    write_table(parts.part("rejected", number), pa.concat_tables([rejected, out.cast(rejected.schema)]).sort_by("row"))
    seals = {str(parts.part(f, number).relative_to(aside)): seal(parts.part(f, number)) for f in FOLDERS}
    after = _counts(table)
    change = {name: after[name] - before[name] for name in after}
    others = similarity[representative != changed]
    return {**change, "rejected": len(out)}, float(others.min(initial=1.0)), seals


def _counts(table: pa.Table) -> dict[str, int]:
    kept = _column(table, "kept")
    return {
        "valid": len(kept), "kept": int(kept.sum()), "removed": int((~kept).sum()),
        "readmitted": int(_column(table, "readmitted").sum()),
    }  # fmt: skip


def most_alike(shard: _Shards, aside: Path, clusters: Rows, known: _Known) -> float:
    """Return the largest cosine of a promoted row with a kept row of its cluster, readmitted ones aside."""
    part = RunDirectory(aside).part("decisions", shard.number)
    table = read_table(part) if part.is_file() else shard.decisions()
    swept = _column(table, "kept") & ~_column(table, "readmitted") & np.isin(_column(table, "cluster"), clusters)
    rows, cluster = _column(table, "row")[swept], _column(table, "cluster")[swept]
    order, others = np.argsort(cluster, kind="stable"), np.argsort(clusters, kind="stable")
    rows, cluster = rows[order], cluster[order]
    unit, promoted = shard.unit(rows), np.asarray(read_array(known.path))
    largest = -2.0
    for number in np.unique(cluster):
        own = slice(*np.searchsorted(cluster, [number, number + 1]))
        theirs = others[slice(*np.searchsorted(clusters[others], [number, number + 1]))]
        same = np.isin(rows[own], known.rows[theirs])
        plain, themselves = Vectors.of(unit[own][~same]), Vectors.of(unit[own][same])
        against = Vectors.of(promoted[theirs])
        if len(plain):
            largest = max(largest, float(most_similar(plain, against)[1].max()))
        if len(themselves):
            pairs = cosines(themselves, against)
            pairs[rows[own][same][:, None] == known.rows[theirs]] = -2.0
            largest = max(largest, float(pairs.max()))
    return largest


def _roots(gone: Rows, kept: NDArray[np.bool_], representative: Rows) -> Rows:
    """Return what each gone row's own representative goes back to: a row that stays, or a kept one that has gone."""
    back = np.where(kept, gone, representative)
    while True:
        place = np.searchsorted(gone, back).clip(max=len(gone) - 1)
        again = (gone[place] == back) & ~kept[place]
        if not again.any():
            return back
        back = np.where(again, representative[place], back)


def promote(
    rows: Rows, back: Rows, similarity: NDArray[np.float64], kept: NDArray[np.bool_], vanished: Rows
) -> tuple[Rows, Rows]:
    """Give every orphan its new representative.

    Parameters
    ----------
    rows : ndarray of shape (n,), int64
        Rows whose representative has gone.
    back : ndarray of shape (n,), int64
        What each goes back to: a row that stays, or one of `vanished`.
    similarity : ndarray of shape (n,), float64
        To that.
    kept : ndarray of shape (n,), bool
        Re-admitted rows, which are kept already.
    vanished : ndarray of int64, ascending
        Rows that were kept and have gone.

    Returns
    -------
    representative : ndarray of shape (n,), int64
        A row's own where it is promoted, and where nobody is left to promote.
    promoted : ndarray of int64, ascending
        Of each vanished row the most similar of those that had been removed for it, ties to the lowest row.
    """
    lost = np.isin(back, vanished)
    heirs = np.flatnonzero(lost & ~kept)
    heirs = heirs[np.lexsort((rows[heirs], -similarity[heirs], back[heirs]))]
    owners, first = np.unique(back[heirs], return_index=True)
    promoted = rows[heirs[first]]
    place = np.searchsorted(owners, back).clip(max=max(len(owners) - 1, 0))
    representative = np.where(lost, rows, back)
    if len(owners):
        known = lost & (owners[place] == back)
        representative[known] = promoted[place[known]]
    return representative, np.sort(promoted)


def replace(embedded: Embedded, manifest: RunManifest, gone_file: Path, submit: Submit) -> RunManifest:
    """Take the ids of a file out of a finished run, promote who takes their place, and return the new manifest.

    Raises
    ------
    UserError
        If the file cannot be read.
    FairdedupError
        If the counts would not add up: nothing is changed then.
    """
    run = embedded.directory
    new = _replaced(embedded, manifest, read_ids(gone_file, "--gone"), gone_file.name, submit)
    if not (run.replaced / FOLDERS[0]).is_dir():  # none of them was in the run
        remove_folder(run.replaced)
        return new
    new.write(run.new_manifest)  # from here on it is done, whoever finishes it
    return complete_replacement(run) or new


def replace_again(embedded: Embedded, manifest: RunManifest, submit: Submit) -> RunManifest:
    """Take out of new decisions, whose manifest is not written yet, who has gone before; return the new manifest.

    One list after the other, as they came: the same decisions end with the same bytes.

    Raises
    ------
    UserError
        If a list is damaged.
    """
    run = embedded.directory
    for number in range(_lists(run)):
        path = run.gone(number)
        known = read_json(path.with_suffix(".json")) or {}
        if not is_up_to_date(path, str(known.get("made of"))):
            raise UserError(f"{path} is damaged, and with it who has gone from {run.root}: bring it back, or --restart")
        manifest = _replaced(
            embedded, manifest, read_table(path).column("id").combine_chunks(), known["made of"], submit
        )
        _move_parts(run)
        remove_folder(run.replaced)
    return manifest


def _replaced(embedded: Embedded, manifest: RunManifest, ids: pa.Array, name: str, submit: Submit) -> RunManifest:
    """Write the parts of a replacement aside, and return the manifest that they will have."""
    run = embedded.directory
    aside = run.replaced
    remove_folder(aside)
    write_ids(aside / "gone.parquet", ids)
    mark_up_to_date(aside / "gone.parquet", name)
    shards = [_Shards(run, group) for group in embedded.groups]

    def over(step: str, function: Callable[..., Result], *args: Any) -> list[Result]:
        return map_groups(submit, step, function, shards, *args)

    def gather(name: str, rows: Rows) -> _Known:
        held = [v for v in over("gather", vectors_of, rows) if len(v)]
        write_array(aside / name, np.concatenate(held) if held else np.zeros((0, 0), np.float16))
        return _Known(rows, aside / name)

    found = over("find", find_gone, aside / "gone.parquet")
    gone, was_kept, representative = (np.concatenate([f[k] for f in found]) for k in range(3))
    vanished = gone[was_kept]
    warnings = unknown_ids(ids, [f[3] for f in found], f"--gone {name}")
    warned = {"warnings": [*manifest.warnings, *warnings]}
    if not len(gone):
        return manifest.model_copy(update=warned)
    roots = _roots(gone, was_kept, representative)
    known = gather("roots.npy", np.unique(roots[roots >= 0]))
    orphans = over("find", find_orphans, gone, roots, known)
    rows, back, similarity, kept = (np.concatenate([o[k] for o in orphans]) for k in range(4))
    heir, promoted = promote(rows, back, similarity, kept, vanished)
    known = gather("heirs.npy", np.unique(heir))
    reason = f"gone: {visible(name)}"
    changes, least, seals = _rewrite(shards, aside, gone, reason, rows, heir, known, embedded.schema, submit)
    counts = manifest.counts.model_copy(
        update={name: getattr(manifest.counts, name) + change for name, change in changes.items()}
    )
    if not counts.add_up:
        raise FairdedupError(f"the counts do not add up ({counts}): nothing was changed; please report this")
    distinct = manifest.guarantees.no_two_kept_are_duplicates
    represented = manifest.guarantees.every_removed_has_a_kept_representative
    if manifest.eps is not None:
        bound = 1.0 - round(manifest.eps * EPS_UNIT) / EPS_UNIT
        represented = represented and least > bound
        if distinct and len(promoted):
            known = gather("promoted.npy", promoted)
            clusters = np.concatenate(over("check", clusters_of, promoted))
            alike = max(over("check", most_alike, aside, clusters, known))
            distinct = not alike > bound
    guarantees = {"no_two_kept_are_duplicates": distinct, "every_removed_has_a_kept_representative": represented}
    record = ReplacementRecord(file=name, gone=len(gone), gone_kept=len(vanished), promoted=len(promoted))
    return manifest.model_copy(
        update={
            **warned,
            "counts": counts,
            "guarantees": manifest.guarantees.model_copy(update=guarantees),
            "shares": [],
            "files": {**manifest.files, **seals},
            "replaced": [*manifest.replaced, record],
        }
    )


def clusters_of(shard: _Shards, rows: Rows) -> Rows:
    """Return the clusters of those rows that lie in a shard, in order."""
    table = shard.decisions()
    return _column(table, "cluster")[np.isin(_column(table, "row"), rows)]


def _rewrite(
    shards: list[_Shards], aside: Path, gone: Rows, reason: str, rows: Rows, heir: Rows, known: _Known,
    schema: pa.Schema, submit: Submit,
) -> tuple[dict[str, int], float, dict[str, str]]:  # fmt: skip
    """Write the parts of all groups that change."""
    order = np.argsort(rows)
    rows, heir = rows[order], heir[order]
    tasks = []
    for shard in shards:
        left, own = gone[shard.within(gone)], shard.within(rows)
        if len(left) or len(rows[own]):
            arguments = (shard, aside, left, reason, rows[own], heir[own], known, schema)
            tasks.append(Task(arguments, shard.input, shard.name))
    changes: dict[str, int] = {}
    seals: dict[str, str] = {}
    least = 1.0
    for change, lowest, sealed in submit("replace", rewrite_shard, tasks):
        least = min(least, lowest)
        seals.update(sealed)
        for name, number in change.items():
            changes[name] = changes.get(name, 0) + number
    return changes, least, seals


def complete_replacement(run: RunDirectory) -> RunManifest | None:
    """Put the parts of a replacement in their places, one that was stopped among it, and return its manifest if any.

    What is not complete is removed: the run stays what it was.
    """
    manifest = RunManifest.read(run.new_manifest)
    if manifest is not None:
        run.manifest.unlink(missing_ok=True)
        remove_audit(run)
        state = StateDirectory(run.root)
        if state.file.is_file():  # it is of before; whoever replaces makes it anew
            move_file(state.file, state.stale)
        files = {name: sealed for name, sealed in manifest.files.items() if not name.startswith("state/")}
        manifest = manifest.model_copy(update={"files": files})
        _move_parts(run)
        own = run.gone(_lists(run))
        for there, place in (
            (run.replaced / "gone.json", own.with_suffix(".json")),
            (run.replaced / "gone.parquet", own),
        ):
            if there.is_file():  # else it was moved by a command that was killed
                own.parent.mkdir(exist_ok=True)
                move_file(there, place)
        write_manifest(run, manifest)
    remove_folder(run.replaced)
    return manifest


def _lists(run: RunDirectory) -> int:
    return len(list(run.gone(0).parent.glob("gone_*.parquet")))


def _move_parts(run: RunDirectory) -> None:
    for folder in FOLDERS:
        for part in sorted((run.replaced / folder).glob("part-*.parquet")):
            move_file(part, run.root / folder / part.name)
