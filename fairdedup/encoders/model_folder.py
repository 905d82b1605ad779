"""A model folder is data: it is checked, and what open_clip gets is a copy that holds nothing else.

The copy has the checked configuration, the files of the tokenizer, and a link to the weights. Python, pickles of
tokenizers, links that lead elsewhere and other files of the folder are not in it.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fairdedup.encoders.model_config import (
    MODEL,
    PREPROCESS,
    Refusal,
    count_least_parameters,
    find_code,
    keep_data,
)
from fairdedup.encoders.tokenizer_config import TOKENIZER, UNREAD
from fairdedup.errors import UserError, first_line

CONFIG = "open_clip_config.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
PREFERRED = (
    *("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin"),
    *("open_clip_pytorch_model.pth", "model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth"),
)
"""Names of weights in the order in which open_clip takes them."""

ENDINGS = (".safetensors", ".bin", ".pth")
TOKENIZER_TEXT = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
)
TOKENIZER_MODELS = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "sentencepiece.model")
TOKENIZER_FILES = (TOKENIZER_CONFIG, *TOKENIZER_TEXT, *TOKENIZER_MODELS)
"""Files that hold a tokenizer as JSON, text or SentencePiece's protocol buffer."""

LARGEST_CONFIG = 1 << 20
LARGEST_TOKENIZER = 1 << 28
SAFE_COPY = "write it without that into a copy of the folder, and give that with local-dir:"


@dataclass(frozen=True)
class ModelFolder:
    """A checked model.

    Attributes
    ----------
    config : dict of str to object
        What ``open_clip_config.json`` may say.
    weights : Path
        The file of weights, without links.
    weights_name : str
        Its name in the folder, whose ending is that of its format.
    tokenizer : dict of str to Path
        Files of the tokenizer by name, without links; empty for open_clip's own.
    tokenizer_config : dict of str to object
        What ``tokenizer_config.json`` may say.
    """

    config: dict[str, object]
    weights: Path
    weights_name: str
    tokenizer: dict[str, Path]
    tokenizer_config: dict[str, object]

    def write_copy(self, folder: Path) -> None:
        """Write the copy that open_clip may load into an empty folder."""
        (folder / CONFIG).write_text(json.dumps(self.config), encoding="utf-8")
        os.symlink(self.weights, folder / self.weights_name)
        for name, file in self.tokenizer.items():
            os.symlink(file, folder / name)
        if self.tokenizer_config:
            (folder / TOKENIZER_CONFIG).write_text(json.dumps(self.tokenizer_config), encoding="utf-8")


def check_model_folder(model: str, folder: Path, tokenizer_folder: Path | None = None) -> ModelFolder:
    """Check that a model folder holds nothing but data, and that its weights are there.

    Parameters
    ----------
    model : str
        Name of the model, for errors.
    folder : Path
        The folder; in the cache of Hugging Face, its snapshot.
    tokenizer_folder : Path or None
        Folder of the tokenizer; None if it is the same.

    Returns
    -------
    ModelFolder
        What may be loaded.

    Raises
    ------
    UserError
        If a file is missing, too large, no regular file of the folder or no JSON, or if a key or value could make a
        library run or fetch something.
    """
    try:
        config = _read_config(model, folder)
        name, weights = _find_weights(model, folder)
        _check_size(model, config, weights)
        files, tokenizer = _check_tokenizer(model, tokenizer_folder or folder, config)
    except OSError as error:
        raise UserError(
            f"model {model!r}: cannot be read ({error.strerror or error}): give a folder that you may read"
        ) from error
    return ModelFolder(config, weights, name, files, tokenizer)


def find_tokenizer_name(model: str, folder: Path) -> str:
    """Return the name of the tokenizer of a folder, "" for open_clip's own; errors are those of the folder."""
    return _tokenizer_name(_read_config(model, folder))


def _tokenizer_name(config: Mapping[str, object]) -> str:
    model = config["model_cfg"]
    text = model.get("text_cfg") if isinstance(model, Mapping) else None
    return str(text.get("hf_tokenizer_name") or "") if isinstance(text, Mapping) else ""


def _read_config(model: str, folder: Path) -> dict[str, object]:
    """Return what ``open_clip_config.json`` may say."""
    file = _find_file(model, folder, CONFIG)
    if file is None:
        raise UserError(f"model {model!r}: no {CONFIG} in that folder; give a folder that has one")
    found = _read_json(model, file, CONFIG)
    try:
        code = find_code(found)
        if code is not None:
            raise code
        kept: dict[str, object] = {"model_cfg": keep_data(found.get("model_cfg", {}), MODEL, "model_cfg")}
        preprocess = found.get("preprocess_cfg") or {}
        if isinstance(preprocess, dict):  # open_clip reads no other key, and none that is null
            preprocess = {key: value for key, value in preprocess.items() if key in PREPROCESS and value is not None}
        kept["preprocess_cfg"] = keep_data(preprocess, PREPROCESS, "preprocess_cfg")
    except Refusal as refusal:
        raise UserError(f"model {model!r}: {CONFIG}: {refusal}: {SAFE_COPY}") from None
    missing = {"embed_dim", "vision_cfg", "text_cfg"} - set(kept["model_cfg"])  # type: ignore[call-overload]
    if missing:
        raise UserError(
            f"model {model!r}: {CONFIG}: model_cfg has no {min(missing)}: give the folder of an open_clip model"
        )
    return kept


def _find_weights(model: str, folder: Path) -> tuple[str, Path]:
    """Return name and place of the weights that open_clip would take; without any, it would make some at random."""
    names = sorted(name for name in os.listdir(folder) if name.endswith(ENDINGS))
    names.sort(key=lambda name: not name.endswith(".safetensors"))
    first = [name for name in PREFERRED if name in names]
    for name in first or names[:1]:
        file = _find_file(model, folder, name)
        if file is not None:
            return name, file
    raise UserError(f"model {model!r}: no weights in that folder; put {PREFERRED[0]} or {PREFERRED[2]} there")


def _check_size(model: str, config: Mapping[str, object], weights: Path) -> None:
    """Refuse a model that has more parameters than its weights have bytes, before memory is given to it."""
    described = config["model_cfg"]
    assert isinstance(described, Mapping)
    least, size = count_least_parameters(described), weights.stat().st_size
    if least > size:
        raise UserError(
            f"model {model!r}: {CONFIG} describes at least {least:,} parameters, but {weights.name} has only {size:,} "
            "bytes: give the weights of that model"
        )


def _check_tokenizer(
    model: str, folder: Path, config: Mapping[str, object]
) -> tuple[dict[str, Path], dict[str, object]]:
    """Return the files of a tokenizer of transformers, and what its configuration may say; none for open_clip's own."""
    if not _tokenizer_name(config):
        return {}, {}
    files = {}
    for name in (*TOKENIZER_TEXT, *TOKENIZER_MODELS):
        file = _find_file(model, folder, name)
        if file is not None:
            if file.stat().st_size > LARGEST_TOKENIZER:
                raise UserError(f"model {model!r}: {name} has over {LARGEST_TOKENIZER >> 20} MiB: give a smaller one")
            files[name] = file
    file = _find_file(model, folder, TOKENIZER_CONFIG)
    if file is None or not files:
        lacking = TOKENIZER_CONFIG if file is None else "tokenizer.json"
        raise UserError(
            f"model {model!r}: {CONFIG} names a tokenizer, but {lacking} is missing: save the tokenizer in the folder, "
            "by save_pretrained of transformers"
        )
    found = _read_json(model, file, TOKENIZER_CONFIG)
    try:
        code = find_code(found)
        if code is not None:
            raise code
        kept = keep_data(found, TOKENIZER, unread=UNREAD)
        if "tokenizer_class" not in kept:
            raise Refusal("tokenizer_class", None, known=True)
    except Refusal as refusal:
        raise UserError(f"model {model!r}: {TOKENIZER_CONFIG}: {refusal}: {SAFE_COPY}") from None
    return files, kept


def _find_file(model: str, folder: Path, name: str) -> Path | None:
    """Return a regular file of the folder without links, None if there is no such name.

    A link must lead to a file of the folder or, in the cache of Hugging Face, to one of its blobs.
    """
    link = folder / name
    if not os.path.lexists(link):
        return None
    home, file = Path(os.path.realpath(folder)), Path(os.path.realpath(link))
    blobs = home.parent.parent / "blobs" if home.parent.name == "snapshots" else None
    if not file.is_relative_to(home) and (blobs is None or file.parent != blobs):
        raise UserError(f"model {model!r}: {name} is a link out of the folder, to {file}: put a copy of the file there")
    if not file.exists() or not stat.S_ISREG(file.stat().st_mode):
        raise UserError(f"model {model!r}: {name} is not a regular file: put a copy of the file there")
    return file


def _read_json(model: str, file: Path, name: str) -> dict[str, object]:
    """Return the object in a file of JSON."""
    if file.stat().st_size > LARGEST_CONFIG:
        raise UserError(
            f"model {model!r}: {name} has over {LARGEST_CONFIG >> 20} MiB: give the folder of an open_clip model"
        )
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        reason = first_line(error) if isinstance(error, ValueError) else "it is nested too deeply"
        raise UserError(
            f"model {model!r}: {name} is not JSON ({reason}): give the folder of an open_clip model"
        ) from None
    if not isinstance(found, dict):
        raise UserError(f"model {model!r}: {name} is not a JSON object: give the folder of an open_clip model")
    return found
