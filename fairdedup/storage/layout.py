"""The run directory: the names of its files, the record of each embedding shard, and the manifest written last."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fairdedup.errors import FairdedupError, UserError
from fairdedup.storage.run_files import (
    is_sealed,
    is_whole,
    read_json,
    read_jsons,
    read_sealed_table,
    seal,
    sizes_in,
    write_json,
)

GROUP_ROWS = 1 << 18  # rows of consecutive shards that are sorted into one file, and exported as one part
AUDIT_FILES = ("audit.json", "audit.parquet")
Rejection = tuple[int, str, str, str]  # position in the shard, id, source, reason


@dataclass(frozen=True)
class ShardRecord:
    """What an embedding shard holds; written after its files, so that it proves them whole.

    Attributes
    ----------
    number : int
    name : str
        Of the input shard.
    fingerprint : str
        Of the input shard's bytes and of the encoder.
    input, valid : int
        Samples in the input shard, and vectors in the embedding shard.
    rejected : list of Rejection
    seals : dict
        Of each file.
    """

    number: int
    name: str
    fingerprint: str
    input: int
    valid: int
    rejected: list[Rejection]
    seals: dict[str, str]

    def positions(self) -> NDArray[np.int64]:
        """Return the position in the input shard of every vector."""
        gone = np.array([r[0] for r in self.rejected], np.int64)
        return np.delete(np.arange(self.input), gone)


@dataclass(frozen=True)
class SortedRecord:
    """What a sorted file holds: consecutive embedding shards, by cluster. Written after its files.

    Attributes
    ----------
    number : int
    fingerprint : str
        Of the embedding shards and of the centroids.
    seals : dict
        Of each file.
    """

    number: int
    fingerprint: str
    seals: dict[str, str]


@dataclass(frozen=True)
class RunDirectory:
    """Where everything of a run lies."""

    root: Path

    @property
    def manifest(self) -> Path:
        """run.json: written last, the proof that a run is finished."""
        return self.root / "run.json"

    @property
    def config(self) -> Path:
        """What each stage was asked to do; decides whether a stage's files can be used again."""
        return self.root / "config.json"

    @property
    def input(self) -> Path:
        """Name and fingerprint of every shard of the input that the run was begun with."""
        return self.root / "embeddings" / "records" / "input.json"

    def vectors(self, number: int) -> Path:
        """Return the path of an embedding shard: float16 (n, d)."""
        return self.root / "embeddings" / "img_emb" / f"img_emb_{number}.npy"

    def metadata(self, number: int) -> Path:
        """Return the path of an embedding shard's metadata: id, caption and all columns of the input."""
        return self.root / "embeddings" / "metadata" / f"metadata_{number}.parquet"

    def record(self, number: int) -> Path:
        """Return the path of an embedding shard's record."""
        return self.root / "embeddings" / "records" / f"record_{number}.json"

    def image_hashes(self, number: int) -> Path:
        """Return the path of the checksums of an input shard's image files: uint64 (n, 2)."""
        return self.root / "embeddings" / "copies" / f"hashes_{number}.npy"

    def lent(self, number: int) -> Path:
        """Return the path of the vectors that a shard lends to its copies in others: float16 (m, d)."""
        return self.root / "embeddings" / "copies" / f"lent_{number}.npy"

    def all_lent(self) -> list[Path]:
        """Return what is there of lent vectors, and their notes."""
        return sorted((self.root / "embeddings" / "copies").glob("lent_*"))

    @property
    def centroids(self) -> Path:
        """float32 (k, d)."""
        return self.root / "clusters" / "centroids.npy"

    @property
    def sizes(self) -> Path:
        """Rows of each cluster; written once all groups are sorted."""
        return self.root / "clusters" / "sizes.json"

    def sorted(self, what: str, number: int) -> Path:
        """Return a file of a group sorted by cluster: `vectors`, `rows`, or `offsets` of the clusters."""
        return self.root / "clusters" / f"{what}_{number}.npy"

    def sorted_record(self, number: int) -> Path:
        """Return the path of a sorted group's record."""
        return self.root / "clusters" / "records" / f"record_{number}.json"

    @property
    def curated(self) -> Path:
        """What a command marks before it decides; removed when it ends."""
        return self.root / "curated"

    @property
    def replaced(self) -> Path:
        """New parts of a replacement, until they are in their places."""
        return self.root / "replaced"

    def gone(self, number: int) -> Path:
        """Return the path of a list of ids that a replacement took out, in the order in which they went."""
        return self.root / "gone" / f"gone_{number}.parquet"

    def report(self, name: str) -> Path:
        """Return the path of a report on the decisions."""
        return self.root / "report" / name

    def drop_audit(self) -> None:
        """Remove an audit of decisions that are about to change; a file that somebody may be filling in stays."""
        for name in AUDIT_FILES:
            self.report(name).unlink(missing_ok=True)

    def decided(self, number: int) -> Path:
        """Return the decisions of one prune task, by row; readers of `decisions` skip names that begin with _."""
        return self.root / "decisions" / "_tasks" / f"decided_{number}.npy"

    def part(self, folder: str, number: int) -> Path:
        """Return a part of `decisions`, `kept` or `rejected`: one for each group of shards."""
        return self.root / folder / f"part-{number:05d}.parquet"

    def files(self, number: int) -> dict[str, Path]:
        """Return the files of an embedding shard, by the names that its record has for them."""
        return {"vectors": self.vectors(number), "metadata": self.metadata(number)}

    def read_record(self, number: int, verify: bool = False) -> ShardRecord | None:
        """Return the record of a shard whose files are there in full, else None; `verify` reads them."""
        try:
            record = _record(read_json(self.record(number)))
        except FairdedupError:  # damaged: made again
            return None
        return record if record is not None and _undamaged(self.files(number), record.seals, verify) else None

    def recorded(self) -> set[int]:
        """Return the numbers of the shards that have a record: one listing."""
        found = (re.fullmatch(r"record_([0-9]+)\.json", name) for name in sizes_in(self.record(0).parent))
        return {int(match[1]) for match in found if match}

    def read_metadata(self, record: ShardRecord, columns: list[str] | None = None) -> pa.Table:
        """Return the metadata of an embedding shard.

        Raises
        ------
        UserError
            If they are damaged.
        """
        path = self.metadata(record.number)
        table = read_sealed_table(path, record.seals["metadata"], columns)
        if table is None:
            raise UserError(f"{path} is missing or damaged: run `fairdedup embed` with --out {self.root} again")
        return table

    def write_record(self, record: ShardRecord) -> None:
        """Write the record of a shard, last of its files."""
        write_json(self.record(record.number), asdict(record))

    def sorted_files(self, number: int) -> dict[str, Path]:
        """Return the files of a sorted group, by the names that its record has for them."""
        return {what: self.sorted(what, number) for what in ("vectors", "rows", "offsets")}

    def read_sorted(self, number: int) -> SortedRecord | None:
        """Return the record of a sorted group whose files are undamaged, else None."""
        try:
            record = SortedRecord(**read_json(self.sorted_record(number)))
        except (FairdedupError, TypeError):
            return None
        return record if _undamaged(self.sorted_files(number), record.seals, verify=True) else None

    def changes(self, now: dict[str, str]) -> list[str]:
        """Return in words how these fingerprints differ from those of the input that the run was begun with."""
        known = read_json(self.input)
        return [] if known is None else _changes(known, now)

    def drop_shards_from(self, number: int) -> None:
        """Remove embedding shards from this number on: an input that has shrunk leaves none behind."""
        for stale in sorted(known for known in self.recorded() if known >= number):
            self.record(stale).unlink()
            for path in self.files(stale).values():
                path.unlink(missing_ok=True)

    def drop_sorted_from(self, number: int) -> None:
        """Remove sorted groups from this number on, of an earlier clustering."""
        while (record := self.sorted_record(number)).is_file():
            record.unlink()
            for path in self.sorted_files(number).values():
                path.unlink(missing_ok=True)
            number += 1

    def records(self) -> list[ShardRecord]:
        """Return the records of all embedding shards, in order.

        Raises
        ------
        UserError
            If the embedding stage has not finished here.
        """
        config = read_json(self.config) or {}
        shards = (config.get("done") or {}).get("embed")
        if shards is None:
            raise UserError(f"{self.root} holds no finished embeddings: run `fairdedup embed INPUT --out {self.root}`")
        sizes = {what: sizes_in(path.parent) for what, path in self.files(0).items()}
        records = []
        for number, known in enumerate(read_jsons([self.record(k) for k in range(shards)])):
            record = _record(known)
            if record is None or any(
                str(sizes[what].get(path.name)) != record.seals.get(what, "").split("-")[0]
                for what, path in self.files(number).items()
            ):
                raise UserError(
                    f"{self.vectors(number)} is missing or damaged: run `fairdedup embed` with --out {self.root} again"
                )
            records.append(record)
        return records


def _record(known: Any) -> ShardRecord | None:
    try:
        return ShardRecord(**{**known, "rejected": [tuple(r) for r in known["rejected"]]})
    except (TypeError, KeyError):  # damaged, or not there
        return None


def _changes(known: dict[str, str], now: dict[str, str]) -> list[str]:
    changes = [
        f"{name!r} {'has changed' if name in now else 'is gone'}" for name in known if now.get(name) != known[name]
    ]
    return changes + [f"{name!r} is new" for name in now if name not in known]


def _undamaged(files: dict[str, Path], seals: dict[str, str], verify: bool) -> bool:
    check = is_sealed if verify else is_whole
    return files.keys() == seals.keys() and all(check(path, seals[name]) for name, path in files.items())


def seals_of(files: dict[str, Path]) -> dict[str, str]:
    """Return the seal of each file."""
    return {name: seal(path) for name, path in files.items()}


@dataclass(frozen=True)
class Group:
    """Consecutive embedding shards that share a sorted file and a part of the result.

    Attributes
    ----------
    number : int
    records : tuple of ShardRecord
    first : int
        Row at which the first shard begins.
    """

    number: int
    records: tuple[ShardRecord, ...]
    first: int

    @property
    def name(self) -> str:
        """What the shards are called."""
        last = f" to {self.records[-1].name}" if len(self.records) > 1 else ""
        return self.records[0].name + last

    @property
    def input(self) -> int:
        """Samples of the input in it."""
        return sum(r.input for r in self.records)

    @property
    def valid(self) -> int:
        """Vectors in it."""
        return sum(r.valid for r in self.records)

    def shards(self) -> Iterator[tuple[ShardRecord, int]]:
        """Yield each shard with the row at which it begins."""
        first = self.first
        for record in self.records:
            yield record, first
            first += record.input

    def rows(self) -> NDArray[np.int64]:
        """Return the rows of the vectors, ascending."""
        return np.concatenate([first + record.positions() for record, first in self.shards()])

    def sources(self, rows: NDArray[np.int64]) -> list[str]:
        """Return where each of some rows lies, for people: shard and position."""
        starts = np.array([first for _, first in self.shards()])
        homes = np.searchsorted(starts, rows, side="right") - 1  # of empty shards the last: none of the rows is theirs
        return [f"{self.records[h].name}[{row - starts[h]}]" for h, row in zip(homes, rows, strict=True)]


def groups(records: list[ShardRecord]) -> list[Group]:
    """Split records into groups of up to `GROUP_ROWS` rows, so that many tiny shards become few files."""
    out: list[Group] = []
    held: list[ShardRecord] = []
    first = rows = 0
    for record in records:
        if held and rows + record.input > GROUP_ROWS:
            out.append(Group(len(out), tuple(held), first))
            held, first, rows = [], first + rows, 0
        held.append(record)
        rows += record.input
    return [*out, Group(len(out), tuple(held), first)] if held else out


def offsets(records: list[ShardRecord]) -> NDArray[np.int64]:
    """Return the row at which each shard begins, and behind them the number of input samples."""
    return np.cumsum([0] + [r.input for r in records]).astype(np.int64)


def manifest_of(run: RunDirectory) -> dict[str, Any] | None:
    """Return run.json of a finished run, else None; a damaged one proves nothing."""
    try:
        known = read_json(run.manifest)
    except FairdedupError:
        return None
    return known if isinstance(known, dict) and "counts" in known else None


def finished(run: RunDirectory) -> dict[str, Any]:
    """Return run.json of a finished run.

    Raises
    ------
    UserError
        If it is not finished.
    """
    known = manifest_of(run)
    if (run.replaced / "run.json").is_file():
        raise UserError(f"a replacement in {run.root} was stopped: run the same `fairdedup replace` again to finish it")
    if known is None:
        raise UserError(f"{run.root} holds no finished run: run `fairdedup prune {run.root}` first")
    return known
