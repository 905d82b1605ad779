"""`fairdedup audit` by soft membership: the slow twin's counts, suggestions for labels, and the warning of a run."""

from __future__ import annotations

import csv
import json
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from audits import attribute, group, oracle_memberships, read_report, suggested, write_labels
from runs import CLUSTERS, Decided, done, manifest, prototype_vectors, raw_vectors, table


def test_without_labels_memberships_count_and_the_report_says_so(again, scheduler, prototypes):
    shown = done("audit", again, "--prototypes", prototypes, "--scheduler", scheduler)
    assert "by soft membership, not by labels" in shown.out
    found = read_report(again)
    assert found["source"] == "soft membership"
    assert [a["attribute"] for a in found["attributes"]] == ["tone", "age", "tone × age"]
    shares = {(line["attribute"], line["group"]): line for line in manifest(again)["shares"]}
    for name, concepts in prototype_vectors().items():
        for g in attribute(found, name)["groups"]:
            assert g["group"] in concepts and g["group"] != "absent"
            known = shares[name, g["group"]]
            assert (g["share_before"], g["share_after"]) == pytest.approx((known["input"], known["kept"]), abs=1e-8)
            assert g["p"] is None and g["p_holm"] is None
            assert g["loss"]["between"] + g["loss"]["within"] == pytest.approx(g["loss"]["whole"], abs=1e-6)
    line = attribute(found, "tone")
    assert "no exact test" in line["test"] and line["unlabelled"] is None
    crossed = attribute(found, "tone × age")["groups"]
    light = sum(g["before"] for g in crossed if g["group"].startswith("light"))
    assert 0 < light < group(found, "tone", "light")["before"]  # a row without an age is in no intersection


@pytest.fixture
def night(finished, tmp_path, scheduler):
    """Return a run of other rows against the finished one."""
    np.save(tmp_path / "new.npy", raw_vectors(600, seed=5))
    done("run", tmp_path / "new.npy", "--against", finished, "--model", "fairdedup-small", "--out", tmp_path / "night",
         "--scheduler", scheduler, "--quiet")  # fmt: skip
    return tmp_path / "night"


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("which", ["again", "night"])
def test_memberships_are_those_of_the_run_s_own_shares(request, which, scheduler, prototypes, named):
    run = request.getfixturevalue(which)
    flags = ("--prototypes", prototypes) if named else ()
    done("audit", run, "--min-count", 1, "--scheduler", scheduler, "--quiet", *flags)
    found = {
        (line["attribute"], g["group"]): (g["share_before"], g["share_after"])
        for line in read_report(run)["attributes"] if not line["intersection"] for g in line["groups"]
    }  # fmt: skip
    known = {(line["attribute"], line["group"]): (line["input"], line["kept"]) for line in manifest(run)["shares"]}
    assert known and set(found) == set(known)
    for name, shares in known.items():
        assert found[name] == pytest.approx(shares, abs=1e-8), name


def test_other_prototypes_have_the_temperature_of_the_rows_that_are_audited(night, scheduler, tmp_path):
    vectors = prototype_vectors(seed=8)["tone"]
    np.savez(tmp_path / "p.npz", **{f"tone/{c}": v for c, v in vectors.items()})
    done("audit", night, "--prototypes", tmp_path / "p.npz", "--scheduler", scheduler, "--quiet")
    q = oracle_memberships(Decided(night).unit, vectors).sum(axis=0)
    assert [g["before"] for g in attribute(read_report(night), "tone")["groups"]] == pytest.approx(q, abs=1e-6)


def test_prototypes_of_the_run_are_the_default(again, scheduler):
    done("audit", again, "--scheduler", scheduler, "--quiet")
    assert read_report(again)["attributes"][0]["attribute"] == "tone"


def test_soft_reports_do_not_depend_on_how_parts_are_cut(again, scheduler, prototypes, monkeypatch):
    from fairdedup.storage import shard_groups as storage
    from fairdedup.storage.contents import load_embedded
    from fairdedup.storage.layout import RunDirectory
    from fairdedup.storage.seals import seal

    done("audit", again, "--prototypes", prototypes, "--scheduler", scheduler, "--quiet")
    whole = (again / "report" / "audit.json").read_bytes()
    decisions = pq.read_table(again / "decisions" / "part-00000.parquet")
    known = manifest(again)
    monkeypatch.setattr(storage, "GROUP_ROWS", 80)  # three shards, three parts
    for number, group_ in enumerate(load_embedded(RunDirectory(again)).groups):
        rows = decisions.column("row").to_numpy()
        own = (rows >= group_.first) & (rows < group_.first + group_.input)
        path = again / "decisions" / f"part-{number:05d}.parquet"
        pq.write_table(decisions.filter(pa.array(own)), path)
        known["files"][f"decisions/{path.name}"] = seal(path)
    assert number == 2
    (again / "run.json").write_text(json.dumps(known))
    done("audit", again, "--prototypes", prototypes, "--scheduler", scheduler, "--quiet")
    assert (again / "report" / "audit.json").read_bytes() == whole


def test_the_least_certain_samples_are_suggested_over_all_clusters(again, scheduler, prototypes):
    shown = done("audit", again, "--prototypes", prototypes, "--scheduler", scheduler, "--suggest-labels", 20)
    lines = suggested(again)
    assert list(lines[0]) == ["id", "cluster", "kept", "score", "perceived tone", "perceived age"]
    assert "20 samples that are worth a label" in shown.out and len({line["id"] for line in lines}) == 20
    scores = [float(line["score"]) for line in lines]
    assert all(a >= b for a, b in pairwise(scores)) and scores[-1] > 0
    assert len({line["cluster"] for line in lines}) == CLUSTERS
    decisions = table(again / "decisions").set_index("id")
    concepts = prototype_vectors()
    for line in lines:
        assert int(line["cluster"]) == decisions.loc[line["id"], "cluster"]
        assert line["kept"] == str(decisions.loc[line["id"], "kept"]).lower()
        assert line["perceived tone"] in concepts["tone"] and line["perceived age"] in concepts["age"]
    again_ = (again / "report" / "suggested-labels.csv").read_bytes()
    done("audit", again, "--prototypes", prototypes, "--scheduler", scheduler, "--suggest-labels", 20, "--quiet")
    assert (again / "report" / "suggested-labels.csv").read_bytes() == again_


def test_who_has_a_label_is_not_suggested(again, scheduler, prototypes, tmp_path):
    ids = table(again / "decisions")["id"].tolist()
    file = write_labels(tmp_path / "l.csv", id=ids[:200], tone=["light"] * 150 + [""] * 50)
    place = tmp_path / "mine.csv"
    done("audit", again, "--labels", file, "--prototypes", prototypes, "--scheduler", scheduler, "--quiet",
         "--suggest-labels", 500, "--out", place)  # fmt: skip
    with open(place, encoding="utf-8", newline="") as lines:
        named = {line["id"] for line in csv.DictReader(lines)}
    assert not (again / "report" / "suggested-labels.csv").exists()
    assert named == set(ids[150:])
    assert read_report(again)["source"] == "labels"
    assert any("only" in note and "are left" in note for note in read_report(again)["notes"])


@pytest.mark.parametrize("flags", [(), ("--suggest-labels", 5)])
def test_a_run_without_samples_left_is_audited_without_a_warning(again, scheduler, prototypes, tmp_path, flags):
    (tmp_path / "gone.txt").write_text("".join(f"{name}\n" for name in table(again / "decisions")["id"]))
    done("replace", again, "--gone", tmp_path / "gone.txt", "--scheduler", scheduler, "--quiet")
    shown = done("audit", again, "--prototypes", prototypes, *flags, "--scheduler", scheduler, "--quiet")
    assert shown.err == ""
    assert [a["why"] for a in read_report(again)["attributes"]] == ["no sample has a label for it"] * 3


def test_a_run_by_concepts_warns_of_memberships_that_say_nothing(again, scheduler, tmp_path):
    vectors = prototype_vectors()
    same = {f"tone/{c}": vectors["tone"]["light"] for c in ("light", "dark", "medium")}
    np.savez(tmp_path / "p.npz", **same, **{f"age/{c}": v for c, v in vectors["age"].items()})
    flags = ("--keep", 0.5, "--prototypes", tmp_path / "p.npz", "--scheduler", scheduler, "--quiet")
    for rule, number in (("balanced", 1), ("fairdedup", 1), ("semdedup", 0)):
        done("prune", again, *flags, "--rule", rule)
        found = [w for w in manifest(again)["warnings"] if w.startswith("The encoder barely") and "'tone'" in w]
        assert len(found) == number, rule
        if found:
            assert "(mean top probability 0.33, chance 0.33)" in found[0] and "fairdedup calibrate" in found[0]


def test_soft_memberships_are_those_of_the_slow_twin(again, scheduler, prototypes):
    done("audit", again, "--prototypes", prototypes, "--scheduler", scheduler, "--quiet")
    decisions, found = Decided(again).decisions, read_report(again)
    vectors = prototype_vectors()
    for name, concepts in vectors.items():
        q = oracle_memberships(Decided(again).unit, concepts)
        for k, g in enumerate(attribute(found, name)["groups"]):
            assert g["before"] == pytest.approx(q[:, k].sum(), abs=1e-6)
            assert g["kept"] == pytest.approx(q[decisions["kept"].to_numpy(), k].sum(), abs=1e-6)
