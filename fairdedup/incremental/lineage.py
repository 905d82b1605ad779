"""The state/ of a run: earlier runs are linked into it before the decision, and its own part is written after.

Later runs are decided against it. This module never decides a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.model import Inherited, Options
from fairdedup.core.moments import MembershipMoments, Moments
from fairdedup.core.prototypes import Prototypes
from fairdedup.encoders import EncoderSpec
from fairdedup.errors import FairdedupError, UserError
from fairdedup.incremental.earlier_runs import PROTOTYPES, EarlierRuns, identify_encoder, similarity_moments
from fairdedup.prototype_files import read_prototypes, write_prototypes
from fairdedup.stages.record_state import StateInputs, write_segments
from fairdedup.storage.config_record import EncoderRecord, NamedModel
from fairdedup.storage.contents import Embedded
from fairdedup.storage.earlier_samples import link_runs, write_earlier
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.manifest import RunManifest, read_manifest, write_manifest
from fairdedup.storage.remedies import decide_again, decide_in_turn
from fairdedup.storage.run_files import remove_folder, write_array
from fairdedup.storage.run_state import (
    STATE_FILE,
    DecisionOptions,
    KeptRun,
    MembershipSums,
    RunState,
    SimilaritySums,
    StatePrototypes,
    read_run_state,
)
from fairdedup.storage.sealed_files import DamagedFileError, Seal, load_array
from fairdedup.storage.seals import seal
from fairdedup.storage.shard_files import centroids_of
from fairdedup.storage.state_directory import StateDirectory
from fairdedup.tasks import Submit


@dataclass(frozen=True)
class Lineage:
    """The runs before a run.

    Attributes
    ----------
    runs : list of KeptRun
        Earlier runs that are linked into the state of the run, in order; empty for the first run of a line.
    inherited : Inherited or None
        What these runs hand down to the decision; None for the first run of a line.
    """

    runs: list[KeptRun] = field(default_factory=list)
    inherited: Inherited | None = None


def link_earlier_runs(directory: RunDirectory, earlier: EarlierRuns | None) -> Lineage:
    """Link the state of earlier runs into the state of a run, for its decision to read.

    Parameters
    ----------
    directory : RunDirectory
        Directory of the run.
    earlier : EarlierRuns or None
        Runs of ``--against``.

    Raises
    ------
    UserError
        If a file of an earlier run is damaged.
    """
    if earlier is None:
        return Lineage()
    target = StateDirectory(directory.root)
    runs = link_runs(target, earlier.sources)
    first = _read_sums(target, 0, "concepts.npy", runs[0])
    clusters, _, concepts = first.shape
    sums, begun = np.zeros((clusters, concepts), np.int64), np.zeros(clusters, np.bool_)
    for number, run in enumerate(runs):
        sizes, own = (_read_sums(target, number, f"{name}.npy", run) for name in ("sizes", "concepts"))
        new = ~begun & (sizes[:, 0] > 0)
        if earlier.state.options.start == "cluster":
            sums[new] = np.rint(own[new, 0] / sizes[new, :1]).astype(np.int64)
        begun |= new
        sums += own[:, 1]
    write_earlier(target, runs, sums, begun)
    return Lineage(runs, earlier.build_inherited())


def _read_sums(target: StateDirectory, number: int, name: str, run: KeptRun) -> NDArray[np.int64]:
    remedy = decide_in_turn([run.run, target.root])
    sums: NDArray[np.int64] = load_array(Seal(target.run_folder(number) / name, run.files.get(name), remedy))
    return sums


@dataclass(frozen=True)
class RunOutcome:
    """What later runs need to know about a decision, apart from the samples that it kept.

    Attributes
    ----------
    eps : int or None
        Eps of the line in ten-thousandths; None for the rule `random`.
    options : Options
        Options of the decision.
    prefer : str or None
        Column of the rule `prefer`.
    within : str or None
        Column within whose values rows are compared.
    prototypes : Prototypes or None
        Prototypes of the decision.
    prototypes_hash : str or None
        SHA-256 of the prototypes file.
    temperatures : tuple of float
        Temperature of each attribute's memberships.
    memberships : tuple of MembershipMoments
        Moments of each attribute's memberships over the rows of this run.
    moments : Moments or None
        Moments of the similarity to each concept (``calibrate: zscore``).
    kind : str
        Kind of the input: "images" or "embeddings".
    image_encoder : EncoderSpec or None
        Encoder of the images.
    encoder : EncoderSpec or None
        Encoder of the images or of the ready-made embeddings, if it is known.
    """

    eps: int | None
    options: Options
    prefer: str | None
    within: str | None
    prototypes: Prototypes | None
    prototypes_hash: str | None
    temperatures: tuple[float, ...]
    memberships: tuple[MembershipMoments, ...]
    moments: Moments | None
    kind: str
    image_encoder: EncoderSpec | None
    encoder: EncoderSpec | None


class WrittenState(NamedTuple):
    """State of a run, and the seal of each of its files by path below the run directory."""

    state: RunState
    seals: dict[str, str]


def write_run_state(
    embedded: Embedded, lineage: Lineage, outcome: RunOutcome, decisions: Mapping[str, str], submit: Submit
) -> WrittenState:
    """Write state/ of a run, once its decisions are written.

    Parameters
    ----------
    embedded : Embedded
        Embeddings of the run.
    lineage : Lineage
        Runs before this one.
    outcome : RunOutcome
        What later runs need to know about the decision.
    decisions : mapping of str to str
        Seal of each part of the decisions, by path below the run directory.
    submit : Submit
        Runs the tasks that write the kept samples.
    """
    directory, number = embedded.directory, len(lineage.runs)
    target = StateDirectory(directory.root)
    centroids = load_array(centroids_of(directory))
    write_array(target.centroids, centroids)
    files = {"centroids.npy": seal(target.centroids)}
    prototypes = None
    if outcome.prototypes is not None:
        write_prototypes(target.prototypes, outcome.prototypes)
        vectors = files["prototypes.parquet"] = seal(target.prototypes)
        prototypes = StatePrototypes(file=outcome.prototypes_hash, vectors=vectors)
    remove_folder(target.run_folder(number))  # written by an earlier decision of this run
    options = outcome.options
    inputs = StateInputs(len(centroids), outcome.prototypes, outcome.moments, options.other_clusters, outcome.within)
    own = write_segments(embedded, inputs, decisions, submit, number=number)
    remove_folder(target.run_folder(number + 1))
    memberships = [MembershipSums(count=m.count, sums=m.sums, products=m.products) for m in outcome.memberships]
    state = RunState(
        eps=outcome.eps,
        clusters=centroids.shape[0],
        dimension=centroids.shape[1],
        kind=outcome.kind,
        encoder=identify_encoder(outcome.encoder),
        named=_name_model(outcome.encoder),
        spec=None if outcome.image_encoder is None else EncoderRecord(**asdict(outcome.image_encoder)),
        prototypes=prototypes,
        options=_record_options(outcome),
        temperatures=list(outcome.temperatures),
        moments=_similarity_sums(outcome.moments),
        files=files,
        runs=[*lineage.runs, own.model_copy(update={"memberships": memberships})],
    )
    state.write(target.file)
    target.stale.unlink(missing_ok=True)
    return WrittenState(state, _list_seals(target, state))


def _name_model(encoder: EncoderSpec | None) -> NamedModel | None:
    return None if encoder is None else NamedModel(model=encoder.model, pretrained=encoder.pretrained)


def _similarity_sums(moments: Moments | None) -> SimilaritySums | None:
    if moments is None:
        return None
    return SimilaritySums(count=moments.count, sums=moments.sums, squares=moments.squares)


def _record_options(outcome: RunOutcome) -> DecisionOptions:
    options = outcome.options
    return DecisionOptions(
        rule=options.rule.name,
        prefer=outcome.prefer,
        cover=options.cover,
        target=options.target,
        start=options.start,
        calibrate=options.calibrate,
        temperature=options.temperature,
        reserve=options.reserve,
        reach=options.own_reach,
        reach_clusters=options.reach_clusters,
        within=outcome.within,
    )


def _list_seals(target: StateDirectory, state: RunState) -> dict[str, str]:
    return {f"state/{name}": sealed for name, sealed in state.list_files().items()} | {STATE_FILE: seal(target.file)}


def _own_prototypes(target: StateDirectory, state: RunState) -> Seal:
    return Seal(target.prototypes, state.files.get(PROTOTYPES), decide_again(target.root))


def check_run_state(directory: RunDirectory, manifest: RunManifest) -> None:
    """Verify what a replacement in a run needs of its state, before the replacement changes anything.

    Parameters
    ----------
    directory : RunDirectory
        Directory of the run.
    manifest : RunManifest
        Manifest of the run.

    Raises
    ------
    UserError
        If a file is missing or damaged.
    """
    target = StateDirectory(directory.root)
    if STATE_FILE in manifest.files:  # runs of early versions have no state
        state = read_run_state(directory.root)
        if state is None:
            raise DamagedFileError(f"{target.file} is missing: {decide_again(directory.root)}")
        if state.prototypes:
            _own_prototypes(target, state).verify()


def read_stale_state(directory: RunDirectory) -> RunState | None:
    """Return the state from before a replacement, which is to be written again; None where there is none.

    Parameters
    ----------
    directory : RunDirectory
        Directory of the run.

    Raises
    ------
    UserError
        If it is damaged.
    """
    path = StateDirectory(directory.root).stale
    try:
        return RunState.read(path)
    except UserError:
        raise
    except FairdedupError:
        raise UserError(f"{path} is damaged: {decide_again(directory.root)}") from None


def renew_run_state(embedded: Embedded, manifest: RunManifest, submit: Submit) -> RunManifest:
    """Write the state of a run again after a replacement, and return the manifest with the new seals.

    The old state is kept as stale.json until run.json names the new one. Without stale.json nothing is done.

    Parameters
    ----------
    embedded : Embedded
        Embeddings of the run.
    manifest : RunManifest
        Manifest of the run.
    submit : Submit
        Runs the tasks that write the kept samples.
    """
    directory = embedded.directory
    target = StateDirectory(directory.root)
    state, written = read_stale_state(directory), read_manifest(directory)
    if state is None or written is None:
        return manifest
    *runs, own = state.runs
    prototypes = read_prototypes(_own_prototypes(target, state)) if state.prototypes else None
    moments = similarity_moments(state.moments)
    inputs = StateInputs(state.clusters, prototypes, moments, state.options.other_clusters, state.options.within)
    again = write_segments(embedded, inputs, written.files, submit, number=len(runs))
    again = again.model_copy(update={"run": own.run, "memberships": own.memberships})
    state = state.model_copy(update={"runs": [*runs, again]})
    state.write(target.file)
    files = {**written.files, **_list_seals(target, state)}
    write_manifest(directory, written.model_copy(update={"files": files}))
    target.stale.unlink()
    return manifest.model_copy(update={"files": files})
