"""Ages that a spreadsheet took for dates, such as "3-Sep" for 3-9: those of FairFace's files are restored.

Other dates in a column of ages are refused, since they are no group of people.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from fairdedup.errors import UserError

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
RANGES = {(3, 9): "3-9", (10, 19): "10-19"}
"""Ranges of FairFace's ages of which one number is a month and the other a day."""

_WORDS = re.compile("[^a-z]+")
_DATE = re.compile(r"(?:(?P<day>\d{1,2})-(?P<month>[a-z]{3})|(?P<month_first>[a-z]{3})-(?P<day_last>\d{1,2}))", re.I)
_OTHER_DATE = re.compile(r"\d{4}-\d{1,2}-\d{1,2}(?:[ T].*)?|\d{1,2}[/.]\d{1,2}[/.]\d{2,4}")


def is_age_column(name: str) -> bool:
    """Return whether a column has ages, by its name: "age", "Age group", "perceived_age"."""
    return "age" in _WORDS.split(name.lower())


def restore_ages(values: Iterable[str], column: str, what: str) -> dict[str, str]:
    """Return the age of each value that a spreadsheet took for a date.

    Parameters
    ----------
    values : iterable of str
        The distinct values of a column of ages.
    column : str
        Its name, for the error.
    what : str
        The file, for the error.

    Raises
    ------
    UserError
        If a value is a date that is no range of ages of FairFace.
    """
    restored: dict[str, str] = {}
    for value in values:
        date = _DATE.fullmatch(value.strip())
        month = "" if date is None else (date["month"] or date["month_first"]).lower()
        if date is not None and month in MONTHS:
            numbers = sorted((MONTHS.index(month) + 1, int(date["day"] or date["day_last"])))
            age = RANGES.get((numbers[0], numbers[1]))
            if age is not None:
                restored[value] = age
                continue
            shown = f", perhaps of {numbers[0]}-{numbers[1]}"
        elif _OTHER_DATE.fullmatch(value.strip()):
            shown = ""
        else:
            continue
        raise UserError(
            f"{what}: column {column!r} has {value!r}, a date that a spreadsheet has made of an age{shown}; write the "
            "ages as text, such as '3 to 9'"
        )
    return restored
