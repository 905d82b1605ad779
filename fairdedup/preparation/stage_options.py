"""The options of each stage, as config.json records them. A stage's files are used again only if they are equal."""

from __future__ import annotations

import hashlib
import json
from typing import Any, NamedTuple

from fairdedup.config import STAGE_KEYS, RunConfig
from fairdedup.config_errors import flag
from fairdedup.datasets import open_input
from fairdedup.incremental.earlier_runs import list_state_seals
from fairdedup.preparation.provenance import fingerprint_dataset
from fairdedup.storage.checked_json import read_json
from fairdedup.storage.config_record import ConfigRecord, StageOptions
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.object_stores import as_path
from fairdedup.storage.remedies import quote
from fairdedup.storage.run_files import compute_sha256

FILE_OPTIONS = ("prototypes", "drop", "always_keep")  # files whose content is compared, not only their names
CONTENT = {name: f"{name}_sha256" for name in FILE_OPTIONS} | {  # options that name content, and what identifies it
    "against": "against_state",
    "exclude_near": "exclude_near_fingerprint",
}
DEFAULTS = RunConfig.model_validate({}).model_dump(mode="json")


def collect_stage_options(config: RunConfig, stage: str) -> StageOptions:
    """Return the options that a stage reads, with hashes of the files that they name.

    Parameters
    ----------
    config : RunConfig
        Options of the command.
    stage : str
        Stage: a key of `STAGE_KEYS`.
    """
    values = config.model_dump(mode="json")
    options = {name: values[name] for name in STAGE_KEYS[stage]}
    for name in FILE_OPTIONS if stage == "prune" else ():
        file = getattr(config, name)
        if file is not None and file.is_file():
            options[f"{name}_sha256"] = compute_sha256(file)
    if config.exclude_near and "exclude_near" in options:
        shards = read_json(RunDirectory(as_path(config.exclude_near)).input)  # None where it is no run
        options["exclude_near_fingerprint"] = (
            fingerprint_dataset(open_input(config.exclude_near, id_from=config.id))
            if shards is None
            else hashlib.sha256(json.dumps(shards, sort_keys=True).encode()).hexdigest()
        )
    if options.get("against"):
        options["against"] = [str(folder.absolute()) for folder in config.against]
        options["against_state"] = list_state_seals(config)
    return options


def _describe_change(name: str, before: Any, after: Any) -> str:
    content = {hashed: option for option, hashed in CONTENT.items()}
    if name in content:
        return f"another content of {flag(content[name])}"
    words = "INPUT" if name == "input" else flag(name)
    return f"{words} {_show(before)} → {_show(after)}"


def _show(value: Any) -> str:
    if value is None or value == []:
        return "unset"
    if isinstance(value, bool):
        return "on" if value else "off"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def list_prune_flags(options: StageOptions) -> str | None:
    """Return the flags of `fairdedup prune` for the options of a decision; None if flags cannot say them.

    Parameters
    ----------
    options : StageOptions
        Options of the stage "prune".
    """
    words = []
    for name in STAGE_KEYS["prune"]:
        value = options.get(name)
        if value == DEFAULTS[name] or value is None:
            continue
        if isinstance(value, dict):
            return None
        if isinstance(value, bool):
            words.append(flag(name) if value else f"--no-{name.replace('_', '-')}")
        else:
            words += [f"{flag(name)} {quote(each)}" for each in (value if isinstance(value, list) else [value])]
    return " ".join(words)


def _has_moved(name: str, before: StageOptions, after: StageOptions) -> bool:
    """Return whether an option names another place of the same content, which its hash shows."""
    content = CONTENT.get(name)
    if content is None or None in (before.get(name), after.get(name)):
        return False
    known = before.get(content)
    return known == after.get(content) and bool(known) and (not isinstance(known, list) or None not in known)


class OptionChanges(NamedTuple):
    """How options differ from those that a run directory was made with.

    Attributes
    ----------
    texts : list of str
        One text for each option that differs, such as "--keep 0.5 → 0.4".
    stages : set of str
        Stages that read these options.
    unknown_stages : list of str
        Recorded stages that this version of fairdedup does not have.
    """

    texts: list[str]
    stages: set[str]
    unknown_stages: list[str]


def compare_options(record: ConfigRecord, options: dict[str, StageOptions]) -> OptionChanges:
    """Compare the options of all stages with those in config.json.

    An option that the version of the record did not have yet counts as its default. A file, a run or evaluation
    samples may have moved: only their content is compared.

    Parameters
    ----------
    record : ConfigRecord
        Content of config.json.
    options : dict of str to StageOptions
        Options of every stage.
    """
    texts: list[str] = []
    stages: set[str] = set()
    unknown: list[str] = []
    for stage, recorded in record.options.items():
        if stage not in options:
            unknown.append(stage)
            continue
        for name in sorted(recorded.keys() | options[stage].keys()):
            before, after = (each.get(name, DEFAULTS.get(name)) for each in (recorded, options[stage]))
            if before != after and not _has_moved(name, recorded, options[stage]):
                texts.append(_describe_change(name, before, after))
                stages.add(stage)
    return OptionChanges(list(dict.fromkeys(texts)), stages, unknown)
