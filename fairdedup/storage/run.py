"""The run directory: the names of its files, the record of each embedding shard, and the manifest written last."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairdedup.errors import FairdedupError, UserError
from fairdedup.storage.files import read_json, write_json

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
    bytes : dict
        Size of each file.
    """

    number: int
    name: str
    fingerprint: str
    input: int
    valid: int
    rejected: list[Rejection]
    bytes: dict[str, int]

    def positions(self) -> NDArray[np.int64]:
        """Return the position in the input shard of every vector."""
        gone = np.array([r[0] for r in self.rejected], np.int64)
        return np.delete(np.arange(self.input), gone)


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

    def vectors(self, number: int) -> Path:
        """Return the path of an embedding shard: float16 (n, d)."""
        return self.root / "embeddings" / "img_emb" / f"img_emb_{number}.npy"

    def metadata(self, number: int) -> Path:
        """Return the path of an embedding shard's metadata: id, caption and all columns of the input."""
        return self.root / "embeddings" / "metadata" / f"metadata_{number}.parquet"

    def record(self, number: int) -> Path:
        """Return the path of an embedding shard's record."""
        return self.root / "embeddings" / "records" / f"record_{number}.json"

    @property
    def centroids(self) -> Path:
        """float32 (k, d)."""
        return self.root / "clusters" / "centroids.npy"

    def sorted(self, what: str, number: int) -> Path:
        """Return a file of a shard sorted by cluster: `vectors`, `rows`, or `offsets` of the clusters."""
        return self.root / "clusters" / f"{what}_{number}.npy"

    @property
    def curated(self) -> Path:
        """What a command marks before it decides; removed when it ends."""
        return self.root / "curated"

    @property
    def replaced(self) -> Path:
        """New parts of a replacement, until they are in their places."""
        return self.root / "replaced"

    def decided(self, number: int) -> Path:
        """Return the decisions of one prune task, by row."""
        return self.root / "decisions" / "tasks" / f"decided_{number}.npy"

    def part(self, folder: str, number: int) -> Path:
        """Return a part of `decisions`, `kept` or `rejected`: one for each embedding shard."""
        return self.root / folder / f"part-{number:05d}.parquet"

    def read_record(self, number: int) -> ShardRecord | None:
        """Return the record of a shard whose files are there in full, else None."""
        try:
            known = read_json(self.record(number))
            record = ShardRecord(**{**known, "rejected": [tuple(r) for r in known["rejected"]]})
        except (FairdedupError, TypeError, KeyError):  # damaged, or not there: made again
            return None
        paths = {"vectors": self.vectors(number), "metadata": self.metadata(number)}
        if any(not p.is_file() or p.stat().st_size != record.bytes[name] for name, p in paths.items()):
            return None
        return record

    def write_record(self, record: ShardRecord) -> None:
        """Write the record of a shard, last of its files."""
        write_json(self.record(record.number), asdict(record))

    def drop_shards_from(self, number: int) -> None:
        """Remove embedding shards from this number on: an input that has shrunk leaves none behind."""
        while (record := self.record(number)).is_file():
            record.unlink()
            self.vectors(number).unlink(missing_ok=True)
            self.metadata(number).unlink(missing_ok=True)
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
        records = [self.read_record(k) for k in range(shards)]
        for number, record in enumerate(records):
            if record is None:
                raise UserError(
                    f"{self.vectors(number)} is missing or damaged: run `fairdedup embed` with --out {self.root} again"
                )
        return [r for r in records if r is not None]


def offsets(records: list[ShardRecord]) -> NDArray[np.int64]:
    """Return the row at which each shard begins, and behind them the number of input samples."""
    return np.cumsum([0] + [r.input for r in records]).astype(np.int64)


def manifest_of(run: RunDirectory) -> dict[str, Any] | None:
    """Return run.json of a finished run, else None."""
    return read_json(run.manifest)
