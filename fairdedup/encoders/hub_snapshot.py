"""Downloads the files of a model from the Hugging Face hub: those that a model folder may have, and no others."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fairdedup.encoders.model_folder import (
    CONFIG,
    PREFERRED,
    TOKENIZER_FILES,
    ModelFolder,
    check_model_folder,
    find_tokenizer_name,
)
from fairdedup.encoders.network import no_long_wait
from fairdedup.errors import FairdedupError, LastingError, first_line


def download_model(model: str) -> ModelFolder:
    """Download a model, or find it in the cache, and check its files. All of them are of one revision.

    Parameters
    ----------
    model : str
        ``hf-hub:`` and the name of a repository.

    Raises
    ------
    UserError
        If its files are more than data; see `check_model_folder`.
    FairdedupError
        If it cannot be downloaded, within seconds if the hub cannot be reached.
    """
    with no_long_wait() as obstacle:
        return _download_files(model, obstacle)


def _download_files(model: str, obstacle: str) -> ModelFolder:
    """Download the files of a model, or find them in the cache, and check them."""
    name = model.removeprefix("hf-hub:")
    config = _download(model, name, CONFIG, None, obstacle)
    if config is None:
        raise FairdedupError(f"model {model!r}: that repository has no {CONFIG}: give one of an open_clip model")
    revision = config.parent.name
    tokenizer = find_tokenizer_name(model, config.parent)
    for weights in (PREFERRED[0], PREFERRED[2]):
        if _download(model, name, weights, revision, obstacle) is not None:
            break
    tokenizer_folder = None
    if tokenizer:
        of_model = tokenizer == name
        own = revision if of_model else None
        files = [_download(model, tokenizer, file, own, obstacle) for file in TOKENIZER_FILES]
        tokenizer_folder = next((file.parent for file in files if file is not None), None)
    return check_model_folder(model, config.parent, tokenizer_folder)


def _download(model: str, name: str, file: str, revision: str | None, obstacle: str) -> Path | None:
    """Return the place of a file in the cache, None if the repository does not have it."""
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(repo_id=name, filename=file, revision=revision))
    except Exception as error:  # noqa: BLE001
        absent = isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError)
        if file != CONFIG and (absent or (isinstance(error, LocalEntryNotFoundError) and constants.HF_HUB_OFFLINE)):
            return None
        reason = obstacle or first_line(error)
        raise LastingError(
            f"model {model!r}: {file} of {name!r} cannot be downloaded ({reason}): check name and network, or give a "
            "folder that has the model with local-dir:"
        ) from error


@contextmanager
def tensors_only() -> Iterator[None]:
    """Keep torch from files that hold more than tensors in the block, whatever the environment says.

    After a TypeError, which a file can cause, open_clip loads it again without `weights_only`. The environment may say
    that torch then runs the file.
    """
    unsafe = os.environ.pop("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", None)
    try:
        yield
    finally:
        if unsafe is not None:
            os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = unsafe
