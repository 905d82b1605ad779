"""A command that was stopped by its input is repeated in the same run directory, with what its message advises."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from remedies import call, manifest_of
from runs import picture, raw_vectors

WRONG = "embed in --out r"
DEPTH = {
    f"{key}.{ending}.png": seed for seed, (key, ending) in enumerate((k, e) for k in "ab" for e in ("depth", "rgb"))
}


def shard(path: Path, members: dict[str, int], cut: int | None = None) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, seed in members.items():
            data = picture(seed)
            header = tarfile.TarInfo(name)
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(buffer.getvalue()[:cut])


@pytest.mark.parametrize(
    ("first", "second", "says", "added", "rows"),
    [
        ({"0.rgb.png": 8}, DEPTH, "--column depth.png, or take each image", "--column rgb.png", 3),
        ({"0.rgb.png": 8}, DEPTH, "--column '*'", "--column '*'", 5),
        ({"a.png": 8}, {"a.png": 9}, "or add --id shard/key", "--id shard/key", 2),
    ],
)
def test_an_option_that_a_message_advises_is_taken_in_the_same_directory(
    place: Path, write_pictures: object, first: dict[str, int], second: dict[str, int], says: str, added: str, rows: int
) -> None:  # fmt: skip
    shard(place / "in" / "0.tar", first)
    shard(place / "in" / "1.tar", second)
    stopped = call(WRONG)
    assert stopped.code == 2 and says in stopped.err, stopped.err
    assert call(WRONG).err == stopped.err  # the same command stops in the same way
    ended = call(f"{WRONG} {added}")
    assert ended.code == 0, ended.err
    assert sum(len(np.load(file)) for file in (place / "r/embeddings/img_emb").glob("*.npy")) == rows
    refused = call(WRONG)  # what is embedded is not thrown away
    assert refused.code == 2 and "was made with other options" in refused.err


def test_an_input_that_was_damaged_and_is_repaired_is_taken_in_the_same_directory(
    place: Path, write_pictures: object
) -> None:  # fmt: skip
    members = {f"{key}.png": seed for seed, key in enumerate("abcd")}
    shard(place / "in" / "0.tar", members, cut=3_000)
    stopped = call(WRONG)
    assert stopped.code == 2 and "Copy or write it again" in stopped.err, stopped.err
    shard(place / "in" / "0.tar", members)
    assert call(WRONG).code == 0
    shard(place / "in" / "0.tar", {"e.png": 5})
    changed = call(WRONG)
    assert changed.code == 2 and "'0.tar' has changed" in changed.err


def test_an_input_with_too_many_rejected_rows_can_be_fixed_in_the_same_run_directory(place: Path) -> None:
    """The message says so; a shard that has not changed is not read again."""
    words = "run in --rule semdedup --eps 0.1 --clusters 2 --out r"
    (place / "in").mkdir()
    x = raw_vectors(40)
    np.save(place / "in/a.npy", x[:20])
    np.save(place / "in/b.npy", np.where(np.arange(20)[:, None] < 9, np.nan, x[20:]))
    np.save(place / "in/c.npy", raw_vectors(20, seed=9))
    shown = call(words)
    assert shown.code == 2 and "fix the input or raise --max-rejected" in shown.err
    first = (place / "r/embeddings/img_emb/img_emb_0.npy").stat()
    np.save(place / "in/b.npy", x[20:])
    (place / "in/c.npy").unlink()
    assert call(words).code == 0
    assert (place / "r/embeddings/img_emb/img_emb_0.npy").stat().st_mtime_ns == first.st_mtime_ns
    assert manifest_of(place / "r")["counts"]["input"] == 40
    assert not (place / "r/embeddings/img_emb/img_emb_2.npy").exists()
