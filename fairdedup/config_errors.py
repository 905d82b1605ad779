"""The first error of a validation of options as one line: which option, its value, and a remedy."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

MOST_SHOWN = 300
"""Letters of a value in a message."""


def flag(name: str) -> str:
    """Return the flag of an option: "--at-most" for "at_most".

    Parameters
    ----------
    name : str
        Name of the option.
    """
    return f"--{name.replace('_', '-')}"


def first_error(
    error: ValidationError,
    place: Path | None,
    given: Collection[str] = (),
    *,
    model: type[BaseModel],
    documented: str = "fairdedup run --help",
) -> str:
    """Return the first error of a validation as one line.

    Parameters
    ----------
    error : ValidationError
        Error that pydantic raised.
    place : Path or None
        File that the values come from, except those in `given`.
    given : collection of str
        Names of the values that were flags.
    model : type
        Model that was validated.
    documented : str
        Where all keys of the model are listed.
    """
    found = _most_telling(error)
    message = str(found["msg"]).removeprefix("Value error, ")
    if not found["loc"]:
        return message
    name, value = str(found["loc"][0]), found["input"]
    if name in _NESTED and (len(found["loc"]) > 2 or found["type"] in ("literal_error", "float_parsing")):
        return _describe_nested(error, found, flag(name) if name in given else f"{name} in {place}")
    source = flag(name) if name in given else f"{name} in {place}"
    if found["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name, list(model.model_fields), 1)
        return f"{source} is not an option. {f'Did you mean {near[0]}?' if near else f'See {documented}.'}"
    if found["type"] == "missing":
        return f"{source} is missing. Add a line `{name}: ...`."
    if message.endswith("."):
        return f"{source} {_shorten(value)} {message}"
    return f"{source} {_reword(message)}; got {_shorten(value)}."


_NESTED = {
    "target": "uniform, data, or shares such as {age: {old: 0.5, young: 0.5}}",
    "temperature": "a number above 0, auto, or numbers such as {age: 0.1}",
}


def _most_telling(error: ValidationError) -> Any:
    """Return the first error of a validation; of a value that may have several forms, that of the nearest form."""
    first, *others = error.errors()
    if first["loc"] and first["loc"][0] in _NESTED:
        same = [each for each in others if each["loc"][:1] == first["loc"][:1]]
        return max((first, *same), key=lambda each: len(each["loc"]))  # the first of those that are equally deep
    return first


def _describe_nested(error: ValidationError, found: Any, source: str) -> str:
    """Return the message for a value with keys: its forms, and what is wrong at which keys."""
    name = found["loc"][0]
    keys = "".join(f"[{key!r}]" for key in found["loc"][2:])
    whole = next((each["input"] for each in error.errors() if each["loc"][0] == name and len(each["loc"]) <= 2), None)
    message = _reword(str(found["msg"]).removeprefix("Value error, "))
    wrong = f": {name}{keys} {message}" if keys else ""
    got = found["input"] if whole is None else whole
    return f"{source} must be {_NESTED[name]}{wrong}; got {_shorten(got)}."


def _shorten(value: object) -> str:
    """Return a value as it is written in Python; of a long one only the beginning, since a message is one line."""
    text = repr(value)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."


def _reword(message: str) -> str:
    """Return a message of pydantic in the words of the other messages."""
    message = re.sub("^(Input|String) should ", "must ", message)
    message = message.replace("a valid dictionary", "keys with values").partition(", unable to parse")[0]
    return message.replace("greater than or equal to", "at least").replace("less than or equal to", "at most")
