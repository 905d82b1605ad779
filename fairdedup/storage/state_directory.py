"""RUN/state/: where its files are, and how the vectors that a run kept are written.

There is a folder for each run of the line; those of earlier runs are hard links to their files.
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
    """Samples that one run kept of a group of its shards, by cluster, then by row."""

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
            self.checksums,
            np.array([checksum(unit[a:b]) for a, b in zip(offsets, offsets[1:], strict=False)], np.uint64),
        )
        table = pa.table({"row": rows, "id": ids.cast(pa.large_string())})
        with atomic_write(self.ids) as aside, pa.ipc.new_file(str(aside), table.schema) as writer:
            writer.write_table(table)
        return {path.name: seal(path) for path in self.files()}


def checksum(unit: NDArray[np.float16]) -> int:
    """Return the checksum (XXH3, 64 bits) of vectors."""
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

    def run_folder(self, number: int) -> Path:
        """Return the folder of a run of the line, by its place in it."""
        return self.folder / f"run-{number:04d}"

    def segments(self, number: int, count: int) -> list[Segment]:
        """Return the segments of a run of the line."""
        return [Segment(self.run_folder(number), k) for k in range(count)]
