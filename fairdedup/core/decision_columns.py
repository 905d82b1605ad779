"""The columns of a decision, declared once for `deduplicate`, for the files of a run and for the documentation.

`core` decides most of them; the caller adds the id, and which rows are re-admitted.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Column(NamedTuple):
    """A column of the decisions.

    Attributes
    ----------
    name : str
        Name in tables and files.
    dtype : str
        NumPy type in memory; "str" for text.
    meaning : str
        Meaning in one line, for the documentation.
    decided : bool
        Whether `core` decides it; otherwise the caller adds it.
    """

    name: str
    dtype: str
    meaning: str
    decided: bool = True


COLUMNS = (
    Column("row", "<i8", "position in the input"),
    Column("id", "str", "the sample's own key", decided=False),
    Column("cluster", "<i8", "number of its cluster"),
    Column("neighbourhood", "<i8", "row of the leader of the step that visited it"),
    Column("kept", "?", "whether it is kept, re-admitted rows included"),
    Column("representative", "<i8", "row of the kept sample that stands for it: its own where it is kept, -1 for none"),
    Column("similarity", "<f8", "cosine to the representative"),
    Column("centroid_similarity", "<f8", "cosine to the centroid of its cluster"),
    Column("readmitted", "?", "whether it was removed first and then re-admitted", decided=False),
)
DECISION_COLUMNS = tuple(column.name for column in COLUMNS)
DECIDED = tuple(column.name for column in COLUMNS if column.decided)
EARLIER = "earlier"  # one more column that `core` decides: the sample of earlier runs that represents a row, or -1
RECORD = np.dtype([*((c.name, c.dtype) for c in COLUMNS if c.decided), (EARLIER, "<i8")])
