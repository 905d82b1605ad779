"""Renders a small page about a result of `deduplicate()`: one HTML file that loads nothing and runs no script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from fairdedup.core.leftover import Leftover
from fairdedup.errors import format_count
from fairdedup.report import plots
from fairdedup.report.html_templates import read_template, render
from fairdedup.report.leftover_summary import describe_leftover
from fairdedup.storage.manifest import LeftoverIntervals, LeftoverRecord

GUARANTEES = {
    "no_two_kept_are_duplicates": "no two kept samples that were compared are duplicates",
    "every_removed_has_a_kept_representative": "every removed sample has a kept duplicate",
}


@dataclass(frozen=True)
class ResultFigures:
    """What the page shows.

    Attributes
    ----------
    counts : mapping of str to int
        As `Result.counts` has them.
    eps : float or None
    guarantees : mapping of str to bool
    warnings : sequence of str
    leftover : Leftover or None
    similarities : ndarray of shape (20001,), int64
        Number of removed samples by cosine, in ten-thousandths from -1.
    pairs : sequence of (str, str, float)
        IDs of removed and kept samples, and their cosine.
    rejections : sequence of (int, str, str)
        Number of samples, reason, and the id of the first of them.
    """

    counts: Mapping[str, int]
    eps: float | None
    guarantees: Mapping[str, bool]
    warnings: Sequence[str]
    leftover: Leftover | None
    similarities: NDArray[np.int64]
    pairs: Sequence[tuple[str, str, float]]
    rejections: Sequence[tuple[int, str, str]]


def render_result(figures: ResultFigures) -> str:
    """Return the page as HTML.

    Parameters
    ----------
    figures : ResultFigures
    """
    return render(
        "result.html",
        figures=figures,
        counts=figures.counts,
        sentence=_describe(figures),
        plots=_draw(figures),
        leftover=_describe_leftover(figures.leftover),
        guarantees=[
            (figures.guarantees[name], text) for name, text in GUARANTEES.items() if name in figures.guarantees
        ],
        style=Markup(read_template("report.css")),
    )


def _describe(figures: ResultFigures) -> str:
    counts = figures.counts
    kept = f"Of {format_count(counts['valid'], 'sample')}, {counts['kept']:,} are kept"
    return f"{kept} and {counts['removed']:,} removed." if counts["removed"] else f"{kept}: nothing was removed."


def _draw(figures: ResultFigures) -> list[tuple[str, Markup]]:
    if not figures.similarities.any():
        return []
    threshold = None if figures.eps is None else 1 - figures.eps
    drawn = [("How similar the removed ones are", plots.draw_histogram(figures.similarities, threshold))]
    if figures.eps:
        curve = plots.draw_curve(figures.similarities, figures.counts["valid"], figures.eps)
        drawn.insert(0, ("Kept at a smaller eps", curve))
    return drawn


def _describe_leftover(found: Leftover | None) -> list[str]:
    if found is None:
        return []
    return describe_leftover(LeftoverRecord(**asdict(found), intervals=LeftoverIntervals(**found.intervals)))
