"""deduplicate() returns the ids it was given as the very objects, and says which ids it cannot take."""

from __future__ import annotations

import datetime
import fractions
import uuid
from collections import deque
from collections.abc import Hashable
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vectors import torch_tensor

from fairdedup import UserError, deduplicate
from fairdedup.api import Result

X = np.random.default_rng(0).normal(size=(6, 4))
DAY = datetime.date(2020, 1, 2)


class Name(str):
    """Text that is more than text."""


def decide(ids: Any, **options: Any) -> Result:
    return deduplicate(X, **{"keep": 1.0, "rule": "semdedup", "ids": ids, **options})


def same(found: list[Any], wanted: list[Any]) -> bool:
    return found == wanted and list(map(type, found)) == list(map(type, wanted))


OBJECTS: dict[str, list[Any]] = {
    "bytes with zeros at their ends": [b"a\0", b"a", b"a\0\0", b"", b"\0", b"b"],
    "text with zeros at its end": ["a\0", "a", "a\0\0", "", "\0", "b"],
    "numbers and text": [1, "1", 2.5, "2.5", b"1", True + 1],
    "a subclass of text": [Name("a"), Name("b"), Name("c\0"), Name(""), Name("d"), Name("e")],
    "some of a subclass": [Name("a"), "b", Name("c"), "d", "e", "f"],
    "NumPy's text": [np.str_(c) for c in "abcdef"],
    "dates": [DAY + datetime.timedelta(k) for k in range(6)],
    "points in time": [datetime.datetime(2020, 1, k + 1, 1, 2, 3, 4) for k in range(6)],
    "points in time in a zone": [datetime.datetime(2020, 1, k + 1, tzinfo=datetime.UTC) for k in range(6)],
    "pandas' points in time": list(pd.date_range("2020", periods=6, tz="Asia/Tokyo")),
    "NumPy's points in time": [np.datetime64("2020-01-01") + k for k in range(6)],
    "decimals": [Decimal(k) / 8 for k in range(6)],
    "fractions": [fractions.Fraction(k, 7) for k in range(6)],
    "UUIDs": [uuid.UUID(int=k) for k in range(6)],
    "tuples": [("a", k) for k in range(6)],
    "tuples of many lengths": [(), (1,), (1, 2), ((1,), 2), ("a",), (None,)],
    "frozen sets": [frozenset(range(k)) for k in range(6)],
    "huge numbers": [2**70 + k for k in range(6)],
    "numbers around 2**63": [2**63 - 3 + k for k in range(6)],
    "lone surrogates": ["a\udcff", "b", "c", "d", "e", "f"],
}


@pytest.mark.parametrize("name", OBJECTS)
@pytest.mark.parametrize("held", [list, tuple, deque, lambda ids: pd.Series(ids, dtype=object), pd.Series])
def test_objects_come_back_as_they_are(name: str, held: Any) -> None:
    ids = OBJECTS[name]
    if held is pd.Series:
        ids = (
            list(pd.Series(ids)) if name != "lone surrogates" else ids
        )  # pandas may have changed them before we get them
    try:
        result = decide(held(ids))
    except UnicodeEncodeError:
        pytest.skip("pandas cannot hold lone surrogates as text")
    kept = list(result.kept)
    if held is pd.Series and result.kept.dtype.kind in "mM":
        assert [pd.Timestamp(k) for k in kept] == ids
        return
    assert kept == ids
    assert same(result.decisions["id"].tolist(), ids)
    if result.kept.dtype == object:
        assert same(kept, ids)
        if held is not pd.Series:
            assert all(mine is theirs for mine, theirs in zip(kept, ids, strict=True))


@pytest.mark.parametrize("name", OBJECTS)
def test_objects_name_the_rows_that_are_always_kept(name: str) -> None:
    ids = OBJECTS[name]
    for row in range(6):
        for wanted in ([ids[row]], {ids[row]}, (ids[row],)):
            result = decide(ids, keep=0.34, clusters=1, always_keep=wanted)
            assert len(result.kept) == 2 and ids[row] in list(result.kept)
    assert len(decide(ids, always_keep=ids).kept) == 6


ARRAYS: dict[str, tuple[Any, list[Any]]] = {
    "text": (np.array(list("abcdef")), list("abcdef")),
    "bytes": (np.array([b"a", b"bb", b"c", b"d", b"e", b"f"]), [b"a", b"bb", b"c", b"d", b"e", b"f"]),
    "void": (np.array([b"%d\0" % k for k in range(6)], "V2"), [b"%d\0" % k for k in range(6)]),
    "objects": (np.array([b"a\0", "a", 1, 2.5, (1,), "n"], object), [b"a\0", "a", 1, 2.5, (1,), "n"]),
    "records": (np.array([(k, "x") for k in range(6)], [("a", int), ("b", "U1")]), [(k, "x") for k in range(6)]),
    "big-endian": (np.arange(6, dtype=">i8"), list(range(6))),
    "bytes of 8 bits": (np.arange(6, dtype=np.uint8), list(range(6))),
    "floats": (np.arange(6) / 2, [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]),
    "a mask that hides nothing": (np.ma.array(range(6), mask=False), list(range(6))),
    "list of NumPy's": ([np.int32(k) for k in range(6)], list(range(6))),
    "int": (list(range(6)), list(range(6))),
    "range": (range(0, 60, 10), list(range(0, 60, 10))),
    "keys of a dict": (dict.fromkeys("abcdef").keys(), list("abcdef")),
    "nullable": (pd.Series(range(6), dtype="Int64"), list(range(6))),
    "pandas' text": (pd.Series(list("abcdef"), dtype="string"), list("abcdef")),
    "pandas' text of Arrow": (pd.Series(list("abcdef"), dtype=pd.ArrowDtype(pa.string())), list("abcdef")),
    "categories of text": (pd.Series(list("fabcde"), dtype="category"), list("fabcde")),
    "categories of numbers": (pd.Categorical([3, 1, 2, 6, 5, 4]), [3, 1, 2, 6, 5, 4]),
    "levels": (pd.MultiIndex.from_product([[1, 2], list("abc")]), [(a, b) for a in (1, 2) for b in "abc"]),
    "periods": (pd.period_range("2020", periods=6), list(pd.period_range("2020", periods=6))),
    "zoned": (pd.date_range("2020", periods=6, tz="UTC"), list(pd.date_range("2020", periods=6, tz="UTC"))),
    "Arrow's bytes": (pa.array([b"a\0", b"a", b"b", b"c", b"d", b"e"]), [b"a\0", b"a", b"b", b"c", b"d", b"e"]),
    "Arrow's dictionary": (pa.array(list("fabcde")).dictionary_encode(), list("fabcde")),
    "Arrow's dates": (
        pa.array([DAY + datetime.timedelta(k) for k in range(6)]),
        [DAY + datetime.timedelta(k) for k in range(6)],
    ),
    "Arrow's chunks": (pa.chunked_array([[1, 2], [3, 4, 5, 6]]), [1, 2, 3, 4, 5, 6]),
    "Arrow's decimals": (pa.array([Decimal(k) for k in range(6)], pa.decimal128(9, 2)), [Decimal(k) for k in range(6)]),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_of_every_kind_come_back(name: str) -> None:
    ids, wanted = ARRAYS[name]
    result = decide(ids)
    assert result.kept.tolist() == wanted
    assert result.decisions["id"].tolist() == wanted
    assert decide(ids, keep=0.34, clusters=1, always_keep=wanted[3:4]).kept.tolist().count(wanted[3]) == 1
    assert len(decide(ids, always_keep=ids).kept) == 6
    if isinstance(ids, np.ndarray):
        assert result.kept.dtype == ids.dtype


def test_a_tensor_has_ids() -> None:
    assert decide(torch_tensor(np.arange(6)[::-1])).kept.tolist() == [5, 4, 3, 2, 1, 0]


@pytest.mark.parametrize("unit", ["D", "s", "ns"])
def test_dates_of_numpy_come_back_and_name_rows(unit: str) -> None:
    ids = np.arange("2020-01-01", "2020-01-07", dtype="M8[D]").astype(f"M8[{unit}]")
    result = decide(ids)
    assert (result.kept == ids).all() and result.kept.dtype == ids.dtype
    for wanted in (ids[3:4], [ids[3]], [pd.Timestamp("2020-01-04")], [datetime.datetime(2020, 1, 4)]):
        assert ids[3] in decide(ids, keep=0.34, clusters=1, always_keep=wanted).kept
    durations = np.arange(6).astype("m8[s]")
    assert (decide(durations, always_keep=durations[2:3]).kept == durations).all()


def test_ids_of_rejected_rows_are_the_objects_too() -> None:
    x, ids = X.copy(), [b"a\0", b"a", Name("b"), ("c", 1), 5, DAY]
    x[[0, 2, 3]] = 0
    result = deduplicate(x, keep=1.0, rule="semdedup", ids=ids)
    assert same(result.rejected["id"].tolist(), [ids[0], ids[2], ids[3]])
    assert same(list(result.kept), [ids[1], ids[4], ids[5]])
    warned = deduplicate(x, keep=1.0, rule="semdedup", ids=ids, always_keep=[("c", 1)]).warnings
    assert warned[0] == "1 of the rows always kept cannot be used and is rejected; the first is ('c', 1)"


HASHABLE: st.SearchStrategy[Hashable] = st.one_of(
    st.integers(), st.text(st.characters()), st.binary(), st.floats(allow_nan=False), st.dates(), st.datetimes(),
    st.decimals(allow_nan=False), st.uuids(), st.fractions(), st.text().map(Name), st.booleans(), st.timedeltas(),
    st.tuples(st.integers() | st.text() | st.none(), st.binary()), st.frozensets(st.integers(), max_size=2),
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(HASHABLE, min_size=6, max_size=6, unique=True), st.integers(0, 5), st.booleans())
def test_any_hashable_objects_come_back(ids: list[Any], row: int, in_array: bool) -> None:
    held: Any = ids
    if in_array:
        held = np.empty(6, object)
        for place, item in enumerate(ids):
            held[place] = item
    result = decide(held)
    assert same(result.decisions["id"].tolist(), ids)
    if result.kept.dtype == object:
        assert all(mine is theirs for mine, theirs in zip(result.kept, ids, strict=True))
    assert same(result.kept.tolist(), ids)
    if not isinstance(ids[row], bool):  # True and False are a mask
        assert ids[row] in decide(held, keep=0.34, clusters=1, always_keep=[ids[row]]).kept.tolist()


MISTAKES: dict[str, tuple[Any, str]] = {
    "None": (["a", None, "c", "d", "e", "f"], "`ids` has no id at row 1 (None): give one for each row"),
    "NaN": ([1.0, 2.0, float("nan"), 3, 4, 5], "`ids` has no id at row 2 (nan)"),
    "NaN in an array": (np.array([0, 1, np.nan, 3, 4, 5]), "`ids` has no id at row 2 (nan)"),
    "a signalling NaN": ([1, 2, 3, Decimal("sNaN"), 4, 5], "`ids` has no id at row 3 (Decimal('sNaN'))"),
    "NaT": (pd.Series([pd.NaT, *pd.date_range("2020", periods=5)]), "`ids` has no id at row 0 (NaT)"),
    "NA": (pd.Series([1, None, 2, 3, 4, 5], dtype="Int64"), "`ids` has no id at row 1 ("),
    "null": (pa.array([1, 2, None, 3, 4, 5]), "`ids` has no id at row 2 (None)"),
    "masked": (np.ma.array(range(6), mask=[0, 0, 0, 0, 1, 0]), "`ids` has no id at row 4 (None)"),
    "masked text": (np.ma.array(list("abcdef"), mask=[1, 0, 0, 0, 0, 0]), "`ids` has no id at row 0 (None)"),
    "masked, in a list": (list(np.ma.array(range(6), mask=[0, 1, 0, 0, 0, 0])), "`ids` has no id at row 1 (None)"),
    "a list": ([[1], [2], [3], [4], [5], [6]], "`ids` holds a list at row 0, which cannot be an id: give text"),
    "a dict": (["a", "b", {}, "c", "d", "e"], "`ids` holds a dict at row 2"),
    "a list in a tuple": ([(1, [2]), "b", "c", "d", "e", "f"], "`ids` holds a tuple at row 0"),
    "a set": ({1, 2, 3, 4, 5, 6}, "`ids` have shape (): give one for each of 6 rows, in a list or an array"),
    "a text": ("abcdef", "`ids` have shape ()"),
    "a number": (6, "`ids` have shape ()"),
    "a generator": ((k for k in range(6)), "`ids` have shape (): give one for each of 6 rows, in a list or an array"),
    "a table": (pd.DataFrame({"id": range(6)}), "`ids` have shape (6, 1)"),
    "a table of Arrow": (pa.table({"id": range(6)}), "`ids` have shape (6, 1)"),
    "too few": (list("abc"), "`ids` have shape (3,): give one for each of 6 rows"),
    "twice": (["a", "b", "c", "b", "e", "f"], "`ids` holds the duplicate id 'b': give unique ones"),
    "twice, by another name": ([1, 2, 3, 4, 5, 2.0], "`ids` holds the duplicate id 2.0"),
    "twice in NumPy's eyes": (np.array([b"a", b"a\0", b"b", b"c", b"d", b"e"]), "`ids` holds the duplicate id b'a'"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_ids_that_cannot_be_are_an_error_of_one_line(name: str) -> None:
    ids, says = MISTAKES[name]
    with pytest.raises(UserError) as caught:
        decide(ids)
    assert says in str(caught.value) and "\n" not in str(caught.value)


# Masks of NumPy


def test_masked_values_are_missing_values_of_embeddings() -> None:
    plain = np.arange(24.0).reshape(6, 4) + 1
    for kind in (np.float16, np.float32, np.float64, np.int64):
        x = np.ma.array(plain.astype(kind), mask=np.zeros((6, 4)))
        x[1] = np.ma.masked
        x[4, 2] = np.ma.masked
        for held in (x, list(x), pd.Series(list(x))):
            result = deduplicate(held, keep=1.0, rule="semdedup")
            assert result.rejected["row"].tolist() == [1, 4]
            assert set(result.rejected["reason"]) == {"vector has a value that is not finite"}
            without = deduplicate(plain[[0, 2, 3, 5]], keep=1.0, rule="semdedup").decisions
            assert result.decisions["similarity"].tolist() == without["similarity"].tolist()
    assert deduplicate(np.ma.array(plain), keep=1.0, rule="semdedup").counts["rejected"] == 0
    table = pd.DataFrame(plain).astype("Float64")
    table.iloc[2, 1] = pd.NA
    assert deduplicate(table, keep=1.0, rule="semdedup").rejected["row"].tolist() == [2]


PREFERRED = [3, 9, 2**60, 2**60 + 1, 5, 1]
NULL = [0, 1, 0, 0, 0, 1]


@pytest.mark.parametrize(
    "held",
    [
        np.ma.array(PREFERRED, mask=NULL),
        list(np.ma.array(PREFERRED, mask=NULL)),
        pd.Series(PREFERRED, dtype="Int64").mask(np.array(NULL, bool)),
        pa.array(PREFERRED, mask=np.array(NULL, bool)),
        pa.chunked_array([pa.array(PREFERRED, mask=np.array(NULL, bool))]),
        [None if gone else value for value, gone in zip(PREFERRED, NULL, strict=True)],
        [None if gone else Decimal(value % 2**59) for value, gone in zip(PREFERRED, NULL, strict=True)][:2]
        + PREFERRED[2:5]
        + [None],
    ],
    ids=["masked", "list of masked", "nullable", "arrow", "arrow chunks", "None", "decimals"],
)
def test_what_is_missing_is_preferred_last(held: Any) -> None:
    same_picture = np.ones((6, 4))
    if any(isinstance(value, Decimal) for value in held if not isinstance(held, np.ndarray)):
        held = [None if value is None else Decimal(int(value) % 2**59) for value in held]
        best = deduplicate(same_picture, eps=0.05, rule="prefer", prefer=held, clusters=1).kept.tolist()
        assert best == [4]
        return
    assert deduplicate(same_picture, eps=0.05, rule="prefer", prefer=held, clusters=1).kept.tolist() == [3]


def test_all_missing_is_no_preference() -> None:
    for held in ([None] * 6, np.ma.masked_all(6), np.full(6, np.nan)):
        assert deduplicate(X, keep=0.5, rule="prefer", prefer=held).counts["kept"] == 3


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"clusters": np.ma.array([0] * 6, mask=[0, 0, 1, 0, 0, 0])}, "`clusters` has no label at row 2: give"),
        ({"clusters": pd.Series([0, None, 0, 0, 0, 0], dtype="Int64")}, "`clusters` has no label at row 1"),
        ({"clusters": pa.array([0, 0, 0, 0, 0, None])}, "`clusters` has no label at row 5"),
        ({"always_keep": np.ma.array([True] * 6, mask=[0, 1, 0, 0, 0, 0])}, "`always_keep` has nothing at place 1"),
        ({"always_keep": pd.Series([True, None] * 3, dtype="boolean")}, "`always_keep` has nothing at place 1"),
        ({"always_keep": [0, None]}, "`always_keep` has nothing at place 1: give ids alone, or a mask"),
        ({"always_keep": [[1, 2], [3]]}, "`always_keep` names [1, 2], which is not the id of a row"),
        ({"always_keep": [{}]}, "`always_keep` names {}, which is not the id of a row"),
        ({"always_keep": "a"}, "`always_keep` names 'a', which is not the id of a row"),
    ],
)  # fmt: skip
def test_a_mask_is_never_read_through(options: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as caught:
        decide(None, **options)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_a_mask_of_pandas_and_one_id_are_always_kept() -> None:
    mask = [True, False, True, False, False, False]
    for held in (
        pd.Series(mask),
        pd.Series(mask, dtype="boolean"),
        pa.array(mask),
        np.ma.array(mask),
        [np.True_, *mask[1:]],
    ):
        assert {0, 2} <= set(decide(None, keep=0.34, clusters=1, always_keep=held).kept.tolist())
    assert 3 in decide(None, keep=0.34, clusters=1, always_keep=3).kept
    assert "c" in decide(list("abcdef"), keep=0.34, clusters=1, always_keep="c").kept


def test_a_masked_prototype_and_a_masked_number_are_refused() -> None:
    hidden = np.ma.array(np.ones((2, 4)), mask=[[0, 0, 0, 0], [0, 1, 0, 0]])
    for prototypes in (hidden, list(hidden), {"age": {"old": hidden[0], "young": hidden[1]}}):
        with pytest.raises(UserError, match="vector has a value that is not finite; give a vector of the encoder"):
            decide(None, rule="balanced", prototypes=prototypes)
    assert decide(None, rule="balanced", prototypes=np.ma.array(np.eye(4)[:2])).counts["kept"] == 6
    for name in ("keep", "reserve", "seed", "cover"):
        with pytest.raises(UserError, match=f"`{name}` must be .*; got masked"):
            decide(None, **{name: np.ma.masked})
