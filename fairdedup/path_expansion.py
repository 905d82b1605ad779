"""Expands ~, $VAR and ${VAR} in the paths of options, as a shell does; a name that exists as it is written stays so.

A shell does it for words of the command line. It does not for the YAML file, for quoted words and for --option=~/x.
"""

from __future__ import annotations

import os
import re

from fairdedup.errors import UserError

_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))")
_HOME = re.compile(r"~[A-Za-z0-9_.-]*(?=/|$)")


def expand_path(text: str, what: str) -> str:
    """Return a path, a pattern of paths or a URL with ~ and variables of the environment expanded.

    Parameters
    ----------
    text : str
        What the user wrote. If a file of just this name exists, or a folder whose name holds the variable, it is meant.
    what : str
        The option, for messages.

    Raises
    ------
    UserError
        If a variable is not set, or is empty.
    """
    if "$" not in text and not text.startswith("~") or _exists(text):
        return text
    home = _HOME.match(text)
    start, rest = (os.path.expanduser(home[0]), text[home.end() :]) if home else ("", text)
    ends = [found.end() for found in _VARIABLE.finditer(rest)]
    if not ends or _exists(start + _leading_part(rest, ends[-1])):
        return start + rest
    return start + _VARIABLE.sub(lambda found: _value_of(found, text, what), rest)


def _exists(text: str) -> bool:
    try:
        return os.path.lexists(text)
    except ValueError:  # a zero byte
        return False


def _leading_part(text: str, end: int) -> str:
    """Return the path up to the end of the name that holds a place in it."""
    slash = text.find("/", end)
    return text if slash < 0 else text[:slash]


def _value_of(found: re.Match[str], text: str, what: str) -> str:
    name = found[1] or found[2]
    value = os.environ.get(name)
    if not value:
        state = "is not set" if value is None else "is empty"
        raise UserError(
            f"{what} {text!r}: the environment variable {name} {state}. Set it, or write the path without it."
        )
    return value


def expand_model(text: str, what: str) -> str:
    """Return the name of a model or of weights; expanded if it is a path, and after ``local-dir:``.

    Parameters
    ----------
    text : str
        What the user wrote: a name, a path, or ``local-dir:`` and a folder. ``hf-hub:`` is followed by a name.
    what : str
        The option, for messages.

    Raises
    ------
    UserError
        If a variable is not set, or is empty.
    """
    if text.startswith("hf-hub:"):
        return text
    prefix = "local-dir:" if text.startswith("local-dir:") else ""
    return prefix + expand_path(text.removeprefix(prefix), what)
