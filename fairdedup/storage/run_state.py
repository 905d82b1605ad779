"""RUN/state/: what a later run goes on from, whole in itself: whom this run and all before it kept, and their sums.

A folder for each run of the line. Those of earlier runs are hard links to their files (copies where the file system
has none), so a night costs what is new, and an earlier run may be moved or removed. state.json is written last.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from fairdedup.errors import FairdedupError, UserError
from fairdedup.storage.run_files import (
    is_same_file,
    is_sealed,
    is_whole,
    opened_arrow,
    read_array,
    read_json,
    seal,
    take_copy,
    whole,
    write_array,
    write_json,
)

PLACE_BITS = 32  # of a name: the place in a segment; above them the segment's number


@dataclass(frozen=True)
class Segment:
    """What one run kept of a group of its shards, by cluster, then by row."""

    folder: Path
    number: int

    @property
    def vectors(self) -> Path:
        """float16 (m, d)."""
        return self.folder / f"vectors_{self.number}.npy"

    @property
    def offsets(self) -> Path:
        """int64 (k + 1,): cluster c is the slice from offsets[c] to offsets[c + 1]."""
        return self.folder / f"offsets_{self.number}.npy"

    @property
    def checksums(self) -> Path:
        """uint64 (k,): XXH3 of each cluster's vectors, so that what a night reads is checked, and no more is read."""
        return self.folder / f"checksums_{self.number}.npy"

    @property
    def ids(self) -> Path:
        """Arrow: row and id of each vector, read in place."""
        return self.folder / f"ids_{self.number}.arrow"

    def files(self) -> list[Path]:
        """Return its files."""
        return [self.vectors, self.offsets, self.checksums, self.ids]

    def write(
        self, unit: NDArray[np.float16], offsets: NDArray[np.int64], rows: NDArray[np.int64], ids: pa.Array
    ) -> dict[str, str]:
        """Write its files and return their seals, by name."""
        write_array(self.vectors, unit)
        write_array(self.offsets, offsets)
        write_array(
            self.checksums, np.array([_sum(unit[a:b]) for a, b in zip(offsets, offsets[1:], strict=False)], np.uint64)
        )
        table = pa.table({"row": rows, "id": ids.cast(pa.large_string())})
        with whole(self.ids) as aside, pa.ipc.new_file(str(aside), table.schema) as writer:
            writer.write_table(table)
        return {path.name: seal(path) for path in self.files()}


def _sum(unit: NDArray[np.float16]) -> int:
    return xxhash.xxh3_64_intdigest(np.ascontiguousarray(unit).view(np.uint8).reshape(-1).data) if unit.size else 0


@dataclass(frozen=True)
class StateDirectory:
    """The folder state/ of a run."""

    root: Path

    @property
    def folder(self) -> Path:
        """RUN/state."""
        return self.root / "state"

    @property
    def file(self) -> Path:
        """What holds for all clusters, and the runs of the line; written last."""
        return self.folder / "state.json"

    @property
    def stale(self) -> Path:
        """The state of before a replacement, until it is made anew."""
        return self.folder / "stale.json"

    @property
    def centroids(self) -> Path:
        """float32 (k, d)."""
        return self.folder / "centroids.npy"

    @property
    def prototypes(self) -> Path:
        """The prototypes' vectors as they are used."""
        return self.folder / "prototypes.parquet"

    @property
    def earlier(self) -> Path:
        """Which segments the decision of this run reads, in order; written before it."""
        return self.folder / "earlier.json"

    @property
    def sums(self) -> Path:
        """int64 (k, c): where each concept's sum stood before this run."""
        return self.folder / "sums.npy"

    @property
    def begun(self) -> Path:
        """Bool (k,): which clusters had a row before this run."""
        return self.folder / "begun.npy"

    def of_run(self, number: int) -> Path:
        """Return the folder of a run of the line, by its place in it."""
        return self.folder / f"run-{number:04d}"

    def segments(self, number: int, count: int) -> list[Segment]:
        """Return the segments of a run of the line."""
        return [Segment(self.of_run(number), k) for k in range(count)]


def read_state(root: Path, sealed: str | None) -> dict[str, Any]:
    """Return state.json of a finished run, whose manifest has this seal of it.

    Raises
    ------
    UserError
        If it is missing or damaged, or a file beside it is not there in its size.
    """
    state = StateDirectory(root)
    mend = f"run `fairdedup prune {root}` with its own options again"
    if state.stale.is_file():  # there is nothing to decide anew
        mend = (
            "a replacement was stopped; finish it by its own `fairdedup run` command, or by "
            f"`fairdedup replace {root} --gone FILE` with the same file"
        )
    if sealed is None or not is_sealed(state.file, sealed):
        raise UserError(f"--against {str(root)!r}: {state.file} is missing or damaged: {mend}")
    known: dict[str, Any] = read_json(state.file)
    for name, each in listed(known).items():
        if not is_whole(state.folder / name, each):
            raise UserError(f"--against {str(root)!r}: {state.folder / name} is missing or damaged: {mend}")
    return known


def listed(known: dict[str, Any]) -> dict[str, str]:
    """Return the seal of every file that a state.json names, by its path below state/."""
    files = dict(known["files"])
    for number, run in enumerate(known["runs"]):
        files |= {f"run-{number:04d}/{name}": each for name, each in run["files"].items()}
    return files


def identity(files: dict[str, str]) -> str:
    """Return what tells one run of a line from another: a hash of its files' seals."""
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def take_over(target: StateDirectory, sources: list[tuple[Path, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Link the runs of all lines into one, each once, and return what state.json is to say of them.

    Parameters
    ----------
    sources : list of (Path, dict)
        Run directories and their state.json, in the order that ties go by.
    """
    runs: list[dict[str, Any]] = []
    for root, known in sources:
        for number, run in enumerate(known["runs"]):
            if run["identity"] in {r["identity"] for r in runs}:
                continue
            source, folder = StateDirectory(root).of_run(number), target.of_run(len(runs))
            folder.mkdir(parents=True, exist_ok=True)
            for name, each in run["files"].items():
                _link(source / name, folder / name, each)
            runs.append(run)
    return runs


def _link(source: Path, target: Path, sealed: str) -> None:
    if is_same_file(source, target) or is_sealed(target, sealed):
        return
    take_copy(source, target)


class EarlierSamples:
    """Reads what earlier runs kept, a cluster at a time, from the files that `take_over` linked."""

    def __init__(self, root: Path, first: int, last: int) -> None:
        self.state, self.first = StateDirectory(root), first
        segments = segments_of(root)
        self._segments = [_Open(segment, first, last, len(segments)) for segment in segments]
        self._sums = np.asarray(read_array(self.state.sums)[first:last])
        self._begun = np.asarray(read_array(self.state.begun)[first:last])

    def cluster(self, number: int, dimension: int) -> tuple[NDArray[np.float16], NDArray[np.int64], Any]:
        """Return vectors (m, d) and names (m,) of a cluster, and its concepts' sums (c,) or None.

        Raises
        ------
        UserError
            If they are damaged.
        """
        found = [part for k, s in enumerate(self._segments) for part in s.cluster(number, k)]
        units = [unit for unit, _ in found] or [np.zeros((0, dimension), np.float16)]
        names = [name for _, name in found] or [np.zeros(0, np.int64)]
        k = number - self.first
        sums = self._sums[k] if self._begun[k] and self._sums.shape[1] else None
        return np.concatenate(units), np.concatenate(names), sums


class _Open:
    def __init__(self, segment: Segment, first: int, last: int, share: int) -> None:
        self.segment, self.first = segment, first
        self.offsets = np.asarray(read_array(segment.offsets)[first : last + 1])
        self.checksums = np.asarray(read_array(segment.checksums)[first:last])
        self.vectors = read_array(segment.vectors, int(self.offsets[-1]), share)

    def cluster(self, number: int, place: int) -> Iterator[tuple[NDArray[np.float16], NDArray[np.int64]]]:
        k = number - self.first
        start, stop = int(self.offsets[k]), int(self.offsets[k + 1])
        if stop > start:
            unit = np.asarray(self.vectors[start:stop])
            if _sum(unit) != int(self.checksums[k]):
                raise UserError(
                    f"{self.segment.vectors} is damaged: clear this run (--restart) and prune the run that it came from"
                )
            yield unit, (place << PLACE_BITS) + np.arange(start, stop)


def segments_of(root: Path) -> list[Segment]:
    """Return the segments that a run's decision reads, in order."""
    state = StateDirectory(root)
    known = read_json(state.earlier)
    if known is None:
        raise FairdedupError(f"{state.earlier} is missing: run the same command again")
    return [s for number, count in enumerate(known["segments"]) for s in state.segments(number, count)]


def kept_per_cluster(root: Path, clusters: int) -> NDArray[np.int64]:
    """Return how many samples earlier runs kept of each cluster: (k,)."""
    total = np.zeros(clusters, np.int64)
    for segment in segments_of(root):
        total += np.diff(read_array(segment.offsets))
    return total


def named(root: Path, names: NDArray[np.int64]) -> tuple[list[str | None], list[str | None]]:
    """Return the run and the id of samples of earlier runs, None where a name is -1."""
    runs: list[str | None] = [None] * len(names)
    ids: list[str | None] = [None] * len(names)
    if not (names >= 0).any():
        return runs, ids
    segments, of = segments_of(root), read_json(StateDirectory(root).earlier)["runs"]
    numbers = names >> PLACE_BITS
    for number in np.unique(numbers[names >= 0]).tolist():
        segment, mine = segments[number], np.flatnonzero(numbers == number)
        with opened_arrow(segment.ids) as table:
            column = table.column("id")
            found = column.take(pa.array(names[mine] & ((1 << PLACE_BITS) - 1))).to_pylist()
        run = of[int(segment.folder.name.removeprefix("run-"))]
        for k, name in zip(mine.tolist(), found, strict=True):
            runs[k], ids[k] = run, name
    return runs, ids


def write_earlier(
    target: StateDirectory, runs: list[dict[str, Any]], sums: NDArray[np.int64], begun: NDArray[np.bool_]
) -> None:
    """Write what the decision of a run reads of the earlier ones."""
    write_array(target.sums, sums)
    write_array(target.begun, begun)
    write_json(target.earlier, {"runs": [r["run"] for r in runs], "segments": [r["segments"] for r in runs]})
