"""`refit --id shard/key`: ids of lists that lack the shard name the samples they mean, or are refused in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from remedies import call
from runs import manifest, raw_vectors, table

NIGHTS = 2
REFIT = "refit nights/1 --keep 0.5 --rule semdedup --id shard/key --out all"
FIRST, SECOND = (f"{k}/embeddings/img_emb_0" for k in range(NIGHTS))


@pytest.fixture
def nights(place: Path) -> Path:
    """Make two runs whose samples have the same keys; the first has lost two of them, and the second has one more."""
    for k in range(NIGHTS):
        np.save(f"n{k}.npy", raw_vectors(30 + k, seed=k))
        Path(f"n{k}.ids.txt").write_text("".join(f"k{row}\n" for row in range(30 + k)))
    Path("gone.txt").write_text("k1\nk2\n")
    done("run n0.npy --rule semdedup --eps 0.1 --clusters 2 --out nights/0 && run n1.npy --against nights/0 "
         "--out nights/1 && replace nights/0 --gone gone.txt")  # fmt: skip
    return place


def done(words: str) -> None:
    shown = call(words)
    assert shown.code == 0, shown.err


def dropped() -> pd.DataFrame:
    return table(Path("all/rejected")).sort_values("id")


def test_a_list_of_removed_samples_names_those_of_its_run(nights: Path) -> None:
    done(f"{REFIT} --drop nights/0/gone/gone_0.parquet")
    assert dropped()["id"].tolist() == [f"{FIRST}/k1", f"{FIRST}/k2"]
    assert set(dropped()["reason"]) == {"drop: gone_0.parquet"} and not manifest(Path("all"))["warnings"]
    done("prune all --keep 0.4 --rule semdedup --drop nights/0/gone/gone_0.parquet")
    assert dropped()["id"].tolist() == [f"{FIRST}/k1", f"{FIRST}/k2"]


def test_the_same_list_decides_as_one_with_the_shards(nights: Path) -> None:
    done(f"{REFIT} --drop nights/0/gone/gone_0.parquet")
    Path("full.txt").write_text(f"{FIRST}/k1\n{FIRST}/k2\n")
    done(f"{REFIT}2 --drop full.txt")
    for folder in ("kept", "decisions"):
        assert table(Path("all") / folder).equals(table(Path("all2") / folder))


def test_a_key_of_several_samples_is_refused_with_their_ids(nights: Path) -> None:
    shown = call(f"{REFIT} --drop gone.txt")
    assert shown.code == 2 and shown.err.count("\n") == 1
    assert f"--drop gone.txt: 'k1' may be '{FIRST}/k1' or '{SECOND}/k1'" in shown.err
    Path("gone.txt").write_text(f"{FIRST}/k1\n{FIRST}/k2\n")  # as the message advises
    done(f"{REFIT} --drop gone.txt")
    assert dropped()["id"].tolist() == [f"{FIRST}/k1", f"{FIRST}/k2"]


def test_a_key_of_one_sample_is_that_sample_and_others_are_named(nights: Path) -> None:
    Path("some.txt").write_text(f"k30\n{FIRST}/k1\nnobody\n")
    done(f"{REFIT} --drop some.txt")
    assert dropped()["id"].tolist() == [f"{FIRST}/k1", f"{SECOND}/k30"]
    assert manifest(Path("all"))["warnings"][0] == (
        "--drop some.txt: 1 of 3 ids is not in the run; the first is 'nobody'"
    )


def test_lists_of_samples_to_keep_are_matched_as_well(nights: Path) -> None:
    pq.write_table(pa.table({"id": ["k30"]}), "keep.parquet")
    done(f"{REFIT} --drop nights/0/gone/gone_0.parquet --always-keep keep.parquet")
    assert f"{SECOND}/k30" in table(Path("all/kept"))["id"].tolist()
    Path("keep.txt").write_text("k0\n")
    shown = call(f"{REFIT}2 --drop nights/0/gone/gone_0.parquet --always-keep keep.txt")
    assert shown.code == 2 and "--always-keep keep.txt: 'k0' may be" in shown.err


def test_a_list_beside_no_run_of_the_line_does_not_decide_whose_key_it_is(nights: Path) -> None:
    Path("else/gone").mkdir(parents=True)
    Path("nights/0/gone/gone_0.parquet").rename("else/gone/gone_0.parquet")
    shown = call(f"{REFIT} --drop else/gone/gone_0.parquet")
    assert shown.code == 2 and "'k1' may be" in shown.err


def test_the_list_of_a_single_run_is_matched(nights: Path) -> None:
    done("refit nights/0 --keep 0.5 --rule semdedup --id shard/key --out all --drop nights/0/gone/gone_0.parquet")
    assert dropped()["id"].tolist() == ["img_emb_0/k1", "img_emb_0/k2"]
