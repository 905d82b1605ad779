"""Progress shows bars on a terminal, else plain lines, nothing with --quiet, and never hostile bytes."""

from __future__ import annotations

import io
import os
import pty
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.console import Console

from fairdedup import progress
from fairdedup.cli.run_summary import describe_seconds, print_summary, print_sweep
from fairdedup.commands.sweep import SweptFraction
from fairdedup.errors import visible
from fairdedup.progress import StageProgress
from fairdedup.storage.manifest import RunManifest


class Clock:
    """A clock that the test advances."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress.time, "monotonic", clock)
    return clock


@contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], str]]:
    """Make stderr a terminal of 80 columns; the returned function closes it and returns what was written to it."""
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    master, slave = pty.openpty()
    chunks: list[bytes] = []

    def drain() -> None:
        while True:
            try:
                chunk = os.read(master, 1 << 16)
            except OSError:
                return
            if not chunk:
                return
            chunks.append(chunk)

    reader = threading.Thread(target=drain)
    reader.start()
    stream = os.fdopen(slave, "w", encoding="utf-8")
    monkeypatch.setattr(sys, "stderr", stream)

    def seen() -> str:
        if not stream.closed:
            stream.close()
            reader.join(10)
        return b"".join(chunks).decode()

    try:
        yield seen
    finally:
        seen()
        os.close(master)


def plain(text: str) -> str:
    """Remove the control sequences of the terminal."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


# Plain lines


def test_a_line_at_most_every_five_seconds_and_one_at_the_end(clock, capsys):
    with StageProgress() as shown, shown.stage("embed", 1000, "rows") as stage:
        for _ in range(100):
            clock.now += 0.25
            stage.advance(10)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "embed: 10/1,000 rows, 40 rows/s, ETA 25 s",  # the first at once: it works
        "embed: 210/1,000 rows, 40 rows/s, ETA 20 s",
        "embed: 410/1,000 rows, 40 rows/s, ETA 15 s",
        "embed: 610/1,000 rows, 40 rows/s, ETA 10 s",
        "embed: 810/1,000 rows, 40 rows/s, ETA 5 s",
        "embed: 1,000/1,000 rows, 40 rows/s, 25.0 s",
    ]


def test_a_slow_rate_is_not_nothing(clock, capsys):
    with StageProgress() as shown, shown.stage("embed", 4, "shards") as stage:
        for _ in range(4):
            clock.now += 80
            stage.advance(1)
    assert capsys.readouterr().err.splitlines()[0] == "embed: 1/4 shards, 0.013 shards/s, ETA 240 s"


def test_rows_of_an_unfinished_shard_are_shown(clock, capsys):
    with StageProgress() as shown, shown.stage("embed", 2, "shards") as stage:
        clock.now += 8
        stage.report(64)
        clock.now += 8
        stage.report(64)
        stage.advance(1)
        clock.now += 8
        stage.advance(1)
    assert capsys.readouterr().err.splitlines() == [
        "embed: 0/2 shards, 64 rows, 8 rows/s, 8.0 s",
        "embed: 0/2 shards, 128 rows, 8 rows/s, 16.0 s",
        "embed: 2/2 shards, 128 rows, 5.3 rows/s, 24.0 s",
    ]
    assert shown.rows == {}, "how many rows a shard has is not known"


def test_a_pass_under_a_second_has_no_line_of_its_own(clock, capsys):
    with StageProgress() as shown:
        clock.now += 10
        with shown.stage("long", 10) as stage:
            clock.now += 2
            stage.advance(10)
        for _ in range(5):
            with shown.stage("search", 10) as stage:
                clock.now += 0.1
                stage.advance(10)
    assert capsys.readouterr().err == "long: 10/10 rows, 5 rows/s, 2.0 s\n"


def test_what_is_not_a_terminal_gets_no_orders(capsys, monkeypatch):
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    with StageProgress() as shown, shown.stage("embed", 10) as stage:
        stage.advance(10)
        shown.say("a line with [red]brackets[/] and 123")
    printed = capsys.readouterr()
    assert "\x1b" not in printed.err and printed.out == ""
    assert printed.err.endswith("a line with [red]brackets[/] and 123\n")


def test_quiet_prints_nothing(capsys, monkeypatch):
    with StageProgress(quiet=True) as shown, shown.stage("embed", 10) as stage:
        stage.advance(5)
        shown.say("a line")
    assert capsys.readouterr() == ("", "")
    with terminal(monkeypatch) as seen:
        with StageProgress(quiet=True) as shown, shown.stage("embed", 10) as stage:
            stage.advance(5)
            shown.say("a line")
        assert seen() == ""


# What is recorded for run.json


def test_seconds_add_up_over_the_passes_of_a_stage_and_rows_do_not(clock):
    shown = StageProgress(quiet=True)
    clock.now += 1.25
    for rows in (100, 250, 250):
        with shown.stage("search", rows) as stage:
            clock.now += 2
            stage.advance(rows)
    clock.now += 0.25
    with shown.stage("prototypes", 1, "task"):
        clock.now += 0.5
    clock.now += 0.125
    shown.count_other()
    assert shown.seconds == {"start": 1.25, "search": 6.0, "other": 0.375, "prototypes": 0.5}
    assert sum(shown.seconds.values()) == clock.now - 100, "all that the user waited for"
    assert shown.rows == {"search": 250}


def test_the_time_of_a_stage_inside_another_counts_once(clock):
    shown = StageProgress(quiet=True, started=98.5)
    with shown.stage("report", 1, "page"):
        clock.now += 1
        with shown.stage("count groups", 10):
            clock.now += 4
            shown.count_other()
        clock.now += 2
    shown.count_other()
    assert shown.seconds == {"start": 1.5, "count groups": 4.0, "report": 3.0, "other": 0.0}


def test_the_total_names_the_longest_stages_and_sums_the_rest():
    seconds = {"start": 1.0, "embed": 12.0, "other": 0.25, "search": 0.5, "decide": 2.0, "report": 0.75, "state": 0.25}
    assert describe_seconds(seconds) == (
        "took 17 s: embed 12 s, decide 2.0 s, start up 1.0 s, make the page 0.8 s, search 0.5 s, the rest 0.5 s"
    )
    assert describe_seconds({"start": 0.01}) == "took 0.0 s"


def test_a_stage_ends_full_and_never_over_and_a_failed_one_where_it_was():
    shown = StageProgress(quiet=True)
    with shown.stage("embed", 10) as stage:
        stage.advance(4)
        assert stage.done == 4
    assert stage.done == 10
    with shown.stage("embed", 10) as stage:
        stage.advance(25)
    assert stage.done == 10
    with pytest.raises(ZeroDivisionError), shown.stage("embed", 10) as stage:
        stage.advance(3)
        raise ZeroDivisionError
    assert stage.done == 3 and shown.rows == {"embed": 10}


# Bars


def test_on_a_terminal_the_time_before_the_first_stage_is_a_bar_and_then_a_part_of_the_line(monkeypatch):
    with terminal(monkeypatch) as seen:
        with StageProgress(started=time.monotonic() - 2.0) as shown:
            shown._bars.refresh()
            with shown.stage("embed", 10) as stage:
                stage.advance(10)
                shown._bars.refresh()
        text = plain(seen())
    frames = re.split(r"[\r\n]+", text)
    assert any(re.match(r"\S start up +\S", frame) for frame in frames), frames
    assert any(re.match(r"done: start up [2-9]\.\d s", frame) for frame in frames), frames
    assert not re.search(r"[^:] start up ", text[text.rindex("done:") :]), "the bar is gone"


def test_a_terminal_shows_a_bar_with_counts_rate_and_eta_on_one_line(monkeypatch):
    with terminal(monkeypatch) as seen:
        with StageProgress() as shown, shown.stage("train k-means", 1_234_567) as stage:
            assert shown.live
            for _ in range(4):
                stage.advance(200_000)
                shown._bars.refresh()
                threading.Event().wait(0.06)
            shown.say("a line beside it")
        text = seen()
    assert "\x1b[" in text, "nothing moves"
    frames = re.split(r"[\r\n]+", plain(text))
    moving = [frame for frame in frames if re.search(
        r"train k-means +[━╸╺ ]+ [68]00,000/1,234,567 rows [\d,]+/s ETA \d:\d\d:\d\d", frame)]  # fmt: skip
    assert moving, frames
    assert max(map(len, frames)) <= 80
    assert any(frame.strip() == "a line beside it" for frame in frames)
    assert any(frame.startswith("done: train k-means 0.") for frame in frames), frames


def test_stages_that_have_ended_are_one_line_and_a_failed_one_stays_a_bar(monkeypatch):
    with terminal(monkeypatch) as seen:
        with pytest.raises(ZeroDivisionError), StageProgress() as shown:
            for name in ("device", "embed", "embed", "state"):
                with shown.stage(name, 10):
                    pass
            with shown.stage("decide", 10) as stage:
                stage.advance(3)
                raise ZeroDivisionError
        text = seen()
    last = [frame for frame in re.split(r"[\r\n]+", plain(text)) if frame.strip()][-2:]
    assert re.fullmatch(r"done: look for a GPU 0\.0 s, embed 0\.0 s, save for later runs 0\.0 s *", last[0]), last
    assert re.search(r"decide .* 3/10 rows", last[1]), last


def test_another_pass_of_a_stage_begins_at_nothing(monkeypatch):
    with terminal(monkeypatch), StageProgress() as shown:
        for _ in range(2):
            with shown.stage("search", 10) as stage:
                stage.advance(10)
        assert len(shown._bars.tasks) == 1 and shown._bars.tasks[0].finished
        with shown.stage("search", 10) as stage:
            assert not shown._bars.tasks[0].finished and shown._bars.tasks[0].completed == 0
            stage.advance(10)


# Hostile names

HOSTILE = "\x1b[31mred\x1b]0;title\x07\r\nnext\x00\x9b\u202e[bold]x[/bold]\udcff"


def test_a_hostile_text_becomes_one_visible_line():
    assert visible(HOSTILE) == ("\\x1b[31mred\\x1b]0;title\\x07\\r next\\x00\\x9b\\u202e[bold]x[/bold]\\udcff")
    assert visible("plain, naïve, 写真 – ok\\n") == "plain, naïve, 写真 – ok\\n"


def assert_tame(text: str) -> None:
    assert not {"\x1b", "\x07", "\r", "\x00", "\x9b", "\u202e"} & set(text)
    assert "[bold]x[/bold]" in text, "somebody read orders in it"


def test_messages_contain_no_control_characters(capsys):
    with StageProgress() as shown:
        shown.say(HOSTILE)
    printed = capsys.readouterr().err
    assert_tame(printed)
    assert printed.count("\n") == 1


def test_a_summary_is_tame_whatever_the_captions_say():
    page = io.StringIO()
    manifest = RunManifest.model_validate({
        "fairdedup": "1", "versions": {}, "seed": 0, "encoder": None, "stages": {}, "files": {},
        "counts": {"input": 4, "valid": 3, "kept": 2, "removed": 1, "rejected": 1, "readmitted": 1}, "clusters": 1,
        "eps": 0.05, "config": {"prune": {"rule": "fairdedup", "cover": False}},
        "input": {"source": "x.npy", "format": "npy", "kind": "embeddings", "fingerprint": ""},
        "guarantees": {"no_two_kept_are_duplicates": True, "every_removed_has_a_kept_representative": False},
        "warnings": [HOSTILE],
        "shares": [{"attribute": HOSTILE, "group": HOSTILE, "input": 0.25, "kept": 0.5},
                   {"attribute": HOSTILE, "group": "other", "input": 0.75, "kept": 0.5}],
    })  # fmt: skip
    print_summary(manifest, Path("run") / HOSTILE.replace("/", ""), Console(file=page, width=400))
    text = page.getvalue()
    assert_tame(text.replace("[bold]x[bold]", "[bold]x[/bold]"))
    for part in ("input", "66.7% of the valid rows, 1 of them re-admitted", "0.0500", "above 0.9500", "+25.0 points",
                 "-25.0 points", "not guaranteed: removed samples may have no kept duplicate (add --cover)",
                 "reasons in run"):  # fmt: skip
        assert part in text, part


def test_a_sweep_is_a_table():
    page = io.StringIO()
    print_sweep([SweptFraction(keep=0.3, kept=1200, eps=0.0312, readmitted=2)], Console(file=page, width=80))
    header, line = page.getvalue().splitlines()
    assert header.split() == ["keep", "kept", "eps", "re-admitted"] and line.split() == ["0.3", "1,200", "0.0312", "2"]
