"""The sweep, its cover and the chain do not depend on tiles, buffers, windows or threads, and need O(n) memory.

Clusters of thousands of rows against a plain float64 sweep over all pairs; the rules are in test_decision.py.
"""

from __future__ import annotations

import cProfile
import os
import pstats
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import RULES_AND_COVER, assert_same, check_eps, check_keep, columns, naming, random_case, run

from fairdedup import in_memory
from fairdedup.core import approximate, cover, pair_graph, visits
from fairdedup.core import chain as chain_module
from fairdedup.core import leader_sweep as sweep
from fairdedup.core.chain import most_similar_earlier
from fairdedup.core.row_hash import row_hash
from fairdedup.core.rules.balanced import LIKENESS_WEIGHT
from fairdedup.core.rules.base import Preference
from fairdedup.core.similarity import Vectors

TILES = [(sweep, "BLOCK"), (sweep, "TILE_COLUMNS"), (visits, "BUFFER"), (pair_graph, "TILE"),
         (chain_module, "TILE_ROWS"), (chain_module, "TILE_COLUMNS")]  # fmt: skip


def crowd(n: int, d: int, seed: int = 0) -> np.ndarray:
    """Return unit float16 vectors with neighbours at every distance, some of them copies."""
    rng = np.random.default_rng(seed)
    base = rng.normal(size=(n // 4, d)) + rng.normal(size=d)
    x = base[rng.integers(len(base), size=n)] + rng.normal(size=(n, d)) * rng.choice([0, 0.05, 0.2, 0.5], size=(n, 1))
    return oracles.unit16(x)


def plain_sweep(cosines: np.ndarray, e: int) -> np.ndarray:
    """Return the leader of every row, in the order of the rows."""
    leader = np.full(len(cosines), -1)
    near = oracles.duplicates(cosines, e)
    for i in range(len(cosines)):
        if leader[i] < 0:
            mine = near[i] & (leader < 0)
            mine[i] = True
            leader[mine] = i
    return leader


def leaders_of(found: sweep.Neighbourhoods) -> np.ndarray:
    leader = np.full(len(found.members), -1)
    leader[found.members] = found.leaders[found.step_of_member()]
    return leader


@pytest.fixture(scope="module")
def crowded() -> tuple[Vectors, np.ndarray]:
    x16 = crowd(3000, 16)
    return Vectors.of(x16), oracles.cosine_matrix(x16, x16)


def set_sizes(monkeypatch: pytest.MonkeyPatch, **sizes: float) -> None:
    for name, size in sizes.items():
        monkeypatch.setattr(visits if name == "BUFFER" else sweep, name, size)


@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"BLOCK": 50, "TILE_COLUMNS": 129},
        {"BLOCK": 7, "TILE_COLUMNS": 1000, "COMPACT_BELOW": 1.01, "BUFFER": 3},
        {"BLOCK": 384, "TILE_COLUMNS": 64, "COMPACT_BELOW": 0.0, "BUFFER": 1},
    ],
    ids=["as shipped", "small tiles", "compacting always", "compacting never"],
)
@pytest.mark.parametrize("make", [approximate.approximate_in_float32, approximate.approximate_in_int8])
def test_a_cluster_of_thousands_is_swept_as_over_all_pairs(
    crowded: tuple[Vectors, np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[..., Any],
    sizes: dict[str, float],
) -> None:
    vectors, cosines = crowded
    monkeypatch.setattr(sweep, "approximate", make)
    set_sizes(monkeypatch, **sizes)
    values = [0, 1, 20, 130, 900, 4000, 10_001, 20_000, 20_001]
    found = sweep.sweep(vectors, values)
    counts = found.counts()
    for k, e in enumerate(values):
        leader = plain_sweep(cosines, e)
        groups = found.neighbourhoods(e)
        assert np.array_equal(leaders_of(groups), leader)
        assert counts[k] == len(groups.leaders) == len(np.unique(leader))
        starts, members = groups.starts, groups.members
        assert np.array_equal(members[starts[:-1]], groups.leaders)  # a leader comes first
        assert all((np.diff(members[a:b]) > 0).all() for a, b in zip(starts, starts[1:], strict=False))
    assert counts[0] == 3000
    assert counts[-1] == 1


@pytest.mark.parametrize("width", [1, 2, 63, 64])
def test_a_window_of_any_width_finds_the_same_neighbourhoods(crowded: tuple[Vectors, np.ndarray], width: int) -> None:
    vectors = crowded[0].take(np.arange(800))
    cosines = crowded[1][:800, :800]
    for first in (0, 1, 117, 9990, 20_002 - width):
        values = list(range(first, first + width))
        found = sweep.sweep(vectors, values)
        for e in {first, first + width // 2, first + width - 1}:
            assert np.array_equal(leaders_of(found.neighbourhoods(e)), plain_sweep(cosines, e))
        assert found.counts().tolist() == [len(found.neighbourhoods(e).leaders) for e in values]


def test_a_window_of_64_distant_values_is_that_of_64_single_ones(crowded: tuple[Vectors, np.ndarray]) -> None:
    vectors = crowded[0].take(np.arange(500))
    values = sorted({0, *np.random.default_rng(0).choice(20_002, 62, replace=False).tolist(), 20_001})
    together = sweep.sweep(vectors, values)
    for e in values:
        alone = sweep.sweep(vectors, [e]).neighbourhoods(e)
        assert np.array_equal(leaders_of(together.neighbourhoods(e)), leaders_of(alone))


@pytest.mark.parametrize("rows", [1, 2, 383, 384, 385, 769])
def test_clusters_of_one_block_more_or_less(rows: int) -> None:
    x16 = crowd(1000, 6, rows)[:rows]
    cosines = oracles.cosine_matrix(x16, x16)
    for e in (1, 300, 20_001):
        found = sweep.sweep(Vectors.of(x16), [e]).neighbourhoods(e)
        assert np.array_equal(leaders_of(found), plain_sweep(cosines, e))


@pytest.mark.parametrize(
    "eps",
    [[], [5, 5], [6, 5], list(range(65)), [-1, 3], [20_002]],
    ids=["none", "twice", "falling", "65", "below", "above"],
)
def test_a_window_that_is_none_is_refused(eps: list[int]) -> None:
    with pytest.raises(ValueError, match="eps must"):
        sweep.sweep(Vectors.of(crowd(8, 3)), eps)


def test_the_visiting_order_is_that_of_the_oracle() -> None:
    rng = np.random.default_rng(1)
    similarity = rng.choice([0.5, 0.25, 0.2500004, 0.2499996, -0.1, 0.0], size=300) + 1e-7 * rng.integers(0, 3, 300)
    rows = np.sort(rng.choice(10**12, 300, replace=False))
    assert sweep.visiting_order(similarity, rows).tolist() == oracles.visiting_order(similarity)


@settings(max_examples=40)
@given(seed=st.integers(10_000, 10_000_000), data=st.data())
def test_no_size_of_tile_buffer_or_window_changes_a_decision(seed: int, data: st.DataObject) -> None:
    case = random_case(seed)
    rule, covered = data.draw(st.sampled_from(RULES_AND_COVER))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "cpu_count", lambda: 1)
        before = run(case, rule, covered, keep=case.keep)
        for module, name in TILES:
            patch.setattr(module, name, data.draw(st.sampled_from([1, 2, 3, 8, 17]), name))
        patch.setattr(sweep, "COMPACT_BELOW", data.draw(st.sampled_from([0.0, 0.5, 1.01]), "COMPACT_BELOW"))
        patch.setattr(sweep, "MOST_SETTLED", data.draw(st.sampled_from([0.0, 0.04, 2.0]), "MOST_SETTLED"))
        make = data.draw(
            st.sampled_from([approximate.approximate_in_float32, approximate.approximate_in_int8]), "approximate"
        )
        patch.setattr(sweep, "approximate", make)
        patch.setattr(pair_graph, "approximate", make)
        patch.setattr(pair_graph, "MAX_PAIRS", data.draw(st.sampled_from([0, 5, 1 << 25]), "MAX_PAIRS"))
        after = run(case, rule, covered, keep=case.keep)
    assert after.eps == before.eps
    assert after.guarantees == before.guarantees
    assert_same(columns(after), columns(before))


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_the_number_of_threads_changes_nothing(monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    in_threads = []
    monkeypatch.setattr(in_memory, "limit_product_threads", lambda: in_threads.append(1) or nullcontext())
    monkeypatch.setattr(os, "cpu_count", lambda: workers)
    for seed in (0, 8):  # 40 rows and more
        case = random_case(seed)
        case = replace(case, labels=np.arange(len(case.x)) % 12, keep=max(case.keep, 0.5))
        for rule, covered in RULES_AND_COVER:
            with naming((seed, rule, covered)):
                check_eps(case, rule, covered)
                check_keep(case, rule, covered)
    assert bool(in_threads) == (workers > 1)


# Cover: the graph of pairs, the walk over it, and the walk without it.


def preferences(x16: np.ndarray) -> list[Preference]:
    n = len(x16)
    rng = np.random.default_rng(n)
    rows = np.arange(n)
    p = rng.integers(-(10**6), 10**6, size=(n, 3))
    return [
        Preference.by_price(-rows),
        Preference.by_price(row_hash(rows, 4)),
        Preference.by_least_represented(p),
        Preference.by_least_represented(p, start="zero"),
        Preference.by_price(p[:, 0], LIKENESS_WEIGHT),
    ]


@pytest.mark.parametrize("make", [approximate.approximate_in_float32, approximate.approximate_in_int8])
def test_the_graph_holds_every_pair_of_duplicates_and_the_eps_it_needs(
    crowded: tuple[Vectors, np.ndarray], monkeypatch: pytest.MonkeyPatch, make: Callable[..., Any]
) -> None:
    vectors, cosines = crowded[0].take(np.arange(1200)), crowded[1][:1200, :1200]
    monkeypatch.setattr(pair_graph, "approximate", make)
    for e in (1, 300, 2000):
        graph = pair_graph.find_pairs(vectors, e)
        assert graph is not None
        near = oracles.duplicates(cosines, e) & ~np.eye(1200, dtype=bool)
        row, column = np.nonzero(near)
        assert np.array_equal(np.repeat(np.arange(1200), np.diff(graph.pairs.starts)), row)
        assert np.array_equal(graph.pairs.neighbours, column)
        for least in (1, 17, 300, 2000):
            assert np.array_equal(graph.pairs.needed <= least, oracles.duplicates(cosines[row, column], least))


def test_the_graph_gives_up_on_too_many_pairs_only() -> None:
    vectors = Vectors.of(oracles.unit16(np.ones((40, 3))))  # 780 pairs
    assert pair_graph.find_pairs(vectors, 1, max_pairs=779) is None
    assert pair_graph.find_pairs(vectors, 1, max_pairs=780) is not None
    assert pair_graph.find_pairs(vectors, 0, max_pairs=0) is not None  # no cosine is above 1
    assert pair_graph.find_pairs(Vectors.of(oracles.unit16(np.ones((1, 3)))), 20_001) is not None


def test_the_cover_without_a_graph_is_the_cover_with_one() -> None:
    x16 = crowd(700, 8, 5)
    vectors, rows = Vectors.of(x16), np.arange(700)
    assert pair_graph.find_pairs(vectors, 900, max_pairs=0) is None
    graph = pair_graph.find_pairs(vectors, 900)
    for preference in preferences(x16):
        for e in (0, 1, 130, 900):
            by_graph = cover.cover_sweep(vectors, rows, e, preference, graph)
            by_need = cover.cover_sweep(vectors, rows, e, preference, None)
            assert all(np.array_equal(a, b) for a, b in zip(by_graph, by_need, strict=True))
    for e in (901, -1, 20_002):
        with pytest.raises(ValueError, match="out of range"):
            cover.cover_sweep(vectors, rows, e, preference, graph)


def test_a_decision_without_a_graph_is_the_oracles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair_graph, "MAX_PAIRS", 0)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    for seed in range(12):
        for rule in ("semdedup", "fairdedup", "balanced", "random-neighbour"):
            with naming((seed, rule)):
                check_eps(random_case(seed), rule, True)
                check_keep(random_case(seed), rule, True)


def test_two_kept_duplicates_never_pass_for_distinct(crowded: tuple[Vectors, np.ndarray]) -> None:
    vectors, cosines = crowded
    assert pair_graph.are_distinct(vectors, 0)
    leaders = np.unique(plain_sweep(cosines, 400))
    kept = vectors.take(leaders)
    assert pair_graph.are_distinct(kept, 400)
    twice = np.append(leaders, leaders[len(leaders) // 2])
    assert not pair_graph.are_distinct(vectors.take(twice), 1)
    closest = np.sort(cosines[np.ix_(leaders, leaders)][np.triu_indices(len(leaders), 1)])[-1]
    least = next(e for e in range(400, 20_002) if oracles.duplicates(closest, e))
    assert pair_graph.are_distinct(kept, least - 1)
    assert not pair_graph.are_distinct(kept, least)


def test_the_most_similar_earlier_row_is_exact_over_many_tiles(
    crowded: tuple[Vectors, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chain_module, "TILE_ROWS", 100)
    monkeypatch.setattr(chain_module, "TILE_COLUMNS", 333)
    vectors, cosines = crowded
    rows = np.random.default_rng(2).permutation(3000)  # ties go to the lowest row, not to the first visited
    earlier, similarity = most_similar_earlier(vectors, rows)
    assert earlier[0] == -1
    for i in range(1, 3000):
        best = cosines[i, :i].max()
        tied = np.flatnonzero(cosines[i, :i] == best)
        assert similarity[i] == best
        assert earlier[i] == tied[rows[tied].argmin()]


# Memory and time.

MEASURE = """
import re, sys
import numpy as np
from fairdedup import deduplicate
# Not getrusage: what it calls the peak of a new process is at least that of the process which started it.
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) / 1024
n, d, bases, covered = *map(int, sys.argv[1:4]), sys.argv[4] == "cover"
amount = {sys.argv[5]: float(sys.argv[6])}
rng = np.random.default_rng(0)
base = rng.normal(size=(bases, d)).astype(np.float32)
x = base[rng.integers(len(base), size=n)] + np.float32(0.01) * rng.normal(size=(n, d)).astype(np.float32)
labels = np.zeros(n, int)
ask = lambda x, labels: deduplicate(x, rule="semdedup", cover=covered, clusters=labels, **amount)
ask(x[:64], labels[:64])  # what libraries and compiled code take is no part of it
before = peak()
result = ask(x, labels)
print(before, peak(), len(result.kept))
"""


def memory_of(*arguments: object) -> tuple[float, int]:
    """Return by how many MiB a decision raises the peak of a fresh process, and what it keeps."""
    if not Path("/proc/self/status").exists():
        pytest.skip("needs Linux's record of the peak")
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *map(str, arguments)], capture_output=True, text=True, check=True
    )
    before, after, kept = done.stdout.split()
    return float(after) - float(before), int(kept)


def test_a_giant_cluster_takes_memory_for_its_rows_not_for_its_pairs() -> None:
    # 20,000 x 64: 5 MB of float32; all pairs would be 1.6 GB of float32, 3.2 GB of float64.
    raised, kept = memory_of(20_000, 64, 3000, "alone", "keep", 0.2)
    assert kept == 4000
    assert raised < 200


def test_the_pairs_of_a_cover_take_few_bytes_each() -> None:
    # 4,000 rows, all neighbours of each other: 8 million pairs, a quarter of what a cluster's graph may hold.
    raised, kept = memory_of(4000, 16, 1, "cover", "eps", 0.5)
    assert kept == 1
    assert raised < 8e6 * 30 / 2**20
    assert pair_graph.MAX_PAIRS * 30 <= 2**30


def test_no_python_loop_runs_over_rows() -> None:
    large = Vectors.of(crowd(6000, 16))

    def calls(work: Callable[[], object]) -> int:
        profile = cProfile.Profile()
        profile.runcall(work)
        return pstats.Stats(profile).total_calls  # type: ignore[attr-defined,no-any-return]

    for work in (
        lambda v: sweep.sweep(v, [50, 100, 200]).neighbourhoods(100),
        lambda v: cover.cover_sweep(
            v, np.arange(len(v)), 50, Preference.by_price(-np.arange(len(v))), pair_graph.find_pairs(v, 50)
        ),
        lambda v: most_similar_earlier(v, np.arange(len(v))),
    ):
        work(large)  # what it needs is compiled, or loaded from the cache, by now
        assert calls(lambda work=work: work(large)) < 6000  # type: ignore[misc]
