"""The options of an audit, checked when they are made. No file is read; only `--out` is checked not to be a folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fairdedup.errors import UserError


@dataclass(frozen=True, kw_only=True)
class AuditOptions:
    """Options of `fairdedup audit`.

    Attributes
    ----------
    labels : Path or None
        File of labels; None counts by soft membership.
    attributes : tuple of str or None
        Attributes to measure; None means all.
    intersections : tuple of tuple of str or None
        Attributes to cross; None means all pairs, an empty tuple none.
    min_count : int
        Number of rows below which a group is insufficient.
    target : "uniform", "data" or None
        Shares to measure the distance to; None means the run's own target if its rule had one.
    top : int
        Number of clusters and of neighbourhoods to name for each group.
    suggest : int
        Number of samples to suggest for labelling.
    suggestions : Path or None
        File for the suggested samples; None means report/suggested-labels.csv of the run.
    seed : int
        Seed of the resampling.

    Raises
    ------
    UserError
        If `suggestions` is a folder, or an intersection does not name two or more different attributes.
    """

    labels: Path | None = None
    attributes: tuple[str, ...] | None = None
    intersections: tuple[tuple[str, ...], ...] | None = None
    min_count: int = 30
    target: str | None = None
    top: int = 5
    suggest: int = 0
    suggestions: Path | None = None
    seed: int = 0

    @property
    def label_columns(self) -> tuple[str, ...] | None:
        """Columns to read from the file of labels; None means all."""
        crossed = [name for pair in self.intersections or () for name in pair]
        return None if self.attributes is None else tuple(dict.fromkeys([*self.attributes, *crossed]))

    def __post_init__(self) -> None:
        if self.suggestions is not None and self.suggestions.is_dir():
            raise UserError(f"--out {str(self.suggestions)!r} is a folder: name a file, for example labels.csv")
        for pair in self.intersections or ():
            if len(set(pair)) < 2 or len(set(pair)) < len(pair):
                raise UserError(
                    f"--intersections {','.join(pair)!r} crosses nothing: give two attributes, for example gender,age, "
                    "or none"
                )
