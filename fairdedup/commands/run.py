"""`fairdedup run`: images or embeddings in, kept IDs out. The whole run, from top to bottom, on one page.

embed ──▶ cluster ──▶ prune ──▶ write, with run.json last. Each stage can be run alone, by the command of its name.
"""

from __future__ import annotations

from dataclasses import replace

from fairdedup.commands.cluster import cluster
from fairdedup.commands.embed import embed
from fairdedup.commands.evaluation import read_evaluation
from fairdedup.commands.finish import DecidedRun, finish_run
from fairdedup.commands.replace import complete_stopped_replacement
from fairdedup.config import RunConfig
from fairdedup.core.keep_fraction import parse_eps
from fairdedup.datasets.ids import read_ids
from fairdedup.incremental.lineage import link_earlier_runs
from fairdedup.preparation.encoder_choice import check_encoder
from fairdedup.preparation.kept_columns import choose_kept_columns
from fairdedup.preparation.prototype_choice import check_prototypes, check_text_encoder, choose_prototypes
from fairdedup.preparation.recorded_runs import record_earlier_runs
from fairdedup.preparation.request import Request, read_request
from fairdedup.preparation.rule_choice import explain_rule, settle_rule
from fairdedup.preparation.run_checks import (
    build_curation_options,
    build_options,
    check_columns,
    check_decision_options,
    check_directory,
    check_input,
    check_table_columns,
)
from fairdedup.preparation.run_input import open_run_input
from fairdedup.preparation.stage_records import clear_run, start_stage
from fairdedup.stages.curation import mark_rows
from fairdedup.stages.pruning import prune
from fairdedup.stages.replacement import list_removed
from fairdedup.stages.results import write_results
from fairdedup.stages.sample_shares import check_sample_labels
from fairdedup.storage.config_record import EMPTY_RECORD, read_config_record
from fairdedup.storage.contents import Clustered
from fairdedup.storage.manifest import RunManifest, read_manifest
from fairdedup.storage.seals import is_sealed
from fairdedup.workers import Workers


def run(config: RunConfig, workers: Workers, *, restart: bool = False) -> RunManifest:
    """Run every step that is not finished yet, and return the manifest.

    Parameters
    ----------
    config : RunConfig
        Options of the run.
    workers : Workers
        Run the tasks of the stages.
    restart : bool
        Clear the run directory first.

    Raises
    ------
    UserError
        If the options do not fit the input, or differ from those that the run directory was made with.
    """
    request = read_request(config)
    directory = request.directory
    _ = request.options  # hashes the files that options name, before any is cleared
    check_decision_options(request.config)
    if restart and directory.config.is_file():  # a folder that is not a run is never cleared, and is refused below
        _clear(request, workers)
    record = read_config_record(directory) if directory.config.is_file() else EMPTY_RECORD
    request = settle_rule(request, None if record.input is None else record.input.kind, record)
    check_directory(directory, request.options)
    dataset = open_run_input(request.config, directory, workers)
    request = settle_rule(request, dataset.kind, record)
    check_prototypes(request.config, dataset.kind, record)
    request.check_encoder(dataset.kind)
    check_input(directory, dataset)
    if not record.options_of("embed"):
        check_text_encoder(request.config, dataset.kind, workers)
    check_table_columns(request.config, dataset)
    explain_rule(request, workers.progress.say)
    complete_stopped_replacement(directory, workers)
    finished = _find_finished_run(request, workers)
    if finished is not None:
        return finished
    embedded = embed(request, dataset, workers)
    check_columns(request.config, embedded)  # before the clustering, which takes a while
    clustered = cluster(request, embedded, workers)
    return decide(request, clustered, workers)


def decide(request: Request, clustered: Clustered, workers: Workers) -> RunManifest:
    """Decide which samples of a clustered run are kept, write the results, and return the manifest.

    Parameters
    ----------
    request : Request
        Options of the command, and the earlier runs.
    clustered : Clustered
        Clusters of the run.
    workers : Workers
        Run the tasks of the decision.

    Raises
    ------
    UserError
        If options do not fit each other or the data, or a file that an option names cannot be read.
    """
    config, earlier, embedded = request.config, request.earlier, clustered.embedded
    options, columns = build_options(config), choose_kept_columns(embedded, config.collect)
    list_removed(request.directory)  # what is damaged is noticed while the old results are still there
    check_sample_labels(request.directory)
    prototypes = choose_prototypes(config, embedded, workers) if earlier is None else earlier.read_prototypes()
    curation = replace(build_curation_options(config), evaluation=read_evaluation(request, embedded, workers))
    with mark_rows(embedded, curation, workers.submit) as marks:
        lineage = link_earlier_runs(request.directory, earlier)
        record_earlier_runs(request.directory, earlier, config.against, lineage.runs)
        pruned = prune(
            clustered,
            marks,
            options,
            prototypes,
            workers.submit,
            keep=config.keep,
            at_most=config.at_most,
            eps=None if config.eps is None else parse_eps(config.eps),
            inherited=lineage.inherited,
        )
        start_stage(
            request.directory, "prune", request.options_of("prune")
        )  # not earlier: a mistake before here keeps the old results
        readmitted, against = pruned.decision.readmitted, earlier is not None
        written = write_results(embedded, pruned.tasks, readmitted, marks, columns, workers.submit, against=against)
    decided = DecidedRun(clustered, marks, options, prototypes, lineage, pruned, columns)
    return finish_run(request, decided, written, workers)


def _clear(request: Request, workers: Workers) -> None:
    """Clear the run directory for ``--restart``, unless an option or the input would stop the new run early."""
    config = request.config
    kind = "images"
    if config.input is not None:
        kind = open_run_input(config, request.directory, workers, anew=True).kind
    config = settle_rule(request, kind, EMPTY_RECORD).config
    check_prototypes(config, kind, EMPTY_RECORD)
    request.check_encoder(kind)
    if kind == "images":
        check_encoder(config, workers)
    check_text_encoder(config, kind, workers)
    for option, file in (("--drop", config.drop), ("--always-keep", config.always_keep)):
        if file is not None:
            read_ids(file, option)
    clear_run(request.directory)


def _find_finished_run(request: Request, workers: Workers) -> RunManifest | None:
    """Return the manifest of a finished run whose files are undamaged; None if the run must be done."""
    manifest, root, say = read_manifest(request.directory), request.directory.root, workers.progress.say
    if manifest is None:
        return None
    files = manifest.files or {request.directory.manifest.name: ""}
    damaged = next((name for name, sealed in files.items() if not is_sealed(root / name, sealed)), None)
    if damaged is None:
        say(f"{request.config.out} is finished already: nothing to do (--restart clears it)")
        return manifest
    say(f"{root / damaged} is missing or damaged: it will be written again")
    return None
