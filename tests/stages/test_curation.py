"""Curation of a run: conditions, takedowns, protected rows, a preferred column. No earlier curation leaves traces."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import numpy as np
import oracles
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from runs import UNUSABLE, Decided, command, contents, done, files, manifest, prototype_vectors, table

from fairdedup.core.ordered_integers import to_ordered_integers
from fairdedup.datasets.ids import read_ids
from fairdedup.errors import UserError
from fairdedup.storage.condition import check_condition, evaluate_condition
from fairdedup.storage.condition_syntax import parse_condition

COMPARED = ("cluster", "kept", "representative", "similarity", "neighbourhood", "readmitted")


def iterate_ids(*rows: int) -> str:
    return "".join(f"k{row}\n" for row in rows)


def expected(decided: Decided, rule: str, keep: float, **options: object) -> tuple[oracles.Problem, oracles.Decision]:
    """Return the twin's problem over the rows of the decisions, and its decision at the run's eps."""
    every = np.delete(np.arange(240), list(UNUSABLE))
    places = np.searchsorted(every, decided.decisions["row"].to_numpy())
    labels = oracles.assign(decided.unit, decided.centroids)
    problem = oracles.Problem(
        decided.unit[places], labels[places], rule, prototypes=prototype_vectors(), centroids16=decided.centroids,
        **options,  # type: ignore[arg-type]
    )  # fmt: skip
    e = round(manifest(decided.run)["eps"] * 10_000)
    assert problem.brackets(e, problem.searched_seats(keep))
    return problem, problem.decide(e, keep)


def assert_as_by_the_oracle(decided: Decided, rule: str, keep: float, **options: object) -> None:
    _, wanted = expected(decided, rule, keep, **options)
    found = decided.decisions
    rows = found["row"].to_numpy()
    for name in COMPARED:
        values = rows[wanted[name]] if name in ("representative", "neighbourhood") else wanted[name]
        assert (found[name].to_numpy() == values).all(), name


WITHIN: dict[bool, tuple[object, ...]] = {True: ("--reach", 0), False: ("--published",)}  # by cover

# Which rows take part


@pytest.mark.parametrize("rule", ["semdedup", "fairdedup", "balanced"])
def test_where_and_drop_decide_as_if_the_rows_had_never_been_there(prune, tmp_path, rule):
    (tmp_path / "takedowns.txt").write_text(iterate_ids(60, 61, 100))
    decided = prune("--keep", 0.5, "--rule", rule, "--published", "--where", "width >= 50 AND caption IS NOT NULL",
                    "--drop", tmp_path / "takedowns.txt")  # fmt: skip
    rows = [r for r in range(50, 240) if r % 5 and r not in UNUSABLE and r not in (61,)]
    assert decided.decisions["row"].tolist() == rows
    assert_as_by_the_oracle(decided, rule, 0.5)


def test_excluded_rows_are_rejected_with_what_excluded_them(prune, tmp_path):
    (tmp_path / "take\x1bdowns.txt").write_text(iterate_ids(3, 4, 7, 200))
    run = prune("--keep", 0.5, "--where", "width >= 5", "--drop", tmp_path / "take\x1bdowns.txt").run
    rejected = table(run / "rejected").set_index("row")
    assert rejected.index.is_monotonic_increasing
    assert rejected["reason"].to_dict() == {
        0: "where: width >= 5", 1: "where: width >= 5", 2: "where: width >= 5", 3: "drop: take\\x1bdowns.txt",
        4: "drop: take\\x1bdowns.txt", 7: "vector has a value that is not finite", 101: "vector is zero",
        200: "drop: take\\x1bdowns.txt", 233: "vector has a value that is not finite",
    }  # fmt: skip
    assert rejected["id"].to_dict() == {row: f"k{row}" for row in rejected.index}
    assert rejected["source"][200] == "img_emb_2.npy[40]"
    counts = manifest(run)["counts"]
    assert counts["kept"] + counts["removed"] + counts["rejected"] == counts["input"] == 240
    assert (counts["excluded"], counts["rejected"], counts["valid"], counts["kept"]) == (6, 9, 231, 116)
    assert not set(rejected["id"]) & set(table(run / "kept")["id"])


def test_an_excluded_majority_does_not_count_towards_max_rejected(embeddings, tmp_path, scheduler):
    done("run", embeddings, "--keep", 0.5, "--rule", "semdedup", "--clusters", 3, "--where", "width < 60",
         "--out", tmp_path / "run", "--scheduler", scheduler, "--quiet")  # fmt: skip
    assert manifest(tmp_path / "run")["counts"]["excluded"] == 178


def test_clusters_that_lose_all_their_rows_count_no_more(prune, again):
    decisions = Decided(again).decisions
    small = decisions["cluster"].value_counts().index[-1]
    rows = decisions.loc[decisions["cluster"] == small, "row"]
    decided = prune("--eps", 2, "--rule", "semdedup", "--where", f"width NOT IN ({', '.join(map(str, rows))})")
    assert manifest(decided.run)["clusters"] == 4
    assert decided.decisions["cluster"].nunique() == 4


def test_a_condition_reads_columns_that_only_some_shards_have(prune):
    decided = prune("--keep", 1, "--rule", "semdedup", "--where", '"only here" >= 110')
    assert decided.decisions["row"].tolist() == [r for r in range(220, 240) if r not in UNUSABLE]


def test_without_a_wish_nothing_is_different(prune, again):
    before = contents(again / "kept"), contents(again / "decisions")
    prune("--keep", 0.4, "--where", "width > 3")
    run = prune("--keep", 0.5).run
    assert (contents(run / "kept"), contents(run / "decisions")) == before
    assert manifest(run)["counts"]["excluded"] == 0


def test_the_summary_tells_of_excluded_rows_and_of_ids_that_are_nowhere(again, tmp_path, scheduler):
    (tmp_path / "ids.csv").write_text('id,why\nk3,"a, b"\nno\x1body,\nnone,\n')
    shown = done("prune", again, "--keep", 0.5, "--rule", "semdedup", "--drop", tmp_path / "ids.csv", "--scheduler",
                 scheduler)  # fmt: skip
    assert "1 of them by --where and --drop" in " ".join(shown.out.split())
    assert "2 of 3 ids are not in the run; the first are 'no\\x1body', 'none'" in " ".join(shown.out.split())
    assert "\x1b" not in shown.out


def test_sweep_heeds_every_wish_and_leaves_nothing(again, tmp_path, scheduler, prototypes):
    (tmp_path / "drop.txt").write_text(iterate_ids(*range(40)))
    (tmp_path / "keep.txt").write_text(iterate_ids(*range(50, 80)))
    wishes = ("--drop", tmp_path / "drop.txt", "--always-keep", tmp_path / "keep.txt", "--where", "width % 3 > 0",
              "--cover", "--prefer", "width", "--scheduler", scheduler)  # fmt: skip
    before = files(again)
    line = done("sweep", again, "--keep", 0.5, *wishes, "--no-examples").out.splitlines()[-1].split()
    assert files(again) == before
    done("prune", again, "--keep", 0.5, *wishes, "--prototypes", prototypes, "--quiet")
    known = manifest(again)
    assert line == ["0.5", str(known["counts"]["kept"]), f"{known['eps']:.4f}", str(known["counts"]["readmitted"])]


def test_marks_that_a_killed_command_left_are_removed_once_they_are_old(again, scheduler):
    for name, age in (("old", 90_000), ("young", 80_000)):
        (again / "curated" / name).mkdir(parents=True)
        (again / "curated" / name / "marks_0.npy").write_bytes(b"")
        os.utime(again / "curated" / name, (time.time() - age,) * 2)
    done("prune", again, "--keep", 0.5, "--rule", "semdedup", "--where", "width > 3", "--scheduler",
         scheduler, "--quiet")  # fmt: skip
    assert [p.name for p in (again / "curated").iterdir()] == ["young"]


# Rows that are always kept


@pytest.mark.parametrize(
    ("rule", "cover"), [("semdedup", False), ("fairdedup", False), ("fairdedup", True), ("balanced", False)]
)
def test_protected_rows_are_kept_as_by_the_oracle(prune, tmp_path, rule, cover):
    protected = [1, 2, 3, 50, 120, 121, 122, 123, 239]
    pd.DataFrame({"uid": [f"k{r}" for r in protected]}).to_parquet(tmp_path / "ids.parquet")
    decided = prune("--keep", 0.5, "--rule", rule, *WITHIN[cover], "--always-keep",
                    tmp_path / "ids.parquet", "--where", "width <> 3")  # fmt: skip
    mask = decided.decisions["row"].isin(protected).to_numpy()
    assert mask.sum() == 8 and decided.decisions["kept"][mask].all()
    assert_as_by_the_oracle(decided, rule, 0.5, cover=cover, protected=mask)
    assert manifest(decided.run)["warnings"][0].endswith(
        "1 id is of a rejected row and cannot be kept; the first is 'k3'"
    )


def test_random_keeps_protected_rows_too(prune, tmp_path):
    (tmp_path / "ids.txt").write_text(iterate_ids(*range(40, 50)))
    decisions = prune("--keep", 0.1, "--rule", "random", "--always-keep", tmp_path / "ids.txt").decisions
    assert decisions["kept"].sum() == 24 and decisions["kept"][decisions["row"].between(40, 49)].all()


# A column to prefer


@pytest.mark.parametrize("cover", [False, True])
def test_prefer_keeps_the_highest_as_by_the_oracle(prune, cover):
    decided = prune("--keep", 0.4, "--prefer", "only here", *WITHIN[cover])
    values = np.where(decided.decisions["row"] < 160, np.nan, decided.decisions["row"] / 2)
    assert_as_by_the_oracle(decided, "prefer", 0.4, cover=cover, values=values)
    assert manifest(decided.run)["config"]["prune"]["rule"] == "prefer"


def test_numbers_are_ordered_exactly():
    most = 2**63 - 1
    cases: list[tuple[NDArray[np.generic], list[int]]] = [
        (np.array([1.5, np.nan, -np.inf, np.inf, -0.0, 0.0, -5e-324, 5e-324, -1.5]), [1, 2, 8, 6, 4, 5, 7, 0, 3]),
        (np.array([3, -most, most, most - 1, 0]), [1, 4, 0, 3, 2]),
        (np.array([3, 2**63 - 2, 2**63 - 1, 0], np.uint64), [3, 0, 1, 2]),
        (np.array([3, -128, 127], np.int8), [1, 0, 2]),
        (np.array([0.5, np.nan, -2], np.float16), [1, 2, 0]),
    ]
    for values, order in cases:
        assert np.argsort(to_ordered_integers(values), kind="stable").tolist() == order
    zeros = to_ordered_integers(np.array([0.0, -0.0]))
    assert zeros[0] == zeros[1]
    assert to_ordered_integers(np.array([-most, 5]), np.array([False, True])).argmin() == 1


# Conditions come from outside

ROWS = pa.table({
    "width": pa.array([1, 300, None], pa.int64()), "language": ["en", "de", "en"], 'od"d': [1, 2, 3],
    "nested": [{"a": 1}, {"a": 2}, None], "text": ["1", "x", None], "tags": [["a"], ["b"], None],
    "today": [1, 2, 3],
})  # fmt: skip

HOURS = """
import datetime, pyarrow as pa
from fairdedup.storage.condition import check_condition, evaluate_condition
midnight = datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc)
hours = pa.array([midnight + datetime.timedelta(hours=h) for h in range(24)], pa.timestamp("us", "UTC"))
table = pa.table({"ts": hours})
texts = ("ts >= '2020-01-01 12:00:00'", "ts::date = date '2020-01-01'", "year(ts) = 2020")
print(*(evaluate_condition(check_condition(text, table.schema), table).sum() for text in texts))
"""


@pytest.mark.parametrize(
    ("text", "wanted", "columns"),
    [
        ("width >= 256 OR language = 'en'", [1, 1, 1], ["width", "language"]),
        ("width >= 256", [0, 1, 0], ["width"]),
        ("NOT (width >= 256)", [1, 0, 0], ["width"]),
        ("WIDTH IN (1, 7) -- a remark", [1, 0, 0], ["width"]),
        ('"od""d" > 1 AND nested.a = 2', [0, 1, 0], ['od"d', "nested"]),
        ("list_contains(tags, 'a') AND width < 2", [1, 0, 0], ["width", "tags"]),
        ("TRY_CAST(text AS INT) = 1", [1, 0, 0], ["text"]),
        ("language LIKE '%e' AND today = 2", [0, 1, 0], ["language", "today"]),
        ("true", [1, 1, 1], []),
    ],
)
def test_a_condition_holds_where_it_is_true_and_null_is_not(text, wanted, columns):
    known = check_condition(text, ROWS.schema)
    assert list(known.columns) == columns
    assert evaluate_condition(known, ROWS.select(columns or ["width"])).tolist() == [bool(w) for w in wanted]


@pytest.mark.parametrize(
    "text",
    [
        "EXISTS (SELECT * FROM read_csv('/etc/passwd'))", "width > (SELECT 1)", "read_text('/etc/passwd') IS NULL",
        "width > 1; SELECT 2", "width > 1;", "COPY metadata TO 'out.csv'", "ATTACH 'file.db'", "PRAGMA version",
        "INSTALL httpfs", "LOAD httpfs", "SET threads = 4", "true) FROM read_csv('/etc/passwd'), (SELECT true",
        "true) UNION ALL SELECT (true", "true) LIMIT (1", "true) WHERE (true", "true) GROUP BY (1",
        "width > avg(width)", "row_number() OVER () > 1", "random() > 0.5", "now() > DATE '2020-01-01'",
        "current_date > DATE '2020-01-01'", "getenv('HOME') = 'x'", "? = 1", "$1 = 1", "", "  ", "width", "NULL",
        "width >", "(width > 1", "width > 1 /* no end", "text::INT > 1", "nosuch > 1", "nested > 1", "\x00",
        "query('SELECT 1') IS NULL", "width > 1, true", "COLUMNS(*) IS NULL", "#1 = 1",
    ],
)  # fmt: skip
def test_an_invalid_condition_on_a_row_is_refused_in_one_line(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as refused:
        known = check_condition(text, ROWS.schema)
        evaluate_condition(known, ROWS.select(list(known.columns) or ["width"]))
    assert "--where" in str(refused.value) and "\n" not in str(refused.value).replace(text, "")
    assert not list(tmp_path.iterdir())


CASES = pa.table({
    "WIDTH": [4000] * 6, "width": [100, 100, 300, 300, 300, 300], "Height": [1] * 6, "HEIGHT": [2] * 6,
    "Language": ["en", "de"] * 3, "st": [{"WIDTH": 1}] * 6,
})  # fmt: skip


@pytest.mark.parametrize(
    ("text", "columns", "number"),
    [
        ("width >= 256", ["width"], 4), ('"width" >= 256', ["width"], 4), ("WIDTH >= 256", ["WIDTH"], 6),
        ("HEIGHT = 2 AND width > 100", ["width", "HEIGHT"], 4), ("LANGUAGE = 'en'", ["Language"], 3),
        ("st.WIDTH = 1 AND width > 100", ["width", "st"], 4),
    ],
)  # fmt: skip
def test_a_name_is_of_the_column_that_is_written_so_and_else_of_the_only_one_alike(text, columns, number):
    known = check_condition(text, CASES.schema)
    assert list(known.columns) == columns
    assert evaluate_condition(known, CASES.select(columns)).sum() == number


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("height > 1", "names 'height': write 'Height' or 'HEIGHT', in the column's case"),
        ("WIDTH > 1 OR width > 1", "names 'WIDTH' and 'width', one name in SQL: rename a column"),
        ("metadata::VARCHAR LIKE '%300%'", "names column 'metadata': the metadata has WIDTH, width"),
        ("metadata.width > 1 AND width > 1", "names column 'metadata': the metadata has WIDTH, width"),
        ("\"--where\"::VARCHAR LIKE '%300%' AND width > 1", "names column '--where'"),
        ("width_1 > 1 AND width > 1", "names column 'width_1'"),
    ],
)
def test_names_that_could_be_of_several_columns_or_of_none_are_refused(text, said):
    with pytest.raises(UserError) as refused:
        check_condition(text, CASES.schema)
    assert said in str(refused.value) and "\n" not in str(refused.value)


CHANGING = (
    "localtime >= '12:00'", "localtimestamp > ts", "age(ts) > INTERVAL 1 DAY", "age(ts::TIMESTAMP) > INTERVAL 1 DAY",
    "current_localtime() >= '12:00'", "current_timestamp > ts", "pg_conf_load_time() > ts",
    "pg_postmaster_start_time() > ts", "today() > ts", "get_current_timestamp() > ts", "current_schema = 'main'",
    "current_catalog = 'memory'", "current_setting('memory_limit') = ''", "version() = ''", "txid_current() = 1",
    "uuid() = ''", "nextval('s') = 1", "CASE WHEN width > 1 THEN random() > 0.5 END",
    "[random() for x in tags] = []", "current_query() = ''",
)  # fmt: skip


@pytest.mark.parametrize("text", CHANGING)
def test_what_reads_the_clock_or_the_session_is_refused_whatever_its_name(text):
    with pytest.raises(UserError, match=r"value changes between calls|depends on the clock"):
        check_condition(text, ROWS.schema.append(pa.field("ts", pa.timestamp("us", "UTC"))))


def test_what_only_looks_like_the_clock_is_evaluated():
    times = pa.table({"ts": pa.array([0, 10**15], pa.timestamp("us", "UTC")), "localtime": [1, 2]})
    for text in ("age(ts, TIMESTAMPTZ '1970-01-01') > INTERVAL 1 DAY", "localtime = 2", "epoch(ts) > 2 * pi()"):
        assert evaluate_condition(check_condition(text, times.schema), times).tolist() == [False, True], text


def test_a_condition_answers_alike_in_every_time_zone_and_locale():
    """DuckDB takes the zone, and before 2.0 the calendar, from the environment, which Python cannot change late."""
    said = []
    for zone, locale in (("UTC", "C"), ("Asia/Tokyo", "th_TH.UTF-8")):
        asked = subprocess.run([sys.executable, "-c", HOURS], env=os.environ | {"TZ": zone, "LC_ALL": locale},
                               capture_output=True, text=True, check=True)  # fmt: skip
        said.append(asked.stdout)
    assert said == ["12 24 24\n"] * 2


def test_an_invalid_condition_is_refused_before_the_columns_are_known():
    with pytest.raises(UserError, match="uses more than its own row"):
        parse_condition("EXISTS (SELECT * FROM nowhere)")
    parse_condition("unknown > 1")


# Files of ids


def test_ids_are_read_from_lines_and_from_columns(tmp_path):
    names = ["0001", " a b ", 'ü,"x"', "0001", "\x1b"]
    (tmp_path / "a.txt").write_text("\ufeff" + "\r\n".join(names) + "\n\n", encoding="utf-8", newline="")
    pd.DataFrame({"n": range(5), "key": names, "uid": names}).to_csv(tmp_path / "a.csv", index=False)
    pq.write_table(pa.table({"id": pa.array([*names, None]).dictionary_encode()}), tmp_path / "a.PARQUET")
    for name in ("a.txt", "a.csv", "a.PARQUET"):
        assert read_ids(tmp_path / name, "--drop").to_pylist() == [*names[:3], "\x1b"], name
    pq.write_table(pa.table({"key": [7, 8]}), tmp_path / "b.parquet")
    assert read_ids(tmp_path / "b.parquet", "--drop").to_pylist() == ["7", "8"]
    (tmp_path / "none.txt").write_text("")
    assert read_ids(tmp_path / "none.txt", "--drop").to_pylist() == []


def test_a_mistake_in_a_wish_costs_nothing_that_was_done(again, scheduler, tmp_path):
    (tmp_path / "ids.txt").write_text(iterate_ids(1) + "nobody\n")
    (tmp_path / "most.txt").write_text(iterate_ids(*range(200)))
    before = files(again)
    for wish, said in (
        (("--where", "nosuch > 1"), "names column 'nosuch': the metadata has id, key, caption, width"),
        (("--where", "width > 1000"), "leave none of 237 rows"),
        (("--where", "caption::INT > 1"), "use TRY_CAST"),
        (
            ("--prefer", "tags"),
            "--prefer 'tags' must be a column of numbers, and is list<element: string>: "
            "the columns of numbers are width",
        ),
        (("--prefer", "nosuch"), "has no such column; give one of its columns of numbers: width"),
        (("--always-keep", tmp_path / "ids.txt"), "1 of 2 ids is not in the run; the first is 'nobody'"),
        (("--always-keep", tmp_path / "most.txt"), "fewer than the 198 rows always kept: give at least --keep 0.83"),
    ):
        rule = () if "--prefer" in wish else ("--rule", "semdedup")
        shown = command("prune", again, "--keep", 0.5, *rule, *wish, "--scheduler", scheduler, "--quiet")
        assert shown.code == 2 and shown.err.count("\n") == 1 and said in shown.err, shown.err
        assert files(again) == before, wish


def test_a_condition_leaves_no_words_of_a_library_behind(again, scheduler):
    """In a process of its own: what it loads is destroyed at its end."""
    asked = ("prune", again, "--keep", 0.5, "--rule", "semdedup", "--where", "width > 0", "--scheduler", scheduler)
    ended = subprocess.run(
        [sys.executable, "-m", "fairdedup", *map(str, asked), "--quiet"], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
