"""`export --to hf`: Parquet files with the images in them, laid out as `datasets` opens them."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from exports import all_members, ids
from in_process import Here
from runs import command, contents, manifest, table

from fairdedup import UserError
from fairdedup.commands.export import export_samples
from fairdedup.commands.export_options import ExportOptions, ExportResult


def export(run: Path, dest: Path, **options: object) -> ExportResult:
    """Export Parquet files in this process."""
    return export_samples(ExportOptions(run=run, form="hf", dest=str(dest), **options), Here())  # type: ignore[arg-type]


def test_every_kept_sample_is_a_row_with_its_image_and_the_columns_of_kept(shards, images_run, tmp_path):
    result = export(images_run, tmp_path / "hf", shard_samples=8)
    names = sorted(str(path.relative_to(tmp_path / "hf")) for path in (tmp_path / "hf").rglob("*.parquet"))
    assert names == [f"data/train-0000{k}-of-00003.parquet" for k in range(3)]
    tables = [pq.read_table(tmp_path / "hf" / name) for name in names]
    kept, before = table(images_run / "kept"), all_members(shards)
    assert [len(each) for each in tables] == [8, 8, len(kept) - 16]
    rows = [row for each in tables for row in each.to_pylist()]
    assert [row["id"] for row in rows] == ids(images_run, True)
    for row in rows:
        assert row["image"] == {"bytes": before[f"{row['id']}.png"], "path": f"{row['id']}.png"}
    columns = [name for name in tables[0].column_names if name != "image"]
    assert columns == list(kept.columns) and tables[0].column_names[0] == "image"
    for name in ("id", "caption", "url", "stands_for", "width"):
        assert [row[name] for row in rows] == kept[name].tolist()
    assert result.samples == manifest(images_run)["counts"]["kept"] == len(kept) and result.shards == 3
    assert result.bytes == sum((tmp_path / "hf" / name).stat().st_size for name in names)


def test_the_schema_says_that_the_column_holds_images(images_run, tmp_path):
    export(images_run, tmp_path / "hf")
    (file,) = (tmp_path / "hf").rglob("*.parquet")
    metadata = pq.read_schema(file).metadata
    assert json.loads(metadata[b"huggingface"])["info"]["features"] == {"image": {"_type": "Image"}}
    visible = {path.name for path in (tmp_path / "hf").iterdir() if not path.name.startswith(".")}
    assert visible == {"data"}, "datasets would take another file for data"


def test_a_stopped_export_goes_on_and_a_damaged_file_is_written_again(images_run, tmp_path):
    out = tmp_path / "hf"
    export(images_run, out, shard_samples=8)
    whole = contents(out)
    first, second = sorted((out / "data").iterdir())[:2]
    first.write_bytes(first.read_bytes()[:-1])
    (out / ".fairdedup" / "manifest.json").unlink()
    before = second.stat().st_mtime_ns
    export(images_run, out, shard_samples=8)
    assert contents(out) == whole and second.stat().st_mtime_ns == before
    with pytest.raises(UserError, match="has another export"):
        export(images_run, out, shard_samples=9)


def test_what_is_not_in_kept_and_what_has_no_images_is_refused(images_run, finished, tmp_path):
    with pytest.raises(UserError, match="--to hf writes the columns of kept/, which removed samples are not in; got"):
        export(images_run, tmp_path / "hf", what="removed")
    with pytest.raises(UserError, match="has no images to write: use --to txt or --to uids"):
        export(finished, tmp_path / "hf")
    shown = command("export", images_run, "--to", "hf", "--shard-bytes", "1GB")
    assert shown.code == 2 and "--shard-bytes works only with --to webdataset, not with --to hf." in shown.err
    assert not (tmp_path / "hf").exists()


def test_a_column_named_image_is_renamed(tmp_path, run_of):
    from runs import picture

    folder = tmp_path / "in"
    folder.mkdir()
    for k in range(4):
        (folder / f"{k}.png").write_bytes(picture(30 * k))
        (folder / f"{k}.json").write_text(json.dumps({"image": f"old {k}"}))
    run = run_of(folder, "--clusters", 1, "--rule", "semdedup")
    export(run, tmp_path / "hf")
    (file,) = (tmp_path / "hf").rglob("*.parquet")
    rows = pq.read_table(file).to_pylist()
    assert [row["input_image"] for row in rows] == [f"old {row['id'][0]}" for row in rows] and len(rows) == 2
    assert all(row["image"]["bytes"] == (folder / row["id"]).read_bytes() for row in rows)
