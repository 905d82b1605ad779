"""If a standard stream is closed, full or left early, the work is still done; the exit code tells what was lost."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from runs import CLUSTERS, manifest

LOST = (
    "fairdedup: error: the command has finished, but its output could not be written (stdout: No space left on "
    "device). Redirect stdout to another place, or use --quiet.\n"
)


def in_shell(words: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash with "$@" as the command."""
    command = [sys.executable, "-m", "fairdedup", *map(str, arguments)]
    return subprocess.run(
        ["bash", "-c", words, "bash", *command], capture_output=True, text=True, env=os.environ | environment
    )


@pytest.fixture
def same(finished: Path, embeddings: Path, prototypes: Path) -> tuple[object, ...]:
    """Return the command that made the finished run."""
    return ("run", embeddings, "--keep", 0.5, "--prototypes", prototypes, "--clusters", CLUSTERS, "--out", finished)


def test_a_run_without_streams_does_its_work(tmp_path, embeddings):
    asked = ("run", embeddings, "--keep", 0.5, "--rule", "semdedup", "--out", tmp_path / "run", "--workers", 1)
    assert in_shell('"$@" <&- >&- 2>&-', *asked).returncode == 0
    assert manifest(tmp_path / "run")["counts"]["kept"] == 119


@pytest.mark.parametrize("words", ['"$@" >&-', '"$@" 2>/dev/full', '"$@" 2>&-'])
def test_a_stream_that_is_closed_and_progress_that_is_lost_are_no_error(words, same):
    ended = in_shell(words, *same)
    assert ended.returncode == 0 and "error" not in ended.stderr


def test_lost_output_is_reported_in_one_line(same):
    ended = in_shell('"$@" >/dev/full', *same)
    assert ended.returncode == 1 and ended.stderr.splitlines(keepends=True)[1:] == [LOST]
    assert in_shell('"$@" >/dev/full', "--help").stderr == LOST
    assert in_shell('"$@" --quiet >/dev/full', *same).returncode == 0, "nothing was lost"


def test_a_mistake_stays_a_mistake_if_it_cannot_be_reported():
    assert in_shell('"$@" >/dev/full 2>/dev/full', "run", "nowhere", "--keep", 7).returncode == 2


@pytest.mark.parametrize("words", ['"$@" | head -0', '"$@" 2>&1 | head -0'])
def test_a_reader_that_leaves_early_is_not_an_error(words, same):
    ended = in_shell(f"set -o pipefail; {words}", *same)
    assert ended.returncode == 0 and "rror" not in ended.stderr


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "ascii:strict"])
def test_characters_missing_from_the_encoding_are_escaped(encoding, again, same, tmp_path):
    run = tmp_path / "\u0394-\U0001f600-run"
    shutil.move(again, run)
    ended = in_shell('"$@"', *same[:-1], run, PYTHONIOENCODING=encoding)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.startswith(f"{tmp_path}/\\u0394-\\U0001f600-run is finished already")
    assert f"kept IDs: {tmp_path}/\\u0394-\\U0001f600-run/kept" in ended.stdout
