"""What the messages of `deduplicate` advise works: the parameters are read from the message and given."""

from __future__ import annotations

import ast
import inspect
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fairdedup import core, deduplicate
from fairdedup.core.calibration import calibrate
from fairdedup.core.kmeans import train
from fairdedup.core.similarity import unit_float16
from fairdedup.errors import UserError, flags_for_parameters

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 6))
X[20:30] = X[:10] + 0.01 * RNG.normal(size=(10, 6))
GOOD = {"a": {"p": X[0], "q": X[1]}, "b": {"r": X[2], "s": X[3]}}
CLUSTERS = np.arange(40) // 10
BALANCED = {"rule": "balanced", "keep": 0.5, "prototypes": GOOD}
SEMDEDUP = {"rule": "semdedup", "keep": 0.5}


@dataclass(frozen=True)
class Wrong:
    """Parameters that are refused, the pattern of the message, and the parameters to change, by the pattern's groups.

    A string in `then` is a parameter's value after its groups are filled in: a number or a word.
    """

    given: dict[str, Any]
    says: str
    then: dict[str, Any] = field(default_factory=dict)
    without: tuple[str, ...] = ()


TABLE = {
    # The amount
    "no amount": Wrong({"rule": "semdedup"}, r"give exactly one, such as `keep=(?P<v>[0-9.]+)`", {"keep": "{v}"}),
    "two amounts": Wrong({**SEMDEDUP, "eps": 0.1}, r"give exactly one, such as `keep=(?P<v>\S+)`", {"keep": "{v}"},
                         ("eps",)),
    "50 for 50 %": Wrong({**SEMDEDUP, "keep": 50}, r"`keep=(?P<v>[0-9.]+)` for 50 %", {"keep": "{v}"}),
    "an amount of more than all": Wrong({**SEMDEDUP, "keep": 1.5}, r"must be in \(0, (?P<v>1)\]", {"keep": "{v}"}),
    "fewer than the clusters": Wrong({**SEMDEDUP, "keep": 0.05}, r"give at least `keep=(?P<v>\S+)`", {"keep": "{v}"}),
    "fewer clusters": Wrong({**SEMDEDUP, "keep": 0.05}, r"use fewer clusters", {"clusters": 1}),
    "at most fewer than the clusters": Wrong(
        {"rule": "semdedup", "at_most": 0.05}, r"give at least `at_most=(?P<v>\S+)`", {"at_most": "{v}"}),
    "none at random": Wrong({"rule": "random", "keep": 0.001}, r"give at least `keep=(?P<v>\S+)`", {"keep": "{v}"}),
    "fewer than the protected": Wrong(
        {**SEMDEDUP, "keep": 0.1, "always_keep": np.arange(40) % 4 == 0},
        r"fewer than the 10 rows always kept: give at least `keep=(?P<v>\S+)`", {"keep": "{v}"}),
    "fewer than the protected and the clusters": Wrong(
        {**SEMDEDUP, "keep": 0.1, "always_keep": np.arange(40) < 8},
        r"one for each of the 3 clusters without any: give at least `keep=(?P<v>\S+)`", {"keep": "{v}"}),
    "an eps of a hundred-thousandth": Wrong(
        {"rule": "semdedup", "eps": 1e-5}, r"give `eps=(?P<v>0\.0001)`", {"eps": "{v}"}),
    "an eps between two": Wrong({"rule": "semdedup", "eps": 0.12345}, r"give `eps=(?P<v>[0-9.]+)`", {"eps": "{v}"}),
    "an eps of 3": Wrong({"rule": "semdedup", "eps": 3}, r"Try `eps=(?P<v>[0-9.]+)`", {"eps": "{v}"}),
    "an eps at random": Wrong({"rule": "random", "eps": 0.1}, r"give `(?P<v>keep)` or `at_most` in place of `eps`",
                              {"keep": 0.5}, ("eps",)),
    "at most in place of an eps": Wrong({"rule": "random", "eps": 0.1}, r"or `at_most` in place", {"at_most": 0.5},
                                        ("eps",)),
    # The rule and its options
    "an unknown rule": Wrong({**SEMDEDUP, "rule": "semdedupe"}, r"choose one of .*(?P<v>semdedup),", {"rule": "{v}"}),
    "cover by a rule that cannot": Wrong(
        {"rule": "random", "keep": 0.5, "cover": True}, r"choose one of .*(?P<v>semdedup)", {"rule": "{v}"}),
    "protected rows by a rule that cannot": Wrong(
        {**SEMDEDUP, "rule": "semdedup-chain", "always_keep": np.arange(40) < 2}, r"choose one of .*(?P<v>semdedup),",
        {"rule": "{v}"}),
    "an unknown start": Wrong({**BALANCED, "rule": "fairdedup", "start": "one"},
                              r"choose one of (?P<v>\w+)", {"start": "{v}"}),
    "an unknown calibration": Wrong({**BALANCED, "calibrate": "z"}, r"choose one of \w+, (?P<v>\w+)",
                                    {"calibrate": "{v}"}),
    "an unknown target": Wrong({**BALANCED, "target": "equal"}, r"choose (?P<v>uniform), data or", {"target": "{v}"}),
    "a target of the data": Wrong({**BALANCED, "target": "equal"}, r"choose uniform, (?P<v>data) or",
                                  {"target": "{v}"}),
    "a temperature of 0": Wrong({**BALANCED, "temperature": 0}, r"a number above 0, or (?P<v>auto)",
                                {"temperature": "{v}"}),
    "a reserve of a half": Wrong({**BALANCED, "reserve": 0.5}, r"must be in \[0, (?P<v>[0-9.]+)\]", {"reserve": "{v}"}),
    "too many clusters": Wrong({**SEMDEDUP, "clusters": 99}, r"give at most (?P<v>20) \(one for",
                               {"clusters": "{v}", "keep": 1.0}),
    "clusters for auto": Wrong({**SEMDEDUP, "clusters": 99}, r"or (?P<v>auto)", {"clusters": "{v}"}),
    "no cluster": Wrong({**SEMDEDUP, "clusters": 0}, r"or (?P<v>auto)", {"clusters": "{v}"}),
    # Prototypes and targets
    "no prototypes": Wrong({"rule": "balanced", "keep": 0.5}, r"needs none, such as `rule=(?P<v>[\w-]+)`",
                           {"rule": "{v}"}),
    "prototypes given": Wrong({"rule": "balanced", "keep": 0.5}, r"give `prototypes`", {"prototypes": GOOD}),
    "flat prototypes": Wrong({**BALANCED, "prototypes": X[0]}, r"give \(concepts, d\)", {"prototypes": X[:2]}),
    "prototypes in a list": Wrong({**BALANCED, "prototypes": X[0]}, r"or a dict of attributes", {"prototypes": GOOD}),
    "an attribute without concepts": Wrong(
        {**BALANCED, "prototypes": {"a": X[:2]}}, r"give \{concept: vector of d values\}",
        {"prototypes": {"a": {"p": X[0], "q": X[1]}}}),
    "an attribute of nothing": Wrong({**BALANCED, "prototypes": {"a": {"absent": X[0]}}}, r"give at least one",
                                     {"prototypes": {"a": {"p": X[1], "absent": X[0]}}}),
    "no attribute": Wrong({**BALANCED, "prototypes": {}}, r"give at least one attribute with one concept",
                          {"prototypes": {"a": {"p": X[1]}}}),
    "prototypes of two dimensions": Wrong(
        {**BALANCED, "prototypes": {"a": {"p": X[0]}, "b": {"r": X[0, :3]}}}, r"all must come from one model",
        {"prototypes": {"a": {"p": X[0]}, "b": {"r": X[1]}}}),
    "concepts of two dimensions": Wrong(
        {**BALANCED, "prototypes": {"a": {"p": X[0], "q": X[0, :3]}}}, r"one vector of the same d values",
        {"prototypes": {"a": {"p": X[0], "q": X[1]}}}),
    "a prototype of zeros": Wrong({**BALANCED, "prototypes": {"a": {"p": X[0] * 0}}},
                                  r"give a vector of the encoder", {"prototypes": {"a": {"p": X[0]}}}),
    "a temperature of no attribute": Wrong(
        {**BALANCED, "temperature": {"c": 1.0}}, r"the prototypes have (?P<v>\w+),", {"temperature": {"{v}": 1.0}}),
    "a temperature of -1": Wrong({**BALANCED, "temperature": {"a": -1}}, r"must be a number above 0",
                                 {"temperature": {"a": 0.1}}),
    "a target of no attribute": Wrong(
        {**BALANCED, "target": {"c": {"p": 1.0}}}, r"the prototypes have (?P<v>\w+),",
        {"target": {"{v}": {"p": 0.5, "q": 0.5}}}),
    "a target of other concepts": Wrong(
        {**BALANCED, "target": {"a": {"p": 1.0}}}, r"give \['(?P<v>\w+)', '(?P<w>\w+)'\]",
        {"target": {"a": {"{v}": 0.5, "{w}": 0.5}}}),
    "a target of too much": Wrong({**BALANCED, "target": {"a": {"p": 1.0, "q": 1.0}}}, r"add up to (?P<v>1)",
                                  {"target": {"a": {"p": 0.25, "q": 0.75}}}),
    "an endless target": Wrong({**BALANCED, "target": {"a": {"p": 1.0, "q": float("inf")}}},
                               r"must be finite numbers", {"target": {"a": {"p": 1.0, "q": 0.0}}}),
}  # fmt: skip


def fill(value: Any, groups: dict[str, str]) -> Any:
    """Return a value of the table with the groups of the message in it; a number in a text becomes a number."""
    if isinstance(value, dict):
        return {fill(k, groups): fill(v, groups) for k, v in value.items()}
    if not isinstance(value, str) or "{" not in value:
        return value
    text = value.format(**groups)
    return ast.literal_eval(text) if re.fullmatch(r"[0-9.e-]+", text) else text


@pytest.mark.parametrize("case", TABLE)
def test_what_a_message_advises_works(case: str, one_thread: None) -> None:
    wrong = TABLE[case]
    given = {"clusters": CLUSTERS, **wrong.given}
    with pytest.raises(UserError) as caught:
        deduplicate(X, **given)
    found = re.search(wrong.says, str(caught.value))
    assert found, f"{wrong.says!r} is not in {caught.value}"
    changed = {**given, **{name: fill(value, found.groupdict()) for name, value in wrong.then.items()}}
    result = deduplicate(X, **{name: value for name, value in changed.items() if name not in wrong.without})
    assert len(result.kept)


def test_the_advice_for_no_valid_row_names_the_rejected_rows_which_have_the_reasons() -> None:
    with pytest.raises(UserError, match="see the rejected rows for the reasons"):
        deduplicate(X * np.nan, **SEMDEDUP)
    result = deduplicate(np.concatenate([X * np.nan, X]), **SEMDEDUP)
    assert len(result.rejected) == 40 and result.rejected["reason"].notna().all()


@pytest.mark.parametrize("options", [SEMDEDUP, BALANCED, {**BALANCED, "reserve": 0.3}, {**SEMDEDUP, "cover": True}])
def test_the_fraction_of_the_warning_of_readmitted_duplicates_readmits_none(
    options: dict[str, Any], one_thread: None
) -> None:
    x = np.repeat(X[:20], 8, axis=0)
    given = {**options, "clusters": np.arange(160) // 40, "keep": 0.7}
    (warning,) = deduplicate(x, **given).warnings
    fraction = re.search(r"a fraction of (\S+) keeps none of them", warning)
    assert fraction, warning
    again = deduplicate(x, **{**given, "keep": float(fraction[1])})
    assert not again.warnings
    assert (again.counts["readmitted"] == 0) == ("besides the reserved seats" not in warning)


def test_a_warning_names_no_copies_where_there_are_none(one_thread: None) -> None:
    """All pairs of a regular simplex are at the same distance, and no two rows are copies."""
    (warning,) = deduplicate(np.eye(24), keep=0.5, rule="semdedup", clusters=np.zeros(24, int)).warnings
    assert "many pairs are equally similar" in warning and "exact copies" not in warning
    fraction = re.search(r"a fraction of (\S+) keeps none of them", warning)
    assert fraction, warning
    again = deduplicate(np.eye(24), keep=float(fraction[1]), rule="semdedup", clusters=np.zeros(24, int))
    assert again.counts["readmitted"] == 0


@pytest.mark.parametrize(
    ("concepts", "labels", "says", "remedy"),
    [(1, [0] * 9, "choose attributes with two or more", (2, [0, 1] * 5)),
     (3, [0, 1] * 5, "concept 2 has no label: label some samples of each concept", (3, [0, 1, 2] * 4))],
)  # fmt: skip
def test_what_a_calibration_lacks_can_be_given(concepts, labels, says, remedy) -> None:
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    with pytest.raises(UserError, match=says):
        calibrate(unit[: len(labels)], np.array(labels), unit[-concepts:])
    concepts, labels = remedy
    assert len(calibrate(unit[: len(labels)], np.array(labels), unit[-concepts:]).vectors) == concepts


def test_the_command_line_is_advised_flags_for_the_same_parameters() -> None:
    assert flags_for_parameters("give at least `keep=0.1`", {"keep"}) == "give at least --keep 0.1"


def test_without_a_gpu_k_means_can_be_trained_on_the_cpu() -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    sample = unit_float16(X)[0]
    with pytest.raises(UserError) as caught:
        train(sample, 4, seed=0, threads=1, device="cuda")
    found = re.search(r"use `device=(\w+)` or (\w+)", str(caught.value))
    assert found
    for device in found.groups():
        assert train(sample, 4, seed=0, threads=1, device=device).shape == (4, 6)


def test_every_parameter_that_a_message_of_core_names_is_one_of_deduplicate() -> None:
    known = set(inspect.signature(deduplicate).parameters)
    named: dict[str, str] = {}
    for file in sorted(Path(core.__file__).parent.rglob("*.py")):
        source = file.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "UserError":
                words = re.findall(r"`([a-z_]+)[=`]", ast.get_source_segment(source, node) or "")
                named |= dict.fromkeys(words, file.name)
    assert len(named) > 8 and set(named) <= known, {name: named[name] for name in set(named) - known}
