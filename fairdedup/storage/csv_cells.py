"""Text in cells of CSV files: what a spreadsheet would run as a formula gets an apostrophe in front of it.

Ids and captions come from the web. A cell that begins with = can send a table to a stranger when it is opened in a
spreadsheet. The apostrophe is what OWASP recommends; `restore_cell` takes it away again. Where numbers have a decimal
comma, spreadsheets begin a cell behind a semicolon, and some behind a tab or the end of a line, whatever the quotes.
"""

from __future__ import annotations

import re

STARTS = "=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"  # and the wide forms of the first four, which some spreadsheets accept
_FORMULA = re.compile(rf"(?:\A|(?<=[;\t\r\n]))('*)(?=[{re.escape(STARTS)}])")  # where some spreadsheets begin a cell
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


def neutralise_cell(value: object) -> object:
    """Return the value of a cell, with an apostrophe before a text that a spreadsheet would take for a formula.

    Parameters
    ----------
    value : object
        A number, which stays as it is, or a text. A text that is a number, such as "-5", stays as well. Apostrophes
        before such a beginning get one more, so that no two texts become the same.
    """
    if not isinstance(value, str) or _NUMBER.fullmatch(value):
        return value
    return _FORMULA.sub(r"'\1", value)


def restore_cell(text: str) -> str:
    """Return the text that `neutralise_cell` has made a cell of."""
    return _FORMULA.sub(lambda found: found[1][1:], text)
