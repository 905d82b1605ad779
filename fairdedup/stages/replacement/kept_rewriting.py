"""Writes parts of kept/ again after a replacement: a kept sample came, went, or stands for other rows than before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fairdedup.stages.replacement.group_rewriting import WRITTEN, DecidedGroup, get_column
from fairdedup.storage.kept_samples import KeptColumns, list_represented, write_kept
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.represented_rows import RemovedRows, Represented
from fairdedup.storage.result_files import result_part
from fairdedup.storage.sealed_files import Seal, Unsealed, load_table
from fairdedup.storage.shard_groups import first_rows_of_groups
from fairdedup.tasks import Submit, Task


def rewrite_kept(
    groups: Sequence[DecidedGroup],
    aside: Path,
    changed: Mapping[str, str],
    touched: NDArray[np.int64],
    columns: KeptColumns,
    submit: Submit,
) -> dict[str, str]:
    """Write the new parts of kept/, and return their seals by their paths below the new parts' folder.

    Parameters
    ----------
    groups : sequence of DecidedGroup
        All groups of the run, with their decisions before the replacement.
    aside : Path
        Folder of the new parts.
    changed : mapping of str to str
        Seals of the new parts of decisions/, by their paths below it.
    touched : ndarray of int64
        Rows that stand for other rows than before; -1 is no row.
    columns : KeptColumns
    submit : Submit
    """
    target = RunDirectory(aside)
    sources = [_find_decisions(group, target, changed) for group in groups]
    starts = first_rows_of_groups([group.group for group in groups])
    again = {group.number for group, source in zip(groups, sources, strict=True) if isinstance(source, Unsealed)}
    represented: dict[int, Represented] = {}
    if columns.has_counts:
        tasks = [
            Task((group, source, aside, columns, starts), group.input, group.name)
            for group, source in zip(groups, sources, strict=True)
        ]
        bounds = np.array(submit("represent", list_group, tasks))
        again |= set((np.searchsorted(starts, touched[touched >= 0], side="right") - 1).tolist())
        represented = {number: Represented.of_group(target.represented, bounds, number) for number in again}
    tasks = [
        Task((group.group, group.run, target, source, columns, represented.get(group.number)), group.input, group.name)
        for group, source in zip(groups, sources, strict=True)
        if group.number in again
    ]
    seals: dict[str, str] = {}
    for sealed in submit("write kept", write_kept, tasks):
        seals |= sealed
    return seals


def list_group(
    group: DecidedGroup, decisions: Seal | Unsealed, aside: Path, columns: KeptColumns, starts: NDArray[np.int64]
) -> NDArray[np.int64]:
    """List who represents the removed rows of a group after a replacement, as `list_represented` does.

    Parameters
    ----------
    group : DecidedGroup
    decisions : Seal or Unsealed
        Its decisions after the replacement.
    aside : Path
        Folder of the new parts.
    columns : KeptColumns
    starts : ndarray of shape (g + 1,), int64
        First row of every group, and the number of input rows.
    """
    names = ["row", "kept", "representative", "similarity"]
    table = load_table(decisions, names)
    decided = {name: get_column(table, name) for name in names}
    removed = RemovedRows.of(decided, decided["kept"])
    return list_represented(group.group, group.run, RunDirectory(aside), removed, columns, starts)


def _find_decisions(group: DecidedGroup, target: RunDirectory, changed: Mapping[str, str]) -> Seal | Unsealed:
    """Return the decisions of a group after a replacement: the new part, or that of the run if there is none."""
    new = target.part("decisions", group.number)
    if str(new.relative_to(target.root)) in changed:
        return Unsealed(new, WRITTEN)
    return result_part(group.run, "decisions", group.number, group.seals)
