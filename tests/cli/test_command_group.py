"""A command that does not exist is answered by what was probably meant."""

from __future__ import annotations

import pytest
from runs import command


@pytest.mark.parametrize(("words", "meant"), [
    (["photos/"], "run photos/"),
    (["photos/", "--keep", "0.5"], "run photos/ --keep 0.5"),
    (["data-{0..3}.tar"], "run 'data-{0..3}.tar'"),
    (["photos"], "run photos"),  # a folder of this name is there
    (["prnue", "r", "--keep", "0.5"], "prune r --keep 0.5"),
])  # fmt: skip
def test_an_input_without_a_command_is_meant_for_run(words, meant, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    shown = command(*words)
    assert shown.code == 2 and shown.err.count("\n") == 1
    assert f"there is no command {words[0]!r}; did you mean `fairdedup {meant}`?" in shown.err


def test_a_word_that_is_near_no_command_leads_to_the_help(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command("fly").err == "fairdedup: error: there is no command 'fly'. See fairdedup --help.\n"
