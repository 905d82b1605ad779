"""Checks the types of the arguments of `deduplicate()`, so that a wrong one is a line of text, not a TypeError inside.

It checks types alone. Whether a value is in range is checked where it is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from numbers import Integral, Real
from typing import Any

import numpy as np

from fairdedup.errors import UserError


def read_number(name: str, value: Any, example: str) -> float:
    """Return a number as a float; a float of NumPy stays as narrow as it is.

    Parameters
    ----------
    name : str
        Name of the argument.
    value : object
        What the caller gave.
    example : str
        A value that works.

    Raises
    ------
    UserError
        If it is not a number. Text that looks like one is not.
    """
    item = _unwrap(value)
    if isinstance(item, (bool, np.bool_)) or not isinstance(item, (Real, Decimal)):
        raise UserError(f"`{name}` must be a number; got {describe(value)}: give one such as `{name}={example}`")
    if isinstance(item, np.floating):
        return item
    try:
        return float(item)
    except (OverflowError, ValueError):
        raise UserError(f"`{name}` must be a number; got {describe(value)}: give `{name}={example}`") from None


def read_whole(name: str, value: Any) -> int:
    """Return a whole number as an int.

    Parameters
    ----------
    name : str
        Name of the argument.
    value : object
        What the caller gave.

    Raises
    ------
    UserError
        If it is not a whole number.
    """
    item = _unwrap(value)
    if isinstance(item, (bool, np.bool_)) or not isinstance(item, Integral):
        raise UserError(f"`{name}` must be a whole number; got {describe(value)}: give one such as `{name}=0`")
    return int(item)


def read_flag(name: str, value: Any) -> bool:
    """Return True or False.

    Parameters
    ----------
    name : str
        Name of the argument.
    value : object
        What the caller gave.

    Raises
    ------
    UserError
        If it is neither of them, nor 1 or 0.
    """
    item = _unwrap(value)
    if not isinstance(item, (bool, np.bool_, Integral)) or item not in (0, 1):
        raise UserError(f"`{name}` must be True or False; got {describe(value)}: give one of them")
    return bool(item)


def check_text(name: str, value: Any, forms: str) -> None:
    """Refuse what is not text.

    Parameters
    ----------
    name : str
        Name of the argument.
    value : object
        What the caller gave.
    forms : str
        What it may be, for the message.

    Raises
    ------
    UserError
        If it is not text.
    """
    if not isinstance(value, str):
        raise UserError(f"`{name}` must be text; got {describe(value)}: choose {forms}")


def check_choice(name: str, value: Any, forms: str, *, number: bool = False) -> None:
    """Refuse what is neither text nor a mapping, nor a number if that is allowed.

    Parameters
    ----------
    name : str
        Name of the argument.
    value : object
        What the caller gave.
    forms : str
        What it may be, for the message.
    number : bool
        Whether it may be a number.

    Raises
    ------
    UserError
        If it is anything else.
    """
    if isinstance(value, (str, Mapping)):
        return
    if number and isinstance(value, Real) and not isinstance(value, (bool, np.bool_)):
        return
    raise UserError(f"`{name}` must be {forms}; got {describe(value)}")


def describe(value: Any) -> str:
    """Return a value and its type on one short line.

    Parameters
    ----------
    value : object
        What the caller gave.
    """
    if value is None or isinstance(value, (bool, np.bool_)):
        return str(value)
    text = " ".join(repr(value.item() if isinstance(value, np.generic) else value).split())
    kind = type(value).__name__
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({kind})"


def _unwrap(value: Any) -> Any:
    """Return the number in an array or a tensor of no dimensions."""
    if isinstance(value, np.ma.MaskedArray) and np.ma.getmaskarray(value).any():
        return value  # no number
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        return value if isinstance(value, np.generic) else value.item()
    return value
