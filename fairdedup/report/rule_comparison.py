"""What several rules would keep of one run, as typed values and as CSV: one line for each rule, measure and group.

It reads counts of groups, and decides nothing. docs/compare.md says what each measure means.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fairdedup.audit.audit_decisions import DRAWS, FEW_CLUSTERS, add_up_counts
from fairdedup.audit.audit_report import AttributeReport, GroupReport
from fairdedup.audit.decision_parts import MapDecisions
from fairdedup.audit.measures import AuditedAttribute, MeasureSettings, measure_attribute
from fairdedup.errors import format_count
from fairdedup.stages.group_counts import GroupSource, count_groups
from fairdedup.storage.csv_cells import neutralise_cell
from fairdedup.storage.manifest import LeftoverRecord

THIS_RUN = "this run"
HEADER = ("rule", "measure", "attribute", "group", "value", "low", "high")


@dataclass(frozen=True)
class Coverage:
    """How near a sample of all decided samples lies to what is kept: cosines to the nearest kept sample.

    Attributes
    ----------
    looked_up : int
        Samples that were drawn.
    first_percentile, mean : float
        Of their cosines.
    """

    looked_up: int
    first_percentile: float
    mean: float

    @classmethod
    def of(cls, cosines: NDArray[np.float64]) -> Coverage:
        """Return the coverage of some cosines (m,)."""
        return cls(len(cosines), float(np.percentile(cosines, 1)), float(cosines.mean()))


@dataclass
class ComparedRule:
    """What one rule would keep.

    Attributes
    ----------
    rule : str
        Name of the rule, or `THIS_RUN`.
    kept, readmitted : int
    eps : float or None
    differs : int
        Samples that it keeps and the run removes, or the other way round.
    leftover : LeftoverRecord or None
        Kept samples that still have a kept duplicate; None for a rule without eps.
    attributes : list of AttributeReport
        Shares of each group; empty if nothing assigns samples to groups.
    coverage : Coverage or None
    """

    rule: str
    kept: int
    readmitted: int
    eps: float | None
    differs: int
    leftover: LeftoverRecord | None
    attributes: list[AttributeReport] = field(default_factory=list)
    coverage: Coverage | None = None

    @property
    def left(self) -> float | None:
        """Share of the kept samples looked up that still have a kept duplicate."""
        return None if self.leftover is None else self.leftover.any / self.leftover.looked_up

    def groups(self) -> Iterator[tuple[str, GroupReport]]:
        """Yield each group with the name of its attribute."""
        for attribute in self.attributes:
            for group in attribute.groups:
                yield attribute.attribute, group


@dataclass(frozen=True)
class Comparison:
    """A comparison of rules.

    Attributes
    ----------
    valid : int
        Samples that each rule decides.
    source : str or None
        What assigned samples to groups; None if nothing did.
    rules : list of ComparedRule
        The run's own decision, then each rule.
    notes : list of str
    """

    valid: int
    source: str | None
    rules: list[ComparedRule]
    notes: list[str]


def measure_shifts(
    map_decisions: MapDecisions,
    source: GroupSource,
    attributes: Sequence[AuditedAttribute],
    clusters: int,
    *,
    min_count: int,
    seed: int,
) -> list[AttributeReport]:
    """Return the shares of each group before and after, with the intervals of an audit.

    Parameters
    ----------
    map_decisions : MapDecisions
        Maps a function over the parts of a decision.
    source : GroupSource
        What assigns samples to groups.
    attributes : sequence of AuditedAttribute
    clusters : int
        Number of clusters.
    min_count : int
        A group with fewer samples is insufficient.
    seed : int
        Seed of the resampling, so that all decisions are measured with the same draws.
    """
    counts = map_decisions("count", count_groups, source, [attribute.cells for attribute in attributes])
    before, after = add_up_counts(counts, clusters, sum(len(attribute.labels) for attribute in attributes))
    settings = MeasureSettings(
        unit=source.unit, target="uniform", min_count=min_count, draws=DRAWS, seed=seed, labelled_from=None
    )
    return [
        measure_attribute(attribute, before[:, attribute.columns], after[:, attribute.columns], settings)[0]
        for attribute in attributes
    ]


def note_few_clusters(sizes: NDArray[np.int64]) -> list[str]:
    """Return a note if there are too few clusters to resample: sizes (k,)."""
    clusters = int(np.count_nonzero(sizes))
    if clusters >= FEW_CLUSTERS:
        return []
    return [f"intervals come from only {format_count(clusters, 'cluster')}, so take them as rough"]


def write_csv(comparison: Comparison) -> str:
    """Return a comparison as CSV, with the columns of `HEADER`; a value that is missing is an empty cell."""
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(HEADER)
    for rule in comparison.rules:
        for line in _list_lines(rule, comparison.valid):
            cells = ["" if value is None else f"{value:.9g}" if isinstance(value, float) else value for value in line]
            writer.writerow(map(neutralise_cell, [rule.rule, *cells]))
    return out.getvalue()


Line = tuple[str, str, str, float | int | None, float | None, float | None]


def _list_lines(rule: ComparedRule, valid: int) -> Iterator[Line]:
    """Yield measure, attribute, group, value, and the ends of its interval."""
    leftover, coverage = rule.leftover, rule.coverage
    low, high = (None, None) if leftover is None else leftover.intervals.any
    for name, value in (
        ("kept", rule.kept),
        ("kept share", rule.kept / valid if valid else None),
        ("re-admitted", rule.readmitted),
        ("eps", rule.eps),
        ("differs from the run", rule.differs),
        ("coverage, first percentile", None if coverage is None else coverage.first_percentile),
        ("coverage, mean", None if coverage is None else coverage.mean),
    ):
        yield name, "", "", value, None, None
    yield "leftover share", "", "", rule.left, low, high
    for attribute, group in rule.groups():
        low, high = group.shift_interval or (None, None)
        yield "share before", attribute, group.group, group.share_before, None, None
        yield "share kept", attribute, group.group, group.share_after, None, None
        yield "share shift", attribute, group.group, group.shift, low, high
