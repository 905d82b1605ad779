"""The run directory: where each of its files is. Nothing here opens a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunDirectory:
    """Paths of the files of a run.

    Attributes
    ----------
    root : Path
        Run directory.
    """

    root: Path

    @property
    def manifest(self) -> Path:
        """Path of run.json, which is written last and proves that the run is finished."""
        return self.root / "run.json"

    @property
    def config(self) -> Path:
        """Path of config.json: options of each stage, which decide whether its files can be used again."""
        return self.root / "config.json"

    @property
    def input(self) -> Path:
        """Path of the name and fingerprint of every shard of the input that the run was started with."""
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

    def sample_checks(self, number: int) -> Path:
        """Return the path of what was found out about an input shard before embedding: uint64 (n, 2).

        The columns are the hash of each id, and the largest value of each 16-bit image, 0 for others.
        """
        return self.root / "embeddings" / "copies" / f"samples_{number}.npy"

    def scan_findings(self, number: int) -> Path:
        """Return the path of what reading an input shard has found besides its samples: unused files, and damage."""
        return self.root / "embeddings" / "copies" / f"findings_{number}.json"

    def attempt(self, what: str, number: int, start: int = 0) -> Path:
        """Return the path of an empty file that exists while a task works on images; its process may die of one.

        Parameters
        ----------
        what : str
            What the task does.
        number : int
            Number of the shard.
        start : int
            First row of the shard that the task reads.
        """
        rows = f"_{start}" if start else ""
        return self.root / "embeddings" / "copies" / f"trying_{what}_{number}{rows}"

    def list_attempts(self) -> list[Path]:
        """Return the files of all attempts that are running, or whose process has died."""
        return sorted((self.root / "embeddings" / "copies").glob("trying_*"))

    def shared_vectors(self, number: int) -> Path:
        """Return the path of the vectors of a shard's images that have copies in other shards: float16 (m, d)."""
        return self.root / "embeddings" / "copies" / f"lent_{number}.npy"

    def list_shared_vectors(self) -> list[Path]:
        """Return the files of shared vectors that exist, and the JSON files that record what they were made of."""
        return sorted((self.root / "embeddings" / "copies").glob("lent_*"))

    @property
    def ranges(self) -> Path:
        """Folder of the ranges of embedding shards, until the shards are put together; it is removed then.

        Readers of embeddings/ skip the folder, since its name begins with an underscore.
        """
        return self.root / "embeddings" / "_ranges"

    def ranges_of(self, number: int) -> RunDirectory:
        """Return the directory that has the ranges of an embedding shard, as shards numbered by their first rows."""
        return RunDirectory(self.ranges / str(number))

    @property
    def centroids(self) -> Path:
        """Path of the centroids: float32 (k, d)."""
        return self.root / "clusters" / "centroids.npy"

    @property
    def training(self) -> Path:
        """Folder of the sample that k-means trains on, and of what each iteration leaves; it is removed at the end."""
        return self.root / "clusters" / "_training"

    @property
    def sizes(self) -> Path:
        """Path of the number of rows of each cluster; written once all groups are sorted."""
        return self.root / "clusters" / "sizes.json"

    def sorted(self, what: str, number: int) -> Path:
        """Return the path of a file of a group sorted by cluster.

        Parameters
        ----------
        what : str
            "vectors", "rows", "offsets" (where each cluster begins), or "nearby" (clusters that rows may reach).
        number : int
            Number of the group.
        """
        return self.root / "clusters" / f"{what}_{number}.npy"

    def sorted_record(self, number: int) -> Path:
        """Return the path of a sorted group's record."""
        return self.root / "clusters" / "records" / f"record_{number}.json"

    @property
    def curated(self) -> Path:
        """Folder of the marks of rows; a command removes its own when it ends."""
        return self.root / "curated"

    @property
    def replaced(self) -> Path:
        """Folder of the new parts of a replacement, until they are moved to their places."""
        return self.root / "replaced"

    @property
    def new_manifest(self) -> Path:
        """Path of the manifest of a replacement whose parts are complete but not all moved to their places."""
        return self.replaced / "run.json"

    def gone(self, number: int) -> Path:
        """Return the path of the list of ids that a replacement removed; replacements are numbered in their order."""
        return self.root / "gone" / f"gone_{number}.parquet"

    def report(self, name: str) -> Path:
        """Return the path of a report on the decisions."""
        return self.root / "report" / name

    def decided(self, number: int) -> Path:
        """Return the path of the decisions of a prune task, by row.

        Readers of decisions/ skip the folder, since its name begins with an underscore.
        """
        return self.root / "decisions" / "_tasks" / f"decided_{number}.npy"

    @property
    def rounds(self) -> Path:
        """Folder of what a decision in rounds leaves for its own later steps; it is removed at the end."""
        return self.root / "decisions" / "_rounds"

    @property
    def lookup(self) -> Path:
        """Folder of the kept rows that are looked up for the leftover; it is removed at the end."""
        return self.root / "decisions" / "_leftover"

    @property
    def compared(self) -> Path:
        """Folder of the decisions that `fairdedup compare` tries; the command removes it. Readers skip it as well."""
        return self.root / "decisions" / "_compared"

    @property
    def represented(self) -> Path:
        """Folder of the lists of removed rows by representative, until kept/ is written. Readers skip it as well."""
        return self.root / "decisions" / "_represented"

    def part(self, folder: str, number: int) -> Path:
        """Return the path of a part of `decisions`, `kept` or `rejected`: one for each group of shards."""
        return self.root / folder / f"part-{number:05d}.parquet"

    def shard_files(self, number: int) -> dict[str, Path]:
        """Return the files of an embedding shard, by the names that its record has for them."""
        return {"vectors": self.vectors(number), "metadata": self.metadata(number)}

    def sorted_files(self, number: int) -> dict[str, Path]:
        """Return the files of a sorted group, by the names that its record has for them."""
        return {what: self.sorted(what, number) for what in ("vectors", "rows", "offsets")}
