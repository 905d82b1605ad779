"""`fairdedup compare`: what several rules would keep of a finished run. It changes none of its results.

Each rule decides with the options of the run's own decision and, in a line, against the samples that the runs before
it kept. What it decides lies in a folder of its own inside the run, beside the decisions, until the command ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fairdedup.audit.attribute_layout import lay_out_attributes
from fairdedup.audit.audit_decisions import SAYS_LABELS, SAYS_PERCEIVED
from fairdedup.audit.audit_options import AuditOptions
from fairdedup.audit.decision_parts import MapDecisions, list_decision_parts, perceived_groups
from fairdedup.audit.label_matching import describe_mismatches, match_written_out
from fairdedup.audit.measures import AuditedAttribute
from fairdedup.commands.evaluation import read_evaluation
from fairdedup.commands.replace import complete_stopped_replacement
from fairdedup.config import RunConfig
from fairdedup.core.keep_fraction import parse_eps
from fairdedup.core.model import Inherited
from fairdedup.core.prototypes import Prototypes
from fairdedup.core.similarity import EPS_UNIT
from fairdedup.datasets.labels import Labels, read_labels
from fairdedup.errors import UserError, format_count
from fairdedup.incremental.lineage import link_earlier_runs
from fairdedup.preparation.compared_decisions import check_rule_names, choose_compared_decisions
from fairdedup.preparation.request import Request
from fairdedup.preparation.run_checks import build_curation_options, build_options
from fairdedup.report.group_figures import name_groups
from fairdedup.report.rule_comparison import (
    THIS_RUN,
    ComparedRule,
    Comparison,
    Coverage,
    measure_shifts,
    note_few_clusters,
)
from fairdedup.report.rule_differences import write_differences
from fairdedup.stages.curation import mark_rows
from fairdedup.stages.group_counts import GroupSource, LabelledGroups
from fairdedup.stages.pruning import measure_leftover, prune
from fairdedup.stages.trial_decisions import Trial, measure_coverage, write_trial
from fairdedup.storage.contents import Clustered, load_clustered, load_embedded
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.manifest import RunManifest, require_manifest
from fairdedup.storage.result_files import result_part
from fairdedup.storage.run_files import remove_folder
from fairdedup.storage.sealed_files import Seal
from fairdedup.workers import Workers

COVERAGE_ROWS = 1000  # samples whose nearest kept sample is looked up


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """Options of `fairdedup compare`.

    Attributes
    ----------
    rules : tuple of str
        Names of the rules.
    labels : Path or None
        File of labels; None counts by soft membership.
    attributes : tuple of str or None
        Attributes to compare; None means all.
    min_count : int
        A group with fewer samples is insufficient.
    differs : Path or None
        File of the samples that a rule decides differently from the run, CSV or Parquet.
    """

    rules: tuple[str, ...]
    labels: Path | None = None
    attributes: tuple[str, ...] | None = None
    min_count: int = 30
    differs: Path | None = None


@dataclass(frozen=True)
class _Groups:
    """What assigns samples to groups, and which groups are compared."""

    source: GroupSource
    attributes: list[AuditedAttribute]
    says: str


def compare_rules(config: RunConfig, options: CompareOptions, workers: Workers) -> Comparison:
    """Decide a finished run by each rule, and return what each would keep.

    Parameters
    ----------
    config : RunConfig
        Names the run; also an amount, prototypes, a column to prefer by or a seed in place of the run's own.
    options : CompareOptions
        The rules, and the groups to count.
    workers : Workers
        Run the tasks of the decisions.

    Raises
    ------
    UserError
        If the run is not finished, a rule is unknown, or no rule can decide it.
    """
    check_rule_names(options.rules)
    directory = RunDirectory(config.out.absolute())
    complete_stopped_replacement(directory, workers)
    manifest = require_manifest(directory)
    if not manifest.counts.kept + manifest.counts.removed:
        raise UserError(f"{directory.root} has decided no sample, so there is nothing to compare: name another run")
    labels = None if options.labels is None else read_labels(options.labels, options.attributes)
    clustered = load_clustered(load_embedded(directory), workers.submit)
    chosen = choose_compared_decisions(config, options.rules, manifest, clustered.embedded, workers)
    notes = chosen.notes
    groups = _find_groups(clustered, manifest, options, labels, chosen.prototypes, notes, workers)
    lineage = link_earlier_runs(directory, chosen.earlier)
    with _scratch(directory) as folder:
        rules, trials = [_measure_run(clustered, manifest, groups, options, workers)], list[Trial]()
        for request in chosen.requests:
            workers.progress.say(f"deciding by the rule {request.config.rule}")
            trial, rule = _try_rule(request, clustered, manifest, chosen.prototypes, lineage.inherited, folder, workers)
            if groups is not None:
                parts = list_decision_parts(clustered.embedded, trial.seals, trial.directory)
                rule.attributes = _count_groups(parts, groups, clustered, options, manifest.seed, workers)
            rules.append(rule)
            trials.append(trial)
        decisions = _list_decisions(trials, clustered, manifest)
        _add_coverage(rules, decisions, clustered, manifest, workers)
        if options.differs is not None:
            names = [rule.rule for rule in rules[1:]]
            tried = list(zip(names, decisions[1:], strict=True))
            write_differences(options.differs.absolute(), decisions[0], tried)
    unknown = max(trial.unknown for trial in trials)
    if unknown:
        notes.append(
            f"{format_count(unknown, 'sample')} took part in the decisions of the rules without being counted: the "
            "run itself left out what was replaced later, or a file such as that of --drop has changed"
        )
    if groups is not None:
        notes += note_few_clusters(clustered.sizes)
    return Comparison(manifest.counts.valid, None if groups is None else groups.says, rules, notes)


def _find_groups(
    clustered: Clustered,
    manifest: RunManifest,
    options: CompareOptions,
    labels: Labels | None,
    prototypes: Prototypes | None,
    notes: list[str],
    workers: Workers,
) -> _Groups | None:
    """Return what assigns samples to groups: labels, else soft membership; None without both, with a note."""
    if labels is None and prototypes is None:
        notes.append("no groups are compared: the run has no prototypes; give --labels FILE or --prototypes FILE")
        return None
    map_decisions = MapDecisions(list_decision_parts(clustered.embedded, manifest.files), workers.submit)
    source: GroupSource
    if labels is not None:
        assert options.labels is not None
        match, labels = match_written_out(map_decisions.parts, labels)
        notes += describe_mismatches(match, labels, options.labels)
        source, says = LabelledGroups(labels), SAYS_LABELS.format(options.labels.name)
    else:
        assert prototypes is not None
        temperature = manifest.config["prune"].get("temperature", "auto")
        source, says = perceived_groups(clustered.directory, prototypes, temperature, map_decisions), SAYS_PERCEIVED
    wanted = AuditOptions(attributes=options.attributes, intersections=())
    attributes, remarks = lay_out_attributes(name_groups(source), wanted)
    notes += remarks
    return _Groups(source, attributes, says)


def _count_groups(
    parts: Sequence[Any],
    groups: _Groups,
    clustered: Clustered,
    options: CompareOptions,
    seed: int,
    workers: Workers,
) -> list[Any]:
    submit = None if isinstance(groups.source, LabelledGroups) else workers.submit  # labels are counted quickly
    return measure_shifts(
        MapDecisions(parts, submit),
        groups.source,
        groups.attributes,
        len(clustered.sizes),
        min_count=options.min_count,
        seed=seed,
    )


def _measure_run(
    clustered: Clustered, manifest: RunManifest, groups: _Groups | None, options: CompareOptions, workers: Workers
) -> ComparedRule:
    """Return the figures of the run's own decision."""
    counts = manifest.counts
    own = ComparedRule(THIS_RUN, counts.kept, counts.readmitted, manifest.eps, 0, manifest.leftover)
    if groups is not None:
        parts = list_decision_parts(clustered.embedded, manifest.files)
        own.attributes = _count_groups(parts, groups, clustered, options, manifest.seed, workers)
    return own


def _try_rule(
    request: Request,
    clustered: Clustered,
    manifest: RunManifest,
    prototypes: Prototypes | None,
    inherited: Inherited | None,
    folder: Path,
    workers: Workers,
) -> tuple[Trial, ComparedRule]:
    """Decide by a rule, and return the trial and its figures without groups and coverage."""
    config, embedded, submit = request.config, clustered.embedded, workers.submit
    options = build_options(config)
    curation = replace(build_curation_options(config), evaluation=read_evaluation(request, embedded, workers))
    with mark_rows(embedded, curation, submit) as marks:
        pruned = prune(
            clustered,
            marks,
            options,
            prototypes if options.rule.needs_prototypes else None,
            submit,
            keep=config.keep,
            at_most=config.at_most,
            eps=None if config.eps is None else parse_eps(config.eps),
            inherited=inherited,
        )
    decision = pruned.decision
    trial = write_trial(embedded, manifest.files, pruned.tasks, decision.readmitted, folder / config.rule, submit)
    eps = None if decision.eps is None else decision.eps / EPS_UNIT
    counts = {"kept": trial.kept, "removed": manifest.counts.valid - trial.kept, "readmitted": trial.readmitted}
    asked = {name: getattr(config, name) for name in ("rule", "cover", "reach", "reach_clusters")}
    tried = manifest.model_copy(
        update={
            "config": {**manifest.config, "prune": {**manifest.config["prune"], **asked}},
            "counts": manifest.counts.model_copy(update=counts),
            "eps": eps,
            "files": _seals_of_earlier(manifest) | trial.seals,
        }
    )
    line_eps = None if inherited is None else inherited.eps
    leftover = measure_leftover(embedded, tried, submit, line_eps=line_eps, trial=trial.directory)
    return trial, ComparedRule(config.rule, trial.kept, trial.readmitted, eps, trial.differs, leftover)


def _seals_of_earlier(manifest: RunManifest) -> dict[str, str]:
    """Return the seals of what a run has of the samples that earlier runs kept."""
    return {name: sealed for name, sealed in manifest.files.items() if name.startswith("state/run-")}


def _list_decisions(trials: Sequence[Trial], clustered: Clustered, manifest: RunManifest) -> list[list[Seal]]:
    """Return the parts of the run's own decisions, and then those of each trial."""
    groups, run = clustered.groups, clustered.directory
    own = [result_part(run, "decisions", group.number, manifest.files) for group in groups]
    return [own, *([trial.part(group.number) for group in groups] for trial in trials)]


def _add_coverage(
    rules: Sequence[ComparedRule],
    decisions: Sequence[Sequence[Seal]],
    clustered: Clustered,
    manifest: RunManifest,
    workers: Workers,
) -> None:
    earlier = None if manifest.against is None else _seals_of_earlier(manifest)
    found = measure_coverage(clustered.embedded, decisions, COVERAGE_ROWS, manifest.seed, workers.submit, earlier)
    for rule, cosines in zip(rules, found, strict=True):
        rule.coverage = Coverage.of(cosines)


@contextmanager
def _scratch(directory: RunDirectory) -> Iterator[Path]:
    """Yield the folder of the trials, and remove it at the end; what a killed command has left is removed first."""
    folder = directory.compared
    remove_folder(folder)
    try:
        yield folder
    finally:
        with suppress(OSError):
            remove_folder(folder)
            remove_folder(directory.decided(0).parent)
