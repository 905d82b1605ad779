"""Curation before a decision: rows that are excluded or always kept, and the values for `prefer` and `within`.

`row_marking` is the stage, `group_marks` has its tasks, `evaluation_samples` finds rows too near to evaluation samples.
"""

from fairdedup.stages.curation.curation_options import CurationOptions, check_curation_options
from fairdedup.stages.curation.evaluation_samples import Evaluation
from fairdedup.stages.curation.row_marking import check_curation_columns, check_curation_names, mark_rows

__all__ = [
    "CurationOptions",
    "Evaluation",
    "check_curation_columns",
    "check_curation_names",
    "check_curation_options",
    "mark_rows",
]
