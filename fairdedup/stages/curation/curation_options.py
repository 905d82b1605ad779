"""The options of curation, and the checks that need no run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fairdedup.datasets.ids import check_ids
from fairdedup.stages.curation.evaluation_samples import Evaluation
from fairdedup.storage.condition import check_functions


@dataclass(frozen=True)
class CurationOptions:
    """Which rows to exclude, keep or prefer; None leaves an option out.

    Attributes
    ----------
    where : str or None
        Condition on metadata columns; rows for which it is not true are excluded.
    drop : Path or None
        File of ids to exclude.
    always_keep : Path or None
        File of ids to keep.
    prefer : str or None
        Column of numbers; the larger value is preferred.
    within : str or None
        Column; rows are compared only where its values are equal.
    may_leave_none : bool
        Whether all rows may be excluded, which only a run against earlier runs allows.
    evaluation : Evaluation or None
        Samples that no row may be too near to.
    """

    where: str | None = None
    drop: Path | None = None
    always_keep: Path | None = None
    prefer: str | None = None
    within: str | None = None
    may_leave_none: bool = False
    evaluation: Evaluation | None = None

    @property
    def marks_rows(self) -> bool:
        """Whether any option marks a row."""
        return self != CurationOptions(may_leave_none=self.may_leave_none)


def check_curation_options(options: CurationOptions) -> None:
    """Refuse what would fail later: a text that is not a condition, a function or file that does not exist.

    Raises
    ------
    UserError
        Naming the option.
    """
    if options.where is not None:
        check_functions(options.where)
    for option, file in (("--drop", options.drop), ("--always-keep", options.always_keep)):
        if file is not None:
            check_ids(file, option)
