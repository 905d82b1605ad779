"""Which encoder and which prototypes a run goes by: what is named, what it was begun with, or the built-in ones."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from fairdedup.config import RunConfig
from fairdedup.core.prototypes import Prototypes
from fairdedup.core.rules import NEEDS_PROTOTYPES
from fairdedup.encoders import EncoderSpec, builtin_spec, check_model
from fairdedup.errors import UserError
from fairdedup.increments import Ground, encoder_identity
from fairdedup.prototype_files import (
    check_vectors,
    default_prototypes,
    embed_captions,
    needs_text_tower,
    read_captions,
    read_vectors,
    write_vectors,
)
from fairdedup.stages.record_state import read_prototypes
from fairdedup.storage.config_record import ConfigRecord, PrototypesRecord, read_config_record, write_config_record
from fairdedup.storage.contents import Embedded
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.object_stores import as_path
from fairdedup.storage.run_files import compute_sha256, is_sealed, seal
from fairdedup.storage.run_state import read_run_state
from fairdedup.storage.state_directory import StateDirectory
from fairdedup.tasks import Task
from fairdedup.workers import Workers


def prototypes_of_run(config: RunConfig, embedded: Embedded, decided: dict[str, Any], workers: Workers) -> Prototypes:
    """Return the prototypes that are named, else those that the run was decided by."""
    root = embedded.directory.root
    if (config.prototypes, config.model, config.pretrained) == (None, None, None):
        state = read_run_state(root)
        if state is not None and state.prototypes is not None:
            return read_prototypes(StateDirectory(root).prototypes)
    file = config.prototypes or (as_path(decided["prototypes"]) if decided.get("prototypes") else None)
    config = config.model_copy(update={"prototypes": file, "rule": "semdedup", "prefer": None})
    prototypes = prototypes_for(config, embedded, workers)
    if prototypes is None:
        raise UserError(
            f"{root} has ready embeddings of a model that is not named: give --labels FILE, prototype "
            "vectors (--prototypes FILE), or the model (--model ViT-B-16 --pretrained openai)"
        )
    return prototypes


def prototypes_key(config: RunConfig, ground: Ground | None) -> str | None:
    """Return the hash of the prototypes' file."""
    if ground is not None:
        return None if ground.known.prototypes is None else ground.known.prototypes.file
    file = config.prototypes or default_prototypes()
    return compute_sha256(file)


def encoders_of(config: RunConfig, directory: RunDirectory) -> tuple[str, EncoderSpec | None, EncoderSpec | None]:
    """Return the kind of the input, what embedded its images, and that or what made its embeddings, if it is known."""
    record = read_config_record(directory)
    assert record.input is not None
    own = recorded_spec(record)
    return record.input.kind, own, own or named_spec(config, record)


def recorded_spec(record: ConfigRecord) -> EncoderSpec | None:
    """Return the encoder that embedded the images of a run."""
    return None if record.encoder is None else EncoderSpec(**record.encoder.model_dump())


def named_spec(config: RunConfig, record: ConfigRecord) -> EncoderSpec | None:
    """Return the model that is named, now or when the embeddings were taken in."""
    model, pretrained = _named_model(config, record)
    return None if model is None else _spec(config, model, pretrained, "cpu")


def image_encoder(config: RunConfig, directory: RunDirectory, workers: Workers) -> EncoderSpec:
    """Return the encoder of images: the one that is named, else the built-in one."""
    device: str = config.device
    if device == "auto":
        # Settled before the first shard, and kept: a run begun on a GPU goes on on one.
        record = read_config_record(directory)
        device = record.device or workers.submit("device", usable_device, [Task(())])[0]
        directory.root.mkdir(parents=True, exist_ok=True)
        write_config_record(directory, record.model_copy(update={"device": device}))
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


def _named_model(config: RunConfig, record: ConfigRecord) -> tuple[str | None, str | None]:
    """Return the model that is named now, or was named when the embeddings were taken in."""
    if config.model is not None:
        return config.model, config.pretrained
    named = record.named_model
    return (None, None) if named is None else (named.model, named.pretrained)


def check_prototypes(config: RunConfig, kind: str, record: ConfigRecord) -> None:
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
    if config.rule in NEEDS_PROTOTYPES and kind == "embeddings" and _named_model(config, record)[0] is None:
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


def prototypes_for(config: RunConfig, embedded: Embedded, workers: Workers) -> Prototypes | None:
    """Return the prototypes, from the run's own text tower where the file holds captions; these are kept."""
    directory = embedded.directory
    record = read_config_record(directory)
    assert record.input is not None
    check_prototypes(config, record.input.kind, record)
    file = config.prototypes or default_prototypes()
    if not needs_text_tower(file):
        return _fitting(read_vectors(file, directory), embedded, file)
    spec = _text_encoder(config, record)
    if spec is None:
        return None
    key = hashlib.sha256(file.read_bytes() + json.dumps(spec.identity(), sort_keys=True).encode()).hexdigest()
    store = directory.root / "prototypes.parquet"
    known = record.prototypes
    if known is not None and known.made_of == key and is_sealed(store, known.seal):
        return _fitting(read_vectors(store, directory), embedded, file)
    vectors = workers.submit("prototypes", embed_captions, [Task((read_captions(file), spec))])[0]
    write_vectors(store, vectors)
    made = PrototypesRecord(made_of=key, seal=seal(store))
    write_config_record(directory, read_config_record(directory).model_copy(update={"prototypes": made}))
    return _fitting(Prototypes.of(vectors), embedded, file)


def _text_encoder(config: RunConfig, record: ConfigRecord) -> EncoderSpec | None:
    """Return the encoder whose text tower embeds captions: the images' own, or the one that is named."""
    own = recorded_spec(record)
    if own is not None:
        if config.model is not None:
            named = _spec(config, config.model, config.pretrained, own.device)
            if encoder_identity(named) != encoder_identity(own):
                raise UserError(
                    f"{_as_options(named)}: this run's images were embedded by {_as_options(own)}; leave it out"
                )
        return own
    model, pretrained = _named_model(config, record)
    if model is None:
        return None  # ready embeddings of an unknown model: a rule that needs none
    device = "cpu" if config.device == "auto" else config.device
    return _spec(config, model, pretrained, device)


def _as_options(spec: EncoderSpec) -> str:
    return f"--model {spec.model!r}" + (f" --pretrained {spec.pretrained!r}" if spec.pretrained else "")


def _fitting(prototypes: Prototypes, embedded: Embedded, file: Path) -> Prototypes:
    dimension = embedded.dimension
    if prototypes.dimension != dimension:
        raise UserError(
            f"prototypes {str(file)!r} have {prototypes.dimension} dimensions and the embeddings {dimension}: "
            "both must come from one model"
        )
    return prototypes
