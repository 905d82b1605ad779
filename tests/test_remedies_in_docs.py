"""The commands that the documentation gives as remedies run, in its order."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from remedies import call, manifest_of
from runs import raw_vectors

DOCS = Path(__file__).parent.parent / "docs"


def commands_of(page: str, first: str, **words: str) -> list[str]:
    """Return the commands of the block that begins with these words, with some words replaced by those of the test."""
    text = (DOCS / page).read_text(encoding="utf-8")
    (block,) = [b for b in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) if b.startswith(f"fairdedup {first}")]
    lines = [line.partition("#")[0].strip().removeprefix("fairdedup ") for line in block.splitlines()]
    for old, new in words.items():
        lines = [line.replace(old, new) for line in lines]
    return lines


def test_a_line_of_days_goes_on_and_begins_anew_as_documented(place):
    for day in (2, 3, 31):
        np.save(place / f"day{day}.npy", raw_vectors(30, seed=day))
        (place / f"day{day}.ids.txt").write_text("".join(f"d{day}-{row}\n" for row in range(30)))
    names = {f"embeddings-of-day-{day}/": f"day{day}.npy" for day in (2, 3, 31)} | {"embeddings/": "t.parquet"}
    first, *others = commands_of("increments.md", "run embeddings/", **names)
    assert call(f"{first} --prototypes p.npz --clusters 4").code == 0
    for words in others:
        assert call(words).code == 0
    page = (DOCS / "increments.md").read_text(encoding="utf-8")
    again = re.search(r"another cap or rule: `fairdedup (prune day-3 --at-most [0-9.]+)`", page)
    assert again and call(again[1]).code == 0
    by_hand = re.search(r"decide the day by hand \(`fairdedup (prune runs/\S+ --drop) bad-ids\.txt`",
                        (DOCS / "airflow.md").read_text(encoding="utf-8"))  # fmt: skip
    assert by_hand
    (place / "bad.txt").write_text("d3-1\n")
    assert call(re.sub(r"runs/\S+", "day-3", by_hand[1]) + " bad.txt").code == 0
    assert call("replace day-1 --gone some.txt").code == 0
    assert "--drop FILE" in call(commands_of("increments.md", "refit", **names, **{"day-30": "day-3"})[0]).err
    refit, *others = commands_of("increments.md", "refit", **names, **{"day-30": "day-3"})
    assert call(f"{refit} --drop some.txt").code == 0
    for words in others:
        assert call(words).code == 0
    assert manifest_of(place / "day-31")["counts"]["input"] == 30


def test_a_run_is_decided_again_and_repaired_as_documented(place):
    words = {"photos/": "t.parquet", "--clusters 100": "--clusters 4", "vanished.txt": "some.txt"}
    for command in commands_of("run-directory.md", "embed photos/", **words):
        needs = " --prototypes p.npz" if command.startswith(("prune", "sweep")) else ""
        assert call(command + needs).code == 0
    for command in commands_of("run-directory.md", "replace my-run", **words):
        assert call(command).code == 0
    assert manifest_of(place / "my-run")["replaced"]
    keep = " --keep 0.3 --rule balanced --cover --prototypes p.npz"
    assert call(f"prune my-run{keep} --drop some.txt").code == 0
