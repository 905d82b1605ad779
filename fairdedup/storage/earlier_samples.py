"""Samples that earlier runs kept (`--against`): linked into a run's own state, and read a cluster at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fairdedup.errors import FairdedupError, UserError
from fairdedup.storage.file_errors import changed
from fairdedup.storage.remedies import decide_again, decide_in_turn
from fairdedup.storage.run_files import is_same_file, link_or_copy, release_pages, write_array
from fairdedup.storage.run_state import EarlierRecord, KeptRun, RunState, state_file
from fairdedup.storage.sealed_files import Seal, Unsealed, expect_sealed_size, load_array, open_array, open_arrow
from fairdedup.storage.seals import has_sealed_size, is_sealed
from fairdedup.storage.state_directory import Segment, StateDirectory, checksum, has_checksums
from fairdedup.storage.stored_model import read_undamaged

LINKED = "`link_runs` of the same command has verified it"
WRITTEN = "`write_earlier` of the same command has written it"
COMPARED = "it is only compared with what it should hold, and written again if it differs"
BY_CLUSTER = "each cluster is verified where it is read, by its own checksum"
PLACE_BITS = 32  # lower bits of a name: place in a segment; the upper bits are the number of the segment
LOWER = (1 << PLACE_BITS) - 1
ROW_BITS = 40  # lower bits of a place in the order of all samples: row in its run


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


class SamplesOfCluster(NamedTuple):
    """Samples of a cluster that earlier runs kept.

    Attributes
    ----------
    unit : ndarray of shape (m, d), float16
        Unit vectors.
    names : ndarray of shape (m,), int64, ascending
    order : ndarray of shape (m,), int64, ascending
        Place of each in the order of the runs, then of their rows.
    sums : ndarray of shape (c,), int64, or None
        Sum of each concept.
    within : ndarray of shape (m,), int64, or None
        Code of each value of the column within which rows are compared.
    """

    unit: NDArray[np.float16]
    names: NDArray[np.int64]
    order: NDArray[np.int64]
    sums: NDArray[np.int64] | None
    within: NDArray[np.int64] | None


class EarlierSamples:
    """Samples that earlier runs kept, read a cluster at a time from the files that `link_runs` linked.

    Parameters
    ----------
    root : Path
        Run directory.
    first, last : int
        Range of clusters that are read, from `first` to before `last`.
    rows : Path, optional
        Folder with the rows of the samples, which `write_rows` wrote; needed for a decision across clusters.
    within : bool
        Whether the codes of their values are read too.
    """

    def __init__(self, root: Path, first: int, last: int, rows: Path | None = None, *, within: bool = False) -> None:
        self.state, self.first = StateDirectory(root), first
        segments, runs = list_segments(root), _read_earlier(self.state).runs
        self._rows = None if rows is None else [open_rows(rows, place) for place in range(len(segments))]
        self.segments = [OpenSegment(s, _run_of(s, runs), first, last, len(segments)) for s in segments]
        self._within = [open_array(Unsealed(s.within, LINKED)) for s in segments] if within else None
        self._sums = np.asarray(open_array(Unsealed(self.state.sums, WRITTEN))[first:last])
        self._begun = np.asarray(open_array(Unsealed(self.state.begun, WRITTEN))[first:last])

    @property
    def clusters(self) -> list[int]:
        """Numbers of the clusters of the range that have samples."""
        counts = sum((np.diff(segment.offsets) for segment in self.segments), np.zeros(1, np.int64))
        return (self.first + np.flatnonzero(counts)).tolist()

    def cluster(self, number: int, dimension: int) -> SamplesOfCluster:
        """Return the samples of a cluster.

        Raises
        ------
        UserError
            If the vectors are damaged.
        """
        found = [part for k, s in enumerate(self.segments) for part in s.cluster(number, k)]
        units = [unit for unit, _ in found] or [np.zeros((0, dimension), np.float16)]
        names = np.concatenate([name for _, name in found] or [np.zeros(0, np.int64)])
        k = number - self.first
        sums = self._sums[k] if self._begun[k] and self._sums.shape[1] else None
        return SamplesOfCluster(np.concatenate(units), names, self.order(names), sums, self.codes(names))

    def codes(self, names: NDArray[np.int64]) -> NDArray[np.int64] | None:
        """Return the code of the value of each named sample; None if rows are compared whatever their values."""
        if self._within is None:
            return None
        codes, places = np.zeros(len(names), np.int64), names >> PLACE_BITS
        for place in np.unique(places).tolist():
            own = np.flatnonzero(places == place)
            codes[own] = self._within[place][names[own] & LOWER]
        return codes

    def order(self, names: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the place of each named sample in the order of the runs, then of their rows."""
        if self._rows is None:
            return names  # the same within a cluster
        order, places = np.empty_like(names), names >> PLACE_BITS
        for place in np.unique(places).tolist():
            own = np.flatnonzero(places == place)
            order[own] = (place << ROW_BITS) + self._rows[place][names[own] & LOWER]
        return order


def write_rows(folder: Path, place: int, segment: Segment) -> None:
    """Write the row of each sample of a segment into a folder, where `open_rows` finds it by the segment's place."""
    with open_arrow(Unsealed(segment.ids, LINKED)) as table:
        write_array(folder / f"earlier_row_{place}.npy", table.column("row").to_numpy())


def open_rows(folder: Path, place: int) -> Any:
    """Return the row of each sample of a segment: (m,), int64."""
    return open_array(Unsealed(folder / f"earlier_row_{place}.npy", WRITTEN))


def open_segment(root: Path, place: int, clusters: int) -> OpenSegment:
    """Open a segment of `list_segments` for reading all its clusters, by its place."""
    segment = list_segments(root)[place]
    return OpenSegment(segment, _run_of(segment, _read_earlier(StateDirectory(root)).runs), 0, clusters, 1)


class OpenSegment:
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

    def verify(self) -> None:
        """Verify the vectors of all clusters of the range; raises as `EarlierSamples.cluster`."""
        for number in range(self.first, self.first + len(self.checksums)):
            for _ in self.cluster(number, 0):
                release_pages(self.vectors)

    def cluster(self, number: int, place: int) -> Iterator[tuple[NDArray[np.float16], NDArray[np.int64]]]:
        """Yield the vectors of a cluster, and the names of its samples where the segment has this place, if any."""
        k = number - self.first
        start, stop = int(self.offsets[k]), int(self.offsets[k + 1])
        if stop > start:
            unit = np.asarray(self.vectors[start:stop])
            if checksum(unit) != int(self.checksums[k]):
                raise UserError(f"{self.segment.vectors} is damaged: {self._remedy()}")
            yield unit, (place << PLACE_BITS) + np.arange(start, stop)


def seal_of_segment(root: Path, segment: Segment, path: Path, seals: Mapping[str, str]) -> Seal:
    """Return a file of a segment with the seal that the manifest of the run has.

    Parameters
    ----------
    root : Path
        Run directory.
    segment : Segment
    path : Path
        Path of the file.
    seals : mapping of str to str
        Seal of each file of the state, by path below the run directory.
    """
    run = _run_of(segment, _read_earlier(StateDirectory(root)).runs)
    return Seal(path, seals.get(str(path.relative_to(root))), decide_in_turn([run, root]))


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
            found = column.take(pa.array(names[mine] & LOWER)).to_pylist()
        run = _run_of(segment, folders)
        for k, name in zip(mine.tolist(), found, strict=True):
            runs[k], ids[k] = run, name
    return runs, ids


def write_earlier(
    target: StateDirectory, runs: Sequence[KeptRun], sums: NDArray[np.int64], begun: NDArray[np.bool_]
) -> None:
    """Write the values from earlier runs that the decision of a run reads; files that hold them already stay.

    Parameters
    ----------
    target : StateDirectory
    runs : sequence of KeptRun
    sums : ndarray of shape (k, c), int64
        Sum of each concept in each cluster.
    begun : ndarray of shape (k,), bool
        Whether each cluster has a row of an earlier run.
    """
    for path, array in ((target.sums, sums), (target.begun, begun)):
        if not _holds(path, array):
            write_array(path, array)
    record = EarlierRecord(runs=[run.run for run in runs], segments=[run.segments for run in runs])
    if read_undamaged(target.earlier, EarlierRecord) != record:
        record.write(target.earlier)


def _holds(path: Path, array: NDArray[Any]) -> bool:
    """Return whether a file holds an array."""
    if not path.exists():
        return False
    try:
        known = load_array(Unsealed(path, COMPARED))
    except FairdedupError:
        return False
    return known.dtype == array.dtype and np.array_equal(known, array)
