"""Calibration: prototypes and temperatures fitted to labels, saved with the prototypes, and used by `balanced`."""

from __future__ import annotations

import json

import numpy as np
import oracles
import pyarrow.parquet as pq
import pytest
from runs import command, done, manifest, prototype_vectors, table

from fairdedup import deduplicate
from fairdedup.core.calibration import Fit, calibrate, cross_entropy, held_out_entropy
from fairdedup.core.memberships import choose_temperatures
from fairdedup.core.prototypes import Prototypes
from fairdedup.errors import UserError
from fairdedup.prototype_files import read_prototypes, read_vectors, write_prototypes
from fairdedup.storage.contents import load_embedded
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.sealed_files import Unsealed


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def labelled(seed=0, n=600, temperature=0.05, concepts=3, d=8):
    """Return unit vectors, labels drawn from a softmax over true prototypes, the prototypes, and captions near them."""
    rng = np.random.default_rng(seed)
    true = unit(rng.normal(size=(concepts, d)) + 2)
    x = unit(rng.normal(size=(n, d)) + 2)
    logits = x @ true.T / temperature
    p = np.exp(logits - logits.max(1, keepdims=True))
    labels = np.array([rng.choice(concepts, p=line / line.sum()) for line in p])
    captions = unit(true + 0.06 * rng.normal(size=true.shape))
    return x, labels, true, captions


def slow_objective(vectors, labels, prototypes, start, temperature, ridge):
    """Cross entropy plus the ridge, by loops."""
    total = 0.0
    for x, label in zip(vectors, labels, strict=True):
        logits = [float(x @ p) / temperature for p in prototypes]
        total += np.log(sum(np.exp(z - max(logits)) for z in logits)) + max(logits) - logits[label]
    return total / len(labels) + ridge * float(((prototypes - start) ** 2).sum())


def test_calibration_predicts_labels_that_it_has_not_seen_better_than_the_captions_do():
    x, labels, true, captions = labelled()
    fit = calibrate(x[:300], labels[:300], captions)
    best = min(cross_entropy(Fit(captions, t), x[300:], labels[300:]) for t in np.geomspace(0.001, 1, 100))
    after = cross_entropy(fit, x[300:], labels[300:])
    assert after < best - 0.01
    assert after < cross_entropy(Fit(true, 0.05), x[300:], labels[300:]) + 0.05
    assert 0.03 < fit.temperature < 0.09
    assert fit.temperature == round(fit.temperature, 4)
    np.testing.assert_allclose(np.linalg.norm(fit.vectors, axis=1), 1)


def test_the_fit_is_a_minimum_of_the_documented_loss():
    x, labels, _, captions = labelled(n=120)
    fit = calibrate(x, labels, captions)
    rng = np.random.default_rng(1)
    here = slow_objective(x, labels, fit.vectors, captions, fit.temperature, 1.0)
    for _ in range(40):
        other = unit(fit.vectors + 0.02 * rng.normal(size=captions.shape))
        warmth = fit.temperature * float(np.exp(0.05 * rng.normal()))
        assert slow_objective(x, labels, other, captions, warmth, 1.0) > here - 1e-6


def test_probabilities_are_a_softmax_by_hand():
    fit = Fit(np.array([[1.0, 0.0], [0.0, 1.0]]), 0.5)
    p = np.exp(fit.log_probabilities(np.array([[0.6, 0.8]])))[0]
    assert p == pytest.approx([1 / (1 + np.exp(0.4)), 1 / (1 + np.exp(-0.4))])


def test_a_held_out_label_does_not_influence_the_fit():
    rng = np.random.default_rng(0)
    x, labels = unit(rng.normal(size=(60, 40))), rng.integers(0, 2, 60)  # nothing to learn
    captions = unit(rng.normal(size=(2, 40)))
    inside = cross_entropy(calibrate(x, labels, captions, ridge=0.001), x, labels)
    assert inside < 0.3
    assert held_out_entropy(x, labels, captions) > 0.65  # ln 2 is chance


@pytest.mark.parametrize(("labels", "concepts", "words"), [
    ([0, 0, 1], 3, "concept 2 has no label"), ([0, 0, 0], 1, "an attribute with one concept cannot be calibrated"),
])  # fmt: skip
def test_labels_that_cannot_be_fitted_to_are_refused(labels, concepts, words):
    x = unit(np.random.default_rng(0).normal(size=(3, 4)))
    with pytest.raises(UserError, match=words):
        calibrate(x, np.array(labels), x[:concepts])


def test_temperatures_are_the_given_ones_else_an_attribute_s_own_else_automatic():
    known = Prototypes.of(prototype_vectors()).with_temperatures({"age": 0.2})
    gaps = [np.array([0.3, 0.6, 0.9]), np.array([9.0])]
    assert choose_temperatures(known, "auto", lambda: gaps) == (0.2, 0.2)
    assert choose_temperatures(known, {"age": 0.7}, lambda: gaps) == (0.2, 0.7)
    assert choose_temperatures(known, 0.4, lambda: pytest.fail("not needed")) == (0.4, 0.4)
    assert choose_temperatures(known.with_temperatures({"tone": 1}), "auto", lambda: pytest.fail("not needed")) == (
        1.0,
        0.2,
    )


@pytest.mark.parametrize("given", [{"nobody": 0.1}, {"age": 0}, {"age": "hot"}, {"age": float("inf")}])
def test_a_temperature_of_no_attribute_or_no_number_is_refused(given):
    x = np.random.default_rng(0).normal(size=(20, 16))
    with pytest.raises(UserError, match="temperature"):
        deduplicate(x, keep=0.5, rule="balanced", prototypes=prototype_vectors(), clusters=2, temperature=given)


@pytest.fixture(scope="module")
def labels(finished, tmp_path_factory):
    """Return labels of all samples by the nearest prototype, with one in five wrong."""
    rng = np.random.default_rng(3)
    folder = tmp_path_factory.mktemp("labels")
    ids = table(finished / "decisions")["id"].tolist()
    run = RunDirectory(finished)
    x = unit(np.concatenate([np.load(run.vectors(r.number)) for r in load_embedded(run).records]).astype(np.float64))
    lines = ["id,perceived_age,tone"]
    columns = {}
    for attribute, concepts in prototype_vectors().items():
        names = [c for c in concepts if c != "absent"]
        nearest = np.argmax(x @ unit(np.stack([concepts[c] for c in names])).T, axis=1)
        wrong = rng.random(len(x)) < 0.2
        nearest[wrong] = rng.integers(0, len(names), wrong.sum())
        columns[attribute] = [names[k] for k in nearest]
    lines += [f"{i},{age},{tone}" for i, age, tone in zip(ids, columns["age"], columns["tone"], strict=True)]
    (folder / "labels.csv").write_text("\n".join([*lines, "stranger,young,light", f"{'x' * 9},,"]) + "\n")
    return folder / "labels.csv"


@pytest.mark.parametrize("how", ["labels", "shares", "both"])
def test_calibrated_prototypes_decide_a_run_as_the_oracle_does_at_their_temperatures_and_offsets(
    how, again, prototypes, scheduler, labels, tmp_path
):
    file = tmp_path / "calibrated.parquet"
    flags = ["--labels", labels] * (how != "shares") + ["--correct-shares"] * (how != "labels")
    told = done("calibrate", again, *flags, "--prototypes", prototypes, "--out", file,
                "--scheduler", scheduler, "--quiet")  # fmt: skip
    assert told.out == ""
    known = read_vectors(file)
    assert [a.name for a in known.attributes] == ["tone", "age"]
    assert len(known.attributes[1].absent) == 2
    temperatures = {a.name: a.temperature for a in known.attributes}
    assert all(temperatures.values())
    offsets = {a.name: a.offsets for a in known.attributes}
    assert all(len(set(own)) > 1 for own in offsets.values()) if how != "labels" else not any(offsets.values())
    done("prune", again, "--keep", 0.5, "--rule", "balanced", "--published", "--prototypes", file, "--scheduler",
         scheduler, "--quiet")  # fmt: skip
    decided = table(again / "decisions")
    run = RunDirectory(again)
    unit16 = np.concatenate([np.load(run.vectors(r.number)) for r in load_embedded(run).records])
    centroids = oracles.unit16(np.load(run.centroids))
    vectors = {
        a.name: dict(zip(a.concepts, a.vectors, strict=True)) | ({"absent": a.absent} if len(a.absent) else {})
        for a in known.attributes
    }
    problem = oracles.Problem(
        unit16, oracles.assign(unit16, centroids), "balanced", prototypes=vectors, centroids16=centroids,
        temperature=temperatures, offsets=offsets,
    )  # fmt: skip
    expected = problem.decide(round(10_000 * manifest(again)["eps"]), keep=0.5)
    np.testing.assert_array_equal(decided["kept"].to_numpy(), expected["kept"])
    np.testing.assert_array_equal(decided["readmitted"].to_numpy(), expected["readmitted"])


def test_calibration_tells_what_it_gained_by_labels_it_has_not_seen(again, prototypes, scheduler, labels, tmp_path):
    told = done("calibrate", again, "--labels", labels, "--prototypes", prototypes, "--out", tmp_path / "c.parquet",
                "--scheduler", scheduler, "--log-json")  # fmt: skip
    finished = json.loads(told.err.splitlines()[-1])
    assert [a["attribute"] for a in finished["attributes"]] == ["tone", "age"]
    for line in finished["attributes"]:
        assert line["labels"] == len(table(again / "decisions"))
        assert line["after"] < line["by chance"]
    kept = pq.read_table(tmp_path / "c.parquet").to_pylist()
    assert {line["attribute"]: line["temperature"] for line in kept} == {
        a["attribute"]: a["temperature"] for a in finished["attributes"]
    }


def test_shares_are_told_and_add_up_and_labels_or_they_are_asked_for(again, prototypes, scheduler, tmp_path):
    options = ("--prototypes", prototypes, "--out", tmp_path / "c.parquet", "--scheduler", scheduler)
    told = done("calibrate", again, "--correct-shares", *options, "--log-json")
    shares = json.loads(told.err.splitlines()[-1])["shares"]
    assert list(shares) == ["tone", "age"]
    for own in shares.values():
        assert sum(own.values()) == pytest.approx(1) and min(own.values()) > 0
    assert "tone, estimated: light " in done("calibrate", again, "--correct-shares", *options).out
    failed = command("calibrate", again, *options)
    assert failed.code == 2
    assert "give --labels FILE, --correct-shares, or both" in failed.err.splitlines()[-1]


@pytest.mark.parametrize(("text", "words"), [
    ("id,height\na,tall", "the prototypes have no such attribute"),
    ("id,tone\nnobody,light\nno one,dark", "none of its ids"),
    ("id,tone\n{0},blue\n{1},light", "is not a concept of 'tone'"),
    ("id,tone\n{0},dark\n{1},light", "tone=light has 1 label"),
])  # fmt: skip
def test_labels_that_do_not_fit_the_run_are_one_line(again, prototypes, scheduler, tmp_path, text, words):
    ids = table(again / "decisions")["id"].tolist()
    (tmp_path / "l.csv").write_text(text.format(*ids))
    failed = command("calibrate", again, "--labels", tmp_path / "l.csv", "--prototypes", prototypes, "--out",
                     tmp_path / "c.parquet", "--scheduler", scheduler)  # fmt: skip
    assert failed.code == 2, failed.err
    assert words in failed.err.splitlines()[-1]
    assert not (tmp_path / "c.parquet").exists()


def test_what_a_later_run_takes_over_has_the_calibrated_temperatures(finished, tmp_path):
    known = Prototypes.of(prototype_vectors()).with_temperatures({"age": 0.2})
    write_prototypes(tmp_path / "p.parquet", known)
    for read in (
        read_prototypes(Unsealed(tmp_path / "p.parquet", "a test")),
        read_vectors(tmp_path / "p.parquet", RunDirectory(finished)),
    ):
        assert {a.name: a.temperature for a in read.attributes} == {"tone": None, "age": 0.2}
    again = read_prototypes(Unsealed(tmp_path / "p.parquet", "a test"))
    for own, kept in zip(known.attributes, again.attributes, strict=True):
        np.testing.assert_array_equal(own.vectors, kept.vectors)
        np.testing.assert_array_equal(own.absent, kept.absent)
