"""Chooses the prototypes of a decision: those that are named, those of the run, or those that ship with fairdedup.

The text tower of the run's own encoder embeds captions, once; prototypes.parquet keeps the vectors.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from fairdedup.config import RunConfig
from fairdedup.core.prototypes import Prototypes
from fairdedup.core.rules.registry import find_rule
from fairdedup.encoders import EncoderSpec
from fairdedup.errors import UserError, format_count
from fairdedup.incremental.earlier_runs import EarlierRuns, identify_encoder
from fairdedup.preparation.encoder_choice import (
    check_encoder,
    check_named_model,
    find_named_encoder,
    find_recorded_encoder,
    require_encoder_memory,
)
from fairdedup.prototype_files import (
    check_vectors,
    default_prototypes,
    needs_text_tower,
    read_own_vectors,
    read_prototypes,
    read_vectors,
    write_vectors,
)
from fairdedup.stages.caption_embedding import embed_captions, read_captions
from fairdedup.storage.config_record import (
    ConfigRecord,
    PrototypesRecord,
    StageOptions,
    read_config_record,
    write_config_record,
)
from fairdedup.storage.contents import Embedded
from fairdedup.storage.object_stores import as_path
from fairdedup.storage.plain_files import expect_plain_file
from fairdedup.storage.remedies import decide_again
from fairdedup.storage.run_files import compute_sha256
from fairdedup.storage.run_state import read_run_state, state_file
from fairdedup.storage.sealed_files import Seal
from fairdedup.storage.seals import seal
from fairdedup.storage.shipped_files import PROTOTYPES
from fairdedup.tasks import Task
from fairdedup.workers import Workers


def check_prototypes(config: RunConfig, kind: str, record: ConfigRecord, *, optional: bool = False) -> None:
    """Refuse prototypes early that would fail late: missing ones, an unknown model, a damaged file.

    Parameters
    ----------
    config : RunConfig
        Options of the command.
    kind : str
        Kind of the input: "images" or "embeddings".
    record : ConfigRecord
        Content of config.json.
    optional : bool
        Whether the caller needs no prototypes, even if the rule does.

    Raises
    ------
    UserError
        If prototypes are needed and missing, or cannot be read. The message names the option.
    """
    check_named_model(config)
    file = config.prototypes or default_prototypes()
    expect_plain_file(file, f"--prototypes {str(file)!r}")
    if config.prototypes is not None and not file.is_file():
        raise UserError(
            f"--prototypes {str(file)!r}: no such file; give {' or '.join(PROTOTYPES)}, which are shipped, or a .yaml, "
            ".parquet, .npz or .npy file"
        )
    if config.against:
        return  # prototypes come from the earlier runs
    needed = not optional and find_rule(config.rule).needs_prototypes
    if needed and kind == "embeddings" and find_named_encoder(config, record) is None:
        if config.prototypes is None:
            raise UserError(
                f"--rule {config.rule} needs prototypes, and the model of these embeddings is not known: name it "
                "(--model ViT-B-16 --pretrained openai), give prototype vectors (--prototypes FILE), or use a rule "
                "that needs none (--rule semdedup)"
            )
        if needs_text_tower(file):
            raise UserError(
                f"--prototypes {str(file)!r} has captions, and the model of these embeddings is not known: name it "
                "(--model ViT-B-16 --pretrained openai)"
            )
    if needs_text_tower(file):
        read_captions(file)
    else:
        check_vectors(file)


def check_text_encoder(config: RunConfig, kind: str, workers: Workers) -> None:
    """Let a worker load the model that is named for ready embeddings, if it is going to embed captions.

    Parameters
    ----------
    config : RunConfig
        Options of the command.
    kind : str
        Kind of the input: "images" or "embeddings".
    workers : Workers
        Load the model.

    Raises
    ------
    FairdedupError
        As `check_encoder` does.
    """
    embeds_captions = needs_text_tower(config.prototypes or default_prototypes()) and not config.against
    if kind == "embeddings" and config.model is not None and embeds_captions:
        check_encoder(config, workers)


def choose_prototypes(
    config: RunConfig, embedded: Embedded, workers: Workers, *, optional: bool = False
) -> Prototypes | None:
    """Return the prototypes of a decision; captions are embedded by the text tower of the run's encoder.

    Parameters
    ----------
    config : RunConfig
        Options of the command.
    embedded : Embedded
        Embeddings of the run.
    workers : Workers
        Run the task that embeds captions.
    optional : bool
        Whether the caller needs no prototypes, even if the rule does.

    Returns
    -------
    Prototypes or None
        None if no encoder can embed the captions, and the rule needs no prototypes or they are `optional`.

    Raises
    ------
    UserError
        If prototypes are needed and missing, or do not fit the embeddings.
    """
    directory = embedded.directory
    record = read_config_record(directory)
    assert record.input is not None
    check_prototypes(config, record.input.kind, record, optional=optional)
    file = config.prototypes or default_prototypes()
    if not needs_text_tower(file):
        return _check_fit(read_vectors(file, embedded), embedded, file)
    spec = choose_text_encoder(config, record)
    if spec is None:
        return None
    key = hashlib.sha256(file.read_bytes() + json.dumps(spec.identity(), sort_keys=True).encode()).hexdigest()
    store = directory.root / "prototypes.parquet"
    known = record.prototypes
    own = Seal(store, None if known is None else known.seal, decide_again(directory.root))
    if known is not None and known.made_of == key and own.holds():
        return _check_fit(read_own_vectors(own), embedded, file)
    require_encoder_memory(workers, spec.model, spec.pretrained, spec.batch_size)
    vectors = workers.submit("prototypes", embed_captions, [Task((read_captions(file), spec), isolated=True)])[0]
    write_vectors(store, vectors)
    made = PrototypesRecord(made_of=key, seal=seal(store))
    write_config_record(directory, read_config_record(directory).model_copy(update={"prototypes": made}))
    return _check_fit(Prototypes.of(vectors), embedded, file)


def choose_text_encoder(config: RunConfig, record: ConfigRecord) -> EncoderSpec | None:
    """Return the encoder that embeds captions: that of the images, or else the named one; None if there is none.

    Parameters
    ----------
    config : RunConfig
        Options of the command.
    record : ConfigRecord
        Content of config.json.

    Raises
    ------
    UserError
        If another model is named than the one that embedded the images.
    """
    own = find_recorded_encoder(record)
    if own is None:
        return find_named_encoder(config, record, "cpu" if config.device == "auto" else config.device)
    if config.model is not None:
        named = find_named_encoder(config, record, own.device)
        assert named is not None
        if identify_encoder(named) != identify_encoder(own):
            raise UserError(
                f"{_as_flags(named)}: this run's images were embedded by {_as_flags(own)}; leave --model out"
            )
    return own


def _as_flags(spec: EncoderSpec) -> str:
    return f"--model {spec.model!r}" + (f" --pretrained {spec.pretrained!r}" if spec.pretrained else "")


def _check_fit(prototypes: Prototypes, embedded: Embedded, file: Path) -> Prototypes:
    if prototypes.dimension != embedded.dimension:
        raise UserError(
            f"prototypes {str(file)!r} have {format_count(prototypes.dimension, 'dimension')} and the embeddings "
            f"{embedded.dimension}: both must come from one model"
        )
    return prototypes


def find_run_prototypes(config: RunConfig, embedded: Embedded, options: StageOptions, workers: Workers) -> Prototypes:
    """Return the prototypes that are named, or else those that a run was decided with.

    Parameters
    ----------
    config : RunConfig
        Options of the command.
    embedded : Embedded
        Embeddings of the run.
    options : StageOptions
        Options that the run was pruned with; empty if it never was.
    workers : Workers
        Run the task that embeds captions.

    Raises
    ------
    UserError
        If there are no prototypes, or they do not fit the embeddings.
    """
    prototypes = find_known_prototypes(config, embedded, options, workers)
    if prototypes is None:
        raise UserError(
            f"{embedded.directory.root} has ready-made embeddings whose model is not known: give --labels FILE, "
            "prototype vectors (--prototypes FILE), or the model (--model ViT-B-16 --pretrained openai)"
        )
    return prototypes


def find_known_prototypes(
    config: RunConfig, embedded: Embedded, options: StageOptions, workers: Workers
) -> Prototypes | None:
    """Return the prototypes of `find_run_prototypes`; None if no vectors are known and no encoder can embed captions.

    Parameters
    ----------
    config, embedded, options, workers
        As for `find_run_prototypes`.

    Raises
    ------
    UserError
        If prototypes cannot be read, or do not fit the embeddings.
    """
    root = embedded.directory.root
    if (config.prototypes, config.model, config.pretrained) == (None, None, None):
        state = read_run_state(root)
        if state is not None and state.prototypes is not None:
            return read_prototypes(state_file(root, state, "prototypes.parquet"))
    recorded: Any = options.get("prototypes")
    file = config.prototypes or (as_path(recorded) if recorded else None)
    return choose_prototypes(config.model_copy(update={"prototypes": file}), embedded, workers, optional=True)


def hash_prototypes(config: RunConfig, earlier: EarlierRuns | None) -> str | None:
    """Return the SHA-256 of the prototypes file of a decision, None if there is none.

    Parameters
    ----------
    config : RunConfig
        Options of the command.
    earlier : EarlierRuns or None
        Runs of ``--against``, whose prototypes are used.
    """
    if earlier is not None:
        return None if earlier.state.prototypes is None else earlier.state.prototypes.file
    return compute_sha256(config.prototypes or default_prototypes())
