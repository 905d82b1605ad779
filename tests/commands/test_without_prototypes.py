"""Without prototypes the rule is `semdedup`; a run says what its removals are, and has no shares of what is absent."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
from remedies import call, manifest_of
from runs import done

VECTORS = "run x.npy --keep 0.5 --clusters 2 --out r"


def test_ready_vectors_without_a_model_are_decided_by_semdedup(place):
    words = VECTORS.split()
    shown = done(*words)
    (line,) = [line for line in shown.err.splitlines() if "the rule is" in line]
    assert line.startswith(
        "The model of these embeddings is not known: there are no prototypes, so the rule is semdedup, which ignores"
    )
    assert manifest_of(place / "r")["config"]["prune"]["rule"] == "semdedup"
    assert "finished already" in done(*words).err
    assert "the rule is semdedup" in done("prune", "r", "--keep", 0.4).err
    assert call(f"{VECTORS} --restart").code == 0
    assert manifest_of(place / "r")["config"]["prune"]["rule"] == "semdedup"


@pytest.mark.parametrize("words", ["--rule fairdedup", "--prototypes people"])
def test_what_the_user_names_is_never_replaced(words, place):
    shown = call(f"{VECTORS} {words}")
    assert shown.code == 2 and "the model of these embeddings is not known" in shown.err


def test_prototypes_keep_the_default_rule(place):
    assert call(f"{VECTORS} --prototypes p.npz").code == 0
    assert manifest_of(place / "r")["config"]["prune"]["rule"] == "fairdedup"


def test_removals_that_are_no_near_duplicates_are_counted_and_the_eps_for_those_is_named(place):
    shown = done(*VECTORS.split())
    table = pq.read_table(place / "r" / "decisions").to_pandas()
    cosines = table.loc[~table["kept"], "similarity"]
    near = int((cosines >= 0.95).sum())
    known = manifest_of(place / "r")["removed_cosines"]
    assert (known["samples"], known["near_duplicates"]) == (len(cosines), near)
    assert known["median"] == pytest.approx(cosines.median(), abs=0.02)
    low = f"of {len(cosines)} removed, {near} ha"
    assert (low in shown.out) == (cosines.median() < 0.9)
    np.save("u.npy", np.random.default_rng(0).normal(size=(40, 16)).astype(np.float32))
    shown = done("run", "u.npy", "--keep", 0.5, "--clusters", 1, "--out", "u")
    assert "of 20 removed, 0 have a cosine of 0.95 or more to their representative; to remove near-" in shown.out
    assert "near-duplicates only: --eps 0.05" in shown.out
    shown = done("prune", "r", "--eps", 0.05)  # the remedy
    known = manifest_of(place / "r")
    assert known["removed_cosines"]["near_duplicates"] == known["counts"]["removed"] > 0
    assert "near-duplicates only" not in shown.out


def test_an_attribute_that_no_sample_shows_has_no_shares(place):
    """All samples are nearer to the absent prototype than to a group of `a`."""
    x = np.load("x.npy").astype(np.float64)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    middle = x.mean(axis=0)
    np.savez("none.npz", **{"a/p": -x[0], "a/q": -x[1], "a/absent": middle, "b/r": x[2], "b/s": x[3]})
    shown = done(*VECTORS.split(), "--prototypes", "none.npz", "--temperature", 0.01)
    known = manifest_of(place / "r")
    assert known["absent"] == ["a"] and {share["attribute"] for share in known["shares"]} == {"b"}
    assert "warning: Of 60 samples, hardly any shows what these attributes are about" in shown.out
    assert "so their shares are left out: a (0)\n" in shown.out
    done("prune", "r", "--keep", 0.5, "--prototypes", "p.npz")
    assert manifest_of(place / "r")["absent"] == []


def test_sweep_and_the_page_suggest_an_eps_where_near_duplicates_stand_out(place):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 16))
    np.save("d.npy", np.concatenate((x, x[:20] + 0.02 * rng.normal(size=(20, 16)))).astype(np.float32))
    done("run", "d.npy", "--keep", 0.5, "--clusters", 1, "--out", "d", "--rule", "semdedup", "--report")
    shown = done("sweep", "d", "--keep", 0.5, "--rule", "semdedup")
    (line,) = [line for line in shown.err.splitlines() if "Near-duplicates stand out" in line]
    eps = line.rpartition("--eps ")[2]
    shown_there = line.replace(f"--eps {eps}", f"<code>--eps {eps}</code>")
    assert shown_there in (place / "d" / "report" / "index.html").read_text()
    done("prune", "d", "--rule", "semdedup", "--eps", eps)
    assert manifest_of(place / "d")["counts"]["removed"] == 20
