"""The run on one page: images or embeddings in, kept IDs out, a stage at a time; every stage can be called alone.

embed ──▶ cluster ──▶ prune ──▶ export ──▶ run.json, written last
"""

from __future__ import annotations

import hashlib
import json
import platform
import time
from contextlib import nullcontext
from dataclasses import asdict
from dataclasses import replace as replace_field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fairdedup import increments
from fairdedup.audit import Asked, audit
from fairdedup.calibrated import calibrate_prototypes
from fairdedup.captions import (
    check_vectors,
    default_prototypes,
    embed_captions,
    needs_text_tower,
    read_captions,
    read_vectors,
    write_vectors,
)
from fairdedup.config import STAGE_KEYS, RunConfig
from fairdedup.core.decision import search_eps
from fairdedup.core.keep_fraction import check_target, kept_target, parse_eps, swept_target
from fairdedup.core.kmeans import check_clusters
from fairdedup.core.prototypes import Prototypes
from fairdedup.core.rules import NEEDS_PROTOTYPES
from fairdedup.core.similarity import EPS_UNIT
from fairdedup.core.steps import count_kept
from fairdedup.core.survey import Options, survey
from fairdedup.datasets import Dataset, open_input
from fairdedup.datasets.ids import check_ids
from fairdedup.datasets.labels import read_labels
from fairdedup.encoders import EncoderSpec, builtin_spec, check_model
from fairdedup.errors import UserError
from fairdedup.increments import Ground, Settled
from fairdedup.progress import StageProgress
from fairdedup.stages.cluster import ClusterOptions, check_sorted, cluster
from fairdedup.stages.copies import share_copies
from fairdedup.stages.curate import Evaluation, Wishes, check_wishes, curated
from fairdedup.stages.embed import embed, fingerprints, known_shards
from fairdedup.stages.export import export
from fairdedup.stages.prune import cluster_ranges, group_shares, prune, run_over, vague_attributes
from fairdedup.stages.replace import finish, replace
from fairdedup.stages.state import read_prototypes
from fairdedup.storage.copies import Copies
from fairdedup.storage.files import clear, is_sealed, read_array, read_json, read_table, seal, sha256_of, write_json
from fairdedup.storage.marks import Marks
from fairdedup.storage.run import RunDirectory, ShardRecord, groups, manifest_of
from fairdedup.storage.state import StateDirectory
from fairdedup.stores import RemotePath, as_path
from fairdedup.workers import Workers

OWN = ("embeddings", "clusters", "curated", "decisions", "kept", "rejected", "replaced", "report", "sample", "state",
       "evaluation")  # fmt: skip
OWN_FILES = ("run.json", "prototypes.parquet")
FILES = ("prototypes", "drop", "always_keep")  # options whose content belongs to the configuration
PACKAGES = (
    "fairdedup", "numpy", "torch", "open_clip_torch", "faiss-gpu", "faiss-cpu", "dask", "pyarrow", "duckdb", "numba",
)  # fmt: skip


def run(config: RunConfig, progress: StageProgress, restart: bool = False) -> dict[str, Any]:
    """Run every stage that is not done yet, and return the manifest.

    Raises
    ------
    UserError
        If the configuration does not fit the input, or differs from what the run directory was begun with.
    """
    directory = RunDirectory(config.out.absolute())
    named = config.model is not None
    config, ground = _grounded(config)
    _check_amount(config)
    if restart and directory.config.is_file():  # a folder that is no run is refused below, never cleared
        kind = "images" if config.input is None else _open(config, directory, progress).kind
        _check_prototypes(config, kind, {"asked": {}})  # a mistake must not cost the old run
        clear_run(directory)
    asked = {stage: _asked(config, stage) for stage in STAGE_KEYS}
    _check_directory(directory, asked)
    dataset = _open(config, directory, progress)
    _check_prototypes(config, dataset.kind, _state(directory))
    if ground is not None:
        increments.check_encoder(dataset.kind, named, _named_spec(config, {}), ground)
    _check_input(directory, dataset)
    _finish_replacement(config, directory, progress)
    finished = manifest_of(directory)
    if finished is not None:
        files = finished.get("files", {directory.manifest.name: ""})  # a manifest without them vouches for nothing
        damaged = next((f for f, sealed in files.items() if not is_sealed(directory.root / f, sealed)), "")
        if not damaged:
            progress.say(f"{config.out} is finished already: nothing to do (--restart clears it)")
            return finished
        progress.say(f"{directory.root / damaged} is missing or damaged: it is made again")
    with Workers(progress, config.scheduler, config.workers) as workers:
        embed_stage(config, directory, dataset, workers)
        cluster_stage(config, directory, workers, ground)
        return prune_stage(config, directory, workers, verified=True, ground=ground)


def refit(config: RunConfig, runs: list[Path], progress: StageProgress, restart: bool = False) -> dict[str, Any]:
    """Cluster and decide anew all that the lines of some runs have embedded, as a run of its own; as `run`."""
    return run(increments.refitted(config, runs), progress, restart)


def embed_stage(config: RunConfig, directory: RunDirectory, dataset: Dataset, workers: Workers) -> None:
    """Write embeddings/: float16 vectors and metadata of every shard of the input."""
    spec = _image_encoder(config, directory, workers) if dataset.kind == "images" else None
    _check_input(directory, dataset)
    _begin(directory, "embed", _asked(config, "embed"))
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
        "source": dataset.source, "format": dataset.format, "kind": dataset.kind, "fingerprint": _fingerprint(dataset),
    }  # fmt: skip
    named = {"model": config.model, "pretrained": config.pretrained} if config.model else None
    encoder = asdict(spec) if spec else None
    _finish(directory, "embed", len(records), workers.progress, input=known, encoder=encoder, named_model=named)


def cluster_stage(config: RunConfig, directory: RunDirectory, workers: Workers, ground: Ground | None = None) -> None:
    """Write clusters/: the centroids, and the embeddings sorted by cluster; what is there undamaged stays."""
    records = directory.records()
    ground = ground or increments.ground_of(config)
    if ground is not None:
        increments.check_dimension(_dimension(directory), ground)
    else:
        # A mistake must not cost the old clusters.
        check_clusters(config.clusters, max(1, sum(r.valid for r in records)))
    _begin(directory, "cluster", _asked(config, "cluster"))
    frozen = None if ground is None else ground.centroids
    cluster(directory, ClusterOptions(config.clusters, config.seed, config.threads), workers.submit, frozen)
    _finish(directory, "cluster", _embedded(records), workers.progress)


def prune_stage(
    config: RunConfig, directory: RunDirectory, workers: Workers, verified: bool = False, ground: Ground | None = None
) -> dict[str, Any]:
    """Write decisions/, kept/, rejected/ and, last, run.json; return it. `verified`: the clusters are known whole."""
    if ground is None and not _recorded_against(directory):
        _check_amount(config)
    _check_clustered(directory, None if verified else workers)
    if ground is None:
        config, ground = _ground_of_clusters(config, directory)
    _check_amount(config)
    options = _options(config)
    prototypes = _prototypes(config, directory, workers) if ground is None else ground.prototypes()
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
            group_shares(parts, options, prototypes, decision.readmitted, workers.submit, line.inherited)
            if prototypes
            else ([], (), ())
        )
        doubts = vague_attributes(options, prototypes, memberships) if prototypes else []
        _begin(directory, "prune", _asked(config, "prune"))  # not before: a mistake must not cost the old decisions
        tasks = [(part.number, stored.bounds) for part, stored in zip(parts, decision.parts, strict=True)]
        counts, seals = export(directory, tasks, decision.readmitted, workers.submit, marks, ground is not None)
    moments = line.inherited.moments if line.inherited else decision.plan.moments if decision.plan else None
    settled = Settled(
        line.inherited.eps if line.inherited else decision.eps, options, config.prefer, prototypes,
        _prototypes_key(config, ground), temperatures, memberships, moments, *_encoders(config, directory),
    )  # fmt: skip
    known, sealed = increments.write_state(directory, line, settled, workers.submit)
    drift = increments.drift(directory, known)
    state, sizes = _state(directory), read_json(directory.sizes)
    if state["input"]["format"] == "sample":
        shares = _shares_by_label(directory)
    manifest = {
        "fairdedup": _versions().get("fairdedup"),
        "config": state["asked"],
        "versions": _versions(),
        "seed": config.seed,
        "input": state["input"],
        "encoder": state.get("encoder"),
        "counts": counts,
        "clusters": int(np.count_nonzero(np.array(sizes) - marks.excluded)),
        "eps": None if decision.eps is None else decision.eps / EPS_UNIT,
        "guarantees": decision.guarantees,
        "warnings": [
            *marks.warnings,
            *decision.warnings,
            *doubts,
            *increments.warnings_of(drift, directory.root),
        ],
        "shares": shares,
        "stages": _stages(state, workers.progress),
        "files": {**seals, **sealed},
    }
    if ground is not None:
        manifest |= {"against": [run["run"] for run in line.runs], "drift": drift}
    write_json(directory.manifest, manifest)
    return manifest


def sweep_run(config: RunConfig, fractions: list[float], workers: Workers) -> list[dict[str, Any]]:
    """Return, for each fraction, the eps and the counts that a prune would have; nothing is written."""
    directory = RunDirectory(config.out.absolute())
    _check_clustered(directory, workers)
    if _recorded_against(directory):
        raise UserError(
            f"{directory.root} was made --against other runs, whose eps it has: nothing to sweep; cap it by "
            f"`fairdedup prune {directory.root} --at-most F`"
        )
    options = _options(config)
    if options.rule == "random":
        raise UserError("rule 'random' has no eps to sweep: choose another --rule")
    check_wishes(_wishes(config))
    evaluation = _evaluation(config, directory, None, workers)
    with curated(directory, replace_field(_wishes(config), evaluation=evaluation), workers.submit) as marks:
        return _sweep(config, fractions, workers, marks)


def _sweep(config: RunConfig, fractions: list[float], workers: Workers, marks: Marks) -> list[dict[str, Any]]:
    directory, options = RunDirectory(config.out.absolute()), _options(config)
    parts, clusters = cluster_ranges(directory, marks)
    valid = sum(part.rows for part in parts)
    map_parts = run_over(workers.submit)
    needed = _prototypes(config, directory, workers) if options.cover else None
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


def replace_stage(config: RunConfig, gone: Path, workers: Workers) -> dict[str, Any]:
    """Take gone samples out of a finished run, promote who takes their place, and return the new manifest."""
    directory = RunDirectory(config.out.absolute())
    check_ids(gone, "--gone")
    _finish_replacement(config, directory, workers.progress, workers)
    manifest = replace(directory, _finished(directory), gone, workers.submit)
    manifest |= increments.renew_state(directory, workers.submit)
    if manifest["input"]["format"] == "sample":
        manifest["shares"] = _shares_by_label(directory)
        write_json(directory.manifest, manifest)
    return manifest


def _finished(directory: RunDirectory) -> dict[str, Any]:
    """Return the manifest of a finished run."""
    manifest = manifest_of(directory)
    if manifest is None:
        raise UserError(f"{directory.root} holds no finished run: run `fairdedup prune {directory.root}` first")
    return manifest


def audit_run(config: RunConfig, asked: Asked, workers: Workers) -> dict[str, Any]:
    """Measure who of a finished run was kept, by group, write report/audit.*, and return what it says."""
    directory = RunDirectory(config.out.absolute())
    finish(directory)
    manifest = _finished(directory)
    labels = read_labels(asked.labels, asked.attributes_of_file) if asked.labels else None
    prototypes = None
    if labels is None or asked.suggest:
        prototypes = _prototypes_of_run(config, directory, manifest["config"].get("prune", {}), workers)
    return audit(directory, manifest, asked, labels, prototypes, workers.submit)


def calibrate_run(config: RunConfig, labels: Path, out: Path, workers: Workers) -> list[dict[str, Any]]:
    """Fit the prototypes of an embedded run to labels of its samples, write them, and tell what that gained."""
    directory = RunDirectory(config.out.absolute())
    directory.records()  # says which stage is missing
    decided = _state(directory)["asked"].get("prune", {})
    known = read_labels(labels, None)
    return calibrate_prototypes(directory, _prototypes_of_run(config, directory, decided, workers), known, out)


def _prototypes_of_run(
    config: RunConfig, directory: RunDirectory, decided: dict[str, Any], workers: Workers
) -> Prototypes:
    """Return the prototypes that are named, else those that the run was decided by."""
    left = StateDirectory(directory.root)
    if config.prototypes is None and config.model is None and (read_json(left.file) or {}).get("prototypes"):
        return read_prototypes(left.prototypes)
    file = config.prototypes or (as_path(decided["prototypes"]) if decided.get("prototypes") else None)
    config = config.model_copy(update={"prototypes": file, "rule": "semdedup", "prefer": None})
    prototypes = _prototypes(config, directory, workers)
    if prototypes is None:
        raise UserError(
            f"{directory.root} has ready embeddings of a model that is not named: give --labels FILE, prototype "
            "vectors (--prototypes FILE), or the model (--model ViT-B-16 --pretrained openai)"
        )
    return prototypes


def _finish_replacement(
    config: RunConfig, directory: RunDirectory, progress: StageProgress, workers: Workers | None = None
) -> None:
    """Finish a replacement that was stopped, the state that later runs go on from among it."""
    finish(directory)
    if StateDirectory(directory.root).stale.is_file() and manifest_of(directory):
        own = Workers(progress, config.scheduler, config.workers, config.memory_limit)
        with nullcontext(workers) if workers else own as chosen:
            increments.renew_state(directory, chosen.submit)


def clear_run(directory: RunDirectory) -> None:
    """Remove what a run wrote into its directory, and nothing else."""
    directory.manifest.unlink(missing_ok=True)
    for name in OWN:
        clear(directory.root / name)
    for name in OWN_FILES:
        (directory.root / name).unlink(missing_ok=True)
    write_json(directory.config, {"asked": {}, "done": {}})  # last: it says that all this was ours, and still is


def _grounded(config: RunConfig) -> tuple[RunConfig, Ground | None]:
    """Return the earlier runs of --against, and the configuration with what comes from them."""
    ground = increments.ground_of(config)
    return (config, None) if ground is None else (increments.inherit(config, ground), ground)


def _recorded_against(directory: RunDirectory) -> list[str]:
    """Return the earlier runs whose centroids these clusters have."""
    known: list[str] = _state(directory)["asked"].get("cluster", {}).get("against", [])
    return known


def _ground_of_clusters(config: RunConfig, directory: RunDirectory) -> tuple[RunConfig, Ground | None]:
    """Return the earlier runs that this run was clustered against, as `_grounded` does, if they are still the same."""
    recorded = _recorded_against(directory)
    against = [str(folder.absolute()) for folder in config.against]
    if against and against != recorded:
        raise UserError(
            f"{directory.root} was not clustered --against {', '.join(against)}: cluster it so, or choose another --out"
        )
    if not recorded:
        return config, None
    config, ground = _grounded(config.model_copy(update={"against": tuple(map(as_path, recorded))}))
    if _asked(config, "cluster").get("against_state") != _state(directory)["asked"]["cluster"].get("against_state"):
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
        own = _encoders(config, directory)[1]
        asked: dict[str, Any] = {"input": config.exclude_near, "out": theirs.root, "against": ()}
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
    encoders = [increments.encoder_identity(_encoders(config, d)[2]) for d in (theirs, directory)]
    if None not in encoders and encoders[0] != encoders[1]:
        raise UserError(
            f"--exclude-near {config.exclude_near!r} was embedded by {encoders[0]} and this run by {encoders[1]}: both "
            "must come from one model"
        )
    width, own_width = _dimension(theirs), _dimension(directory)
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


def _prototypes_key(config: RunConfig, ground: Ground | None) -> str | None:
    """Return the hash of the prototypes' file."""
    if ground is not None:
        return (ground.known["prototypes"] or {}).get("file")
    file = config.prototypes or default_prototypes()
    return sha256_of(file)


def _encoders(config: RunConfig, directory: RunDirectory) -> tuple[str, EncoderSpec | None, EncoderSpec | None]:
    """Return the kind of the input, what embedded its images, and that or what made its embeddings, if it is known."""
    state = _state(directory)
    own = EncoderSpec(**state["encoder"]) if state.get("encoder") else None
    return state["input"]["kind"], own, own or _named_spec(config, state)


def _named_spec(config: RunConfig, state: dict[str, Any]) -> EncoderSpec | None:
    """Return the model that is named, now or when the embeddings were taken in."""
    model, pretrained = _named_model(config, state)
    return None if model is None else _spec(config, model, pretrained, "cpu")


def _dimension(directory: RunDirectory) -> int | None:
    """Return the length of the vectors, if there are any."""
    for record in directory.records():
        if record.valid:
            return int(read_array(directory.vectors(record.number)).shape[1])
    return None


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
        if config.rule == "random":
            raise UserError("rule 'random' has no eps: give --keep or --at-most in place of --eps")


def _options(config: RunConfig) -> Options:
    return Options(
        config.rule, config.cover, config.seed, config.start, config.calibrate, config.target, config.temperature,
        config.reserve, config.always_keep is not None,
    )  # fmt: skip


def _wishes(config: RunConfig) -> Wishes:
    return Wishes(config.where, config.drop, config.always_keep, config.prefer, bool(config.against))


def _asked(config: RunConfig, stage: str) -> dict[str, Any]:
    known = config.model_dump(mode="json")
    asked = {name: known[name] for name in STAGE_KEYS[stage]}
    for name in FILES if stage == "prune" else ():
        file = getattr(config, name)
        if file is not None and file.is_file():
            asked[f"{name}_sha256"] = sha256_of(file)
    if asked.get("exclude_near"):
        own = RunDirectory(as_path(config.exclude_near or "")).input
        asked["exclude_near_fingerprint"] = sha256_of(own) or _fingerprint(
            open_input(config.exclude_near or "", id_from=config.id)
        )
    if asked.get("against"):
        asked["against"] = [str(folder.absolute()) for folder in config.against]
        asked["against_state"] = increments.seals_of(config)
    return asked


def _state(directory: RunDirectory) -> dict[str, Any]:
    return read_json(directory.config) or {"asked": {}, "done": {}}


def _begin(directory: RunDirectory, stage: str, asked: dict[str, Any]) -> None:
    """Record what a stage is asked to do; the run is not finished from here on."""
    directory.manifest.unlink(missing_ok=True)
    directory.drop_audit()
    StateDirectory(directory.root).file.unlink(missing_ok=True)
    clear(directory.replaced)
    if not isinstance(directory.root, RemotePath):  # where nothing is written aside
        for stale in directory.root.glob("**/.*.tmp"):  # what a killed worker was writing
            stale.unlink(missing_ok=True)
    state = _state(directory)
    state["asked"][stage] = asked
    state["done"].pop(stage, None)  # what a finished clustering was made of is kept and compared
    write_json(directory.config, state)


def _finish(directory: RunDirectory, stage: str, value: Any, progress: StageProgress, **more: Any) -> None:
    state = _state(directory)
    state["done"][stage] = value
    write_json(directory.config, {**state, **more, "stages": _stages(state, progress)})


def _stages(state: dict[str, Any], progress: StageProgress) -> dict[str, dict[str, float]]:
    """Return rows and seconds of each stage: what earlier commands took, and over it what this one did."""
    own = {
        name: {"rows": progress.rows.get(name, 0), "seconds": round(seconds, 3)}
        for name, seconds in progress.seconds.items()
    }
    return {**state.get("stages", {}), **own}


def _embedded(records: list[ShardRecord]) -> str:
    """Return what clusters depend on, as a hash."""
    return hashlib.sha256("\n".join(r.fingerprint for r in records).encode()).hexdigest()


def _check_clustered(directory: RunDirectory, workers: Workers | None) -> None:
    """Refuse clusters of other embeddings than those that are there now, and damaged ones where there are workers."""
    root, records = directory.root, directory.records()
    if _state(directory)["done"].get("cluster") != _embedded(records):
        raise UserError(f"{root} holds no finished clustering: run `fairdedup cluster {root}` first")
    if workers is not None:
        parts = groups(records)
        workers.submit("verify", check_sorted, [(root, g.number) for g in parts], [g.input for g in parts])


def _check_input(directory: RunDirectory, dataset: Dataset) -> None:
    """Refuse an input that is another than the one that the run was begun with."""
    changes = directory.changes(dataset.fingerprints)
    if changes:
        more = f" and {len(changes) - 1:,} more" if len(changes) > 1 else ""
        raise UserError(
            f"{directory.root} was begun with another input ({changes[0]}{more}): choose another --out, or --restart"
        )


def _check_directory(directory: RunDirectory, asked: dict[str, dict[str, Any]]) -> None:
    """Refuse a folder that is no run, and a run that was begun with another configuration."""
    root = directory.root
    for folder in () if isinstance(root, RemotePath) else (root, *root.parents):
        if folder.exists() and not folder.is_dir():
            raise UserError(f"--out {str(folder)!r} is a file: choose a folder")
    known = read_json(directory.config)
    if known is None:
        # A run that was killed early may have left its sample, or a file that was being written.
        there = sorted(p.name for p in root.iterdir()) if isinstance(root, RemotePath) or root.is_dir() else []
        foreign = [name for name in there if name != "sample" and not (name[0] == "." and name.endswith(".tmp"))]
        if foreign:
            raise UserError(f"--out {str(root)!r} holds other files ({foreign[0]!r}): choose a new or empty folder")
        return
    differing = sorted({
        name for stage, options in known["asked"].items() for name, value in options.items()
        if asked[stage].get(name) != value
    })  # fmt: skip
    if differing:
        changes = ", ".join(
            f"{name} was {known['asked'][s][name]!r}, is {asked[s].get(name)!r}"
            for name in differing
            for s in [next(s for s, options in known["asked"].items() if name in options)]
        )
        raise UserError(
            f"{root} was begun with another configuration ({changes}): choose another --out, --restart, or decide "
            f"again without re-embedding by `fairdedup prune {root}`"
        )


def _open(config: RunConfig, directory: RunDirectory, progress: StageProgress) -> Dataset:
    if config.input is not None:
        if as_path(config.input).absolute().is_relative_to(directory.root):
            raise UserError(f"INPUT {config.input!r} lies in the run directory {directory.root}: choose another --out")
        return open_input(config.input, id_from=config.id, column=config.column, may_be_empty=bool(config.against))
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
    known = _state(directory)["asked"].get("embed")
    _check_directory(directory, {**{s: _state(directory)["asked"].get(s, {}) for s in STAGE_KEYS},
                                 "embed": _asked(config, "embed") if known else {}})  # fmt: skip
    dataset = _open(config, directory, progress)
    if ground is not None:
        increments.check_encoder(dataset.kind, named, _named_spec(config, {}), ground)
    return config, dataset


def _fingerprint(dataset: Dataset) -> str:
    return hashlib.sha256("\n".join(dataset.fingerprints.values()).encode()).hexdigest()


def _image_encoder(config: RunConfig, directory: RunDirectory, workers: Workers) -> EncoderSpec:
    """Return the encoder of images: the one that is named, else the built-in one."""
    device = config.device
    if device == "auto":
        # Settled before the first shard, and kept: a run begun on a GPU goes on on one.
        known = _state(directory).get("device")
        device = known or workers.submit("device", usable_device, [()])[0]
        state = _state(directory)
        directory.root.mkdir(parents=True, exist_ok=True)
        write_json(directory.config, {**state, "device": device})
    if config.model is None:
        if config.pretrained is not None:
            raise UserError(f"--pretrained {config.pretrained!r} without --model: name the model that it belongs to")
        if config.input is not None:
            workers.progress.say(
                "no --model: the built-in encoder was trained on drawn pictures, to try things out; for real data name "
                "one, as --model ViT-B-16 --pretrained openai"
            )
        return builtin_spec(config.batch_size, device, config.dtype, config.threads)
    check_model(config.model, config.pretrained)
    return _spec(config, config.model, config.pretrained, device)


def _spec(config: RunConfig, model: str, pretrained: str | None, device: str) -> EncoderSpec:
    """Return a named encoder; files by absolute paths, since a worker may have another current folder."""
    if model.startswith("local-dir:"):
        model = f"local-dir:{Path(model.removeprefix('local-dir:')).absolute()}"
    if pretrained is not None and Path(pretrained).is_file():
        pretrained = str(Path(pretrained).absolute())
    return EncoderSpec(model, pretrained, config.batch_size, device, config.dtype, config.threads)


def usable_device() -> str:
    """Return "cuda" where torch sees a GPU, else "cpu": what a worker is asked for --device auto."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _named_model(config: RunConfig, state: dict[str, Any]) -> tuple[str | None, str | None]:
    """Return the model that is named now, or was named when the embeddings were taken in."""
    if config.model is not None:
        return config.model, config.pretrained
    named = state.get("named_model")
    return (named["model"], named["pretrained"]) if named else (None, None)


def _check_prototypes(config: RunConfig, kind: str, state: dict[str, Any]) -> None:
    """Refuse early what would fail late: prototypes that cannot be had, an unknown model, a bad file."""
    if config.model is not None:
        check_model(config.model, config.pretrained)
    elif config.pretrained is not None:
        raise UserError(f"--pretrained {config.pretrained!r} without --model: name the model that it belongs to")
    file = config.prototypes or default_prototypes()
    if config.prototypes is not None and not file.is_file():
        raise UserError(f"--prototypes {str(file)!r}: no such file; give a .yaml, .parquet, .npz or .npy file")
    if config.against:
        return  # they come from the earlier runs
    if config.rule in NEEDS_PROTOTYPES and kind == "embeddings" and _named_model(config, state)[0] is None:
        if config.prototypes is None:
            raise UserError(
                f"rule {config.rule!r} needs prototypes and these embeddings name no model: name the one that made "
                "them (--model ViT-B-16 --pretrained openai), bring prototype vectors (--prototypes FILE), or use a "
                "rule that needs none (--rule semdedup)"
            )
        if needs_text_tower(file):
            raise UserError(
                f"--prototypes {str(file)!r} holds captions and these embeddings name no model: add the one that made "
                "them (--model ViT-B-16 --pretrained openai)"
            )
    if needs_text_tower(file):
        read_captions(file)
    else:
        check_vectors(file)


def _prototypes(config: RunConfig, directory: RunDirectory, workers: Workers) -> Prototypes | None:
    """Return the prototypes, from the run's own text tower where the file holds captions; these are kept."""
    state = _state(directory)
    if "input" not in state:
        directory.records()  # says which stage is missing
    _check_prototypes(config, state["input"]["kind"], state)
    file = config.prototypes or default_prototypes()
    if not needs_text_tower(file):
        return _fitting(read_vectors(file, directory), directory, file)
    spec = _text_encoder(config, state)
    if spec is None:
        return None
    key = hashlib.sha256(file.read_bytes() + json.dumps(spec.identity(), sort_keys=True).encode()).hexdigest()
    store = directory.root / "prototypes.parquet"
    known = state.get("prototypes")
    if known and known["made of"] == key and is_sealed(store, known["seal"]):
        return _fitting(read_vectors(store, directory), directory, file)
    embedded = workers.submit("prototypes", embed_captions, [(read_captions(file), spec)])[0]
    write_vectors(store, embedded)
    write_json(directory.config, {**_state(directory), "prototypes": {"made of": key, "seal": seal(store)}})
    return _fitting(Prototypes.of(embedded), directory, file)


def _text_encoder(config: RunConfig, state: dict[str, Any]) -> EncoderSpec | None:
    """Return the encoder whose text tower embeds captions: the images' own, or the one that is named."""
    if state.get("encoder"):
        own = EncoderSpec(**state["encoder"])
        if config.model is not None and _spec(config, config.model, None, own.device).model != own.model:
            raise UserError(f"--model {config.model!r}: this run's images were embedded by {own.model!r}; leave it out")
        return own
    model, pretrained = _named_model(config, state)
    if model is None:
        return None  # ready embeddings of an unknown model: a rule that needs none
    device = "cpu" if config.device == "auto" else config.device
    return _spec(config, model, pretrained, device)


def _fitting(prototypes: Prototypes, directory: RunDirectory, file: Path) -> Prototypes:
    dimension = _dimension(directory)
    if prototypes.dimension != dimension:
        raise UserError(
            f"prototypes {str(file)!r} have {prototypes.dimension} dimensions and the embeddings {dimension}: "
            "both must come from one model"
        )
    return prototypes


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


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
