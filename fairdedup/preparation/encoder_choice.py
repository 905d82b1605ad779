"""Chooses the encoder of a run: the named model, the one that the run was started with, or the built-in one.

It never loads a model.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from fairdedup.config import RunConfig
from fairdedup.core.devices import may_have_gpu
from fairdedup.encoders import BUILTIN_MODEL, EncoderSpec, builtin_spec, check_model
from fairdedup.encoders.batch_encoder import check_loads
from fairdedup.encoders.dtype_choice import choose_dtype
from fairdedup.encoders.encoder_memory import estimate_encoder_memory
from fairdedup.errors import UserError
from fairdedup.storage.config_record import ConfigRecord, read_config_record, write_config_record
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.plain_files import expect_plain_file
from fairdedup.tasks import Task
from fairdedup.workers import Workers


def choose_image_encoder(config: RunConfig, directory: RunDirectory, workers: Workers) -> EncoderSpec:
    """Return the encoder of images: the named model, or the built-in one.

    A worker has loaded it, unless an earlier try of the run did or it is the built-in one. So nothing is recorded of a
    run whose encoder cannot be loaded, and the corrected command is not another one.

    Parameters
    ----------
    config : RunConfig
        Names the model, or none, and how to run it.
    directory : RunDirectory
        Directory of the run, where the device is recorded.
    workers : Workers
        Find the device.

    Raises
    ------
    UserError
        If the model or the tag of its weights is unknown, the weights are missing, or there is no such device.
    FairdedupError
        If the weights cannot be downloaded.
    """
    check_named_model(config)
    require_encoder_memory(workers, config.model or BUILTIN_MODEL, config.pretrained, config.batch_size)
    record = read_config_record(directory)
    device = _find_device(config, record, workers)
    if not record.options_of("embed"):
        check_encoder(config, workers, device)
    if config.device == "auto" and record.device is None:
        directory.root.mkdir(parents=True, exist_ok=True)
        write_config_record(directory, record.model_copy(update={"device": device}))
    if config.model is not None:
        spec = _build_spec(config, config.model, config.pretrained, device)
        return _settle_dtype(config, spec, directory, workers)
    if config.input is not None:
        workers.progress.say(
            "no --model: the built-in encoder was trained on drawn pictures and is only for trials; for real data "
            "name a model, such as --model ViT-B-16 --pretrained openai"
        )
    dtype = _plain_dtype(config, device)
    spec = builtin_spec(batch_size=config.batch_size, device=device, dtype=dtype, threads=config.threads)
    return _settle_dtype(config, spec, directory, workers)


def check_encoder(config: RunConfig, workers: Workers, device: str = "cpu") -> None:
    """Let a worker load the named model on the named device, and refuse what cannot be loaded.

    Parameters
    ----------
    config : RunConfig
        Names the model and the device, or neither: the built-in model on a CPU is always there.
    workers : Workers
        Load the model.
    device : str
        Device that ``--device auto`` means.

    Raises
    ------
    UserError
        If the tag of the weights is unknown, the weights do not fit the model, or there is no GPU.
    FairdedupError
        If the weights cannot be downloaded.
    """
    if config.device == "cuda" and workers.scheduler is None and not may_have_gpu():
        raise UserError("--device cuda: this machine has no GPU that torch can use. Use --device cpu or auto.")
    if config.model is None and config.device != "cuda":
        return
    device = device if config.device == "auto" else config.device
    spec = _build_spec(config, config.model or BUILTIN_MODEL, config.pretrained, device)
    workers.submit("load model", check_loads, [Task((spec,), isolated=True)])


def choose_decoders(config: RunConfig, device: str, workers: Workers) -> int:
    """Return how many threads of each worker decode ahead of the encoder.

    With ``auto``, a worker on a CPU gets the cores that no worker's encoder uses, up to four; one on a GPU gets its
    share of the cores, up to eight. What the machines of a scheduler have left is not known: none on a CPU, four on a
    GPU.

    Parameters
    ----------
    config : RunConfig
        Names the number, or ``auto``.
    device : str
        Device of the encoder: "cpu" or "cuda".
    workers : Workers
        Run the encoder.
    """
    if config.decoders != "auto":
        return config.decoders
    if workers.scheduler:
        return 0 if device == "cpu" else 4
    share = (os.cpu_count() or 1) // workers.number
    return min(4, max(0, share - config.threads)) if device == "cpu" else min(8, max(1, share))


def require_encoder_memory(workers: Workers, model: str, pretrained: str | None, batch_size: int) -> None:
    """Refuse workers whose memory is too small for a model.

    Parameters
    ----------
    workers : Workers
        Load the model.
    model, pretrained : str, str or None
        The model and its weights, as in `EncoderSpec`.
    batch_size : int
        Pictures of a batch.

    Raises
    ------
    UserError
        If they have too little memory.
    """
    data = estimate_encoder_memory(model, pretrained, batch_size)
    workers.require_memory(data, f"model {model!r} with --batch-size {batch_size}", encoder=True)


def check_named_model(config: RunConfig) -> None:
    """Refuse an unknown model, and weights without a model.

    Parameters
    ----------
    config : RunConfig
        Names the model and its weights, or neither.

    Raises
    ------
    UserError
        If the model is unknown, its weights are missing or not plain files, or only weights are named.
    """
    if config.pretrained is not None:
        expect_plain_file(config.pretrained, f"--pretrained {config.pretrained!r}")
    if config.model is not None and config.model.startswith("local-dir:"):
        for file in Path(config.model.removeprefix("local-dir:")).glob("*"):
            expect_plain_file(file, f"--model {config.model!r}: {file.name!r}")
    if config.model is not None:
        check_model(config.model, config.pretrained)
    elif config.pretrained is not None:
        raise UserError(f"--pretrained {config.pretrained!r} needs --model: name the model that it belongs to")


def _find_device(config: RunConfig, record: ConfigRecord, workers: Workers) -> str:
    """Return the device: the recorded one, so that a run which began on a GPU continues on one, or what there is."""
    if config.device != "auto":
        return config.device
    if record.device is not None:
        return record.device
    if workers.scheduler is None and not may_have_gpu():
        return "cpu"
    return workers.submit("device", find_device, [Task((), isolated=True)])[0]


def _plain_dtype(config: RunConfig, device: str) -> str:
    """Return the named number format; of ``auto``, that which needs no measurement."""
    if config.dtype != "auto":
        return config.dtype
    return "float32" if device == "cpu" else "float16"


def _settle_dtype(config: RunConfig, spec: EncoderSpec, directory: RunDirectory, workers: Workers) -> EncoderSpec:
    """Return the encoder with the number format of ``--dtype auto``.

    On a CPU it is measured once, before the first shard, and recorded, so that all workers and later commands have it.
    """
    if config.dtype != "auto" or spec.device != "cpu":
        return spec
    record = read_config_record(directory)
    dtype = record.dtype or workers.submit("dtype", choose_dtype, [Task((spec,), isolated=True)])[0]
    if record.dtype is None:
        directory.root.mkdir(parents=True, exist_ok=True)
        write_config_record(directory, record.model_copy(update={"dtype": dtype}))
        workers.progress.say(f"--dtype auto: {dtype}")
    return replace(spec, dtype=dtype)


def find_device() -> str:
    """Return "cuda" if torch sees a GPU here, else "cpu"; runs on a worker."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _build_spec(config: RunConfig, model: str, pretrained: str | None, device: str) -> EncoderSpec:
    """Return a named encoder; its paths are absolute, since a worker may have another current folder."""
    if model.startswith("local-dir:"):
        model = f"local-dir:{Path(model.removeprefix('local-dir:')).absolute()}"
    if pretrained is not None and Path(pretrained).is_file():
        pretrained = str(Path(pretrained).absolute())
    return EncoderSpec(
        model=model,
        pretrained=pretrained,
        batch_size=config.batch_size,
        device=device,
        dtype=_plain_dtype(config, device),
        threads=config.threads,
    )


def find_recorded_encoder(record: ConfigRecord) -> EncoderSpec | None:
    """Return the encoder that embedded the images of a run, None for ready-made embeddings.

    Parameters
    ----------
    record : ConfigRecord
        Content of config.json.
    """
    return None if record.encoder is None else EncoderSpec(**record.encoder.model_dump())


def find_named_encoder(config: RunConfig, record: ConfigRecord, device: str = "cpu") -> EncoderSpec | None:
    """Return the model that is named now, or was named when the embeddings were read; None if none was.

    Parameters
    ----------
    config : RunConfig
        Options of the command.
    record : ConfigRecord
        Content of config.json.
    device : str
        Device of the encoder.
    """
    if config.model is not None:
        return _build_spec(config, config.model, config.pretrained, device)
    named = record.named_model
    return None if named is None else _build_spec(config, named.model, named.pretrained, device)


def find_encoder(config: RunConfig, record: ConfigRecord) -> EncoderSpec | None:
    """Return the encoder of the images or of the ready-made embeddings of a run, None if it is not known.

    Parameters
    ----------
    config : RunConfig
        Options of the command.
    record : ConfigRecord
        Content of config.json.
    """
    return find_recorded_encoder(record) or find_named_encoder(config, record)
