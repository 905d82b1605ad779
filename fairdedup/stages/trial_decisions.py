"""Decisions that are only tried: the decision of another rule beside that of the run, in a folder of its own.

A trial has the rows, ids and clusters of the run's own decisions, and says which rows the other rule keeps. A task
reads one part of the run's decisions. The command removes the folder when it ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fairdedup.core.decision_columns import RECORD
from fairdedup.core.leftover import choose_sample
from fairdedup.core.similarity import Vectors, cosines
from fairdedup.errors import UserError
from fairdedup.stages.values import DecidedTask
from fairdedup.storage.contents import Embedded
from fairdedup.storage.earlier_samples import list_segments
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.result_files import result_part
from fairdedup.storage.run_files import remove_folder, write_table
from fairdedup.storage.sealed_files import Seal, Unsealed, load_table, open_array
from fairdedup.storage.seals import seal
from fairdedup.storage.segment_blocks import iterate_segment
from fairdedup.storage.shard_files import GroupVectors
from fairdedup.storage.shard_groups import Group
from fairdedup.tasks import Submit, Task

DECIDED_HERE = "a task of the same command has written it"
OWN_COLUMNS = ("row", "id", "cluster", "kept")
BLOCK = 1 << 13  # vectors that are widened at a time


@dataclass(frozen=True)
class Trial:
    """A decision that is tried.

    Attributes
    ----------
    directory : RunDirectory
        Its folder: ``decisions/`` in it has a part for each group of shards.
    seals : dict of str to str
        Seal of each part, by its path below the folder.
    kept, readmitted : int
        Rows that it keeps, and those of them that were re-admitted.
    differs : int
        Rows that it keeps and the run removes, or the other way round.
    unknown : int
        Rows that it decides and that the run has not, since their samples have vanished.
    """

    directory: RunDirectory
    seals: dict[str, str]
    kept: int
    readmitted: int
    differs: int
    unknown: int

    def part(self, number: int) -> Seal:
        """Return the part of a group of shards, with its seal."""
        return result_part(self.directory, "decisions", number, self.seals)


class _TriedPart(NamedTuple):
    """What the task of one part returns: its counts and its seal."""

    kept: int
    readmitted: int
    differs: int
    unknown: int
    sealed: str


def try_part(
    group: Group,
    run: RunDirectory,
    own: Seal,
    target: Path,
    slices: Sequence[tuple[int, int, int]],
    readmitted: NDArray[np.int64],
) -> _TriedPart:
    """Write what a trial decides of the rows of one part of a run's decisions.

    Parameters
    ----------
    group : Group
    run : RunDirectory
    own : Seal
        Part of the run's decisions.
    target : Path
        File to write.
    slices : sequence of (int, int, int)
        Number of each prune task that decided rows of the group, and where these begin and end.
    readmitted : ndarray of shape (r,), int64, ascending
        Re-admitted rows of the group.

    Raises
    ------
    UserError
        If the trial has not decided a row of the run.
    """
    table = load_table(own, OWN_COLUMNS).select(OWN_COLUMNS)
    parts = [np.asarray(open_array(Unsealed(run.decided(task), DECIDED_HERE))[a:b]) for task, a, b in slices]
    decided = np.concatenate([np.zeros(0, RECORD), *parts])
    decided = decided[np.argsort(decided["row"])]
    rows, before = table.column("row").to_numpy(), table.column("kept").to_numpy()
    places = np.searchsorted(decided["row"], rows)
    if len(rows) and (not len(decided) or not np.array_equal(decided["row"][places.clip(max=len(decided) - 1)], rows)):
        raise UserError(
            f"{group.name}: the rows that options such as --drop leave out are not those of the run's decisions, so a "
            "file that they name has changed: run `fairdedup prune` again, and then compare"
        )
    again = np.isin(rows, readmitted)
    kept = decided["kept"][places] | again
    table = table.set_column(table.column_names.index("kept"), "kept", pa.array(kept))
    write_table(target, table.append_column("readmitted", pa.array(again)))
    differs = int(np.count_nonzero(kept != before))
    return _TriedPart(int(kept.sum()), int(again.sum()), differs, len(decided) - len(rows), seal(target))


def write_trial(
    embedded: Embedded,
    seals: dict[str, str],
    decided: Sequence[DecidedTask],
    readmitted: NDArray[np.int64],
    folder: Path,
    submit: Submit,
) -> Trial:
    """Write a decision that prune tasks have left on disk to a folder of its own, and remove what they have left.

    Parameters
    ----------
    embedded : Embedded
        Embeddings of a finished run.
    seals : dict of str to str
        Seals of the run's decisions, from run.json.
    decided : sequence of DecidedTask
        What the prune tasks have left.
    readmitted : ndarray of shape (r,), int64, ascending
        Re-admitted rows.
    folder : Path
        Folder of the trial.
    submit : Submit
        Runs the tasks that write it.
    """
    run, trial, tasks = embedded.directory, RunDirectory(folder), []
    for group in embedded.groups:
        own = [(task, *map(int, bounds[group.number : group.number + 2])) for task, bounds in decided]
        low, high = np.searchsorted(readmitted, [group.first, group.first + group.input])
        arguments = (
            group,
            run,
            result_part(run, "decisions", group.number, seals),
            trial.part("decisions", group.number),
            [each for each in own if each[2] > each[1]],
            readmitted[low:high],
        )
        tasks.append(Task(arguments, group.input, group.name))
    found = submit("compare", try_part, tasks)
    remove_folder(run.decided(0).parent)
    paths = [trial.part("decisions", group.number).relative_to(folder) for group in embedded.groups]
    return Trial(
        trial,
        {str(path): part.sealed for path, part in zip(paths, found, strict=True)},
        kept=sum(part.kept for part in found),
        readmitted=sum(part.readmitted for part in found),
        differs=sum(part.differs for part in found),
        unknown=sum(part.unknown for part in found),
    )


def draw_rows(group: Group, own: Seal, size: int, seed: int) -> NDArray[np.int64]:
    """Return the rows of a part of the decisions with the lowest hashes, at most `size`, ascending."""
    rows: NDArray[np.int64] = load_table(own, ["row"]).column("row").to_numpy()
    return rows[choose_sample(rows, size, seed)]


def find_nearest_kept(
    group: Group, run: RunDirectory, unit: NDArray[np.float16], parts: Sequence[Seal]
) -> NDArray[np.float64]:
    """Return the largest cosine of each of some vectors to a kept row of a group, by each decision.

    Parameters
    ----------
    group : Group
    run : RunDirectory
    unit : ndarray of shape (m, d), float16
        Unit vectors.
    parts : sequence of t Seal
        The part of each decision; all have the same rows.

    Returns
    -------
    ndarray of shape (t, m), float64
        -1 where a decision keeps no row of the group.
    """
    best = np.full((len(parts), len(unit)), -1.0)
    tables = [load_table(part, ["row", "kept"]) for part in parts]
    rows = tables[0].column("row").to_numpy()
    kept = np.array([table.column("kept").to_numpy() for table in tables])  # (t, n) bool
    queries, vectors = Vectors.of(unit), GroupVectors(run, group)
    some = np.flatnonzero(kept.any(axis=0))
    for start in range(0, len(some), BLOCK):
        own = some[start : start + BLOCK]
        found = cosines(Vectors.of(vectors.read_rows(rows[own])), queries)  # (b, m)
        for k, mask in enumerate(kept[:, own]):
            best[k] = np.maximum(best[k], found[mask].max(axis=0, initial=-1.0))
    return best


def find_nearest_earlier(
    place: int, run: RunDirectory, unit: NDArray[np.float16], seals: Mapping[str, str]
) -> NDArray[np.float64]:
    """Return the largest cosine of each of some vectors to what an earlier run kept of a group of shards.

    Parameters
    ----------
    place : int
        Place of the segment among those of all earlier runs.
    run : RunDirectory
    unit : ndarray of shape (m, d), float16
        Unit vectors.
    seals : mapping of str to str
        Seal of each file of the state, by path below the run directory.

    Returns
    -------
    ndarray of shape (m,), float64
        -1 where the run kept nothing.
    """
    best, queries = np.full(len(unit), -1.0), Vectors.of(unit)
    for block in iterate_segment(run.root, place, seals, BLOCK):
        best = np.maximum(best, cosines(Vectors.of(block.unit), queries).max(axis=0, initial=-1.0))
    return best


def measure_coverage(
    embedded: Embedded,
    decisions: Sequence[Sequence[Seal]],
    size: int,
    seed: int,
    submit: Submit,
    earlier: Mapping[str, str] | None = None,
) -> NDArray[np.float64]:
    """Return the cosine of a sample of all decided rows to the nearest row that each decision keeps.

    In a line the samples that earlier runs kept are kept by every decision.

    Parameters
    ----------
    embedded : Embedded
    decisions : sequence of t sequences of Seal
        The parts of each decision, one for each group of shards; those of the run come first.
    size : int
        Number of rows to draw.
    seed : int
        Seed of the draw.
    submit : Submit
        Runs the tasks.
    earlier : mapping of str to str, optional
        Seals of what earlier runs kept, by path below the run directory; None for a run without earlier ones.

    Returns
    -------
    ndarray of shape (t, m), float64
        m is `size`, or the number of decided rows if that is smaller.
    """
    run, groups = embedded.directory, embedded.groups
    draws = [Task((group, decisions[0][k], size, seed), group.input, group.name) for k, group in enumerate(groups)]
    rows = np.concatenate([np.zeros(0, np.int64), *submit("coverage", draw_rows, draws)])
    rows = np.sort(rows[choose_sample(rows, size, seed)])
    units = [
        GroupVectors(run, group).read_rows(rows[(rows >= group.first) & (rows < group.first + group.input)])
        for group in groups
    ]
    unit = np.concatenate([own for own in units if own.size])
    tasks = [
        Task((group, run, unit, [parts[k] for parts in decisions]), group.input, group.name)
        for k, group in enumerate(groups)
    ]
    best: NDArray[np.float64] = np.max(np.array(submit("coverage", find_nearest_kept, tasks)), axis=0)
    if earlier is None:
        return best
    segments = list_segments(run.root)
    tasks = [Task((place, run, unit, earlier), name=segment.folder.name) for place, segment in enumerate(segments)]
    return np.maximum(best, np.max(np.array(submit("coverage", find_nearest_earlier, tasks)), axis=0))
