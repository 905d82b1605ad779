"""The configuration of a run: YAML in, flags over it, every check of a value here."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    field_validator,
    model_validator,
)

from fairdedup.core.rules.registry import DEFAULT, find_rule, rule_for_column, rule_names
from fairdedup.errors import NO_TEXT, UserError, is_text
from fairdedup.storage.object_stores import as_path, check_local, check_url, check_writable

DEFAULT_FILE = Path("fairdedup.yaml")
DEFAULT_OUT = Path("fairdedup-run")
LARGEST_EPS = 2.0001  # every two samples are duplicates
EXCLUSIVE = ({"keep", "at_most", "eps"}, {"scheduler", "workers"})


def amount_of_memory(value: Any) -> str:
    """Check an amount of memory, as "4GiB", and return it without blanks."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) *([KMGT]i?B)", str(value), re.IGNORECASE)
    if not match or not float(match[1]):
        raise ValueError("it is no amount of memory: give one such as 4GiB")
    return match[1] + match[2]


def _memory_or_auto(value: Any) -> str:
    try:
        return "auto" if value == "auto" else amount_of_memory(value)
    except ValueError as error:
        raise ValueError(f"{error}, or auto") from None


Memory = Annotated[str, BeforeValidator(amount_of_memory)]
MemoryOrAuto = Annotated[str, BeforeValidator(_memory_or_auto)]


def _no_truth(value: Any) -> Any:
    """Refuse `true` and `false`, which Python takes for 1 and 0."""
    if isinstance(value, bool):
        raise ValueError("it is no number: give one")
    return value


Number = Annotated[float, BeforeValidator(_no_truth)]
Whole = Annotated[int, BeforeValidator(_no_truth)]


def _place(value: Any) -> Path:
    """Return a path or the path that a URL names."""
    if not isinstance(value, str | Path):
        raise ValueError("it is no path")
    if value == "":
        raise ValueError("it is empty: give a name, or leave it out")
    return as_path(value)


def _known_rule(value: str) -> str:
    """Refuse a name that is not registered."""
    if value not in rule_names():
        raise ValueError(f"it is no rule: choose one of {', '.join(rule_names())}")
    return value


Place = Annotated[Path, PlainValidator(_place), PlainSerializer(str, when_used="json")]


class RunConfig(BaseModel):
    """Every option of a run; the names are those of the flags, with underscores."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    input: str | None = None
    out: Place = DEFAULT_OUT
    id: Literal["key", "shard/key"] = "key"
    column: str | None = None
    model: str | None = None
    pretrained: str | None = None
    batch_size: Whole = Field(32, ge=1)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    threads: Whole = Field(1, ge=1)
    max_rejected: Number = Field(0.05, ge=0, le=1)
    clusters: Annotated[int, Field(ge=1, strict=True)] | Literal["auto"] = "auto"
    seed: Whole = Field(0, ge=0)
    keep: Number | None = None
    at_most: Number | None = None
    eps: Number | None = None
    rule: Annotated[str, AfterValidator(_known_rule)] = DEFAULT
    cover: bool = False
    prototypes: Place | None = None
    start: Literal["cluster", "zero"] = "cluster"
    calibrate: Literal["none", "zscore"] = "none"
    target: Literal["uniform", "data"] | dict[str, dict[str, Number]] = "uniform"
    temperature: Number | Literal["auto"] | dict[str, Number] = "auto"
    reserve: Number = Field(0.1, ge=0, le=0.3)
    prefer: str | None = None
    where: str | None = None
    drop: Place | None = None
    always_keep: Place | None = None
    against: tuple[Place, ...] = ()
    exclude_near: str | None = None
    exclude_near_eps: Number | None = None
    scheduler: str | None = None
    workers: Whole | None = Field(None, ge=1)
    memory_limit: MemoryOrAuto = "auto"

    @field_validator("*")
    @classmethod
    def _check_text(cls, value: Any) -> Any:
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, str | Path) and not is_text(str(part)):
                raise ValueError(f"it {NO_TEXT}")
        return value

    @model_validator(mode="after")
    def _check_folders(self) -> RunConfig:
        for option, folder in (("--out", self.out), *(("--against", run) for run in self.against)):
            place = str(folder.absolute())
            if not is_text(place):
                raise ValueError(f"{option} {str(folder)!r} is {place!r}, which {NO_TEXT}")
        return self

    @model_validator(mode="after")
    def _check_urls(self) -> RunConfig:
        check_writable(self.out, "--out")
        for name in ("prototypes", "drop", "always_keep"):
            file = getattr(self, name)
            if file is not None:
                check_local(file, f"--{name.replace('_', '-')}")
        for text in (self.input, self.exclude_near):
            check_url(text or "")
        return self

    @model_validator(mode="after")
    def _check_amount(self) -> RunConfig:
        given = [f"--{n.replace('_', '-')}" for n in ("keep", "at_most", "eps") if getattr(self, n) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} exclude each other: give one of --keep, --at-most and --eps")
        for name in ("keep", "at_most"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise ValueError(
                    f"--{name.replace('_', '-')} {value:g} is no fraction: give a number above 0 and up to 1, as 0.5"
                )
        if self.eps is not None and not 0 <= self.eps <= LARGEST_EPS:
            raise ValueError(f"--eps {self.eps:g} is out of range: give 0 (removes nothing) to 2, as 0.05")
        needs_column = find_rule(self.rule).needs_column
        if self.prefer is not None and not needs_column:
            implied = rule_for_column().name
            raise ValueError(f"--prefer goes with --rule {implied}, not with --rule {self.rule}: leave one of them out")
        if self.prefer is None and needs_column:
            raise ValueError(f"--rule {self.rule} needs --prefer COLUMN: name a column of numbers, as --prefer width")
        if self.scheduler and self.workers:
            raise ValueError("--scheduler and --workers exclude each other: a scheduler has its own workers")
        return self


STAGE_KEYS = {
    "embed": ("input", "id", "column", "model", "pretrained", "batch_size", "device", "dtype", "threads"),
    "cluster": ("clusters", "seed", "threads", "against"),
    "prune": (
        "keep", "at_most", "eps", "rule", "cover", "prototypes", "model", "pretrained", "start", "calibrate", "target",
        "temperature", "reserve", "seed", "prefer", "where", "drop", "always_keep", "exclude_near", "exclude_near_eps",
    ),
}  # fmt: skip


def load_config(file: Path | None, flags: dict[str, Any]) -> RunConfig:
    """Read the YAML file, lay the flags over it, and check every value.

    Parameters
    ----------
    file : Path or None
        None: ``fairdedup.yaml`` in the current folder if there is one.
    flags : dict
        What was given on the command line; None means not given.

    Raises
    ------
    UserError
        Naming the key, its value and the mend.
    """
    known: dict[str, Any] = {}
    place = file or (DEFAULT_FILE if DEFAULT_FILE.is_file() else None)
    if place is not None:
        known = read_yaml(place)
    given = {name: value for name, value in flags.items() if value is not None}
    for names in EXCLUSIVE:  # a flag beats the file, also where it says the same in another way
        if names & set(given):
            known = {name: value for name, value in known.items() if name not in names}
    if "against" in given:  # its eps is that of the earlier runs, and it keeps no fraction
        known = {name: value for name, value in known.items() if name not in ("keep", "eps")}
    if "prefer" in given and "rule" not in given:
        known["rule"] = rule_for_column().name
    elif "rule" in given and "prefer" not in given and not find_rule(given["rule"]).needs_column:
        known.pop("prefer", None)
    elif "prefer" in known:
        known.setdefault("rule", rule_for_column().name)
    try:
        return RunConfig(**{**known, **given})
    except ValidationError as error:
        raise UserError(first_error(error, place, given)) from None


def read_yaml(file: Path) -> dict[str, Any]:
    """Return the keys of a YAML file, with underscores.

    Raises
    ------
    UserError
        If it cannot be read, is no YAML of keys, or has a key in both its spellings.
    """
    try:
        known = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise UserError(f"--config {file}: {error.strerror}; give a YAML file") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: wrong bytes, or a 13th month
        mark = getattr(error, "problem_mark", None)
        where = f"at line {mark.line + 1}" if mark else f"({str(error).splitlines()[0]})"
        raise UserError(f"--config {file} is no YAML {where}: mend it") from None
    if not isinstance(known, dict):
        raise UserError(f"--config {file} holds no keys: write lines such as `keep: 0.5`")
    keys: dict[str, Any] = {}
    for name, value in known.items():
        key = str(name).replace("-", "_")
        if key in keys:
            raise UserError(f"--config {file} has {key} in two spellings: take one of them out")
        keys[key] = value
    return keys


def first_error(
    error: ValidationError, place: Path | None, given: Collection[str] = (), model: type[BaseModel] = RunConfig,
    seen: str = "fairdedup run --help",
) -> str:  # fmt: skip
    """Return the first error of a validation as one line.

    Parameters
    ----------
    error : ValidationError
    place : Path or None
        The file that the values come from, but for those in `given`, which are flags.
    given : collection of str
    model : type
        What they were read as.
    seen : str
        Where all its keys are to be seen.
    """
    found = error.errors()[0]
    if not found["loc"]:
        return str(found["msg"]).removeprefix("Value error, ")
    name = str(found["loc"][0])
    source = f"--{name.replace('_', '-')}" if name in given else f"{name} in {place}"
    if found["type"] == "extra_forbidden":
        import difflib

        near = difflib.get_close_matches(name, list(model.model_fields), 1)
        return f"{source} is no option: {'did you mean ' + near[0] if near else 'see ' + seen}"
    if found["type"] == "missing":
        return f"{source} is missing: add a line `{name}: ...`"
    value = found["input"]
    if found["type"] == "value_error":
        return f"{source} {value!r}: {str(found['msg']).removeprefix('Value error, ')}"
    return f"{source} {value!r} cannot be used: {found['msg'][0].lower()}{found['msg'][1:]}"
