"""`fairdedup doctor`: what a run would find on this machine, one line for each check, with a remedy.

It reads and checks, and writes nothing but a file that it removes at once. No model is loaded.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fairdedup.config import RunConfig
from fairdedup.core.devices import may_have_gpu
from fairdedup.encoders import BUILTIN_MODEL
from fairdedup.encoders.cached_weights import find_cached_weights
from fairdedup.encoders.encoder_memory import estimate_encoder_memory
from fairdedup.errors import FairdedupError, UserError, first_line, format_count
from fairdedup.open_files import allow_files
from fairdedup.preparation.encoder_choice import check_named_model
from fairdedup.preparation.provenance import list_versions
from fairdedup.storage.object_stores import RemotePath
from fairdedup.worker_memory import MIB, PAUSES_AT, check_address_space, least_memory, machine_memory

GIB = 1 << 30
LITTLE_SPACE = 2 * GIB  # of a disk: a run of a million rows of 512 values writes 2.5 GiB
ANSWER_WITHIN = 5.0  # seconds to wait for a scheduler
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")

State = Literal["ok", "note", "stop"]


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes
    ----------
    name : str
        What was checked.
    state : {"ok", "note", "stop"}
        Whether a run works, may be slow or incomplete, or would stop.
    text : str
        One line: what was found, and what to do about it.
    """

    name: str
    state: State
    text: str

    def to_json(self) -> dict[str, str]:
        """Return the finding as a JSON object."""
        return {"name": self.name, "state": self.state, "text": self.text}


Found = tuple[State, str]


def examine_machine(config: RunConfig) -> Iterator[Finding]:
    """Yield the finding of each check, as soon as it is known.

    Parameters
    ----------
    config : RunConfig
        Options of the run that is planned. Only what they name is checked.
    """
    checks: dict[str, Callable[[RunConfig], Found]] = {
        "fairdedup": _check_versions,
        "packages": _check_packages,
        "cores": _check_cores,
        "memory": _check_memory,
        "open files": _check_open_files,
        "GPU": _check_gpu,
        "model": _check_model,
        "run directory": _check_out,
        "temporary files": _check_temporary_files,
    }
    if config.input is not None:
        checks["input"] = _check_input
    if config.scheduler is not None:
        checks["scheduler"] = _check_scheduler
    for name, check in checks.items():
        try:
            state, text = check(config)
        except FairdedupError as error:
            state, text = "stop", str(error)
        except Exception as error:  # noqa: BLE001 - a broken library must not end the checks after it
            state, text = "stop", f"{type(error).__name__}: {first_line(error)}. Install fairdedup again."
        yield Finding(name, state, text)


def _check_versions(config: RunConfig) -> Found:
    known = list_versions()
    system = f"{platform.system()} {platform.machine()}"
    return "ok", f"{known.get('fairdedup', 'not installed by pip')}, Python {known['python']}, {system}"


def _check_packages(config: RunConfig) -> Found:
    """Find the packages that fairdedup requires, without importing them."""
    known = list_versions()
    try:
        required = importlib.metadata.requires("fairdedup") or []
    except importlib.metadata.PackageNotFoundError:
        return "note", "fairdedup runs from a folder, so what it requires is not known. Install it: pip install ."
    missing = []
    for line in required:
        name = re.split(r"[\s<>=!~;\[(]", line, maxsplit=1)[0]
        if ";" in line:  # an extra, or for another system
            continue
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        return "stop", f"not installed: {', '.join(missing)}. Install them: pip install {' '.join(missing)}"
    return "ok", ", ".join(f"{name} {one}" for name, one in known.items() if name not in ("python", "fairdedup"))


def _usable_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check_cores(config: RunConfig) -> Found:
    all_cores, usable = os.cpu_count() or 1, _usable_cores()
    workers = config.workers or all_cores
    if workers > usable:
        remedy = f"Give --workers {usable}, or more cores."
        return "note", f"{usable} of {all_cores} may be used, but a cluster would have {workers} workers. {remedy}"
    return "ok", f"{usable}, so a run has up to {format_count(workers, 'worker')}"


def _check_memory(config: RunConfig) -> Found:
    check_address_space(encoder=True)
    total, workers = machine_memory(), config.workers or os.cpu_count() or 1
    if config.model is None or config.model.startswith("hf-hub:"):
        data = 0
    else:
        data = estimate_encoder_memory(config.model, config.pretrained, config.batch_size)
    needed = int((least_memory(encoder=True).resident + data) / PAUSES_AT)
    text = f"{total / GIB:.1f} GiB; a worker with the model needs about {needed / GIB:.1f} GiB"
    fit = total // needed
    if not fit:
        return "stop", f"{text}. Use a machine with more memory, a smaller --model or a smaller --batch-size."
    if fit < workers:
        return "note", f"{text}, so {workers} are too many for images. Give --workers {fit}."
    return "ok", text


def _check_open_files(config: RunConfig) -> Found:
    allow_files()
    try:
        import resource
    except ImportError:
        return "ok", "no limit"
    return "ok", f"up to {resource.getrlimit(resource.RLIMIT_NOFILE)[0]:,}"


def _check_gpu(config: RunConfig) -> Found:
    if not may_have_gpu():
        if config.device == "cuda":
            return "stop", "no driver of a GPU is here, but --device is cuda. Give --device cpu, or install the driver."
        return "ok", "no driver of a GPU is here, so the model runs on the CPU"
    import torch

    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        memory = torch.cuda.get_device_properties(0).total_memory
        return "ok", f"{format_count(count, 'GPU')}: {torch.cuda.get_device_name(0)}, {memory / GIB:.0f} GiB"
    why = f"torch {torch.__version__} sees no GPU although a driver is here. Install a torch that is built for it"
    return ("stop" if config.device == "cuda" else "note"), f"{why}; until then the model runs on the CPU."


def _check_model(config: RunConfig) -> Found:
    check_named_model(config)
    model, named = config.model or BUILTIN_MODEL, f"{config.model} {config.pretrained or ''}".strip()
    weights = find_cached_weights(model, config.pretrained)
    if config.model is None:
        if weights is None:
            return "stop", "the weights of the built-in model are missing. Install fairdedup again."
        return "ok", "built in, for trials only. For photographs: --model ViT-B-16 --pretrained openai"
    if weights is not None:
        return "ok", f"{named}: {weights}"
    offline = [name for name in OFFLINE if os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE")]
    if offline:
        return "stop", f"{named} is not in the cache, and {offline[0]} is set. Unset it, or give --pretrained FILE."
    return "note", f"{named} is not in the cache: the first run downloads it once, and needs the network for that"


def _check_out(config: RunConfig) -> Found:
    """Find out whether the run directory, or the folder that it would be made in, can be written."""
    place = config.out
    if isinstance(place, RemotePath):
        found = "holds a run" if (place / "config.json").exists() else "answers, and has no run there yet"
        return "ok", f"{place} {found}"
    folder = place.absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".fairdedup-doctor-"):
            pass
    except OSError as error:
        return "stop", f"{folder} cannot be written ({error.strerror}). Choose another place with --out."
    return _judge_space(str(place), folder, "Choose a disk with more space by --out.")


def _check_temporary_files(config: RunConfig) -> Found:
    folder = Path(tempfile.gettempdir())
    return _judge_space(str(folder), folder, "Set TMPDIR to a disk with more space.")


def _judge_space(name: str, folder: Path, remedy: str) -> Found:
    free = shutil.disk_usage(folder).free
    text = f"{name}: {free / GIB:,.1f} GiB free"
    if free < LITTLE_SPACE // 20:
        return "stop", f"{text}. {remedy}"
    if free < LITTLE_SPACE:
        return "note", f"{text}, too little for a million rows. {remedy}"
    return "ok", text


def _check_input(config: RunConfig) -> Found:
    from fairdedup.datasets import open_input

    assert config.input is not None
    dataset = open_input(
        config.input, id_from=config.id, column=config.column, skip_damaged=config.skip_damaged, may_be_empty=True
    )
    return "ok", f"{config.input}: {dataset.format}, {format_count(len(dataset.shards), 'shard')} of {dataset.kind}"


def _check_scheduler(config: RunConfig) -> Found:
    from distributed import Client

    address = str(config.scheduler)
    try:
        with Client(address, timeout=ANSWER_WITHIN, set_as_default=False) as client:
            number = len(client.nthreads())
            limits = [w["memory_limit"] for w in client.scheduler_info(n_workers=-1)["workers"].values()]
    except (OSError, ValueError, TimeoutError) as error:
        raise UserError(
            f"{address} does not answer ({type(error).__name__}). Start `dask scheduler`, or leave --scheduler out."
        ) from None
    if not number:
        return "stop", f"{address} has no workers. Start one: dask worker {address}"
    smallest = min((limit for limit in limits if limit), default=0)
    memory = f", the smallest has {smallest // MIB} MiB" if smallest else ""
    return "ok", f"{address}: {format_count(number, 'worker')}{memory}"
