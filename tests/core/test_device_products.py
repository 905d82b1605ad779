"""Products by torch find every pair that matters, and what is decided by them is what the CPU decides.

No GPU is needed: "torch:cpu" runs the code for GPUs on torch's CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import (
    RULES_AND_COVER,
    assert_same,
    check_eps,
    check_keep,
    columns,
    naming,
    protect,
    random_across,
    random_case,
    run,
)

from fairdedup import deduplicate
from fairdedup.core import device_products, device_search, pair_graph, visits
from fairdedup.core import leader_sweep as sweep
from fairdedup.core.approximate import approximate, approximate_in_float32
from fairdedup.core.cross_links import iterate_pairs
from fairdedup.core.device_products import DeviceVectors, grow
from fairdedup.core.devices import use_device
from fairdedup.core.nearest import most_similar
from fairdedup.core.reach import assign_and_find_nearby, find_nearby
from fairdedup.core.similarity import Vectors, eps_needed, unit_float16
from fairdedup.errors import FairdedupError

torch = pytest.importorskip("torch")
HERE = "torch:cpu"
FIELDS = ("kept", "representative", "similarity", "neighbourhood", "readmitted", "cluster", "centroid_similarity")


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Cut everything into many pieces, as it is with millions of rows."""
    for module, name, value in (
        (device_products, "TILE", 48),
        (sweep, "COLUMNS", 64),
        (sweep, "BLOCK", 16),
        (device_products, "FILTERED", 300),
        (device_search, "FILTERED", 300),
        (pair_graph, "TILE", 5),
        (visits, "BUFFER", 7),
    ):
        monkeypatch.setattr(module, name, value)
    yield


def put(vectors: Vectors) -> DeviceVectors:
    known = DeviceVectors.put(vectors.x, approximate_in_float32(vectors).terms, HERE)
    assert known is not None
    return known


def crowd(n: int, d: int, seed: int) -> np.ndarray:
    """Return vectors with neighbours at every distance, and copies."""
    rng = np.random.default_rng(seed)
    base = rng.normal(size=(n // 4, d)) + rng.normal(size=d)
    return base[rng.integers(len(base), size=n)] + rng.normal(size=(n, d)) * rng.choice([0, 0.05, 0.2, 0.5], (n, 1))


def hostile(rng: np.random.Generator, kind: str, n: int, d: int) -> np.ndarray:
    """Return vectors that make the most of the errors of products."""
    x = rng.normal(size=(n, d))
    if kind == "subnormal":  # most values are below the least normal float16, and one is large
        x *= 1e-6
        x[:, 0] = 1
    elif kind == "wide":
        x *= np.exp(6 * rng.normal(size=(n, d)))
    elif kind == "near":  # all pairs are about as similar, by the grain of float16
        x = np.ones(d) + 1e-3 * x
    elif kind == "cancelling":  # large products of both signs that add up to little
        x = np.sign(x) * (1 + 1e-3 * rng.random((n, d)))
    elif kind == "copies":
        x = x[rng.integers(n, size=n)]
    x[np.abs(x).max(axis=1) == 0, 0] = 1.0
    return x


KINDS = st.sampled_from(["plain", "subnormal", "wide", "near", "cancelling", "copies"])


@settings(max_examples=40)
@given(n=st.integers(2, 40), d=st.integers(1, 80), seed=st.integers(0, 2**32 - 1), kind=KINDS)
def test_no_product_is_farther_from_the_cosine_than_the_bound(n: int, d: int, seed: int, kind: str) -> None:
    vectors = Vectors.of(unit_float16(hostile(np.random.default_rng(seed), kind, n, d))[0])
    known = put(vectors)
    found, terms = known.multiply(known).values.numpy().astype(np.float64), known.terms
    exact = oracles.cosine_matrix(vectors.x.astype(np.float16), vectors.x.astype(np.float16))
    error = np.abs(found / np.outer(terms.length, terms.length) - exact)
    # The same bound without the two roundings of the comparison is what the docstring proves.
    assert (error <= terms.error[:, None] + terms.error).all()


@settings(max_examples=40)
@given(n=st.integers(2, 40), d=st.integers(1, 80), seed=st.integers(0, 2**32 - 1), kind=KINDS, data=st.data())
def test_pairs_are_those_of_the_exact_cosines_at_and_next_to_their_own_eps(
    n: int, d: int, seed: int, kind: str, data: st.DataObject
) -> None:
    unit = unit_float16(hostile(np.random.default_rng(seed), kind, n, d))[0]
    exact = oracles.cosine_matrix(unit, unit)
    a, b = data.draw(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)))
    eps = int(np.clip(eps_needed(exact[a, b]) + data.draw(st.integers(-1, 1)), 1, 20_001))
    with use_device(HERE):
        graph = pair_graph.find_pairs(Vectors.of(unit), eps)
    assert graph is not None
    row, column = np.nonzero(oracles.duplicates(exact, eps) & ~np.eye(n, dtype=bool))
    assert np.array_equal(np.repeat(np.arange(n), np.diff(graph.pairs.starts)), row)
    assert np.array_equal(graph.pairs.neighbours, column)
    assert graph.pairs.needed.tolist() == [eps_needed(value) for value in exact[row, column]]


@settings(max_examples=40)
@given(n=st.integers(1, 30), m=st.integers(1, 30), d=st.integers(1, 40), seed=st.integers(0, 2**32 - 1), kind=KINDS)
def test_the_most_similar_is_exact_and_ties_go_to_the_lower_place(n: int, m: int, d: int, seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    unit = unit_float16(hostile(rng, kind, n + m, d))[0]
    unit[-1] = 0 if seed % 2 else unit[0]  # a centroid may be zero
    queries, others = Vectors.of(unit[:n]), Vectors.of(unit[n:])
    codes = (rng.integers(3, size=n), rng.integers(3, size=m)) if seed % 3 else None
    exact = oracles.cosine_matrix(unit[:n], unit[n:])
    if codes is not None:
        exact[codes[0][:, None] != codes[1]] = -2.0
    with use_device(HERE):
        place, similarity = most_similar(queries, others, codes)
    best = exact.max(axis=1)
    assert np.array_equal(similarity, best)
    assert np.array_equal(place, np.where(best > -2.0, exact.argmax(axis=1), -1))


def test_a_program_that_allows_products_of_fewer_bits_changes_nothing() -> None:
    unit = unit_float16(crowd(400, 64, 1))[0]
    vectors, before = Vectors.of(unit), torch.get_float32_matmul_precision()
    expected = put(vectors).multiply(put(vectors)).values.numpy()
    torch.set_float32_matmul_precision("medium")  # bfloat16, on processors that multiply it fast
    try:
        found = put(vectors).multiply(put(vectors)).values.numpy()
        assert torch.get_float32_matmul_precision() == "medium"  # as the program had it
    finally:
        torch.set_float32_matmul_precision(before)
    assert np.array_equal(found, expected)


@pytest.mark.usefixtures("one_thread", "small_tiles")
@pytest.mark.parametrize(("rule", "cover"), RULES_AND_COVER)
def test_the_oracles_problems_are_decided_alike(rule: str, cover: bool) -> None:
    for seed in range(0, 16, 2):
        case = random_case(seed)
        with naming(f"random_case({seed})"), use_device(HERE):
            check_eps(case, rule, cover)
            if seed < 6:
                check_keep(case, rule, cover)
            if rule != "semdedup-chain" and seed % 8 == 0:
                check_eps(protect(case, seed), rule, cover)


@pytest.mark.usefixtures("one_thread")
def test_the_oracles_problems_across_clusters_are_decided_alike() -> None:
    rules = [how for how in RULES_AND_COVER if how[0] not in ("semdedup-chain", "random-neighbour")]
    for number in range(24):
        problem, (rule, cover) = random_across(number, nights=1), rules[number % len(rules)]
        case = problem.case
        with naming((number, rule, cover)), use_device(HERE):
            result = run(
                case, rule, cover, eps=case.eps / 10_000, reach=problem.reach, reach_clusters=problem.reach_clusters,
                within=problem.within,
            )  # fmt: skip
            assert_same(columns(result), problem.twin(rule, cover, centroids16=None).at_eps(case.eps))


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("within", [False, True])
def test_a_decision_with_k_means_has_the_bytes_of_the_cpu(within: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    x = crowd(900, 12, 3)
    values = np.arange(900) % 3 if within else None
    found = []
    put_there = []
    original = DeviceVectors.put
    monkeypatch.setattr(DeviceVectors, "put", lambda *given: put_there.append(1) or original(*given))
    for device in ("cpu", HERE):
        with use_device(device):
            found.append(deduplicate(x, keep=0.4, rule="semdedup", clusters=9, within=values, leftover=200))
        assert bool(put_there) == (device == HERE)
    for name in FIELDS:
        assert found[0].decisions[name].to_numpy().tobytes() == found[1].decisions[name].to_numpy().tobytes()
    assert found[0].eps == found[1].eps and found[0].leftover == found[1].leftover


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("values", [[300], [1, 50, 900, 4000, 20_001], list(range(500, 564))])
def test_every_window_of_a_sweep_gives_the_visits_of_the_cpu(values: list[int]) -> None:
    vectors = Vectors.of(unit_float16(crowd(500, 16, 5))[0])
    records = []
    for device in ("cpu", HERE):
        with use_device(device):
            found = sweep.sweep(vectors, values)
        visits_made = zip(found.leader.tolist(), found.member.tolist(), found.bits.tolist(), strict=True)
        records.append((found.leads.tolist(), sorted(visits_made)))
    assert records[0] == records[1]


@pytest.mark.usefixtures("small_tiles")
def test_nearby_clusters_are_those_of_the_cpu() -> None:
    unit, centroids = unit_float16(np.rint(3 * crowd(200, 6, 7)) + 0.0)[0], unit_float16(crowd(40, 6, 8))[0]
    unit[~unit.any(axis=1), 0] = 1
    centroids[11] = centroids[3]  # a tie
    centroids[20] = 0
    own = np.arange(200) % 40
    for most in (1, 2, 16, 40):
        expected = *assign_and_find_nearby(unit, centroids, most), find_nearby(unit, own, centroids, most)
        with use_device(HERE):
            found = *assign_and_find_nearby(unit, centroids, most), find_nearby(unit, own, centroids, most)
        assert np.array_equal(found[0], expected[0])
        for one, other in zip((*found[1], *found[2]), (*expected[1], *expected[2]), strict=True):
            assert np.array_equal(one, other)


def test_pairs_of_two_sets_and_the_check_of_kept_rows_are_those_of_the_cpu(small_tiles: None) -> None:
    unit = unit_float16(crowd(260, 8, 9))[0]
    vectors = Vectors.of(unit)
    leaders = np.flatnonzero(sweep.sweep(vectors, [700]).leads)

    def look() -> tuple[Any, ...]:
        pairs = sorted(
            pair
            for some in iterate_pairs(unit[:90], unit[90:], 400)
            for pair in zip(*map(np.ndarray.tolist, some), strict=True)
        )
        return pairs, [pair_graph.are_distinct(vectors.take(leaders), e) for e in (0, 700, 720, 3000)]

    expected = look()
    with use_device(HERE):
        assert look() == expected
    assert len(expected[0]) > 100 and expected[1] == [True, True, False, False]


def test_few_leaders_are_followed_by_more() -> None:
    assert [(rows.start, rows.stop) for rows in grow(100)] == [(0, 1), (1, 4), (4, 16), (16, 64), (64, 100)]
    assert list(grow(0)) == []


def raise_out_of_memory(*_: object, **__: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")


def test_vectors_that_do_not_fit_on_the_device_stay_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = Vectors.of(unit_float16(crowd(60, 8, 1))[0])
    expected = most_similar(vectors, vectors)
    monkeypatch.setattr(torch.Tensor, "to", raise_out_of_memory)
    with use_device(HERE):
        assert not isinstance(approximate(vectors), DeviceVectors)
        assert np.array_equal(most_similar(vectors, vectors)[0], expected[0])


STEPS: dict[str, Callable[[Vectors], object]] = {
    "pairs": lambda vectors: pair_graph.find_pairs(vectors, 300),
    "a sweep": lambda vectors: sweep.sweep(vectors, [300]),
    "the most similar": lambda vectors: most_similar(vectors, vectors),
}


@pytest.mark.parametrize("step", STEPS)
def test_a_device_that_is_full_is_one_line_with_a_remedy(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = Vectors.of(unit_float16(crowd(60, 8, 1))[0])
    monkeypatch.setattr(torch.Tensor, "__matmul__", raise_out_of_memory)
    with use_device(HERE), pytest.raises(FairdedupError, match="memory of the GPU is full: .*CUDA_VISIBLE_DEVICES"):
        STEPS[step](vectors)
