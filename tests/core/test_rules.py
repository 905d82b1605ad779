"""Rules are objects in a registry: the command line, the configuration and the documentation follow it.

What the rules decide is in test_decision.py.
"""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import oracles
import pyarrow.parquet as pq
import pytest
import toy_rule
from runs import command, done, manifest

import fairdedup
from fairdedup import UserError, deduplicate
from fairdedup.config import RunConfig
from fairdedup.core.model import Options
from fairdedup.core.rules.registry import (
    all_rules,
    find_rule,
    register,
    rule_for_column,
    rule_names,
    simplest_rule,
    unregister,
)
from fairdedup.core.rules.rule_tables import render_options, render_rules

ROOT = Path(fairdedup.__file__).parent.parent
NAMES = ("fairdedup", "balanced", "semdedup", "prefer", "semdedup-chain", "random-neighbour", "random")
RENDER = "paste the tables that `python -m fairdedup.core.rules.rule_tables` prints"
unregister(toy_rule.Central.name)  # its import registers it


@pytest.fixture
def toy() -> Iterator[str]:
    """Register the toy rule for one test."""
    register(toy_rule.Central)
    yield toy_rule.Central.name
    unregister(toy_rule.Central.name)


def test_the_rules_are_listed_in_the_order_of_the_help() -> None:
    assert rule_names() == NAMES
    assert [rule.name for rule in all_rules()] == list(NAMES)
    assert rule_for_column().name == "prefer"
    assert simplest_rule().name == "semdedup"


def test_an_unknown_rule_is_refused_with_the_names() -> None:
    with pytest.raises(UserError, match=f"`rule=best` is unknown: choose one of {', '.join(NAMES)}$"):
        find_rule("best")


@pytest.mark.parametrize("name", NAMES)
def test_the_attributes_of_a_rule_are_consistent(name: str) -> None:
    rule = find_rule(name)
    assert ("cover" in rule.reads) == rule.sweeps
    assert ("prototypes" in rule.reads) == rule.needs_prototypes
    assert ("prefer" in rule.reads) == rule.needs_column
    assert ("reserve" in rule.reads) == rule.reserves_seats
    assert rule.has_eps or not rule.sweeps
    assert rule.summary and rule.source and "\n" not in rule.summary
    assert rule.guarantees(cover=True) == rule.sweeps
    assert rule.guarantees(cover=False) == (name == "semdedup")


@pytest.mark.parametrize("name", NAMES)
def test_a_rule_travels_to_another_process(name: str) -> None:
    options = Options(rule=name, seed=3)  # type: ignore[arg-type]
    assert options.rule is find_rule(name)
    assert pickle.loads(pickle.dumps(options)) == options
    assert options != Options(rule=find_rule("prefer" if name != "prefer" else "random"), seed=3)


def test_the_list_of_rules_loads_no_library() -> None:
    code = """
import sys
from fairdedup.core.rules.registry import all_rules
from fairdedup.core.rules import rule_tables
print([m for m in sys.modules if m in ("numpy", "numba", "pandas", "torch", "scipy", "faiss", "pyarrow")])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_no_code_outside_the_registry_compares_the_name_of_a_rule() -> None:
    pattern = re.compile(
        r"(?<!for )(?<!for number, )\brule(\"\])? (==|!=|in|not in) |\.rule\b.*[!=]=|[\"']rule[\"']\)? [!=]="
    )
    found = []
    for path in sorted((ROOT / "fairdedup").rglob("*.py")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if pattern.search(line.partition("#")[0]):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    assert not found


@pytest.mark.parametrize("page", ["README.md", "docs/rules.md"])
def test_the_table_of_rules_in_the_documentation_is_the_registrys(page: str) -> None:
    assert f"\n\n{render_rules()}\n" in (ROOT / page).read_text(encoding="utf-8"), RENDER


def test_every_other_list_of_the_rules_is_complete() -> None:
    options = (ROOT / "docs" / "run-directory.md").read_text(encoding="utf-8")
    row = next(line for line in options.splitlines() if line.startswith("| `--rule` |"))
    assert all(f"`{name}`" in row for name in NAMES)
    assert all(f'"{name}"' in (deduplicate.__doc__ or "") for name in NAMES)


def test_the_table_of_options_in_the_documentation_is_the_registrys() -> None:
    assert f"\n\n{render_options()}\n" in (ROOT / "docs" / "rules.md").read_text(encoding="utf-8"), RENDER


# A user's own rule


def test_the_documentation_shows_the_toy_rule() -> None:
    def core_of(text: str) -> str:
        return re.sub(r": (ArrangedCluster|Plan)| -> Preference", "", text[text.index("@register") :]).strip()

    text = (ROOT / "docs" / "rules.md").read_text(encoding="utf-8")
    shown = re.findall(r"```py\n(.*?)```", text, re.DOTALL)
    assert [core_of(code) for code in shown] == [core_of(Path(toy_rule.__file__).read_text(encoding="utf-8"))]


def crowd() -> np.ndarray:
    rng = np.random.default_rng(4)
    return rng.normal(size=(30, 8))[rng.integers(30, size=240)] + 0.2 * rng.normal(size=(240, 8))


def expected(x: np.ndarray, labels: np.ndarray, eps: int) -> np.ndarray:
    """Return the rows that the toy rule keeps, computed only from its description."""
    x16, kept = oracles.unit16(x), np.zeros(len(x), bool)
    for label, centroid in oracles.centroids_of_labels(x16, labels).items():
        own = np.flatnonzero(labels == label)
        nearness = oracles.cosine_matrix(x16[own], centroid[None])[:, 0]
        price = oracles.quantised(nearness).tolist()

        def pick(leader: int, members: list[int], price: list[int] = price) -> int:
            return min(members, key=lambda j: (-price[j], j))

        cosines = oracles.cosine_matrix(x16[own], x16[own])
        for step in oracles.sweep(cosines, oracles.visiting_order(nearness), eps, pick):
            kept[own[step.kept]] = True
    return kept


@pytest.mark.usefixtures("toy")
def test_a_users_own_rule_decides_in_memory() -> None:
    x, labels = crowd(), np.arange(240) % 3
    result = deduplicate(x, eps=0.2, rule="central", clusters=labels, published=True)
    assert np.array_equal(result.decisions["kept"], expected(x, labels, 2000))
    assert len(deduplicate(x, keep=0.4, rule=toy_rule.Central(), cover=True, clusters=labels).kept) == 96
    assert not np.array_equal(
        result.kept, deduplicate(x, eps=0.2, rule="semdedup", clusters=labels, published=True).kept
    )


@pytest.mark.usefixtures("toy")
def test_a_users_own_rule_is_listed_and_configured_and_runs_on_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{Path(toy_rule.__file__).parent}:{ROOT}")
    assert f"|{NAMES[-1]}|central]" in re.sub(r"\s", "", done("run", "--help").out)
    assert RunConfig(rule="central").rule == "central"
    x = crowd()
    np.save(tmp_path / "x.npy", x.astype(np.float32))
    run = tmp_path / "run"
    done("run", tmp_path / "x.npy", "--eps", 0.2, "--rule", "central", "--published", "--clusters", 3, "--out",
         run, "--workers", 1, "--quiet")  # fmt: skip
    assert manifest(run)["config"]["prune"]["rule"] == "central"
    decisions = pq.read_table(run / "decisions").to_pandas().sort_values("row")
    labels = decisions["cluster"].to_numpy()
    assert len(np.unique(labels)) == 3
    assert decisions["kept"].sum() < 240
    for _, own in decisions.groupby("neighbourhood"):  # of each neighbourhood the most typical one is kept
        assert own["kept"].sum() == 1
        assert own["kept"].to_numpy()[np.argmax(np.rint(own["centroid_similarity"] * 1e6))]


def test_a_rule_that_is_not_registered_is_refused_everywhere(tmp_path: Path) -> None:
    refused = command("run", tmp_path, "--rule", "central", "--keep", 0.5)
    assert refused.code == 2 and "'central' is not one of 'fairdedup', 'balanced'" in refused.err
    with pytest.raises(ValueError, match="must be one of fairdedup, balanced"):
        RunConfig(rule="central")
