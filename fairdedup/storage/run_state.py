"""state/state.json: what a later run needs of a run, apart from the vectors of the samples that it kept."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from fairdedup.errors import UserError
from fairdedup.storage.config_record import EncoderRecord, NamedModel
from fairdedup.storage.remedies import decide_again, quote
from fairdedup.storage.seals import has_sealed_size, is_sealed
from fairdedup.storage.state_directory import StateDirectory
from fairdedup.storage.stored_model import StoredFile, StoredModel


class MembershipSums(StoredModel):
    """Moments of an attribute's memberships over the rows of one run; see `core.moments.MembershipMoments`."""

    count: int
    sums: tuple[int, ...]
    products: tuple[tuple[int, ...], ...]


class SimilaritySums(StoredModel):
    """Moments of the similarity to each concept; see `core.moments.Moments`."""

    count: int
    sums: tuple[int, ...]
    squares: tuple[int, ...]


class KeptRun(StoredModel):
    """One run of a line, and the files of the samples that it kept.

    Attributes
    ----------
    run : str
        Run directory, where it was when the run was made.
    identity : str
        Hash of the seals of the files, which identifies the run.
    segments : int
    files : dict of str to str
        Seal of each file of the run's folder in state/.
    memberships : list of MembershipSums
        Sums of each attribute over the valid rows; empty without prototypes.
    """

    run: str
    identity: str
    segments: int
    files: dict[str, str]
    memberships: list[MembershipSums] = []


class StatePrototypes(StoredModel):
    """Prototypes of a line.

    Attributes
    ----------
    file : str or None
        SHA-256 of the prototypes file.
    vectors : str
        Seal of state/prototypes.parquet.
    """

    file: str | None
    vectors: str


class DecisionOptions(StoredModel):
    """Options that the rows of a line are decided by."""

    rule: str
    prefer: str | None
    cover: bool
    target: Any
    start: str
    calibrate: str
    temperature: Any
    reserve: float


class RunState(StoredFile):
    """state.json.

    Attributes
    ----------
    eps : int or None
        Ten-thousandths; None for `random`.
    clusters, dimension : int
        Shape of the centroids.
    kind : str
        "images" or "embeddings".
    encoder : NamedModel or None
        Identity of the encoder: the model, and the tag or hash of its weights; None if it is not known.
    named : NamedModel or None
        The same encoder as it was named.
    spec : EncoderRecord or None
        Encoder that embedded the images, with its settings.
    prototypes : StatePrototypes or None
    options : DecisionOptions
    temperatures : list of float
        Temperature of each attribute.
    moments : SimilaritySums or None
        Set with ``calibrate: zscore`` only.
    files : dict of str to str
        Seal of each file directly in state/.
    runs : list of KeptRun
        The runs of the line, this one last.
    """

    eps: int | None
    clusters: int
    dimension: int
    kind: str
    encoder: NamedModel | None
    named: NamedModel | None
    spec: EncoderRecord | None
    prototypes: StatePrototypes | None
    options: DecisionOptions
    temperatures: list[float]
    moments: SimilaritySums | None
    files: dict[str, str]
    runs: list[KeptRun]

    def list_files(self) -> dict[str, str]:
        """Return the seal of every file that the state consists of, by its path below state/."""
        files = dict(self.files)
        for number, run in enumerate(self.runs):
            files |= {f"run-{number:04d}/{name}": sealed for name, sealed in run.files.items()}
        return files


class EarlierRecord(StoredFile):
    """state/earlier.json: what a decision ``--against`` earlier runs reads of them.

    Attributes
    ----------
    runs : list of str
        Run directory of each earlier run, when it was made.
    segments : list of int
        Number of segments of each.
    """

    runs: list[str]
    segments: list[int]


def identify_run(files: dict[str, str]) -> str:
    """Return the identity of a run: a hash of the seals of its files in state/."""
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def read_run_state(root: Path) -> RunState | None:
    """Return state.json of a run, None where there is none.

    Raises
    ------
    FairdedupError
        If it is damaged, or a newer version of fairdedup wrote it.
    """
    return RunState.read(StateDirectory(root).file)


def require_run_state(root: Path, sealed: str | None) -> RunState:
    """Return state.json of a finished run, checked.

    Parameters
    ----------
    root : Path
        Run directory.
    sealed : str or None
        Seal that the manifest has of state.json.

    Raises
    ------
    UserError
        If it is missing or damaged, or another file of the state is missing or has a different size.
    """
    directory = StateDirectory(root)
    remedy = decide_again(root)
    if directory.stale.is_file():  # deciding again would not help
        remedy = (
            "a replacement was stopped; finish it by its own `fairdedup run` command, or by "
            f"`fairdedup replace {quote(root)} --gone FILE` with the same file"
        )
    state = read_run_state(root) if sealed is not None and is_sealed(directory.file, sealed) else None
    if state is None:
        raise UserError(f"--against {str(root)!r}: {directory.file} is missing or damaged: {remedy}")
    for name, expected in state.list_files().items():
        path = directory.folder / name
        if not has_sealed_size(path, expected):
            raise UserError(f"--against {str(root)!r}: {path} is missing or damaged: {remedy}")
    return state
