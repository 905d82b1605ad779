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
from fairdedup.core.eps_search import search_eps
from fairdedup.core.keep_fraction import check_target, kept_target, parse_eps, swept_target
from fairdedup.core.kmeans import check_clusters
from fairdedup.core.model import Options, Plan
from fairdedup.core.parts import count_kept
from fairdedup.core.rules.registry import find_rule
from fairdedup.core.similarity import EPS_UNIT
from fairdedup.core.survey import survey
from fairdedup.datasets import Dataset, open_input
from fairdedup.datasets.ids import check_ids, read_ids
from fairdedup.datasets.labels import read_labels
from fairdedup.drift import drift_warnings, measure_drift
from fairdedup.errors import UserError
from fairdedup.increments import Ground, Settled
from fairdedup.ledger import (
    asked_of,
    begin,
    check_clustered,
    check_directory,
    check_input,
    clear_run,
    fingerprint_of,
    finish_stage,
    hash_of_embeddings,
    recorded_against,
    stages_of,
    state_of,
    versions,
)
from fairdedup.models import (
    check_prototypes,
    dimension_of,
    encoders_of,
    image_encoder,
    named_spec,
    prototypes_for,
    prototypes_key,
    prototypes_of_run,
)
from fairdedup.progress import StageProgress
from fairdedup.stages.clustering import ClusterOptions, cluster
from fairdedup.stages.curation import Evaluation, Wishes, check_wishes, curated
from fairdedup.stages.embedding import embed, fingerprints, known_shards
from fairdedup.stages.exact_copies import share_copies
from fairdedup.stages.pruning import cluster_ranges, group_shares, prune, run_over, vague_attributes
from fairdedup.stages.replacement import finish, replace, replace_again
from fairdedup.stages.results import export
from fairdedup.storage.layout import RunDirectory, finished, manifest_of
from fairdedup.storage.lock import claimed
from fairdedup.storage.marks import Marks
from fairdedup.storage.object_stores import RemotePath, as_path
from fairdedup.storage.run_files import clear, is_sealed, read_json, read_table, write_json
from fairdedup.storage.run_state import StateDirectory
from fairdedup.storage.shared_vectors import Copies
from fairdedup.workers import Workers


@contextmanager
def at_work(config: RunConfig, progress: StageProgress, alone: bool = True) -> Iterator[Workers]:
    """Give the workers that a command may start, and hold the run directory for it unless it only reads (`alone`)."""
    held = claimed(config.out.absolute()) if alone else nullcontext()
    with held, Workers(progress, config.scheduler, config.workers, config.memory_limit) as workers:
        yield workers


def run(config: RunConfig, workers: Workers, restart: bool = False) -> dict[str, Any]:
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
    asked = {stage: asked_of(config, stage) for stage in STAGE_KEYS}
    if restart and directory.config.is_file():  # a folder that is no run is refused below, never cleared
        kind = "images" if config.input is None else _open(config, directory, progress).kind
        _check_models(config, kind, {}, named, ground)  # a mistake must not cost the old run
        for name in ("drop", "always_keep"):
            file = getattr(config, name)
            if file is not None:
                read_ids(file, f"--{name.replace('_', '-')}")
        clear_run(directory)
    check_directory(directory, asked)
    dataset = _open(config, directory, progress)
    _check_models(config, dataset.kind, state_of(directory), named, ground)
    check_input(directory, dataset)
    _finish_replacement(directory, workers)
    known = manifest_of(directory)
    if known is not None:
        files = known.get("files", {directory.manifest.name: ""})  # a manifest without them vouches for nothing
        damaged = next((f for f, sealed in files.items() if not is_sealed(directory.root / f, sealed)), "")
        if not damaged:
            progress.say(f"{config.out} is finished already: nothing to do (--restart clears it)")
            return known
        progress.say(f"{directory.root / damaged} is missing or damaged: it is made again")
    embed_stage(config, directory, dataset, workers)
    cluster_stage(config, directory, workers, ground)
    return prune_stage(config, directory, workers, verified=True, ground=ground)


def refit(config: RunConfig, runs: list[Path], workers: Workers, restart: bool = False) -> dict[str, Any]:
    """Cluster and decide anew all that the lines of some runs have embedded, as a run of its own; as `run`."""
    return run(increments.refitted(config, runs), workers, restart)


def embed_stage(config: RunConfig, directory: RunDirectory, dataset: Dataset, workers: Workers) -> None:
    """Write embeddings/: float16 vectors and metadata of every shard of the input."""
    spec = image_encoder(config, directory, workers) if dataset.kind == "images" else None
    check_input(directory, dataset)
    begin(directory, "embed", asked_of(config, "embed"))
    if not directory.input.is_file():
        write_json(directory.input, dataset.fingerprints)
    prints = fingerprints(dataset, spec)
    there = known_shards(directory, prints, workers.submit)
    todo = [k for k in range(len(prints)) if k not in there]
    copies: list[Copies] = []
    if spec and todo:
        copies, saved = share_copies(dataset, directory, spec, prints, todo, workers.submit)
        if saved:
            workers.progress.say(f"{saved:,} images are exact copies of others: as many forward passes are saved")
    empty = bool(config.against)
    records = embed(dataset, directory, spec, prints, there, copies, config.max_rejected, workers.submit, empty)
    workers.progress.rows["embed"] = sum(r.input for r in records)  # a tar is counted by reading it
    known = {
        "source": dataset.source, "format": dataset.format, "kind": dataset.kind,
        "fingerprint": fingerprint_of(dataset),
    }  # fmt: skip
    named = {"model": config.model, "pretrained": config.pretrained} if config.model else None
    encoder = asdict(spec) if spec else None
    finish_stage(directory, "embed", len(records), workers.progress, input=known, encoder=encoder, named_model=named)


def cluster_stage(config: RunConfig, directory: RunDirectory, workers: Workers, ground: Ground | None = None) -> None:
    """Write clusters/: the centroids, and the embeddings sorted by cluster; what is there undamaged stays."""
    records = directory.records()
    ground = ground or increments.ground_of(config)
    if ground is not None:
        increments.check_clusters(config, ground)
        increments.check_dimension(dimension_of(directory), ground)
    else:
        # A mistake must not cost the old clusters.
        check_clusters(config.clusters, max(1, sum(r.valid for r in records)))
    begin(directory, "cluster", asked_of(config, "cluster"))
    frozen = None if ground is None else ground.centroids
    cluster(directory, ClusterOptions(config.clusters, config.seed, config.threads), workers.submit, frozen)
    finish_stage(directory, "cluster", hash_of_embeddings(records), workers.progress)


def prune_stage(
    config: RunConfig, directory: RunDirectory, workers: Workers, verified: bool = False, ground: Ground | None = None
) -> dict[str, Any]:
    """Write decisions/, kept/, rejected/ and, last, run.json; return it. `verified`: the clusters are known whole."""
    if ground is None and not recorded_against(directory):
        _check_amount(config)
    check_clustered(directory, None if verified else workers)
    config = _seeded(config, directory)
    if ground is None:
        config, ground = _ground_of_clusters(config, directory)
    _check_amount(config)
    options = _options(config)
    prototypes = prototypes_for(config, directory, workers) if ground is None else ground.prototypes()
    amount = {
        "keep": config.keep,
        "at_most": config.at_most,
        "eps": None if config.eps is None else parse_eps(config.eps),
    }
    evaluation = _evaluation(config, directory, ground, workers)
    with curated(directory, replace_field(_wishes(config), evaluation=evaluation), workers.submit) as marks:
        line = increments.begin(directory, ground) if ground else increments.Line([])
        decision, parts = prune(directory, options, prototypes, amount, workers.submit, marks, line.inherited)
        shares, temperatures, memberships = (
            group_shares(parts, options, prototypes, decision, workers.submit, line.inherited)
            if prototypes
            else ([], (), ())
        )
        doubts = vague_attributes(options, prototypes, memberships) if prototypes else []
        begin(directory, "prune", asked_of(config, "prune"))  # not before: a mistake must not cost the old decisions
        tasks = [(part.number, stored.bounds) for part, stored in zip(parts, decision.parts, strict=True)]
        counts, seals = export(directory, tasks, decision.readmitted, workers.submit, marks, ground is not None)
    decided = replace_again(directory, {
        "counts": counts, "eps": None if decision.eps is None else decision.eps / EPS_UNIT,
        "guarantees": decision.guarantees, "warnings": [*marks.warnings, *decision.warnings, *doubts],
        "shares": shares, "files": seals,
    }, workers.submit)  # fmt: skip
    moments = line.inherited.moments if line.inherited else decision.plan.moments if decision.plan else None
    settled = Settled(
        line.inherited.eps if line.inherited else decision.eps, options, config.prefer, prototypes,
        prototypes_key(config, ground), temperatures, memberships, moments, *encoders_of(config, directory),
    )  # fmt: skip
    known, sealed = increments.write_state(directory, line, settled, workers.submit)
    drift = measure_drift(directory, len(known["runs"]))
    state, sizes = state_of(directory), read_json(directory.sizes)
    manifest = {
        "fairdedup": versions().get("fairdedup"),
        "config": state["asked"],
        "versions": versions(),
        "seed": config.seed,
        "input": state["input"],
        "encoder": state.get("encoder"),
        "clusters": int(np.count_nonzero(np.array(sizes) - marks.excluded)),
        "stages": stages_of(state, workers.progress),
        **decided,
        "files": {**decided["files"], **sealed},
    }
    manifest["warnings"] += drift_warnings(drift, directory.root)
    if state["input"]["format"] == "sample":
        manifest["shares"] = _shares_by_label(directory)
    if ground is not None:
        manifest |= {"against": [run["run"] for run in line.runs], "drift": drift and asdict(drift)}
    write_json(directory.manifest, manifest)
    return manifest


def sweep_run(config: RunConfig, fractions: list[float], workers: Workers) -> list[dict[str, Any]]:
    """Return, for each fraction, the eps and the counts that a prune would have; nothing is written."""
    directory = RunDirectory(config.out.absolute())
    check_clustered(directory, workers)
    if recorded_against(directory):
        raise UserError(
            f"{directory.root} was made --against other runs, whose eps it has: nothing to sweep; cap it by "
            f"`fairdedup prune {directory.root} --at-most F`"
        )
    config = _seeded(config, directory)
    options = _options(config)
    if not options.rule.has_eps:
        raise UserError(f"--rule {options.rule.name} has no eps to sweep: choose another --rule")
    check_wishes(_wishes(config))
    evaluation = _evaluation(config, directory, None, workers)
    with curated(directory, replace_field(_wishes(config), evaluation=evaluation), workers.submit) as marks:
        return _sweep(config, fractions, workers, marks)


def _sweep(config: RunConfig, fractions: list[float], workers: Workers, marks: Marks) -> list[dict[str, Any]]:
    directory, options = RunDirectory(config.out.absolute()), _options(config)
    parts, clusters = cluster_ranges(directory, marks)
    valid = sum(part.rows for part in parts)
    map_parts = run_over(workers.submit)
    needed = prototypes_for(config, directory, workers) if options.cover else None
    # Without cover no count depends on what a survey finds.
    plan = survey(parts, options, needed, map_parts) if options.cover else Plan(options)
    lines = []
    for fraction in fractions:
        target = kept_target(fraction, valid)
        check_target(fraction, valid, clusters, marks.always_kept)
        reserve = options.reserve if options.rule.reserves_seats else 0.0
        searched = swept_target(target, valid, reserve, clusters + marks.always_kept)
        eps = search_eps(parts, plan, searched, valid, map_parts)

        swept = int(np.sum(map_parts("count", count_kept, parts, [eps], plan)))
        lines.append({"keep": fraction, "kept": target, "eps": eps / EPS_UNIT, "readmitted": target - swept})
    return lines


def replace_stage(config: RunConfig, gone: Path, workers: Workers) -> dict[str, Any]:
    """Take gone samples out of a finished run, promote who takes their place, and return the new manifest."""
    directory = RunDirectory(config.out.absolute())
    check_ids(gone, "--gone")
    _finish_replacement(directory, workers)
    return _renewed(directory, replace(directory, finished(directory), gone, workers.submit), workers)


def audit_run(config: RunConfig, options: AuditOptions, workers: Workers) -> AuditReport:
    """Measure who of a finished run was kept, by group, write report/audit.*, and return what it says."""
    directory = RunDirectory(config.out.absolute())
    _finish_replacement(directory, workers)
    manifest = finished(directory)
    labels = read_labels(options.labels, options.label_columns) if options.labels else None
    prototypes = None
    if labels is None or options.suggest:
        prototypes = prototypes_of_run(config, directory, manifest["config"].get("prune", {}), workers)
    return audit_decisions(directory, manifest, options, labels=labels, prototypes=prototypes, submit=workers.submit)


def calibrate_run(config: RunConfig, labels: Path, out: Path, workers: Workers) -> list[CalibratedAttribute]:
    """Fit the prototypes of an embedded run to labels of its samples, write them, and tell what that gained."""
    directory = RunDirectory(config.out.absolute())
    directory.records()  # says which stage is missing
    _finish_replacement(directory, workers)
    decided = state_of(directory)["asked"].get("prune", {})
    known = read_labels(labels, None)
    return calibrate_prototypes(directory, prototypes_of_run(config, directory, decided, workers), known, out)


def _finish_replacement(directory: RunDirectory, workers: Workers) -> None:
    """Finish a replacement that was stopped, the state that later runs go on from among it."""
    finish(directory)
    manifest = manifest_of(directory)
    if manifest is not None and StateDirectory(directory.root).stale.is_file():
        _renewed(directory, manifest, workers)


def _renewed(directory: RunDirectory, manifest: dict[str, Any], workers: Workers) -> dict[str, Any]:
    """Return the manifest of a run after a replacement, with what else changes by it."""
    if manifest["input"]["format"] == "sample":
        manifest = {**manifest, "shares": _shares_by_label(directory)}
        write_json(directory.manifest, manifest)
    return {**manifest, **increments.renew_state(directory, workers.submit)}


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
    if asked_of(config, "cluster").get("against_state") != state_of(directory)["asked"]["cluster"].get("against_state"):
        raise UserError(
            f"{directory.root} was clustered against runs that have changed since ({', '.join(recorded)}): --restart it"
        )
    return config, ground


def _evaluation(
    config: RunConfig, directory: RunDirectory, ground: Ground | None, workers: Workers
) -> Evaluation | None:
    """Return the samples of --exclude-near; those of no run are embedded into evaluation/ as the run itself was."""
    if config.exclude_near is None:
        return None
    eps = _near_eps(config, None if ground is None else ground.known["eps"])
    theirs = RunDirectory(as_path(config.exclude_near).absolute())
    if not theirs.input.is_file():  # it is no run
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
        known = read_json(theirs.input)
        if known is not None and known != dataset.fingerprints:
            clear(theirs.root)
        embed_stage(config.model_copy(update=asked), theirs, dataset, workers)
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
    width, own_width = dimension_of(theirs), dimension_of(directory)
    if width is not None and own_width is not None and width != own_width:
        raise UserError(
            f"--exclude-near {config.exclude_near!r} has {width} dimensions and the embeddings {own_width}: both must "
            "come from one model"
        )
    return Evaluation(theirs.root, config.exclude_near, eps)


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


def _check_models(config: RunConfig, kind: str, state: dict[str, Any], named: bool, ground: Ground | None) -> None:
    """Refuse prototypes that cannot be had, and vectors of another encoder than the earlier runs'."""
    check_prototypes(config, kind, state)
    if ground is not None:
        increments.check_encoder(kind, named, named_spec(config, {}), ground)


def _check_amount(config: RunConfig) -> None:
    if config.keep is None and config.at_most is None and config.eps is None and not config.against:
        raise UserError("nothing says how much to keep: add --keep 0.5, --at-most 0.5 or --eps 0.05")
    _options(config)
    check_wishes(_wishes(config))
    if config.exclude_near is not None:
        _near_eps(config, 0 if config.against else None)
    elif config.exclude_near_eps is not None:
        raise UserError("--exclude-near-eps without --exclude-near: name the evaluation samples too")
    if config.eps is not None:
        parse_eps(config.eps)
        if not find_rule(config.rule).has_eps:
            raise UserError(f"--rule {config.rule} has no eps: give --keep or --at-most in place of --eps")


def _seeded(config: RunConfig, directory: RunDirectory) -> RunConfig:
    """Return the configuration with the seed that the run was clustered by, unless one is given."""
    if "seed" in config.model_fields_set:
        return config
    return config.model_copy(update={"seed": state_of(directory)["asked"]["cluster"]["seed"]})


def _options(config: RunConfig) -> Options:
    return Options(
        rule=find_rule(config.rule),
        cover=config.cover,
        seed=config.seed,
        start=config.start,
        calibrate=config.calibrate,
        target=config.target,
        temperature=config.temperature,
        reserve=config.reserve,
        protected=config.always_keep is not None,
    )


def _wishes(config: RunConfig) -> Wishes:
    return Wishes(config.where, config.drop, config.always_keep, config.prefer, bool(config.against))


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
    known = state_of(directory)["asked"].get("embed")
    check_directory(directory, {**{s: state_of(directory)["asked"].get(s, {}) for s in STAGE_KEYS},
                                 "embed": asked_of(config, "embed") if known else {}})  # fmt: skip
    dataset = _open(config, directory, progress)
    if ground is not None:
        increments.check_encoder(dataset.kind, named, named_spec(config, {}), ground)
    return config, dataset


def _shares_by_label(directory: RunDirectory) -> list[dict[str, Any]]:
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
            lines.append({
                "attribute": f"drawn {column.replace('_', ' ')}", "group": str(group),
                "input": float(before[group]), "kept": float(after.get(group, 0.0)),
            })  # fmt: skip
    return lines
