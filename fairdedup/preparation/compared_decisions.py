"""The decisions that `fairdedup compare` makes of a finished run: one for each rule, with the run's own options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fairdedup.config import STAGE_KEYS, RunConfig, build_config
from fairdedup.core.prototypes import Prototypes
from fairdedup.core.rules.registry import find_rule
from fairdedup.errors import UserError
from fairdedup.incremental.earlier_runs import EarlierRuns
from fairdedup.preparation.prototype_choice import find_known_prototypes
from fairdedup.preparation.request import Request, read_clustered_request
from fairdedup.preparation.run_checks import check_decision_options
from fairdedup.storage.contents import Embedded
from fairdedup.storage.manifest import RunManifest
from fairdedup.workers import Workers

AMOUNTS = ("keep", "at_most", "eps")
GIVEN = (*AMOUNTS, "prefer", "prototypes", "model", "pretrained", "seed")  # options that replace the run's own
SWEEP_OPTIONS = ("cover", "reach")  # rules that do not sweep have settled values for them
NO_PROTOTYPES = (
    "it needs prototypes, and the run has none; give --prototypes FILE, or the model of its embeddings "
    "(--model ViT-B-16 --pretrained openai)"
)
NO_PROTOTYPES_IN_LINE = "it needs prototypes, and the runs before this one have none"
NO_SWEEP = "it cannot be decided against the samples that earlier runs kept"


@dataclass(frozen=True)
class ComparedDecisions:
    """Decisions to compare.

    Attributes
    ----------
    requests : list of Request
        Request of each decision; at least one.
    prototypes : Prototypes or None
        Prototypes of all decisions.
    earlier : EarlierRuns or None
        Runs before this one, whose kept samples and eps all decisions have.
    notes : list of str
        Which rules are left out, and why.
    """

    requests: list[Request]
    prototypes: Prototypes | None
    earlier: EarlierRuns | None
    notes: list[str]


def check_rule_names(rules: Sequence[str]) -> None:
    """Refuse names that are no rules.

    Raises
    ------
    UserError
        If one is unknown.
    """
    for name in rules:
        try:
            find_rule(name)
        except UserError as error:
            raise UserError(str(error).replace("`rule=", "`rules=")) from None


def choose_compared_decisions(
    config: RunConfig, rules: Sequence[str], manifest: RunManifest, embedded: Embedded, workers: Workers
) -> ComparedDecisions:
    """Return the decisions of a finished run by some rules, without those that cannot decide it.

    Parameters
    ----------
    config : RunConfig
        Names the run; also an amount, prototypes, a column to prefer by or a seed in place of the run's own.
    rules : sequence of str
        Names of the rules.
    manifest : RunManifest
        Manifest of the run.
    embedded : Embedded
        Embeddings of the run.
    workers : Workers
        Run the tasks of prototypes that captions become.

    Raises
    ------
    UserError
        If an option does not fit, or no rule can decide the run.
    """
    recorded = manifest.config["prune"]
    earlier = None
    if manifest.against is not None:
        earlier = read_clustered_request(_build_config(config, manifest, recorded["rule"])).earlier
        prototypes = None if earlier is None else earlier.read_prototypes()
        lacking = NO_PROTOTYPES_IN_LINE
    else:
        prototypes = find_known_prototypes(config, embedded, recorded, workers)
        lacking = NO_PROTOTYPES
    requests, notes, reasons = list[Request](), list[str](), set[str]()
    for name in dict.fromkeys(rules):
        rule, reason = find_rule(name), None
        if earlier is not None and not rule.sweeps:
            reason = NO_SWEEP
        elif prototypes is None and rule.needs_prototypes:
            reason = lacking
        if reason is None:
            requests.append(read_clustered_request(_build_config(config, manifest, name)))
            check_decision_options(requests[-1].config)
        else:
            notes.append(f"{name} is left out: {reason}")
            reasons.add(reason)
    if not requests:
        raise UserError(f"no rule is left to compare: {'; '.join(sorted(reasons))}")
    return ComparedDecisions(requests, prototypes, earlier, notes)


def _build_config(config: RunConfig, manifest: RunManifest, rule: str) -> RunConfig:
    """Return the configuration of the run's own decision with another rule, and with what the user gives."""
    recorded: dict[str, Any] = manifest.config["prune"]
    own, other = find_rule(recorded["rule"]), find_rule(rule)
    values = {name: recorded[name] for name in STAGE_KEYS["prune"] if recorded.get(name) is not None}
    given = {name: getattr(config, name) for name in GIVEN if getattr(config, name) is not None}
    given = {name: value for name, value in given.items() if name != "seed" or "seed" in config.model_fields_set}
    dropped = {"rule", "prototypes", "model", "pretrained"}
    if any(name in given for name in AMOUNTS):
        dropped |= set(AMOUNTS)
    if not (own.sweeps and other.sweeps):
        dropped |= set(SWEEP_OPTIONS)
    values = {name: value for name, value in values.items() if name not in dropped} | given
    if not other.needs_column:
        values.pop("prefer", None)
    machine = {name: getattr(config, name) for name in ("out", "scheduler", "workers", "memory_limit")}
    return build_config({**values, **machine, "rule": rule}, given=given)
