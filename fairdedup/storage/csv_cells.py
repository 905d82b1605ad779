"""Text in cells of CSV files: what a spreadsheet would run as a formula gets an apostrophe in front of it.

Ids and captions come from the web. A cell that begins with = can send a table to a stranger when it is opened in a
spreadsheet. The apostrophe is what OWASP recommends; `restore_cell` takes it away again.
"""

from __future__ import annotations

import re

STARTS = "=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"  # and the wide forms of the first four, which some spreadsheets accept
_FORMULA = re.compile(f"'*[{re.escape(STARTS)}]")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


def neutralise_cell(value: object) -> object:
    """Return the value of a cell, with an apostrophe before a text that a spreadsheet would take for a formula.

    Parameters
    ----------
    value : object
        A number, which stays as it is, or a text. A text that is a number, such as "-5", stays as well. A text that
        begins with apostrophes before such a beginning gets one more, so that no two texts become the same.
    """
    if not isinstance(value, str) or not _FORMULA.match(value) or _NUMBER.fullmatch(value):
        return value
    return f"'{value}"


def restore_cell(text: str) -> str:
    """Return the text that `neutralise_cell` has made a cell of."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text
