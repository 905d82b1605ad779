"""Matches the ids in a file of labels with the ids of a run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fairdedup.datasets.labels import Labels, write_out_ids
from fairdedup.errors import UserError, format_count
from fairdedup.stages.group_counts import DecisionPart, LabelledGroups


@dataclass(frozen=True)
class LabelMatch:
    """Which labels belong to a sample of the run, and which samples have a label.

    Attributes
    ----------
    labelled : list of ndarray of int64
        For each part of the decisions, the rows with a label of any attribute.
    found : ndarray of shape (n,), bool
        For each line of the labels, whether the run has its id.
    without_line : int
        Number of samples of the run whose id is not in the labels.
    """

    labelled: list[NDArray[np.int64]]
    found: NDArray[np.bool_]
    without_line: int


def match_labels(parts: Iterable[DecisionPart], labels: Labels) -> LabelMatch:
    """Look up the ids of all parts of the decisions in the labels.

    Parameters
    ----------
    parts : iterable of DecisionPart
        All parts of the decisions.
    labels : Labels
        The file of labels.
    """
    source = LabelledGroups(labels)
    labelled, without_line = [], 0
    found = np.zeros(len(labels.places), np.bool_)
    has_any = np.asarray((labels.codes >= 0).any(axis=1))
    for part in parts:
        table = part.read(["row", "id"])
        lines = source.find_lines(table.column("id"))
        known = lines >= 0
        found[lines[known]] = True
        without_line += int((~known).sum())
        labelled.append(table.column("row").to_numpy()[known & has_any[lines]])
    return LabelMatch(labelled, found, without_line)


def match_written_out(parts: Sequence[DecisionPart], labels: Labels) -> tuple[LabelMatch, Labels]:
    """Look up the ids of the labels, and those that the run lacks again as whole numbers that are written out.

    Parameters
    ----------
    parts : sequence of DecisionPart
        All parts of the decisions.
    labels : Labels
        The file of labels.

    Returns
    -------
    match : LabelMatch
    labels : Labels
        With the ids that were matched.
    """
    match = match_labels(parts, labels)
    spelled = write_out_ids(labels, match.found)
    return (match, labels) if spelled is None else (match_labels(parts, spelled), spelled)


def describe_mismatches(match: LabelMatch, labels: Labels, path: Path) -> Iterator[str]:
    """Yield what was restored in the labels, and a note for labels without a sample and for samples without a label.

    Parameters
    ----------
    match : LabelMatch
        Result of `match_labels`.
    labels : Labels
        The file of labels.
    path : Path
        Its path, for the error.

    Raises
    ------
    UserError
        If no id of the labels is in the run.
    """
    unknown = int((~match.found).sum())
    first = next((name for name, line in labels.places.items() if not match.found[line]), "")
    if not match.found.any():
        raise UserError(
            f"--labels {str(path)!r}: {'its only id is not' if unknown == 1 else f'none of its {unknown:,} ids is'} in "
            f"the run; the first is {first!r}: check the column id"
        )
    yield from labels.remarks
    if unknown:
        count, verb = format_count(len(labels.places), "id"), "is" if unknown == 1 else "are"
        yield f"{unknown:,} of {count} of the labels {verb} not in the run's decisions, as {first!r}"
    if match.without_line:
        one, several = "sample of the run is", "samples of the run are"
        they_count = "it counts" if match.without_line == 1 else "they count"
        yield f"{format_count(match.without_line, one, several)} not in the labels: {they_count} nowhere below"
