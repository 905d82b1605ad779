"""`fairdedup explain`: why one sample of a finished run was kept or removed, and at which eps that may change.

It reads the decisions and the vectors. It decides nothing again, so it says what would be linked at another eps, and
not what would be kept there.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fairdedup.commands.named_outputs import check_output, write_output
from fairdedup.config import RunConfig
from fairdedup.core.similarity import EPS_UNIT, eps_needed
from fairdedup.errors import format_count
from fairdedup.report.looked_up import LEFT_OUT, collect_samples, describe_state, read_pictures
from fairdedup.report.report_figures import ShownSample
from fairdedup.report.sample_page import Shelf, build_tile, render_samples
from fairdedup.stages.named_rows import find_row
from fairdedup.stages.row_relations import (
    Represented,
    find_represented,
    join_represented,
    read_earlier_representative,
)
from fairdedup.stages.similar_rows import find_similar_rows, read_vector
from fairdedup.storage.contents import Embedded, load_embedded
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.manifest import RunManifest, require_manifest
from fairdedup.storage.result_files import result_part
from fairdedup.storage.sealed_files import Seal, load_table
from fairdedup.tasks import Task
from fairdedup.workers import Workers

NAMED, SHOWN = 3, 24  # samples it stands for: in a line, and on the page


@dataclass(frozen=True)
class Explanation:
    """What is known about the decision of one sample.

    Attributes
    ----------
    sample : ShownSample
    samples : dict of int to ShownSample
        Every sample that is named below by its row.
    represented : Represented
        Removed samples that it stands for.
    nearest : tuple of (int, float), or None
        The most similar other kept sample, and its cosine; only of a kept sample.
    earlier : tuple of (str, str), or None
        Run and id of the sample of an earlier run that stands for it.
    eps : float or None
        Eps of the run.
    reason : str or None
        Why it was left out, if it was.
    """

    sample: ShownSample
    samples: dict[int, ShownSample]
    represented: Represented
    nearest: tuple[int, float] | None
    earlier: tuple[str, str] | None
    eps: float | None
    reason: str | None

    def lines(self) -> list[str]:
        """Return three sentences: what became of it, with whom, and what eps would change."""
        if self.sample.cluster == LEFT_OUT:
            why = self.reason or "its sample has vanished"
            return [f"{self.sample.id}: left out ({why})", "It took no part in the decision.", "No eps changes that."]
        state = f"{self.sample.id}: {describe_state(self.sample)}, in cluster {self.sample.cluster}"
        if self.sample.readmitted:
            return [f"{state}; it was removed first", self._describe_representative(), self._describe_link()]
        if self.sample.kept:
            return [state, self._describe_represented(), self._describe_nearest()]
        return [state, self._describe_representative(), self._describe_link()]

    def _name(self, row: int) -> str:
        return self.samples[row].id

    def _describe_represented(self) -> str:
        number, rows, cosines = self.represented
        if not number:
            return "It stands for no removed sample."
        named = [f"{self._name(row)} ({cosine:.4f})" for row, cosine in zip(rows[:NAMED], cosines[:NAMED], strict=True)]
        more = f" and {number - len(named):,} more, down to {cosines[-1]:.4f}" if number > len(named) else ""
        return f"It stands for {format_count(number, 'removed sample')}: {', '.join(named)}{more}."

    def _describe_representative(self) -> str:
        cosine = "" if self.sample.similarity is None else f", with a cosine of {self.sample.similarity:.4f}"
        if self.earlier is not None:
            run, name = self.earlier
            return f"{name}, which the earlier run {run} kept, stands for it{cosine}."
        if self.sample.representative < 0:
            return "No sample stands for it: this rule draws samples at random."
        verb = "stood for it" if self.sample.readmitted else "stands for it"
        return f"{self._name(self.sample.representative)} {verb}{cosine}."

    def _describe_link(self) -> str:
        """Return at which eps a removed sample and its representative are linked."""
        if self.sample.similarity is None:
            return "No eps changes that."
        least = _least_eps(self.sample.similarity)
        if self.eps is not None and least > self.eps:
            return (
                f"They share a neighbourhood at eps {self.eps:.4f}, and are linked themselves only at eps {least:.4f} "
                "or more."
            )
        return (
            f"They are linked at eps {least:.4f} or more. Below that it no longer stands for this sample, which "
            "another one may still remove."
        )

    def _describe_nearest(self) -> str:
        """Return at which eps a kept sample is linked to the most similar other kept one, and loses a removed one."""
        lost = ""
        if self.represented.number:
            weakest = _least_eps(float(self.represented.cosines[-1]))
            lost = f" Below eps {weakest:.4f} it no longer stands for {self._name(int(self.represented.rows[-1]))}."
        if self.nearest is None:
            return f"No other sample is kept.{lost}"
        row, cosine = self.nearest
        least = _least_eps(cosine)
        linked = f"The most similar other kept sample of this run is {self._name(row)} ({cosine:.4f})"
        if self.eps is not None and least <= self.eps:
            return (
                f"{linked}: they are linked at the run's own eps, and both are kept, since they were not compared, or "
                f"one of them was re-admitted or always kept.{lost}"
            )
        return (
            f"{linked}: they are linked at eps {least:.4f} or more, where at most one is kept if they are compared."
            f"{lost}"
        )


def _least_eps(cosine: float) -> float:
    """Return the least eps at which two samples of this cosine are linked."""
    return int(eps_needed(cosine)) / EPS_UNIT


def explain_sample(
    config: RunConfig, name: str, workers: Workers, *, html: Path | None = None, source: str | None = None
) -> Explanation:
    """Return what is known about the decision of a sample, and write a page of it if a file is named.

    Parameters
    ----------
    config : RunConfig
        Names the run.
    name : str
        Id of the sample.
    workers : Workers
        Run the tasks that look for it, and for what is similar.
    html : Path, optional
        File of the page.
    source : str, optional
        Place of the input, if it has moved.

    Raises
    ------
    UserError
        If the run is not finished, or no sample with a vector has the id.
    """
    check_output(html, "--html", "explained.html")
    directory = RunDirectory(config.out.absolute())
    manifest = require_manifest(directory)
    embedded = load_embedded(directory)
    row = find_row(embedded, name, workers.submit)
    parts = [result_part(directory, "decisions", group.number, manifest.files) for group in embedded.groups]
    sample = collect_samples(embedded, manifest, [row])[row]
    represented = _find_represented(embedded, parts, row, workers)
    nearest, earlier, reason = None, None, None
    home = next(k for k, group in enumerate(embedded.groups) if group.first <= row < group.first + group.input)
    if sample.cluster == LEFT_OUT:
        reason = _read_reason(result_part(directory, "rejected", embedded.groups[home].number, manifest.files), row)
    elif not sample.kept:
        earlier = read_earlier_representative(parts[home], row)
    else:
        unit = read_vector(embedded, row)
        found = find_similar_rows(embedded, unit, 2, workers.submit, parts)
        others = [pair for pair in zip(found.rows.tolist(), found.cosines.tolist(), strict=True) if pair[0] != row]
        nearest = others[0] if others else None
    named = {row, sample.representative, *represented.rows.tolist(), *([] if nearest is None else [nearest[0]])}
    samples = collect_samples(embedded, manifest, named - {-1})
    explanation = Explanation(samples[row], samples, represented, nearest, earlier, manifest.eps, reason)
    if html is not None:
        _write_page(html, explanation, embedded, manifest, source)
    return explanation


def _find_represented(embedded: Embedded, parts: list[Seal], row: int, workers: Workers) -> Represented:
    tasks = [
        Task((part, row, SHOWN), group.input, group.name) for part, group in zip(parts, embedded.groups, strict=True)
    ]
    return join_represented(workers.submit("explain", find_represented, tasks), SHOWN)


def _read_reason(rejected: Seal, row: int) -> str | None:
    """Return why a row was left out; None if rejected/ does not have it."""
    table = load_table(rejected, ["row", "reason"]).to_pydict()
    return next((why for own, why in zip(table["row"], table["reason"], strict=True) if own == row), None)


def _write_page(
    path: Path, explanation: Explanation, embedded: Embedded, manifest: RunManifest, source: str | None
) -> None:
    sample, samples, represented = explanation.sample, explanation.samples, explanation.represented
    thumbnails = read_pictures(embedded, manifest, samples, source)
    shelves = [Shelf("The sample", [build_tile(sample, "", thumbnails)])]
    if sample.representative >= 0 and sample.representative != sample.row:
        similarity = "" if sample.similarity is None else f"{sample.similarity:.4f}"
        shelves.append(Shelf("Stands for it", [build_tile(samples[sample.representative], similarity, thumbnails)]))
    members = zip(represented.rows.tolist(), represented.cosines.tolist(), strict=True)
    shelves.append(
        Shelf("It stands for", [build_tile(samples[row], f"{cosine:.4f}", thumbnails) for row, cosine in members])
    )
    if explanation.nearest is not None:
        row, cosine = explanation.nearest
        shelves.append(Shelf("Most similar other kept sample", [build_tile(samples[row], f"{cosine:.4f}", thumbnails)]))
    title, *lines = explanation.lines()
    write_output(path, render_samples(title, lines, shelves, thumbnails.remark))
