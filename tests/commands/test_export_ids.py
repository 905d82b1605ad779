"""Exported ids are read back by other tools, and the questions of the documentation have the right answers."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from exports import ids
from runs import (
    CLUSTERS,
    command,
    done,
    files,
    manifest,
    raw_vectors,
    table,
)


@pytest.fixture(scope="module")
def uids(tmp_path_factory: pytest.TempPathFactory, scheduler: str) -> Path:
    """Return a finished run whose ids are DataComp's."""
    folder = tmp_path_factory.mktemp("uids")
    np.save(folder / "x.npy", raw_vectors())
    names = [hashlib.md5(str(k).encode()).hexdigest() for k in range(240)]
    names[3], names[4] = "0" * 32, "F" * 32
    (folder / "x.ids.txt").write_text("\n".join(names) + "\n")
    done("run", folder / "x.npy", "--keep", 0.5, "--rule", "semdedup", "--clusters", CLUSTERS, "--out", folder / "run",
         "--scheduler", scheduler, "--quiet")  # fmt: skip
    return folder / "run"


@pytest.mark.parametrize("what", ["kept", "removed"])
def test_uids_are_the_sorted_pairs_that_datacomp_reads(what, uids, export):
    found = np.load(export(uids, "uids", what=what, name="u.npy"))
    wanted = [(int(uid[:16], 16), int(uid[16:32], 16)) for uid in ids(uids, what == "kept")]
    expected = np.sort(np.array(wanted, np.dtype("u8,u8")))
    assert found.dtype == expected.dtype == np.dtype("u8,u8") and len(found) > 100
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("what", "gone"), [("removed", False), ("kept", True)])
def test_no_uids_are_an_empty_array(what, gone, uids, export, scheduler, tmp_path):
    run = shutil.copytree(uids, tmp_path / "run")
    done("prune", run, "--keep", 1, "--rule", "semdedup", "--scheduler", scheduler, "--quiet")
    if gone:
        (tmp_path / "gone.txt").write_text("".join(f"{uid}\n" for uid in ids(run, True)))
        done("replace", run, "--gone", tmp_path / "gone.txt", "--scheduler", scheduler, "--quiet")
    found = np.load(export(run, "uids", what=what, name="u.npy"))
    assert found.dtype == np.dtype("u8,u8") and found.shape == (0,)
    assert export(run, "txt", what=what, name="u.txt").read_bytes() == b""


def test_the_first_id_that_is_not_a_uid_is_named(finished, export, scheduler, tmp_path):
    first = ids(finished, True)[0]
    shown = command("export", finished, "--to", "uids", "--dest", tmp_path / "u.npy", "--scheduler", scheduler)
    assert shown.code == 2 and f"id {first!r} is not of 32 hex digits" in shown.err
    assert os.listdir(tmp_path) == []


def test_removed_ids_as_text_are_what_another_prune_can_drop(again, export, scheduler, prototypes):
    removed, kept = ids(again, False), ids(again, True)
    file = export(again, "txt", what="removed", name="removed.txt")
    assert file.read_text(encoding="utf-8") == "".join(f"{i}\n" for i in removed)
    assert export(again, "txt", name="kept.txt").read_text().splitlines() == kept
    done("prune", again, "--keep", 1, "--rule", "semdedup", "--drop", file, "--scheduler", scheduler, "--quiet")
    assert manifest(again)["warnings"] == [] and manifest(again)["counts"]["excluded"] == len(removed)
    assert ids(again, True) == kept


def test_ids_that_no_line_holds_are_refused_and_all_others_read_back(tmp_path, scheduler, export):
    odd = ["a b ", " \u00e9", "x\x0by\x85z\u2028", "\x1b[31m", "'\"", "tab\t", "a\ufeff", "%"]
    x = raw_vectors(40)
    pq.write_table(pa.table({"id": odd + [f"{k}" for k in range(32)], "embedding": list(x)}), tmp_path / "x.parquet")
    asked = ("--keep", 1, "--rule", "semdedup", "--scheduler", scheduler, "--quiet")
    done("run", tmp_path / "x.parquet", *asked, "--out", tmp_path / "run")
    file = export(tmp_path / "run", "txt", name="kept.txt")
    from fairdedup.datasets.ids import read_ids

    assert read_ids(file, "--drop").to_pylist() == ids(tmp_path / "run", True)
    for bad in ("a\nb", "a\rb", "\ufeffa"):
        table_ = pa.table({"id": [bad, *(f"{k}" for k in range(39))], "embedding": list(x)})
        pq.write_table(table_, tmp_path / "bad.parquet")
        done("run", tmp_path / "bad.parquet", *asked, "--out", tmp_path / "bad", "--restart")
        shown = command("export", tmp_path / "bad", "--to", "txt", "--dest", tmp_path / "bad.txt", "--quiet")
        assert shown.code == 2 and "cannot be a line of a text file" in shown.err and shown.err.count("\n") == 1
        assert not (tmp_path / "bad.txt").exists()


def test_without_dest_the_export_is_written_next_to_the_run(again, scheduler):
    shown = done("export", again, "--to", "txt")
    place = again.with_name("run-kept.txt")
    assert f"kept samples: {len(ids(again, True))}, in {place}" in shown.out
    before = files(place.parent)
    done("export", again, "--to", "txt")
    assert place.read_text().splitlines() == ids(again, True) and files(place.parent) == before
    logged = command("export", again, "--to", "txt", "--log-json")
    event = json.loads(logged.err.splitlines()[-1])
    assert (event["event"], event["samples"], event["path"]) == ("finished", len(ids(again, True)), str(place))


DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: str) -> list[str]:
    """Return the Python blocks of a page of the documentation."""
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)


def test_kept_loads_as_a_hugging_face_dataset(finished, tmp_path):
    (tmp_path / "fairdedup-run").symlink_to(finished)
    (code,) = (block for block in blocks("export.md") if "fairdedup-run/kept" in block)
    code += "\nimport json; print(json.dumps([kept.column_names, list(kept['id']), list(kept['width'])]))"
    away = {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    read = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=os.environ | away, capture_output=True, text=True
    )
    assert read.returncode == 0, read.stderr
    kept = table(finished / "kept")
    assert json.loads(read.stdout) == [list(kept), kept["id"].tolist(), kept["width"].tolist()]


def test_every_question_of_the_documentation_has_the_answer_that_loops_find(images_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("fairdedup-run").symlink_to(images_run)
    rows = table(images_run / "decisions").to_dict("records")
    by_row = {r["row"]: r for r in rows}
    gone = next(r for r in rows if not r["kept"])
    known: dict[str, Any] = {}
    code = blocks("questions.md")
    assert len(code) == len(set(re.findall(r"^(\w+) = ", block, re.M)[-1] for block in code)) == 8
    exec(code[0].replace("'0001'", f"'{gone['id']}'"), known)
    representative = by_row[gone["representative"]]
    assert known["who"].values.tolist() == [[gone["id"], representative["id"], gone["similarity"]]]
    exec(code[1].replace('"0001"', f"{representative['id']!r}"), known)
    assert gone["id"] in known["stands_for"]["id"].tolist()
    assert known["stands_for"]["id"].tolist() == [
        r["id"] for r in rows if r["representative"] == representative["row"] != r["row"]
    ]
    limit = max(r["similarity"] for r in rows if not r["kept"])
    for block in code[2:]:
        exec(block.replace("similarity < 0.95", f"similarity < {limit!r}::DOUBLE"), known)

    sizes = Counter((r["cluster"], r["neighbourhood"]) for r in rows)
    largest = known["largest"]
    assert largest["samples"].tolist() == sorted(sizes.values(), reverse=True)[:20] and largest["samples"][0] > 1
    for line in largest.to_dict("records"):
        own = [r for r in rows if (r["cluster"], r["neighbourhood"]) == (line["cluster"], line["neighbourhood"])]
        assert line["samples"] == len(own) and line["kept"] == sum(r["kept"] for r in own)
        assert line["one_of_them"] in [r["id"] for r in own if r["kept"]]

    doubtful = sorted((r["similarity"], r["row"], r["id"]) for r in rows if not r["kept"] and r["similarity"] < limit)
    assert known["doubtful"]["id"].tolist() == [name for _, _, name in doubtful] and doubtful

    for cluster, line in known["clusters"].iterrows():
        own = [r["kept"] for r in rows if r["cluster"] == cluster]
        assert (line["samples"], line["kept"], line["share"]) == (len(own), sum(own), sum(own) / len(own))
    assert len(known["clusters"]) == len({r["cluster"] for r in rows})

    stands_for = Counter(by_row[r["representative"]]["id"] for r in rows if not r["kept"])
    assert (
        known["popular"].values.tolist()
        == [
            [name, f"caption of {name}", count]
            for name, count in sorted(stands_for.items(), key=lambda x: (-x[1], x[0]))
        ][:20]
    )

    assert set(known["readmitted"]["id"]) == {r["id"] for r in rows if r["readmitted"]}
    assert known["reasons"].values.tolist() == [["truncated PNG image", 1, "data-00002.tar/0030.png"]]
