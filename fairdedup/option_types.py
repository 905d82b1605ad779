"""Types of option values that pydantic does not have: amounts of memory, numbers, paths or URLs, and names of rules.

Each type checks one value. Options that contradict each other are refused in `config.py`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, PlainSerializer, PlainValidator

from fairdedup.core.rules.registry import rule_names
from fairdedup.storage.object_stores import as_path


def parse_memory(value: Any) -> str:
    """Return an amount of memory without blanks, such as "4GiB".

    Parameters
    ----------
    value : str
        A number above 0 and its unit, KB to TiB.

    Raises
    ------
    ValueError
        If the value is anything else.
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) *([KMGT]i?B)", str(value), re.IGNORECASE)
    if not match or not float(match[1]):
        raise ValueError("must be an amount of memory, such as 4GiB")
    return match[1] + match[2]


def _parse_memory_or_auto(value: Any) -> str:
    try:
        return "auto" if value == "auto" else parse_memory(value)
    except ValueError as error:
        raise ValueError(f"{error}, or auto") from None


Memory = Annotated[str, BeforeValidator(parse_memory)]
MemoryOrAuto = Annotated[str, BeforeValidator(_parse_memory_or_auto)]


def _refuse_bool(value: Any) -> Any:
    """Refuse `true` and `false`, which Python reads as 1 and 0."""
    if isinstance(value, bool):
        raise ValueError("must be a number")
    return value


Number = Annotated[float, BeforeValidator(_refuse_bool)]
Whole = Annotated[int, BeforeValidator(_refuse_bool)]


def _parse_place(value: Any) -> Path:
    """Return the path that a text or a URL names."""
    if not isinstance(value, str | Path):
        raise ValueError("must be a path")
    if value == "":
        raise ValueError("is empty. Give a name or leave it out.")
    return as_path(value)


Place = Annotated[Path, PlainValidator(_parse_place), PlainSerializer(str, when_used="json")]


def _check_rule(value: str) -> str:
    """Refuse a name that is not registered."""
    if value not in rule_names():
        raise ValueError(f"must be one of {', '.join(rule_names())}")
    return value


RegisteredRule = Annotated[str, AfterValidator(_check_rule)]
