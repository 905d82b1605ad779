"""Samples that earlier runs kept (`--against`): linked into a run's own state, and read a cluster at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fairdedup.errors import FairdedupError, UserError
from fairdedup.storage.file_errors import changed
from fairdedup.storage.remedies import decide_again, decide_in_turn
from fairdedup.storage.run_files import is_same_file, link_or_copy, write_array
from fairdedup.storage.run_state import EarlierRecord, KeptRun, RunState, state_file
from fairdedup.storage.sealed_files import Seal, Unsealed, expect_sealed_size, load_array, open_array, open_arrow
from fairdedup.storage.seals import has_sealed_size, is_sealed
from fairdedup.storage.state_directory import Segment, StateDirectory, checksum, has_checksums

LINKED = "`link_runs` of the same command has verified it"
WRITTEN = "`write_earlier` of the same command has written it"
BY_CLUSTER = "each cluster is verified where it is read, by its own checksum"
PLACE_BITS = 32  # lower bits of a name: place in a segment; the upper bits are the number of the segment


def link_runs(target: StateDirectory, sources: Sequence[tuple[Path, RunState]]) -> list[KeptRun]:
    """Link the files of earlier runs into a state, each run once, and return the runs.

    Parameters
    ----------
    target : StateDirectory
    sources : sequence of (Path, RunState)
        Run directories and their states. A run that several of them have is linked from the first.
    """
    runs: list[KeptRun] = []
    for root, state in sources:
        for number, run in enumerate(state.runs):
            if run.identity in {known.identity for known in runs}:
                continue
            folder = target.run_folder(len(runs))
            folder.mkdir(parents=True, exist_ok=True)
            for name in run.files:
                source = state_file(root, state, f"{StateDirectory(root).run_folder(number).name}/{name}")
                _link(source, folder / name)
            runs.append(run)
    return runs


def _link(source: Seal, target: Path) -> None:
    """Link a file, unless that is done. It is verified, but for new vectors: each of their clusters has a checksum."""
    if has_checksums(source.path) and not target.exists():
        expect_sealed_size(source)
    elif source.expected is not None and is_sealed(target, source.expected):
        return
    else:
        source.verify()
    if not is_same_file(source.path, target):
        link_or_copy(source.path, target)
    if source.expected is not None and not has_sealed_size(target, source.expected):
        raise changed(source.path)
    if source.expected is not None and not has_sealed_size(target, source.expected):
        raise changed(source.path)


class EarlierSamples:
    """Samples that earlier runs kept, read a cluster at a time from the files that `link_runs` linked.

    Parameters
    ----------
    root : Path
        Run directory.
    first, last : int
        Range of clusters that are read, from `first` to before `last`.
    """

    def __init__(self, root: Path, first: int, last: int) -> None:
        self.state, self.first = StateDirectory(root), first
        segments = list_segments(root)
        runs = [_run_of(segment, _read_earlier(self.state).runs) for segment in segments]
        self._segments = [
            _OpenSegment(segment, run, first, last, len(segments)) for segment, run in zip(segments, runs, strict=True)
        ]
        self._sums = np.asarray(open_array(Unsealed(self.state.sums, WRITTEN))[first:last])
        self._begun = np.asarray(open_array(Unsealed(self.state.begun, WRITTEN))[first:last])

    def cluster(self, number: int, dimension: int) -> tuple[NDArray[np.float16], NDArray[np.int64], Any]:
        """Return vectors (m, d) and names (m,) of a cluster, and its concepts' sums (c,) or None.

        Raises
        ------
        UserError
            If the vectors are damaged.
        """
        found = [part for k, s in enumerate(self._segments) for part in s.cluster(number, k)]
        units = [unit for unit, _ in found] or [np.zeros((0, dimension), np.float16)]
        names = [name for _, name in found] or [np.zeros(0, np.int64)]
        k = number - self.first
        sums = self._sums[k] if self._begun[k] and self._sums.shape[1] else None
        return np.concatenate(units), np.concatenate(names), sums


class _OpenSegment:
    """A segment of a run, whose arrays are open for reading a range of clusters."""

    def __init__(self, segment: Segment, run: str, first: int, last: int, share: int) -> None:
        self.segment, self.run, self.first = segment, run, first
        self.offsets = np.asarray(open_array(Unsealed(segment.offsets, LINKED))[first : last + 1])
        self.checksums = np.asarray(open_array(Unsealed(segment.checksums, LINKED))[first:last])
        source = Unsealed(segment.vectors, BY_CLUSTER, self._remedy())
        self.vectors = open_array(source, int(self.offsets[-1]), share)
        if self.vectors.dtype != np.float16 or self.vectors.ndim != 2:  # no checksum of a cluster covers the header
            raise source.error()

    def _remedy(self) -> str:
        return (
            f"{decide_again(self.run)}, where it came from, then each run after it in the same way; then make this run "
            "again: `fairdedup run` with --restart"
        )

    def cluster(self, number: int, place: int) -> Iterator[tuple[NDArray[np.float16], NDArray[np.int64]]]:
        k = number - self.first
        start, stop = int(self.offsets[k]), int(self.offsets[k + 1])
        if stop > start:
            unit = np.asarray(self.vectors[start:stop])
            if checksum(unit) != int(self.checksums[k]):
                raise UserError(f"{self.segment.vectors} is damaged: {self._remedy()}")
            yield unit, (place << PLACE_BITS) + np.arange(start, stop)


def iterate_segment(
    root: Path, segment: Segment, seals: Mapping[str, str], rows: int
) -> Iterator[tuple[NDArray[np.float16], NDArray[np.int64]]]:
    """Yield the vectors (m, d) of a segment and their clusters (m,), some clusters at a time.

    Parameters
    ----------
    root : Path
        Run directory.
    segment : Segment
        One of `list_segments`.
    seals : mapping of str to str
        Seal of each file of the state, by path below the run directory.
    rows : int
        Number of rows from which on they are yielded; a cluster is never divided.

    Raises
    ------
    UserError
        If a file is damaged.
    """
    run = _run_of(segment, _read_earlier(StateDirectory(root)).runs)
    for path in (segment.offsets, segment.checksums):
        Seal(path, seals.get(str(path.relative_to(root))), decide_in_turn([run, root])).verify()
    clusters = len(load_array(Unsealed(segment.offsets, LINKED))) - 1
    opened = _OpenSegment(segment, run, 0, clusters, 1)
    units, numbers, waiting = [], [], 0
    for number in np.flatnonzero(np.diff(opened.offsets)).tolist():
        for unit, _ in opened.cluster(number, 0):
            units.append(unit)
            numbers.append(np.full(len(unit), number))
            waiting += len(unit)
        if waiting >= rows:
            yield np.concatenate(units), np.concatenate(numbers)
            units, numbers, waiting = [], [], 0
    if waiting:
        yield np.concatenate(units), np.concatenate(numbers)


def list_segments(root: Path) -> list[Segment]:
    """Return the segments that a run's decision reads, in order."""
    state = StateDirectory(root)
    segments = _read_earlier(state).segments
    return [s for number, count in enumerate(segments) for s in state.segments(number, count)]


def _run_of(segment: Segment, runs: Sequence[str]) -> str:
    return runs[int(segment.folder.name.removeprefix("run-"))]


def _read_earlier(state: StateDirectory) -> EarlierRecord:
    record = EarlierRecord.read(state.earlier)
    if record is None:
        raise FairdedupError(f"{state.earlier} is missing: run the same command again")
    return record


def count_kept_by_cluster(root: Path, clusters: int) -> NDArray[np.int64]:
    """Return the number of samples that earlier runs kept in each cluster: (k,)."""
    total = np.zeros(clusters, np.int64)
    for segment in list_segments(root):
        total += np.diff(load_array(Unsealed(segment.offsets, LINKED)))
    return total


def name_samples(root: Path, names: NDArray[np.int64]) -> tuple[list[str | None], list[str | None]]:
    """Return the run and the id of each sample of earlier runs.

    Parameters
    ----------
    root : Path
        Run directory.
    names : ndarray of shape (n,), int64
        Names, as `EarlierSamples.cluster` returns them; -1 gives None.
    """
    runs: list[str | None] = [None] * len(names)
    ids: list[str | None] = [None] * len(names)
    if not (names >= 0).any():
        return runs, ids
    segments, folders = list_segments(root), _read_earlier(StateDirectory(root)).runs
    numbers = names >> PLACE_BITS
    for number in np.unique(numbers[names >= 0]).tolist():
        segment, mine = segments[number], np.flatnonzero(numbers == number)
        with open_arrow(Unsealed(segment.ids, LINKED)) as table:
            column = table.column("id")
            found = column.take(pa.array(names[mine] & ((1 << PLACE_BITS) - 1))).to_pylist()
        run = _run_of(segment, folders)
        for k, name in zip(mine.tolist(), found, strict=True):
            runs[k], ids[k] = run, name
    return runs, ids


def write_earlier(
    target: StateDirectory, runs: Sequence[KeptRun], sums: NDArray[np.int64], begun: NDArray[np.bool_]
) -> None:
    """Write the values from earlier runs that the decision of a run reads.

    Parameters
    ----------
    target : StateDirectory
    runs : sequence of KeptRun
    sums : ndarray of shape (k, c), int64
        Sum of each concept in each cluster.
    begun : ndarray of shape (k,), bool
        Whether each cluster has a row of an earlier run.
    """
    write_array(target.sums, sums)
    write_array(target.begun, begun)
    record = EarlierRecord(runs=[run.run for run in runs], segments=[run.segments for run in runs])
    record.write(target.earlier)
