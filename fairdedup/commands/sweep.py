"""`fairdedup sweep`: finds the eps and the counts of several keep fractions, or the counts of several eps.

It writes no decision.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

from fairdedup.commands.evaluation import read_evaluation
from fairdedup.config import RunConfig
from fairdedup.core.keep_fraction import kept_target, parse_eps
from fairdedup.core.prototypes import Prototypes
from fairdedup.core.similarity import EPS_UNIT
from fairdedup.errors import UserError
from fairdedup.incremental.lineage import link_earlier_runs
from fairdedup.preparation.prototype_choice import choose_prototypes
from fairdedup.preparation.request import read_clustered_request
from fairdedup.preparation.rule_choice import explain_rule, settle_rule
from fairdedup.preparation.run_checks import build_curation_options, build_options
from fairdedup.stages.curation import check_curation_options, mark_rows
from fairdedup.stages.named_rows import read_row_ids
from fairdedup.stages.pruning import (
    BorderPair,
    KeptCounter,
    describe_suggestion,
    open_counter,
    open_workspace,
    suggest_run_eps,
)
from fairdedup.storage.config_record import read_config_record
from fairdedup.storage.contents import Clustered, Embedded, load_clustered, load_embedded
from fairdedup.storage.layout import RunDirectory
from fairdedup.workers import Workers

GRID = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)  # fractions that are tried if none is named


@dataclass(frozen=True)
class SweptFraction:
    """Eps and counts of a decision at one keep fraction, or at one eps.

    Attributes
    ----------
    keep : float
        Fraction of the valid rows; rounded to 4 decimals where an eps was given.
    kept : int
        Number of rows that would be kept.
    eps : float
        Eps that the decision would use.
    readmitted : int
        Number of kept rows that would be re-admitted, including those on seats of `balanced`.
    """

    keep: float
    kept: int
    eps: float
    readmitted: int


@dataclass(frozen=True)
class BorderExample:
    """The least similar pair that is linked at an eps, of which one is removed for the other.

    Attributes
    ----------
    eps : float
    removed, representative : str
        Ids of both.
    cosine : float
    """

    eps: float
    removed: str
    representative: str
    cosine: float


@dataclass(frozen=True)
class Sweep:
    """What a sweep has found.

    Attributes
    ----------
    lines : list of SweptFraction
        One for each fraction or eps, in their order.
    examples : list of BorderExample
        One for each eps at which a sample is removed.
    remarks : list of str
        Fractions of the grid that were left out.
    """

    lines: list[SweptFraction]
    examples: list[BorderExample]
    remarks: list[str]


def sweep_run(
    config: RunConfig,
    fractions: Sequence[float],
    workers: Workers,
    *,
    eps: Sequence[float] = (),
    examples: bool = True,
) -> Sweep:
    """Return the eps and the counts of a decision at each keep fraction or eps.

    Parameters
    ----------
    config : RunConfig
        Names the run, and the options of the decision.
    fractions : sequence of float
        Keep fractions, in (0, 1]; those of `GRID` that are possible if it is empty and no eps is given.
    workers : Workers
        Run the tasks that count.
    eps : sequence of float
        Values of eps, whole numbers of ten-thousandths.
    examples : bool
        Whether to find an example pair at each eps, which takes a decision there.

    Raises
    ------
    UserError
        If the run is not clustered, the rule has no eps, or an eps is below that of earlier runs.
    """
    units = [parse_eps(value) for value in eps]
    directory = RunDirectory(config.out.absolute())
    clustered = load_clustered(load_embedded(directory), workers.submit)
    record = read_config_record(directory)
    assert record.input is not None
    request = settle_rule(read_clustered_request(config), record.input.kind, record)
    options, earlier = build_options(request.config), request.earlier
    if not options.rule.has_eps:
        raise UserError(f"--rule {options.rule.name} has no eps to sweep: choose another --rule")
    if earlier is not None and any(each < earlier.eps for each in units):
        raise UserError(
            f"--eps {min(units) / EPS_UNIT:g} is below {earlier.eps / EPS_UNIT:g}, the eps of the runs before "
            f"{directory.root}, which new rows have at least: give {earlier.eps / EPS_UNIT:g} or more"
        )
    curation = build_curation_options(request.config)
    check_curation_options(curation)
    explain_rule(request, workers.progress.say)
    curation = replace(curation, evaluation=read_evaluation(request, clustered.embedded, workers))
    lineage = link_earlier_runs(directory, earlier)

    def find_prototypes() -> Prototypes | None:
        return choose_prototypes(request.config, clustered.embedded, workers) if earlier is None else known

    known = None if earlier is None else earlier.read_prototypes()
    if earlier is None:
        _suggest(clustered, workers)
    with (
        mark_rows(clustered.embedded, curation, workers.submit) as marks,
        open_workspace(clustered, options, workers.submit) if options.looks_across else nullcontext() as workspace,
    ):
        counter = open_counter(
            clustered, marks, options, find_prototypes, workers.submit, workspace=workspace, inherited=lineage.inherited
        )
        if not counter.valid:
            raise UserError(f"{directory.root} has no sample to decide, so there is nothing to sweep: name another run")
        wanted, remarks = list(fractions), list[str]()
        if not wanted and not units:
            wanted, units, remarks = _choose_grid(counter)
        return _sweep(counter, wanted, units, clustered.embedded if examples else None, remarks)


def _choose_grid(counter: KeptCounter) -> tuple[list[float], list[int], list[str]]:
    """Return the fractions of `GRID` that are possible, values of eps beside them, and what the user should know."""
    first = counter.first_eps
    if first is None:
        wanted = [fraction for fraction in GRID if kept_target(fraction, counter.valid) >= counter.least]
        few = f"every eps keeps at least {counter.least:,} samples, so smaller fractions are left out"
        return wanted, [], [few] if len(wanted) < len(GRID) else []
    most = counter.count(first)
    wanted = [fraction for fraction in GRID if counter.least <= kept_target(fraction, counter.valid, "at_most") < most]
    remark = (
        f"the last line has the eps of the earlier runs, {first / EPS_UNIT:g}; the fractions above it are limits "
        "for the new samples (--at-most); those that change nothing or are too small are left out"
    )
    return wanted, [first], [remark]


def _suggest(clustered: Clustered, workers: Workers) -> None:
    """Say which eps the data suggest, if they do."""
    suggested = describe_suggestion(suggest_run_eps(clustered))
    if suggested:
        workers.progress.say(suggested)


def _sweep(
    counter: KeptCounter,
    fractions: Sequence[float],
    units: Sequence[int],
    embedded: Embedded | None,
    remarks: list[str],
) -> Sweep:
    """Return the lines of some fractions and eps, with examples if the embeddings are given for their ids."""
    lines, pairs = dict[int, SweptFraction](), dict[int, BorderPair]()
    count = len(fractions)
    largest_first = sorted(range(len(units)), key=lambda k: -units[k])  # so that pairs are looked for once
    for k in [*range(count), *(count + k for k in largest_first)]:
        eps = counter.find_eps(fractions[k]) if k < count else units[k - count]
        kept = counter.count(eps)
        if k < count:
            target = kept_target(fractions[k], counter.valid) if counter.first_eps is None else kept
            lines[k] = SweptFraction(fractions[k], target, eps / EPS_UNIT, target - kept)
        else:
            lines[k] = SweptFraction(round(kept / counter.valid, 4), kept, eps / EPS_UNIT, 0)
        pair = counter.find_example(eps) if embedded is not None and eps not in pairs else None
        if pair is not None:
            pairs[eps] = pair
    ids = dict[int, str]()
    if embedded is not None:
        ids = read_row_ids(embedded, [row for pair in pairs.values() for row in (pair.row, pair.representative)])
    examples = [
        BorderExample(eps / EPS_UNIT, ids[pair.row], ids[pair.representative], pair.similarity)
        for eps, pair in sorted(pairs.items())
    ]
    return Sweep([lines[k] for k in sorted(lines)], examples, remarks)
