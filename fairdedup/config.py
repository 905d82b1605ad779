"""The configuration of a run: reads the YAML file, overrides it with the flags, and checks every value.

It checks options alone, never the data or the run directory.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from fairdedup.config_errors import first_error, flag
from fairdedup.core.rules.registry import DEFAULT, find_rule, rule_for_column, rule_names, sweeping_names
from fairdedup.errors import NOT_TEXT, UserError, first_line, is_text
from fairdedup.option_types import MemoryOrAuto, Number, Place, RegisteredRule, Whole
from fairdedup.path_expansion import expand_model, expand_path
from fairdedup.storage.object_stores import check_local, check_url, check_writable
from fairdedup.storage.plain_files import read_plain_text
from fairdedup.storage.shipped_files import PROTOTYPES, find_shipped_prototypes
from fairdedup.yaml_files import MOST_BYTES, RepeatedKeyError, TooLargeError, parse_yaml

DEFAULT_FILE = Path("fairdedup.yaml")
DEFAULT_OUT = Path("fairdedup-run")
LARGEST_EPS = 2.0001  # at this eps, every two samples are duplicates
PATHS = ("input", "out", "prototypes", "drop", "always_keep", "against", "exclude_near")  # ~ and $VAR are expanded
MODELS = ("model", "pretrained")  # names, or paths
# A flag overrides its whole set in the file.
EXCLUSIVE = ({"keep", "at_most", "eps"}, {"scheduler", "workers"}, {"published", "cover"}, {"published", "reach"})
WITHIN_CLUSTERS = {"cover": False, "reach": 0.0}  # the procedure of the papers


class RunConfig(BaseModel):
    """All options of a run. The names are those of the flags, with underscores; `--help` describes them."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    input: str | None = None
    out: Place = DEFAULT_OUT
    id: Literal["key", "shard/key"] = "key"
    column: str | None = None
    model: str | None = None
    pretrained: str | None = None
    batch_size: Whole = Field(32, ge=1)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "float32"
    threads: Whole = Field(1, ge=1)
    decoders: Annotated[int, Field(ge=0, le=64, strict=True)] | Literal["auto"] = "auto"
    skip_damaged: bool = False
    max_rejected: Number = Field(0.05, ge=0, le=1)
    clusters: Annotated[int, Field(ge=1, strict=True)] | Literal["auto"] = "auto"
    seed: Whole = Field(0, ge=0)
    keep: Number | None = None
    at_most: Number | None = None
    eps: Number | None = None
    rule: RegisteredRule = DEFAULT
    cover: bool = True
    reach: Annotated[Number, Field(ge=0, le=2)] | Literal["auto"] = "auto"
    reach_clusters: Whole = Field(16, ge=1)
    published: bool = False
    prototypes: Place | None = None
    start: Literal["cluster", "zero"] = "cluster"
    calibrate: Literal["none", "zscore"] = "none"
    target: Literal["uniform", "data"] | dict[str, dict[str, Number]] = "uniform"
    temperature: Number | Literal["auto"] | dict[str, Number] = "auto"
    reserve: Number = Field(0.1, ge=0, le=0.3)
    prefer: str | None = None
    within: str | None = None
    where: str | None = None
    drop: Place | None = None
    always_keep: Place | None = None
    against: tuple[Place, ...] = ()
    exclude_near: str | None = None
    exclude_near_eps: Number | None = None
    leftover: Whole = Field(1000, ge=0, le=100_000)
    collect: tuple[str, ...] = ()
    report: bool = True
    images: bool = True
    scheduler: str | None = None
    workers: Whole | None = Field(None, ge=1)
    memory_limit: MemoryOrAuto = "auto"

    @model_validator(mode="before")
    @classmethod
    def _settle_comparison(cls, given: Any) -> Any:
        """Set `cover` and `reach` where the rule does not read them, and where ``--published`` says what they are."""
        if not isinstance(given, dict):
            return given
        if given.get("published") is True:
            for name, only in WITHIN_CLUSTERS.items():
                if given.get(name, only) != only:
                    words = flag(name) if name == "cover" else f"{flag(name)} {given[name]}"
                    raise ValueError(f"--published is --no-cover --reach 0; got {words}. Leave one of them out.")
            return {**given, **WITHIN_CLUSTERS}
        name = given.get("rule", DEFAULT)
        reads_them = name in sweeping_names() or name not in rule_names()  # which is refused later
        return given if reads_them else {**WITHIN_CLUSTERS, **given}

    @field_validator("*")
    @classmethod
    def _check_text(cls, value: Any) -> Any:
        """Refuse text that cannot be stored as UTF-8, or that no path can hold."""
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, str | Path) and not is_text(str(part)):
                raise ValueError(NOT_TEXT)
            if isinstance(part, str | Path) and "\0" in str(part):
                raise ValueError("has a null character, which no name can hold. Remove it.")
        return value

    @field_validator("prototypes")
    @classmethod
    def _find_shipped(cls, value: Path | None) -> Path | None:
        """Return the path of a shipped file of captions that is named without its folder; a file of that name wins."""
        if value is None or str(value) not in PROTOTYPES or value.exists():
            return value
        return find_shipped_prototypes(value.name)

    @field_validator("collect")
    @classmethod
    def _name_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        """Return the columns without those that are named again."""
        return tuple(dict.fromkeys(value))

    @model_validator(mode="after")
    def _check_run_directories(self) -> RunConfig:
        """Refuse a run directory whose absolute path cannot be stored as UTF-8."""
        for option, folder in (("--out", self.out), *(("--against", run) for run in self.against)):
            place = str(folder.absolute())
            if not is_text(place):
                raise ValueError(f"{option} {str(folder)!r} is {place!r}, which {NOT_TEXT}")
        return self

    @model_validator(mode="after")
    def _check_urls(self) -> RunConfig:
        """Refuse URLs where only local files work."""
        check_writable(self.out, "--out")
        for name in ("prototypes", "drop", "always_keep"):
            file = getattr(self, name)
            if file is not None:
                check_local(file, flag(name))
        for text in (self.input, self.exclude_near):
            check_url(text or "")
        return self

    @model_validator(mode="after")
    def _check_amount(self) -> RunConfig:
        """Refuse more than one amount to keep, and an amount that is out of range."""
        given = [flag(name) for name in ("keep", "at_most", "eps") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} exclude each other. Give one of --keep, --at-most or --eps.")
        for name in ("keep", "at_most"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                remedy = (
                    f"For {value:g} %, write {value / 100:g}." if 1 < value <= 100 else "Write a fraction, such as 0.5."
                )
                raise ValueError(f"{flag(name)} must be in (0, 1]; got {value:g}. {remedy}")
        if self.eps is not None and not 0 <= self.eps <= LARGEST_EPS:
            raise ValueError(f"--eps must be between 0 (removes nothing) and 2, such as 0.05; got {self.eps:g}.")
        return self

    @model_validator(mode="after")
    def _check_prefer(self) -> RunConfig:
        """Refuse a preferred column without the rule that reads it, and the rule without a column."""
        needs_column = find_rule(self.rule).needs_column
        if self.prefer is not None and not needs_column:
            implied = rule_for_column().name
            raise ValueError(
                f"--prefer works only with --rule {implied}; got --rule {self.rule}. Leave one of them out."
            )
        if self.prefer is None and needs_column:
            raise ValueError(
                f"--rule {self.rule} needs --prefer COLUMN. Name a column of numbers, such as --prefer width."
            )
        return self

    @model_validator(mode="after")
    def _check_workers(self) -> RunConfig:
        if self.scheduler and self.workers:
            raise ValueError(
                "--scheduler and --workers exclude each other: a scheduler has its own workers. Leave --workers out."
            )
        return self


_AMOUNT = ("keep", "at_most", "eps")
_RULE = (
    *("rule", "cover", "reach", "reach_clusters", "prototypes", "model", "pretrained", "start", "calibrate", "target"),
    *("temperature", "reserve", "seed"),
)
_CURATION = ("prefer", "within", "where", "drop", "always_keep", "exclude_near", "exclude_near_eps")

# The options that each stage depends on. config.json stores them by stage, in this order.
STAGE_KEYS = {
    "embed": ("input", "id", "column", "model", "pretrained", "batch_size", "device", "dtype", "threads"),
    "cluster": ("clusters", "seed", "threads", "against"),
    "prune": (*_AMOUNT, *_RULE, *_CURATION, "leftover", "collect"),
}


def load_config(file: Path | None, flags: dict[str, Any]) -> RunConfig:
    """Read the YAML file, override it with the flags, and check every value.

    Parameters
    ----------
    file : Path or None
        The YAML file. None means ``fairdedup.yaml`` in the current folder, if it exists.
    flags : dict
        Values of the flags by name of the option. None means that a flag was not given.

    Raises
    ------
    UserError
        If a value is wrong. The message names the option, its value and a remedy.
    """
    place = file or (DEFAULT_FILE if DEFAULT_FILE.is_file() else None)
    known = {} if place is None else read_yaml(place)
    given = {name: value for name, value in flags.items() if value is not None}
    overridden = {name for names in EXCLUSIVE if names & set(given) for name in names}
    if "against" in given:  # the earlier runs set eps, and a fraction cannot be kept exactly
        overridden |= {"keep", "eps"}
    known = {name: value for name, value in known.items() if name not in overridden}
    if "prefer" in given and "rule" not in given:
        known["rule"] = rule_for_column().name
    elif "rule" in given and "prefer" not in given and not find_rule(given["rule"]).needs_column:
        known.pop("prefer", None)
    elif "prefer" in known:
        known.setdefault("rule", rule_for_column().name)
    for name, value in known.items():
        if name not in given:  # a variable in a path that is not used need not be set
            known[name] = _expand(name, value, f"{name} in {place}")
    return build_config({**known, **given}, place, given)


def build_config(values: dict[str, Any], place: Path | None = None, given: Collection[str] = ()) -> RunConfig:
    """Return the configuration with some values, and the defaults of the others.

    Parameters
    ----------
    values : dict
        Values by name of the option.
    place : Path or None
        The YAML file, for messages.
    given : collection of str
        Names of the options that the user gave as flags, for messages.

    Raises
    ------
    UserError
        If a value is wrong. The message names the option, its value and a remedy.
    """
    try:
        return RunConfig(**values)
    except ValidationError as error:
        raise UserError(first_error(error, place, given, model=RunConfig)) from None


def _expand(name: str, value: Any, what: str) -> Any:
    """Return the value of a key of the YAML file, with ~ and variables expanded if it is a path."""
    if name in PATHS and isinstance(value, list):
        return [_expand(name, each, what) for each in value]
    if not isinstance(value, str):
        return value
    if name in MODELS:
        return expand_model(value, what)
    return expand_path(value, what) if name in PATHS else value


def read_yaml(file: Path) -> dict[str, Any]:
    """Return the keys of a YAML file, with underscores.

    Parameters
    ----------
    file : Path
        A YAML file.

    Raises
    ------
    UserError
        If it cannot be read, is not a YAML file with keys, is too large, or has a key twice, or with dashes and with
        underscores.
    """
    try:
        known = parse_yaml(read_plain_text(file, f"--config {file}", most=MOST_BYTES)) or {}
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"--config {file}: {error.strerror}. Give a YAML file.") from None
    except RepeatedKeyError as error:
        raise UserError(f"--config {file} {error}. Remove one of them.") from None
    except TooLargeError as error:
        raise UserError(f"--config {file} {error}.") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: not UTF-8, or a date with a 13th month
        mark = getattr(error, "problem_mark", None)
        where = f"at line {mark.line + 1}" if mark else f"({first_line(error)})"
        raise UserError(f"--config {file} is not valid YAML {where}. Fix it.") from None
    if not isinstance(known, dict):
        raise UserError(f"--config {file} has no keys. Write lines such as `keep: 0.5`.")
    keys: dict[str, Any] = {}
    for name, value in known.items():
        key = str(name).replace("-", "_")
        if key in keys:
            raise UserError(f"--config {file} has {key} in two spellings. Remove one of them.")
        keys[key] = value
    return keys
