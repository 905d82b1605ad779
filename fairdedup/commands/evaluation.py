"""``--exclude-near``: reads the evaluation samples, so that no row is kept that is too similar to one of them.

The embeddings of a run directory are read. Any other input is embedded into RUN/evaluation, by the encoder of the run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from fairdedup.commands.embed import embed
from fairdedup.datasets import open_input
from fairdedup.errors import UserError, format_count
from fairdedup.incremental.earlier_runs import describe_encoder, identify_encoder
from fairdedup.preparation.encoder_choice import find_encoder, find_recorded_encoder
from fairdedup.preparation.request import Request
from fairdedup.preparation.run_checks import find_exclusion_eps
from fairdedup.progress import StageProgress
from fairdedup.stages.curation import Evaluation
from fairdedup.storage.config_record import NamedModel, read_config_record, read_input_fingerprints
from fairdedup.storage.contents import Embedded, load_embedded
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.object_stores import as_path
from fairdedup.storage.run_files import remove_folder
from fairdedup.workers import Workers


def read_evaluation(request: Request, embedded: Embedded, workers: Workers) -> Evaluation | None:
    """Return the evaluation samples of ``--exclude-near``, None without that option.

    Parameters
    ----------
    request : Request
        Options of the command, and the earlier runs.
    embedded : Embedded
        Embeddings of the run.
    workers : Workers
        Run the tasks of the stages.

    Raises
    ------
    UserError
        If they cannot be embedded, or are from another model than the run's embeddings.
    """
    source = request.config.exclude_near
    if source is None:
        return None
    eps = find_exclusion_eps(request.config, None if request.earlier is None else request.earlier.eps)
    directory = RunDirectory(as_path(source).absolute())
    is_run = directory.input.is_file()
    samples = load_embedded(directory) if is_run else _embed_samples(request, source, workers)
    # A run of its own says by which model it was embedded; --model is that of this run.
    named = request.config.model_copy(update={"model": None, "pretrained": None}) if is_run else request.config
    theirs = identify_encoder(find_encoder(named, read_config_record(samples.directory)))
    ours = identify_encoder(find_encoder(request.config, read_config_record(embedded.directory)))
    _check_same_model(source, samples, embedded, theirs, ours)
    return Evaluation(samples, source, eps)


def _embed_samples(request: Request, source: str, workers: Workers) -> Embedded:
    directory = RunDirectory(request.directory.root / "evaluation")
    encoder = find_recorded_encoder(read_config_record(request.directory))
    dataset = open_input(source, id_from=request.config.id, skip_damaged=request.config.skip_damaged)
    if dataset.kind == "images" and encoder is None:
        raise UserError(
            f"--exclude-near {source!r} holds images, but this run has ready-made embeddings: give embeddings of the "
            "same model"
        )
    known = read_input_fingerprints(directory)
    if known is not None and known != dataset.fingerprints:
        remove_folder(directory.root)
    # Samples that cannot be used exclude nothing. They are reported, and are not rejected rows of the run.
    update: dict[str, Any] = {"input": source, "out": directory.root, "against": (), "max_rejected": 1.0}
    if encoder is not None:
        update |= asdict(encoder)
    own = Request(request.config.model_copy(update=update), directory)
    with _without_embed_times(workers.progress):
        return embed(own, dataset, workers)


@contextmanager
def _without_embed_times(progress: StageProgress) -> Iterator[None]:
    """Count the embed stage of the block as "embed evaluation", since it embeds samples that are not the run's."""
    rows, seconds = progress.rows.get("embed", 0), progress.seconds.get("embed", 0.0)
    yield
    progress.seconds["embed evaluation"] = progress.seconds.pop("embed", 0.0) - seconds
    progress.rows |= {"embed": rows, "embed evaluation": progress.rows.get("embed", 0)}
    if seconds:
        progress.seconds["embed"] = seconds


def _check_same_model(
    source: str, samples: Embedded, embedded: Embedded, theirs: NamedModel | None, ours: NamedModel | None
) -> None:
    if theirs is not None and ours is not None and theirs != ours:
        raise UserError(
            f"--exclude-near {source!r} was embedded by {describe_encoder(theirs)} and this run by "
            f"{describe_encoder(ours)}: both must come from one model"
        )
    width, own_width = samples.dimension, embedded.dimension
    if width is not None and own_width is not None and width != own_width:
        raise UserError(
            f"--exclude-near {source!r} has {format_count(width, 'dimension')} and the embeddings {own_width}: "
            "both must come from one model"
        )
