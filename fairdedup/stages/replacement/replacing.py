"""The replacement stage: which rows leave a finished run, which are promoted, and when the new parts take effect.

New parts are written to a folder of their own. When all are complete, run.json is removed, the parts are moved, and
run.json is written again last. So a command that was killed has changed nothing, or the next command completes it. The
lists of vanished samples stay in gone/, so that later decisions remove these samples again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fairdedup.core.similarity import EPS_UNIT
from fairdedup.datasets.ids import read_ids, spell_out
from fairdedup.errors import FairdedupError, visible
from fairdedup.stages.replacement.gone_lists import list_removed, move_list
from fairdedup.stages.replacement.group_rewriting import (
    DecidedGroup,
    GatheredVectors,
    GoneRows,
    GroupChange,
    Orphans,
    RewrittenGroup,
    find_gone,
    find_orphans,
    gather_vectors,
    rewrite_group,
)
from fairdedup.stages.replacement.guarantee_checks import find_clusters, find_largest_cosine
from fairdedup.stages.replacement.kept_rewriting import rewrite_kept
from fairdedup.stages.replacement.promotion import Promotion, Rows, promote, trace_back
from fairdedup.storage.contents import Embedded
from fairdedup.storage.id_lists import check_any_known, describe_unknown, find_unknown, write_ids
from fairdedup.storage.kept_samples import KeptColumns
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.made_of import mark_up_to_date
from fairdedup.storage.manifest import (
    Counts,
    Guarantees,
    ReplacementRecord,
    RunManifest,
    remove_audit,
    write_manifest,
)
from fairdedup.storage.run_files import move_file, remove_folder, write_array
from fairdedup.storage.sealed_files import load_table
from fairdedup.storage.state_directory import StateDirectory
from fairdedup.tasks import Result, Submit, Task, map_groups

FOLDERS = ("decisions", "kept", "rejected")


def replace(
    embedded: Embedded, manifest: RunManifest, gone_file: Path, columns: KeptColumns, submit: Submit
) -> RunManifest:
    """Remove vanished samples from a finished run and promote the rows that take their place.

    Parameters
    ----------
    embedded : Embedded
    manifest : RunManifest
        Manifest of the finished run.
    gone_file : Path
        File of the ids of vanished samples.
    columns : KeptColumns
        Columns of kept/.
    submit : Submit

    Returns
    -------
    RunManifest
        The new manifest.

    Raises
    ------
    UserError
        If the file cannot be read, or the run has none of its ids.
    FairdedupError
        If the counts would not add up: then nothing is changed.
    """
    run = embedded.directory
    new = _write_parts(embedded, manifest, read_ids(gone_file, "--gone"), gone_file.name, columns, submit)
    if not (run.replaced / FOLDERS[0]).is_dir():  # none of the ids is in the run
        remove_folder(run.replaced)
        return new
    new.write(run.new_manifest)  # from here on the replacement is decided, and any later command can complete it
    return complete_replacement(run) or new


def replace_again(embedded: Embedded, manifest: RunManifest, columns: KeptColumns, submit: Submit) -> RunManifest:
    """Repeat the earlier replacements of a run on new decisions, whose manifest is not written yet.

    They are repeated one by one, in their order, so that the same decisions end with the same bytes.

    Parameters
    ----------
    embedded : Embedded
    manifest : RunManifest
        Manifest of the new decisions.
    columns : KeptColumns
        Columns of kept/.
    submit : Submit

    Returns
    -------
    RunManifest
        The new manifest.

    Raises
    ------
    UserError
        If a list of vanished samples is damaged.
    """
    run = embedded.directory
    for source, name in list_removed(run):
        ids = load_table(source).column("id").combine_chunks()
        manifest = _write_parts(embedded, manifest, ids, name, columns, submit, repeated=True)
        _move_parts(run)
        remove_folder(run.replaced)
    return manifest


def complete_replacement(run: RunDirectory) -> RunManifest | None:
    """Move the new parts of a replacement to their places, and return its manifest; None where there is none.

    Parts that are not complete are removed: then the run stays as it was. A replacement that was stopped is completed.
    """
    manifest = RunManifest.read(run.new_manifest)
    if manifest is not None:
        run.manifest.unlink(missing_ok=True)
        remove_audit(run)
        state = StateDirectory(run.root)
        if state.file.is_file():  # it describes the run before the replacement, and is made again afterwards
            move_file(state.file, state.stale)
        files = {name: sealed for name, sealed in manifest.files.items() if not name.startswith("state/")}
        manifest = manifest.model_copy(update={"files": files})
        _move_parts(run)
        move_list(run)
        write_manifest(run, manifest)
    remove_folder(run.replaced)
    return manifest


@dataclass(frozen=True)
class _Groups:
    """All groups of a run, and the folder that a replacement writes to."""

    groups: list[DecidedGroup]
    aside: Path
    submit: Submit

    def map(self, stage: str, function: Callable[..., Result], *shared: Any) -> list[Result]:
        return map_groups(self.submit, stage, function, self.groups, *shared)

    def gather(self, name: str, rows: Rows) -> GatheredVectors:
        """Write the vectors of some ascending rows to a file that all tasks can read."""
        found = [vectors for vectors in self.map("gather", gather_vectors, rows) if len(vectors)]
        write_array(self.aside / name, np.concatenate(found) if found else np.zeros((0, 0), np.float16))
        return GatheredVectors(rows, self.aside / name)

    def find_gone(self, ids: Path) -> GoneRows:
        found = self.map("find", find_gone, ids)
        return GoneRows(*map(np.concatenate, zip(*found, strict=True)))

    def find_orphans(self, gone: GoneRows) -> Orphans:
        back = trace_back(gone.rows, gone.kept, gone.representative)
        gathered = self.gather("roots.npy", np.unique(back[back >= 0]))
        found = self.map("find", find_orphans, gone.rows, back, gathered)
        return Orphans(*map(np.concatenate, zip(*found, strict=True)))

    def rewrite(self, gone: Rows, reason: str, orphans: Rows, representative: Rows) -> RewrittenGroup:
        """Write the new decisions and rejected rows of the groups that change, and return what changes in sum."""
        gathered = self.gather("heirs.npy", np.unique(representative))
        order = np.argsort(orphans)
        orphans, representative = orphans[order], representative[order]
        tasks = []
        for group in self.groups:
            left, own = gone[group.slice_of(gone)], group.slice_of(orphans)
            if len(left) or len(orphans[own]):
                change = GroupChange(left, orphans[own], representative[own])
                tasks.append(Task((group, self.aside, change, reason, gathered), group.input, group.name))
        return _sum_up(self.submit("replace", rewrite_group, tasks))


def _sum_up(groups: list[RewrittenGroup]) -> RewrittenGroup:
    changes: dict[str, int] = {}
    seals: dict[str, str] = {}
    for group in groups:
        seals |= group.seals
        for name, change in group.changes.items():
            changes[name] = changes.get(name, 0) + change
    return RewrittenGroup(changes, min((group.least for group in groups), default=1.0), seals)


def _find_gone(groups: _Groups, ids: pa.Array, target: Path) -> tuple[pa.Array, GoneRows]:
    """Write a list of ids and find its rows; numbers that no row has as its id are written out first."""
    write_ids(target, ids)
    gone = groups.find_gone(target)
    spelled = spell_out(ids, find_unknown(ids, [gone.found]))
    if spelled is None:
        return ids, gone
    write_ids(target, spelled)
    return spelled, groups.find_gone(target)


def _write_parts(
    embedded: Embedded,
    manifest: RunManifest,
    ids: pa.Array,
    name: str,
    columns: KeptColumns,
    submit: Submit,
    *,
    repeated: bool = False,
) -> RunManifest:
    """Write the new parts of a replacement, and return the manifest that they will have.

    A list of which the run has no id is refused, unless the replacement is repeated.
    """
    run = embedded.directory
    aside = run.replaced
    remove_folder(aside)
    groups = _Groups(_list_groups(embedded, manifest), aside, submit)
    ids, gone = _find_gone(groups, ids, aside / "gone.parquet")
    mark_up_to_date(aside / "gone.parquet", name)
    unknown, what = find_unknown(ids, [gone.found]), f"--gone {name}"
    if not repeated and len(unknown) == len(ids):
        remove_folder(aside)
        check_any_known(ids, unknown, what)
    warnings = [*manifest.warnings, *([describe_unknown(ids, unknown, what)] if len(unknown) else [])]
    if not len(gone.rows):
        return manifest.model_copy(update={"warnings": warnings})
    orphans, vanished = groups.find_orphans(gone), gone.rows[gone.kept]
    new = promote(orphans.rows, orphans.back, orphans.similarity, orphans.kept, vanished)
    reason = f"gone: {visible(name)}"
    rewritten = groups.rewrite(gone.rows, reason, orphans.rows, new.representative)
    touched = np.concatenate((gone.representative[~gone.kept], new.representative))
    kept = rewrite_kept(groups.groups, aside, rewritten.seals, touched, columns, submit)
    counts = _change_counts(manifest.counts, rewritten.changes)
    guarantees = _check_guarantees(manifest, groups, new, rewritten.least)
    record = ReplacementRecord(file=name, gone=len(gone.rows), gone_kept=len(vanished), promoted=len(new.promoted))
    return manifest.model_copy(
        update={
            "warnings": warnings,
            "counts": counts,
            "guarantees": guarantees,
            "shares": [],
            "leftover": None,
            "removed_cosines": None,
            "files": {**manifest.files, **rewritten.seals, **kept},
            "replaced": [*manifest.replaced, record],
        }
    )


def _list_groups(embedded: Embedded, manifest: RunManifest) -> list[DecidedGroup]:
    run = embedded.directory
    groups = []
    for group in embedded.groups:
        names = [str(run.part(folder, group.number).relative_to(run.root)) for folder in FOLDERS]
        seals = {name: manifest.files[name] for name in names if name in manifest.files}
        groups.append(DecidedGroup(run, group, seals))
    return groups


def _change_counts(counts: Counts, changes: dict[str, int]) -> Counts:
    new = counts.model_copy(update={name: getattr(counts, name) + change for name, change in changes.items()})
    if not new.add_up:
        raise FairdedupError(f"the counts do not add up ({new}): nothing was changed; please report this")
    return new


def _check_guarantees(manifest: RunManifest, groups: _Groups, new: Promotion, least: float) -> Guarantees:
    """Return which guarantees still hold; one that did not hold before is not checked."""
    if manifest.eps is None:
        return manifest.guarantees
    bound = 1.0 - round(manifest.eps * EPS_UNIT) / EPS_UNIT
    distinct = manifest.guarantees.no_two_kept_are_duplicates
    if distinct and len(new.promoted):
        options = manifest.config["prune"]
        promoted, within = groups.gather("promoted.npy", new.promoted), options.get("within")
        clusters: NDArray[np.int64] = np.concatenate(groups.map("check", find_clusters, new.promoted, within))
        # Across clusters this may find a pair that the run did not compare: then it promises less than it could.
        check = partial(find_largest_cosine, within=within, across=bool(options.get("reach")))
        distinct = not max(groups.map("check", check, groups.aside, clusters, promoted)) > bound
    represented = manifest.guarantees.every_removed_has_a_kept_representative and least > bound
    return manifest.guarantees.model_copy(
        update={"no_two_kept_are_duplicates": distinct, "every_removed_has_a_kept_representative": represented}
    )


def _move_parts(run: RunDirectory) -> None:
    for folder in FOLDERS:
        for part in sorted((run.replaced / folder).glob("part-*.parquet")):
            move_file(part, run.root / folder / part.name)
