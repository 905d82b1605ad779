"""The bound of low-precision products holds, and no result depends on the precision that found the candidates."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairdedup.core import approximate, pair_graph
from fairdedup.core import leader_sweep as sweep
from fairdedup.core.similarity import Vectors, unit_float16

PRECISIONS = (approximate.approximate_in_float32, approximate.approximate_in_int8)


def near_copies(n: int, d: int, seed: int, outlier: float = 0.0) -> Vectors:
    """Vectors with copies at many distances; `outlier` gives all of them one large common value, as CLIP has."""
    rng = np.random.default_rng(seed)
    base = rng.standard_normal((n // 2, d)) + 2 * rng.standard_normal(d)
    x = np.concatenate([base, base + rng.uniform(0.0, 1.2, (n // 2, 1)) * 0.5 * rng.standard_normal((n // 2, d))])
    x[:, 0] += outlier
    return Vectors.of(unit_float16(x)[0][rng.permutation(len(x))])


def exact(vectors: Vectors) -> np.ndarray:
    x = vectors.x.astype(np.float64)
    return np.minimum(1.0, (x @ x.T) / np.sqrt(np.outer(vectors.squares, vectors.squares)))


def error_over_bound(vectors: Vectors, make) -> float:  # noqa: ANN001
    known = make(vectors)
    products, terms = known.multiply(known).astype(np.float64), known.terms
    estimate = products * np.outer(terms.scale, terms.scale) + terms.base[:, None] + terms.base
    error = np.abs(estimate / np.outer(terms.length, terms.length) - exact(vectors))
    return float((error / (terms.error[:, None] + terms.error)).max())


@pytest.fixture(autouse=True, scope="module")
def _needs_torch_int8() -> None:
    pytest.importorskip("torch")


@pytest.mark.parametrize("make", PRECISIONS)
@pytest.mark.parametrize("d, outlier", [(2, 0.0), (16, 0.0), (512, 0.0), (512, 30.0)])
def test_a_cosine_is_never_farther_from_its_product_than_the_bound(make, d: int, outlier: float) -> None:
    assert error_over_bound(near_copies(400, d, 1, outlier), make) <= 1.0


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 24), st.integers(1, 20), st.integers(0, 2**32 - 1), st.sampled_from(["ints", "one", "wide"]))
def test_the_bound_holds_for_hostile_vectors(n: int, d: int, seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    x = {
        "ints": lambda: rng.integers(-2, 3, (n, d)).astype(float),
        "one": lambda: np.tile(rng.standard_normal(d), (n, 1)),
        "wide": lambda: rng.standard_normal((n, d)) * np.exp(6 * rng.standard_normal((n, d))),
    }[kind]()
    x[np.abs(x).sum(axis=1) == 0] = 1.0
    vectors = Vectors.of(unit_float16(x)[0])
    for make in PRECISIONS:
        assert error_over_bound(vectors, make) <= 1.0


@pytest.mark.parametrize("eps", [[300], [1, 50, 100, 500, 900, 2000, 20001], list(range(500, 564))])
@pytest.mark.parametrize("d, outlier", [(16, 0.0), (64, 0.0), (64, 9.0)])
def test_every_precision_gives_the_same_sweep(monkeypatch, eps: list[int], d: int, outlier: float) -> None:
    vectors = near_copies(1200, d, 3, outlier)
    records = []
    for make in PRECISIONS:
        monkeypatch.setattr(sweep, "approximate", make)
        found = sweep.sweep(vectors, eps)
        visits = sorted(zip(found.leader.tolist(), found.member.tolist(), found.bits.tolist(), strict=True))
        records.append((found.leads.tolist(), visits))
    assert all(record == records[0] for record in records)
    similarity = exact(vectors)
    for k in (0, len(eps) - 1):
        visited, leaders = np.zeros(len(vectors), bool), []
        for i in range(len(vectors)):
            if not visited[i]:
                leaders.append(i)
                visited[i:] |= similarity[i, i:] > 1.0 - eps[k] / 10_000
        assert np.flatnonzero(np.array(records[0][0], np.uint64) & np.uint64(1 << k)).tolist() == leaders


def test_a_crowd_near_the_threshold_goes_back_to_float32_and_loses_nothing(monkeypatch) -> None:
    x = np.random.default_rng(5).standard_normal((1500, 500))
    vectors = Vectors.of(unit_float16(x)[0])
    upper = exact(vectors)[np.triu_indices(len(vectors), 1)]
    middle = int((1 - float(np.quantile(upper, 0.999))) * 10_000)  # many lie within the 8-bit error of it
    monkeypatch.setattr(sweep, "MOST_SETTLED", 0.0005)
    went_back = []
    original = sweep.approximate_in_float32
    monkeypatch.setattr(sweep, "approximate_in_float32", lambda v: went_back.append(1) or original(v))
    counts = []
    for make in reversed(PRECISIONS):
        monkeypatch.setattr(sweep, "approximate", make)
        counts.append(sweep.sweep(vectors, [middle - 1, middle]).counts().tolist())
    assert went_back and counts[0] == counts[1]


@pytest.mark.parametrize("back", [False, True], ids=["float32", "from 8 bits back to float32"])
def test_a_sweep_holds_no_more_than_one_copy_of_its_rows(monkeypatch, back: bool) -> None:
    vectors = near_copies(6000, 256, 10)  # what is unvisited shrinks, and is moved together, many times
    monkeypatch.setattr(approximate, "MOVED", 256)
    monkeypatch.setattr(sweep, "BLOCK", 64)
    monkeypatch.setattr(sweep, "TILE_COLUMNS", 512)
    monkeypatch.setattr(sweep, "MOST_SETTLED", -1.0)  # 8 bits never pay
    monkeypatch.setattr(sweep, "approximate", PRECISIONS[back])
    expected = sweep.sweep(vectors, [500, 3000]).counts().tolist()
    tracemalloc.start()
    try:
        assert sweep.sweep(vectors, [500, 3000]).counts().tolist() == expected
        assert tracemalloc.get_traced_memory()[1] < 1.3 * vectors.x.nbytes
    finally:
        tracemalloc.stop()


def test_every_precision_gives_the_same_pairs_and_the_same_guarantee(monkeypatch) -> None:
    vectors = near_copies(1100, 48, 7)
    graphs, distinct = [], []
    for make in PRECISIONS:
        monkeypatch.setattr(pair_graph, "approximate", make)
        found = pair_graph.find_pairs(vectors, 700)
        assert found is not None
        graphs.append([column.tolist() for column in found.pairs])
        leaders = np.flatnonzero(sweep.sweep(vectors, [700]).leads)
        distinct.append([pair_graph.are_distinct(vectors.take(leaders), e) for e in (0, 700, 720, 3000)])
    assert all(graph == graphs[0] for graph in graphs) and all(each == distinct[0] for each in distinct)
    assert distinct[0][:2] == [True, True] and not distinct[0][3]
