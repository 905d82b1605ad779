"""`fairdedup audit --labels` on real runs: its counts are those of the decisions, and few rows prove nothing."""

from __future__ import annotations

import json
import math
from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from audits import attribute, group, read_report, write_labels
from runs import done, manifest, table

from fairdedup.audit import causes


def test_what_is_counted_is_what_the_decisions_say(again, labelled, no_workers):
    decisions, file = labelled
    shown = done("audit", again, "--labels", file, "--min-count", 1)
    found = read_report(again)
    assert found["source"] == "labels" and "by the labels of labels.csv" in shown.out
    assert [a["attribute"] for a in found["attributes"]] == ["tone", "age", "tone × age"]
    for line in found["attributes"]:
        assert (line["rows"], line["kept"]) == (len(decisions), decisions["kept"].sum())
        assert line["unlabelled"] == 0
        masks = {}
        for g in line["groups"]:
            mask = np.ones(len(decisions), bool)
            for name, label in zip(line["attributes"], g["group"].split(" × "), strict=True):
                mask &= decisions[name] == label
            masks[g["group"]] = mask
            kept = int((mask & decisions["kept"]).sum())
            assert (g["before"], g["kept"]) == (mask.sum(), kept)
            assert g["rate"] == pytest.approx(kept / mask.sum(), abs=1e-8)
            assert g["share_after"] == pytest.approx(kept / decisions["kept"].sum(), abs=1e-8)
            assert g["rate_interval"] is None or g["rate_interval"][0] <= g["rate_interval"][1]
        assert sum(masks.values()).tolist() == [1] * len(decisions)
        rates = [g["rate"] for g in line["groups"]]
        assert line["ratio"] == pytest.approx(min(rates) / max(rates), abs=1e-8)
        assert line["under_four_fifths"] == (min(rates) / max(rates) < 0.8)
    assert "too few to resample" in found["notes"][-1]  # five clusters


def test_both_parts_of_a_loss_are_those_of_loops_over_clusters(again, labelled):
    decisions, file = labelled
    done("audit", again, "--labels", file, "--min-count", 1, "--quiet")
    overall = decisions["kept"].mean()
    for label in ("light", "dark"):
        between = within = 0.0
        for _, own in decisions.groupby("cluster"):
            members = own[own["tone"] == label]
            between += len(members) * (overall - own["kept"].mean())
            within += len(members) * own["kept"].mean() - members["kept"].sum()
        loss = group(read_report(again), "tone", label)["loss"]
        assert (loss["between"], loss["within"]) == pytest.approx((between, within), abs=1e-8)
        assert loss["whole"] == pytest.approx(between + within, abs=1e-8)
        named = {c["cluster"]: c for c in loss["clusters_within"]}
        for number, cluster in named.items():
            own = decisions[decisions["cluster"] == number]
            members = own[own["tone"] == label]
            assert cluster["cost"] == pytest.approx(len(members) * own["kept"].mean() - members["kept"].sum(), abs=1e-8)
            lost = members[~members["kept"]].sort_values("row")["id"].head(5)
            assert [one["id"] for one in cluster["lost"]] == lost.tolist()
            ids = decisions.set_index("row")["id"]
            for one in cluster["lost"]:
                row = decisions[decisions["id"] == one["id"]].iloc[0]
                assert one["representative"] == ids[row["representative"]]
                assert one["similarity"] == pytest.approx(row["similarity"], abs=1e-8)
        for place in loss["neighbourhoods"]:
            own = decisions[decisions["neighbourhood"] == place["neighbourhood"]]
            members = own[own["tone"] == label]
            cost = len(members) * own["kept"].mean() - members["kept"].sum()
            assert (place["rows"], place["group_kept"]) == (len(own), members["kept"].sum())
            assert place["cost"] == pytest.approx(cost, abs=1e-8) and cost > 0
        costs = [place["cost"] for place in loss["neighbourhoods"]]
        assert costs == sorted(costs, reverse=True)


def plant(run: Path, kept: list[bool], cluster: list[int]) -> None:
    """Change the outcomes in the decisions of a run, as if a prune had decided them."""
    from fairdedup.storage.seals import seal

    part = run / "decisions" / "part-00000.parquet"
    decisions = pq.read_table(part)
    for name, values in (("kept", pa.array(kept)), ("cluster", pa.array(cluster, pa.int64()))):
        decisions = decisions.set_column(decisions.column_names.index(name), name, values)
    pq.write_table(decisions, part)
    known = manifest(run)
    known["files"]["decisions/part-00000.parquet"] = seal(part)
    (run / "run.json").write_text(json.dumps(known))


@pytest.mark.parametrize("where", ["between", "within"])
def test_women_lost_between_clusters_and_women_lost_within_are_distinguished(again, tmp_path, where):
    ids = table(again / "decisions")["id"].tolist()
    number = len(ids)
    if where == "between":  # clusters of men are kept whole, clusters of women by a third
        gender = ["man" if k % 4 < 2 else "woman" for k in range(number)]
        cluster = [k % 4 for k in range(number)]
        kept = [g == "man" or (k // 4) % 3 == 0 for k, g in enumerate(gender)]
    else:  # every cluster is kept by half, the men first
        gender = ["man" if (k // 4) % 2 else "woman" for k in range(number)]
        cluster = [k % 4 for k in range(number)]
        kept = [g == "man" for g in gender]
    plant(again, kept, cluster)
    done("audit", again, "--labels", write_labels(tmp_path / "l.csv", id=ids, gender=gender), "--quiet")
    loss = group(read_report(again), "gender", "woman")["loss"]
    assert loss["whole"] > 15
    assert loss[where] == pytest.approx(loss["whole"], abs=0.6)  # clusters differ by a row or two
    other = {"between": "within", "within": "between"}[where]
    assert abs(loss[other]) < 0.6
    if where == "between":
        assert loss["within"] == 0 and [c["cluster"] for c in loss["clusters_between"]] == [2, 3]
        assert loss["clusters_within"] == [] == loss["neighbourhoods"]


def test_a_group_without_kept_samples_has_a_skew_of_minus_infinity(again, tmp_path):
    decisions = table(again / "decisions")
    removed = decisions.loc[~decisions["kept"], "id"].tolist()[:40]
    gender = ["woman" if name in removed else "man" for name in decisions["id"]]
    shown = done("audit", again, "--labels", write_labels(tmp_path / "l.csv", id=decisions["id"].tolist(), g=gender))
    gone = group(read_report(again), "g", "woman")
    assert (gone["kept"], gone["skew"], gone["rate"], gone["to_best"]) == (0, "-inf", 0, 0)
    assert gone["under_four_fifths"] is True and gone["p_holm"] < 1e-6
    assert "-inf" in shown.out and "!" in shown.out
    long = pq.read_table(again / "report" / "audit.parquet").to_pandas()
    assert long.loc[long["group"] == "woman", "skew"].item() == -math.inf
    assert gone["loss"]["whole"] == pytest.approx(40 * decisions["kept"].mean())


def test_a_group_under_the_minimum_count_is_insufficient_and_nothing_is_claimed_of_it(again, tmp_path):
    decisions = table(again / "decisions")
    gender = ["few"] * 29 + ["some"] * 30 + ["most"] * (len(decisions) - 59)
    file = write_labels(tmp_path / "l.csv", id=decisions["id"].tolist(), g=gender)
    shown = done("audit", again, "--labels", file)
    few = group(read_report(again), "g", "few")
    assert few["sufficient"] is False and few["why"] == "insufficient: under 30" and few["before"] == 29
    assert few["kept"] == decisions["kept"].head(29).sum()
    claims = set(few) - {"group", "before", "kept", "sufficient", "why", "loss"}
    assert claims and all(few[name] is None for name in claims)
    assert [line.split()[-1] for line in shown.out.splitlines() if line.startswith("few")] == ["insufficient"]
    assert group(read_report(again), "g", "some")["sufficient"] is True
    done("audit", again, "--labels", file, "--min-count", 29, "--quiet")
    assert group(read_report(again), "g", "few")["rate"] is not None


def test_missing_unknown_and_absent_ids_are_counted_and_reported(again, tmp_path):
    decisions = table(again / "decisions")
    ids = decisions["id"].tolist()
    tone = ["light", "dark", "", " ", *["light"] * 196]
    file = write_labels(tmp_path / "l.csv", uid=[*ids[:198], "nobody\x1b[31m", "k7"], tone=tone, age=["x"] * 200)
    shown = done("audit", again, "--labels", file)
    found = read_report(again)
    line = attribute(found, "tone")
    assert (line["rows"], line["unlabelled"]) == (196, len(ids) - 196)
    assert attribute(found, "age")["rows"] == 198
    assert found["notes"][:2] == [
        "2 of 200 ids of the labels are not in the run's decisions, as 'nobody\\x1b[31m'",
        f"{len(ids) - 198} samples of the run are not in the labels: they count nowhere below",
    ]
    assert f"{len(ids) - 196} unlabelled" in shown.out and "\x1b[31m" not in shown.out


def test_parquet_labels_of_other_types_count_as_text(again, tmp_path):
    decisions = table(again / "decisions")
    monk = [float(k % 3) if k % 5 else None for k in range(len(decisions))]
    file = write_labels(
        tmp_path / "l.parquet", id=decisions["id"].tolist(), monk=monk, flag=[k % 2 == 0 for k in range(len(decisions))]
    )
    done("audit", again, "--labels", file, "--quiet")
    found = read_report(again)
    assert [g["group"] for g in attribute(found, "flag")["groups"]] == ["false", "true"]
    assert len(attribute(found, "monk")["groups"]) == 3
    assert attribute(found, "monk")["rows"] == sum(v is not None for v in monk)


def test_the_run_s_own_target_is_what_balanced_is_measured_by(again, labelled, prune):
    decided = prune("--keep", 0.4, "--rule", "balanced", "--target", "data")
    file = labelled[1]
    for flags, name in (((), "data"), (("--target", "uniform"), "uniform")):
        done("audit", decided.run, "--labels", file, "--quiet", *flags)
        line = attribute(read_report(again), "tone")
        assert line["target"] == name
        expected = [g["share_before"] if name == "data" else 0.5 for g in line["groups"]]
        distance = sum(abs(g["share_after"] - e) for g, e in zip(line["groups"], expected, strict=True)) / 2
        assert line["distance_after"] == pytest.approx(distance, abs=1e-8)
    assert attribute(read_report(again), "tone × age")["target"] == "uniform"


def test_a_target_of_the_yaml_counts_for_the_groups_that_it_names(again, scheduler, prototypes, labelled, tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text("{keep: 0.4, rule: balanced, target: {tone: {light: 0.9, dark: 0.1}}}")
    done("prune", again, "--config", config, "--prototypes", prototypes, "--scheduler", scheduler, "--quiet")
    done("audit", again, "--labels", labelled[1], "--quiet")
    line = attribute(read_report(again), "tone")
    dark = group(read_report(again), "tone", "dark")
    assert line["target"] == "the run's own"
    assert line["distance_after"] == pytest.approx(abs(dark["share_after"] - 0.1), abs=1e-8)
    assert attribute(read_report(again), "age")["target"] == "uniform"


def test_intersections_are_those_that_are_named(again, labelled):
    for flags, expected in (
        (("--intersections", "none"), ["tone", "age"]),
        (("--intersections", "age,tone"), ["tone", "age", "age × tone"]),
        (("--attributes", "age"), ["age"]),
    ):
        done("audit", again, "--labels", labelled[1], "--quiet", *flags)
        assert [a["attribute"] for a in read_report(again)["attributes"]] == expected


def test_a_large_cluster_is_counted_but_not_looked_into(again, labelled, monkeypatch):
    monkeypatch.setattr(causes, "MOST_ROWS", 10)
    done("audit", again, "--labels", labelled[1], "--quiet")
    found = read_report(again)
    assert any("too large to be looked into" in note for note in found["notes"])
    clusters = group(found, "tone", "dark")["loss"]["clusters_within"]
    assert clusters and all(c["cost"] > 0 for c in clusters)


def test_a_rule_without_representatives_can_be_audited(again, labelled, prune):
    prune("--keep", 0.4, "--rule", "random")
    done("audit", again, "--labels", labelled[1], "--quiet")
    dark = group(read_report(again), "tone", "dark")
    lost = [one for c in dark["loss"]["clusters_within"] + dark["loss"]["clusters_between"] for one in c["lost"]]
    assert lost and all(one["representative"] is None and one["similarity"] is None for one in lost)


def test_the_audit_of_the_planted_pairs_of_attributes_has_every_pair(again, tmp_path):
    decisions = table(again / "decisions")
    columns = {name: [f"{name}{k % 2}" for k in range(len(decisions))] for name in "abc"}
    file = write_labels(tmp_path / "l.csv", id=decisions["id"].tolist(), **columns)
    done("audit", again, "--labels", file, "--quiet")
    crossed = [tuple(a["attributes"]) for a in read_report(again)["attributes"] if a["intersection"]]
    assert crossed == list(combinations("abc", 2))
    done("audit", again, "--labels", file, "--quiet", "--intersections", "a,b,c")
    assert read_report(again)["attributes"][-1]["groups"][0]["group"] == "a0 × b0 × c0"
    assert len(read_report(again)["attributes"][-1]["groups"]) == 2  # groups without rows are not listed
