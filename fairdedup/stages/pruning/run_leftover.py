"""The leftover of a run: a sample of what it kept is looked up among all that is kept, a task for each group of shards.

It reads decisions that are written, and what earlier runs of the line kept. Its only large cost is the product of the
sample with the kept rows. It never changes a decision.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.leftover import (
    ALL_HASHES,
    KINDS,
    SIZE,
    KeptRows,
    Leftover,
    Sample,
    bound_hashes,
    choose_sample,
    count_leftover,
    find_duplicates,
    hash_for_sample,
    reach_from,
)
from fairdedup.core.model import Options
from fairdedup.core.reach import REACH_CLUSTERS, reach_limits
from fairdedup.core.similarity import BLOCK, EPS_UNIT
from fairdedup.core.within import Codes, take_codes
from fairdedup.stages.pruning.round_files import load_arrays, read_nearby, save_arrays
from fairdedup.storage.contents import Embedded
from fairdedup.storage.earlier_samples import list_segments, seal_of_segment
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.manifest import LeftoverIntervals, LeftoverRecord, RunManifest
from fairdedup.storage.result_files import result_part
from fairdedup.storage.run_files import release_pages, remove_folder
from fairdedup.storage.sealed_files import Seal, load_array, load_table
from fairdedup.storage.segment_blocks import iterate_segment
from fairdedup.storage.shard_files import centroids_of, open_sorted
from fairdedup.storage.shard_groups import Group
from fairdedup.storage.within_values import read_group_codes
from fairdedup.tasks import Submit, Task, map_groups

NAME = "sample"  # of the arrays of the sample, in the folder of the lookup


@dataclass(frozen=True)
class Lookup:
    """What the tasks of a lookup need to know.

    Attributes
    ----------
    root : Path
        Run directory.
    seals : mapping of str to str
        Seals of the parts of the decisions and of the state, by path below the run directory.
    centroids : Seal
        Centroids of the run.
    options : Options
        Options of the decision: the seed, and whether and how rows are compared across clusters.
    eps : int
        Ten-thousandths.
    line_eps : int
        Eps by which samples of earlier runs reach other clusters: that of their line.
    dimension : int
        Length of a vector.
    within : str or None
        Column within whose values rows are compared.
    trial : RunDirectory or None
        Where the decisions are instead, if they are only tried.
    """

    root: Path
    seals: Mapping[str, str]
    centroids: Seal
    options: Options
    eps: int
    line_eps: int
    dimension: int
    within: str | None = None
    trial: RunDirectory | None = None

    @property
    def run(self) -> RunDirectory:
        """The run directory."""
        return RunDirectory(self.root)

    def find_reached(self, clusters: NDArray[Any], gaps: NDArray[Any], eps: int) -> NDArray[Any]:
        """Return those of some clusters (n, r) that rows reach at an eps, given their gaps; -1 for the others."""
        return np.where(gaps <= reach_limits(self.options.reach, self.dimension)[eps], clusters, -1)


class SampledRows(NamedTuple):
    """Rows of a group that may be in the sample: arrays of `KeptRows`, and the clusters that they reach."""

    rows: NDArray[np.int64]
    unit: NDArray[np.float16]
    clusters: NDArray[np.int64]
    within: NDArray[np.int64]  # 0 without the option
    reached: NDArray[np.integer]


class Compared(NamedTuple):
    """What the lookup in one part of the kept rows has found.

    Attributes
    ----------
    among : int
        Number of kept rows in the part.
    found : ndarray of uint8
        The bits of what `find_duplicates` returns.
    """

    among: int
    found: NDArray[np.uint8]


class _KeptOfGroup:
    """The kept rows of a sorted group, apart from re-admitted ones, in the order of its files: by cluster, then row."""

    def __init__(self, group: Group, lookup: Lookup) -> None:
        self.group, self.lookup = group, lookup
        part = result_part(lookup.trial or lookup.run, "decisions", group.number, lookup.seals)
        decided = load_table(part, ["row", "kept", "readmitted"])
        row, kept, readmitted = (decided.column(name).to_numpy() for name in ("row", "kept", "readmitted"))
        rows, offsets, self.vectors = open_sorted(lookup.run, group.number, "rows", "offsets", "vectors")
        self.places = np.flatnonzero(np.isin(rows, row[kept & ~readmitted]))  # in the files
        self.rows = np.asarray(rows)[self.places]
        self.clusters = np.searchsorted(offsets, self.places, side="right") - 1
        self.within = np.zeros(len(self.rows), np.int64)
        if lookup.within is not None:
            codes = read_group_codes(lookup.run, group, lookup.within)
            self.within = codes[np.searchsorted(group.rows(), self.rows)]
        self._nearby: NDArray[np.int32] | None = None

    def take(self, wanted: NDArray[np.int64] | slice) -> KeptRows:
        """Return some of the rows with their vectors."""
        unit = np.asarray(self.vectors[self.places[wanted]])
        return KeptRows(self.rows[wanted], unit, self.clusters[wanted], self.within[wanted])

    def reach(self, wanted: NDArray[np.int64]) -> NDArray[Any]:
        """Return the clusters that some of the rows reach: (m, r); r is 0 if rows are not compared across clusters."""
        lookup, options = self.lookup, self.lookup.options
        if not options.looks_across:
            return np.empty((len(wanted), 0), np.int32)
        if self._nearby is None:
            centroids = lookup.centroids.expected or ""
            self._nearby = read_nearby(lookup.run, self.group, centroids, options.reach_clusters)
        found = self._nearby[self.places[wanted]]
        return lookup.find_reached(found[..., 0], found[..., 1], lookup.eps)


def sample_group(group: Group, lookup: Lookup, size: int, limit: int) -> SampledRows:
    """Return those kept rows of a group that may be in the sample.

    Parameters
    ----------
    group : Group
    lookup : Lookup
    size : int
        Size of the sample.
    limit : int
        Largest hash of a row.
    """
    kept = _KeptOfGroup(group, lookup)
    seed = lookup.options.seed
    low = np.flatnonzero(hash_for_sample(kept.rows, seed) <= limit)
    chosen = low[choose_sample(kept.rows[low], size, seed)]
    unit = kept.take(chosen).unit
    return SampledRows(kept.rows[chosen], unit, kept.clusters[chosen], kept.within[chosen], kept.reach(chosen))


def compare_group(group: Group, lookup: Lookup) -> Compared:
    """Look the sample up among the kept rows of a group.

    Parameters
    ----------
    group : Group
    lookup : Lookup
    """
    kept, sample = _KeptOfGroup(group, lookup), _load_sample(lookup)
    found = np.zeros((len(sample.kept.rows), len(KINDS)), np.bool_)
    for start in range(0, len(kept.rows), BLOCK):
        block = kept.take(slice(start, start + BLOCK))
        found |= find_duplicates(sample, block, reach_from(kept.reach, start), lookup.eps)
        release_pages(kept.vectors)
    return Compared(len(kept.rows), np.packbits(found))


def compare_segment(place: int, lookup: Lookup) -> Compared:
    """Look the sample up among what an earlier run kept of a group of shards.

    Parameters
    ----------
    place : int
        Place of the segment among those of all earlier runs.
    lookup : Lookup
    """
    sample, among = _load_sample(lookup), 0
    found = np.zeros((len(sample.kept.rows), len(KINDS)), np.bool_)
    reach = _ReachOfSegment(place, lookup)
    codes = _load_codes(place, lookup)
    for first, unit, clusters in iterate_segment(lookup.root, place, lookup.seals, BLOCK):
        within = take_codes(codes, slice(first, first + len(unit)))
        kept = KeptRows(np.full(len(unit), -1), unit, clusters, within)
        found |= find_duplicates(sample, kept, reach_from(reach, first), lookup.eps)
        among += len(unit)
    return Compared(among, np.packbits(found))


def _load_codes(place: int, lookup: Lookup) -> Codes:
    """Return the codes of the samples of a segment; None if rows are compared whatever their values."""
    if lookup.within is None:
        return None
    segment = list_segments(lookup.root)[place]
    codes: NDArray[np.int64] = load_array(seal_of_segment(lookup.root, segment, segment.within, lookup.seals))
    return codes


class _ReachOfSegment:
    """Returns the clusters that some of the samples of a segment reach, by the eps of their line."""

    def __init__(self, place: int, lookup: Lookup) -> None:
        self.place, self.lookup = place, lookup
        self._nearby: Any = None

    def __call__(self, wanted: NDArray[np.int64]) -> NDArray[Any]:
        lookup = self.lookup
        if self._nearby is None:
            segment = list_segments(lookup.root)[self.place]
            self._nearby = load_array(seal_of_segment(lookup.root, segment, segment.nearby, lookup.seals))
        found = self._nearby[wanted]
        return lookup.find_reached(found[..., 0], found[..., 1], lookup.line_eps)


def _load_sample(lookup: Lookup) -> Sample:
    arrays = load_arrays(lookup.run.lookup, NAME, 0)
    assert arrays is not None
    found = SampledRows(**{name: np.asarray(array) for name, array in arrays.items()})
    return Sample(KeptRows(*found[:4]), found.reached)


def measure_leftover(
    embedded: Embedded,
    manifest: RunManifest,
    submit: Submit,
    *,
    line_eps: int | None = None,
    trial: RunDirectory | None = None,
) -> LeftoverRecord | None:
    """Measure how many kept samples of a run still have a kept duplicate, in this run and in those before it.

    Parameters
    ----------
    embedded : Embedded
    manifest : RunManifest
        Its decisions are on disk, and so is what earlier runs kept, with the seals that it has.
    submit : Submit
    line_eps : int, optional
        Eps of the line in ten-thousandths; needed if there are earlier runs.
    trial : RunDirectory, optional
        Folder of decisions that are only tried, whose options, counts and seals the manifest then has.

    Returns
    -------
    LeftoverRecord or None
        None if the run has no eps, the option `leftover` is 0, or no sample can be looked up.
    """
    prune, counts = manifest.config["prune"], manifest.counts
    size = prune.get("leftover", SIZE)
    if not size or manifest.eps is None or counts.kept == counts.readmitted:
        return None
    run, eps = embedded.directory, round(manifest.eps * EPS_UNIT)
    reach, most = prune.get("reach", 0), prune.get("reach_clusters", REACH_CLUSTERS)
    options = Options(rule=prune["rule"], seed=manifest.seed, reach=reach, reach_clusters=most)
    seals = {name: sealed for name, sealed in manifest.files.items() if name.startswith(("decisions/", "state/run-"))}
    line_eps = eps if line_eps is None else line_eps
    dimension, within = embedded.dimension or 0, prune.get("within")
    lookup = Lookup(run.root, seals, centroids_of(run), options, eps, line_eps, dimension, within, trial)
    remove_folder(run.lookup)
    try:
        sampled = _draw_sample(embedded, lookup, min(size, counts.kept - counts.readmitted), manifest, submit)
        save_arrays(run.lookup, NAME, 0, sampled._asdict())
        parts = map_groups(submit, "leftover", compare_group, embedded.groups, lookup)
        if manifest.against is not None:
            names = [f"{segment.folder.name}, {segment.vectors.name}" for segment in list_segments(run.root)]
            tasks = [Task((place, lookup), name=name) for place, name in enumerate(names)]
            parts += submit("leftover", compare_segment, tasks)
    finally:
        with suppress(OSError):
            remove_folder(run.lookup)
    return _record(len(sampled.rows), parts)


def _draw_sample(embedded: Embedded, lookup: Lookup, size: int, manifest: RunManifest, submit: Submit) -> SampledRows:
    """Return the rows to look up, ascending: those with the lowest hashes, ties to the lowest row."""
    rows = manifest.counts.kept - manifest.counts.readmitted
    for limit in (bound_hashes(size, rows), ALL_HASHES):  # the second time is for a chance that never comes
        found = map_groups(submit, "leftover", sample_group, embedded.groups, lookup, size, limit)
        filled = [part for part in found if len(part.rows)]
        if sum(len(part.rows) for part in filled) >= size:
            break
    joined = SampledRows(*map(np.concatenate, zip(*filled, strict=True)))
    chosen = choose_sample(joined.rows, size, lookup.options.seed)
    chosen = chosen[np.argsort(joined.rows[chosen])]
    return SampledRows._make(column[chosen] for column in joined)


def _record(looked_up: int, parts: list[Compared]) -> LeftoverRecord:
    found = np.bitwise_or.reduce([part.found for part in parts])
    bits = np.unpackbits(found, count=looked_up * len(KINDS)).astype(np.bool_)
    leftover: Leftover = count_leftover(bits.reshape(looked_up, len(KINDS)), sum(part.among for part in parts))
    return LeftoverRecord(**asdict(leftover), intervals=LeftoverIntervals(**leftover.intervals))
