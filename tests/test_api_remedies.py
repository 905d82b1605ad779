"""Messages of `deduplicate` whose remedy is applied here, and succeeds; and arguments of every wrong type."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from vectors import LABELS, PEOPLE, X

from fairdedup import UserError, deduplicate

WORKS: dict[str, Any] = {"embeddings": X, "keep": 0.5, "rule": "semdedup", "clusters": LABELS}
AGED = {"age": {"old": X[0], "young": X[1]}}


@dataclass(frozen=True)
class Remedy:
    """What is wrong, what the message says, and what its remedy changes. None of `wrong` leaves an argument out."""

    wrong: dict[str, Any]
    says: str
    remedied: dict[str, Any]
    kept: int | None = 45
    base: dict[str, Any] = field(default_factory=lambda: WORKS)


TABLE: dict[str, Remedy] = {
    # How much
    "no amount": Remedy({"keep": None}, "give exactly one, such as `keep=0.5`", {"keep": 0.5}),
    "two amounts": Remedy({"eps": 0.05}, "give exactly one, such as `keep=0.5`", {"eps": None}),
    "keep as text": Remedy({"keep": "0.5"}, "`keep` must be a number; got '0.5' (str): give one such as `keep=0.5`",
                           {"keep": 0.5}),
    "keep as a list": Remedy({"keep": [0.5]}, "`keep` must be a number; got [0.5] (list)", {"keep": 0.5}),
    "keep everything": Remedy({"keep": True}, "`keep` must be a number; got True: give one such as `keep=0.5`",
                              {"keep": 0.5}),
    "keep in per cent": Remedy({"keep": 50}, "give a fraction, such as `keep=0.5` for 50 %", {"keep": 0.5}),
    "keep too much": Remedy({"keep": 1.5}, "`keep` must be in (0, 1]; got 1.5: give a fraction, such as `keep=0.5`",
                            {"keep": 0.5}),
    "keep nothing": Remedy({"keep": 0}, "got 0: give a fraction, such as `keep=0.5`", {"keep": 0.5}),
    "keep less than the clusters": Remedy(
        {"keep": 0.01}, "fewer than one for each of 3 clusters: give at least `keep=0.027778` or use fewer clusters",
        {"keep": 0.027778}, 3),
    "keep less, and fewer clusters": Remedy({"keep": 0.015}, "or use fewer clusters",
                                            {"keep": 0.015, "clusters": 1}, 1),
    "keep less than what is protected": Remedy(
        {"always_keep": range(60)}, "fewer than the 60 rows always kept: give at least `keep=0.661112`",
        {"keep": 0.661112, "always_keep": range(60)}, 60),
    "keep none at random": Remedy({"keep": 0.001, "rule": "random"}, "is none: give at least `keep=0.005556`",
                                  {"keep": 0.005556, "rule": "random"}, 1),
    "eps below its grid": Remedy(
        {"keep": None, "eps": 1e-5},
        "`eps=1e-05` is not a whole number of ten-thousandths: give `eps=0.0001` or `eps=0` (removes nothing), the "
        "nearest values on the grid of 0.0001", {"keep": None, "eps": 0.0001}, None),
    "eps below its grid, then none": Remedy({"keep": None, "eps": 1e-5}, "`eps=0` (removes nothing)",
                                            {"keep": None, "eps": 0}, 90),
    "eps off its grid": Remedy({"keep": None, "eps": 0.05004}, "give `eps=0.05` or `eps=0.0501`, the nearest",
                               {"keep": None, "eps": 0.0501}, None),
    "eps above its grid": Remedy({"keep": None, "eps": 2.00006}, "give `eps=2.0001` or `eps=2`",
                                 {"keep": None, "eps": 2.0001}, None),
    "eps below 0": Remedy({"keep": None, "eps": -1e-5}, "Try `eps=0.05`", {"keep": None, "eps": 0.05}, None),
    "eps as text": Remedy({"keep": None, "eps": "0.05"}, "give one such as `eps=0.05`",
                          {"keep": None, "eps": 0.05}, None),
    "eps of random": Remedy({"keep": None, "eps": 0.05, "rule": "random"}, "give `keep` or `at_most`",
                            {"at_most": 0.5, "keep": None, "rule": "random"}),
    # Clusters
    "more clusters than rows": Remedy(
        {"clusters": 9999}, "90 valid rows: give at most 45 (one for each of the 45 rows to keep), or auto",
        {"clusters": 45}),
    "more clusters than rows, then auto": Remedy({"clusters": 9999}, "or auto", {"clusters": "auto"}),
    "more clusters than rows, with at_most": Remedy(
        {"clusters": 9999, "keep": None, "at_most": 0.1}, "give at most 9 (one for each of the 9 rows to keep)",
        {"clusters": 9, "keep": None, "at_most": 0.1}, None),
    "more clusters than rows, with eps": Remedy(
        {"clusters": 9999, "keep": None, "eps": 0.01, "reach": 0}, "give at most 90, or auto",
        {"clusters": 90, "keep": None, "eps": 0.01, "reach": 0}, 90),
    "no clusters": Remedy({"clusters": 0}, "a whole number above 0, or auto; got 0", {"clusters": 1}),
    "half clusters": Remedy({"clusters": 2.5}, "give a number, auto, or 90 integer labels", {"clusters": 2}),
    "clusters of None": Remedy({"clusters": None}, "give a number, auto, or 90 integer labels", {"clusters": "auto"}),
    "labels of noise": Remedy({"clusters": LABELS - 1}, "give noise rows labels of their own", {"clusters": LABELS}),
    "labels with a gap": Remedy({"clusters": np.ma.array(LABELS, mask=LABELS == 1)},
                                "give each row one; give noise rows labels of their own", {"clusters": LABELS}),
    "huge labels": Remedy({"clusters": LABELS.astype(np.uint64) + np.uint64(2**63)}, "give labels below 2**63",
                          {"clusters": LABELS + 2**62}),
    # The rule and its options
    "an unknown rule": Remedy({"rule": "semdedupe"}, "choose one of fairdedup, balanced", {"rule": "semdedup"}),
    "a rule of no name": Remedy({"rule": 5}, "`rule` must be text; got 5 (int): choose one of fairdedup", {}),
    "a rule in a list": Remedy({"rule": ["semdedup"]}, "`rule` must be text; got ['semdedup'] (list)", {}),
    "cover of random": Remedy({"rule": "random", "cover": True}, "choose one of fairdedup, balanced, semdedup",
                              {"cover": True}),
    "cover in words": Remedy({"cover": "no"}, "`cover` must be True or False; got 'no' (str): give one of them",
                             {"cover": False}),
    "always keep in a chain": Remedy({"rule": "semdedup-chain", "always_keep": [1]}, "choose one of fairdedup",
                                     {"always_keep": [1]}),
    "start": Remedy({"start": "one"}, "choose one of cluster, zero", {"start": "zero"}),
    "start of None": Remedy({"start": None}, "`start` must be text; got None: choose cluster or zero",
                            {"start": "cluster"}),
    "calibrate": Remedy({"calibrate": True}, "`calibrate` must be text; got True: choose none or zscore",
                        {"calibrate": "zscore"}),
    "device": Remedy({"device": 0}, "`device` must be text; got 0 (int): choose auto, cpu or cuda", {"device": "cpu"}),
    "an unknown device": Remedy({"device": "tpu"}, "choose auto, cpu or cuda", {"device": "auto"}),
    "target": Remedy({"target": "fair"}, "choose uniform, data or {attribute: shares}", {"target": "data"}),
    "target of a number": Remedy({"target": 0.5}, "must be uniform, data or {attribute: shares}; got 0.5 (float)",
                                 {"target": "uniform"}),
    "target of nobody": Remedy(
        {"target": {"sex": {"woman": 1}}, "rule": "balanced", "prototypes": PEOPLE}, "the prototypes have gender",
        {"target": {"gender": {"woman": 0.5, "man": 0.5}}, "rule": "balanced", "prototypes": PEOPLE}),
    "temperature": Remedy({"temperature": "hot"}, "must be a number above 0, or auto", {"temperature": 0.1}),
    "temperature of truth": Remedy({"temperature": True}, "a number above 0, auto or {attribute: number}; got True",
                                   {"temperature": "auto"}),
    "reserve": Remedy({"reserve": 0.5}, "`reserve` must be in [0, 0.3]; got 0.5", {"reserve": 0.3}),
    "reserve as text": Remedy({"reserve": "0.1"}, "give one such as `reserve=0.1`", {"reserve": 0.1}),
    "seed": Remedy({"seed": 1.5}, "`seed` must be a whole number; got 1.5 (float): give one such as `seed=0`",
                   {"seed": 0}),
    "no prototypes": Remedy({"rule": "fairdedup"}, "such as `rule=semdedup`", {"rule": "semdedup"}),
    "no prototypes, then some": Remedy({"rule": "fairdedup"}, "give `prototypes`",
                                       {"rule": "fairdedup", "prototypes": PEOPLE}),
    "one prototype": Remedy({"prototypes": X[0], "rule": "fairdedup"}, "give (concepts, d) or a dict",
                            {"prototypes": X[:1], "rule": "fairdedup"}),
    "an attribute that is no dict": Remedy(
        {"prototypes": {"age": X[0]}, "rule": "fairdedup"}, "give {concept: vector of d values}",
        {"prototypes": AGED, "rule": "fairdedup"}),
    # Rows
    "prefer without its rule": Remedy({"prefer": np.arange(90)}, "`rule=prefer` and `prefer` go together: give both",
                                      {"prefer": np.arange(90), "rule": "prefer"}),
    "the rule without prefer": Remedy({"rule": "prefer"}, "give both, `prefer` as numbers of shape (n,)",
                                      {"prefer": list(range(90)), "rule": "prefer"}),
    "prefer of words": Remedy({"rule": "prefer", "prefer": ["a"] * 90}, "give a number for each of 90 rows",
                              {"rule": "prefer", "prefer": [1.5] * 90}),
    "always keep nobody": Remedy({"always_keep": [900]}, "give ids of the data", {"always_keep": [9]}),
    "a mask of another shape": Remedy({"always_keep": np.ones(9, bool)}, "is a mask of shape (9,): give (90,), or ids",
                                      {"always_keep": np.arange(90) < 9}),
    "ids with a gap": Remedy({"ids": [None, *range(89)]}, "give one for each row", {"ids": range(90)}),
    "ids twice": Remedy({"ids": [0, *range(89)]}, "give unique ones", {"ids": range(90)}),
    "ids of lists": Remedy({"ids": [[k] for k in range(90)]}, "give text, numbers or tuples",
                           {"ids": [(k,) for k in range(90)]}),
    "ids of a set": Remedy({"ids": set(range(90))}, "give one for each of 90 rows, in a list or an array",
                           {"ids": list(set(range(90)))}),
    "a flat vector": Remedy({"embeddings": X[0]}, "give an (n, d) array of floats", {"embeddings": X}),
    "words for vectors": Remedy({"embeddings": "words"}, "give an (n, d) array of floats", {"embeddings": X}),
    "a table of two columns": Remedy(
        {"embeddings": pa.table({"a": X.tolist(), "b": X.tolist()})}, "give the one that holds the embeddings",
        {"embeddings": pa.table({"a": X.tolist()})}),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
def test_the_remedy_of_a_message_works(name: str) -> None:
    case = TABLE[name]
    with pytest.raises(UserError) as caught:
        deduplicate(**{**case.base, **case.wrong})
    message = str(caught.value)
    assert case.says in message and "\n" not in message
    result = deduplicate(**{**case.base, **case.remedied})
    if case.kept is not None:
        assert result.counts["kept"] == case.kept


class Odd:
    """An object that is nothing."""


VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 0.5, 2.5, float("nan"), float("inf"), 10**400, 2**70, -(2**70), "", "0.5", "auto",
    b"x", [], [0.5], (), (1, 2), {}, {"a": 1}, {"a": {"b": 1}}, {1: {2: 3}}, set(), {1}, range(3), Odd(), Odd, print,
    1j, Decimal("0.5"), Decimal("NaN"), Decimal("sNaN"), datetime.date(2020, 1, 1), np.float32(0.5), np.int8(1),
    np.array(0.5), np.array([0.5]), np.array(["a", "b"]), np.array([[1.0]]), np.array([{}], object), np.ones((2, 2, 2)),
    np.ma.masked, np.ma.masked_all(3), np.ma.masked_all((90, 6)), np.datetime64("2020"), np.bool_(True),
    pd.Series([1, 2]), pd.DataFrame({"a": [1]}), pd.NA, pd.NaT, pa.array([1, 2]), pa.table({"a": [1]}), pa.scalar(1),
    np.zeros(90), np.ones(90, bool), ["a"] * 90, [None] * 90, [[1]] * 90, np.arange(90.0), list("ab") * 45,
    (k for k in range(3)), memoryview(b"abc"), slice(3), NotImplemented, ...,
]  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [
        "embeddings", "keep", "at_most", "eps", "rule", "prototypes", "ids", "clusters", "seed", "cover", "start",
        "calibrate", "target", "temperature", "reserve", "prefer", "always_keep", "device",
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore")
def test_an_argument_of_any_type_is_used_or_is_an_error_of_one_line(name: str) -> None:
    bases: list[dict[str, Any]] = [WORKS]
    if name in ("at_most", "eps"):
        bases = [{**WORKS, "keep": None}]
    elif name in ("target", "temperature", "reserve", "prototypes"):
        bases = [{**WORKS, "rule": "balanced", "prototypes": PEOPLE}]
    elif name in ("start", "calibrate"):
        bases = [{**WORKS, "rule": "fairdedup", "prototypes": PEOPLE}]
    elif name == "prefer":
        bases = [{**WORKS, "rule": "prefer"}]
    elif name == "seed":
        bases = [{**WORKS, "clusters": 3, "rule": "random-neighbour"}]
    for base in bases:
        for value in VALUES:
            try:
                deduplicate(**{**base, name: value})
            except UserError as error:
                message = str(error)
                assert "\n" not in message and len(message) < 900, message
