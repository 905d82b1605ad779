"""Runs of versions that wrote no stands_for: every command still reads them, and `prune` adds the column."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from runs import command, done, product, table
from standing import assert_counted

from fairdedup.storage.config_record import read_config_record, write_config_record
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.manifest import read_manifest, write_manifest
from fairdedup.storage.seals import seal

RUN = ("--keep", 0.5, "--clusters", 5)


def without(options: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {stage: {name: v for name, v in own.items() if name != "collect"} for stage, own in options.items()}


@pytest.fixture
def earlier(again: Path) -> Path:
    """Return a run as an earlier version has left it."""
    directory = RunDirectory(again)
    manifest = read_manifest(directory)
    assert manifest is not None
    files = dict(manifest.files)
    for path in (again / "kept").glob("part-*.parquet"):
        pq.write_table(pq.read_table(path).drop_columns(["stands_for"]), path, compression="zstd")
        files[f"kept/{path.name}"] = seal(path)
    write_manifest(directory, manifest.model_copy(update={"files": files, "config": without(manifest.config)}))
    record = read_config_record(directory)
    write_config_record(directory, record.model_copy(update={"options": without(record.options)}))
    return again


def test_commands_that_read_a_run_take_one_of_an_earlier_version(earlier, embeddings, prototypes, scheduler, tmp_path):
    before = product(earlier)
    dask = ("--scheduler", scheduler, "--quiet")
    assert "finished already" in done("run", embeddings, *RUN, "--prototypes", prototypes, "--out", earlier,
                                      "--scheduler", scheduler).err  # fmt: skip
    for form in ("txt", "csv"):
        done("export", earlier, "--to", form, "--dest", tmp_path / form, *dask)
    done("audit", earlier, *dask)
    done("gate", earlier, "--max-rejected", 0.5)
    done("run", embeddings, "--id", "shard/key", "--against", earlier, "--out", tmp_path / "next", *dask)
    done("refit", earlier, "--keep", 0.5, "--clusters", 5, "--out", tmp_path / "refit", *dask)
    assert product(earlier) == before
    assert_counted(tmp_path / "next")
    assert_counted(tmp_path / "refit")


def test_a_replacement_leaves_it_the_columns_that_it_has_and_prune_adds_the_new_one(
    earlier, prototypes, scheduler, tmp_path
):
    columns, ids = list(table(earlier / "kept").columns), table(earlier / "kept")["id"].tolist()
    (tmp_path / "gone.txt").write_text("\n".join(ids[:5]))
    done("replace", earlier, "--gone", tmp_path / "gone.txt", "--scheduler", scheduler, "--quiet")
    decisions, kept = table(earlier / "decisions"), table(earlier / "kept")
    assert list(kept.columns) == columns and kept["id"].tolist() == decisions["id"][decisions["kept"]].tolist()
    done("prune", earlier, "--keep", 0.5, "--prototypes", prototypes, "--scheduler", scheduler, "--quiet")
    assert list(assert_counted(earlier).columns) == [*columns, "stands_for"]


def test_the_same_command_with_a_column_to_collect_is_another_run(earlier, embeddings, prototypes, scheduler):
    shown = command("run", embeddings, *RUN, "--prototypes", prototypes, "--out", earlier, "--collect", "caption",
                    "--scheduler", scheduler, "--quiet")  # fmt: skip
    assert shown.code == 2 and "--collect unset → caption" in shown.err
