"""Each odd or hostile input gives kept, removed and rejected rows, or an error of one line.

All of them pass through every stage in this process, with an encoder that only averages colours.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from odd_inputs import TABLE
from runs import table

from fairdedup.datasets import open_input
from fairdedup.errors import UserError


@pytest.mark.parametrize("name", TABLE)
def test_what_must_come_out_comes_out(name: str, run: Any, folder: Path) -> None:
    case = TABLE[name]
    source = case.make(folder)
    if case.error:
        with pytest.raises(UserError) as caught:
            run(source, **case.options)
        message = str(caught.value)
        assert "\n" not in message and all(part in message for part in case.error), message
        return
    counts = run(source, **case.options)["counts"]
    rejected = table(folder.parent / "run" / "rejected")
    reasons = rejected["reason"].tolist()
    assert counts["kept"] + counts["removed"] + counts["rejected"] == counts["input"]
    assert (counts["valid"], counts["rejected"]) == (case.valid, len(reasons)), reasons
    for part, number in case.rejected.items():
        assert sum(part in reason for reason in reasons) >= number, reasons
    if "" not in case.rejected:
        assert sum(case.rejected.values()) == len(reasons), reasons
    assert all(reasons) and all(rejected["source"])
    rows = [*table(folder.parent / "run" / "decisions")["row"], *rejected["row"]]
    assert sorted(rows) == list(range(counts["input"]))


def test_the_table_is_long_enough() -> None:
    assert len(TABLE) >= 60


@pytest.mark.parametrize("name", ["Parquet whose columns drift", "img_emb with tables that drift"])
def test_numbers_are_widened_and_what_disagrees_becomes_text(name: str, run: Any, folder: Path) -> None:
    run(TABLE[name].make(folder))
    kept = pq.read_table(folder.parent / "run" / "kept").to_pydict()
    assert kept["n"] == [1, 2, 3, 4] and kept["x"] == [1.0, 2.0, 1.5, 2.5]
    assert kept["s"] == ['"t"', '"u"', "[1]", "[2]"] or kept["s"] == ["t", "u", "[1]", "[2]"]
    assert kept["only"] == [True, None, None, None] and kept["new"] == [None, None, "v", "w"]


@pytest.mark.parametrize(
    "name", ["metadata.jsonl", "img2dataset", "paths that lead out", "a column of vectors", "bytes"]
)
def test_every_format_is_read_from_any_file_system(name: str, folder: Path) -> None:
    made = TABLE[name].make(folder)
    below = Path(made).relative_to(folder)
    memory = fsspec.filesystem("memory")
    memory.put(str(folder), "inputs", recursive=True)
    archive = Path(shutil.make_archive(str(folder.parent / "z"), "zip", folder))
    inside = "" if made == folder else f"/{below}"
    try:
        local = open_input(str(made))
        for source in (f"memory://inputs{inside}", f"file://{made}", f"zip:/{inside or '/'}::{archive}"):
            other = open_input(source)
            assert [s.name for s in other.shards] == [s.name for s in local.shards], source
            for mine, theirs in zip(local.shards, other.shards, strict=True):
                if local.kind == "images":
                    assert list(map(told, mine.read())) == list(map(told, theirs.read())), source  # type: ignore
                else:
                    np.testing.assert_array_equal(mine.vectors(), theirs.vectors())  # type: ignore[union-attr]
    finally:
        memory.rm("inputs", recursive=True)


def told(sample: Any) -> tuple[Any, ...]:
    return sample.position, sample.id, sample.image, sample.caption, sample.error is None
