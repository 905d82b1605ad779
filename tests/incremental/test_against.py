"""New rows beside what earlier runs kept: the core decides as the slow twin, and days follow days on real workers."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import oracles
import pandas as pd
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from problems import Case, assert_same, naming, random_case
from runs import (
    DIMENSION,
    command,
    contents,
    done,
    manifest,
    picture,
    product,
    prototype_vectors,
    raw_vectors,
    sample,
    started,
    write_tar,
)  # fmt: skip
from runs import table as run_table

from fairdedup import increments
from fairdedup.core.decision import Decision, decide
from fairdedup.core.decision_columns import DECIDED, EARLIER
from fairdedup.core.model import Cluster, EarlierKept, Inherited, Options
from fairdedup.core.moments import MembershipMoments, Moments
from fairdedup.core.ordered_integers import to_ordered_integers
from fairdedup.core.prototypes import Prototypes
from fairdedup.drift import stability_index
from fairdedup.errors import UserError
from fairdedup.storage.run_files import seal, write_json

SWEEPING = [
    (rule, cover) for rule in ("semdedup", "fairdedup", "balanced", "prefer", "random-neighbour")
    for cover in (False, True)
]  # fmt: skip
COMPARED = (*DECIDED, EARLIER)


@dataclass
class Part:
    """One cluster of a problem, for the core."""

    cluster: Cluster
    memo: dict[Any, Any] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return len(self.cluster.rows)

    def clusters(self) -> Iterator[Cluster]:
        yield self.cluster


@dataclass(frozen=True)
class Night:
    """A problem whose rows came over several days; the last day's are to be decided."""

    case: Case
    day: NDArray[np.int64]
    kept: NDArray[np.bool_]
    protected: NDArray[np.bool_]

    @property
    def new(self) -> NDArray[np.bool_]:
        return self.day == self.day.max()

    def twin(self, rule: str, cover: bool, chosen: NDArray[np.int64] | None = None) -> oracles.Problem:
        case, new = self.case, self.new
        unit = oracles.unit16(case.x)
        days = [
            oracles.Day(unit[own], case.labels[own], self.kept[own])
            for own in (self.day == d for d in range(self.day.max()))
        ]
        options = case.options if rule in ("fairdedup", "balanced") else {}
        return oracles.Problem(
            unit[new], case.labels[new], rule, cover=cover, prototypes=case.prototypes, chosen=chosen,
            centroids16=oracles.centroids_of_labels(unit, case.labels), values=case.quality[new],  # type: ignore[arg-type]
            protected=self.protected[new], earlier=days, **options,
        )  # fmt: skip

    def decide(self, rule: str, cover: bool, at_most: float | None = None) -> Decision:
        """Decide the new rows by the core, given what the twin has of the earlier days' sums."""
        case, problem = self.case, self.twin(rule, cover)
        unit, centroids = oracles.unit16(case.x), oracles.centroids_of_labels(oracles.unit16(case.x), case.labels)
        before = np.flatnonzero(~self.new)
        order = before[np.argsort(self.day[before], kind="stable")]  # as the twin has them, one day after the other
        values = to_ordered_integers(case.quality)[self.new]
        parts, without = [], 0
        for k, rows in problem.clusters.items():
            own = np.flatnonzero(self.kept[order] & (case.labels[order] == k))
            sums = None
            if rule == "fairdedup" and (case.labels[order] == k).any():
                first = self.day[order][case.labels[order] == k].min()
                begun = problem.all_p[: len(order)][(case.labels[order] == k) & (self.day[order] == first)]
                start = np.rint(begun.sum(axis=0) / len(begun)).astype(np.int64) if problem.start == "cluster" else 0
                sums = start + problem.all_p[own].sum(axis=0)
            earlier = EarlierKept(unit[order[own]], own, sums)
            protected = problem.protected[rows]
            without += not (len(own) or protected.any())
            parts.append(Part(Cluster(k, rows, problem.x16[rows], centroids[k], protected, values[rows], earlier)))
        inherited = Inherited(case.eps)
        known = Prototypes.of(case.prototypes)
        if rule == "balanced":
            q = {name: own[: len(order)] for name, own in problem.q.items()}
            inherited = Inherited(
                case.eps, tuple(problem.temperatures.values()), tuple(MembershipMoments.of(own) for own in q.values())
            )
        if rule == "fairdedup" and case.options.get("calibrate") == "zscore":
            of_first = unit[order][self.day[order] == 0]
            found = [s[:, : len(names)] for names, s in _similarities(of_first, case).values()]
            inherited = Inherited(case.eps, moments=Moments.of(np.hstack(found)))
        options = Options(rule=rule, cover=cover, **(case.options if rule in ("fairdedup", "balanced") else {}))
        return decide(
            parts, without, options, known, lambda step, f, parts, *args: [f(p, *args) for p in parts],
            at_most=at_most, protected=int(problem.protected.sum()), inherited=inherited,
        )  # fmt: skip


def _similarities(unit: NDArray[np.float16], case: Case) -> dict[str, tuple[list[str], NDArray[np.float64]]]:
    names = {a: [n for n in concepts if n != "absent"] for a, concepts in case.prototypes.items()}
    return {
        a: (own, oracles.cosine_matrix(unit, oracles.unit16([case.prototypes[a][n] for n in own])))
        for a, own in names.items()
    }


def random_night(seed: int) -> Night:
    """Return a random problem over two or three days; copies across days are common, all of a cluster may be new."""
    case = random_case(seed)
    rng = np.random.default_rng([seed, 5])
    n, days = len(case.x), int(rng.integers(2, 4))
    if n < days:
        return random_night(seed + 10_000)
    if rng.random() < 0.3:
        case.x[rng.integers(n, size=n // 3)] = case.x[rng.integers(n, size=n // 3)]
    day = rng.integers(days, size=n)
    day[rng.permutation(n)[:days]] = np.arange(days)
    if rng.random() < 0.3:  # a cluster that earlier runs knew nothing of
        day[(case.labels == case.labels[0]) & (day > 0)] = days - 1
    kept = (rng.random(n) < rng.choice([0.2, 0.6, 1.0])) & (day < days - 1)
    protected = (rng.random(n) < rng.choice([0.0, 0.2])) & (day == days - 1)
    return Night(case, day, kept, protected)


def table(decision: Decision) -> oracles.Decision:
    columns = {name: np.concatenate([p.columns[name] for p in decision.parts]) for name in COMPARED}
    order = np.argsort(columns["row"])
    return {name: values[order] for name, values in columns.items()} | {"readmitted": np.zeros(len(order), bool)}


def check(night: Night, rule: str, cover: bool, at_most: float | None = None) -> oracles.Decision:
    """Decide the last day and compare all of it with the twin, the promises among it."""
    decision = night.decide(rule, cover, at_most)
    found = table(decision)
    problem = night.twin(rule, cover, found["representative"] if rule == "random-neighbour" else None)
    assert decision.eps is not None
    if at_most is None:
        assert decision.eps == night.case.eps
    elif rule != "random-neighbour":
        most = oracles.kept_seats(at_most, problem.n)
        assert problem.count(decision.eps) <= most
        looked_at = range(night.case.eps, decision.eps)
        assert all(problem.count(e) > most for e in [*looked_at[:20], *looked_at[-20:]])
    expected = problem.at_eps(decision.eps)
    assert_same(found, expected)
    assert (found[EARLIER] == expected["earlier"]).all()
    assert decision.kept == expected["kept"].sum()
    assert tuple(decision.guarantees.values()) == promises(problem, expected, decision.eps)
    if cover or rule == "semdedup":
        assert all(decision.guarantees.values())
    return found


def promises(problem: oracles.Problem, decision: oracles.Decision, e: int) -> tuple[bool, bool]:
    """Judge both guarantees by all pairs, those with what earlier runs kept among them."""
    distinct = represented = True
    for k, rows in problem.clusters.items():
        old = problem.all16[(problem.all_labels == k) & problem.all_kept]
        own = rows[decision["kept"][rows] & ~problem.protected[rows]]
        rest = rows[decision["kept"][rows] & problem.protected[rows]]
        judged = problem.x16[own]
        distinct &= not oracles.duplicates(
            oracles.cosine_matrix(judged, np.concatenate((old, problem.x16[rest]))), e
        ).any()
        distinct &= not np.triu(oracles.duplicates(oracles.cosine_matrix(judged, judged), e), 1).any()
    for row in np.flatnonzero(~decision["kept"]):
        by, own = decision["earlier"][row], decision["representative"][row]
        assert (by >= 0) != (own >= 0)
        other = problem.all16[by] if by >= 0 else problem.x16[own]
        near = oracles.duplicates(oracles.cosine_matrix(problem.x16[[row]], other[None]), e)[0, 0]
        represented &= bool(near and (by >= 0 or decision["kept"][own]))
    return bool(distinct), represented


def check_nights(seeds: range, rule: str, cover: bool) -> None:
    """Check random nights against the oracle, a third of them with a cap too."""
    taken = capped = 0
    for seed in seeds:
        night = random_night(seed)
        with naming(f"random_night({seed})"):
            found = check(night, rule, cover)
            taken += int((found[EARLIER] >= 0).sum())
            if seed % 3 == 0:
                problem = night.twin(rule, cover)
                fraction = np.random.default_rng(seed).integers(problem.least, problem.n + 1) / problem.n
                if fraction > 0:
                    check(night, rule, cover, at_most=fraction)
                    capped += 1
    assert taken > 4 * len(seeds) and capped > len(seeds) / 5


@pytest.mark.parametrize(("rule", "cover"), SWEEPING)
def test_new_rows_are_decided_beside_earlier_ones_as_by_the_oracle(rule: str, cover: bool) -> None:
    check_nights(range(30), rule, cover)


@pytest.mark.soak
@pytest.mark.parametrize(("rule", "cover"), SWEEPING)
def test_hundreds_of_random_nights_are_decided_as_by_the_oracle(rule: str, cover: bool) -> None:
    check_nights(range(30, 600), rule, cover)


def test_a_cap_below_what_every_eps_leaves_names_the_smallest_that_works() -> None:
    night = random_night(3)
    whole = Night(night.case, night.day, np.zeros_like(night.kept), night.protected)
    least, n = whole.twin("semdedup", False).least, int(whole.new.sum())
    assert least > 1
    words = rf"no eps keeps fewer than {least} \(.* allow at least `at_most=0\."
    with pytest.raises(UserError, match=words) as refused:
        whole.decide("semdedup", False, at_most=(least - 0.6) / n)
    smallest = float(str(refused.value).rsplit("=", 1)[1].rstrip("`"))
    assert whole.decide("semdedup", False, at_most=smallest).kept == least


def test_nothing_is_kept_where_everything_is_a_copy_of_what_was_kept() -> None:
    x = np.random.default_rng(0).normal(size=(6, 5))
    case = Case(np.concatenate([x, x]), np.zeros(12, np.int64), {"a": {"p": x[0]}}, 1, 0.5)
    night = Night(case, np.repeat([0, 1], 6), np.arange(12) < 6, np.zeros(12, bool))
    for at_most in (None, 0.01):
        decision = night.decide("fairdedup", True, at_most)
        assert decision.kept == 0 and decision.eps == 1
        assert table(decision)[EARLIER].tolist() == list(range(6))


# On files and real workers

PIECES = (0, 110, 165, 205, 240)


@pytest.fixture(scope="session")
def days(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the vectors of four days; days 2 and 3 repeat some of day 1's."""
    folder = tmp_path_factory.mktemp("days")
    x = raw_vectors(240, seed=3)
    x[120:130], x[170:175], x[176:180] = x[10:20] * 3, x[30:35], x[121:125]
    x[200] = np.nan
    for k in range(4):
        own = slice(PIECES[k], PIECES[k + 1])
        np.save(folder / f"day{k}.npy", x[own])
        (folder / f"day{k}.ids.txt").write_text("".join(f"d{k}-{r}\n" for r in range(own.stop - own.start)))
    return folder


def night(days: Path, number: int, out: Path, scheduler: str, *words: object) -> Path:
    done(
        "run",
        days / f"day{number}.npy",
        "--out",
        out,
        "--scheduler",
        scheduler,
        "--max-rejected",
        0.5,
        *words,
        "--quiet",
    )
    return out


@pytest.fixture(scope="session")
def line(days: Path, tmp_path_factory: pytest.TempPathFactory, scheduler: str, prototypes: Path) -> list[Path]:
    """Return three days with cover, each against the one before; copy them before you change them."""
    out = tmp_path_factory.mktemp("line")
    runs = [
        night(days, 0, out / "day0", scheduler, "--keep", 0.5, "--cover", "--prototypes", prototypes, "--clusters", 4)
    ]
    runs.append(night(days, 1, out / "day1", scheduler, "--against", runs[0]))
    return [*runs, night(days, 2, out / "day2", scheduler, "--against", runs[1], "--at-most", 0.3)]


def unit_of(run: Path) -> NDArray[np.float16]:
    return np.load(run / "embeddings" / "img_emb" / "img_emb_0.npy")


def decisions_of(run: Path) -> pd.DataFrame:
    return run_table(run / "decisions")


def assert_decided_as_by_the_oracle(runs: list[Path], rule: str, **options: Any) -> None:
    """Compare the last run of a line with the twin, which sees the vectors and whom the runs before kept."""
    centroids = oracles.unit16(np.load(runs[0] / "clusters" / "centroids.npy"))
    labels = [oracles.assign(unit_of(run), centroids) for run in runs]
    before = [
        oracles.Day(unit_of(run), own, decisions_of(run)["kept"].to_numpy())
        for run, own in zip(runs[:-1], labels, strict=False)
    ]
    problem = oracles.Problem(
        unit_of(runs[-1]),
        labels[-1],
        rule,
        prototypes=prototype_vectors(),
        centroids16=centroids,
        earlier=before,
        **options,
    )
    found, known = decisions_of(runs[-1]), manifest(runs[-1])
    e = round(known["eps"] * 10_000)
    expected = problem.at_eps(e)
    first = round(manifest(runs[0])["eps"] * 10_000)
    cap = known["config"]["prune"]["at_most"]
    if cap is None:
        assert e == first
    else:
        assert problem.count(e) <= oracles.kept_seats(cap, problem.n)
        assert all(problem.count(lower) > oracles.kept_seats(cap, problem.n) for lower in range(first, e))
    rows = found["row"].to_numpy()
    for name in ("cluster", "kept", "similarity", "centroid_similarity", "readmitted"):
        assert (found[name].to_numpy() == expected[name]).all(), name
    for name in ("representative", "neighbourhood"):
        assert (found[name].to_numpy() == np.where(expected[name] >= 0, rows[expected[name]], -1)).all(), name
    everyone = pd.concat([decisions_of(run).assign(run=str(run)) for run in runs[:-1]], ignore_index=True)
    by = np.flatnonzero(expected["earlier"] >= 0)
    assert found["representative_run"].isna().to_numpy().tolist() == (expected["earlier"] < 0).tolist()
    for place in by.tolist():
        other = everyone.loc[expected["earlier"][place]]
        assert found.loc[place, ["representative_run", "representative_id"]].tolist() == [other["run"], other["id"]]
    counts = known["counts"]
    assert counts["kept"] + counts["removed"] + counts["rejected"] == counts["input"]
    assert tuple(known["guarantees"].values()) == promises(problem, expected, e)


def test_day_follows_day_as_by_the_oracle(line):
    for number in (2, 3):
        assert_decided_as_by_the_oracle(line[:number], "fairdedup", cover=True)
    found = [decisions_of(run) for run in line]
    assert all(f["representative_run"].notna().sum() > 5 for f in found[1:])
    assert manifest(line[2])["against"] == [str(run) for run in line[:2]]
    assert manifest(line[2])["counts"]["rejected"] == 1


def test_no_two_kept_of_any_days_are_duplicates_in_a_cluster(line):
    e = round(manifest(line[0])["eps"] * 10_000)
    unit = [unit_of(run) for run in line]
    found = [decisions_of(run) for run in line]
    pairs = 0
    for day, other in ((1, 0), (2, 0), (2, 1), (1, 1), (2, 2)):
        for k in range(4):
            own, theirs = (
                unit[d][(found[d]["kept"] & (found[d]["cluster"] == k) & ~found[d]["readmitted"]).to_numpy()]
                for d in (day, other)
            )
            near = oracles.duplicates(oracles.cosine_matrix(own, theirs), e)
            assert not (np.triu(near, 1) if day == other else near).any()
            pairs += near.size
    assert pairs > 100


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("fairdedup", ("--calibrate", "zscore")),
        ("balanced", ("--target", "data", "--cover")),
        ("semdedup", ()),
    ],
)
def test_every_rule_goes_on_from_what_the_first_run_left(days, tmp_path, scheduler, prototypes, rule, words):
    runs = [night(days, 0, tmp_path / "0", scheduler, "--keep", 0.4, "--rule", rule, *words, "--prototypes", prototypes,
                  "--clusters", 4)]  # fmt: skip
    for k in (1, 2):
        runs.append(night(days, k, tmp_path / str(k), scheduler, "--against", runs[-1]))
    options: dict[str, Any] = {"cover": "--cover" in words}
    if rule == "fairdedup":
        options["calibrate"] = "zscore"
    if rule == "balanced":
        options["target"] = "data"
    assert_decided_as_by_the_oracle(runs, rule, **options)
    assert manifest(runs[2])["config"]["prune"]["rule"] == rule


def test_runs_of_one_line_count_once_and_branches_are_put_together(days, line, tmp_path, scheduler):
    both = night(days, 2, tmp_path / "both", scheduler, "--against", line[0], "--against", line[1], "--at-most", 0.3)
    assert product(both) == product(line[2])
    branch = night(days, 2, tmp_path / "branch", scheduler, "--against", line[0])
    last = night(days, 3, tmp_path / "last", scheduler, "--against", line[1], "--against", branch)
    assert_decided_as_by_the_oracle([line[0], line[1], branch, last], "fairdedup", cover=True)


def test_a_state_is_whole_in_itself(days, line, tmp_path, scheduler):
    shutil.copytree(line[1], tmp_path / "moved")
    alone = night(days, 2, tmp_path / "alone", scheduler, "--against", tmp_path / "moved", "--at-most", 0.3)
    assert product(alone)["kept"] == product(line[2])["kept"]
    first = (line[2] / "state" / "run-0000" / "vectors_0.npy").stat()
    assert first.st_ino == (line[0] / "state" / "run-0000" / "vectors_0.npy").stat().st_ino


def test_nothing_but_copies_keeps_nothing_and_the_next_night_goes_on(days, line, tmp_path, scheduler):
    again = tmp_path / "again"
    again.mkdir()
    kept = decisions_of(line[0])["kept"].to_numpy()
    np.save(again / "day0.npy", unit_of(line[0])[kept])
    copies = night(again, 0, tmp_path / "copies", scheduler, "--against", line[0])
    assert manifest(copies)["counts"]["kept"] == 0 and len(run_table(copies / "kept")) == 0
    assert all(manifest(copies)["guarantees"].values())
    after = night(days, 1, tmp_path / "after", scheduler, "--against", copies)
    assert product(after)["kept"] == product(line[1])["kept"]


def test_a_night_without_rows_is_fine(days, line, tmp_path, scheduler):
    np.save(tmp_path / "day0.npy", np.zeros((0, DIMENSION), np.float32))
    empty = night(tmp_path, 0, tmp_path / "empty", scheduler, "--against", line[0])
    counts = manifest(empty)["counts"]
    assert set(counts.values()) == {0} and manifest(empty)["drift"] is None
    after = night(days, 1, tmp_path / "after", scheduler, "--against", empty)
    assert product(after)["kept"] == product(line[1])["kept"]
    every = night(days, 1, tmp_path / "every", scheduler, "--against", line[0], "--where", "false")
    assert manifest(every)["counts"]["rejected"] == 55


def test_pruning_again_goes_against_the_same_runs(line, tmp_path, scheduler):
    shutil.copytree(line[2], tmp_path / "day2")
    before = product(line[2])
    done("prune", tmp_path / "day2", "--at-most", 0.1, "--scheduler", scheduler, "--quiet")
    assert manifest(tmp_path / "day2")["counts"]["kept"] <= 4
    done("prune", tmp_path / "day2", "--at-most", 0.3, "--scheduler", scheduler, "--quiet")
    assert product(tmp_path / "day2") == before
    shown = command("sweep", tmp_path / "day2", "--keep", 0.5, "--scheduler", scheduler, "--quiet")
    assert shown.code == 2 and "prune" in shown.err


def test_after_a_replacement_the_state_is_of_who_is_kept_now(days, line, tmp_path, scheduler):
    shutil.copytree(line[0], tmp_path / "day0")
    found = decisions_of(line[1])
    gone = found["representative_id"].dropna().iloc[0]
    (tmp_path / "gone.txt").write_text(f"{gone}\n")
    done("replace", tmp_path / "day0", "--gone", tmp_path / "gone.txt", "--scheduler", scheduler, "--quiet")
    kept = set(run_table(tmp_path / "day0" / "kept")["id"])
    with pa.memory_map(str(tmp_path / "day0" / "state" / "run-0000" / "ids_0.arrow")) as source:
        assert set(pa.ipc.open_file(source).read_all().column("id").to_pylist()) == kept
    after = night(days, 1, tmp_path / "after", scheduler, "--against", tmp_path / "day0")
    assert gone not in set(decisions_of(after)["representative_id"])
    assert done("run", days / "day0.npy", "--out", tmp_path / "day0", "--keep", 0.5, "--cover", "--clusters", 4,
                "--prototypes", manifest(line[0])["config"]["prune"]["prototypes"], "--max-rejected", 0.5).err.count(
                    "nothing to do")  # fmt: skip


@pytest.mark.parametrize("killed_at", ["state.json", "run.json"])
@pytest.mark.parametrize("mend", ["run", "replace", "audit"])
def test_what_is_said_of_a_replacement_that_was_stopped_finishes_it(
    days, line, tmp_path, scheduler, prototypes, monkeypatch, mend, killed_at
):
    run, file = tmp_path / "day0", tmp_path / "gone.txt"
    shutil.copytree(line[0], run)
    gone = decisions_of(line[1])["representative_id"].dropna().iloc[0]
    file.write_text(f"{gone}\n")

    def stop(path: Path, value: object) -> None:
        if path.name == killed_at:
            raise KeyboardInterrupt
        write_json(path, value)

    dask = ("--scheduler", scheduler, "--quiet")
    with monkeypatch.context() as patched:
        patched.setattr(increments, "write_json", stop)
        assert command("replace", run, "--gone", file, *dask).code == 1
    said = refused(days / "day1.npy", "--against", run, "--out", tmp_path / "day1", "--max-rejected", 0.5)
    assert "its own `fairdedup run` command" in said and "prune" not in said
    if mend == "run":
        night(days, 0, run, scheduler, "--keep", 0.5, "--cover", "--prototypes", prototypes, "--clusters", 4)
    elif mend == "replace":
        told = re.search("`fairdedup (replace [^`]*)`", said)
        assert told
        done(*told[1].replace("FILE", str(file)).split(), *dask)
    else:
        done("audit", run, *dask)
    assert gone not in set(run_table(run / "kept")["id"]) and not (run / "state" / "stale.json").exists()
    after = night(days, 1, tmp_path / "day1", scheduler, "--against", run)
    assert gone not in set(decisions_of(after)["representative_id"])


def refused(*words: object) -> str:
    shown = command("run", *words, "--quiet")
    assert shown.code == 2 and shown.err.count("\n") == 1, shown
    return shown.err


def test_what_contradicts_the_earlier_runs_is_refused_in_one_line(days, line, tmp_path, scheduler, prototypes):
    base = (days / "day1.npy", "--against", line[0], "--out", tmp_path / "run")
    assert "--keep 0.5 does not go with --against" in refused(*base, "--keep", 0.5)
    assert "has eps" in refused(*base, "--eps", 0.5)
    assert "--rule semdedup-chain does not go with --against" in refused(*base, "--rule", "semdedup-chain")
    assert "--rule random does not go with --against" in refused(*base, "--rule", "random", "--at-most", 0.5)
    assert "--clusters 9: the 4 clusters are those of" in refused(*base, "--clusters", 9)
    assert "--start zero is not that of" in refused(*base, "--start", "zero")
    (tmp_path / "p.npy").write_bytes(b"")
    assert "is not what" in refused(*base, "--prototypes", tmp_path / "p.npy")
    nowhere = refused(days / "day1.npy", "--against", tmp_path / "nowhere", "--out", tmp_path / "run")
    assert "holds no finished run" in nowhere
    itself = refused(days / "day1.npy", "--against", tmp_path / "run", "--out", tmp_path / "run")
    assert "is the run itself" in itself
    other = night(days, 0, tmp_path / "other", scheduler, "--keep", 0.3, "--rule", "semdedup", "--clusters", 4)
    assert "has another eps than" in refused(*base, "--against", other)
    assert "needs prototypes and" in refused(days / "day1.npy", "--against", other, "--rule", "fairdedup", "--out",
                                             tmp_path / "run")  # fmt: skip
    np.save(tmp_path / "wide.npy", np.ones((5, 7)))
    wide = refused(tmp_path / "wide.npy", "--against", line[0], "--out", tmp_path / "wide", "--scheduler", scheduler)
    assert "the embeddings have 7 dimensions and those of" in wide
    done(
        "run", *base, "--eps", manifest(line[0])["eps"], "--prototypes", prototypes, "--scheduler", scheduler, "--quiet"
    )
    assert product(tmp_path / "run") == product(line[1])


def test_a_run_that_has_changed_meanwhile_is_refused(days, line, tmp_path, scheduler):
    shutil.copytree(line[0], tmp_path / "day0")
    run = night(days, 1, tmp_path / "day1", scheduler, "--against", tmp_path / "day0")
    done("prune", tmp_path / "day0", "--keep", 0.3, "--rule", "semdedup", "--scheduler", scheduler, "--quiet")
    assert "against_state was" in refused(days / "day1.npy", "--against", tmp_path / "day0", "--out", run)
    shown = command("prune", run, "--scheduler", scheduler, "--quiet")
    assert shown.code == 2 and "have changed since" in shown.err


def test_a_damaged_state_is_named_and_never_read(days, line, tmp_path, scheduler):
    shutil.copytree(line[0], tmp_path / "day0")
    base = (days / "day1.npy", "--against", tmp_path / "day0", "--out", tmp_path / "day1", "--scheduler", scheduler)
    vectors = tmp_path / "day0" / "state" / "run-0000" / "vectors_0.npy"
    whole = vectors.read_bytes()
    vectors.write_bytes(whole[:-40] + bytes(40))
    assert "vectors_0.npy is damaged" in refused(*base)
    vectors.write_bytes(whole[:-40])
    assert "vectors_0.npy is missing or damaged" in refused(*base)
    (tmp_path / "day0" / "state" / "state.json").write_text("{}")
    assert "state.json is missing or damaged" in refused(*base)


def test_images_go_on_with_the_encoder_of_the_first_run(shards, weights, images_run, tmp_path, scheduler):
    more = {}
    for k in range(12):
        more |= sample(f"new-{k}", 3 * k if k < 6 else 500 + k)
    write_tar(tmp_path / "day2.tar", more)
    base = (tmp_path / "day2.tar", "--against", images_run, "--out", tmp_path / "day2", "--scheduler", scheduler)
    (tmp_path / "other").mkdir()
    assert "new rows need the same one" in refused(*base, "--model", "fairdedup-small")
    done("run", *base, "--quiet")
    known = manifest(tmp_path / "day2")
    assert known["encoder"]["batch_size"] == 4 and known["encoder"]["pretrained"] == str(weights)
    found = decisions_of(tmp_path / "day2").set_index("id")
    by = found["representative_id"].dropna()
    kept = set(run_table(images_run / "kept")["id"])
    assert set(by) <= kept and {f"new-{k}" for k in range(6) if f"{k:04d}" in kept} <= set(by.index)
    np.save(tmp_path / "x.npy", unit_of(images_run))
    unnamed = refused(tmp_path / "x.npy", "--against", images_run, "--out", tmp_path / "x")
    assert "nothing says which model made these embeddings" in unnamed
    old = refused(tmp_path / "day2.tar", "--against", images_run, "--out", tmp_path / "y", "--model", "RN50",
                  "--pretrained", "openai")  # fmt: skip
    assert "the encoder is 'RN50' 'openai'" in old


def test_stages_one_by_one_and_one_worker_give_the_same(days, line, tmp_path, scheduler):
    run = tmp_path / "day1"
    dask = ("--scheduler", scheduler, "--quiet")
    done("embed", days / "day1.npy", "--against", line[0], "--out", run, "--max-rejected", 0.5, *dask)
    done("cluster", run, "--against", line[0], *dask)
    done("prune", run, *dask)
    assert product(run) == product(line[1])
    done("run", days / "day1.npy", "--against", line[0], "--out", tmp_path / "one", "--workers", 1, "--quiet")
    assert product(tmp_path / "one") == product(line[1])


def test_a_night_that_was_killed_goes_on_to_the_same_bytes(days, line, tmp_path, scheduler):
    words = ("run", days / "day1.npy", "--against", line[0], "--out", tmp_path / "day1", "--scheduler", scheduler)
    for what in ("clusters/sizes.json", "state/earlier.json", "decisions/part-00000.parquet", "state/run-0001"):
        process = started(tmp_path, *words, "--quiet")
        while process.poll() is None and not (tmp_path / "day1" / what).exists():
            time.sleep(0.002)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    done(*words, "--quiet")
    assert product(tmp_path / "day1") == product(line[1])
    state = contents(line[1] / "state")
    again = contents(tmp_path / "day1" / "state")
    assert {n: b for n, b in again.items() if n != "state.json"} == {
        n: b for n, b in state.items() if n != "state.json"
    }


# Refitting


def test_refitting_decides_all_days_as_one_run_over_their_embeddings(days, line, tmp_path, scheduler, prototypes):
    dask = ("--scheduler", scheduler, "--quiet")
    done("refit", line[2], "--keep", 0.4, "--clusters", 5, "--out", tmp_path / "refit", *dask)
    known = manifest(tmp_path / "refit")
    assert known["counts"]["input"] == sum(manifest(run)["counts"]["valid"] for run in line) == 204
    assert known["config"]["prune"]["cover"] and known["clusters"] == 5
    (tmp_path / "all" / "img_emb").mkdir(parents=True)
    (tmp_path / "all" / "metadata").mkdir()
    for k, run in enumerate(line):
        for what, name in (("img_emb", "img_emb_{}.npy"), ("metadata", "metadata_{}.parquet")):
            shutil.copy(run / "embeddings" / what / name.format(0), tmp_path / "all" / what / name.format(k))
    done("run", tmp_path / "all", "--keep", 0.4, "--clusters", 5, "--cover", "--prototypes",
         line[0] / "state" / "prototypes.parquet", "--out", tmp_path / "plain", *dask)  # fmt: skip
    assert product(tmp_path / "refit") == product(tmp_path / "plain")
    after = night(days, 3, tmp_path / "after", scheduler, "--against", tmp_path / "refit")
    assert manifest(after)["against"] == [str(tmp_path / "refit")]


def test_refitting_takes_over_the_options_and_minds_no_file_of_daily_runs(days, line, tmp_path, scheduler, monkeypatch):
    """A line that was begun by `balanced` goes on by it; `against` and `column` in fairdedup.yaml are of daily runs."""
    first = night(days, 0, tmp_path / "first", scheduler, "--keep", 0.5, "--rule", "balanced", "--reserve", 0.3,
                  "--prototypes", line[0] / "state" / "prototypes.parquet", "--clusters", 4)  # fmt: skip
    (tmp_path / "fairdedup.yaml").write_text(f"against: [{first}]\ncolumn: embedding\n")
    monkeypatch.chdir(tmp_path)
    done("refit", first, "--keep", 0.4, "--clusters", 5, "--out", "refit", "--scheduler", scheduler, "--quiet")
    known = manifest(tmp_path / "refit")
    assert "against" not in known and known["clusters"] == 5 and known["counts"]["kept"] == 44
    assert (known["config"]["prune"]["rule"], known["config"]["prune"]["reserve"]) == ("balanced", 0.3)


def test_a_keep_of_the_file_is_not_for_runs_against_others(days, line, tmp_path, scheduler, monkeypatch):
    (tmp_path / "fairdedup.yaml").write_text("keep: 0.5\n")
    monkeypatch.chdir(tmp_path)
    assert (
        manifest(night(days, 1, tmp_path / "run", scheduler, "--against", line[0]))["config"]["prune"]["keep"] is None
    )
    assert product(tmp_path / "run") == product(line[1])


def test_the_clusters_of_a_run_against_others_are_theirs(days, line, tmp_path, scheduler):
    dask = ("--scheduler", scheduler, "--quiet")
    done("embed", days / "day1.npy", "--against", line[0], "--out", tmp_path / "run", *dask)
    shown = command("cluster", tmp_path / "run", "--against", line[0], "--clusters", 7, *dask)
    assert shown.code == 2 and "--clusters 7: the 4 clusters are those of" in shown.err
    done("cluster", tmp_path / "run", "--against", line[0], "--clusters", 4, "--threads", 2, *dask)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["asked"]["cluster"]["threads"] == 2


def test_refitting_names_a_run_that_is_not_where_it_was_made(line, tmp_path):
    for k, run in enumerate(line[:2]):
        shutil.copytree(run, tmp_path / f"a{k}")
    state = tmp_path / "a1" / "state" / "state.json"
    state.write_text(state.read_text().replace(str(line[0]), str(tmp_path / "gone")))
    known = manifest(tmp_path / "a1")
    known["files"]["state/state.json"] = seal(state)
    (tmp_path / "a1" / "run.json").write_text(json.dumps(known))
    shown = command("refit", tmp_path / "a1", "--keep", 0.5, "--out", tmp_path / "new", "--quiet")
    assert shown.code == 2 and "bring that run back" in shown.err


# Evaluation sets


@pytest.mark.parametrize("kind", ["embeddings", "run"])
def test_what_is_near_an_evaluation_sample_is_left_out_across_all_clusters(days, line, tmp_path, scheduler, kind):
    unit = unit_of(line[0])
    rng = np.random.default_rng(1)
    held_out = unit[[3, 50, 77]].astype(np.float32) + 0.05 * rng.normal(size=(3, DIMENSION))
    np.save(tmp_path / "eval.npy", held_out)
    (tmp_path / "eval.ids.txt").write_text("e0\ne\x1b1\ne2\n")
    against = tmp_path / "eval.npy"
    if kind == "run":
        against = tmp_path / "eval-run"
        done("embed", tmp_path / "eval.npy", "--out", against, "--scheduler", scheduler, "--quiet")
    shutil.copytree(line[0], tmp_path / "day0")
    done("prune", tmp_path / "day0", "--keep", 0.5, "--cover", "--rule", "semdedup", "--exclude-near", against,
         "--exclude-near-eps", 0.3, "--scheduler", scheduler, "--quiet")  # fmt: skip
    cosines = oracles.cosine_matrix(unit, oracles.unit16(oracles.unit16(held_out) if kind == "run" else held_out))
    near = oracles.duplicates(cosines, 3000).any(axis=1)
    rejected = run_table(tmp_path / "day0" / "rejected").set_index("row")
    assert rejected.index.tolist() == np.flatnonzero(near).tolist() and near.sum() > 5
    names = ["e0", "e\\x1b1", "e2"]
    for row, reason in rejected["reason"].items():
        assert reason == f"too near evaluation sample '{names[int(cosines[row].argmax())]}'".replace("\\", "\\\\")
    assert len(decisions_of(line[0]).loc[near, "cluster"].unique()) > 1
    counts = manifest(tmp_path / "day0")["counts"]
    assert counts["kept"] + counts["removed"] + counts["rejected"] == counts["input"] == 110
    assert (
        counts["excluded"] == near.sum()
        and f"{near.sum()} rows are too near" in manifest(tmp_path / "day0")["warnings"][0]
    )


def test_a_night_is_cleaned_of_an_evaluation_set_at_its_own_eps(days, line, tmp_path, scheduler):
    again = (
        "run",
        days / "day1.npy",
        "--against",
        line[0],
        "--exclude-near",
        days / "day0.npy",
        "--out",
        tmp_path / "run",
    )
    done(*again, "--scheduler", scheduler, "--quiet")
    e = round(manifest(line[0])["eps"] * 10_000)
    near = oracles.duplicates(oracles.cosine_matrix(unit_of(line[1]), unit_of(line[0])), e).any(axis=1)
    assert run_table(tmp_path / "run" / "rejected")["row"].tolist() == np.flatnonzero(near).tolist()
    assert "nothing to do" in done(*again, "--scheduler", scheduler).err


def test_evaluation_samples_that_cannot_be_used_are_told_and_cost_no_run(line, tmp_path, scheduler):
    held_out = unit_of(line[0])[:40].astype(np.float32)
    held_out[:30] = 0
    np.save(tmp_path / "eval.npy", held_out)
    shutil.copytree(line[0], tmp_path / "run")
    done("prune", tmp_path / "run", "--keep", 0.5, "--rule", "semdedup", "--exclude-near", tmp_path / "eval.npy",
         "--exclude-near-eps", 0.0002, "--scheduler", scheduler, "--quiet")  # fmt: skip
    assert "; 30 of its samples cannot be used and guard nothing" in manifest(tmp_path / "run")["warnings"][0]


def test_a_mistake_about_an_evaluation_set_is_one_line(days, line, tmp_path, scheduler):
    base = (days / "day0.npy", "--keep", 0.5, "--rule", "semdedup", "--out", tmp_path / "run", "--scheduler", scheduler)
    assert "add --exclude-near-eps" in refused(*base, "--exclude-near", days / "day1.npy")
    assert "without --exclude-near" in refused(*base, "--exclude-near-eps", 0.1)
    near = ("--exclude-near-eps", 0.1, "--max-rejected", 0.5, "--exclude-near")
    assert "no such file or folder" in refused(*base, *near, tmp_path / "nowhere")
    np.save(tmp_path / "wide.npy", np.ones((5, 7)))
    assert "has 7 dimensions and the embeddings 16" in refused(*base, *near, tmp_path / "wide.npy")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(picture(0))
    assert "this run's embeddings were ready-made" in refused(*base, *near, tmp_path / "images")


def test_images_of_an_evaluation_set_are_embedded_as_the_run_was(shards, images_run, tmp_path, scheduler):
    shutil.copytree(images_run, tmp_path / "run")
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval" / "copy.png").write_bytes(picture(3 * 5))
    words = ("--keep", 0.5, "--exclude-near", tmp_path / "eval", "--exclude-near-eps", 0.0001, "--scheduler", scheduler)
    done("prune", tmp_path / "run", *words, "--quiet")
    rejected = run_table(tmp_path / "run" / "rejected").set_index("id")
    assert rejected.loc["0005", "reason"] == "too near evaluation sample 'copy.png'"
    assert manifest(tmp_path / "run")["stages"]["embed"] == manifest(images_run)["stages"]["embed"]


# Drift


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


def test_a_night_of_another_kind_says_that_refitting_is_due(days, line, tmp_path, scheduler):
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
