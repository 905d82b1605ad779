"""`fairdedup plan` prints what a run needs, and the examples of its page are what it prints."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from runs import command, done

PAGE = Path(__file__).resolve().parents[2] / "docs" / "sizing.md"
EXAMPLES = re.findall(r"```text\n\$ (fairdedup plan [^\n]+)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize(("words", "shown"), EXAMPLES, ids=[words for words, _ in EXAMPLES])
def test_the_examples_of_the_page_are_what_is_printed(words, shown):
    printed = done(*shlex.split(words)[1:]).out
    assert [line.rstrip() for line in printed.splitlines()] == shown.splitlines()


def test_the_page_has_examples_of_a_hundred_million_and_a_thousand_million_rows():
    every = " ".join(words for words, _ in EXAMPLES)
    assert {"1e8", "1e9"} <= set(re.findall(r"--rows (\S+)", every))


def test_the_plan_as_json_has_null_for_what_nobody_measured(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = json.loads(done("plan", "--rows", "400e6", "--gpus", 8, "--json").out)
    assert found["size"] == {
        "rows": 400_000_000, "dim": 512, "clusters": 20_000, "kept": 200_000_000, "shards": 40_000, "workers": 8
    }  # fmt: skip
    stages = {stage["name"]: stage for stage in found["stages"]}
    assert stages["embed"]["hours"] is None and "embed" in found["not_measured"]
    assert not list(tmp_path.iterdir())


def test_the_model_and_the_rule_say_more(tmp_path):
    words = ("plan", "--rows", "1e8", "--gpus", 8, "--json")
    stages = {stage["name"]: stage for stage in json.loads(done(*words, "--model", "ViT-B-32").out)["stages"]}
    # 151 million parameters, 4 bytes each, as weights and as the model, and two batches of 32 pictures.
    assert 1.2e9 < stages["embed"]["memory"] < 1.8e9 and "concepts" not in stages
    fair = json.loads(done(*words, "--rule", "balanced").out)
    assert "concepts" in {stage["name"] for stage in fair["stages"]}


@pytest.mark.parametrize("rows", ["1000000", "1e6", "1_000_000", "1000000.0"])
def test_rows_may_be_written_as_people_write_them(rows):
    assert json.loads(done("plan", "--rows", rows, "--json").out)["size"]["rows"] == 1_000_000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--rows", "1.5"), "--rows must be a whole number from 1 to 1e15, such as 1000000 or 400e6; got '1.5'."),
        (("--rows", "many"), "got 'many'."),
        (("--rows", "inf"), "got 'inf'."),
        (("--rows", "1e16"), "got '1e16'."),
        (("--rows", "0"), "got '0'."),
        (("--rows", "10", "--shards", "11"), "--shards 11 is more than the 10 rows: give at most 10"),
        (("--rows", "10", "--clusters", "11"), "--clusters 11 is more than the 10 valid rows: give at most 10"),
        (("--rows", "10", "--keep", "0"), "--keep must be above 0 and at most 1; got 0."),
        (("--rows", "10", "--keep", "nan"), "--keep must be above 0 and at most 1; got nan."),
        (("--rows", "10", "--images-per-second", "0"), "--images-per-second must be a number above 0; got 0."),
        (("--rows", "10", "--image-bytes", "20kB"), "--image-bytes is about images: give --gpus or"),
        (("--rows", "10", "--read-rate", "200MB"), "--read-rate is about images: give --gpus or"),
        (("--rows", "10", "--model", "ViT-B-32"), "--model is about images: give --gpus or"),
        (("--rows", "10", "--gpus", "1", "--model", "ViT-B-99"), "did you mean"),
        (("--rows", "10", "--gpus", "0"), "Invalid value for '--gpus': 0 is not in the range x>=1. See fairdedup plan"),
        ((), "Missing option '--rows'."),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(words, message):
    refused = command("plan", *words)
    assert refused.code == 2 and refused.out == ""
    assert refused.err.startswith("fairdedup: error: ") and refused.err.count("\n") == 1
    assert message in refused.err


def test_a_rate_that_is_not_given_is_asked_for():
    shown = done("plan", "--rows", "1e6", "--gpus", 2).out
    assert "embed: not measured: give --images-per-second." in shown
    shown = done("plan", "--rows", "1e6", "--gpus", 2, "--images-per-second", 500).out
    assert re.search(r"^embed +2 +0\.28 ", shown, re.MULTILINE) and "give --images-per-second" not in shown
