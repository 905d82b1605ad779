"""The run directory: where each of its files is. Nothing here opens a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


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

    @property
    def new_manifest(self) -> Path:
        """Manifest of a replacement whose parts are complete, but not all in their places."""
        return self.replaced / "run.json"

    def gone(self, number: int) -> Path:
        """Return the path of a list of ids that a replacement took out, in the order in which they went."""
        return self.root / "gone" / f"gone_{number}.parquet"

    def report(self, name: str) -> Path:
        """Return the path of a report on the decisions."""
        return self.root / "report" / name

    def decided(self, number: int) -> Path:
        """Return the decisions of one prune task, by row; readers of `decisions` skip names that begin with _."""
        return self.root / "decisions" / "_tasks" / f"decided_{number}.npy"

    def part(self, folder: str, number: int) -> Path:
        """Return a part of `decisions`, `kept` or `rejected`: one for each group of shards."""
        return self.root / folder / f"part-{number:05d}.parquet"

    def shard_files(self, number: int) -> dict[str, Path]:
        """Return the files of an embedding shard, by the names that its record has for them."""
        return {"vectors": self.vectors(number), "metadata": self.metadata(number)}

    def sorted_files(self, number: int) -> dict[str, Path]:
        """Return the files of a sorted group, by the names that its record has for them."""
        return {what: self.sorted(what, number) for what in ("vectors", "rows", "offsets")}
