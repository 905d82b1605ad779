"""deduplicate() accepts many types, and its result is complete. test_api_mistakes.py has the errors."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import oracles
import pandas as pd
import pyarrow as pa
import pytest
from vectors import LABELS, PEOPLE, X, decide, torch_tensor

import fairdedup
from fairdedup import UserError, deduplicate
from fairdedup.api import DECISION_COLUMNS, as_matrix


def read_only(x: np.ndarray) -> np.ndarray:
    x.flags.writeable = False
    return x


def fixed_size(x: np.ndarray) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), x.shape[1])


SAME = {
    "float16": lambda x: x,
    "float32": lambda x: x.astype(np.float32),
    "float64": lambda x: x.astype(np.float64),
    "long double": lambda x: x.astype(np.longdouble),
    "big-endian": lambda x: x.astype(">f4"),
    "read-only": lambda x: read_only(x.astype(np.float32)),
    "read-only float16": lambda x: read_only(x.copy()),
    "by columns": lambda x: np.asfortranarray(x.astype(np.float32)),
    "every other of twice": lambda x: np.repeat(x, 2, axis=0)[::2],
    "reversed twice": lambda x: x[::-1, ::-1].copy()[::-1, ::-1],
    "nested lists": lambda x: x.tolist(),
    "list of arrays": list,
    "array of objects": lambda x: pd.Series(list(x)).to_numpy(),
    "torch": lambda x: torch_tensor(x.astype(np.float32)),
    "torch half": torch_tensor,
    "torch with gradient": lambda x: torch_tensor(x.astype(np.float64)).requires_grad_(),
    "torch parameter": lambda x: pytest.importorskip("torch").nn.Parameter(torch_tensor(x.astype(np.float32))),
    "torch transposed twice": lambda x: torch_tensor(np.ascontiguousarray(x.T)).T,
    "pandas series of arrays": lambda x: pd.Series(list(x.astype(np.float32)), index=range(90, 0, -1)),
    "pandas series of lists": lambda x: pd.Series(x.tolist()),
    "pandas series of arrow lists": lambda x: pd.Series(x.tolist(), dtype=pd.ArrowDtype(pa.list_(pa.float32()))),
    "pandas table": lambda x: pd.DataFrame(x.astype(np.float64), index=[f"r{i}" for i in range(90)]),
    "arrow fixed-size lists": fixed_size,
    "arrow fixed-size lists, sliced": lambda x: fixed_size(np.concatenate([x[:5] + 1, x, x[:7]]))[5:95],
    "arrow lists": lambda x: pa.array(x.astype(np.float32).tolist(), pa.list_(pa.float32())),
    "arrow lists, sliced": lambda x: pa.array([[9.0], *x.tolist()])[1:],
    "arrow large lists": lambda x: pa.array(x.tolist(), pa.large_list(pa.float64())),
    "arrow chunks": lambda x: pa.chunked_array([fixed_size(x[:1]), fixed_size(x[1:50]), fixed_size(x[50:])]),
    "arrow table": lambda x: pa.table({"embedding": fixed_size(x)}),
    "arrow batch": lambda x: pa.record_batch({"embedding": fixed_size(x)}),
}  # fmt: skip


@pytest.mark.parametrize("name", SAME)
def test_the_same_vectors_give_the_same_result_in_every_type(name: str) -> None:
    held = SAME[name](X)
    assert np.array_equal(as_matrix(held), X)
    for options in ({}, {"rule": "balanced", "prototypes": PEOPLE, "keep": 0.4, "eps": None, "cover": True}):
        assert decide(held, **options).decisions.equals(decide(**options).decisions)


def test_whole_numbers_and_narrow_floats_are_vectors_too() -> None:
    whole = np.random.default_rng(1).integers(-3, 4, size=(90, 6))
    whole[:, 0] = 5
    expected = decide(whole.astype(np.float64)).decisions
    for dtype in (np.int8, np.int64):
        assert decide(whole.astype(dtype)).decisions.equals(expected)
    torch = pytest.importorskip("torch")
    for dtype in (torch.int32, torch.bfloat16):
        assert decide(torch.tensor(whole).to(dtype)).decisions.equals(expected)


def test_arguments_are_not_changed() -> None:
    x, labels, ids = X.astype(np.float64), LABELS.copy(), [f"id {i}" for i in range(90)]
    people = {"gender": {name: vector.copy() for name, vector in PEOPLE["gender"].items()}}
    decide(x, clusters=labels, ids=ids, rule="fairdedup", prototypes=people)
    assert np.array_equal(x, X)
    assert np.array_equal(labels, LABELS)
    assert ids == [f"id {i}" for i in range(90)]
    assert np.array_equal(people["gender"]["man"], PEOPLE["gender"]["man"])


# The result.


def test_the_result_has_every_column_for_every_row() -> None:
    result = decide(keep=0.5, eps=None)
    table = result.decisions
    assert tuple(table.columns) == DECISION_COLUMNS == (
        "row", "id", "cluster", "neighbourhood", "kept", "representative", "similarity", "centroid_similarity",
        "readmitted",
    )  # fmt: skip
    assert table["row"].tolist() == table["id"].tolist() == list(range(90))
    kinds = dict(table.dtypes)
    assert all(kinds[c] == np.int64 for c in ("row", "cluster", "neighbourhood", "representative"))
    assert all(kinds[c] == np.float64 for c in ("similarity", "centroid_similarity"))
    assert all(kinds[c] == np.bool_ for c in ("kept", "readmitted"))
    assert result.kept.tolist() == table["id"][table["kept"]].tolist()
    assert result.counts == {
        "input": 90, "valid": 90, "kept": 45, "removed": 45, "rejected": 0,
        "readmitted": int(table["readmitted"].sum()), "clusters": 3,
    }  # fmt: skip
    assert isinstance(result.eps, float)
    assert list(result.rejected.columns) == ["row", "id", "reason"]
    assert len(result.rejected) == 0
    assert repr(result).splitlines()[0].startswith("Result: kept 45")


def test_the_signature_is_the_documented_one() -> None:
    parameters = inspect.signature(deduplicate).parameters
    assert list(parameters) == [
        "embeddings", "keep", "at_most", "eps", "rule", "prototypes", "ids", "clusters", "seed", "cover", "reach",
        "reach_clusters", "published", "start", "calibrate", "target", "temperature", "reserve", "prefer",
        "always_keep", "within", "leftover", "device", "encoder",
    ]  # fmt: skip
    defaults = {name: p.default for name, p in parameters.items() if p.default not in (None, inspect.Parameter.empty)}
    assert defaults == {
        "clusters": "auto", "seed": 0, "reach_clusters": 16, "published": False,
        "start": "cluster", "calibrate": "none", "target": "uniform", "temperature": "auto", "reserve": 0.1,
        "leftover": 1000, "device": "auto",
    }  # fmt: skip
    for name in parameters:
        assert f"\n    {name} : " in (deduplicate.__doc__ or "")
    assert all(p.annotation is not inspect.Parameter.empty for p in parameters.values())
    assert issubclass(UserError, ValueError)
    assert fairdedup.deduplicate is deduplicate


def test_the_defaults_are_cover_and_reach_for_rules_that_read_them() -> None:
    x = np.random.default_rng(0).normal(size=(200, 6))
    labels = np.arange(200) % 7

    def kept(**options: Any) -> list[int]:
        return deduplicate(x, **{"eps": 0.3, "rule": "random-neighbour", "clusters": 9, **options}).kept.tolist()

    assert kept() == kept(cover=True, reach="auto") != kept(cover=True, reach=0)
    assert kept(cover=False) == kept(cover=False, reach="auto")
    assert kept(clusters=labels) == kept(clusters=labels, cover=True, reach=0)  # given labels are left alone
    assert kept(clusters=labels) != kept(clusters=labels, reach="auto")
    assert kept(published=True) == kept(cover=False, reach=0) == kept(published=True, cover=False, reach=0) != kept()
    for rule in ("random", "semdedup-chain"):
        options = {"rule": rule, "keep": 0.5, "eps": None}
        assert kept(**options) == kept(**options, published=True) == kept(**options, cover=False, reach=0)
    for name, value in (("cover", True), ("reach", 0.2), ("reach", "auto")):
        with pytest.raises(UserError, match=f"got `{name}={value}`: leave one of them out"):
            kept(published=True, **{name: value})


def test_rows_always_kept_are_named_by_ids_or_by_a_mask() -> None:
    x = np.random.default_rng(0).normal(size=(60, 4))
    ids = [f"id {k}" for k in range(60)]
    x[7] = np.nan
    asked: dict[str, Any] = {"keep": 0.2, "rule": "semdedup", "clusters": 2, "ids": ids}
    mask = np.isin(np.arange(60), [3, 7, 8, 9])
    results = [
        deduplicate(x, always_keep=wanted, **asked)
        for wanted in (
            mask,
            mask.tolist(),
            ["id 3", "id 7", "id 8", "id 9"],
            pd.Series(["id 9", "id 8", "id 7", "id 3"]),
        )
    ]
    for result in results:
        assert {"id 3", "id 8", "id 9"} <= set(result.kept) and len(result.kept) == 12
        assert result.decisions.equals(results[0].decisions)
        assert result.warnings[0] == "1 of the rows always kept cannot be used and is rejected; the first is id 7"
    assert 5 in deduplicate(x, keep=0.2, rule="semdedup", always_keep=[5]).kept
    nobody = deduplicate(x, always_keep=[], **asked)
    assert nobody.decisions.equals(deduplicate(x, **asked).decisions)


def test_the_examples_in_the_documentation_work() -> None:
    import doctest

    outcome = doctest.run_docstring_examples
    finder, runner = doctest.DocTestFinder(), doctest.DocTestRunner()
    for test in finder.find(deduplicate, "deduplicate", globs={}):
        runner.run(test)
    assert outcome is not None and runner.summarize(verbose=False).attempted > 0
    assert runner.failures == 0


IDS = {
    "words": [f"sample/{i}" for i in range(90)],
    "unlike words": np.array(["a", "bb", *(f"ccc{i}" for i in range(88))], object),
    "numbers in any order": np.arange(90)[::-1] * 10**15,
    "arrow": pa.array([f"é{i}" for i in range(90)]),
    "arrow chunks": pa.chunked_array([[f"{i}" for i in range(40)], [f"{i}" for i in range(40, 90)]]),
    "pandas": pd.Series([f"{i}.jpg" for i in range(90)], index=range(90, 180)),
    "pandas index": pd.Index(range(500, 590)),
}


@pytest.mark.parametrize("name", IDS)
def test_ids_of_any_kind_follow_their_rows(name: str) -> None:
    ids = IDS[name]
    listed = ids.to_pylist() if hasattr(ids, "to_pylist") else list(ids)
    x = X.copy()
    x[[4, 50]] = 0
    by_row, by_id = decide(x), decide(x, ids=ids)
    assert by_id.kept.tolist() == [listed[row] for row in by_row.kept]
    assert by_id.decisions["id"].tolist() == [listed[row] for row in by_row.decisions["row"]]
    assert by_id.rejected["id"].tolist() == [listed[4], listed[50]]
    others = [column for column in DECISION_COLUMNS if column != "id"]
    assert by_id.decisions[others].equals(by_row.decisions[others])


def test_what_cannot_be_used_is_rejected_with_its_reason_and_changes_nothing_else() -> None:
    x = X.astype(np.float64)
    bad = {3: np.nan, 4: np.inf, 5: -np.inf, 40: 0.0, 89: np.nan}
    for row, value in bad.items():
        x[row, 1:] = value
        x[row, 0] = 0
    good = np.setdiff1d(np.arange(90), list(bad))
    for rule in ("semdedup", "fairdedup", "balanced", "random-neighbour"):
        result = decide(x, rule=rule, prototypes=PEOPLE, keep=0.5, eps=None, published=True)
        assert result.rejected["row"].tolist() == list(bad)
        assert result.rejected["reason"].tolist() == [
            *["vector has a value that is not finite"] * 3, "vector is zero", "vector has a value that is not finite",
        ]  # fmt: skip
        assert result.decisions["row"].tolist() == good.tolist()
        assert result.counts["valid"] == 85 == len(good)
        assert result.counts["kept"] == 43  # half of the valid ones, rounded up
        assert result.counts["rejected"] == 5
        assert result.counts["kept"] + result.counts["removed"] + result.counts["rejected"] == 90
        problem = oracles.Problem(
            oracles.unit16(x[good]), LABELS[good], rule, prototypes=PEOPLE,
            chosen=np.searchsorted(good, result.decisions["representative"]),
        )  # fmt: skip
        expected = problem.decide(round((result.eps or 0) * 10_000), 0.5)
        assert np.array_equal(result.decisions["kept"], expected["kept"])
        assert np.array_equal(result.decisions["representative"], good[expected["representative"]])
        assert np.array_equal(result.decisions["neighbourhood"], good[expected["neighbourhood"]])


# Clusters.


@pytest.mark.parametrize(
    "held",
    [list, lambda y: y.astype(np.int8), lambda y: y.astype(np.uint64), pd.Series, pa.array, torch_tensor],
    ids=["list", "int8", "uint64", "pandas", "arrow", "torch"],
)
def test_labels_of_any_kind_are_the_clusters(held: Any) -> None:
    assert decide(clusters=held(LABELS)).decisions.equals(decide().decisions)


def test_numbers_of_clusters_are_only_names() -> None:
    names = np.array([2**62, 7, 2**63 - 1])
    renamed = decide(clusters=names[LABELS])
    assert renamed.decisions["cluster"].tolist() == names[LABELS].tolist()
    others = [column for column in DECISION_COLUMNS if column != "cluster"]
    assert renamed.decisions[others].equals(decide().decisions[others])


@pytest.mark.parametrize("clusters", [1, 4, np.int64(9), 90, "auto"])
def test_rows_go_to_their_most_similar_centroid_and_the_decision_follows(clusters: Any) -> None:
    from fairdedup.core import kmeans

    unit = oracles.unit16(X)
    result = decide(clusters=clusters, keep=0.9 if clusters != 90 else 1, eps=None, seed=3)
    k = 1 if clusters == "auto" else int(clusters)
    rows = kmeans.training_rows([np.arange(90)], k, 3)
    centroids = oracles.unit16(kmeans.train(unit[rows], k, 3, device="auto"))
    assert np.array_equal(result.decisions["cluster"], oracles.assign(unit, centroids))
    assert result.counts["clusters"] == result.decisions["cluster"].nunique() <= k
    labels = result.decisions["cluster"].to_numpy()
    problem = oracles.Problem(unit, labels, "semdedup", centroids16=centroids)
    expected = problem.decide(round((result.eps or 0) * 10_000), 1 if clusters == 90 else 0.9)
    for column in ("kept", "representative", "neighbourhood", "similarity", "centroid_similarity"):
        assert np.array_equal(result.decisions[column], expected[column])


def test_automatic_clusters_are_one_for_about_a_thousand_rows() -> None:
    from fairdedup.core.kmeans import auto_clusters

    found = [auto_clusters(n) for n in (1, 999, 1000, 1999, 50_000, 10**6, 10**7, 10**9)]
    assert found == [1, 1, 1, 1, 50, 1000, 3162, 31_622]


def test_a_seed_determines_the_result() -> None:
    first, again, other = (decide(clusters=5, rule="random-neighbour", seed=s) for s in (1, 1, 2))
    assert first.decisions.equals(again.decisions)
    assert not first.decisions.equals(other.decisions)


@pytest.mark.parametrize("temperature", [1, np.float32(0.1), np.float64(0.1), np.int64(2)])
def test_a_temperature_is_any_kind_of_number(temperature: Any) -> None:
    found = decide(rule="balanced", prototypes=PEOPLE, temperature=temperature)
    assert found.decisions.equals(decide(rule="balanced", prototypes=PEOPLE, temperature=float(temperature)).decisions)


def test_prototypes_of_any_kind_mean_the_same() -> None:
    vectors = np.stack([X[0] + 0.5, X[1] - 0.5, X[2] * 2]).astype(np.float64)
    by_array = decide(rule="balanced", prototypes=vectors, keep=0.4, eps=None).decisions
    named = {"any": {"a": vectors[0].tolist(), "b": vectors[1] * 1e200, "c": torch_tensor(vectors[2])}}
    for same in (vectors.tolist(), vectors.astype(np.float32), torch_tensor(vectors), named):
        found = decide(rule="balanced", prototypes=same, keep=0.4, eps=None).decisions
        assert found.equals(by_array)


def test_an_attribute_that_a_target_does_not_name_is_uniform() -> None:
    people = {**PEOPLE, "age": {"old": X[4], "young": X[5]}}
    half = {"woman": 0.5, "man": 0.5}
    given = decide(rule="balanced", prototypes=people, target={"gender": half}, keep=0.4, eps=None)
    assert given.decisions.equals(decide(rule="balanced", prototypes=people, keep=0.4, eps=None).decisions)


def test_what_a_kept_sample_stands_for_is_listed_by_similarity() -> None:
    names = [f"n{k}" for k in range(len(X))]
    result = decide(ids=names, reach="auto", clusters=5, cover=True)
    table = result.decisions.set_index("id")
    seen: list[str] = []
    assert len(result.stands_for) == len(result.kept) and result.stands_for.dtype == np.int64
    for name, count in zip(result.kept, result.stands_for, strict=True):
        found = result.duplicates_of(name)
        assert len(found) == count
        similarity = table.loc[list(found), "similarity"].to_numpy()
        assert (table.loc[list(found), "representative"] == names.index(name)).all()
        assert (np.diff(similarity) <= 0).all() and (similarity > 1 - result.eps).all()
        seen += list(found)
    assert sorted(seen) == sorted(table.index[~table["kept"]])
    assert not len(result.duplicates_of(seen[0]))
    with pytest.raises(UserError, match="`name='n99999'` is not the id of a valid sample"):
        result.duplicates_of("n99999")
