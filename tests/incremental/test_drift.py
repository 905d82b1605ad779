"""The drift of new rows: the stability index, and the warning to cluster again."""

from __future__ import annotations

import numpy as np
import pytest
from nights import decisions_of, unit_of
from runs import (
    done,
    manifest,
)

from fairdedup.incremental.drift import stability_index


def test_the_stability_index_is_that_of_the_definition():
    before, now = np.array([500, 300, 200]), np.array([50, 30, 120])
    p, q = (before + 0.5) / 1001.5, (now + 0.5) / 201.5
    psi, chance = stability_index(before=before, now=now)
    assert psi == pytest.approx(sum((q - p) * np.log(q / p)))
    assert chance == pytest.approx(2 * (1 / 1001.5 + 1 / 201.5))
    assert (
        stability_index(before=np.array([5, 0, 5]), now=np.array([1, 9, 0])).by_chance == 0
    )  # too few rows for two cells


def test_rows_of_the_same_kind_do_not_drift_and_others_do():
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.full(1000, 2.0))
    before = rng.multinomial(100_000, shares)
    for rows in (300, 3000, 30_000):
        for _ in range(20):
            psi, chance = stability_index(before=before, now=rng.multinomial(rows, shares))
            assert abs(psi - chance) < 0.1
        half = shares * (np.arange(1000) < 500)
        psi, chance = stability_index(before=before, now=rng.multinomial(rows, half / half.sum()))
        assert psi - chance > 0.25


def test_a_night_of_another_kind_warns_that_a_refit_is_due(days, line, tmp_path, scheduler):
    np.save(tmp_path / "strange.npy", -np.load(days / "day0.npy"))
    words = (tmp_path / "strange.npy", "--against", line[0], "--out", tmp_path / "run", "--scheduler", scheduler)
    shown = done("run", *words)
    assert "drift" in shown.out and "refit" in shown.out
    known = manifest(tmp_path / "run")["drift"]
    assert known["refit"] and known["mean_similarity"] < 0 < known["mean_similarity_before"]
    calm = manifest(line[1])
    unit, labels = (
        np.concatenate([f(run) for run in line[:2]]) for f in (unit_of, lambda r: decisions_of(r)["cluster"])
    )
    assert len(unit) == len(labels)
    assert calm["drift"]["mean_similarity"] == pytest.approx(
        decisions_of(line[1])["centroid_similarity"].mean(), abs=1e-6
    )
    assert not calm["drift"]["refit"] and not calm["warnings"]
