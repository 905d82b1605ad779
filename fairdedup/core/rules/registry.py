"""The rules by name: the only module that knows all of them. It loads no library, so `--help` is printed at once."""

from __future__ import annotations

from typing import NamedTuple

from fairdedup.core.rules.balanced import Balanced
from fairdedup.core.rules.base import Rule
from fairdedup.core.rules.fairdedup import FairDeDup
from fairdedup.core.rules.prefer import Prefer
from fairdedup.core.rules.random import Random
from fairdedup.core.rules.random_neighbour import RandomNeighbour
from fairdedup.core.rules.semdedup import SemDeDup
from fairdedup.core.rules.semdedup_chain import SemDeDupChain
from fairdedup.errors import UserError

DEFAULT = "fairdedup"
_RULES: dict[str, Rule] = {}


def register(rule_class: type[Rule]) -> type[Rule]:
    """Register a rule under its name, replacing a rule of that name; also a class decorator.

    Do this in the module that defines the rule, so that a worker process which imports the module knows it too.

    Parameters
    ----------
    rule_class : type
        Subclass of `Rule`.

    Returns
    -------
    type
        The class itself.
    """
    _RULES[rule_class.name] = rule_class()
    return rule_class


def unregister(name: str) -> None:
    """Remove the rule of this name, if there is one.

    Parameters
    ----------
    name : str
        Name of the rule.
    """
    _RULES.pop(name, None)


def find_rule(name: str) -> Rule:
    """Return the rule of this name.

    Parameters
    ----------
    name : str
        Name of the rule.

    Raises
    ------
    UserError
        If there is no such rule. The message lists the names.
    """
    if name not in _RULES:
        raise UserError(f"`rule={name}` is unknown: choose one of {', '.join(_RULES)}")
    return _RULES[name]


def rule_names() -> tuple[str, ...]:
    """Return the names of all rules, in the order of the command line's help."""
    return tuple(_RULES)


def all_rules() -> tuple[Rule, ...]:
    """Return all rules, in the order of `rule_names`."""
    return tuple(_RULES.values())


def sweeping_names() -> list[str]:
    """Return the names of the rules that sweep: those that can be combined with `cover` and earlier runs."""
    return [each.name for each in all_rules() if each.sweeps]


def rule_for_column() -> Rule:
    """Return the rule that the option `prefer` implies."""
    return next(each for each in all_rules() if each.needs_column)


def simplest_rule() -> Rule:
    """Return the first rule that sweeps and needs only the vectors, for messages to recommend."""
    return next(each for each in all_rules() if each.sweeps and not (each.needs_prototypes or each.needs_column))


class ChosenRule(NamedTuple):
    """The rule of a decision for which none was named.

    Attributes
    ----------
    name : str
        Its name.
    why : str or None
        Why it is not the default rule, a clause for the user; None where that is plain.
    """

    name: str
    why: str | None = None


def choose_rule(*, has_prototypes: bool, has_column: bool = False) -> ChosenRule:
    """Return the rule of a decision for which none is named: the default one, if it can have what it needs.

    Parameters
    ----------
    has_prototypes : bool
        Whether there are prototypes, or can be.
    has_column : bool
        Whether there are numbers to prefer, the option `prefer`, which implies its rule.
    """
    if has_column:
        return ChosenRule(rule_for_column().name)
    if has_prototypes or not find_rule(DEFAULT).needs_prototypes:
        return ChosenRule(DEFAULT)
    name = simplest_rule().name
    return ChosenRule(name, f"there are no prototypes, so the rule is {name}, which ignores groups")


for _rule in (FairDeDup, Balanced, SemDeDup, Prefer, SemDeDupChain, RandomNeighbour, Random):
    register(_rule)
