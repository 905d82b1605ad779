"""run.json, the manifest: written last, so that it proves that a run is finished."""

from __future__ import annotations

from typing import Any

from fairdedup.errors import UserError
from fairdedup.storage.config_record import EncoderRecord, InputRecord, StageTime, check_run_exists
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.remedies import decide_again, quote
from fairdedup.storage.stored_model import StoredFile, StoredModel, read_undamaged

AUDIT_FILES = ("audit.json", "audit.parquet")
PAGE = "index.html"
NEAR_DUPLICATE = 0.95  # cosine from which on two samples are taken for near-duplicates


class Counts(StoredModel):
    """Numbers of samples; kept + removed + rejected = input.

    Attributes
    ----------
    input : int
    valid : int
        Samples that the run decided: kept or removed.
    kept, removed, rejected : int
    readmitted : int
        Kept samples that were re-admitted to reach the fraction or to fill a reserved seat of `balanced`.
    excluded : int
        Rejected samples that the user's options excluded.
    """

    input: int
    valid: int
    kept: int
    removed: int
    rejected: int
    readmitted: int = 0
    excluded: int = 0

    def __add__(self, other: Counts) -> Counts:
        """Return the sums."""
        return Counts(**{name: getattr(self, name) + getattr(other, name) for name in Counts.model_fields})

    @property
    def add_up(self) -> bool:
        """Whether every sample of the input is kept, removed or rejected."""
        return self.kept + self.removed + self.rejected == self.input


NO_COUNTS = Counts(**dict.fromkeys(Counts.model_fields, 0))


class Guarantees(StoredModel):
    """Properties of the decisions that were checked; re-admitted samples are not counted."""

    no_two_kept_are_duplicates: bool
    every_removed_has_a_kept_representative: bool


class GroupShare(StoredModel):
    """Share of a group among the valid (`input`) and the kept samples."""

    attribute: str
    group: str
    input: float
    kept: float


class Drift(StoredModel):
    """How far new rows are from the clusters of the runs before them.

    Attributes
    ----------
    psi, psi_by_chance : float
        Population stability index of the cluster sizes, and its expectation by chance.
    mean_similarity, mean_similarity_before : float
        Mean centroid similarity of the new rows and of the rows before them.
    refit : bool
        Whether new clusters are recommended.
    """

    psi: float
    psi_by_chance: float
    mean_similarity: float
    mean_similarity_before: float
    refit: bool

    @property
    def psi_beyond_chance(self) -> float:
        """Population stability index less its expectation by chance."""
        return self.psi - self.psi_by_chance


class ReplacementRecord(StoredModel):
    """One `fairdedup replace`: numbers of rows.

    Attributes
    ----------
    file : str
        Name of the list of vanished samples.
    gone, gone_kept : int
        Vanished rows, and those of them that were kept.
    promoted : int
    """

    file: str
    gone: int
    gone_kept: int
    promoted: int


class LeftoverIntervals(StoredModel):
    """95 % interval of the share of all kept samples that have a duplicate of each kind, and of any."""

    own: tuple[float, float]
    comparable: tuple[float, float]
    elsewhere: tuple[float, float]
    any: tuple[float, float]


class LeftoverRecord(StoredModel):
    """How many of a sample of kept samples still have a kept duplicate; see `core.leftover.Leftover`.

    Attributes
    ----------
    looked_up, among : int
        Samples that were looked up, and kept samples that each was compared with.
    own, comparable, elsewhere, any : int
        How many have a kept duplicate in their own cluster, in a comparable one, in another one, and in any.
    intervals : LeftoverIntervals
    """

    looked_up: int
    among: int
    own: int
    comparable: int
    elsewhere: int
    any: int
    intervals: LeftoverIntervals


class RemovedCosines(StoredModel):
    """How similar removed samples are to their representatives.

    Attributes
    ----------
    samples : int
        Removed samples that have a representative.
    near_duplicates : int
        How many of them have a cosine of at least `NEAR_DUPLICATE` to it.
    median : float
        Median of their cosines, rounded down to hundredths.
    """

    samples: int
    near_duplicates: int
    median: float


class RunManifest(StoredFile):
    """run.json; docs/run-directory.md describes each key.

    `leftover` is None where nothing was looked up, and not set by earlier versions. `removed_cosines` is None where no
    removed sample has a representative, after a replacement, and of earlier versions. `against` and `drift` are set
    with ``--against`` only, `replaced` after a replacement only, `absent` where attributes have no shares.
    """

    fairdedup: str | None
    config: dict[str, dict[str, Any]]
    versions: dict[str, str]
    seed: int
    input: InputRecord
    encoder: EncoderRecord | None
    clusters: int
    stages: dict[str, StageTime]
    counts: Counts
    eps: float | None
    guarantees: Guarantees
    warnings: list[str]
    shares: list[GroupShare]
    leftover: LeftoverRecord | None = None
    removed_cosines: RemovedCosines | None = None
    absent: list[str] = []
    files: dict[str, str] = {}  # a manifest without it proves nothing about the files
    replaced: list[ReplacementRecord] = []
    against: list[str] | None = None
    drift: Drift | None = None


def read_manifest(directory: RunDirectory) -> RunManifest | None:
    """Return run.json of a finished run; None if it is missing or damaged.

    Raises
    ------
    NewerVersionError
        If a newer version of fairdedup wrote it.
    """
    return read_undamaged(directory.manifest, RunManifest)


def require_manifest(directory: RunDirectory) -> RunManifest:
    """Return run.json of a finished run.

    Raises
    ------
    UserError
        If the run is not finished.
    """
    root = directory.root
    manifest = read_manifest(directory)
    if directory.new_manifest.is_file():
        raise UserError(f"a replacement in {root} was stopped: run the same `fairdedup replace` again to finish it")
    if manifest is None and directory.manifest.is_file():
        raise UserError(f"{directory.manifest} is damaged: {decide_again(root)}")
    if manifest is None:
        check_run_exists(root)
        raise UserError(f"{root} holds no finished run: run `fairdedup prune {quote(root)} --keep F` first")
    return manifest


def write_manifest(directory: RunDirectory, manifest: RunManifest) -> None:
    """Write run.json: from here on the run is finished."""
    manifest.write(directory.manifest)


def remove_audit(directory: RunDirectory) -> None:
    """Remove the audit of decisions that are about to change, and the page; labels that a person may be adding stay."""
    for name in (*AUDIT_FILES, PAGE):
        directory.report(name).unlink(missing_ok=True)
