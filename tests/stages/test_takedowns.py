"""Lists of ids (--drop, --always-keep, --gone) whose ids the run does not have, or has in another notation."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from runs import command, contents, done, manifest, raw_vectors, table

from fairdedup.datasets import rows

spelled = pytest.mark.skipif(not hasattr(rows, "can_be_text"), reason="needs the readers that write numbers out")
IDS = [1_580_000_000_000 + 1_000_000 * k for k in range(60)]


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory, scheduler: str) -> Path:
    """Return a finished run whose ids are the large whole numbers of a Parquet file."""
    folder = tmp_path_factory.mktemp("numbered")
    vectors = raw_vectors(60)
    pq.write_table(pa.table({"uid": IDS, "embedding": vectors.tolist()}), folder / "x.parquet")
    done("run", folder / "x.parquet", "--keep", 0.5, "--rule", "semdedup", "--clusters", 2, "--out", folder / "run",
         "--scheduler", scheduler, "--quiet")  # fmt: skip
    return folder / "run"


@pytest.fixture
def numbers(numbered: Path, tmp_path: Path) -> Path:
    """Return a copy of it, to be changed."""
    shutil.copytree(numbered, tmp_path / "run")
    return tmp_path / "run"


def test_a_takedown_of_which_no_id_is_there_is_an_error(again: Path, tmp_path: Path, scheduler: str) -> None:
    (tmp_path / "ids.txt").write_text("no\nnone\nnobody\nnever\n")
    asked = ("prune", again, "--keep", 0.5, "--rule", "semdedup", "--drop", tmp_path / "ids.txt", "--scheduler",
             scheduler, "--quiet")  # fmt: skip
    before = contents(again)
    shown = command(*asked)
    assert (shown.code, shown.err) == (
        2,
        f"fairdedup: error: --drop {tmp_path / 'ids.txt'}: 4 of 4 ids are not in the run; the first are 'no', 'none', "
        "'nobody': give ids as the column id of kept/ and rejected/ has them, with the shard before the key where "
        "--id is shard/key, or leave the option out\n",
    )
    assert contents(again) == before
    done(*asked[:6], *asked[8:])  # the remedies
    (tmp_path / "ids.txt").write_text(pq.read_table(next((again / "kept").glob("*.parquet")))["id"][0].as_py())
    done(*asked)
    assert manifest(again)["counts"]["excluded"] == 1 and not manifest(again)["warnings"]


def test_a_takedown_of_which_some_are_there_says_which_are_not(again: Path, tmp_path: Path, scheduler: str) -> None:
    (tmp_path / "ids.txt").write_text("k3\na\nb\nc\nd\nk7\n")  # k7 is a rejected row, so it is in the run
    done("prune", again, "--keep", 0.5, "--rule", "semdedup", "--drop", tmp_path / "ids.txt", "--scheduler",
         scheduler, "--quiet")  # fmt: skip
    assert manifest(again)["warnings"] == [
        f"--drop {tmp_path / 'ids.txt'}: 4 of 6 ids are not in the run; the first are 'a', 'b', 'c'"
    ]


def test_a_list_of_rejected_rows_alone_and_an_empty_list_are_no_error(
    again: Path, tmp_path: Path, scheduler: str
) -> None:
    for text in ("k7\n", "", "\n\n"):
        (tmp_path / "ids.txt").write_text(text)
        done("prune", again, "--keep", 0.5, "--rule", "semdedup", "--drop", tmp_path / "ids.txt", "--scheduler",
             scheduler, "--quiet")  # fmt: skip
        assert manifest(again)["counts"]["excluded"] == 0 and not manifest(again)["warnings"]


def test_a_run_against_others_only_warns(again: Path, tmp_path: Path, scheduler: str) -> None:
    """The list may be of the days before."""
    np.save(tmp_path / "new.npy", raw_vectors(240, seed=5)[:40])
    (tmp_path / "new.ids.txt").write_text("".join(f"new{k}\n" for k in range(40)))
    (tmp_path / "ids.txt").write_text("k3\n")
    done("run", tmp_path / "new.npy", "--against", again, "--out", tmp_path / "day", "--drop", tmp_path / "ids.txt",
         "--scheduler", scheduler, "--quiet")  # fmt: skip
    assert (
        f"--drop {tmp_path / 'ids.txt'}: 1 of 1 id is not in the run; the first is 'k3'"
        in manifest(tmp_path / "day")["warnings"]
    )


def test_vanished_samples_of_which_none_is_there_are_an_error(again: Path, tmp_path: Path, scheduler: str) -> None:
    (tmp_path / "gone.txt").write_text("no\nnone\n")
    asked = ("replace", again, "--gone", tmp_path / "gone.txt", "--scheduler", scheduler, "--quiet")
    before = contents(again)
    shown = command(*asked)
    assert shown.code == 2 and "--gone gone.txt: 2 of 2 ids are not in the run; the first are 'no', 'none'" in shown.err
    assert contents(again) == before
    (tmp_path / "gone.txt").write_text("no\nk3\n")
    done(*asked)
    done(*asked)  # they are among the rejected now, and still known
    assert "k3" in set(table(again / "rejected")["id"])
    (tmp_path / "gone.txt").write_text("")
    done(*asked)


NOTATIONS = {
    "a column of floats": lambda ids, folder: pq.write_table(
        pa.table({"uid": np.array(ids, np.float64)}), folder / "ids.parquet"
    ),
    "floats with a gap, by pandas": lambda ids, folder: pd.DataFrame({"uid": [*ids, None]}).to_parquet(
        folder / "ids.parquet"
    ),
    "floats, by pandas, as CSV": lambda ids, folder: pd.DataFrame({"id": np.array(ids, np.float64)}).to_csv(
        folder / "ids.csv", index=False
    ),
    "a spreadsheet's notation": lambda ids, folder: (folder / "ids.csv").write_text(
        "id\n" + "".join(f"{i:.11e}\n" for i in ids)
    ),
    "a spreadsheet's notation, in lines": lambda ids, folder: (folder / "ids.txt").write_text(
        "".join(f"{i:.11E}\n" for i in ids)
    ),
    "whole numbers": lambda ids, folder: (folder / "ids.txt").write_text("".join(f"{i}\n" for i in ids)),
}


@spelled
@pytest.mark.parametrize("name", NOTATIONS)
def test_ids_in_the_notation_of_floats_are_found(name: str, numbers: Path, tmp_path: Path, scheduler: str) -> None:
    folder = tmp_path / "lists"
    folder.mkdir()
    NOTATIONS[name](IDS[:3], folder)
    (file,) = folder.iterdir()
    to = ("--rule", "semdedup", "--scheduler", scheduler, "--quiet")
    done("prune", numbers, "--keep", 0.5, "--drop", file, *to)
    assert manifest(numbers)["counts"]["excluded"] == 3 and not manifest(numbers)["warnings"]
    rejected = table(numbers / "rejected")
    assert set(rejected["id"]) == {str(i) for i in IDS[:3]} and set(rejected["reason"]) == {f"drop: {file.name}"}
    done("prune", numbers, "--keep", 0.5, "--always-keep", file, *to)
    assert {str(i) for i in IDS[:3]} <= set(table(numbers / "kept")["id"])
    done("replace", numbers, "--gone", file, "--scheduler", scheduler, "--quiet")
    assert set(table(numbers / "rejected")["id"]) == {str(i) for i in IDS[:3]}
    assert manifest(numbers)["replaced"][0]["gone"] == 3 and not manifest(numbers)["warnings"]
    done("prune", numbers, "--keep", 0.6, *to)  # repeats the replacement
    assert set(table(numbers / "rejected")["id"]) == {str(i) for i in IDS[:3]}


@spelled
def test_an_id_that_is_there_as_it_is_written_is_meant(tmp_path: Path, scheduler: str) -> None:
    names = ["1.0", "1", "2.0", "3", "1e3", *(f"x{k}" for k in range(55))]
    np.save(tmp_path / "x.npy", raw_vectors(60))
    (tmp_path / "x.ids.txt").write_text("".join(f"{name}\n" for name in names))
    (tmp_path / "ids.txt").write_text("1.0\n2.0\n3.0\n1000.0\n")
    done("run", tmp_path / "x.npy", "--keep", 0.5, "--rule", "semdedup", "--clusters", 2, "--drop",
         tmp_path / "ids.txt", "--out", tmp_path / "run", "--scheduler", scheduler, "--quiet")  # fmt: skip
    assert set(table(tmp_path / "run" / "rejected")["id"]) == {"1.0", "2.0", "3"}  # and neither 1 nor 1e3
    assert manifest(tmp_path / "run")["warnings"] == [
        f"--drop {tmp_path / 'ids.txt'}: 1 of 4 ids is not in the run; the first is '1000'"
    ]


@spelled
@pytest.mark.parametrize("form", ["{:.11e}", "{}.0", "{}"])
def test_labels_in_the_notation_of_floats_are_matched(form: str, numbers: Path, tmp_path: Path, scheduler: str) -> None:
    (tmp_path / "labels.csv").write_text("id,age\n" + "".join(f"{form.format(i)},{i % 7}\n" for i in IDS))
    done("audit", numbers, "--labels", tmp_path / "labels.csv", "--scheduler", scheduler, "--quiet")
    report = json.loads((numbers / "report" / "audit.json").read_text())
    assert not [note for note in report["notes"] if "not in the" in note]


@spelled
def test_exemplars_in_a_column_of_floats_are_found(numbers: Path, tmp_path: Path, scheduler: str) -> None:
    exemplars = {"id": np.array(IDS[:4], np.float64), "attribute": ["age"] * 4, "concept": ["old", "young"] * 2}
    pq.write_table(pa.table(exemplars), tmp_path / "exemplars.parquet")
    done("prune", numbers, "--keep", 0.5, "--rule", "fairdedup", "--prototypes", tmp_path / "exemplars.parquet",
         "--scheduler", scheduler, "--quiet")  # fmt: skip


@spelled
def test_a_calibration_finds_labels_in_the_notation_of_floats(numbers: Path, tmp_path: Path, scheduler: str) -> None:
    x = raw_vectors(60)
    np.savez(tmp_path / "two.npz", **{"age/old": x[0], "age/young": x[1]})
    (tmp_path / "labels.csv").write_text(
        "id,age\n" + "".join(f"{i:.11e},{('old', 'young')[k % 2]}\n" for k, i in enumerate(IDS))
    )
    shown = done("calibrate", numbers, "--labels", tmp_path / "labels.csv", "--prototypes", tmp_path / "two.npz",
                 "--out", tmp_path / "fitted.parquet", "--scheduler", scheduler)  # fmt: skip
    assert "60 labels" in shown.out
