"""state/state.json: what a later run needs of a run, apart from the vectors of the samples that it kept."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from fairdedup.errors import FairdedupError, UserError
from fairdedup.storage.config_record import EncoderRecord, NamedModel
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.manifest import read_manifest
from fairdedup.storage.remedies import decide_again, decide_in_turn, finish_replacement
from fairdedup.storage.sealed_files import Seal, expect_sealed_size
from fairdedup.storage.state_directory import StateDirectory
from fairdedup.storage.stored_model import StoredFile, StoredModel

STATE_FILE = "state/state.json"  # key in the `files` of run.json


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
    reach: float | str = 0.0  # as the runs of earlier versions had it
    reach_clusters: int = 16
    within: str | None = None

    @property
    def other_clusters(self) -> int:
        """Number of other clusters that a row can reach."""
        return self.reach_clusters - 1 if self.reach else 0


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


def state_file(root: Path, state: RunState, name: str) -> Seal:
    """Return a file of the state of a run with its seal.

    Parameters
    ----------
    root : Path
        Run directory.
    state : RunState
        Content of its state.json.
    name : str
        Path below state/, such as "centroids.npy" or "run-0000/sizes.npy".
    """
    roots: list[object] = [root]
    if name.startswith("run-"):
        own = state.runs[int(name.partition("/")[0].removeprefix("run-"))]
        roots = [root] if own is state.runs[-1] else [own.run, root]
    return Seal(StateDirectory(root).folder / name, state.list_files().get(name), decide_in_turn(roots))


def read_run_state(root: Path) -> RunState | None:
    """Return state.json of a run, None where there is none.

    Raises
    ------
    UserError
        If it is damaged, or a newer version of fairdedup wrote it.
    """
    file = StateDirectory(root).file
    if not file.is_file():
        return None
    manifest = read_manifest(RunDirectory(root))
    if manifest is not None:
        Seal(file, manifest.files.get(STATE_FILE), decide_again(root)).verify()
    try:
        return RunState.read(file)
    except UserError:
        raise
    except FairdedupError:
        raise UserError(f"{file} is damaged: {decide_again(root)}") from None


def require_run_state(root: Path, sealed: str | None) -> RunState:
    """Return state.json of a finished run, checked.

    Centroids and prototypes are verified. Of the samples that the runs of the line kept, only the sizes of the files
    are checked here: each file is verified where it is linked or read.

    Parameters
    ----------
    root : Path
        Run directory.
    sealed : str or None
        Seal that the manifest has of state.json.

    Raises
    ------
    UserError
        If a file is missing or damaged.
    """
    directory = StateDirectory(root)
    stopped = directory.stale.is_file()  # deciding again would not help
    remedy = finish_replacement(root) if stopped else decide_again(root)
    try:
        Seal(directory.file, sealed, remedy).verify()
        state = RunState.read(directory.file)
        assert state is not None
        for name in state.list_files():
            source = state_file(root, state, name)
            source = replace(source, remedy=remedy) if stopped else source
            if name in state.files:
                source.verify()
            else:
                expect_sealed_size(source)
    except UserError as error:
        raise UserError(f"--against {str(root)!r}: {error}") from None
    return state
