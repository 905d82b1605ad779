"""`fairdedup embed`: the first stage alone. It embeds images, or reads ready-made embeddings."""

from __future__ import annotations

from dataclasses import asdict

from fairdedup.config import STAGE_KEYS, RunConfig
from fairdedup.datasets import Dataset
from fairdedup.encoders import REDUCED, EncoderSpec
from fairdedup.errors import LastingError, UserError, format_count
from fairdedup.preparation.encoder_choice import choose_decoders, choose_image_encoder
from fairdedup.preparation.provenance import fingerprint_dataset
from fairdedup.preparation.request import Request, read_request
from fairdedup.preparation.run_checks import check_directory, check_input, check_scanned_columns
from fairdedup.preparation.run_input import open_run_input
from fairdedup.preparation.stage_records import finish_stage, forget_start, start_stage
from fairdedup.stages.embedding import EmbeddingPlan, embed_input, find_finished_shards, fingerprint_shards
from fairdedup.stages.embedding.embedding_findings import add_unused, describe_damage, list_warnings
from fairdedup.stages.exact_copies import share_copies
from fairdedup.stages.image_scan import read_scan, scan_images
from fairdedup.stages.scanned_columns import list_columns
from fairdedup.storage.config_record import (
    EncoderRecord,
    InputRecord,
    NamedModel,
    read_config_record,
    read_input_fingerprints,
    write_input_fingerprints,
)
from fairdedup.storage.contents import Embedded
from fairdedup.storage.seals import seal
from fairdedup.workers import Workers


def embed_run(config: RunConfig, workers: Workers) -> Embedded:
    """Embed the input into a run directory, and return the embeddings.

    Parameters
    ----------
    config : RunConfig
        Names the input and the run directory, and the options of the embedding.
    workers : Workers
        Run the tasks of the stages.

    Raises
    ------
    UserError
        If the run directory has another input, or was embedded with other options.
    """
    request = read_request(config)
    record = read_config_record(request.directory)
    options = {stage: record.options_of(stage) for stage in STAGE_KEYS}
    if options["embed"]:
        options["embed"] = request.options_of("embed")
    check_directory(request.directory, options)
    dataset = open_run_input(request.config, request.directory, workers)
    request.check_encoder(dataset.kind)
    return embed(request, dataset, workers)


def embed(request: Request, dataset: Dataset, workers: Workers) -> Embedded:
    """Write embeddings/, float16 vectors and metadata of every shard of the input, and return the embeddings.

    Undamaged shards of an earlier try are used again.

    Parameters
    ----------
    request : Request
        Options of the command, and the earlier runs.
    dataset : Dataset
        Input of the run.
    workers : Workers
        Run the tasks of the stages.

    Raises
    ------
    UserError
        If the model is unknown, or too many samples are rejected.
    """
    config, directory = request.config, request.directory
    encoder = choose_image_encoder(config, directory, workers) if dataset.kind == "images" else None
    check_input(directory, dataset)
    start_stage(directory, "embed", request.options_of("embed"))
    if read_input_fingerprints(directory) is None:
        write_input_fingerprints(directory, dataset.fingerprints)
    for warning in list_warnings(dataset.unused, (), dataset.remarks):
        workers.progress.say(f"{dataset.source}: {warning}")
    prints = fingerprint_shards(dataset, encoder)
    finished = find_finished_shards(directory, prints, workers.submit)
    try:
        plan = EmbeddingPlan(encoder, prints, finished)
        if encoder and len(finished) < len(prints):
            plan = _plan_images(request, dataset, plan, encoder, workers)
        embedded = embed_input(
            dataset,
            directory,
            plan,
            workers.submit,
            max_rejected=config.max_rejected,
            may_be_empty=bool(config.against),
        )
    except (UserError, LastingError, KeyboardInterrupt) as error:
        for mark in directory.list_attempts():  # their workers end with this command, not because of an image
            mark.unlink(missing_ok=True)
        if not isinstance(error, KeyboardInterrupt):
            forget_start(directory)
        raise
    sample = read_config_record(directory).sample
    if dataset.format == "sample" and sample is None:
        sample = seal(directory.root / "sample" / "labels.parquet")
    workers.progress.rows["embed"] = embedded.input  # the number of samples in a tar is known only now
    finish_stage(
        directory,
        "embed",
        len(embedded.records),
        workers.progress,
        input=InputRecord(
            source=dataset.source,
            format=dataset.format,
            kind=dataset.kind,
            fingerprint=fingerprint_dataset(dataset),
            column=dataset.column,
            unused=add_unused(embedded.records, dataset.unused),
            damaged=describe_damage(embedded.records),
            remarks=list(dataset.remarks),
            white=_find_white(request, dataset, prints, workers) if encoder else None,
            reduced=REDUCED if encoder else None,
        ),
        encoder=EncoderRecord(**asdict(encoder)) if encoder else None,
        sample=sample,
        named_model=NamedModel(model=config.model, pretrained=config.pretrained) if config.model else None,
    )
    return embedded


def _find_white(request: Request, dataset: Dataset, prints: list[str], workers: Workers) -> int | None:
    """Return the value that is white in 16-bit pictures; what the first pass has left may be damaged."""
    scan = read_scan(request.directory, len(prints))
    if scan is None:
        scan = scan_images(
            dataset, request.directory, workers.submit, prints, (request.config.id, request.config.column)
        )
    return scan.white


def _plan_images(
    request: Request, dataset: Dataset, plan: EmbeddingPlan, encoder: EncoderSpec, workers: Workers
) -> EmbeddingPlan:
    """Read all images once, and plan the embedding by what that has found: 16-bit pictures, and exact copies."""
    directory, read_by = request.directory, (request.config.id, request.config.column)
    scan = scan_images(dataset, directory, workers.submit, plan.fingerprints, read_by)
    columns = list_columns(directory, len(dataset.shards))
    if columns is not None:
        check_scanned_columns(request.config, columns)
    prints, finished = scan.extend_fingerprints(plan.fingerprints), plan.finished
    if prints != plan.fingerprints:
        finished = find_finished_shards(directory, prints, workers.submit)
    white = plan.white if scan.white is None else scan.white
    todo = [k for k in range(len(prints)) if k not in finished]
    copies, saved = share_copies(
        dataset, directory, encoder, workers.submit, fingerprints=prints, todo=todo, white=white
    )
    if saved and todo:
        workers.progress.say(
            format_count(saved, "exact copy; it is embedded once.", "exact copies; each is embedded once.")
        )
    decoders = choose_decoders(request.config, encoder.device, workers)
    return EmbeddingPlan(encoder, prints, finished, copies, white, scan.counts, decoders)
