"""The errors that fairdedup raises on purpose. Each message is one line: what is wrong, where, and a remedy."""

from __future__ import annotations

import re
from collections.abc import Collection

NOT_TEXT = "has bytes that are not UTF-8, and a run stores its options as text. Rename it."
_PARAMETER = re.compile(r"`([a-z_]+)(?:=([^`]*))?`")

MOST_QUOTED = 300  # characters of a library's message


class FairdedupError(Exception):
    """Base class: something failed for good. The message names the place and the reason (exit code 1)."""


class UserError(FairdedupError, ValueError):
    """A mistake of the user. The message names the value, the place and a remedy (exit code 2)."""


class LastingError(FairdedupError):
    """A failure that another try at once would only repeat, such as a machine without a network (exit code 1)."""


def flags_for_parameters(message: str, options: Collection[str]) -> str:
    """Replace Python parameters in a message by flags of the command line.

    Parameters
    ----------
    message : str
        A message in which parameters are in backquotes, such as "`at_most=0.5`" or "`at_most`".
    options : collection of str
        Names of the parameters that are flags too. Other text in backquotes is not changed.

    Returns
    -------
    str
        The message with "--at-most 0.5" or "--at-most". "`cover=True`" and "`cover=False`" become "--cover" and
        "--no-cover".
    """

    def flag(found: re.Match[str]) -> str:
        name, value = found.groups()
        if name not in options:
            return found[0]
        words = name.replace("_", "-")
        if value in ("True", "False"):
            return f"--{words}" if value == "True" else f"--no-{words}"
        return f"--{words} {value}" if value else f"--{words}"

    return _PARAMETER.sub(flag, message)


def first_line(error: BaseException | str) -> str:
    """Return the first line of what a library says, which may quote the file: 300 characters of it at most.

    Parameters
    ----------
    error : Exception or str
        What it raised or said; the name of the class counts where it says nothing.
    """
    lines = str(error).strip().splitlines() or ["no message" if isinstance(error, str) else type(error).__name__]
    return lines[0] if len(lines[0]) <= MOST_QUOTED else f"{lines[0][:MOST_QUOTED]} …"


def format_count(number: int, one: str, several: str = "") -> str:
    """Return a number with its noun: "1 sample", "2,000 samples".

    Parameters
    ----------
    number : int
        The number.
    one : str
        The words after 1, such as "sample was".
    several : str
        The words after any other number; if empty, `one` with an "s".
    """
    return f"{number:,} {one if number == 1 else several or f'{one}s'}"


def format_seconds(seconds: float) -> str:
    """Return a duration: 0.4 s, 12 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def visible(text: str) -> str:
    r"""Return a text as one line, with control characters escaped, such as ``\x1b``.

    Parameters
    ----------
    text : str
        Any text, from the data too.
    """
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(text.split("\n")))


def is_text(name: str) -> bool:
    """Tell whether a name can be stored as UTF-8. File names can contain other bytes.

    Parameters
    ----------
    name : str
        Name of a file, or an option.
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
