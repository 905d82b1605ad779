"""Types of option values that click does not have: places, lists, sizes, and "a number or auto"."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fairdedup.core.rules.registry import rule_names
from fairdedup.errors import UserError
from fairdedup.path_expansion import expand_model, expand_path
from fairdedup.storage.object_stores import as_path, check_local, check_url

MOST_ROWS = 10**15  # of which every formula still fits into a float


def name_option(param: click.Parameter | None, ctx: click.Context | None) -> str:
    """Return the name of an option or argument, for error messages."""
    return param.get_error_hint(ctx).strip("'") if param and ctx else "this option"


class Place(click.Path):
    """A path or a URL; ~ and variables of the environment are expanded."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path."""
        if value == "":
            raise UserError(f"{name_option(param, ctx)} is empty. Give a name or leave it out.")
        return as_path(expand_path(value, name_option(param, ctx)) if isinstance(value, str) else value)


class PathText(click.ParamType):
    """A path, a pattern of paths or a URL that stays text; ~ and variables of the environment are expanded."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text."""
        text = expand_path(value, name_option(param, ctx))
        check_url(text)  # a variable may hold credentials
        return text


class ModelName(click.ParamType):
    """The name of a model or of its weights, or a path to them, which is expanded."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name."""
        return expand_model(value, name_option(param, ctx))


class LocalFile(Place):
    """A local path. URLs are refused."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path."""
        place = super().convert(value, param, ctx)
        check_local(place, name_option(param, ctx))
        return place


class NumberOrAuto(click.ParamType):
    """A number, or the word `auto`."""

    name = "number"

    def __init__(self, number: type[int] | type[float]) -> None:
        self.number = number

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | str:
        """Return the number, or "auto"."""
        if value == "auto":
            return "auto"
        try:
            return self.number(value)
        except ValueError:
            kind = "a whole number" if self.number is int else "a number"
            raise UserError(f"{name_option(param, ctx)} must be {kind} or auto; got {value!r}.") from None


class Count(click.ParamType):
    """A whole number from 1 to 1e15, which may be written as 400e6 or 400_000_000."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number."""
        text = str(value)
        try:
            whole = int(text) if text.replace("_", "").isdigit() else _to_whole(float(text))
        except ValueError:
            whole = 0
        if not 1 <= whole <= MOST_ROWS:
            raise UserError(
                f"{name_option(param, ctx)} must be a whole number from 1 to 1e15, such as 1000000 or 400e6; "
                f"got {value!r}."
            )
        return whole


def _to_whole(number: float) -> int:
    """Return a number as an integer; 0 if it is none."""
    return int(number) if number.is_integer() else 0


class RuleName(click.ParamType):
    """The name of a rule that is registered when the command line is parsed."""

    name = "rule"

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """Return the names of the rules, for the help."""
        return f"[{'|'.join(rule_names())}]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name."""
        return click.Choice(rule_names()).convert(value, param, ctx)


class Names(click.ParamType):
    """Names, separated by commas; `none` means an empty list, if that is allowed."""

    name = "names"

    def __init__(self, none_allowed: bool = False) -> None:
        self.none_allowed = none_allowed

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Return the names."""
        if isinstance(value, tuple):
            return value
        if self.none_allowed and value == "none":
            return ()
        names = tuple(name.strip() for name in value.split(","))
        if not all(names):
            raise UserError(
                f"{name_option(param, ctx)} must be names separated by commas, such as gender,age; got {value!r}."
            )
        return names


class Fractions(click.ParamType):
    """Numbers, separated by commas."""

    def __init__(self, name: str = "fractions", example: str = "0.3,0.5,0.8") -> None:
        self.name, self.example = name, example

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[float]:
        """Return the numbers. The command checks that they are in their range."""
        if isinstance(value, list):
            return value
        try:
            return [float(text) for text in value.split(",")]
        except ValueError:
            raise UserError(
                f"{name_option(param, ctx)} must be {self.name} separated by commas, such as {self.example}; "
                f"got {value!r}."
            ) from None


class Bytes(click.ParamType):
    """An amount of bytes with its unit, such as 1GB or 512MiB."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number of bytes."""
        from dask.utils import parse_bytes

        from fairdedup.option_types import parse_memory

        try:
            size = int(parse_bytes(parse_memory(value)))
        except ValueError:
            size = 0
        if not size:
            raise UserError(
                f"{name_option(param, ctx)} must be an amount of bytes, such as 1GB or 512MiB; got {value!r}."
            )
        return size


PLACE, FILE, PATH_TEXT, MODEL_NAME = Place(), LocalFile(), PathText(), ModelName()
