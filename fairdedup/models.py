"""Which encoder and which prototypes a run goes by: what is named, what it was begun with, or the built-in ones."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from fairdedup.config import RunConfig
from fairdedup.core.prototypes import Prototypes
from fairdedup.core.rules.registry import find_rule
from fairdedup.encoders import EncoderSpec, builtin_spec, check_model
from fairdedup.errors import UserError
from fairdedup.increments import Ground, encoder_identity
from fairdedup.ledger import state_of
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
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.object_stores import as_path
from fairdedup.storage.run_files import is_sealed, read_array, read_json, seal, sha256_of, write_json
from fairdedup.storage.run_state import StateDirectory
from fairdedup.workers import Workers


def prototypes_of_run(
    config: RunConfig, directory: RunDirectory, decided: dict[str, Any], workers: Workers
) -> Prototypes:
    """Return the prototypes that are named, else those that the run was decided by."""
    left = StateDirectory(directory.root)
    named = (config.prototypes, config.model, config.pretrained)
    if named == (None, None, None) and (read_json(left.file) or {}).get("prototypes"):
        return read_prototypes(left.prototypes)
    file = config.prototypes or (as_path(decided["prototypes"]) if decided.get("prototypes") else None)
    prototypes = prototypes_for(config.model_copy(update={"prototypes": file}), directory, workers, optional=True)
    if prototypes is None:
        raise UserError(
            f"{directory.root} has ready embeddings of a model that is not named: give --labels FILE, prototype "
            "vectors (--prototypes FILE), or the model (--model ViT-B-16 --pretrained openai)"
        )
    return prototypes


def prototypes_key(config: RunConfig, ground: Ground | None) -> str | None:
    """Return the hash of the prototypes' file."""
    if ground is not None:
        return (ground.known["prototypes"] or {}).get("file")
    file = config.prototypes or default_prototypes()
    return sha256_of(file)


def encoders_of(config: RunConfig, directory: RunDirectory) -> tuple[str, EncoderSpec | None, EncoderSpec | None]:
    """Return the kind of the input, what embedded its images, and that or what made its embeddings, if it is known."""
    state = state_of(directory)
    own = EncoderSpec(**state["encoder"]) if state.get("encoder") else None
    return state["input"]["kind"], own, own or named_spec(config, state)


def named_spec(config: RunConfig, state: dict[str, Any]) -> EncoderSpec | None:
    """Return the model that is named, now or when the embeddings were taken in."""
    model, pretrained = _named_model(config, state)
    return None if model is None else _spec(config, model, pretrained, "cpu")


def dimension_of(directory: RunDirectory) -> int | None:
    """Return the length of the vectors, if there are any."""
    for record in directory.records():
        if record.valid:
            return int(read_array(directory.vectors(record.number)).shape[1])
    return None


def image_encoder(config: RunConfig, directory: RunDirectory, workers: Workers) -> EncoderSpec:
    """Return the encoder of images: the one that is named, else the built-in one."""
    device = config.device
    if device == "auto":
        # Settled before the first shard, and kept: a run begun on a GPU goes on on one.
        known = state_of(directory).get("device")
        device = known or workers.submit("device", usable_device, [()])[0]
        state = state_of(directory)
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


def check_prototypes(config: RunConfig, kind: str, state: dict[str, Any], *, optional: bool = False) -> None:
    """Refuse early what would fail late: prototypes that cannot be had, an unknown model, a bad file.

    Parameters
    ----------
    config : RunConfig
    kind : str
        Kind of the input: images or embeddings.
    state : dict
        config.json.
    optional : bool
        Whether the caller can do without prototypes, whatever the rule needs.
    """
    if config.model is not None:
        check_model(config.model, config.pretrained)
    elif config.pretrained is not None:
        raise UserError(f"--pretrained {config.pretrained!r} without --model: name the model that it belongs to")
    file = config.prototypes or default_prototypes()
    if config.prototypes is not None and not file.is_file():
        raise UserError(f"--prototypes {str(file)!r}: no such file; give a .yaml, .parquet, .npz or .npy file")
    if config.against:
        return  # they come from the earlier runs
    needed = not optional and find_rule(config.rule).needs_prototypes
    if needed and kind == "embeddings" and _named_model(config, state)[0] is None:
        if config.prototypes is None:
            raise UserError(
                f"--rule {config.rule} needs prototypes and these embeddings name no model: name the one that made "
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


def prototypes_for(
    config: RunConfig, directory: RunDirectory, workers: Workers, *, optional: bool = False
) -> Prototypes | None:
    """Return the prototypes, from the run's own text tower where the file holds captions; these are kept.

    None where nothing can embed the captions and the rule needs no prototypes, or they are `optional`.
    """
    state = state_of(directory)
    if "input" not in state:
        directory.records()  # says which stage is missing
    check_prototypes(config, state["input"]["kind"], state, optional=optional)
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
    write_json(directory.config, {**state_of(directory), "prototypes": {"made of": key, "seal": seal(store)}})
    return _fitting(Prototypes.of(embedded), directory, file)


def _text_encoder(config: RunConfig, state: dict[str, Any]) -> EncoderSpec | None:
    """Return the encoder whose text tower embeds captions: the images' own, or the one that is named."""
    if state.get("encoder"):
        own = EncoderSpec(**state["encoder"])
        if config.model is not None:
            named = _spec(config, config.model, config.pretrained, own.device)
            if encoder_identity(named) != encoder_identity(own):
                raise UserError(
                    f"{_as_options(named)}: this run's images were embedded by {_as_options(own)}; leave it out"
                )
        return own
    model, pretrained = _named_model(config, state)
    if model is None:
        return None  # ready embeddings of an unknown model: a rule that needs none
    device = "cpu" if config.device == "auto" else config.device
    return _spec(config, model, pretrained, device)


def _as_options(spec: EncoderSpec) -> str:
    return f"--model {spec.model!r}" + (f" --pretrained {spec.pretrained!r}" if spec.pretrained else "")


def _fitting(prototypes: Prototypes, directory: RunDirectory, file: Path) -> Prototypes:
    dimension = dimension_of(directory)
    if prototypes.dimension != dimension:
        raise UserError(
            f"prototypes {str(file)!r} have {prototypes.dimension} dimensions and the embeddings {dimension}: "
            "both must come from one model"
        )
    return prototypes
