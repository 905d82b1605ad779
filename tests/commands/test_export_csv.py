"""`fairdedup export --to csv`: the decisions as a table for spreadsheets, and the list of labels for annotators."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from remedies import place  # noqa: F401
from runs import command, done, manifest, raw_vectors, table

from fairdedup.stages.id_export import iterate_decisions
from fairdedup.storage.run_files import write_table
from fairdedup.storage.sealed_files import Seal
from fairdedup.storage.seals import seal

ODD = ["=1+1", "+cmd|x", "-a", "@b", "\tc", "-5", "'=1", "plain", "'q'", "\uff1dx"]
CELLS = ["'=1+1", "'+cmd|x", "'-a", "'@b", "'\tc", "-5", "''=1", "plain", "'q'", "'\uff1dx"]


def read(path: Path) -> list[list[str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


@pytest.fixture
def run(place: Path) -> Path:  # noqa: F811
    """Return a finished run, some of whose ids are formulas for a spreadsheet."""
    x = raw_vectors(60)
    x[50:55] = x[10:15]
    ids = ODD + [f"k{row}" for row in range(len(ODD), 60)]
    pq.write_table(pa.table({"id": ids, "vector": list(x)}), place / "odd.parquet")
    done("run", "odd.parquet", "--keep", 0.8, "--rule", "semdedup", "--clusters", 2, "--out", "run", "--quiet")
    return place / "run"


@pytest.mark.parametrize("what", ["kept", "removed"])
def test_the_table_has_the_decisions_with_the_id_first_and_numbers_stay_numbers(what, run, place):  # noqa: F811
    done("export", "run", "--to", "csv", "--what", what, "--dest", "t.csv", "--keep-formulas")
    decisions = table(run / "decisions")
    expected = decisions[decisions["kept"] == (what == "kept")].reset_index(drop=True)
    types = {"id": str, "representative_id": str}
    found = pd.read_csv(place / "t.csv", dtype=types, keep_default_na=False, na_values={"similarity": [""]})
    assert len(found) > 5 and list(found.columns[:2]) == ["id", "representative_id"]
    names = decisions.set_index("row")["id"]
    assert found["representative_id"].tolist() == names[expected["representative"]].tolist()
    pd.testing.assert_frame_equal(found[list(expected.columns)], expected, check_dtype=False, check_exact=True)


def test_representatives_of_other_parts_and_of_earlier_runs_are_named(tmp_path):
    columns = ("row", "id", "kept", "representative", "representative_id")
    parts = [
        [(0, "a", True, 0, None), (1, "b", False, 2, None), (2, "c", True, 2, None)],
        [(3, "d", False, 0, None), (4, "e", False, -1, "of a day before"), (5, "f", False, -1, None)],
    ]
    seals = []
    for number, rows in enumerate(parts):
        path = tmp_path / f"{number}.parquet"
        schema = pa.schema([("representative_id", pa.string())])
        made = pa.table(dict(zip(columns, map(list, zip(*rows, strict=True)), strict=True)))
        write_table(path, made.set_column(4, schema.field(0), made.column(4).cast(pa.string())))
        seals.append(Seal(path, seal(path), "make it again"))
    removed = pa.concat_tables(iterate_decisions(seals, False))
    found = zip(removed["id"].to_pylist(), removed["representative_id"].to_pylist(), strict=True)
    assert list(found) == [("b", "c"), ("d", "a"), ("e", "of a day before"), ("f", None)]
    kept = pa.concat_tables(iterate_decisions(seals, True))
    assert kept["representative_id"].to_pylist() == kept["id"].to_pylist() == ["a", "c"]


def test_formulas_get_an_apostrophe_unless_they_are_kept(run, place):  # noqa: F811
    done("prune", "run", "--keep", 1.0, "--rule", "semdedup", "--quiet")
    done("export", "run", "--to", "csv", "--dest", "safe.csv")
    done("export", "run", "--to", "csv", "--dest", "raw.csv", "--keep-formulas")
    safe, raw = read(place / "safe.csv"), read(place / "raw.csv")
    assert [line[0] for line in safe[1:11]] == CELLS and [line[0] for line in raw[1:11]] == ODD
    assert safe[0][1] == raw[0][1] == "representative_id"
    assert all(line[1] == line[0] for line in [*safe[1:], *raw[1:]])  # each is kept, and its own representative
    assert [line[2:] for line in safe] == [line[2:] for line in raw]
    assert "-1" not in {line[0] for line in safe} and len(safe) == 61
    shown = command("export", "run", "--to", "csv", "--dest", "safe.csv", "--keep-formulas")
    assert shown.code == 2 and "already exists with other content" in shown.err
    done("export", "run", "--to", "csv", "--dest", "safe.csv")  # the very same


def test_a_table_of_ids_with_apostrophes_is_read_back_by_drop(run, place):  # noqa: F811
    with open(place / "ids.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["id"], *([cell] for cell in CELLS[:6])])
    done("prune", "run", "--keep", 1.0, "--rule", "semdedup", "--drop", "ids.csv", "--quiet")
    assert manifest(run)["counts"]["excluded"] == 6 and manifest(run)["warnings"] == []
    with open(place / "ids.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["id"], ["'=1"]])  # an id of this run, and not that of a cell "=1"
    done("prune", "run", "--keep", 1.0, "--rule", "semdedup", "--drop", "ids.csv", "--quiet")
    assert set(table(run / "rejected")["id"]) == {"'=1"}


def test_suggested_labels_have_no_formulas_and_are_read_back_as_labels(run, place):  # noqa: F811
    x = np.stack(pq.read_table(place / "odd.parquet").column("vector").to_pylist())
    np.savez(place / "f.npz", **{"=a/+p": x[20], "=a/q": x[21]})  # type: ignore[arg-type]
    done("audit", "run", "--prototypes", "f.npz", "--suggest-labels", 60, "--quiet")
    header, *lines = read(run / "report" / "suggested-labels.csv")
    assert header == ["id", "cluster", "kept", "score", "perceived =a"]
    assert {line[0] for line in lines} >= set(CELLS) and not {line[0] for line in lines} & (set(ODD) - set(CELLS))
    assert {line[4] for line in lines} == {"'+p", "q"}
    assert all(float(line[3]) >= 0 and int(line[1]) >= 0 for line in lines)
    labels = [["id", "a"], *([line[0], "pq"[k % 2]] for k, line in enumerate(lines))]
    with open(place / "l.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(labels)
    shown = done("audit", "run", "--labels", "l.csv")
    assert "not in the run" not in shown.out and "are not in the labels" not in shown.out


def test_the_flag_belongs_to_csv_alone(run):
    shown = command("export", "run", "--to", "txt", "--keep-formulas")
    assert shown.code == 2 and "--keep-formulas works only with --to csv, not with --to txt. Leave it out." in shown.err
    done("export", "run", "--to", "txt")
