"""Who was kept and who was lost, and where: the audit of a finished run, by labels or by soft membership.

Decisions are read a part at a time; what is held is a matrix of clusters by groups, the labels, and the rows of the few
clusters that are looked into. docs/audit.md has the definitions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fairdedup.audit.causes import explain
from fairdedup.audit.measures import Attribute, measured, number
from fairdedup.audit.suggestions import suggest
from fairdedup.core.groups import GroupCells
from fairdedup.core.memberships import choose_temperatures
from fairdedup.core.prototypes import Prototypes
from fairdedup.core.representation import CONFIDENCE
from fairdedup.core.rules.registry import find_rule
from fairdedup.datasets.labels import Labels
from fairdedup.errors import UserError
from fairdedup.stages.group_counts import ByLabel, BySoftMembership, Part, Source, count, gaps_of
from fairdedup.stages.record_state import own_temperatures
from fairdedup.storage.layout import RunDirectory, groups
from fairdedup.storage.run_files import read_json, write_json, write_table

MOST_CELLS = 400  # of an intersection that nobody asked for
DRAWS = 1000
FEW_CLUSTERS = 20
BY_LABELS = "by the labels of"
SOFTLY = "by soft membership, not by labels: what the encoder perceives, and no better than it"
Submit = Callable[..., list[Any]]


@dataclass(frozen=True)
class Asked:
    """What an audit is asked for.

    Attributes
    ----------
    labels : Path or None
    attributes : tuple of str or None
        Which of them; None is all.
    intersections : tuple of tuple of str or None
        Which are crossed; None is all pairs, none is an empty tuple.
    min_count : int
        A group with fewer rows is insufficient.
    target : "uniform", "data" or None
        Shares to measure the distance to; None: the run's own where its rule had one.
    top : int
        Clusters and neighbourhoods to name.
    suggest : int
        Samples whose labels would say most.
    suggestions : Path or None
        Where these are written.
    seed : int
        Of the resampling.
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
    def attributes_of_file(self) -> tuple[str, ...] | None:
        """Which columns of the labels are needed: those that are named, and those that are crossed."""
        crossed = [name for pair in self.intersections or () for name in pair]
        return None if self.attributes is None else tuple(dict.fromkeys([*self.attributes, *crossed]))

    def __post_init__(self) -> None:
        if self.suggestions is not None and self.suggestions.is_dir():
            raise UserError(f"--out {str(self.suggestions)!r} is a folder: name a file, as labels.csv")
        for pair in self.intersections or ():
            if len(set(pair)) < 2 or len(set(pair)) < len(pair):
                raise UserError(
                    f"--intersections {','.join(pair)!r} crosses nothing: give two attributes, as gender,age, or none"
                )


@dataclass
class _Matched:
    """How the ids of a file of labels and those of a run fit together."""

    labelled: list[NDArray[np.int64]] = field(default_factory=list)  # rows of each part
    seen: NDArray[np.bool_] | None = None
    lacking: int = 0


def parts_of(run: RunDirectory, manifest: dict[str, Any]) -> list[Part]:
    """Return the parts of a finished run's decisions."""
    files = manifest["files"]
    parts = []
    for group in groups(run.records()):
        name = str(run.part("decisions", group.number).relative_to(run.root))
        parts.append(Part(run, group, files.get(name, "")))
    return parts


def soft_source(
    run: RunDirectory, parts: list[Part], prototypes: Prototypes, temperature: Any, submit: Submit
) -> Source:
    """Return memberships at the run's own temperatures, or as `balanced` has them where the prototypes are others."""

    def gaps() -> list[NDArray[np.float64]]:
        found = submit("survey", gaps_of, [(part, prototypes) for part in parts], [part.group.input for part in parts])
        return [np.concatenate(g) for g in zip(*found, strict=True)]

    known = own_temperatures(run, prototypes)
    return BySoftMembership(prototypes, known or choose_temperatures(prototypes, temperature, gaps))


def audit(
    run: RunDirectory, manifest: dict[str, Any], asked: Asked, labels: Labels | None, prototypes: Prototypes | None,
    submit: Submit,
) -> dict[str, Any]:  # fmt: skip
    """Measure who was kept, write the report files, and return what they say.

    Parameters
    ----------
    run : RunDirectory
        A finished one.
    manifest : dict
        Of it.
    asked : Asked
    labels : Labels or None
        None: by soft membership.
    prototypes : Prototypes or None
        Needed without labels, and for suggestions.
    submit : callable
        Maps a function over tuples of arguments, as `Workers.submit` does.

    Raises
    ------
    UserError
        If an attribute is unknown, or no id of the labels is in the run.
    """
    parts = parts_of(run, manifest)
    if labels is not None:
        named = list(zip(labels.attributes, labels.groups, strict=True))
    else:
        assert prototypes is not None
        named = [(a.name, a.concepts) for a in prototypes.attributes]
    attributes, notes = _layout(named, asked)
    soft = None
    if prototypes is not None:
        soft = soft_source(run, parts, prototypes, manifest["config"]["prune"].get("temperature", "auto"), submit)
    source: Source = ByLabel(labels) if labels is not None else soft  # type: ignore[assignment]
    matched = _Matched([np.zeros(0, np.int64)] * len(parts))
    if labels is not None:
        matched = _match(parts, ByLabel(labels))
        notes += _told(matched, labels, asked)

    def over(step: str, function: Callable[..., Any], *args: Any) -> list[Any]:
        if labels is not None:  # the labels are here, and counting is quick
            return [function(part, *args) for part in parts]
        return submit(step, function, [(part, *args) for part in parts], [part.group.input for part in parts])

    before, after = _counted(run, over("count", count, source, [a.cells for a in attributes]), attributes)
    valid = int(manifest["counts"]["valid"])
    prune = manifest["config"]["prune"]
    own_target = prune.get("target", "uniform") if "target" in find_rule(prune["rule"]).reads else "uniform"
    target = asked.target or own_target
    lines, losses = [], []
    for attribute in attributes:
        line, loss = measured(
            attribute, before[:, attribute.columns], after[:, attribute.columns], source.unit, target, asked.min_count,
            asked.seed, DRAWS, by_labels=labels is not None,
        )  # fmt: skip
        if labels is not None:
            line["unlabelled"] = valid - int(line["rows"])
        lines.append(line)
        losses.append(loss)
    used = int(np.count_nonzero(before.sum(axis=1)))
    if used < FEW_CLUSTERS:
        notes.append(f"intervals come from only {used} clusters: too few to resample, so take them as rough")
    notes += explain(lines, losses, asked.top, source, over, run)
    found: dict[str, Any] = {
        "source": "labels" if labels is not None else "soft membership",
        "says": f"{BY_LABELS} {asked.labels.name}" if asked.labels is not None else SOFTLY,
        "rule": prune["rule"],
        "counts": manifest["counts"],
        "min_count": asked.min_count,
        "confidence": CONFIDENCE,
        "draws": DRAWS,
        "seed": asked.seed,
        "notes": notes,
        "attributes": lines,
    }
    if asked.suggest:
        assert soft is not None and prototypes is not None
        place = asked.suggestions or run.report("suggested-labels.csv")
        found["suggested"] = suggest(run, parts, soft, prototypes, matched.labelled, asked.suggest, place, submit)
        if found["suggested"]["rows"] < asked.suggest:
            notes.append(f"only {found['suggested']['rows']:,} samples are left whose label would say anything")
    found = number(found)
    write_table(run.report("audit.parquet"), _long(found))
    write_json(run.report("audit.json"), found)
    return found


def _layout(named: Sequence[tuple[str, tuple[str, ...]]], asked: Asked) -> tuple[list[Attribute], list[str]]:
    """Return the attributes and intersections to be measured, and what was left out."""
    names, notes = [name for name, _ in named], []
    wanted = asked.attributes or tuple(names)
    for name in (*wanted, *(n for pair in asked.intersections or () for n in pair)):
        if name not in names:
            raise UserError(f"no attribute {name!r}: there are {', '.join(names)}")
    if asked.suggestions is not None and not asked.suggest:
        notes.append("--out names where --suggest-labels N would write; none was asked for")
    crossed = combinations(wanted, 2) if asked.intersections is None else asked.intersections
    found: list[Attribute] = []
    start = 0
    for members in (*((name,) for name in dict.fromkeys(wanted)), *dict.fromkeys(crossed)):
        places = tuple(names.index(name) for name in members)
        cells = tuple(product(*(range(len(named[p][1])) for p in places)))
        if len(members) > 1 and len(cells) > MOST_CELLS and asked.intersections is None:
            notes.append(f"{' x '.join(members)} would have {len(cells)} groups: name it by --intersections to have it")
            continue
        labels = tuple(tuple(named[p][1][c] for p, c in zip(places, cell, strict=True)) for cell in cells)
        found.append(Attribute(tuple(members), labels, GroupCells(places, cells), slice(start, start + len(cells))))
        start += len(cells)
    return found, notes


def _match(parts: list[Part], source: ByLabel) -> _Matched:
    matched = _Matched(seen=np.zeros(len(source.labels.places), np.bool_))
    seen = matched.seen
    assert seen is not None
    has_any = np.asarray((source.labels.codes >= 0).any(axis=1))
    for part in parts:
        table = part.read(["row", "id"])
        lines = source.lines(table.column("id"))
        known = lines >= 0
        seen[lines[known]] = True
        matched.lacking += int((~known).sum())
        labelled = known & has_any[lines]
        matched.labelled.append(table.column("row").to_numpy()[labelled])
    return matched


def _told(matched: _Matched, labels: Labels, asked: Asked) -> Iterator[str]:
    assert matched.seen is not None and asked.labels is not None
    unknown = int((~matched.seen).sum())
    what = f"--labels {str(asked.labels)!r}"
    first = next((name for name, line in labels.places.items() if not matched.seen[line]), "")
    if not matched.seen.any():
        raise UserError(
            f"{what}: none of its {unknown:,} ids is in the run; the first is {first!r}: check the column id"
        )
    if unknown:
        yield f"{unknown:,} of {len(labels.places):,} ids of the labels are not in the run's decisions, as {first!r}"
    if matched.lacking:
        yield f"{matched.lacking:,} samples of the run are not in the labels: they count nowhere below"


def _counted(
    run: RunDirectory, found: list[Any], attributes: list[Attribute]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Add the counts of all parts up: clusters by groups."""
    shape = (len(read_json(run.sizes)), sum(len(a.labels) for a in attributes))
    before, after = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for clusters, here, kept in found:
        before[clusters] += here
        after[clusters] += kept
    return before, after


def _long(found: dict[str, Any]) -> pa.Table:
    """Return a line for each group, for machines."""
    lines = []
    for attribute in found["attributes"]:
        for group in attribute["groups"]:
            line = {"attribute": attribute["attribute"], "intersection": attribute["intersection"]}
            for name, value in group.items():
                if name.endswith("interval"):
                    line[f"{name}_low"], line[f"{name}_high"] = value or (None, None)
                elif not isinstance(value, dict | list):
                    line[name] = value
            loss = group["loss"]
            lines.append(line | {f"loss_{name}": loss[name] for name in ("whole", "between", "within")})
    return (
        pa.table({name: _typed(name, [line[name] for line in lines]) for name in lines[0]}) if lines else pa.table({})
    )


_TEXT, _TRUTH = ("attribute", "group", "why"), ("intersection", "sufficient", "under_four_fifths")


def _typed(name: str, values: list[Any]) -> pa.Array:
    if name in _TEXT:
        return pa.array(values, pa.string())
    if name in _TRUTH:
        return pa.array(values, pa.bool_())
    return pa.array([None if v is None else float(v) for v in values], pa.float64())  # "-inf" among them
