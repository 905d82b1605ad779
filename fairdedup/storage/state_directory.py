"""RUN/state/: where its files are, and how the vectors that a run kept are written.

It has a folder for each run of the line; the folders of earlier runs hold hard links to their files.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from fairdedup.storage.run_files import atomic_write, write_array
from fairdedup.storage.seals import seal


@dataclass(frozen=True)
class Segment:
    """Samples that one run kept from a group of its shards, by cluster, then by row.

    Attributes
    ----------
    folder : Path
        Folder of the run in state/.
    number : int
        Number of the group.
    """

    folder: Path
    number: int

    @property
    def vectors(self) -> Path:
        """Path of the vectors: float16 (m, d)."""
        return self.folder / f"vectors_{self.number}.npy"

    @property
    def offsets(self) -> Path:
        """Path of the offsets: int64 (k + 1,); cluster c is the slice from offsets[c] to offsets[c + 1]."""
        return self.folder / f"offsets_{self.number}.npy"

    @property
    def checksums(self) -> Path:
        """Path of the XXH3 checksum of each cluster's vectors: uint64 (k,); readers check what they read."""
        return self.folder / f"checksums_{self.number}.npy"

    @property
    def ids(self) -> Path:
        """Path of the Arrow file with the row and id of each vector; it is memory-mapped."""
        return self.folder / f"ids_{self.number}.arrow"

    @property
    def nearby(self) -> Path:
        """Path of the other clusters that each vector may reach, and its gaps to them: int32 (m, r, 2).

        Only the runs of a line whose rows are compared across clusters have it.
        """
        return self.folder / f"nearby_{self.number}.npy"

    @property
    def within(self) -> Path:
        """Path of the code of each vector's value of the column within which rows are compared: int64 (m,).

        Only the runs of a line with such a column have it.
        """
        return self.folder / f"within_{self.number}.npy"

    def write(
        self,
        unit: NDArray[np.float16],
        offsets: NDArray[np.int64],
        rows: NDArray[np.int64],
        ids: pa.Array,
        nearby: NDArray[np.int32] | None = None,
        within: NDArray[np.int64] | None = None,
    ) -> dict[str, str]:
        """Write the segment's files and return their seals, by name.

        Parameters
        ----------
        unit : ndarray of shape (m, d), float16
            Vectors, by cluster, then by row.
        offsets : ndarray of shape (k + 1,), int64
            Where each cluster begins.
        rows : ndarray of shape (m,), int64
            Row of each vector.
        ids : Array of m str
            Id of each vector.
        nearby : ndarray of shape (m, r, 2), int32, optional
            The other clusters that each vector may reach, and its gaps to them.
        within : ndarray of shape (m,), int64, optional
            Code of each vector's value of the column within which rows are compared.
        """
        write_array(self.vectors, unit)
        write_array(self.offsets, offsets)
        write_array(
            self.checksums,
            np.array([checksum(unit[a:b]) for a, b in zip(offsets, offsets[1:], strict=False)], np.uint64),
        )
        table = pa.table({"row": rows, "id": ids.cast(pa.large_string())})
        with atomic_write(self.ids) as aside, pa.ipc.new_file(str(aside), table.schema) as writer:
            writer.write_table(table)
        files = [self.vectors, self.offsets, self.checksums, self.ids]
        for path, array in ((self.nearby, nearby), (self.within, within)):
            if array is not None:
                write_array(path, array)
                files.append(path)
        return {path.name: seal(path) for path in files}


def has_checksums(path: Path) -> bool:
    """Return whether a file of a segment holds vectors, of which each cluster has a checksum."""
    return path.name.startswith("vectors_")


def checksum(unit: NDArray[np.float16]) -> int:
    """Return the checksum (XXH3, 64 bits) of vectors."""
    return xxhash.xxh3_64_intdigest(np.ascontiguousarray(unit).view(np.uint8).reshape(-1).data) if unit.size else 0


@dataclass(frozen=True)
class StateDirectory:
    """The folder state/ of a run.

    Attributes
    ----------
    root : Path
        Run directory.
    """

    root: Path

    @property
    def folder(self) -> Path:
        """Path of the folder."""
        return self.root / "state"

    @property
    def file(self) -> Path:
        """Path of state.json, which has the options and the runs of the line; it is written last."""
        return self.folder / "state.json"

    @property
    def stale(self) -> Path:
        """Path of state.json from before a replacement, until the state is written again."""
        return self.folder / "stale.json"

    @property
    def centroids(self) -> Path:
        """Path of the centroids: float32 (k, d)."""
        return self.folder / "centroids.npy"

    @property
    def prototypes(self) -> Path:
        """Path of the prototypes, with their vectors as the decision uses them."""
        return self.folder / "prototypes.parquet"

    @property
    def earlier(self) -> Path:
        """Path of the list of segments that the decision of this run reads, in order; it is written before it."""
        return self.folder / "earlier.json"

    @property
    def sums(self) -> Path:
        """Path of each concept's sums before this run: int64 (k, c)."""
        return self.folder / "sums.npy"

    @property
    def begun(self) -> Path:
        """Path of the flags of the clusters that had a row before this run: bool (k,)."""
        return self.folder / "begun.npy"

    def run_folder(self, number: int) -> Path:
        """Return the folder of a run of the line, by its place in it."""
        return self.folder / f"run-{number:04d}"

    def segments(self, number: int, count: int) -> list[Segment]:
        """Return the segments of a run of the line."""
        return [Segment(self.run_folder(number), k) for k in range(count)]
