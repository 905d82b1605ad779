"""Model folders for tests: a good one, which is the built-in model, and hostile ones made from it."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

from fairdedup.encoders.spec import BUILTIN_FOLDER, BUILTIN_MODEL, BUILTIN_WEIGHTS

CONFIG = "open_clip_config.json"
WEIGHTS = "open_clip_model.safetensors"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def builtin_config() -> dict[str, Any]:
    """Return the configuration of the built-in model, as a folder of open_clip has it."""
    model = json.loads((BUILTIN_FOLDER / f"{BUILTIN_MODEL}.json").read_text())
    return {"model_cfg": model, "preprocess_cfg": {"mean": [0.48145466, 0.4578275, 0.40821073]}}


def write_model(folder: Path, config: Any = None, weights: bytes | None = None, name: str = WEIGHTS) -> Path:
    """Write a model folder: the built-in model, or with another configuration or other weights."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(json.dumps(builtin_config() if config is None else config))
    (folder / name).write_bytes(BUILTIN_WEIGHTS.read_bytes() if weights is None else weights)
    return folder


def change(config: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Set a key of a configuration; its path has points."""
    *above, last = path.split(".")
    inner = config
    for key in above:
        inner = inner.setdefault(key, {})
    inner[last] = value
    return config


def write_cache(home: Path, name: str, folder: Path) -> Path:
    """Write a model folder into a cache of Hugging Face, in its own layout, and return the snapshot."""
    root = home / "hub" / f"models--{name.replace('/', '--')}"
    snapshot = root / "snapshots" / COMMIT
    for needed in (root / "blobs", root / "refs", snapshot):
        needed.mkdir(parents=True)
    (root / "refs" / "main").write_text(COMMIT)
    for k, file in enumerate(sorted(folder.iterdir())):
        blob = root / "blobs" / f"{k:040x}"
        shutil.copyfile(file, blob)
        os.symlink(f"../../blobs/{blob.name}", snapshot / file.name)
    return snapshot


class Code:
    """A pickle that writes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return (exec, (f"open({str(self.marker)!r}, 'w').close()",))


def tricky_pickle(marker: Path) -> bytes:
    """Return a file of torch that torch refuses with a TypeError, whereupon open_clip has torch load it in full.

    The unpickler of `weights_only` cannot give an OrderedDict the state (None, {}), which Python's can.
    """
    stream = io.BytesIO()
    stream.write(b"\x80\x02]")  # a list, of
    stream.write(b"ccollections\nOrderedDict\n)R(N}tb")  # an OrderedDict with that state,
    stream.write(b"a" + pickle.dumps(Code(marker), 2)[2:-1] + b"a.")  # and the code
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("archive/data.pkl", stream.getvalue())
        zipped.writestr("archive/version", "3\n")
        zipped.writestr("archive/byteorder", "little")
    return archive.getvalue()


def plain_pickle(marker: Path) -> bytes:
    """Return a state dict, pickled by torch, that writes a file when it is unpickled in full."""
    import torch

    stream = io.BytesIO()
    torch.save(OrderedDict(a=Code(marker)), stream)
    return stream.getvalue()
