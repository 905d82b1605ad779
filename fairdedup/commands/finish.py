"""The end of a run: writes its state for later runs and then run.json, which proves that the run is finished."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairdedup.config import RunConfig
from fairdedup.core.model import Options
from fairdedup.core.prototypes import Prototypes
from fairdedup.core.similarity import EPS_UNIT
from fairdedup.encoders import BUILTIN_MODEL
from fairdedup.incremental.drift import drift_warnings, measure_drift
from fairdedup.incremental.lineage import Lineage, RunOutcome, write_run_state
from fairdedup.preparation.encoder_choice import find_encoder, find_recorded_encoder
from fairdedup.preparation.prototype_choice import hash_prototypes
from fairdedup.preparation.provenance import list_versions
from fairdedup.preparation.request import Request
from fairdedup.preparation.stage_records import merge_stage_times
from fairdedup.prototype_files import default_prototypes, needs_text_tower
from fairdedup.stages.embedding.embedding_findings import list_warnings
from fairdedup.stages.pruning import measure_leftover
from fairdedup.stages.replacement import replace_again
from fairdedup.stages.sample_shares import are_drawn, measure_sample_shares
from fairdedup.stages.values import Pruned, Written
from fairdedup.storage.config_record import ConfigRecord, read_config_record
from fairdedup.storage.contents import Clustered
from fairdedup.storage.kept_samples import KeptColumns
from fairdedup.storage.manifest import (
    NEAR_DUPLICATE,
    GroupShare,
    Guarantees,
    RemovedCosines,
    RunManifest,
    write_manifest,
)
from fairdedup.storage.marks import Marks
from fairdedup.workers import Workers


@dataclass(frozen=True)
class DecidedRun:
    """A decision, and everything that it was made from.

    Attributes
    ----------
    clustered : Clustered
        Clusters of the run.
    marks : Marks
        Rows that were excluded, and rows that were always kept.
    options : Options
        Options of the decision.
    prototypes : Prototypes or None
        Prototypes of the decision.
    lineage : Lineage
        Runs before this one.
    pruned : Pruned
        The decision, and what it found about the data set.
    columns : KeptColumns
        Columns of kept/.
    """

    clustered: Clustered
    marks: Marks
    options: Options
    prototypes: Prototypes | None
    lineage: Lineage
    pruned: Pruned
    columns: KeptColumns


def finish_run(request: Request, decided: DecidedRun, written: Written, workers: Workers) -> RunManifest:
    """Write the state and the manifest of a run whose results are written, and return the manifest.

    Samples that `fairdedup replace` removed from the run before are removed from these results too.

    Parameters
    ----------
    request : Request
        Options of the command, and the earlier runs.
    decided : DecidedRun
        The decision, and what it was made from.
    written : Written
        Counts and seals of the results.
    workers : Workers
        Run the tasks of the stages.
    """
    embedded, directory, lineage = decided.clustered.embedded, decided.clustered.directory, decided.lineage
    record = read_config_record(directory)
    manifest = _build_manifest(request, decided, written, record)
    manifest = replace_again(embedded, manifest, decided.columns, workers.submit)
    state = write_run_state(embedded, lineage, _build_outcome(request, decided, record), manifest.files, workers.submit)
    drift = measure_drift(directory, state.state.runs)
    update: dict[str, Any] = {
        "files": {**manifest.files, **state.seals},
        "warnings": [*manifest.warnings, *drift_warnings(drift, directory.root)],
    }
    if manifest.input.format == "sample":
        update["shares"] = measure_sample_shares(directory, manifest.files)
    if request.earlier is not None:
        update |= {"against": [run.run for run in lineage.runs], "drift": drift}
    manifest = manifest.model_copy(update=update)
    inherited = lineage.inherited
    left = measure_leftover(embedded, manifest, workers.submit, line_eps=None if inherited is None else inherited.eps)
    manifest = manifest.model_copy(update={"leftover": left, "stages": merge_stage_times(record, workers.progress)})
    write_manifest(directory, manifest)
    return manifest


def _build_manifest(request: Request, decided: DecidedRun, written: Written, record: ConfigRecord) -> RunManifest:
    assert record.input is not None
    decision, versions = decided.pruned.decision, list_versions()
    shares, absent, doubts = _list_shares(request.config, record, decided)
    return RunManifest(
        fairdedup=versions.get("fairdedup"),
        config=record.options,
        versions=versions,
        seed=request.config.seed,
        input=record.input,
        encoder=record.encoder,
        clusters=int(np.count_nonzero(decided.clustered.sizes - decided.marks.excluded)),
        stages={},
        counts=written.counts,
        eps=None if decision.eps is None else decision.eps / EPS_UNIT,
        guarantees=Guarantees(**decision.guarantees),
        warnings=[
            *list_warnings(record.input.unused, record.input.damaged, record.input.remarks),
            *decided.marks.warnings,
            *decided.pruned.warnings,
            *doubts,
        ],
        shares=shares,
        absent=absent,
        removed_cosines=summarise_cosines(written.cosines),
        files=written.seals,
    )


def _list_shares(
    config: RunConfig, record: ConfigRecord, decided: DecidedRun
) -> tuple[list[GroupShare], list[str], list[str]]:
    """Return the shares of perceived groups, the attributes that have none, and what speaks against the shares.

    The built-in encoder has seen drawn pictures only: what it perceives in others is no share of anybody.
    """
    pruned, encoder = decided.pruned, record.encoder
    is_builtin = encoder is not None and (encoder.model, encoder.pretrained) == (BUILTIN_MODEL, None)
    has_captions = needs_text_tower(config.prototypes or default_prototypes())
    if decided.prototypes is None or not is_builtin or not has_captions or are_drawn(decided.clustered.embedded):
        return pruned.shares, pruned.absent, pruned.doubts
    doubt = (
        "Shares of perceived groups are left out: the built-in encoder knows drawn pictures only. "
        "Name a model of photographs (--model)."
    )
    return [], [attribute.name for attribute in decided.prototypes.attributes], [doubt]


def summarise_cosines(counts: NDArray[np.int64]) -> RemovedCosines | None:
    """Return how similar removed rows are to their representatives, None if there are none.

    Parameters
    ----------
    counts : ndarray of shape (201,), int64
        Number of rows by cosine, in whole hundredths from -1.
    """
    samples = int(counts.sum())
    if not samples:
        return None
    middle = int(np.searchsorted(np.cumsum(counts), (samples + 1) // 2))
    near = int(counts[round(100 * NEAR_DUPLICATE) + 100 :].sum())
    return RemovedCosines(samples=samples, near_duplicates=near, median=(middle - 100) / 100)


def _build_outcome(request: Request, decided: DecidedRun, record: ConfigRecord) -> RunOutcome:
    assert record.input is not None
    inherited, decision = decided.lineage.inherited, decided.pruned.decision
    eps = decision.eps if inherited is None else inherited.eps
    moments = decision.plan.moments if decision.plan else None
    if inherited is not None:
        moments = inherited.moments
    return RunOutcome(
        eps=eps,
        options=decided.options,
        prefer=request.config.prefer,
        within=request.config.within,
        prototypes=decided.prototypes,
        prototypes_hash=hash_prototypes(request.config, request.earlier),
        temperatures=decided.pruned.temperatures,
        memberships=decided.pruned.memberships,
        moments=moments,
        kind=record.input.kind,
        image_encoder=find_recorded_encoder(record),
        encoder=find_encoder(request.config, record),
    )
