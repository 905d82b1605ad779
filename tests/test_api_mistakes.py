"""Every mistake in a call of `deduplicate` gives one line that names the value, the place and a remedy.

Parameters are in backquotes, such as `keep=0.5`; the command line prints them as flags.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from vectors import LABELS, PEOPLE, X, decide

from fairdedup import UserError, deduplicate

NARROW = {"gender": {"woman": np.ones(5)}}
MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "no amount": ({"eps": None}, "0 of `keep`, `at_most` and `eps` are given: give exactly one, such as `keep=0.5`"),
    "two amounts": ({"keep": 0.5}, "2 of `keep`, `at_most` and `eps` are given: give exactly one"),
    "rule": ({"rule": "semdedupe"}, "`rule=semdedupe` is unknown: choose one of fairdedup, balanced, semdedup, "),
    "cover of the chain": (
        {"rule": "semdedup-chain", "cover": True},
        "`cover` cannot be combined with `rule=semdedup-chain`: choose",
    ),
    "cover of random": (
        {"rule": "random", "cover": True},
        "`cover` cannot be combined with `rule=random`: choose one of fairdedup",
    ),
    "eps of random": ({"rule": "random"}, "`rule=random` has no eps: give `keep` or `at_most`"),
    "start": ({"start": "one"}, "`start=one` is unknown: choose one of cluster, zero"),
    "calibrate": ({"calibrate": "yes"}, "`calibrate=yes` is unknown: choose one of none, zscore"),
    "target": ({"target": "fair"}, "`target=fair` is unknown: choose uniform, data or {attribute: shares}"),
    "temperature": ({"temperature": 0}, "`temperature` must be a number above 0, or auto; got 0"),
    "temperature of nothing": (
        {"temperature": np.nan},
        "`temperature` must be a number above 0, or auto; got nan",
    ),
    "temperature in words": ({"temperature": "hot"}, "`temperature` must be a number above 0, or auto; got hot"),
    "reserve": ({"reserve": 0.31}, "`reserve` must be in [0, 0.3]; got 0.31"),
    "reserve below": ({"reserve": -0.1}, "`reserve` must be in [0, 0.3]; got -0.1"),
    "device": ({"device": "tpu"}, "`device=tpu` is unknown: choose auto, cpu or cuda"),
    "no prototypes": (
        {"rule": "fairdedup"},
        "`rule=fairdedup` needs prototypes and there are none: give `prototypes`, or choose a rule that "
        "needs none, such as `rule=semdedup`",
    ),
    "prototypes of another model": ({"prototypes": NARROW}, "`prototypes` have 5 dimensions and the embeddings 6"),
    "one prototype": ({"prototypes": np.ones(6)}, "`prototypes` have shape (6,): give (concepts, d) or a dict"),
    "no attribute": ({"prototypes": {}}, "`prototypes` are empty: give at least one attribute with one concept"),
    "no concept": ({"prototypes": {"age": {}}}, "`prototypes`['age'] names no concept: give at least one"),
    "only absent": ({"prototypes": {"age": {"absent": np.ones(6)}}}, "`prototypes`['age'] names no concept"),
    "no dict": (
        {"prototypes": {"age": np.ones(6)}},
        "`prototypes`['age'] must be a dict: give {concept: vector of d values}",
    ),
    "zero prototype": (
        {"prototypes": {"age": {"old": np.zeros(6)}}},
        "`prototypes`['age']['old']: vector is zero; give a vector",
    ),
    "broken prototype": (
        {"prototypes": {"age": {"old": np.full(6, np.nan)}}},
        "`prototypes`['age']['old']: vector has a value"
        " that is not finite; give a vector of the encoder that made the embeddings",
    ),
    "absent of zeros": (
        {"prototypes": {"age": {"old": np.ones(6), "absent": np.zeros((2, 6))}}},
        "`prototypes`['age']['absent']",
    ),
    "concepts of two models": (
        {"prototypes": {"age": {"old": np.ones(6), "young": np.ones(5)}}},
        "`prototypes`['age']['young'] has shape (5,): every prototype is one vector of the same d values",
    ),
    "attributes of two models": (
        {"prototypes": {"a": {"x": np.ones(6)}, "b": {"y": np.ones(5)}}},
        "`prototypes` have [5, 6] dimensions",
    ),
    "absent of another model": (
        {"prototypes": {"a": {"x": np.ones(6), "absent": np.ones(5)}}},
        "`prototypes` have [5, 6] dimensions",
    ),
    "few ids": ({"ids": range(89)}, "`ids` have shape (89,): give one for each of 90 rows"),
    "ids twice": ({"ids": ["a", *range(88), "a"]}, "`ids` holds the duplicate id 'a': give unique ones"),
    "no clusters": ({"clusters": 0}, "`clusters` must be a whole number above 0, or auto; got 0"),
    "fewer than none": ({"clusters": -2}, "`clusters` must be a whole number above 0, or auto; got -2"),
    "clusters in words": (
        {"clusters": "many"},
        "`clusters` must be a whole number above 0, or auto; got 'many'",
    ),
    "clusters true": ({"clusters": True}, "`clusters` must be a whole number above 0, or auto; got True"),
    "more clusters than rows": (
        {"clusters": 91},
        "`clusters=91` is more than the 90 valid rows: give at most 90, or auto",
    ),
    "few labels": (
        {"clusters": LABELS[:9]},
        "`clusters` are int64 of shape (9,): give a number, auto, or 90 integer labels",
    ),
    "broken labels": (
        {"clusters": LABELS / 2},
        "`clusters` are float64 of shape (90,): give a number, auto, or 90 integer",
    ),
    "noise labels": (
        {"clusters": LABELS - 1},
        "`clusters` has label -1 at row 0: labels must be 0 or more; give noise rows labels of their own",
    ),
    "huge labels": (
        {"clusters": LABELS.astype(np.uint64) + np.uint64(2**63)},
        "`clusters` has label 9223372036854775810 at row",
    ),
    "no row": (
        {"embeddings": np.zeros((0, 6))},
        "`embeddings` have shape (0, 6): give at least one row of at least one value",
    ),
    "no value": ({"embeddings": np.zeros((90, 0))}, "`embeddings` have shape (90, 0): give at least one row"),
    "one vector": ({"embeddings": X[0]}, "`embeddings` are float16 of shape (6,): give an (n, d) array of floats"),
    "a cube": ({"embeddings": X[None]}, "`embeddings` are float16 of shape (1, 90, 6): give an (n, d) array of floats"),
    "complex": ({"embeddings": X + 1j}, "of shape (90, 6): give an (n, d) array of floats"),
    "words": (
        {"embeddings": [["a", "b"]] * 90},
        "`embeddings` are <U1 of shape (90, 2): give an (n, d) array",
    ),
    "nothing": ({"embeddings": None}, "`embeddings` must be numbers in rows of one length: give an (n, d) array"),
    "ragged lists": ({"embeddings": [[1.0, 2.0], [1.0]]}, "`embeddings` must be numbers in rows of one length"),
    "ragged series": (
        {"embeddings": pd.Series([np.ones(2), np.ones(1)])},
        "`embeddings` must be numbers in rows of one length",
    ),
    "series with a gap": (
        {"embeddings": pd.Series([np.ones(2), None])},
        "`embeddings` must be numbers in rows of one length",
    ),
    "series of words": (
        {"embeddings": pd.Series(["a", "b"])},
        "`embeddings` are pictures or text: name what embeds pictures, such as `encoder='ViT-B-16:openai'`, or give an "
        "(n, d) array of numbers",
    ),
    "arrow numbers": (
        {"embeddings": pa.array([1.0, 2.0])},
        "the Arrow column is double with 0 nulls: give lists of floats",
    ),
    "arrow gap": (
        {"embeddings": pa.array([[1.0], None])},
        "the Arrow column is list<item: double> with 1 null: give lists",
    ),
    "ragged arrow": (
        {"embeddings": pa.array([[1.0], [1.0, 2.0]])},
        "the Arrow lists have 1 to 2 values: all must have the same length",
    ),
    "two arrow columns": (
        {"embeddings": pa.table({"a": [[1.0]], "b": [[1.0]]})},
        "the Arrow table has 2 columns: give the one",
    ),
    "no arrow row": (
        {"embeddings": pa.array([], pa.list_(pa.float32()))},
        "`embeddings` have shape (0, 0): give at least one row",
    ),
    "only zeros": ({"embeddings": np.zeros((90, 6))}, "no row is valid"),
    "only zeros, counted": ({"embeddings": np.zeros((90, 6)), "clusters": 4}, "no row is valid"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_with_its_value_place_and_a_remedy(name: str) -> None:
    changes, says = MISTAKES[name]
    with pytest.raises(UserError) as caught:
        decide(**changes)
    message = str(caught.value)
    assert says in message
    assert "\n" not in message
    assert "np." not in message  # a value as its user wrote it
    mends = (
        "give ",
        "choose ",
        "use ",
        "must come from",
        "must have",
        "must be ",
        "is one vector",
        "there is nothing",
    )
    assert any(mend in message for mend in mends)


TARGETS: dict[str, tuple[Any, str]] = {
    "attribute": ({"sex": {"woman": 1}}, "`target` names attribute 'sex': the prototypes have gender"),
    "concept": ({"gender": {"woman": 0.5, "men": 0.5}}, "`target`['gender']"),
    "missing concept": ({"gender": {"woman": 1.0}}, "`target`['gender']"),
    "sum": ({"gender": {"woman": 0.5, "man": 0.4}}, "`target`['gender']"),
    "negative": ({"gender": {"woman": 1.5, "man": -0.5}}, "`target`['gender']"),
    "no number": ({"gender": {"woman": float("nan"), "man": 0.5}}, "`target`['gender']"),
    "no shares": ({"gender": 0.5}, "`target`['gender']"),
}


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_that_fits_no_prototypes_is_an_error_of_one_line(name: str) -> None:
    target, says = TARGETS[name]
    with pytest.raises(UserError) as caught:
        decide(rule="balanced", prototypes=PEOPLE, target=target)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_gpu_that_is_not_there_is_named() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(UserError, match="`device=cuda`: torch sees no GPU here; use `device=cpu` or auto"):
        decide(clusters=3, device="cuda")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rule": "prefer"}, "`rule=prefer` and `prefer` go together"),
        ({"rule": "semdedup", "prefer": np.ones(60)}, "`rule=prefer` and `prefer` go together"),
        (
            {"rule": "prefer", "prefer": np.ones(59)},
            r"`prefer` is float64 of shape \(59,\): give a number for each of 60",
        ),
        ({"rule": "prefer", "prefer": ["a"] * 60}, "give a number for each"),
        ({"rule": "semdedup", "always_keep": [60]}, "`always_keep` names 60, which is not the id of a row"),
        ({"rule": "semdedup", "always_keep": np.ones(59, bool)}, r"`always_keep` is a mask of shape \(59,\)"),
        ({"rule": "semdedup-chain", "always_keep": [1]}, "`always_keep` cannot be combined with `rule=semdedup-chain`"),
        ({"rule": "semdedup", "always_keep": range(40)}, "fewer than the 40 rows always kept"),
    ],
)
def test_what_cannot_be_preferred_or_protected_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        deduplicate(np.random.default_rng(0).normal(size=(60, 4)), keep=0.5, clusters=1, **options)
