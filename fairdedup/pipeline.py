"""The run on one page: images or embeddings in, kept IDs out, a stage at a time; every stage can be called alone.

embed ──▶ cluster ──▶ prune ──▶ export ──▶ run.json, written last
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from dataclasses import replace as replace_field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fairdedup import increments
from fairdedup.audit.audit_decisions import audit_decisions
from fairdedup.audit.audit_options import AuditOptions
from fairdedup.audit.audit_report import AuditReport
from fairdedup.calibrated import CalibratedAttribute, calibrate_prototypes
from fairdedup.config import STAGE_KEYS, RunConfig
from fairdedup.core.decision import search_eps
from fairdedup.core.keep_fraction import check_target, kept_target, parse_eps, swept_target
from fairdedup.core.kmeans import check_clusters
from fairdedup.core.parts import count_kept
from fairdedup.core.similarity import EPS_UNIT
from fairdedup.core.survey import Options, survey
from fairdedup.datasets import Dataset, open_input
from fairdedup.datasets.ids import check_ids, read_ids
from fairdedup.datasets.labels import read_labels
from fairdedup.drift import drift_warnings, measure_drift
from fairdedup.errors import UserError
from fairdedup.increments import Ground, Settled
from fairdedup.ledger import (
    begin,
    check_directory,
    check_input,
    clear_run,
    fingerprint_of,
    finish_stage,
    recorded_against,
    stage_options,
    stage_times,
    versions,
)
from fairdedup.models import (
    check_prototypes,
    encoders_of,
    image_encoder,
    named_spec,
    prototypes_for,
    prototypes_key,
    prototypes_of_run,
)
from fairdedup.progress import StageProgress
from fairdedup.stages.clustering import ClusterOptions, cluster_embeddings
from fairdedup.stages.curation import CurationOptions, Evaluation, check_curation_options, mark_rows
from fairdedup.stages.embedding import embed_input, find_finished_shards, fingerprints
from fairdedup.stages.exact_copies import share_copies
from fairdedup.stages.pruning import cluster_ranges, make_map_parts, prune
from fairdedup.stages.replacement import complete_replacement, replace, replace_again
from fairdedup.stages.results import write_results
from fairdedup.storage.config_record import (
    EMPTY_RECORD,
    ConfigRecord,
    EncoderRecord,
    InputRecord,
    NamedModel,
    StageOptions,
    read_config_record,
    read_input_fingerprints,
    write_input_fingerprints,
)
from fairdedup.storage.contents import Clustered, Embedded, load_clustered, load_embedded
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.lock import lock_run_directory
from fairdedup.storage.manifest import (
    GroupShare,
    Guarantees,
    RunManifest,
    read_manifest,
    require_manifest,
    write_manifest,
)
from fairdedup.storage.marks import Marks
from fairdedup.storage.object_stores import RemotePath, as_path
from fairdedup.storage.run_files import is_sealed, read_table, remove_folder
from fairdedup.storage.shared_vectors import Copies
from fairdedup.storage.state_directory import StateDirectory
from fairdedup.workers import Workers


@contextmanager
def at_work(config: RunConfig, progress: StageProgress, alone: bool = True) -> Iterator[Workers]:
    """Give the workers that a command may start, and hold the run directory for it unless it only reads (`alone`)."""
    held = lock_run_directory(config.out.absolute()) if alone else nullcontext()
    with held, Workers(progress, config.scheduler, config.workers, config.memory_limit) as workers:
        yield workers


def run(config: RunConfig, workers: Workers, restart: bool = False) -> RunManifest:
    """Run every stage that is not done yet, and return the manifest.

    Raises
    ------
    UserError
        If the configuration does not fit the input, or differs from what the run directory was begun with.
    """
    directory, progress = RunDirectory(config.out.absolute()), workers.progress
    named = config.model is not None
    config, ground = _grounded(config)
    _check_amount(config)
    options = {stage: stage_options(config, stage) for stage in STAGE_KEYS}
    if restart and directory.config.is_file():  # a folder that is no run is refused below, never cleared
        kind = "images" if config.input is None else _open(config, directory, progress).kind
        _check_models(config, kind, EMPTY_RECORD, named, ground)  # a mistake must not cost the old run
        for name in ("drop", "always_keep"):
            file = getattr(config, name)
            if file is not None:
                read_ids(file, f"--{name.replace('_', '-')}")
        clear_run(directory)
    check_directory(directory, options)
    dataset = _open(config, directory, progress)
    _check_models(config, dataset.kind, read_config_record(directory), named, ground)
    check_input(directory, dataset)
    _finish_replacement(directory, workers)
    known = read_manifest(directory)
    if known is not None:
        damaged = next((f for f, sealed in known.files.items() if not is_sealed(directory.root / f, sealed)), "")
        if not damaged:
            progress.say(f"{config.out} is finished already: nothing to do (--restart clears it)")
            return known
        progress.say(f"{directory.root / damaged} is missing or damaged: it is made again")
    embedded = embed_stage(config, directory, dataset, workers, options["embed"])
    clustered = cluster_stage(config, embedded, workers, ground, options["cluster"])
    return prune_stage(config, directory, workers, clustered, ground, options["prune"])


def refit(config: RunConfig, runs: list[Path], workers: Workers, restart: bool = False) -> RunManifest:
    """Cluster and decide anew all that the lines of some runs have embedded, as a run of its own; as `run`."""
    return run(increments.refitted(config, runs), workers, restart)


def embed_stage(
    config: RunConfig,
    directory: RunDirectory,
    dataset: Dataset,
    workers: Workers,
    options: StageOptions | None = None,
) -> Embedded:
    """Write embeddings/: float16 vectors and metadata of every shard of the input."""
    spec = image_encoder(config, directory, workers) if dataset.kind == "images" else None
    check_input(directory, dataset)
    begin(directory, "embed", options or stage_options(config, "embed"))
    if not directory.input.is_file():
        write_input_fingerprints(directory, dataset.fingerprints)
    prints = fingerprints(dataset, spec)
    there = find_finished_shards(directory, prints, workers.submit)
    todo = [k for k in range(len(prints)) if k not in there]
    copies: list[Copies] = []
    if spec and todo:
        copies, saved = share_copies(dataset, directory, spec, prints, todo, workers.submit)
        if saved:
            workers.progress.say(f"{saved:,} images are exact copies of others: as many forward passes are saved")
    empty = bool(config.against)
    embedded = embed_input(dataset, directory, spec, prints, there, copies, config.max_rejected, workers.submit, empty)
    workers.progress.rows["embed"] = embedded.input  # a tar is counted by reading it
    known = InputRecord(
        source=dataset.source, format=dataset.format, kind=dataset.kind, fingerprint=fingerprint_of(dataset)
    )
    named = NamedModel(model=config.model, pretrained=config.pretrained) if config.model else None
    encoder = EncoderRecord(**asdict(spec)) if spec else None
    shards = len(embedded.records)
    finish_stage(directory, "embed", shards, workers.progress, input=known, encoder=encoder, named_model=named)
    return embedded


def cluster_stage(
    config: RunConfig,
    embedded: Embedded,
    workers: Workers,
    ground: Ground | None = None,
    options: StageOptions | None = None,
) -> Clustered:
    """Write clusters/: the centroids, and the embeddings sorted by cluster; what is there undamaged stays."""
    directory = embedded.directory
    ground = ground or increments.ground_of(config)
    if ground is not None:
        increments.check_clusters(config, ground)
        increments.check_dimension(embedded.dimension, ground)
    else:
        # A mistake must not cost the old clusters.
        check_clusters(config.clusters, max(1, embedded.valid))
    begin(directory, "cluster", options or stage_options(config, "cluster"))
    frozen = None if ground is None else ground.centroids
    how = ClusterOptions(config.clusters, config.seed, config.threads)
    clustered = cluster_embeddings(embedded, how, workers.submit, frozen)
    finish_stage(directory, "cluster", embedded.fingerprint, workers.progress)
    return clustered


def prune_stage(
    config: RunConfig,
    directory: RunDirectory,
    workers: Workers,
    clustered: Clustered | None = None,
    ground: Ground | None = None,
    asked: StageOptions | None = None,
) -> RunManifest:
    """Write decisions/, kept/, rejected/ and, last, run.json; `clustered` is loaded and verified where it is None."""
    if ground is None and not recorded_against(directory):
        _check_amount(config)
    if clustered is None:
        clustered = load_clustered(load_embedded(directory), workers.submit)
    embedded = clustered.embedded
    config = _seeded(config, directory)
    if ground is None:
        config, ground = _ground_of_clusters(config, directory)
    _check_amount(config)
    options = _options(config)
    prototypes = prototypes_for(config, embedded, workers) if ground is None else ground.prototypes()
    evaluation = _evaluation(config, embedded, ground, workers)
    with mark_rows(embedded, replace_field(_curation_options(config), evaluation=evaluation), workers.submit) as marks:
        line = increments.begin(directory, ground) if ground else increments.Line([])
        pruned = prune(
            clustered,
            marks,
            options,
            prototypes,
            workers.submit,
            keep=config.keep,
            at_most=config.at_most,
            eps=None if config.eps is None else parse_eps(config.eps),
            inherited=line.inherited,
        )
        # Not before: a mistake must not cost the old decisions.
        begin(directory, "prune", asked or stage_options(config, "prune"))
        beside = ground is not None
        written = write_results(
            embedded, pruned.tasks, pruned.decision.readmitted, marks, workers.submit, beside=beside
        )
    decision, record = pruned.decision, read_config_record(directory)
    assert record.input is not None
    manifest = RunManifest(
        fairdedup=versions().get("fairdedup"),
        config=record.options,
        versions=versions(),
        seed=config.seed,
        input=record.input,
        encoder=record.encoder,
        clusters=int(np.count_nonzero(clustered.sizes - marks.excluded)),
        stages={},
        counts=written.counts,
        eps=None if decision.eps is None else decision.eps / EPS_UNIT,
        guarantees=Guarantees(**decision.guarantees),
        warnings=[*marks.warnings, *pruned.warnings],
        shares=pruned.shares,
        files=written.seals,
    )
    manifest = replace_again(embedded, manifest, workers.submit)
    moments = line.inherited.moments if line.inherited else decision.plan.moments if decision.plan else None
    settled = Settled(
        line.inherited.eps if line.inherited else decision.eps, options, config.prefer, prototypes,
        prototypes_key(config, ground), pruned.temperatures, pruned.memberships, moments,
        *encoders_of(config, directory),
    )  # fmt: skip
    state, sealed = increments.write_state(embedded, line, settled, workers.submit)
    drift = measure_drift(directory, len(state.runs))
    update: dict[str, Any] = {
        "stages": stage_times(record, workers.progress),
        "files": {**manifest.files, **sealed},
        "warnings": [*manifest.warnings, *drift_warnings(drift, directory.root)],
    }
    if record.input.format == "sample":
        update["shares"] = _shares_by_label(directory)
    if ground is not None:
        update |= {"against": [run.run for run in line.runs], "drift": drift}
    manifest = manifest.model_copy(update=update)
    write_manifest(directory, manifest)
    return manifest


def sweep_run(config: RunConfig, fractions: list[float], workers: Workers) -> list[dict[str, Any]]:
    """Return, for each fraction, the eps and the counts that a prune would have; nothing is written."""
    directory = RunDirectory(config.out.absolute())
    clustered = load_clustered(load_embedded(directory), workers.submit)
    if recorded_against(directory):
        raise UserError(
            f"{directory.root} was made --against other runs, whose eps it has: nothing to sweep; cap it by "
            f"`fairdedup prune {directory.root} --at-most F`"
        )
    config = _seeded(config, directory)
    options = _options(config)
    if options.rule == "random":
        raise UserError("rule 'random' has no eps to sweep: choose another --rule")
    check_curation_options(_curation_options(config))
    evaluation = _evaluation(config, clustered.embedded, None, workers)
    with mark_rows(
        clustered.embedded, replace_field(_curation_options(config), evaluation=evaluation), workers.submit
    ) as marks:
        return _sweep(config, clustered, fractions, workers, marks)


def _sweep(
    config: RunConfig, clustered: Clustered, fractions: list[float], workers: Workers, marks: Marks
) -> list[dict[str, Any]]:
    options = _options(config)
    parts, clusters = cluster_ranges(clustered, marks)
    valid = sum(part.rows for part in parts)
    map_parts = make_map_parts(workers.submit)
    needed = prototypes_for(config, clustered.embedded, workers) if options.cover else None
    plan = survey(parts, options if options.cover or options.rule == "semdedup-chain" else Options("semdedup"),
                  needed, map_parts)  # fmt: skip
    lines = []
    for fraction in fractions:
        target = kept_target(fraction, valid)
        check_target(fraction, valid, clusters, marks.always_kept)
        reserve = options.reserve if options.rule == "balanced" else 0.0
        searched = swept_target(target, valid, reserve, clusters + marks.always_kept)
        eps = search_eps(parts, plan, searched, valid, map_parts)

        swept = int(np.sum(map_parts("count", count_kept, parts, [eps], plan)))
        lines.append({"keep": fraction, "kept": target, "eps": eps / EPS_UNIT, "readmitted": target - swept})
    return lines


def replace_stage(config: RunConfig, gone: Path, workers: Workers) -> RunManifest:
    """Take gone samples out of a finished run, promote who takes their place, and return the new manifest."""
    directory = RunDirectory(config.out.absolute())
    check_ids(gone, "--gone")
    _finish_replacement(directory, workers)
    manifest = require_manifest(directory)
    embedded = load_embedded(directory)
    return _renewed(embedded, replace(embedded, manifest, gone, workers.submit), workers)


def audit_run(config: RunConfig, options: AuditOptions, workers: Workers) -> AuditReport:
    """Measure who of a finished run was kept, by group, write report/audit.*, and return what it says."""
    directory = RunDirectory(config.out.absolute())
    _finish_replacement(directory, workers)
    manifest = require_manifest(directory)
    embedded = load_embedded(directory)
    labels = read_labels(options.labels, options.label_columns) if options.labels else None
    prototypes = None
    if labels is None or options.suggest:
        prototypes = prototypes_of_run(config, embedded, manifest.config.get("prune", {}), workers)
    return audit_decisions(embedded, manifest, options, labels=labels, prototypes=prototypes, submit=workers.submit)


def calibrate_run(config: RunConfig, labels: Path, out: Path, workers: Workers) -> list[CalibratedAttribute]:
    """Fit the prototypes of an embedded run to labels of its samples, write them, and tell what that gained."""
    directory = RunDirectory(config.out.absolute())
    embedded = load_embedded(directory)
    _finish_replacement(directory, workers)
    decided = read_config_record(directory).options_of("prune")
    known = read_labels(labels, None)
    return calibrate_prototypes(embedded, prototypes_of_run(config, embedded, decided, workers), known, out)


def _finish_replacement(directory: RunDirectory, workers: Workers) -> None:
    """Finish a replacement that was stopped, the state that later runs go on from among it."""
    complete_replacement(directory)
    manifest = read_manifest(directory)
    if manifest is not None and StateDirectory(directory.root).stale.is_file():
        _renewed(load_embedded(directory), manifest, workers)


def _renewed(embedded: Embedded, manifest: RunManifest, workers: Workers) -> RunManifest:
    """Return the manifest of a run after a replacement, with what else changes by it."""
    if manifest.input.format == "sample":
        manifest = manifest.model_copy(update={"shares": _shares_by_label(embedded.directory)})
        write_manifest(embedded.directory, manifest)
    return manifest.model_copy(update=increments.renew_state(embedded, workers.submit))


def _grounded(config: RunConfig) -> tuple[RunConfig, Ground | None]:
    """Return the earlier runs of --against, and the configuration with what comes from them."""
    ground = increments.ground_of(config)
    return (config, None) if ground is None else (increments.inherit(config, ground), ground)


def _ground_of_clusters(config: RunConfig, directory: RunDirectory) -> tuple[RunConfig, Ground | None]:
    """Return the earlier runs that this run was clustered against, as `_grounded` does, if they are still the same."""
    recorded = recorded_against(directory)
    against = [str(folder.absolute()) for folder in config.against]
    if against and against != recorded:
        raise UserError(
            f"{directory.root} was not clustered --against {', '.join(against)}: cluster it so, or choose another --out"
        )
    if not recorded:
        return config, None
    config, ground = _grounded(config.model_copy(update={"against": tuple(map(as_path, recorded))}))
    if increments.seals_of(config) != read_config_record(directory).options_of("cluster").get("against_state"):
        raise UserError(
            f"{directory.root} was clustered against runs that have changed since ({', '.join(recorded)}): --restart it"
        )
    return config, ground


def _evaluation(config: RunConfig, embedded: Embedded, ground: Ground | None, workers: Workers) -> Evaluation | None:
    """Return the samples of --exclude-near; those of no run are embedded into evaluation/ as the run itself was."""
    if config.exclude_near is None:
        return None
    directory = embedded.directory
    eps = _near_eps(config, None if ground is None else ground.known.eps)
    theirs = RunDirectory(as_path(config.exclude_near).absolute())
    if theirs.input.is_file():
        samples = load_embedded(theirs)
    else:  # it is no run
        theirs = RunDirectory(directory.root / "evaluation")
        own = encoders_of(config, directory)[1]
        # Rows that cannot be used guard nothing, and are told of; they are not this run's.
        asked: dict[str, Any] = {"input": config.exclude_near, "out": theirs.root, "against": (), "max_rejected": 1.0}
        dataset = open_input(config.exclude_near, id_from=config.id)
        if dataset.kind == "images" and own is None:
            raise UserError(
                f"--exclude-near {config.exclude_near!r} holds images, and this run's embeddings were ready-made: give "
                "embeddings of the same model"
            )
        if own is not None:
            asked |= asdict(own)
        rows, seconds = workers.progress.rows.get("embed", 0), workers.progress.seconds.get("embed")
        known = read_input_fingerprints(theirs)
        if known is not None and known != dataset.fingerprints:
            remove_folder(theirs.root)
        samples = embed_stage(config.model_copy(update=asked), theirs, dataset, workers)
        workers.progress.rows["embed"] = rows  # these rows are not the run's
        if seconds is not None:
            workers.progress.seconds["embed"] = seconds
        else:
            workers.progress.seconds.pop("embed", None)
    encoders = [increments.encoder_identity(encoders_of(config, d)[2]) for d in (theirs, directory)]
    if None not in encoders and encoders[0] != encoders[1]:
        raise UserError(
            f"--exclude-near {config.exclude_near!r} was embedded by {encoders[0]} and this run by {encoders[1]}: both "
            "must come from one model"
        )
    width, own_width = samples.dimension, embedded.dimension
    if width is not None and own_width is not None and width != own_width:
        raise UserError(
            f"--exclude-near {config.exclude_near!r} has {width} dimensions and the embeddings {own_width}: both must "
            "come from one model"
        )
    return Evaluation(samples, config.exclude_near, eps)


def _near_eps(config: RunConfig, inherited: int | None) -> int:
    """Return how near --exclude-near is: what is given, else eps, where that is known beforehand."""
    if config.exclude_near_eps is not None:
        return parse_eps(config.exclude_near_eps)
    if config.eps is not None:
        return parse_eps(config.eps)
    if inherited is None:
        raise UserError(
            "--exclude-near needs to know how near is too near, and eps is found after it: add --exclude-near-eps 0.05"
        )
    return inherited


def _check_models(config: RunConfig, kind: str, record: ConfigRecord, named: bool, ground: Ground | None) -> None:
    """Refuse prototypes that cannot be had, and vectors of another encoder than the earlier runs'."""
    check_prototypes(config, kind, record)
    if ground is not None:
        increments.check_encoder(kind, named, named_spec(config, EMPTY_RECORD), ground)


def _check_amount(config: RunConfig) -> None:
    if config.keep is None and config.at_most is None and config.eps is None and not config.against:
        raise UserError("nothing says how much to keep: add --keep 0.5, --at-most 0.5 or --eps 0.05")
    _options(config)
    check_curation_options(_curation_options(config))
    if config.exclude_near is not None:
        _near_eps(config, 0 if config.against else None)
    elif config.exclude_near_eps is not None:
        raise UserError("--exclude-near-eps without --exclude-near: name the evaluation samples too")
    if config.eps is not None:
        parse_eps(config.eps)
        if config.rule == "random":
            raise UserError("rule 'random' has no eps: give --keep or --at-most in place of --eps")


def _seeded(config: RunConfig, directory: RunDirectory) -> RunConfig:
    """Return the configuration with the seed that the run was clustered by, unless one is given."""
    if "seed" in config.model_fields_set:
        return config
    return config.model_copy(update={"seed": read_config_record(directory).options_of("cluster")["seed"]})


def _options(config: RunConfig) -> Options:
    return Options(
        config.rule, config.cover, config.seed, config.start, config.calibrate, config.target, config.temperature,
        config.reserve, config.always_keep is not None,
    )  # fmt: skip


def _curation_options(config: RunConfig) -> CurationOptions:
    return CurationOptions(config.where, config.drop, config.always_keep, config.prefer, bool(config.against))


def _open(config: RunConfig, directory: RunDirectory, progress: StageProgress) -> Dataset:
    if config.input is not None:
        dataset = open_input(config.input, id_from=config.id, column=config.column, may_be_empty=bool(config.against))
        if dataset.lies_in(directory.root):
            raise UserError(f"INPUT {config.input!r} lies in the run directory {directory.root}: choose another --out")
        return dataset
    if isinstance(directory.root, RemotePath):
        raise UserError(
            f"--out {str(directory.root)!r} without INPUT: the built-in sample is drawn on the local disk; draw it "
            "with `fairdedup sample DIR` and give DIR as INPUT"
        )
    from fairdedup.sample import write_sample

    folder = directory.root / "sample"
    if not (folder / "README.txt").is_file():
        progress.say(f"no INPUT: drawing the built-in sample into {folder}")
        started = time.monotonic()
        write_sample(folder)
        progress.seconds["sample"] = time.monotonic() - started
        progress.rows["sample"] = 0
    opened = open_input(str(folder), id_from=config.id)
    return Dataset(opened.kind, "sample", opened.source, opened.shards)


def open_for_embedding(config: RunConfig, progress: StageProgress) -> tuple[RunConfig, Dataset]:
    """Open the input of `fairdedup embed`, check it, and fill in what comes from earlier runs."""
    directory = RunDirectory(config.out.absolute())
    named = config.model is not None
    config, ground = _grounded(config)
    record = read_config_record(directory)
    options = {stage: record.options_of(stage) for stage in STAGE_KEYS}
    if options["embed"]:
        options["embed"] = stage_options(config, "embed")
    check_directory(directory, options)
    dataset = _open(config, directory, progress)
    if ground is not None:
        increments.check_encoder(dataset.kind, named, named_spec(config, EMPTY_RECORD), ground)
    return config, dataset


def _shares_by_label(directory: RunDirectory) -> list[GroupShare]:
    """Return the sample's drawn groups before and after: there the true labels are known."""
    labels = read_table(directory.root / "sample" / "labels.parquet").to_pandas()
    decisions = pd.concat([
        read_table(part, ["id", "kept"]).to_pandas()
        for part in sorted((directory.root / "decisions").glob("*.parquet"))
    ])  # fmt: skip
    merged = labels.merge(decisions, on="id")
    lines = []
    for column in ("perceived_gender", "age", "skin_tone"):
        known = merged[merged[column] != "none"]
        before = known[column].value_counts(normalize=True)
        after = known.loc[known["kept"], column].value_counts(normalize=True)
        for group in sorted(before.index):
            share = GroupShare(
                attribute=f"drawn {column.replace('_', ' ')}",
                group=str(group),
                input=float(before[group]),
                kept=float(after.get(group, 0.0)),
            )
            lines.append(share)
    return lines
