"""Words of the YAML file that PyYAML reads in surprising ways, keys that occur twice, and values with keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fairdedup.config import load_config
from fairdedup.errors import UserError
from fairdedup.stages.caption_embedding import read_captions
from fairdedup.yaml_files import RepeatedKeyError, parse_yaml

WORDS: dict[str, Any] = {
    "1:30": "1:30", "190:20:30": "190:20:30", "1:30.5": "1:30.5", "-1:30": "-1:30", "+0:01": "+0:01",
    "90": 90, "1_000": 1000, "0x1f": 31, "0b11": 3, "010": 8, "-5": -5, "+5": 5, "0.5": 0.5, "-0.5": -0.5,
    "1.5e+3": 1500.0,
    ".inf": float("inf"), "no": False, "on": True, "Yes": True, "off": False, "true": True, "~": None, "null": None,
    "'1:30'": "1:30", "a:b": "a:b", "2020-01-02T03:04:05": "time",
}  # fmt: skip


@pytest.mark.parametrize("word", WORDS)
def test_a_word_is_what_it_is(word: str) -> None:
    found = parse_yaml(f"key: {word}")["key"]
    if WORDS[word] == "time":
        assert (found.hour, found.minute) == (3, 4)
    else:
        assert found == WORDS[word] and type(found) is type(WORDS[word])


TWICE = {
    "keep: 0.5\nrule: random\nkeep: 0.6\n": ("keep", 1, 3),
    "target:\n  age:\n    old: 0.5\n    young: 0.5\n    old: 0.6\n": ("old", 3, 5),
    "target: {age: {old: 0.5, old: 0.6}}": ("old", 1, 1),
    "against:\n  - {a: 1,\n     a: 2}\n": ("a", 2, 3),
    "keep: 0.5\n'keep': 0.6": ("keep", 1, 2),
    "1: a\n1: b": (1, 1, 2),
    "base: &b {k: 1}\nmine: {<<: *b,\n k: 1,\n k: 2}": ("k", 3, 4),
    "a: &a {k: 1}\nb: &b {k: 2}\nmine:\n  <<: *a\n  <<: *b\n": ("<<", 4, 5),
}


@pytest.mark.parametrize("text", TWICE)
def test_a_key_twice_is_an_error_with_both_lines(text: str, here: Path) -> None:
    key, first, second = TWICE[text]
    with pytest.raises(RepeatedKeyError) as caught:
        parse_yaml(text)
    assert (caught.value.key, caught.value.first, caught.value.second) == (key, first, second)
    (here / "mine.yaml").write_text(text)
    where = f"in line {first}" if first == second else f"in lines {first} and {second}"
    with pytest.raises(UserError) as refused:
        load_config(Path("mine.yaml"), {})
    assert str(refused.value) == f"--config mine.yaml has the key {str(key)!r} twice, {where}. Remove one of them."


def test_a_merged_key_may_be_overridden() -> None:
    assert parse_yaml("base: &b {k: 1, l: 2}\nmine:\n  <<: *b\n  k: 3\n")["mine"] == {"k": 3, "l": 2}
    assert parse_yaml("a: &a {<<: {k: 1}, k: 2}\nb: *a\nc: {<<: *a}")["c"] == {"k": 2}
    both = "a: &a {k: 1}\nb: &b {k: 2}\nc: {<<: [*a, *b]}"
    assert parse_yaml(both)["c"] == {"k": 1}


def test_a_key_twice_in_a_file_of_captions_is_an_error(here: Path) -> None:
    file = here / "people.yaml"
    file.write_text("templates: ['a {}']\nattributes:\n  age: {concepts: {old: [man]}}\n  age: {concepts: {x: [y]}}\n")
    with pytest.raises(UserError) as caught:
        read_captions(file)
    assert str(caught.value).endswith("people.yaml' has the key 'age' twice, in lines 3 and 4: remove one of them")
    file.write_text("templates: ['a {}']\nattributes:\n  age: {concepts: {old: [man]}}\n")
    assert read_captions(file).attributes["age"].concepts == {"old": ["man"]}


VALUES = {
    "keep: 1:30": ("keep in mine.yaml must be a valid number; got '1:30'.", "keep: 0.5"),
    "seed: 1:30": ("seed in mine.yaml must be a valid integer; got '1:30'.", "seed: 90"),
    "target: {gender: {woman: yes, man: 0.5}}": (
        "target in mine.yaml must be uniform, data, or shares such as {age: {old: 0.5, young: 0.5}}: "
        "target['gender']['woman'] must be a number; got {'gender': {'woman': True, 'man': 0.5}}.",
        "target: {gender: {woman: 0.5, man: 0.5}}"),
    "target: {gender: half}": (
        "target['gender'] must be keys with values; got {'gender': 'half'}.", "target: {age: {old: 0.5, young: 0.5}}"),
    "target: 3": ("target in mine.yaml must be uniform, data, or shares such as {age: {old: 0.5, young: 0.5}}; got 3.",
                  "target: data"),
    "target: fair": ("must be uniform, data, or shares such as", "target: uniform"),
    "target: [0.5]": ("must be uniform, data, or shares such as", "target: {age: {old: 1}}"),
    "temperature: {age: hot}": (
        "temperature in mine.yaml must be a number above 0, auto, or numbers such as {age: 0.1}: temperature['age'] "
        "must be a valid number; got {'age': 'hot'}.", "temperature: {age: 0.1}"),
    "temperature: hot": ("a number above 0, auto, or numbers such as {age: 0.1}; got 'hot'.", "temperature: auto"),
    "temperature: no": ("temperature in mine.yaml must be a number; got False.", "temperature: 0.1"),
    "reserve: 0.5": ("reserve in mine.yaml must be at most 0.3; got 0.5.", "reserve: 0.3"),
    "clusters: 0": ("clusters in mine.yaml must be at least 1; got 0.", "clusters: 1"),
    "clusters: '5'": ("clusters in mine.yaml must be a valid integer; got '5'.", "clusters: 5"),
    "kepe: 0.5": ("kepe in mine.yaml is not an option. Did you mean keep?", "keep: 0.5"),
    "keep: 50": ("--keep must be in (0, 1]; got 50. For 50 %, write 0.5.", "keep: 0.5"),
    "keep: 500": ("--keep must be in (0, 1]; got 500. Write a fraction, such as 0.5.", "keep: 0.5"),
    "eps: 3": ("--eps must be between 0 (removes nothing) and 2, such as 0.05; got 3.", "eps: 0.05"),
    "memory_limit: 4": ("memory_limit in mine.yaml must be an amount of memory, such as 4GiB, or auto; got 4.",
                        "memory_limit: 4GiB"),
    "drop: ''": ("drop in mine.yaml '' is empty. Give a name or leave it out.", "drop: x.txt"),
    "out: 5": ("out in mine.yaml must be a path; got 5.", "out: '5'"),
    "drop: s3://b/x.txt": ("--drop 's3://b/x.txt' is a URL: give a local file", "drop: x.txt"),
    "out: http://h/x": ("cannot hold a run: give a local folder, or a URL of an object store", "out: x"),
    "at-most: 0.5\nat_most: 0.6": ("has at_most in two spellings. Remove one of them.", "at-most: 0.5"),
    "keep: 0.5\neps: 0.1": ("--keep and --eps exclude each other. Give one of --keep, --at-most or --eps.", "eps: 0.1"),
    "rule: prefer": ("--rule prefer needs --prefer COLUMN. Name a column of numbers, such as --prefer width.",
                     "rule: prefer\nprefer: width"),
    "rule: semdedup\nprefer: width": ("works only with --rule prefer; got --rule semdedup. Leave one of them out.",
                                      "prefer: width"),
    "rule: semdedupe": ("must be one of fairdedup, balanced, semdedup", "rule: semdedup"),
    "scheduler: x\nworkers: 2": ("a scheduler has its own workers. Leave --workers out.", "scheduler: x"),
    "- a": ("has no keys. Write lines such as `keep: 0.5`.", "keep: 0.5"),
    "keep: [": ("is not valid YAML at line 1. Fix it.", "keep: 0.5"),
}  # fmt: skip


@pytest.mark.parametrize("text", VALUES)
def test_the_remedy_of_a_message_about_a_key_works(text: str, here: Path) -> None:
    says, remedied = VALUES[text]
    (here / "mine.yaml").write_text(text)
    with pytest.raises(UserError) as caught:
        load_config(Path("mine.yaml"), {})
    assert says in str(caught.value) and "\n" not in str(caught.value)
    (here / "mine.yaml").write_text(remedied)
    assert load_config(Path("mine.yaml"), {})
