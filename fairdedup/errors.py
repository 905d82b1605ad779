"""The errors that fairdedup raises on purpose; each message is one line: what, where, the mend."""

from __future__ import annotations

import re
from collections.abc import Collection


def visible(text: str) -> str:
    r"""Return a text as one line, with what a hostile name might do to a terminal spelt out, as ``\x1b``."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(text.split("\n")))


NO_TEXT = "has bytes that are no UTF-8, and what a run was asked for is stored as text: give it another name"


def is_text(name: str) -> bool:
    """Tell whether a name can be stored as UTF-8; one of a file whose bytes are something else cannot."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def flags_for_parameters(message: str, options: Collection[str]) -> str:
    """Return a message in which parameters in backquotes are written as flags of the command line.

    "`at_most=0.5`" becomes "--at-most 0.5" and "`at_most`" becomes "--at-most". What is not the name of an option
    stays as it is, backquotes included.

    Parameters
    ----------
    message : str
        Message of an error that speaks of parameters.
    options : collection of str
        Names of the options, with underscores.
    """

    def translate(found: re.Match[str]) -> str:
        name, value = found[1], found[2]
        if name not in options:
            return found[0]
        flag = f"--{name.replace('_', '-')}"
        return flag if value is None else f"{flag} {value}"

    return re.sub(r"`([a-z_]+)(?:=([^`]*))?`", translate, message)


class FairdedupError(Exception):
    """Something failed for good; the message names the place and the reason (exit code 1)."""


class UserError(FairdedupError, ValueError):
    """The user's mistake; the message names the value, the place and the mend (exit code 2)."""
