"""YAML files whose aliases expand to too much are refused first; others are read as written."""

from __future__ import annotations

import re
import time
import tracemalloc

import pytest
from runs import command

from fairdedup.config import read_yaml
from fairdedup.errors import UserError
from fairdedup.stages.caption_embedding import read_captions
from fairdedup.yaml_files import MOST_BYTES, MOST_LETTERS, MOST_NODES, TooLargeError, parse_yaml

LAUGHS = "a0: &a0 [lol]\n" + "".join(f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]\n" for k in range(1, 10))
BOMBS = {  # a few hundred bytes each, except for the long text
    "a billion laughs": LAUGHS + "keep: *a9\n",
    "mappings": "b0: &b0 {x: 1}\n" + "".join(
        f"b{k}: &b{k} {{{', '.join(f'k{n}: *b{k - 1}' for n in range(10))}}}\n" for k in range(1, 10)),
    "merges": "b0: &b0 {x: 1}\n" + "".join(
        f"b{k}: &b{k} {{<<: [{', '.join([f'*b{k - 1}'] * 10)}]}}\n" for k in range(1, 10)),
    "aliases as keys": "? &k [a, b]\n: 1\nx: [" + ", ".join(["*k"] * (MOST_NODES // 3 + 1)) + "]\n",
    "a long text": f"t: &t {'x' * 100_000}\nall: [{', '.join(['*t'] * (MOST_LETTERS // 100_000 + 1))}]\n",
    "a circle": "input: &a [*a]\n",
    "a circle of two": "input: &a {b: &b [*a]}\n",
}  # fmt: skip


@pytest.mark.parametrize("bomb", BOMBS)
def test_an_alias_bomb_is_refused_in_one_short_line_without_being_expanded(bomb, tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text(BOMBS[bomb])
    tracemalloc.start()
    began = time.monotonic()
    with pytest.raises(TooLargeError):
        parse_yaml(BOMBS[bomb])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200e6 and time.monotonic() - began < 20
    for read in (read_yaml, read_captions):
        with pytest.raises(UserError) as caught:
            read(file)
        assert "aliases" in str(caught.value) and len(str(caught.value)) < 400 and "\n" not in str(caught.value)


@pytest.mark.parametrize("bomb", ["a billion laughs", "a circle"])
def test_the_command_line_prints_nothing_of_a_bomb(bomb, tmp_path):
    (tmp_path / "c.yaml").write_text(BOMBS[bomb])
    shown = command("run", "x.npy", "--config", tmp_path / "c.yaml")
    assert shown.code == 2 and shown.err.count("\n") == 1 and len(shown.err) < 400
    assert "Write the values out, or fewer of them." in shown.err


def test_the_remedy_works_and_modest_aliases_and_merges_stay(tmp_path):
    (tmp_path / "c.yaml").write_text("keep: 0.5\ntarget: &t {age: {old: 0.5, young: 0.5}}\ntemperature: 0.1\n")
    assert read_yaml(tmp_path / "c.yaml")["target"] == {"age": {"old": 0.5, "young": 0.5}}
    assert parse_yaml("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: [*a, *a]\n") == {
        "a": {"x": 1, "y": 2},
        "b": {"x": 1, "y": 3},
        "c": [{"x": 1, "y": 2}] * 2,
    }


def test_a_file_that_is_too_large_for_a_configuration_is_refused_and_a_shorter_one_is_read(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("# " + "x" * MOST_BYTES + "\nkeep: 0.5\n")
    with pytest.raises(UserError, match=re.escape("is larger than 1,024 KiB") + ".*: shorten it"):
        read_yaml(file)
    file.write_text("# " + "x" * 10_000 + "\nkeep: 0.5\n")
    assert read_yaml(file) == {"keep": 0.5}


def test_a_long_value_is_shortened_in_the_message(tmp_path):
    (tmp_path / "c.yaml").write_text(f"keep: [{', '.join(['1'] * 20_000)}]\n")
    shown = command("run", "x.npy", "--config", tmp_path / "c.yaml")
    assert shown.code == 2 and shown.err.count("\n") == 1 and len(shown.err) < 600 and "..." in shown.err


LARGE_NUMBERS = ["0x" + "f" * 6000, "0b" + "1" * 40_000, "0" + "7" * 9000, "9" * 6000]
MISFITS = [
    "!!int ''",
    "!!bool maybe",
    "!!float ''",
    "!!timestamp noon",
    "!!timestamp {a: 1}",
    "!!int [1]",
    "!!null [1]",
]


@pytest.mark.parametrize("value", [*LARGE_NUMBERS, *MISFITS])
def test_a_value_that_does_not_fit_its_tag_or_is_too_large_is_refused_in_one_line(value, tmp_path):
    file = tmp_path / "c.yaml"
    for text in (f"keep: {value}\n", f"a: [{{b: {value}}}]\n", f"{{{value}: 1}}\n"):
        file.write_text(text)
        with pytest.raises(UserError, match="is not valid YAML") as caught:
            read_yaml(file)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000
        with pytest.raises(UserError, match=r"is not valid YAML|extra inputs|field required"):
            read_captions(file)


@pytest.mark.parametrize("key", ["input", "out", "against", "exclude_near", "drop", "prototypes", "model", "where"])
def test_a_null_character_is_refused(key, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fairdedup.yaml").write_text(f'{key}: {"[" * (key == "against")}"a\\0b"{"]" * (key == "against")}\n')
    shown = command("run", *(["x.npy"] if key != "input" else []), "--keep", 0.5)
    assert shown.code == 2 and "has a null character, which no name can hold. Remove it." in shown.err, shown.err
    assert shown.err.count("\n") == 1
