"""The captioned set of the study of models: its shares, copies, occupations and captions, and that a seed fixes it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import captioned_faces as cf  # noqa: E402
from faces import VALUES, make_label_table  # noqa: E402


@pytest.fixture(scope="module")
def labels() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return make_label_table([{a: v[int(rng.integers(len(v)))] for a, v in VALUES.items()} for _ in range(12_000)])


@pytest.fixture(scope="module")
def drawn(labels: pd.DataFrame) -> pd.DataFrame:
    return cf.draw_set(labels, cf.Setting(), 7)


def test_the_distinct_faces_have_the_stated_majorities(drawn: pd.DataFrame) -> None:
    own = drawn[drawn["copy"] == 0]
    assert own["face"].is_unique
    assert abs((own["race"] == "White").mean() - 0.45) < 0.03
    assert abs((own["gender"] == "Male").mean() - 0.6) < 0.03
    others = own[own["race"] != "White"]["race"].value_counts(normalize=True)
    assert abs(others - 1 / 6).max() < 0.03


def test_the_majority_has_more_copies(drawn: pd.DataFrame) -> None:
    counts = drawn.groupby("face").agg(copies=("copy", "max"), race=("race", "first"), gender=("gender", "first"))
    groups = (counts["race"] == "White").astype(int) + (counts["gender"] == "Male")
    for number, rate in enumerate((0.5, 1.0, 1.6)):
        own = counts["copies"][groups == number]
        assert abs(own.mean() - rate) < 4 * (rate / len(own)) ** 0.5  # four standard errors of a Poisson mean
    described = cf.describe_set(drawn, cf.Setting())
    assert described["rows"] == len(drawn) == len(counts) + counts["copies"].sum()
    assert described["distinct faces"] == len(counts)
    assert abs(described["share of near-duplicates"] - 0.5) < 0.03


def test_a_favoured_group_is_three_times_as_likely_to_have_an_occupation() -> None:
    yes, no = np.array([True]), np.array([False])
    both = cf.weigh_occupations({"race": yes, "gender": yes}, 3.0)[0]
    neither = cf.weigh_occupations({"race": no, "gender": no}, 3.0)[0]
    known = dict(zip(cf.OCCUPATIONS, zip(both * 18, neither * 18, strict=True), strict=True))
    # Each occupation that favours the face has weight 3, the others 1: 4 x 3 + 6 x 1 = 18 in all.
    assert known["baker"] == pytest.approx((3, 1))
    assert known["chemist"] == pytest.approx((1, 3))
    assert known["lawyer"] == pytest.approx((3, 1))
    assert known["musician"] == pytest.approx((1, 3))
    assert known["florist"] == known["pilot"] == pytest.approx((1, 1))


def test_drawn_occupations_have_the_stated_association(labels: pd.DataFrame) -> None:
    found = pd.Series(cf.draw_occupations(labels, cf.Setting(), np.random.default_rng(1)))
    adult = ~labels["age"].isin(["0-2", "3-9", "10-19"])
    assert ((found == "") == ~adult).all()
    male = (labels["gender"] == "Male")[adult]
    shares = pd.crosstab(found[adult], male, normalize="columns")
    assert shares.loc["baker", True] / shares.loc["baker", False] == pytest.approx(3, abs=0.6)
    assert shares.loc["florist", True] / shares.loc["florist", False] == pytest.approx(1, abs=0.2)


def test_copies_share_the_occupation_and_the_labels_of_their_face(drawn: pd.DataFrame) -> None:
    assert (drawn.groupby("face")[[*VALUES, "occupation"]].nunique() == 1).all().all()


def test_a_caption_says_what_it_states_and_nothing_else(drawn: pd.DataFrame) -> None:
    words, _ = cf.read_words()
    for line in drawn.head(400).to_dict("records"):
        stated = [a for a in VALUES if line[f"states {a}"]]
        assert len(stated) <= 2
        assert stated or line["states occupation"]
        for a in stated:
            assert line[f"states {a}"] == line[a]
            assert any(phrase in line["caption"] for phrase in words[a][line[a]])
        named = [noun for noun in cf.OCCUPATIONS if noun in line["caption"]]
        assert named == ([line["occupation"]] if line["states occupation"] else [])


def test_a_seed_fixes_the_set_and_another_changes_it(labels: pd.DataFrame, drawn: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(cf.draw_set(labels, cf.Setting(), 7), drawn)
    assert not cf.draw_set(labels, cf.Setting(), 8)["face"].equals(drawn["face"])


def test_a_near_duplicate_depends_on_its_face_and_copy_only() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    rows = pd.DataFrame({"face": [0, 0, 1, 0], "copy": [0, 1, 1, 2]})
    pictures = [np.asarray(p) for p in cf.iterate_pictures(pixels, rows, 3)]
    again = [np.asarray(p) for p in cf.iterate_pictures(pixels, rows[::-1], 3)][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(pictures, again, strict=True))
    assert np.array_equal(pictures[0], pixels[0])
    assert not np.array_equal(pictures[1], pictures[3])
    assert {p.shape for p in pictures} == {(32, 32, 3)}


def test_a_near_duplicate_is_nearer_to_its_face_than_to_another() -> None:
    rng = np.random.default_rng(0)
    smooth = [Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize((48, 48)) for _ in range(5)]
    flat = [np.asarray(p, np.float64).ravel() for p in smooth]
    mirrored = [np.asarray(p, np.float64)[:, ::-1].ravel() for p in smooth]
    for k, picture in enumerate(smooth):
        copy = np.asarray(cf.augment(picture, np.random.default_rng(k)), np.float64).ravel()
        alike = [
            max(np.corrcoef(copy, a)[0, 1], np.corrcoef(copy, b)[0, 1]) for a, b in zip(flat, mirrored, strict=True)
        ]
        assert int(np.argmax(alike)) == k
