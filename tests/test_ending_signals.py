"""SIGTERM and SIGHUP end a command with one line and the exit code of a shell; what was started ends as well."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from runs import done, product, started

from fairdedup.cli import entry
from fairdedup.ending_signals import Stopped, delay_interrupts, handle_stop_signals

CODES = {signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGKILL: -9}
WORDS = ("run", "x.npy", "--keep", 0.5, "--rule", "semdedup", "--clusters", 3, "--out", "run", "--workers", 1)


@pytest.fixture
def handlers():
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def is_alive(group: int) -> bool:
    listed = subprocess.run(["ps", "-eo", "pgid=,stat="], capture_output=True, text=True, check=True).stdout
    return any(line.split()[0] == str(group) and line.split()[1][0] != "Z" for line in listed.splitlines())


@pytest.mark.parametrize(
    ("number", "whole_group"), [(signal.SIGTERM, False), (signal.SIGHUP, True), (signal.SIGKILL, False)]
)
def test_a_run_that_is_ended_prints_one_line_and_leaves_no_process(number, whole_group, tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(5_000, 16)).astype("f4"))
    process = started(tmp_path, *WORDS)
    assert process.stderr is not None
    assert "dashboard" in process.stderr.readline()
    time.sleep(0.2)  # a signal in the middle of printing a line would print it again
    (os.killpg if whole_group else os.kill)(process.pid, number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == CODES[number], err
    ended = "" if number == signal.SIGKILL else f"Ended by {number.name}. Run the same command to resume."
    lines = [line for line in err.splitlines() if "rows/s" not in line]  # of progress
    assert lines == ([f"fairdedup: error: {ended}"] if ended else []), err
    assert out == ""
    for _ in range(100):
        if not is_alive(process.pid):
            break
        time.sleep(0.1)
    assert not is_alive(process.pid)
    if number == signal.SIGTERM:  # the remedy
        again = started(tmp_path, *WORDS, "--quiet")
        assert again.communicate(timeout=120)[1] == "" and again.returncode == 0


def test_a_signal_at_any_place_becomes_an_exit_code(handlers, capsys, monkeypatch):
    handle_stop_signals()

    def kill(number: signal.Signals) -> int:
        monkeypatch.setattr(entry.cli, "main", lambda *_, **__: os.kill(os.getpid(), number) or time.sleep(1))
        return entry.call(["gate", "run"])

    for number in (signal.SIGTERM, signal.SIGHUP):
        assert kill(number) == CODES[number]
        text = f"fairdedup: error: Ended by {number.name}. Run the same command to resume.\n"
        assert capsys.readouterr().err == text
    monkeypatch.setattr(entry.cli, "main", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM) or time.sleep(1))
    assert entry.call(["run", "--restart"]) == 143
    assert "Run the same command without --restart to resume." in capsys.readouterr().err


def test_under_nohup_a_hang_up_stays_ignored(handlers):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    handle_stop_signals()
    os.kill(os.getpid(), signal.SIGHUP)
    with delay_interrupts():
        os.kill(os.getpid(), signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


@pytest.mark.parametrize("ignored", [False, True])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_delayed_signal_ends_the_command_after_the_block(number, ignored, handlers):
    handle_stop_signals()
    before = signal.getsignal(number)
    reached = False
    with pytest.raises(Stopped) as stopped, delay_interrupts(ignored=ignored):
        os.kill(os.getpid(), number)
        time.sleep(0.05)
        reached = True
    assert reached and stopped.value.code == CODES[number] and signal.getsignal(number) == before


def test_a_process_that_is_started_meanwhile_can_be_ended_by_sigterm(handlers):
    handle_stop_signals()
    with delay_interrupts(ignored=True):
        code = "import signal; print(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)"
        child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout == "True\n"


def test_without_handlers_nothing_is_changed(tmp_path: Path):
    before = signal.getsignal(signal.SIGTERM)
    with delay_interrupts():
        assert signal.getsignal(signal.SIGTERM) == before
    assert done("--version").code == 0 and product(tmp_path) is not None
