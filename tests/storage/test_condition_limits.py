"""A condition of --where has limits of time and memory, and no form of it reads the clock."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from runs import command

from fairdedup.errors import UserError
from fairdedup.storage import condition, condition_process, condition_syntax
from fairdedup.storage.condition import check_condition, evaluate_condition
from fairdedup.storage.condition_syntax import parse_condition

TABLE = pa.table({"x": list(range(1000)), "t": pa.array([0] * 1000, pa.timestamp("us")), "word": ["a"] * 1000})
DEFAULT = condition_process.TIME_LIMIT


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make the limit of time two seconds."""
    monkeypatch.setattr(condition_process, "TIME_LIMIT", 2.0)
    yield
    condition_process._CHILD.close()


def evaluate(text: str, table: pa.Table = TABLE) -> int:
    return int(evaluate_condition(check_condition(text, table.schema), table).sum())


SLOW = {
    "within one call": "levenshtein(repeat('ab', 100000), repeat('ba', 100000)) > x",
    "when it is checked": "list_reduce(range(9000000), lambda a, b: (a + b) % 7) > 3",
    "for each row": "list_sum(list_transform(range(20000), lambda y: list_sum(range(y % 1000 + x)))) > 0",
}
LARGE = {
    "long texts": "length(repeat('a', 2000000000)) > x",
    "lists": "list_sum(range(x * 1000000)) > 0",
    "a text in a list": "len(list_transform(range(100000), lambda y: repeat(word, 100000))) > x",
}


@pytest.mark.parametrize("case", SLOW)
def test_a_slow_condition_is_ended_and_the_next_one_is_evaluated(case, short):
    began = time.monotonic()
    with pytest.raises(UserError, match=r"takes longer than 2 seconds: write a simpler condition") as caught:
        evaluate(SLOW[case])
    assert time.monotonic() - began < 15 and "\n" not in str(caught.value)
    assert evaluate("x >= 990") == 10


@pytest.mark.parametrize("case", LARGE)
def test_a_condition_that_takes_all_memory_is_ended_and_this_process_stays_small(case):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=r"needs more than 2 GiB of memory: write a simpler condition") as caught:
        evaluate(LARGE[case])
    assert "\n" not in str(caught.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB
    assert evaluate("x >= 990") == 10


def test_rows_are_evaluated_in_parts_with_the_same_result(monkeypatch):
    monkeypatch.setattr(condition, "ROWS_AT_ONCE", 70)
    known = check_condition("x % 3 = 0 OR word = 'b'", TABLE.schema)
    found = evaluate_condition(known, TABLE.select(known.columns))
    np.testing.assert_array_equal(found, np.arange(1000) % 3 == 0)
    assert evaluate_condition(check_condition("1 = 1", TABLE.schema), TABLE).all()
    assert evaluate_condition(known, TABLE.select(known.columns).slice(0, 0)).shape == (0,)


def test_a_part_of_a_large_table_is_sent_without_the_rest_and_nothing_spills(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    sizes: list[int] = []
    send = condition_process._send
    monkeypatch.setattr(
        condition_process, "_send", lambda pipe, message, data: (sizes.append(len(data)), send(pipe, message, data))
    )
    table = pa.table({"word": ["x" * 1000] * 20_000})
    monkeypatch.setattr(condition, "BYTES_AT_ONCE", 1 << 20)
    assert evaluate("length(word) = 1000", table) == 20_000
    assert len(sizes) > 15 and max(sizes) < 2 << 20
    assert os.listdir(tmp_path) == []


def test_the_child_ends_with_the_process_that_started_it_even_within_a_call():
    code = (
        "import os, threading\n"
        "import pyarrow as pa\n"
        "from fairdedup.storage.condition import check_condition\n"
        "from fairdedup.storage import condition_process as p\n"
        "p.TIME_LIMIT = 3.0\n"
        "schema = pa.schema([('x', pa.int64())])\n"
        "check_condition('x > 1', schema)\n"
        "print(p._CHILD._process.pid, flush=True)\n"
        "threading.Timer(0.2, os._exit, (0,)).start()\n"
        "check_condition(\"levenshtein(repeat('ab', 900000), repeat('ba', 900000)) > 1\", schema)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    child = int(ended.stdout)
    for _ in range(80):
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    os.kill(child, signal.SIGKILL)
    raise AssertionError("the child is still there")


def test_a_process_that_has_forked_gets_a_child_of_its_own():
    assert evaluate("x < 5") == 5
    first = condition_process._CHILD._process
    fork = os.fork()
    if not fork:
        code = 1
        try:
            code = 0 if evaluate("x < 7") == 7 and condition_process._CHILD._process is not first else 2
            condition_process._CHILD.close()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(fork, 0)[1]) == 0
    assert evaluate("x < 9") == 9 and condition_process._CHILD._process is first


def test_texts_that_no_parser_should_see_are_refused_at_once():
    began = time.monotonic()
    with pytest.raises(UserError, match="--where has 30,000 letters, and at most 20,000 are read"):
        parse_condition("x" * 30_000)
    for text in ("not " * 4_900 + "x > 1", "x > " + "(-" * 5_000 + "1" + ")" * 5_000, "[" * 9_000 + "]" * 9_000):
        with pytest.raises(UserError) as caught:
            check_condition(text, TABLE.schema)
        assert "\n" not in str(caught.value)
    assert time.monotonic() - began < 20


CLOCK = (
    "age(timestamp '2020-01-01') > interval 1 day",
    "age(t) > interval 1 day",
    "age('2020-01-01'::timestamp) > interval 1 day",
    "(timestamp '2020-01-01').age() > interval 1 day",
    "system.main.age(timestamp '2020-01-01') > interval 1 day",
    "age(timestamptz '2020-01-01') > interval 1 day",
    "age(date '2020-01-01' + 1) > interval 1 day",
    "age(t, current_date) > interval 1 day",
    "current_date > t",
    "CURRENT_DATE > t",
    '"current_date" > t',
    "(current_date)::timestamp > t",
    "main.current_date() > t",
    "today() > t",
    "now() > t",
    "pg_catalog.now() > t",
    "current_timestamp > t",
    "localtimestamp > t",
    "localtime > time '10:00'",
    "current_time is not null",
    "get_current_timestamp() > t",
    "transaction_timestamp() > t",
    "current_localtimestamp() > t",
    "ago(interval 1 day) > t",
    "main.ago(interval 1 day) > t",
    "pg_postmaster_start_time() > t",
    "pg_conf_load_time() > t",
    "extract(year from current_date) > 2000",
    "t in (current_date)",
    "case when x > 1 then current_date > t else true end",
    "try(current_date) > t",
    "coalesce(null, today()) > t",
    "[now()][1] > t",
    "{'a': now()}.a > t",
    "list_filter([t], lambda y: y > now())[1] is not null",
    "len(list_filter([1], lambda y: age(timestamp '2020-01-01') > interval 1 day)) > 0",
    "len(list_filter([1], lambda y: len(list_filter([2], lambda z: current_date > t)) > 0)) > 0",
    "len(list_transform([1], lambda y: list_transform([2], lambda z: ago(interval 1 day)))) > 0",
    "list_reduce([t, t], lambda a, b: now()) > t",
    "epoch(now()) > x",
    "strftime(current_date, '%Y') > '2'",
    "time_bucket(interval 1 day, now()) > t",
    "uuidv7() is null",
    "random() > 0.5",
    "current_query() = ''",
    "pg_sleep(1) is null",
)


@pytest.mark.parametrize("text", CLOCK)
def test_no_form_of_a_condition_reads_the_clock(text):
    with pytest.raises(UserError, match="changes between calls: remove it|depends on the clock: give it two times"):
        check_condition(text, TABLE.schema)


def test_words_for_times_that_move_are_no_times():
    for text in ("'today'::date > t", "date 'tomorrow' > t", "timestamp 'now' > t", "'yesterday'::timestamptz > t"):
        with pytest.raises(UserError, match="cannot be evaluated .*TRY_CAST"):
            evaluate(text)
    assert evaluate("try_cast('today' as date) is null") == 1000


def test_the_remedy_of_age_works_and_what_only_looks_like_a_clock_is_allowed():
    with pytest.raises(UserError, match="give it two times"):
        check_condition("age(t) > interval 1 day", TABLE.schema)
    assert evaluate("age(timestamp '2020-01-01', t) > interval 1 day") == 1000
    assert evaluate("word <> 'now()' AND word <> 'current_date'") == 1000
    named = pa.table({"current_date": [1, 2], "now": [3, 4]})  # columns
    assert evaluate("current_date > 1 AND now > 3", named) == 1


VALUES = {
    "VARCHAR": "'a'", "TIMESTAMP": "timestamp '2020-01-01'", "DATE": "date '2020-01-01'", "BIGINT": "1",
    "TIMESTAMP WITH TIME ZONE": "timestamptz '2020-01-01'", "INTEGER": "1", "DOUBLE": "1.0", "ANY": "1",
    "INTERVAL": "interval 1 day", "TIME": "time '10:00'", "BOOLEAN": "true", "BLOB": "'a'::blob",
}  # fmt: skip


def test_what_duckdb_calls_by_any_name_with_up_to_two_values_and_is_allowed_does_not_change_in_a_second():
    """Functions that are added to DuckDB, or listed as constant by mistake, are found here."""
    refused = condition_syntax._list_nondeterministic() | {"sleep_ms", "error"}
    with duckdb.connect() as connection:
        query = "SELECT DISTINCT function_name, parameter_types FROM duckdb_functions() WHERE function_type = 'scalar'"
        listed = connection.execute(query).fetchall()
        calls = set()
        for name, types in listed:
            values = [VALUES.get((kind or "ANY").split("(")[0]) for kind in types]
            is_age = name == "age" and len(values) == 1  # refused by its number of values
            if name not in refused and name.isidentifier() and len(values) <= 2 and None not in values and not is_age:
                calls.add(f"{name}({', '.join(map(str, values))})")
        assert len(calls) > 500

        def value_of(call: str) -> str:
            try:
                return repr(connection.execute(f"SELECT CAST({call} AS VARCHAR)").fetchall())
            except duckdb.Error as error:
                return type(error).__name__

        first = {call: value_of(call) for call in calls}
        time.sleep(1.1)
        assert {call for call in calls if value_of(call) != first[call]} == set()
        assert value_of("now()") != value_of("now()")  # it would be seen


def test_the_command_line_says_it_in_one_line(tmp_path, short):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(60, 8)).astype("f4"))
    words = ("run", tmp_path / "x.npy", "--keep", 0.5, "--rule", "semdedup", "--out", tmp_path / "run")
    shown = command(*words, "--where", "ago(interval 1 day) > timestamp '2020-01-01'")
    assert shown.code == 2 and shown.err.count("\n") == 1 and "calls ago" in shown.err
    assert DEFAULT == 60
